"""The parts of a service start and stop together, and no thread or process is left behind."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from conftest import Template
from lmeraser import Eraser
from lmeraser.errors import BackboneError
from lmeraser.pipeline.executors.local import LocalExecutor
from lmeraser.service.model_holder import ModelHolder
from lmeraser.service.service import Service
from serving import config_of, copied, prepared


@pytest.fixture
def root(template: Template, tmp_path: Path) -> Path:
    return copied(prepared(template, "instant"), tmp_path)


def names() -> set[str]:
    return {thread.name for thread in threading.enumerate()}


def test_all_parts_start_and_stop(root: Path) -> None:
    parts = {"prediction-queue", "request-writer", "derivation-supervisor", "callback-sender", "workspace-poller"}
    with Eraser(root) as eraser:
        eraser.session.executors.use(LocalExecutor(config_of("instant")))
        with Service(eraser) as service:
            assert names() >= parts
            assert service.model_holder.current.model.generation == 0
        assert not names() & parts


def test_a_service_that_cannot_start_leaves_nothing_behind(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(holder: ModelHolder) -> None:
        raise BackboneError("no weights")

    monkeypatch.setattr(ModelHolder, "_read_current", broken)
    before = names()
    with Eraser(root) as eraser, pytest.raises(BackboneError), Service(eraser):
        raise AssertionError("started")
    assert names() <= before
