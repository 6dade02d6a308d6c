"""The plan of a deletion: what it would do and cost. Pure functions of cluster memberships; needs no torch.

If the request misses the clustering sample, only the clusters of the named records are tuned again. If it hits the
sample, the partition is derived again (from stored features) and only clusters whose *members* differ are tuned
again. Where clusters are tuned together, all of them are. The sufficient statistics of the global head lose the
record, which takes hardly any time; where there is nothing else, nothing is tuned.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime

from lmeraser.core.time import to_text
from lmeraser.data.name_lookup import NearMiss
from lmeraser.models.manifest import Model
from lmeraser.workspace.requests.state import Urgency, urgency


@dataclass(frozen=True)
class AffectedCluster:
    """A cluster of the served model that loses or gains members.

    Attributes:
        cluster: its number in the served model.
        records_before: members now.
        records_forgotten: members that the request names.
    """

    cluster: int
    records_before: int
    records_forgotten: int


@dataclass(frozen=True)
class Plan:
    """What a deletion would do and cost.

    Attributes:
        records: records that would be deleted.
        already_deleted: names in the request that were deleted before.
        sample_hit: whether a named record shapes the partition, so that it is derived again.
        affected: clusters of the served model whose members change.
        clusters_to_tune: clusters that would be tuned again.
        records_to_tune: their members.
        share_to_tune: of the retained records.
        estimated_seconds: of tuning, from the measured speed; None if it was not measured yet.
        expected_share: for comparison, the share of the records that one uniformly drawn request tunes again
            (`partitions.cost`).
        duplicates: records that are not among them, but hold the same payload as one of them, byte for byte.
        near_duplicates: records that look like one of them (`unlearning.duplicates`); None if not counted.
        duplicates_selected: records among them that were not named, but hold the payload of one that was.
        due: when the answer is due, RFC 3339 in UTC; None if it was not asked for.
        urgency: whether that is past, near, or later.
        near_misses: names that are held and look like a name of the request, but are not selected.
        open_requests: ids of other open requests that select some of the same records.
        emptied_classes: classes of which no record would be left.
    """

    records: int
    already_deleted: int
    sample_hit: bool
    affected: tuple[AffectedCluster, ...]
    clusters_to_tune: int
    records_to_tune: int
    share_to_tune: float
    estimated_seconds: float | None
    expected_share: float
    duplicates: int = 0
    near_duplicates: int | None = None
    duplicates_selected: int = 0
    due: str | None = None
    urgency: Urgency | None = None
    near_misses: tuple[NearMiss, ...] = ()
    open_requests: tuple[str, ...] = ()
    emptied_classes: tuple[str, ...] = ()

    def with_due(self, due: datetime, *, now: datetime) -> Plan:
        """The plan with the time when the answer is due."""
        return replace(self, due=to_text(due), urgency=urgency(due, now))

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the person who decides has to know, in sentences."""
        found = [str(miss) for miss in self.near_misses]
        if self.duplicates:
            records = "other record holds" if self.duplicates == 1 else "other records hold"
            found.append(
                f"{self.duplicates} {records} the same payload as one of these and would not be deleted; "
                "--with-duplicates selects them, too"
            )
        if self.near_duplicates:
            found.append(f"{self.near_duplicates} other records look nearly the same (near duplicates, a hint)")
        if self.open_requests:
            found.append(
                "some of these records are already to be deleted, by the open "
                f"{'request' if len(self.open_requests) == 1 else 'requests'} {', '.join(self.open_requests)}"
            )
        if self.emptied_classes:
            names = ", ".join(map(repr, self.emptied_classes))
            found.append(f"no record would be left of {names}, which the model could not predict any more")
        if self.urgency == "past":
            found.append(f"the answer was due at {self.due}")
        if self.urgency == "near":
            found.append(f"the answer is due soon, at {self.due}")
        return tuple(found)

    def to_json(self) -> dict[str, object]:
        """The plan as JSON values."""
        return asdict(self)


def plan(
    model: Model,
    before: Mapping[str, int],
    after: Mapping[str, int],
    removed: Iterable[str],
    *,
    retained: int,
    sample_hit: bool,
    already_deleted: int = 0,
    speed: float | None = None,
) -> Plan:
    """Compare clusters before a deletion with those of the retained records after it.

    Clusters that keep their members may be left out of both.

    Args:
        model: the served generation.
        before: cluster number of every record.
        after: cluster number of every retained record.
        removed: the deleted records, by the same names.
        retained: number of all retained records.
        sample_hit: whether one of them is in the clustering sample.
        already_deleted: names in the request that were deleted before.
        speed: of tuning on this machine, records x epochs per second, if it was measured.
    """
    deleted = set(removed)
    members_before = _members(before)
    members_after = _members(after)
    unchanged = set(members_before.values()) & set(members_after.values())
    all_tuned = bool(deleted) and model.together
    to_tune = [len(members) for members in members_after.values() if all_tuned or members not in unchanged]
    affected = tuple(
        AffectedCluster(number, len(members), len(members & deleted))
        for number, members in sorted(members_before.items())
        if members not in unchanged
    )
    tuning = model.settings["tuning"]
    epochs = int(tuning.get("stop_after") or tuning["epochs"])
    return Plan(
        records=len(deleted),
        already_deleted=already_deleted,
        sample_hit=sample_hit,
        affected=affected,
        clusters_to_tune=len(to_tune),
        records_to_tune=sum(to_tune),
        share_to_tune=sum(to_tune) / retained if retained else 0.0,
        expected_share=model.expected_share,
        estimated_seconds=round(sum(to_tune) * epochs / speed, 2) if speed else None,
    )


def _members(clusters: Mapping[str, int]) -> dict[int, frozenset[str]]:
    members: dict[int, set[str]] = {}
    for record_id, number in clusters.items():
        members.setdefault(number, set()).add(record_id)
    return {number: frozenset(ids) for number, ids in members.items()}
