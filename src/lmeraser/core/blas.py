"""How many threads a BLAS uses: one, while anything computes whose bits depend on it.

The number belongs to the process. A thread that set it, and set it back when it is done, would change it for every
other thread that computes at that moment.
"""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import ExitStack, contextmanager

_lock = threading.Lock()
_inside = 0  # contexts that have been entered and not left, of all threads
_limits = ExitStack()


@contextmanager
def one_blas_thread() -> Generator[None, None, None]:
    """Every BLAS that is loaded works on one thread, until the last of several contexts ends, in whatever thread.

    A library that is loaded inside has its own number until another context begins: import before.
    """
    from threadpoolctl import threadpool_limits

    global _inside
    with _lock:
        _limits.enter_context(threadpool_limits(1, user_api="blas"))  # again: one may have been loaded meanwhile
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside:
                _limits.close()
