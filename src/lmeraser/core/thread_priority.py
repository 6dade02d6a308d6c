"""How much threads give way to others, so that what somebody waits for is not late because much is computed.

Linux only, where every thread has a priority of its own; elsewhere nothing happens. It cannot be taken back
without privileges: what is to be fast stays in a thread that never gave way. Knows nothing about what threads do.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def lower_priority(nice: int) -> None:
    """Lower the priority of this thread, and of those that it starts from now on.

    Args:
        nice: 0 (not at all) to 19; what it gave way before is kept if that is more.
    """
    if sys.platform == "linux":
        mine = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, mine, max(nice, os.getpriority(os.PRIO_PROCESS, mine)))


def run_with_lower_priority(function: Callable[[], T], nice: int) -> T:
    """What a function returns, called in a thread that gives way; this thread waits for it and does not."""
    with ThreadPoolExecutor(1, initializer=lower_priority, initargs=(nice,)) as pool:
        return pool.submit(function).result()
