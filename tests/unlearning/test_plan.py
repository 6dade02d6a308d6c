"""A plan names exactly the clusters whose members differ, from plain dictionaries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmeraser.config.schema import preset
from lmeraser.core.digests import Digest
from lmeraser.models.manifest import Cluster, Model, StageResult
from lmeraser.unlearning.plan import AffectedCluster, Plan, plan

RESULT = StageResult(key=Digest.of(b"key"), artifact=Digest.of(b"artifact"), fingerprint=Digest.of(b"here"))
EPOCHS = preset("prompts").tuning.epochs


def model() -> Model:
    return Model(
        generation=0,
        parent=None,
        settings=preset("prompts").model_settings(),
        classes=("a",),
        backbone=Digest.of(b"backbone"),
        backbone_name="efficientnet-lite0",
        partition=RESULT,
        clusters=(Cluster(number=0, path="0", records=4, constituent=RESULT),),
        revision=1,
    )


def compare(
    before: Mapping[str, int],
    after: Mapping[str, int],
    removed: Iterable[str],
    *,
    sample_hit: bool,
    already_deleted: int = 0,
    speed: float | None = None,
) -> Plan:
    """The plan where all records are given."""
    return plan(
        model(),
        before,
        after,
        removed,
        retained=len(after),
        sample_hit=sample_hit,
        already_deleted=already_deleted,
        speed=speed,
    )


def test_only_the_clusters_of_the_named_records_are_tuned_again() -> None:
    before = {"a": 0, "b": 0, "c": 1, "d": 1, "e": 2}
    after = {"b": 0, "c": 1, "d": 1, "e": 2}
    made = compare(before, after, ["a"], sample_hit=False, already_deleted=3)
    assert made.affected == (AffectedCluster(0, 2, 1),)
    assert (made.clusters_to_tune, made.records_to_tune, made.share_to_tune) == (1, 1, 0.25)
    assert (made.records, made.already_deleted, made.sample_hit) == (1, 3, False)
    assert made.estimated_seconds is None


def test_a_cluster_that_vanishes_is_affected_but_not_tuned() -> None:
    made = compare({"a": 0, "b": 1}, {"b": 1}, ["a"], sample_hit=False)
    assert made.affected == (AffectedCluster(0, 1, 1),)
    assert (made.clusters_to_tune, made.share_to_tune) == (0, 0)


def test_clusters_that_only_change_their_number_are_not_tuned() -> None:
    before = {"a": 0, "b": 1, "c": 2, "d": 2}
    after = {"b": 0, "c": 1, "d": 1}
    made = compare(before, after, ["a"], sample_hit=True)
    assert made.affected == (AffectedCluster(0, 1, 1),)
    assert made.clusters_to_tune == 0
    assert made.sample_hit


def test_clusters_that_exchange_members_are_affected_without_losing_records() -> None:
    made = compare({"a": 0, "b": 0, "c": 1}, {"b": 0, "c": 0}, ["a"], sample_hit=True)
    assert made.affected == (AffectedCluster(0, 2, 1), AffectedCluster(1, 1, 0))
    assert (made.clusters_to_tune, made.records_to_tune, made.share_to_tune) == (1, 2, 1)


def test_forgetting_everything_tunes_nothing() -> None:
    made = compare({"a": 0, "b": 1}, {}, ["a", "b"], sample_hit=True, speed=10)
    assert (made.clusters_to_tune, made.records_to_tune, made.share_to_tune) == (0, 0, 0)
    assert made.estimated_seconds == 0


def test_forgetting_nothing_changes_nothing() -> None:
    made = compare({"a": 0, "b": 1}, {"a": 0, "b": 1}, [], sample_hit=False, already_deleted=1)
    assert (made.records, made.affected, made.clusters_to_tune) == (0, (), 0)


def test_the_estimate_is_the_work_over_the_measured_speed() -> None:
    made = compare({"a": 0, "b": 0, "c": 0}, {"b": 0, "c": 0}, ["a"], sample_hit=False, speed=4.0)
    assert made.estimated_seconds == pytest.approx(2 * EPOCHS / 4.0)


@st.composite
def _deletions(draw: st.DrawFn) -> tuple[dict[str, int], dict[str, int], set[str]]:
    """Clusters before, and clusters of some of the same records after, with any renumbering."""
    ids = [f"r{number}" for number in range(draw(st.integers(1, 9)))]
    before = {record_id: draw(st.integers(0, 3)) for record_id in ids}
    removed = draw(st.sets(st.sampled_from(ids)))
    shift = draw(st.integers(0, 2))
    moved = draw(st.sets(st.sampled_from(ids), max_size=2))
    after = {
        record_id: draw(st.integers(0, 5)) if record_id in moved else number + shift
        for record_id, number in before.items()
        if record_id not in removed
    }
    return before, after, removed


def groups(clusters: dict[str, int]) -> list[list[str]]:
    return [sorted(i for i, n in clusters.items() if n == number) for number in sorted(set(clusters.values()))]


@given(_deletions(), st.booleans())
def test_what_is_tuned_is_what_brute_force_finds(
    deletion: tuple[dict[str, int], dict[str, int], set[str]], hit: bool
) -> None:
    before, after, removed = deletion
    made = compare(before, after, removed, sample_hit=hit)
    changed = [members for members in groups(after) if members not in groups(before)]
    assert made.clusters_to_tune == len(changed)
    assert made.records_to_tune == sum(map(len, changed))
    assert made.share_to_tune == (sum(map(len, changed)) / len(after) if after else 0)
    assert made.records == len(removed)
    lost = {
        number
        for number in before.values()
        if groups(before)[sorted(set(before.values())).index(number)] not in groups(after)
    }
    assert [cluster.cluster for cluster in made.affected] == sorted(lost)
    assert sum(cluster.records_forgotten for cluster in made.affected) == len(removed)


@given(_deletions())
def test_clusters_that_keep_their_members_may_be_left_out(
    deletion: tuple[dict[str, int], dict[str, int], set[str]],
) -> None:
    before, after, removed = deletion
    kept = [members for members in groups(before) if members in groups(after)]
    left_out = {record_id for members in kept for record_id in members}
    old, new = ({i: n for i, n in clusters.items() if i not in left_out} for clusters in (before, after))
    short = plan(model(), old, new, removed, retained=len(after), sample_hit=False)
    assert short == compare(before, after, removed, sample_hit=False)


def test_the_report_is_plain_json() -> None:
    values: Any = compare({"a": 0, "b": 0}, {"b": 0}, ["a"], sample_hit=False).to_json()
    assert values["affected"] == ({"cluster": 0, "records_before": 2, "records_forgotten": 1},)
    assert set(values) == {
        "records",
        "already_deleted",
        "sample_hit",
        "affected",
        "clusters_to_tune",
        "records_to_tune",
        "share_to_tune",
        "estimated_seconds",
        "expected_share",
        "duplicates",
        "near_duplicates",
        "duplicates_selected",
        "due",
        "urgency",
        "near_misses",
        "open_requests",
        "emptied_classes",
    }


@pytest.mark.parametrize(
    ("days", "urgency", "warned"), [(-1, "past", "was due"), (3, "near", "soon"), (20, "later", "")]
)
def test_a_due_time_that_is_past_or_near_is_warned_of(days: int, urgency: str, warned: str) -> None:
    now = datetime(2026, 3, 1, tzinfo=UTC)
    made = compare({"a": 0}, {}, ["a"], sample_hit=False).with_due(now + timedelta(days=days), now=now)
    assert made.urgency == urgency
    assert [warned in warning for warning in made.warnings] == ([True] if warned else [])


def test_duplicates_are_warned_of() -> None:
    made = replace(compare({"a": 0}, {}, ["a"], sample_hit=False), duplicates=2, near_duplicates=1)
    assert "same payload" in made.warnings[0]
    assert "--with-duplicates" in made.warnings[0]
    assert "near duplicates" in made.warnings[1]
