"""The cost of requests: against brute force over every record, and on a workspace."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import faults
from conftest import DIGIT_COLUMNS, Run, digits
from lmeraser import Eraser
from lmeraser.config.schema import parse
from lmeraser.errors import InputError, NoModelError
from lmeraser.models.partitions.cost import cost_of, ordinary_costs
from lmeraser.models.partitions.trie import find_path, group

trie_key_maps = st.dictionaries(
    st.integers(0, 40).map("r{:02d}".format),
    st.builds(lambda h, b: f"{h}/{b}", st.integers(0, 2), st.text("01", min_size=6, max_size=6)),
    min_size=1,
)


def sizes_of(trie_keys: dict[str, str], limit: int | None) -> dict[str, int]:
    return {path: len(members) for path, members in group(trie_keys, limit).items()}


@given(trie_key_maps, st.none() | st.integers(1, 8))
def test_ordinary_costs_are_those_of_grouping_again_without_the_record(
    trie_keys: dict[str, str], limit: int | None
) -> None:
    before = group(trie_keys, limit)
    costs = ordinary_costs(sizes_of(trie_keys, limit), limit)
    brute = []
    for gone in trie_keys:
        after = group({i: trie_key for i, trie_key in trie_keys.items() if i != gone}, limit)
        tuned = sum(len(members) for members in after.values() if members not in before.values())
        path = find_path(trie_keys[gone], before)
        assert path is not None
        assert costs[path] == tuned
        brute.append(tuned)
    cost = cost_of(sizes_of(trie_keys, limit), limit)
    assert cost.ordinary_share == pytest.approx(sum(brute) / len(trie_keys) ** 2)
    assert cost.expected_share == pytest.approx(cost.ordinary_share)
    assert cost.simulated_share == cost.ordinary_share
    assert (cost.max, cost.p50) == (max(brute), sorted(brute)[(len(brute) - 1) // 2])
    assert (cost.sample_hit_probability, cost.sample_hit_share) == (0, None)


def test_hits_count_with_their_probability() -> None:
    cost = cost_of({"0": 50, "1": 50}, None, sampled=20, hits=[80, 100])
    assert cost.sample_hit_probability == 0.2
    assert cost.sample_hit_share == 0.9
    assert cost.expected_share == pytest.approx(0.59)  # 0.8 * 0.49 + 0.2 * 0.99, as if a hit tuned everything
    assert cost.simulated_share == pytest.approx(0.572)  # 0.8 * 0.49 + 0.2 * 0.9
    assert (cost.p50, cost.p95, cost.max) == (49, 99, 99)


def test_hits_count_whether_they_were_simulated_or_not() -> None:
    sizes = {"0": 50, "1": 30, "2": 20}
    assumed = cost_of(sizes, None, sampled=20)
    simulated = cost_of(sizes, None, sampled=20, hits=[80, 90])
    same = ("expected_share", "p50", "p95", "max", "batches", "sample_hit_probability", "ordinary_share")
    assert [getattr(assumed, name) for name in same] == [getattr(simulated, name) for name in same]
    assert (assumed.simulated_share, assumed.hits_simulated) == (None, 0)
    assert assumed.ordinary_share < assumed.expected_share


def test_where_nothing_is_tuned_a_hit_costs_nothing_either() -> None:
    cost = cost_of({"0": 5, "1": 5}, None, sampled=4, hits=[9], tuned=False)
    assert (cost.expected_share, cost.simulated_share, cost.p95, cost.max, cost.batches[100]) == (0, 0, 0, 0, 0)


def test_a_batch_costs_every_cluster_that_it_touches() -> None:
    batches = cost_of({"0": 50, "1": 50}, None).batches
    assert batches[1] == pytest.approx(0.5)
    assert batches[10] == pytest.approx(1 - 0.5**10)
    assert batches[100] == pytest.approx(1)


@pytest.fixture
def added(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Eraser]:
    """Twelve records, not trained."""
    config = parse({"partition": request.param})
    Eraser.create(tmp_path / "w", config, classes=faults.CLASSES, clock=lambda: faults.NOW).close()
    with faults.opened(tmp_path / "w") as eraser:
        faults.add(eraser, faults.ALL)
        yield eraser


_PRIVATE = {"clusters": 3, "sample_size": 6}
_PUBLIC = {"method": "class_tree", "max_records": 4}


@pytest.mark.parametrize("added", [_PRIVATE, _PUBLIC], indirect=True)
def test_the_cost_before_any_training_is_what_the_requests_cost_then(added: Eraser) -> None:
    cost = added.cost(hits=6)
    assert added.workspace.generations.current() is None
    added.train()
    assert cost.clusters == added.status().clusters
    tuned = [added.plan(ids=[record_id]).records_to_tune for record_id in added.record_ids()]
    assert cost.simulated_share == pytest.approx(sum(tuned) / 12**2)
    assert cost.expected_share >= sum(tuned) / 12**2 - 1e-9
    assert cost.max >= max(tuned)
    assert cost == added.cost(hits=6)


@pytest.mark.parametrize("added", [_PUBLIC], indirect=True)
def test_no_record_shapes_a_class_tree(added: Eraser) -> None:
    cost = added.cost()
    assert (cost.sample_hit_probability, cost.hits_simulated) == (0, 0)
    assert cost.largest_cluster <= 4
    added.train()
    assert not any(added.plan(ids=[record_id]).sample_hit for record_id in added.record_ids())
    assert "no private record" in added.status().fitted_on


@pytest.mark.parametrize("added", [_PRIVATE], indirect=True)
def test_without_records_there_is_no_cost(added: Eraser, tmp_path: Path) -> None:
    added.unlearn(ids=added.record_ids())
    with pytest.raises(InputError, match="No records"):
        added.cost()
    Eraser.create(tmp_path / "empty", parse({})).close()
    with faults.opened(tmp_path / "empty") as empty, pytest.raises(NoModelError):
        empty.cost()


def test_every_report_says_the_same_share(eraser: Eraser, tmp_path: Path) -> None:
    status = eraser.status()
    model = eraser.workspace.generations.require()
    cost = eraser.cost(hits=1)
    plan = eraser.plan(ids=[eraser.record_ids()[0]])
    evaluation = eraser.evaluate(digits(range(100, 104)), columns=DIGIT_COLUMNS, linear=False)
    assert cost.sample_hit_probability > 0
    shares = {report.expected_share for report in (status, model, cost, plan, evaluation)}
    assert shares == {cost.expected_share}
    assert (status.p50, status.p95, status.max) == (cost.p50, cost.p95, cost.max)


def test_the_command(run: Run, eraser: Eraser) -> None:
    report = run("-w", eraser.workspace.root, "cost", "--hits", "2", "--json").json
    assert {"clusters", "expected_share", "p50", "p95", "max", "batches"} <= report.keys()
    assert report["hits_simulated"] == 2
    assert "share of records tuned again by one request" in run("-w", eraser.workspace.root, "cost").out
