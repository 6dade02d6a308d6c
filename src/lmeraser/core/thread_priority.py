"""Thread priorities: background computation yields the CPU to threads that answer requests.

On Linux, every thread has a priority of its own; elsewhere these functions change nothing. Without privileges, a
lowered priority cannot be raised again, so work that has to be fast stays in a thread that never lowered its own.
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
        nice: 0 (unchanged) to 19 (lowest); a thread that is already lower stays there.
    """
    if sys.platform == "linux":
        thread_id = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread_id, max(nice, os.getpriority(os.PRIO_PROCESS, thread_id)))


def run_with_lower_priority(function: Callable[[], T], nice: int) -> T:
    """Call a function in a thread of lower priority and wait for its result; this thread keeps its priority.

    Args:
        function: to call.
        nice: see `lower_priority`.
    """
    with ThreadPoolExecutor(1, initializer=lower_priority, initargs=(nice,)) as pool:
        return pool.submit(function).result()
