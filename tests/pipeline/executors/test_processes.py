"""Processes of this machine give the same bytes as this process, and may die."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import DIGIT_CLASSES, DIGIT_COLUMNS, digits, tiny_config
from echo import Echo
from lmeraser import Eraser
from lmeraser.config.schema import Config
from lmeraser.errors import BackboneError
from lmeraser.pipeline.executors.processes import Processes


@pytest.fixture
def backend() -> Iterator[Processes]:
    made = Processes("settings", size=2, gpus=2, create=Echo)
    yield made
    made.stop()


def test_a_call_is_answered_by_another_process(backend: Processes) -> None:
    settings, pid, _, *words = backend.start().submit("say", 1, b"two").result(60).value
    assert (settings, words) == ("settings", [1, b"two"])
    assert pid != os.getpid()


def test_every_process_gets_a_gpu_and_a_new_one_that_of_the_lost_one(backend: Processes) -> None:
    first, second = backend.start(), backend.start()
    assert [handle.submit("say").result(60).value[2] for handle in (first, second)] == ["0", "1"]
    first.stop()
    assert backend.start().submit("say").result(60).value[2] == "0"


def test_a_process_that_ends_is_a_loss_at_once(backend: Processes) -> None:
    handle = backend.start()
    pid = handle.submit("say").result(60).value[1]
    future = handle.submit("sleep")
    os.kill(pid, 9)
    error = future.exception(60)
    assert error is not None
    assert backend.is_loss(error)
    late = handle.submit("say").exception(60)
    assert late is not None
    assert backend.is_loss(late)


def test_an_error_of_the_work_is_a_reply_with_all_its_parts() -> None:
    backend = Processes("broken", size=1, create=Echo)
    error = backend.start().submit("say").result(60).error
    backend.stop()
    assert isinstance(error, BackboneError)
    assert (error.message, error.got, error.next_step) == ("Weights not found", "none", "find them")


def test_stopping_ends_what_is_running(backend: Processes) -> None:
    handle = backend.start()
    pid = handle.submit("say").result(60).value[1]
    handle.submit("sleep")
    backend.stop()
    deadline = time.monotonic() + 120
    while any(child.pid == pid and child.is_alive() for child in multiprocessing.active_children()):
        assert time.monotonic() < deadline
        time.sleep(0.05)


# --- the product on it -------------------------------------------------------------------------------------


_METHODS: dict[str, dict[str, Any]] = {
    "heads": {
        "partition": {"method": "random", "clusters": 2},
        "constituent": {"kind": "head"},
        "compute": {"processes": 1},
    },
    "prompts and global head": {
        "partition": {"clusters": 4, "sample_size": 10},
        "global_head": {"weight": 0.5},
    },
    "SISA": {
        "partition": {"method": "random", "clusters": 2},
        "constituent": {"kind": "network"},
        "tuning": {"epochs": 1, "slices": 2},
    },
}


def config(method: str, executor: str) -> Config:
    chosen = {"compute": {}, **_METHODS[method]}
    compute = {"processes": 2, **chosen.pop("compute"), "executor": executor}
    return tiny_config(**chosen, compute=compute)


def test_a_training_and_a_deletion_give_the_same_model(tmp_path: Path) -> None:
    """In one process beside this one, which is not lost; the long suite has more of them, and kills one."""
    found = []
    for executor in ("local", "processes"):
        with Eraser.create(tmp_path / executor, config("heads", executor), classes=DIGIT_CLASSES) as eraser:
            eraser.add(digits(range(8)), columns=DIGIT_COLUMNS)
            eraser.train()
            digests = [eraser.model_digest]
            eraser.unlearn(ids=["digit-0003"])
            found.append([*digests, eraser.model_digest])
    assert found[0] == found[1]


@pytest.mark.long
@pytest.mark.parametrize("method", ["prompts and global head", "SISA"])
def test_a_training_that_loses_a_process_and_a_deletion_give_the_same_model(tmp_path: Path, method: str) -> None:
    killed: list[int] = []

    def kill(step: str, done: int, total: int | None) -> None:
        children = multiprocessing.active_children()
        if step == "tuning clusters" and not killed and children:
            killed.append(children[0].pid or 0)
            os.kill(killed[0], 9)

    found = []
    for executor, progress in (("local", None), ("processes", kill)):
        options = {"progress": progress} if progress else {}
        folder = tmp_path / executor
        with Eraser.create(folder, config(method, executor), classes=DIGIT_CLASSES, **options) as eraser:  # type: ignore[arg-type]
            eraser.add(digits(range(20)), columns=DIGIT_COLUMNS)
            eraser.train()
            digests = [eraser.model_digest]
            eraser.unlearn(ids=["digit-0003", *eraser.sampled_ids()[:1]])
            digests.append(eraser.model_digest)
            assert eraser.audit().identical
        found.append(digests)
    assert found[0] == found[1]
    assert killed
