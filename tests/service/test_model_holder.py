"""No prediction that begins after an acceptance was answered uses what it quarantines, whatever else goes on."""

from __future__ import annotations

import random
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sqlalchemy import Connection

import lmeraser.pipeline.executors.local as local
from conftest import DIGIT_COLUMNS, Template, digits
from lmeraser import Eraser
from lmeraser.data.images import decode
from lmeraser.errors import CorruptError, NoModelError
from lmeraser.inference.predictor import Predictor
from lmeraser.inference.quarantine import QuarantineScope, current_scope
from lmeraser.models.global_head import global_head
from lmeraser.models.manifest import Model
from lmeraser.pipeline.executors.local import LocalExecutor
from lmeraser.service import model_holder as state
from lmeraser.service.model_holder import ModelHolder
from lmeraser.service.prediction_queue import PredictionBatch
from lmeraser.service.service import Service
from lmeraser.service.supervisor import DerivationSupervisor
from lmeraser.workspace.requests.draft import RequestDraft, Selector
from lmeraser.workspace.requests.state import Request
from lmeraser.workspace.workspace import Workspace
from serving import HELD, PATIENCE, config_of, prepared, until

KINDS = ("prompts", "instant")


@pytest.fixture(scope="module")
def network() -> LocalExecutor:
    return LocalExecutor(config_of("prompts"))


@pytest.fixture(autouse=True)
def loaded_once(monkeypatch: pytest.MonkeyPatch, network: LocalExecutor) -> None:
    monkeypatch.setattr(local, "load_backbone", lambda config: network.network)


@pytest.fixture(scope="module")
def trained(template: Template, network: LocalExecutor) -> dict[str, Path]:
    return {kind: prepared(template, kind, network) for kind in KINDS}


def opened(root: Path) -> Eraser:
    return Eraser(root)


@pytest.fixture
def root(trained: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained["prompts"], tmp_path / "w"))


@pytest.fixture
def served(root: Path) -> Iterator[ModelHolder]:
    with opened(root) as eraser, ModelHolder(eraser) as one:
        one.refresh()
        yield one


# --- following -----------------------------------------------------------------------------------------------


def test_what_another_process_accepts_and_publishes_is_followed(root: Path, served: ModelHolder) -> None:
    before = served.current
    with opened(root) as beside:
        beside.request(ids=["digit-0003"])
        served.load_published()
        assert served.current.quarantined.clusters == beside.quarantined() != frozenset()
        assert served.current.model is before.model
        beside.unlearn()
        served.load_published()
        assert served.current.model.model_digest == beside.model_digest != before.model.model_digest
    assert served.current.quarantined.clusters == frozenset()


def test_what_another_process_accepts_is_left_out_by_the_next_prediction(root: Path, served: ModelHolder) -> None:
    with opened(root) as beside:
        request = beside.request(ids=["digit-0003"])
        assert served.ready().quarantined.clusters == beside.quarantined() != frozenset()
        beside.cancel(request.id)
        assert served.ready().quarantined == QuarantineScope()


def test_nothing_is_read_again_while_nothing_changes(served: ModelHolder, monkeypatch: pytest.MonkeyPatch) -> None:
    current = served.current
    monkeypatch.setattr(ModelHolder, "_read_current", None)
    served.load_published()
    served.refresh()
    assert served.current is current


def test_sizes_of_canvases_are_known_without_reading_the_quarantine(
    root: Path, served: ModelHolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = served.current.canvas_sizes
    monkeypatch.setattr(ModelHolder, "refresh", None)
    assert served.canvas_sizes == sizes


def test_a_generation_that_is_published_while_it_is_looked_at_is_looked_at_again(
    root: Path, served: ModelHolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the two, the old generation's clusters are forgotten, and nothing of it would be quarantined."""

    def slow(workspace: Workspace, model: Model) -> QuarantineScope:
        monkeypatch.setattr(state, "current_scope", current_scope)
        with opened(root) as beside:
            beside.unlearn(ids=["digit-0005"])
            beside.request(ids=["digit-0004"])
        return current_scope(workspace, model)

    with opened(root) as beside:
        beside.request(ids=["digit-0003"])
    monkeypatch.setattr(state, "current_scope", slow)
    served.refresh()
    with opened(root) as beside:
        assert served.current.model.model_digest == beside.model_digest
        served.refresh()
        assert served.current.quarantined.clusters == beside.quarantined() != frozenset()


@pytest.mark.parametrize(
    "load", [ModelHolder.load_published, ModelHolder.refresh], ids=["ahead", "when it is needed"]
)
def test_what_was_purged_while_it_was_loaded_is_loaded_in_its_next_generation(
    root: Path, served: ModelHolder, monkeypatch: pytest.MonkeyPatch, load: Callable[[ModelHolder], None]
) -> None:
    published = served.current.model.generation + 2

    def slow(*arguments: Any) -> Predictor:
        monkeypatch.setattr(state, "Predictor", Predictor)
        with opened(root) as beside:
            beside.unlearn(ids=["digit-0005"])
        return Predictor(*arguments)

    with opened(root) as beside:
        beside.unlearn(ids=["digit-0006"])
    monkeypatch.setattr(state, "Predictor", slow)
    load(served)
    assert served.ready().model.generation == published


def test_artifacts_that_are_not_there_are_an_error_and_no_endless_search(root: Path, served: ModelHolder) -> None:
    with opened(root) as beside:
        beside.unlearn(ids=["digit-0006"])
    for artifact in (root / "artifacts").rglob("*.safetensors"):
        artifact.unlink()
    served.load_published()
    with pytest.raises(CorruptError, match="artifact of the served model is missing"):
        served.ready()


def test_the_process_keeps_to_one_thread_and_deterministic_kernels_until_it_ends(root: Path) -> None:
    threads, algorithms = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    with opened(root) as eraser, ModelHolder(eraser) as one:
        one.refresh()
        eraser.predict(eraser.workspace.records.payloads(["digit-0001"]))
        assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == (1, True)
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == (threads, algorithms)


def test_the_head_is_solved_again_only_for_what_waits(
    trained: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, solved = Path(shutil.copytree(trained["instant"], tmp_path / "i")), list[int]()
    counted = lambda *arguments: solved.append(1) or global_head(*arguments)  # type: ignore[func-returns-value]  # noqa: E731
    monkeypatch.setattr("lmeraser.models.global_head.global_head", counted)
    with opened(root) as eraser, ModelHolder(eraser) as one, opened(root) as beside:
        one.refresh()
        assert solved == []
        first = beside.request(ids=["digit-0003"])
        one.load_published()
        assert solved == []  # nobody has asked yet
        current = one.ready()
        assert len(solved) == 1
        beside.add(digits([30]), columns=DIGIT_COLUMNS)  # moves the ledger, not what waits
        one.load_published()
        assert (one.ready(), len(solved)) == (current, 1)
        beside.cancel(first.id)
        one.load_published()
        assert (one.ready().quarantined, len(solved)) == (QuarantineScope(), 1)


def test_readiness_is_known_without_solving_a_head(
    trained: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every acceptance asks for another head, and a health check has no use for it."""
    root = Path(shutil.copytree(trained["instant"], tmp_path / "i"))
    monkeypatch.setattr("lmeraser.models.global_head.global_head", None)
    with opened(root) as eraser, ModelHolder(eraser) as one, opened(root) as beside:
        one.refresh()
        one.check()
        beside.request(ids=["digit-0003"])
        one.check()
        assert one.current.quarantined.records == ("digit-0003",)
        beside.request(ids=beside.record_ids())
        with pytest.raises(NoModelError):
            one.check()


# --- the property --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Event:
    """A prediction: when it was called for, what answered, and which clusters were asked."""

    begun: float
    generation: int
    clusters: frozenset[int]
    head: bytes


@dataclass
class Log:
    """What happened, on one clock.

    Attributes:
        predictions: of all threads.
        accepted: when an acceptance was answered, and the record that it named.
        members: cluster of each record that is left, by generation.
    """

    predictions: list[Event] = field(default_factory=list)
    accepted: list[tuple[float, str]] = field(default_factory=list)
    members: dict[int, dict[str, int]] = field(default_factory=dict)

    def look(self, eraser: Eraser) -> None:
        model = eraser.workspace.generations.require()
        trie_keys = eraser.workspace.records.derived.trie_keys(model.partition.key)
        self.members[model.generation] = model.cluster_numbers(trie_keys)

    def note(self, begun: float, found: PredictionBatch) -> None:
        asked = frozenset(number for one in found.predictions for number in one.clusters)
        self.predictions.append(
            Event(begun, found.served.model.generation, asked, head_of(found.served.predictor))
        )


def head_of(predictor: Predictor) -> bytes:
    return b"" if predictor._head is None else np.asarray(predictor._head["weight"]).tobytes()


def live(root: Path, records: Sequence[str], pauses: Sequence[float], log: Log) -> None:
    """Predict, accept and derive at once, until the deletion of all these records was accepted."""
    stop = threading.Event()

    def derive() -> None:
        with opened(root) as beside:
            log.look(beside)
            while not stop.wait(0.05):
                if beside.workspace.requests.all("pending"):
                    beside.unlearn()
                    log.look(beside)

    with opened(root) as eraser, Service(eraser) as service:
        images = [decode(image) for image in eraser.workspace.records.payloads(eraser.record_ids()[:12])]

        def ask() -> None:
            while not stop.is_set():
                log.note(time.monotonic(), service.prediction_queue.submit(images[:3]).result())

        threads = [threading.Thread(target=work) for work in (ask, ask, derive)]
        for thread in threads:
            thread.start()
        try:
            for record, pause in zip(records, pauses, strict=True):
                time.sleep(pause)
                draft = RequestDraft(Selector.of([record]))
                now = eraser.workspace.clock()
                service.request_writer.submit(partial(accept, eraser, draft, now)).result(PATIENCE)
                log.accepted.append((time.monotonic(), record))
            until(lambda: len(log.predictions) > 10 and len({event.generation for event in log.predictions}) > 1)
        finally:
            stop.set()
            for thread in threads:
                thread.join()


def accept(eraser: Eraser, draft: RequestDraft, now: datetime, connection: Connection) -> Request:
    return eraser.workspace.request_changes.accept(draft, now=now, connection=connection)


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.long)])
@pytest.mark.parametrize("kind", KINDS)
def test_no_prediction_after_an_acceptance_uses_what_it_quarantines(
    trained: dict[str, Path], tmp_path: Path, kind: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, chance, log = Path(shutil.copytree(trained[kind], tmp_path / "w")), random.Random(seed), Log()
    records = chance.sample([f"digit-{number:04d}" for number in HELD], 6)
    without = heads(root, records) if kind == "instant" else []
    for part in ("start", "stop"):  # models are derived beside the service, where the test can look at them
        monkeypatch.setattr(DerivationSupervisor, part, lambda _: None)
    live(root, records, [chance.uniform(0, 0.4) for _ in records], log)
    assert len(log.predictions) > 10
    assert len({event.generation for event in log.predictions}) > 1
    for event in log.predictions:
        before = [record for when, record in log.accepted if when < event.begun]
        members = log.members[event.generation]
        assert not event.clusters & {members[record] for record in before if record in members}
        if kind == "instant":
            assert event.head in without[len(before) :], "the head of a model without all of them"


def heads(root: Path, records: Sequence[str]) -> list[bytes]:
    """The oracle: heads solved from the statistics without the first 0, 1, 2... of these records."""
    found = []
    with opened(root) as eraser:
        model = eraser.workspace.generations.require()
        for count in range(len(records) + 1):
            left = eraser.workspace.records.statistics.without(records[:count], key=str(model.embedding_key))
            assert left is not None
            found.append(global_head(left, model.config().global_head)["weight"].tobytes())
    assert len(set(found)) == len(found)
    return found
