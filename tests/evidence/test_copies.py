"""Which copies hold which erased records: compared with a history that knows every record by name."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from conftest import examples
from lmeraser.core.digests import Digest
from lmeraser.evidence.copies import OutsideCopy, copies_outside, copy_differences
from lmeraser.evidence.entries import (
    Event,
    ExportConfirmed,
    ExportRecalled,
    GenerationPublished,
    ModelExported,
    RecordsAdded,
    RecordsDeleted,
    RecordsRelabelled,
)
from lmeraser.evidence.hash_chain import Entry
from lmeraser.evidence.reconcile import by_entry, digest_of

MODEL = Digest.of(b"model")


class History:
    """Records by name, each with its commitment and the entry of its addition, and what every copy learned."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.entries: list[Entry] = []
        self.held: dict[int, tuple[int, Digest]] = {}
        self.names = 0
        self.served: set[int] = set()
        self.learned: dict[str, set[int]] = {}
        self.erased: dict[str, set[int]] = {}
        self.rectified: dict[str, set[int]] = {}
        self.confirmed: set[str] = set()

    def note(self, event: Event) -> None:
        previous = self.entries[-1].digest if self.entries else None
        time = f"2026-01-01T00:{len(self.entries):02d}:00Z"
        self.entries.append(Entry(len(self.entries), previous, time, event.kind, event.body()))

    def fresh(self) -> Digest:
        return Digest.of(self.random.randbytes(16))

    def add(self, count: int) -> None:
        position = len(self.entries)
        new = {self.names + n: (position, self.fresh()) for n in range(count)}
        self.names += count
        self.held |= new
        self.note(RecordsAdded(records=count, deleted_before=0, commitments=digest_of(d for _, d in new.values())))

    def _take(self, names: list[int]) -> dict[str, tuple[Digest, ...]]:
        removed: dict[int, list[Digest]] = {}
        for name in names:
            position, digest = self.held[name]
            removed.setdefault(position, []).append(digest)
        return by_entry(removed)

    def delete(self, names: list[int]) -> None:
        self.note(RecordsDeleted(requests=(), removed=self._take(names)))
        for name in names:
            del self.held[name]
        for copy in self.learned.keys() - self.confirmed:
            self.erased[copy] |= self.learned[copy].intersection(names)

    def relabel(self, names: list[int]) -> None:
        removed = self._take(names)
        position = len(self.entries)
        new = {name: (position, self.fresh()) for name in names}
        digest = digest_of(d for _, d in new.values())
        self.note(RecordsRelabelled(records=len(names), removed=removed, commitments=digest))
        self.held |= new
        for copy in self.learned.keys() - self.confirmed:
            self.rectified[copy] |= self.learned[copy].intersection(names)

    def publish(self) -> None:
        self.served = set(self.held)
        self.note(GenerationPublished(generation=0, model=MODEL, records=len(self.held)))

    def export(self) -> None:
        copy = f"copy {len(self.learned)}"
        for counts in (self.erased, self.rectified):
            counts[copy] = set()
        self.learned[copy] = set(self.served)
        self.note(exported(copy))

    def confirm(self, copy: str) -> None:
        self.note(ExportConfirmed(export=copy))
        self.confirmed.add(copy)


def exported(copy: str) -> ModelExported:
    return ModelExported(export=copy, generation=0, format="folder", manifest=Digest.of(b"m"))


@given(
    seed=st.integers(0, 1000),
    steps=st.lists(
        st.sampled_from(["add", "delete", "relabel", "publish", "export", "confirm"]), min_size=3, max_size=24
    ),
    one_at_a_time=st.booleans(),
)
@examples(fast=60, explore=600)
def test_counts_are_those_of_a_history_that_knows_the_records(
    seed: int, steps: list[str], one_at_a_time: bool
) -> None:
    """Exact where each entry names one record; never too low where a relabelling mixes known and new ones."""
    history = History(seed)
    history.add(1 if one_at_a_time else 5)
    history.publish()
    history.export()
    for step in steps:
        count = 1 if one_at_a_time else history.random.randint(1, 4)
        chosen = sorted(history.random.sample(sorted(history.held), min(count, len(history.held))))
        if step in ("delete", "relabel") and not chosen:
            continue
        match step:
            case "add":
                history.add(count)
            case "delete":
                history.delete(chosen)
            case "relabel":
                history.relabel(chosen)
            case "publish":
                history.publish()
            case "export":
                history.publish()  # an export of a model with erased records is refused
                history.export()
            case "confirm":
                history.confirm(history.random.choice(sorted(history.learned)))
    for copy in copies_outside(history.entries):
        erased, rectified = (len(counts[copy.id]) for counts in (history.erased, history.rectified))
        assert copy.records_rectified == rectified
        assert copy.records_erased == erased if one_at_a_time else copy.records_erased >= erased
        assert copy.outdated <= copy.records_rectified + len(history.learned[copy.id])
        assert (copy.confirmed is not None) == (copy.id in history.confirmed)
        assert (copy.since is None) == (copy.outdated == 0)


def test_a_copy_goes_from_clear_to_recalled_to_confirmed() -> None:
    history = History(0)
    history.add(3)
    history.publish()
    history.export()

    def now() -> OutsideCopy:
        (copy,) = copies_outside(history.entries)
        return copy

    assert (now().state, now().since, now().exported) == ("clear", None, history.entries[2].time)
    history.add(1)
    history.delete([3])
    assert now().state == "clear", "a record that the generation never saw"
    history.delete([0])
    assert (now().state, now().records_erased, now().since) == ("recalled", 1, history.entries[5].time)
    history.note(ExportRecalled(export="copy 0", records=1))
    history.delete([1])
    assert (now().told, now().told_of, now().outdated) == (history.entries[6].time, 1, 2)
    assert now().since == history.entries[5].time
    history.confirm("copy 0")
    history.delete([2])
    assert (now().state, now().records_erased) == ("confirmed", 2)
    assert now().to_json()["confirmed"] == history.entries[8].time


def test_a_copy_that_one_side_lacks_is_a_difference() -> None:
    history = History(0)
    history.export()
    assert copy_differences(history.entries, ["copy 0"]) == []
    assert copy_differences(history.entries, []) == ["copy copy 0 is not known, but the ledger records it"]
    assert copy_differences(history.entries, ["copy 0", "x"]) == ["copy x is known, but no entry records it"]
    history.note(ExportConfirmed(export="other"))
    assert copy_differences(history.entries, ["copy 0"]) == ["entry 1 names a copy that no entry records"]
    assert len(copies_outside(history.entries)) == 1
