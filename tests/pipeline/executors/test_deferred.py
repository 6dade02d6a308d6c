"""What is known is answered without the other executor; work is handed over to it."""

from __future__ import annotations

import pytest

from fake import Fake
from lmeraser.core.digests import Digest
from lmeraser.core.progress import silent
from lmeraser.models.fingerprint import Fingerprint
from lmeraser.pipeline.executors.base import TuneTask
from lmeraser.pipeline.executors.deferred import DeferredExecutor

KNOWN = Fingerprint(
    torch="2",
    numpy="2",
    scipy="1",
    pillow="13",
    device="cpu X",
    machine="x86_64",
    micro_batch=8,
    canary=Digest.of(b"canary"),
)


def test_only_work_loads_the_other_executor() -> None:
    loaded: list[Fake] = []

    def load() -> Fake:
        loaded.append(Fake())
        return loaded[-1]

    deferred = DeferredExecutor(KNOWN.digest, Fake.backbone, load, environment=KNOWN)
    assert (deferred.fingerprint, deferred.backbone) == (KNOWN.digest, Fake.backbone)
    assert deferred.describe() == KNOWN.model_dump(mode="json")
    assert loaded == []
    assert len(list(deferred.embed(["a", "b"], lambda ids: [b"x"] * len(ids), silent))) == 2
    assert loaded[-1].embedded == ["a", "b"]
    task = TuneTask(Digest.of(b"key"), ("a",), (0,), classes=1)
    assert len(list(deferred.tune([task], lambda ids: [b"x"], silent))) == 1
    assert deferred.class_vectors().shape == (12, 6)
    assert DeferredExecutor(KNOWN.digest, Fake.backbone, load).describe() == {"machine": "none"}
    assert len(loaded) == 4


def test_what_loading_raises_is_raised() -> None:
    def refuse() -> Fake:
        raise ValueError

    with pytest.raises(ValueError):
        DeferredExecutor(KNOWN.digest, Fake.backbone, refuse).class_vectors()
