"""Numbers of records say nothing of the order in which they came, nor where a deleted one stood."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import NOW, forget
from lmeraser.core.digests import Digest
from lmeraser.data.identities import NUMBERS
from lmeraser.data.importing import import_records
from lmeraser.data.records import Records
from lmeraser.data.sources import Row, Source
from lmeraser.evidence.ledger import Ledger
from lmeraser.storage.database import Database
from lmeraser.storage.keystore import KEY_BYTES

CLASSES = tuple(f"class {number}" for number in range(12))
EACH = 50  # records of a class, one class after the other; more than one chunk of an import in all
GONE = range(7, len(CLASSES) * EACH, 10)


def name(number: int) -> str:
    return f"r{number:04d}"


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Records]:
    opened = Records(Database(tmp_path / "records.db"), secret=b"secret")
    yield opened
    opened.database.close()


def in_order(records: Records, *, length: int | None) -> None:
    """Import records sorted by class, as folders of classes are."""
    rows = [
        Row(
            id=name(number),
            subject=None,
            label=number // EACH,
            payload=f"payload {number}".encode(),
            position=number,
        )
        for number in range(len(CLASSES) * EACH)
    ]
    source = Source("source", CLASSES, length, rows, check=lambda payload: None)
    ledger = Ledger(records.database.keys.path.with_name("ledger"), records.database)
    import_records(records, source, ledger=ledger, now=NOW)


def numbers(records: Records) -> dict[str, int]:
    return records._index.numbers(map(name, range(len(CLASSES) * EACH)))


def guessed(records: Records, slot: int) -> int:
    """The class that a thief expects of the record that had a slot: that of its nearest neighbour."""
    held = numbers(records)
    nearest = min(held, key=lambda record_id: abs(held[record_id] - slot))
    return records.find([nearest])[nearest][1]


@pytest.mark.parametrize("length", [len(CLASSES) * EACH, None])
def test_a_thief_of_everything_cannot_tell_what_class_a_deleted_record_had(
    records: Records, length: int | None
) -> None:
    in_order(records, length=length)
    before = numbers(records)
    forget(records, [name(number) for number in GONE])
    records.database.erase()
    keys = records.database.keys.path.read_bytes()
    slots = range(1, len(keys) // KEY_BYTES)
    free = [slot for slot in slots if not any(keys[slot * KEY_BYTES : (slot + 1) * KEY_BYTES])]
    assert set(free) == set(slots).difference(numbers(records).values())
    assert len(free) > 8 * len(GONE), "erased slots are like those that were never used"
    # Even if the thief knew the slots: neighbours tell 5 of 60 classes, as chance does. In order they tell all.
    right = sum(guessed(records, before[name(number)]) == number // EACH for number in GONE)
    assert right < 22, "by chance less than once in ten million times"


def test_numbers_of_before_0_2_are_drawn_anew_by_an_upgrade(records: Records) -> None:
    in_order(records, length=None)
    some = [name(number) for number in range(0, 600, 9)]
    digest = {i: Digest.of(payload) for i, payload in zip(some, records.payloads(some), strict=True)}
    commitments, before = records.commitments.by_entry(), numbers(records)
    old = {i: records.database.keys.key(number) for i, number in before.items()}
    records.bring_up_to_date()
    after = numbers(records)
    assert not set(after.values()) & set(before.values())
    assert {i: records.database.keys.key(number) for i, number in after.items()} == old, "keys move along"
    assert records.commitments.by_entry() == commitments, "so the ledger still fits"
    assert {i: Digest.of(payload) for i, payload in zip(some, records.payloads(some), strict=True)} == digest
    assert sorted(after, key=after.__getitem__) != sorted(before, key=before.__getitem__)
    keys = records.database.keys.path.read_bytes()
    assert all(keys.count(key) == 1 for key in old.values()), "no copy is left that would outlive its record"
    assert records.database.compaction_due
    records.bring_up_to_date()
    assert numbers(records) == after, "once"


def test_a_crash_leaves_no_copy_of_a_key_that_outlives_its_record(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_order(records, length=None)
    real = records.database.keys.copy
    copies: list[int] = []

    def crash(moves: dict[int, int]) -> None:
        real(moves)
        copies.append(len(moves))
        if len(copies) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(records.database.keys, "copy", crash)
        with pytest.raises(KeyboardInterrupt):
            records.bring_up_to_date()
    assert len(records.payloads([name(number) for number in range(600)])) == 600
    records.database.erase()  # what every writer begins with
    keys = records.database.keys.path.read_bytes()
    assert all(keys.count(records.database.keys.key(number)) == 1 for number in numbers(records).values())
    assert records.database.get_metadata(NUMBERS) is None
    records.bring_up_to_date()
    assert len(records.payloads([name(number) for number in range(600)])) == 600
