"""The local executor: the same bits with any number of workers, and no thread left behind."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from conftest import _digits, tiny_config
from lmeraser.core.digests import Digest
from lmeraser.core.progress import silent
from lmeraser.errors import ImageError
from lmeraser.pipeline.executors.base import TuneTask
from lmeraser.pipeline.executors.local import LocalExecutor

IMAGES = {f"r{number:02d}": _digits()[number] for number in range(30)}
IDS = sorted(IMAGES)


def fetch(ids: Sequence[str]) -> list[bytes]:
    return [IMAGES[record_id][0] for record_id in ids]


def executor(workers: int) -> LocalExecutor:
    return LocalExecutor(tiny_config(compute={"workers": workers}))


def task(ids: Sequence[str]) -> TuneTask:
    return TuneTask(Digest.of(repr(ids).encode()), tuple(ids), tuple(IMAGES[i][1] for i in ids), 10)


def embedded(workers: int, ids: Sequence[str]) -> dict[str, Any]:
    pairs = list(executor(workers).embed(ids, fetch, silent))
    assert [record_id for record_id, _ in pairs] == list(ids)
    return dict(pairs)


def test_features_do_not_depend_on_workers_or_on_the_other_records() -> None:
    first = embedded(1, IDS)
    for workers, ids in ((2, IDS), (3, IDS[::-1]), (2, IDS[7:12]), (1, IDS[4:5])):
        other = embedded(workers, ids)
        assert all(np.array_equal(first[record_id], other[record_id]) for record_id in ids)


@pytest.mark.parametrize("clusters", [[IDS], [IDS[:4], IDS[4:], IDS[2:9], IDS[20:]]])
def test_constituents_do_not_depend_on_workers(clusters: list[list[str]]) -> None:
    tasks = [task(ids) for ids in clusters]
    results = [
        {result.key: result.data for result in executor(workers).tune(tasks, fetch, silent)}
        for workers in (1, 2, 5)
    ]
    assert results[0].keys() == {known.key for known in tasks}
    assert results[0] == results[1] == results[2]


def test_constituents_do_not_depend_on_the_memory_for_images() -> None:
    def run(memory: int) -> bytes:
        chosen = tiny_config(backbone={"image_size": 32, "resize": 140}, compute={"image_memory_mb": memory})
        return next(LocalExecutor(chosen).tune([task(IDS)], fetch, silent)).data

    assert run(1) == run(1024)


def test_an_image_that_does_not_decode_stops_the_work() -> None:
    def broken(ids: Sequence[str]) -> list[bytes]:
        return [b"not an image" for _ in ids]

    with pytest.raises(ImageError):
        list(executor(2).embed(IDS, broken, silent))
    with pytest.raises(ImageError):
        list(executor(2).tune([task(IDS[:9]), task(IDS[9:])], broken, silent))


def test_leaving_early_leaves_no_work_and_no_thread_behind() -> None:
    before, reports = threading.active_count(), 0

    def progress(step: str, done: int, total: int | None) -> None:
        nonlocal reports
        reports += 1

    mine = executor(2)
    stream = mine.tune([task(IDS[:9]), task(IDS[9:20]), task(IDS[20:])], fetch, progress)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    reports_at_the_end = reports
    time.sleep(0.3)
    assert reports == reports_at_the_end
    del mine, stream
    gc.collect()
    deadline = time.monotonic() + 60
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert threading.active_count() <= before  # threads of executors before it may have ended too


def test_no_records_are_no_work() -> None:
    assert list(executor(2).embed([], fetch, silent)) == []
    assert list(executor(2).tune([], fetch, silent)) == []
