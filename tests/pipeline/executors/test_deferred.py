"""What is known is answered without the other executor; work is handed over to it."""

from __future__ import annotations

import numpy as np
import pytest

from fake import Fake
from lmeraser.config.modalities import View
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


def test_features_that_are_given_are_read_without_loading() -> None:
    vectors = {name: np.arange(3, dtype=np.float32) + number for number, name in enumerate(["a", "b", "c"])}
    reported: list[object] = []
    deferred = DeferredExecutor(KNOWN.digest, Fake.backbone, lambda: pytest.fail("loaded"), given=vectors.get)  # type: ignore[arg-type]

    def features(*views: View) -> dict[str, list[float]]:
        found = deferred.embed(list(vectors), lambda ids: list(ids), lambda *args: reported.append(args), views)  # type: ignore[arg-type]
        return {name: vector.tolist() for name, vector in found}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lmeraser.pipeline.executors.deferred._FETCHED", 2)
        assert features() == features("whole") == {name: vector.tolist() for name, vector in vectors.items()}
        assert features("whole", "whole")["b"] == [1, 2, 3, 1, 2, 3]
    assert reported[:3] == [("embedding records", done, 3) for done in (0, 2, 3)]


def test_what_loading_raises_is_raised() -> None:
    def refuse() -> Fake:
        raise ValueError

    with pytest.raises(ValueError):
        DeferredExecutor(KNOWN.digest, Fake.backbone, refuse).class_vectors()
