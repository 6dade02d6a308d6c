"""Threads give way, alone."""

from __future__ import annotations

import os
import sys
import threading

import pytest

from lmeraser.core.thread_priority import lower_priority, run_with_lower_priority

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has priorities of threads")


def mine() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


def test_a_thread_gives_way_with_those_that_it_starts_and_alone() -> None:
    before = mine()
    seen: list[int] = []

    def work() -> int:
        inner = threading.Thread(target=lambda: seen.append(mine()))
        inner.start()
        inner.join()
        lower_priority(0)  # never takes anything back
        return mine()

    assert run_with_lower_priority(work, before + 3) == before + 3
    assert seen == [before + 3]
    assert mine() == before


def test_an_error_is_the_callers() -> None:
    with pytest.raises(ZeroDivisionError):
        run_with_lower_priority(lambda: 1 // 0, 0)
