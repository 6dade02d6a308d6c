"""From the acceptance of a deletion on, predictions are those that the model after the deletion will give."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import lmeraser.pipeline.executors.local as local
from conftest import DIGIT_COLUMNS, digits, tiny_config
from lmeraser import Eraser
from lmeraser.config.schema import Config
from lmeraser.core.tensors import to_bytes
from lmeraser.errors import NoModelError
from lmeraser.inference.quarantine import Quarantine, quarantine
from lmeraser.pipeline.executors.local import LocalExecutor
from lmeraser.workspace.registry import Generations

HELD = range(20)
GONE = "digit-0003"


def config_with(**changes: dict[str, Any]) -> Config:
    """Settings of a workspace with a global head; complete, so that the loaded backbone serves the model too."""
    head_only: dict[str, dict[str, Any]] = {
        "backbone": {"resize": 37},
        "prompt": {"width": 4},
        "partition": {"method": "single", "clusters": None},
        "global_head": {"weight": 1.0},
        "constituent": {"kind": "none"},
    }
    return tiny_config(**{**head_only, **changes})


def opened(root: Path, network: LocalExecutor) -> Eraser:
    eraser = Eraser(root)
    eraser.session.executors.use(network)
    return eraser


def made(root: Path, config: Config, network: LocalExecutor) -> None:
    """A trained workspace of twenty digits."""
    Eraser.create(root, config).close()
    with opened(root, network) as eraser:
        eraser.add(digits(HELD), columns=DIGIT_COLUMNS)
        eraser.train()


def left_out(eraser: Eraser) -> Quarantine:
    return quarantine(eraser.workspace, eraser.workspace.generations.require())


def quarantined_head(eraser: Eraser) -> bytes | None:
    head = left_out(eraser).global_head
    return None if head is None else to_bytes(head)


def served_head(eraser: Eraser) -> bytes:
    head = eraser.workspace.generations.require().global_head
    assert head is not None
    return eraser.workspace.store.read(head.artifact)


def shares(eraser: Eraser, images: Sequence[bytes]) -> NDArray[np.float32]:
    return eraser.predictor().batch(images).probabilities


def interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


@pytest.fixture(scope="module")
def network() -> LocalExecutor:
    return LocalExecutor(config_with())


@pytest.fixture(autouse=True)
def loaded_once(monkeypatch: pytest.MonkeyPatch, network: LocalExecutor) -> None:
    """Every executor of this module has the same backbone, which takes long to load."""
    monkeypatch.setattr(local, "load_backbone", lambda config: network.network)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, network: LocalExecutor) -> Path:
    """A trained workspace with nothing but a global head; only copied by the tests."""
    root = tmp_path_factory.mktemp("trained") / "w"
    made(root, config_with(), network)
    return root


@pytest.fixture(scope="module")
def images(trained: Path, network: LocalExecutor) -> list[bytes]:
    """Of some records, the forgotten one too."""
    with opened(trained, network) as eraser:
        return eraser.workspace.records.payloads([GONE, *eraser.record_ids()[:6]])


@pytest.fixture
def root(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "w"))


@pytest.fixture
def eraser(root: Path, network: LocalExecutor) -> Iterator[Eraser]:
    with opened(root, network) as one:
        yield one


# --- accepted ----------------------------------------------------------------------------------------------


def test_without_a_request_nothing_is_left_out(eraser: Eraser) -> None:
    assert left_out(eraser) == Quarantine()
    assert left_out(eraser).global_head is None


@pytest.mark.parametrize(
    "names",
    [{"ids": [GONE]}, {"ids": [f"digit-{n:04d}" for n in HELD[1:]]}],
    ids=["one record", "all but one"],
)
def test_an_accepted_request_has_the_head_and_the_predictions_of_the_model_after_it(
    eraser: Eraser, images: list[bytes], names: dict[str, list[str]]
) -> None:
    before, free = served_head(eraser), shares(eraser, images)
    eraser.request(**names)  # type: ignore[arg-type]
    head, meanwhile = quarantined_head(eraser), shares(eraser, images)
    assert served_head(eraser) == before, "the served model is still the old one"
    eraser.unlearn()
    assert head == served_head(eraser) != before
    np.testing.assert_array_equal(meanwhile, shares(eraser, images))
    assert not np.array_equal(meanwhile, free)
    assert left_out(eraser) == Quarantine()


def test_several_requests_are_left_out_together(eraser: Eraser, images: list[bytes]) -> None:
    eraser.request(ids=[GONE, "digit-0004"])
    alone = quarantined_head(eraser)
    eraser.request(ids=[GONE], subjects=["w1"])
    together, meanwhile = quarantined_head(eraser), shares(eraser, images)
    assert together != alone
    eraser.unlearn()
    assert together == served_head(eraser)
    np.testing.assert_array_equal(meanwhile, shares(eraser, images))


def test_a_request_that_waits_while_another_is_carried_out_is_still_left_out(
    eraser: Eraser, images: list[bytes]
) -> None:
    first = eraser.request(ids=[GONE])
    eraser.request(ids=["digit-0008"])
    both, meanwhile = quarantined_head(eraser), shares(eraser, images)
    eraser.unlearn(request=first.id)
    assert quarantined_head(eraser) == both != served_head(eraser)
    np.testing.assert_array_equal(shares(eraser, images), meanwhile)


def test_a_cancelled_request_leaves_everything_as_it_was(eraser: Eraser, images: list[bytes]) -> None:
    free = shares(eraser, images)
    request = eraser.request(ids=[GONE])
    assert not np.array_equal(shares(eraser, images), free)
    eraser.cancel(request.id)
    assert left_out(eraser) == Quarantine()
    np.testing.assert_array_equal(shares(eraser, images), free)


def test_leaving_records_out_changes_nothing_on_the_disk(eraser: Eraser, images: list[bytes]) -> None:
    def state() -> tuple[object, ...]:
        workspace, sums = eraser.workspace, eraser.workspace.records.statistics.current()
        files = sorted(path.name for path in workspace.root.rglob("*") if not path.name.startswith("records.db"))
        return eraser.model_digest, sums and sums.digest, files, workspace.records.changes.revision

    eraser.request(ids=[GONE])
    before = state()
    assert quarantined_head(eraser) == quarantined_head(eraser)
    shares(eraser, images)
    assert state() == before
    assert eraser.status().up_to_date
    assert GONE in eraser.record_ids()


def test_a_record_that_the_model_does_not_know_is_not_left_out(eraser: Eraser, images: list[bytes]) -> None:
    free = shares(eraser, images)
    eraser.add(digits([30]), columns=DIGIT_COLUMNS)
    eraser.request(ids=["digit-0030"])
    assert left_out(eraser) == Quarantine()
    np.testing.assert_array_equal(shares(eraser, images), free)


def test_with_every_record_left_out_there_is_nothing_to_predict_with(eraser: Eraser, images: list[bytes]) -> None:
    eraser.request(subjects=[f"w{n}" for n in range(5)])
    with pytest.raises(NoModelError) as caught:
        eraser.predict(images[:1])
    for part in (
        "All records are in quarantine",
        "the deletion of every record was accepted",
        "carry the requests out with 'lmeraser unlearn'",
    ):
        assert part in str(caught.value)
    assert eraser.quarantined() == {cluster.number for cluster in eraser.workspace.generations.require().clusters}
    eraser.unlearn()
    with pytest.raises(NoModelError, match="no record is left"):
        eraser.predict(images[:1])


def test_quarantine_can_be_switched_off(eraser: Eraser, images: list[bytes]) -> None:
    free = shares(eraser, images)
    toml = eraser.workspace.root / "lmeraser.toml"
    text = toml.read_text()
    assert "quarantine = true" in text
    toml.write_text(text.replace("quarantine = true", "quarantine = false"))
    with Eraser(eraser.workspace.root) as other:
        other.request(ids=[GONE])
        assert left_out(other) == Quarantine()
        np.testing.assert_array_equal(shares(other, images), free)


# --- carried out, and interrupted --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "accepted"),
    [
        ("lmeraser.unlearning.completion.update_model", False),
        ("lmeraser.workspace.registry.Generations.publish", True),
    ],
    ids=["before the training", "before it is published"],
)
def test_after_an_interruption_predictions_do_not_use_the_record_any_more(
    root: Path,
    network: LocalExecutor,
    images: list[bytes],
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    accepted: bool,
) -> None:
    with opened(root, network) as eraser, monkeypatch.context() as patched:
        free, old = shares(eraser, images), served_head(eraser)
        if accepted:
            eraser.request(ids=[GONE])
        patched.setattr(step, interrupt)
        with pytest.raises(KeyboardInterrupt):
            eraser.unlearn(ids=None if accepted else [GONE])
    with opened(root, network) as again:
        assert GONE not in again.record_ids()
        assert [request.state for request in again.requests()] == ["in_progress"]
        assert served_head(again) == old
        head, meanwhile = quarantined_head(again), shares(again, images)
        assert not np.array_equal(meanwhile, free)
        again.train()
        assert [request.state for request in again.requests()] == ["completed"]
        assert served_head(again) == head
        np.testing.assert_array_equal(shares(again, images), meanwhile)
        assert left_out(again) == Quarantine()


def test_another_request_while_one_is_in_progress_is_left_out_too(
    eraser: Eraser, images: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("lmeraser.unlearning.completion.update_model", interrupt)
        with pytest.raises(KeyboardInterrupt):
            eraser.unlearn(ids=[GONE])
    first = quarantined_head(eraser)
    eraser.request(ids=["digit-0011"])
    both, meanwhile = quarantined_head(eraser), shares(eraser, images)
    assert both != first
    eraser.unlearn()
    assert served_head(eraser) == both
    np.testing.assert_array_equal(shares(eraser, images), meanwhile)


# --- beside constituents -----------------------------------------------------------------------------------


@pytest.fixture
def mixed(tmp_path: Path, network: LocalExecutor) -> Iterator[Eraser]:
    """A trained workspace with a global head and two clusters, each with a head of its own."""
    config = config_with(
        partition={"method": "random", "clusters": 2}, global_head={"weight": 0.5}, constituent={"kind": "head"}
    )
    executor = LocalExecutor(config, network.network)
    made(tmp_path / "mixed", config, executor)
    with opened(tmp_path / "mixed", executor) as eraser:
        yield eraser


def test_beside_constituents_the_clusters_and_the_global_head_are_without_the_record(
    mixed: Eraser, images: list[bytes]
) -> None:
    model = mixed.workspace.generations.require()
    numbers = model.cluster_numbers(mixed.workspace.records.derived.trie_keys(model.partition.key))
    assert set(numbers.values()) == {0, 1}
    free = shares(mixed, images)
    mixed.request(ids=[GONE])
    assert left_out(mixed).clusters == {numbers[GONE]}
    head, batch = quarantined_head(mixed), mixed.predictor().batch(images)
    assert set(batch.clusters.ravel()) == {1 - numbers[GONE]}
    assert not np.array_equal(batch.probabilities, free)
    mixed.request(ids=[next(i for i in sorted(numbers) if numbers[i] != numbers[GONE])])
    assert left_out(mixed).clusters == {0, 1}
    assert quarantined_head(mixed) != head
    alone = mixed.predictor().batch(images)
    assert alone.clusters.shape[1] == 0, "the global head answers alone"
    np.testing.assert_allclose(alone.probabilities.sum(axis=1), 1, rtol=1e-5)
    head = quarantined_head(mixed)
    mixed.unlearn()
    assert served_head(mixed) == head


# --- after an interrupted training -------------------------------------------------------------------------


def interrupted(eraser: Eraser, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train up to the point where the new generation would be served."""
    with monkeypatch.context() as patched:
        patched.setattr(Generations, "publish", interrupt)
        with pytest.raises(KeyboardInterrupt):
            eraser.train()


def test_clusters_stay_left_out_while_another_partition_is_derived(
    tmp_path: Path, network: LocalExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_with(
        partition={"clusters": 4, "sample_size": 12}, global_head={"weight": 0.5}, constituent={"kind": "head"}
    )
    executor = LocalExecutor(config, network.network)
    made(tmp_path / "w", config, executor)
    with opened(tmp_path / "w", executor) as eraser:
        gone, other = eraser.sampled_ids()[0], eraser.sampled_ids()[1]
        model = eraser.workspace.generations.require()
        numbers = model.cluster_numbers(eraser.workspace.records.derived.trie_keys(model.partition.key))
        eraser.request(ids=[gone])
        assert left_out(eraser).clusters == {numbers[gone]}
        eraser.add(digits(range(100, 140)), columns=DIGIT_COLUMNS)
        interrupted(eraser, monkeypatch)
        assert left_out(eraser).clusters == {numbers[gone]}
        eraser.request(ids=[other])
        assert left_out(eraser).clusters == {numbers[gone], numbers[other]}


def test_a_class_that_is_new_since_the_served_model_does_not_answer(
    eraser: Eraser, images: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    eraser.extend_classes(["letter"])
    eraser.add(digits(range(100, 104)), columns=DIGIT_COLUMNS)
    interrupted(eraser, monkeypatch)
    eraser.request(ids=[GONE])
    assert len(eraser.predictor().batch(images).probabilities[0]) == len(eraser.classes) - 1


def test_sums_under_other_settings_are_not_asked(
    root: Path, network: LocalExecutor, images: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = root / "lmeraser.toml"
    file.write_text(file.read_text().replace('views = ["clean"]', 'views = ["clean", "mirror"]'))
    with Eraser(root) as eraser:
        eraser.session.executors.use(LocalExecutor(eraser.workspace.config, network.network))
        interrupted(eraser, monkeypatch)
        assert left_out(eraser) == Quarantine()
        eraser.request(ids=[GONE])
        assert left_out(eraser) == Quarantine(frozenset({0}), without_head=True)
        with pytest.raises(NoModelError, match="depends on records whose deletion was accepted"):
            eraser.predict(images)
        eraser.unlearn()
        assert eraser.predict(images)
