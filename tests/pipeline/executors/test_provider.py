"""Which executor is chosen, when it is started, and how it is replaced."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fake import Fake
from lmeraser.config.schema import Config, parse
from lmeraser.core.digests import Digest
from lmeraser.errors import BackboneError
from lmeraser.models import known_environments
from lmeraser.models.fingerprint import Fingerprint
from lmeraser.models.known_environments import KnownEnvironment, facts_of
from lmeraser.models.manifest import Model, StageResult
from lmeraser.pipeline.executors import local, provider
from lmeraser.pipeline.executors.provider import ExecutorProvider


class Started:
    """Stands in for an executor that is expensive to start; counts them."""

    def __init__(self, config: Config, backbone: object = None) -> None:
        self.config = config
        self.backbone: Any = Digest.of(b"loaded") if backbone is None else backbone
        self.fingerprint = Digest.of(b"environment")
        self.closed = False

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was started so far, in this process or as a pool."""
    every: list[Any] = []

    def start(config: Config, backbone: object = None, **_: object) -> Any:
        every.append(Started(config, backbone))
        return every[-1]

    monkeypatch.setattr(local, "LocalExecutor", start)
    monkeypatch.setattr(provider, "worker_pool", start)
    return every


def of(**settings: Any) -> Callable[[], Config]:
    return lambda: parse(settings)


def model(config: Config) -> Model:
    stage = StageResult(key=Digest.of(b"key"), artifact=Digest.of(b"artifact"), fingerprint=Digest.of(b"here"))
    return Model(
        generation=0,
        parent=None,
        settings=config.model_settings(),
        classes=("a",),
        backbone=Digest.of(b"backbone"),
        backbone_name=config.backbone.name,
        partition=stage,
        clusters=(),
        revision=0,
    )


def test_the_backbone_is_loaded_at_first_use_and_once(started: list[Any]) -> None:
    steps: list[str] = []
    executors: Any = ExecutorProvider(of(), progress=lambda step, *_: steps.append(step))
    assert (started, executors.is_loaded) == ([], False)
    assert executors.local() is executors.for_training() is started[0]
    assert executors.is_loaded
    assert (len(started), steps) == (1, ["loading the backbone"])
    executors.close()
    assert not started[0].closed


def test_a_pool_trains_where_the_settings_name_one_and_is_closed(started: list[Any]) -> None:
    executors: Any = ExecutorProvider(of(compute={"executor": "processes"}))
    executors.close()
    assert started == [], "nothing was started, so there is nothing to stop"
    assert executors.for_training() is executors.for_training() is started[0]
    assert not executors.is_loaded, "this process needs no backbone for it"
    executors.close()
    assert started[0].closed


@pytest.mark.parametrize("where", ["local", "processes"])
def test_a_model_with_other_settings_runs_in_this_process_with_its_own(started: list[Any], where: str) -> None:
    settings = of(compute={"executor": where, "workers": 2})
    executors = ExecutorProvider(settings)
    same, other = model(settings()), model(parse({"seed": 7}))
    assert executors.for_model(same) is executors.for_training()
    assert executors.local_for_model(same) is executors.local()
    before = len(started)
    assert executors.for_model(other) is started[before]
    assert started[before].config.seed == 7
    assert started[before].config.compute.workers == 2


@pytest.mark.parametrize(
    ("here", "ran_on"), [(b"the pool's", "asking process"), (b"another", "new workers"), (None, "new workers")]
)
def test_an_audit_asks_none_of_the_workers_that_trained(
    monkeypatch: pytest.MonkeyPatch, here: bytes | None, ran_on: str
) -> None:
    pools: list[Any] = []

    def start(config: Config, backbone: object = None, prefer: object = None, **_: object) -> Any:
        if prefer is None and here is None:
            raise BackboneError("No GPU in this process")
        one = Started(config, backbone)
        one.fingerprint = Digest.of(b"the pool's" if prefer is not None else here or b"")
        if prefer is not None:
            pools.append(one)
        return one

    monkeypatch.setattr(local, "LocalExecutor", start)
    monkeypatch.setattr(provider, "worker_pool", start)
    executors = ExecutorProvider(of(compute={"executor": "processes"}))
    training = executors.for_training()
    auditing, told = executors.for_audit()
    assert told == ran_on
    assert auditing is not training
    assert len(pools) == (2 if ran_on == "new workers" else 1)
    executors.close()
    assert all(pool.closed for pool in pools)


def test_another_executor_is_used_instead(started: list[Any]) -> None:
    executors = ExecutorProvider(of())
    fake: Any = Fake()
    executors.use(fake)
    assert executors.local() is executors.for_training() is fake
    assert started == []


FOUND = Fingerprint(
    torch="2",
    numpy="2",
    scipy="1",
    pillow="13",
    device="cpu X",
    machine="x86_64",
    micro_batch=8,
    canary=Digest.of(b"canary"),
)


def test_a_known_environment_is_not_loaded_before_there_is_work(
    started: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LMERASER_CACHE", str(tmp_path))
    settings = of()
    known_environments.remember(facts_of(settings()), KnownEnvironment(FOUND, Digest.of(b"backbone")))
    executors: Any = ExecutorProvider(settings)
    executor = executors.for_training()
    assert (executor.fingerprint, executor.backbone) == (FOUND.digest, Digest.of(b"backbone"))
    assert executors.for_training() is executor
    assert (started, executors.is_loaded) == ([], False)
    assert executors.for_audit()[0] is started[0], "an audit relies on nothing that was known"
    assert executors.for_training() is started[0]


def test_a_process_that_only_predicts_takes_the_environment_of_the_same_backbone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LMERASER_CACHE", str(tmp_path))
    config = parse({"data": {"modality": "vector", "length": 3}}, base="instant")
    first = local.LocalExecutor(config)
    executors = ExecutorProvider(lambda: config)
    executors.rely_on_known()
    with monkeypatch.context() as patch:
        patch.setattr("lmeraser.pipeline.executors.local.fingerprint", lambda _: pytest.fail("it is known"))
        assert executors.local().fingerprint == first.fingerprint
        with pytest.raises(pytest.fail.Exception):
            ExecutorProvider(lambda: config).local()
    known_environments.remember(facts_of(config), KnownEnvironment(FOUND, Digest.of(b"another backbone")))
    again = ExecutorProvider(lambda: config)
    again.rely_on_known()
    assert again.local().fingerprint == first.fingerprint, "what is known of another backbone is not taken"


def test_a_known_environment_that_is_another_one_is_refused_and_forgotten(
    started: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LMERASER_CACHE", str(tmp_path))
    settings = of()
    known_environments.remember(facts_of(settings()), KnownEnvironment(FOUND, Digest.of(b"backbone")))
    executors: Any = ExecutorProvider(settings)
    with pytest.raises(BackboneError, match="is not the one that an earlier run found"):
        executors.load()
    assert len(started) == 1
    assert known_environments.find(facts_of(settings())) is None
    executors.load()
    assert len(started) == 1, "it is loaded"
