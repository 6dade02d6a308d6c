"""One thread for every BLAS of the process, however contexts of several threads overlap."""

from contextlib import ExitStack

import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from lmeraser.core.blas import one_blas_thread


def _threads() -> set[int]:
    return {int(library["num_threads"]) for library in threadpool_info() if library["user_api"] == "blas"}


def test_a_context_that_ends_first_leaves_one_thread_to_those_that_still_compute() -> None:
    with threadpool_limits(3, user_api="blas"):
        before = _threads()
        first = ExitStack()
        first.enter_context(one_blas_thread())
        second = ExitStack()
        second.enter_context(one_blas_thread())
        first.close()
        assert _threads() == {1}
        second.close()
        assert _threads() == before


def test_the_number_is_as_before_after_an_error() -> None:
    with threadpool_limits(3, user_api="blas"):
        before = _threads()
        with pytest.raises(ZeroDivisionError), one_blas_thread():
            raise ZeroDivisionError
        assert _threads() == before
