"""No prediction that begins after an acceptance was answered uses what it quarantines, whatever else goes on."""

from __future__ import annotations

import random
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

import lmeraser.executors.local as local
from lmeraser import Eraser
from lmeraser.executors.local import LocalExecutor
from lmeraser.predict import Predictor
from lmeraser.quarantine import quarantine
from lmeraser.service.service import Service
from lmeraser.service.state import Served
from serving import config_of, made

KINDS = ("prompts", "instant")


@pytest.fixture(scope="module")
def network() -> LocalExecutor:
    return LocalExecutor(config_of("prompts"))


@pytest.fixture(autouse=True)
def loaded_once(monkeypatch: pytest.MonkeyPatch, network: LocalExecutor) -> None:
    monkeypatch.setattr(local, "load_backbone", lambda config: network.network)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, network: LocalExecutor) -> dict[str, Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "load_backbone", lambda config: network.network)
        return {kind: made(tmp_path_factory.mktemp(kind) / "w", config_of(kind)) for kind in KINDS}


def opened(root: Path) -> Eraser:
    return Eraser(root)


@pytest.fixture
def root(trained: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained["prompts"], tmp_path / "w"))


@pytest.fixture
def served(root: Path) -> Iterator[Served]:
    with opened(root) as eraser, Served(eraser) as one:
        one.refresh()
        yield one


# --- following -----------------------------------------------------------------------------------------------


def test_what_another_process_accepts_and_publishes_is_followed(root: Path, served: Served) -> None:
    before = served.current
    with opened(root) as beside:
        beside.request(ids=["digit-0003"])
        served.follow()
        assert served.current.left_out.clusters == beside.quarantined() != frozenset()
        assert served.current.model is before.model
        beside.unlearn()
        served.follow()
        assert served.current.model.model_digest == beside.model_digest != before.model.model_digest
    assert served.current.left_out.clusters == frozenset()


def test_nothing_is_read_again_while_nothing_changes(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    current = served.current
    monkeypatch.setattr(Served, "_found", None)
    served.follow()
    served.refresh()
    assert served.current is current


def test_a_generation_that_is_published_while_it_is_looked_at_is_looked_at_again(
    root: Path, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the two, the old generation's clusters are forgotten, and nothing of it would be quarantined."""
    import lmeraser.service.state as state

    def slow(*arguments: object) -> object:
        monkeypatch.setattr(state, "quarantine", quarantine)
        with opened(root) as beside:
            beside.unlearn(ids=["digit-0005"])
            beside.request(ids=["digit-0004"])
        return quarantine(*arguments)  # type: ignore[arg-type]

    with opened(root) as beside:
        beside.request(ids=["digit-0003"])
    monkeypatch.setattr(state, "quarantine", slow)
    served.refresh()
    with opened(root) as beside:
        assert served.current.model.model_digest == beside.model_digest
        served.refresh()
        assert served.current.left_out.clusters == beside.quarantined() != frozenset()


def test_what_was_purged_while_it_was_loaded_is_loaded_in_its_next_generation(
    root: Path, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    load, published = Served._load, served.current.model.generation + 2

    def slow(self: Served, model: object) -> Predictor:
        monkeypatch.setattr(Served, "_load", load)
        with opened(root) as beside:
            beside.unlearn(ids=["digit-0005"])
        return load(self, model)  # type: ignore[arg-type]

    with opened(root) as beside:
        beside.unlearn(ids=["digit-0006"])
    monkeypatch.setattr(Served, "_load", slow)
    served.follow()
    assert served.current.model.generation == published


def test_the_process_keeps_to_one_thread_and_deterministic_kernels_until_it_ends(root: Path) -> None:
    threads, algorithms = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    with opened(root) as eraser, Served(eraser) as one:
        one.refresh()
        eraser.predict(eraser.workspace.records.images(["digit-0001"]))
        assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == (1, True)
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == (threads, algorithms)


# --- the property --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Event:
    """Something that happened, on one clock: an answered acceptance, or a prediction with what it asked."""

    begun: float
    ended: float
    generation: int = -1
    clusters: frozenset[int] = frozenset()
    head: bytes = b""


def head_of(predictor: Predictor) -> bytes:
    return b"" if predictor._head is None else np.asarray(predictor._head["weight"]).tobytes()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(2))
def test_no_prediction_after_an_acceptance_uses_what_it_quarantines(
    trained: dict[str, Path], tmp_path: Path, kind: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Predictions, acceptances and derivations at once; the log of all of them is checked afterwards."""
    root = Path(shutil.copytree(trained[kind], tmp_path / "w"))
    chance, stop = random.Random(seed), threading.Event()
    predictions, accepted = list[Event](), list[tuple[float, str]]()
    forbidden: dict[tuple[int, str], frozenset[int]] = {}
    clean: dict[tuple[int, str], bytes] = {}
    real = Predictor.predict

    def watched(self: Predictor, images: list[bytes]) -> object:
        begun = time.monotonic()
        found = real(self, images)
        asked = frozenset(number for one in found for number in one.clusters)
        event = Event(begun, time.monotonic(), self.model.generation, asked, head_of(self))
        predictions.append(event)
        return found

    monkeypatch.setattr(Predictor, "predict", watched)
    monkeypatch.setattr("lmeraser.service.worker.Worker.start", lambda self: None)
    monkeypatch.setattr("lmeraser.service.worker.Worker.stop", lambda self: None)

    def derive() -> None:
        with opened(root) as beside:
            while not stop.wait(0.05):
                if beside.workspace.requests.all("pending"):
                    beside.unlearn()

    with opened(root) as eraser, Service(eraser) as service:
        images = [record_image for record_image in eraser.workspace.records.images(eraser.record_ids()[:12])]
        from lmeraser.images import decode

        decoded = [decode(image) for image in images]
        full = {0: head_of(service.served.current.predictor)}

        def ask() -> None:
            while not stop.is_set():
                service.predictions.ask([chance.choice(decoded)]).result()
                current = service.served._current
                if not isinstance(current, Exception):
                    full.setdefault(current.model.generation, head_of(current.predictor))

        threads = [threading.Thread(target=one) for one in (ask, ask, derive)]
        for thread in threads:
            thread.start()
        for record in chance.sample(eraser.record_ids()[12:], 5):
            model = eraser.workspace.generations.require()
            numbers = model.numbers(eraser.workspace.records.places(model.partition.key, [record]))
            wish = service_wish(record)
            service.intake.make(
                lambda connection, wish=wish: eraser.workspace.requests.accept(
                    wish, now=eraser.workspace.clock(), connection=connection
                )
            ).result()
            accepted.append((time.monotonic(), record))
            forbidden[model.generation, record] = frozenset(numbers.values())
            clean[model.generation, record] = b"" if kind == "prompts" else full[0]
            time.sleep(chance.uniform(0.0, 0.4))
        stop.set()
        for thread in threads:
            thread.join()
    assert len(predictions) > 10
    for when, record in accepted:
        for event in predictions:
            if event.begun > when:
                assert not event.clusters & forbidden.get((event.generation, record), frozenset())
                if kind == "instant":
                    assert (event.generation, event.head) != (0, full[0])


def service_wish(record: str) -> object:
    from lmeraser.deletion import Wish

    return Wish(ids=[record])
