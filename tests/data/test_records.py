"""Records and all that was derived from them are deleted together, and leave no trace."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import event, text
from sqlalchemy.engine import Engine

from conftest import exchange_payload, forget, png
from lmeraser.core.digests import Digest
from lmeraser.data.identities import RecordIndex, RecordMetadata
from lmeraser.data.records import Record, Records
from lmeraser.data.references import RecordRef
from lmeraser.errors import CorruptError, InputError, StorageError, UnknownRecordError
from lmeraser.storage.database import Database
from lmeraser.storage.keystore import ErasedError, KeyStore

_WINDOW = 16  # bytes


def image(number: int, side: int = 40) -> bytes:
    """A PNG that cannot be compressed; 40 px a side are some 5 kB, more than a page of the database."""
    return png(np.random.default_rng(number).integers(0, 256, (side, side, 3)))


def record(number: int, **changes: Any) -> Record:
    values = {
        "id": f"r{number:04d}",
        "subject": f"s{number % 3}",
        "label": number % 2,
        "payload": image(number, 8),
    }
    return Record(**{**values, **changes})


def fill(records: Records, new: list[Record]) -> None:
    with records.database.transaction() as connection:
        records.insert(connection, new, entry=1)


def tables(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table, read by another program."""
    connection = sqlite3.connect(path)
    try:
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: connection.execute(f"SELECT * FROM {name}").fetchall() for name in names}
    finally:
        connection.close()


def windows(data: bytes) -> set[bytes]:
    return {data[start : start + _WINDOW] for start in range(len(data) - _WINDOW + 1)}


def remains(folder: Path, needles: set[bytes]) -> list[str]:
    """Files of the folder, and tables that can be read with its keys, in which any of these windows occurs."""
    files = [(path.name, path.read_bytes()) for path in folder.iterdir() if path.is_file()]
    opened = Database(folder / "records.db")
    found = [name for name, data in [*files, *opened.decrypted_values()] if not needles.isdisjoint(windows(data))]
    opened.close()
    return found


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Records]:
    opened = Records(Database(tmp_path / "records.db"), secret=b"secret")
    yield opened
    opened.database.close()


# --- reading -----------------------------------------------------------------------------------------------


def test_an_empty_database_has_nothing(records: Records) -> None:
    assert (records.count(), records.count_subjects(), records.index(), records.classes) == (0, 0, [], ())
    assert records.find(["r0000"]) == {}
    assert records.payloads([]) == []


def test_records_come_back_sorted_by_code_points(records: Records) -> None:
    ids = ["é", "b", "a10", "a2", "Z", "日本"]
    fill(records, [record(number, id=name) for number, name in enumerate(ids)])
    assert [found.id for found in records.index()] == sorted(ids)
    numbers = {name: number for number, name in enumerate(ids)}
    expected = [RecordRef(i, numbers[i] % 2, Digest.of(image(numbers[i], 8))) for i in sorted(ids)]
    assert records.index() == expected
    numbers_of = records.derived.numbers(ids)
    assert {found.id: found.number for found in records.index()} == numbers_of


def test_images_come_in_the_order_they_are_asked_for(records: Records) -> None:
    fill(records, [record(number) for number in range(5)])
    assert records.payloads(["r0003", "r0000", "r0003"]) == [image(3, 8), image(0, 8), image(3, 8)]


def test_records_that_nobody_changes_are_found_by_their_numbers(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(records, [record(number) for number in range(5)])
    ids = ["r0003", "r0000", "r0004", "r0001"]
    partition = Digest.of(b"p")
    with records.unchanged(each for each in records.index() if each.id != "r0004"):
        assert records.payloads(ids) == [image(3, 8), image(0, 8), image(4, 8), image(1, 8)]
        numbers = records.derived.numbers([*ids, "unknown"])
        with pytest.raises(UnknownRecordError):
            records.payloads(["r0003", "unknown"])
        with monkeypatch.context() as patched:
            patched.setattr(RecordIndex, "lookup_digest", None)
            assert records.payloads(ids[:2]) == [image(3, 8), image(0, 8)]
            records.derived.store_trie_keys(dict.fromkeys(ids[:2], "1"), partition=partition)
    assert records.derived.numbers(ids) == numbers
    assert records.derived.trie_keys(partition) == dict.fromkeys(ids[:2], "1")
    forget(records, ["r0003"])
    assert "r0003" not in records.derived.numbers(ids)


def test_more_ids_than_one_statement_takes_are_found(records: Records) -> None:
    fill(records, [record(0, id=f"r{number:04d}", subject=f"s{number % 3}") for number in range(1201)])
    ids = [f"r{number:04d}" for number in range(1300)]
    assert len(records.find(ids)) == 1201
    assert len(records.of_subjects(["s0", "s1", "s2", "s9"])["s1"]) == 400
    records.derived.store_trie_keys(dict.fromkeys(ids[:1201], "1"), partition=Digest.of(b"p"))
    assert len(records.derived.trie_keys(Digest.of(b"p"), ids)) == 1201
    forget(records, ids[:1100])
    assert (records.count(), len(records.suppression.find("record", ids))) == (101, 1100)


def test_labels_that_others_have_are_told_without_reading_all_records(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(records, [record(number, label=number % 3 if number < 29 else 7) for number in range(30)])
    ids = {f"r{number:04d}" for number in range(0, 30, 3)}
    assert records.labels_apart_from(ids, {0, 1, 7, 9}) == {1, 7}
    assert records.labels_apart_from(ids | {"r0029"}, [7]) == set()
    real, decrypted = RecordMetadata.decrypt, list[object]()

    def decrypt(keys: KeyStore, row: Any) -> RecordMetadata:
        decrypted.append(row)
        return real(keys, row)

    monkeypatch.setattr(RecordMetadata, "decrypt", decrypt)
    assert records.labels_apart_from((), {0}) == {0}
    assert records.labels_apart_from((), ()) == set()
    assert 0 < len(decrypted) <= 30 - 10 + 1, "no more than it takes, in whichever order they come"


def test_subjects_have_their_records(records: Records) -> None:
    fill(records, [*(record(number) for number in range(7)), record(9, subject=None)])
    assert records.of_subjects(["s1", "s7"]) == {"s1": ["r0001", "r0004"]}
    assert records.count_subjects() == 3
    assert records.find(["r0009"])["r0009"][0] is None


# --- classes and revision ----------------------------------------------------------------------------------


def test_classes_are_extended_at_their_end_only(records: Records) -> None:
    records.set_classes(["cat", "dog"])
    records.set_classes(["cat", "dog", "eel"])
    assert records.classes == ("cat", "dog", "eel")
    for wrong in (
        ["cat", "dog"],
        ["dog", "cat", "eel"],
        ["cat", "dog", "eel", "eel"],
        ["cat", "dog", "eel", ""],
        ["cat", "dog", "eel", "a\ud800"],
        ["cat", "dog", "eel", "\x1b[31mred"],
        ["cat", "dog", "eel", "dog "],
        [],
    ):
        with pytest.raises(InputError):
            records.set_classes(wrong)
    assert records.classes == ("cat", "dog", "eel")


def test_the_revision_counts_changes_of_records_and_classes(records: Records) -> None:
    revisions = [records.changes.revision]
    records.set_classes(["a"])
    revisions.append(records.changes.revision)
    records.set_classes(["a"])
    assert records.changes.revision == revisions[-1], "nothing has changed"
    forget(records, ["r0000"])
    revisions.append(records.changes.revision)
    with records.database.transaction() as connection:
        records.changes.record(connection)
    revisions.append(records.changes.revision)
    assert revisions == sorted(set(revisions))
    before = records.changes.revision
    records.derived.store_trie_keys({}, partition=Digest.of(b"p"))
    records.database.compact()
    assert records.changes.revision == before, "derived values are not part of it"


# --- what belongs to a record ------------------------------------------------------------------------------


def test_derived_values_come_back_and_are_replaced(records: Records) -> None:
    fill(records, [record(0), record(1)])
    vector = np.arange(5, dtype=np.float32)
    records.derived.store_features({"r0000": vector}, key="k")
    np.testing.assert_array_equal(records.derived.features(["r0000", "r0001"], key="k")["r0000"], vector)
    assert records.derived.features(["r0000"], key="other") == {}
    records.derived.store_features({"r0000": vector + 1}, key="other")
    assert records.derived.features(["r0000"], key="k") == {}
    first, second = Digest.of(b"first"), Digest.of(b"second")
    records.derived.store_trie_keys({"r0000": "3", "r0001": "4"}, partition=first)
    assert records.derived.trie_keys(first) == {"r0000": "3", "r0001": "4"}
    records.derived.store_trie_keys({"r0001": "5"}, partition=second)
    assert records.derived.trie_keys(first) == {"r0000": "3", "r0001": "4"}, (
        "the served partition keeps its trie keys"
    )
    assert records.derived.trie_keys(second) == {"r0001": "5"}
    records.derived.keep_partition(second)
    assert (records.derived.trie_keys(first), records.derived.trie_keys(second)) == ({}, {"r0001": "5"})
    records.clear_derived()
    assert records.derived.features(["r0000"], key="other") == {}


def test_nothing_can_be_derived_for_a_record_that_is_not_there(records: Records) -> None:
    with pytest.raises(UnknownRecordError):
        records.derived.store_features({"nobody": np.zeros(2, dtype=np.float32)}, key="k")


@pytest.mark.sqlite
def test_a_deletion_takes_everything_that_belongs_to_the_record(records: Records, tmp_path: Path) -> None:
    fill(records, [record(number) for number in range(4)])
    ids = [found.id for found in records.index()]
    records.derived.store_features({i: np.ones(3, dtype=np.float32) for i in ids}, key="k")
    records.derived.store_trie_keys(dict.fromkeys(ids, "0"), partition=Digest.of(b"p"))
    before = tables(tmp_path / "records.db")
    slots = {i: int(*records.derived.record_numbers([i])) for i in ids}
    owning = [name for name, rows in before.items() if {row[0] for row in rows} == set(slots.values())]
    assert sorted(owning) == ["features", "images", "places", "records"]
    forget(records, ["r0001", "r0002"], subjects=["s1"])
    after = tables(tmp_path / "records.db")
    for name in owning:
        assert {row[0] for row in after[name]} == {slots["r0000"], slots["r0003"]}
    assert {row[0] for row in after["doomed"]} == {slots["r0001"], slots["r0002"]}


# --- suppression -------------------------------------------------------------------------------------------


@pytest.mark.sqlite
def test_deleted_names_are_remembered_only_as_keyed_digests(records: Records, tmp_path: Path) -> None:
    fill(records, [record(0, id="Ada", subject="Lovelace")])
    forget(records, ["Ada"], subjects=["Lovelace"])
    assert records.suppression.find("record", ["Ada", "Lovelace", "Bob"]) == {"Ada"}
    assert records.suppression.find("subject", ["Ada", "Lovelace"]) == {"Lovelace"}
    assert "Ada" not in str(tables(tmp_path / "records.db"))
    assert Digest.of(b"Ada").hex not in str(tables(tmp_path / "records.db"))
    records.database.close()
    other = Records(Database(tmp_path / "records.db"), secret=b"another secret")
    assert other.suppression.find("record", ["Ada"]) == set()
    other.database.close()


def test_a_suppression_can_be_lifted_and_repeated(records: Records) -> None:
    forget(records, ["a", "b"])
    forget(records, ["a"])
    with records.database.transaction() as connection:
        records.suppression.remove(connection, {"record": ["a"]})
    assert records.suppression.find("record", ["a", "b"]) == {"b"}
    forget(records, ["a", "b"])
    assert records.suppression.find("record", ["a", "b"]) == {"a", "b"}


# --- no trace ----------------------------------------------------------------------------------------------


@pytest.mark.sqlite
def test_no_copy_of_the_database_tells_anything_about_a_record_whose_key_is_erased(
    records: Records, tmp_path: Path
) -> None:
    names = [(f"the-name-{number:04d}", f"the-person-{number:04d}") for number in range(4)]
    fill(records, [record(n, id=one, subject=who, payload=image(n)) for n, (one, who) in enumerate(names)])
    vector = np.random.default_rng(1).standard_normal(40).astype(np.float32)
    records.derived.store_features({"the-name-0001": vector}, key="k")
    pieces = {window for window in windows(image(1)) | windows(vector.tobytes()) if len(set(window)) > 8}
    pieces -= set().union(*(windows(image(number)) for number in (0, 2, 3)))
    assert sorted(remains(tmp_path, pieces)) == ["features", "images"], (
        "encrypted in the files, readable with the keys"
    )
    backup = tmp_path / "backup"
    backup.mkdir()
    for path in tmp_path.glob("records.db*"):
        shutil.copy(path, backup)
    forget(records, ["the-name-0001"])
    records.database.erase()
    shutil.copy(tmp_path / "records.keys", backup)
    old = Records(Database(backup / "records.db"), secret=b"secret")
    assert old.count() == 4
    assert old.payloads(["the-name-0002"]) == [image(2)]
    for read in (old.payloads, old.find, partial(old.derived.features, key="k"), old.commitments.by_entry):
        with pytest.raises(ErasedError, match="erased"):
            read(["the-name-0001"])
    old.database.close()
    assert remains(backup, pieces) == []
    gone = [name.encode() for name in names[1]]
    assert not any(name in data for _, data in old.database.decrypted_values() for name in gone)
    assert not any(name in path.read_bytes() for path in backup.iterdir() for name in gone)


@pytest.mark.sqlite
def test_after_deletion_and_compaction_no_piece_of_the_record_is_in_any_byte(
    records: Records, tmp_path: Path
) -> None:
    fill(records, [record(number, id=f"the-name-{number:04d}", payload=image(number)) for number in range(40)])
    gone = ["the-name-0007", "the-name-0039"]
    pieces = windows(image(7)) | windows(image(39))
    pieces -= set().union(*(windows(image(number)) for number in range(40) if number not in (7, 39)))
    pieces -= {window for window in pieces if len(set(window)) < 4}  # zeros and the like, which any file may hold
    assert len(pieces) > 5000
    assert remains(tmp_path, pieces), "the probes find the record while it is there"
    forget(records, gone)
    assert records.database.compaction_due
    records.database.compact()
    assert not records.database.compaction_due
    files = ["records.db", "records.db-shm", "records.db-wal", "records.keys"]
    assert sorted(path.name for path in tmp_path.iterdir()) == files
    assert remains(tmp_path, pieces) == []
    assert not [path.name for path in tmp_path.iterdir() for name in gone if name.encode() in path.read_bytes()]
    assert records.payloads(["the-name-0008"]) == [image(8)]
    records.database.close()
    assert remains(tmp_path, pieces) == []


@pytest.mark.sqlite
def test_an_interrupted_compaction_is_still_due(records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(records, [record(0)])
    forget(records, ["r0000"])

    def stop(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if statement == "VACUUM":
            raise KeyboardInterrupt

    event.listen(Engine, "before_cursor_execute", stop)
    try:
        with pytest.raises(KeyboardInterrupt):
            records.database.compact()
    finally:
        event.remove(Engine, "before_cursor_execute", stop)
    assert records.database.compaction_due
    records.database.compact()
    assert not records.database.compaction_due


@pytest.mark.sqlite
def test_a_reader_that_keeps_the_log_from_being_emptied_is_not_passed_over(
    records: Records, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite reports that a log could not be emptied, and raises nothing."""
    monkeypatch.setattr("lmeraser.storage.engines._SQLITE_TIMEOUT", 0.05)

    def impatient(connection: Any, _record: Any) -> None:
        connection.execute("PRAGMA busy_timeout = 50")

    fill(records, [record(0, id="the-name", payload=image(0)), record(1)])
    forget(records, ["the-name"])
    records.database.close()
    event.listen(Engine, "connect", impatient)
    reader = sqlite3.connect(tmp_path / "records.db", isolation_level=None)
    try:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM records").fetchall()
        with pytest.raises(StorageError, match="run"):
            records.database.compact()
        assert records.database.compaction_due
    finally:
        reader.close()
        event.remove(Engine, "connect", impatient)
    records.database.compact()
    assert not records.database.compaction_due
    pieces = windows(image(0)) - windows(image(1, 8))
    assert remains(tmp_path, {window for window in pieces if len(set(window)) > 8}) == []


# --- failures ----------------------------------------------------------------------------------------------


def test_a_transaction_is_all_or_nothing(records: Records) -> None:
    def half() -> None:
        with records.database.transaction() as connection:
            records.insert(connection, [record(0)], entry=1)
            records.changes.record(connection)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        half()
    assert (records.count(), records.changes.revision) == (0, 0)


@pytest.mark.sqlite
def test_a_full_disk_is_a_storage_error_and_nothing_is_half_written(records: Records) -> None:
    fill(records, [record(0)])
    records.database.close()

    def small(connection: Any, _record: Any) -> None:
        connection.execute("PRAGMA max_page_count = 20")

    event.listen(Engine, "connect", small)
    try:
        with pytest.raises(StorageError, match="full"):
            fill(records, [record(number, payload=image(number)) for number in range(1, 40)])
    finally:
        event.remove(Engine, "connect", small)
    records.database.close()
    assert records.count() == 1
    fill(records, [record(1)])
    assert records.count() == 2


@pytest.mark.sqlite
@pytest.mark.parametrize("start", [0, 100])
def test_a_damaged_database_is_said_to_be_corrupt(tmp_path: Path, start: int) -> None:
    path = tmp_path / "records.db"
    records = Records(Database(path), secret=b"secret")
    fill(records, [record(number) for number in range(20)])
    records.database.compact()
    records.database.close()
    data = bytearray(path.read_bytes())
    data[start:] = b"\xa5" * (len(data) - start)
    path.write_bytes(data)

    def use() -> None:
        opened = Records(Database(path), secret=b"secret")
        opened.index()

    with pytest.raises(CorruptError, match=r"records\.db"):
        use()


def test_a_payload_is_compared_with_its_digest_whenever_it_is_read(tmp_path: Path) -> None:
    records = Records(Database(tmp_path / "records.db"), secret=b"secret")
    fill(records, [record(number) for number in range(4)])
    exchange_payload(records, "r0001", image(2, 8))
    with records.database.transaction() as connection:
        connection.execute(
            text("DELETE FROM images WHERE number = :number"), {"number": _number(records, "r0003")}
        )
    assert sorted(records.mismatched([f"r{number:04d}" for number in range(4)])) == ["r0001", "r0003"]
    assert records.payloads(["r0002", "r0000"]) == [image(2, 8), image(0, 8)]
    for wrong in ("r0001", "r0003"):
        with pytest.raises(CorruptError, match="does not match its record"):
            records.payloads(["r0000", wrong])
    with pytest.raises(UnknownRecordError):
        records.payloads(["nobody"])
    records.database.close()


def _number(records: Records, record_id: str) -> int:
    return records._index.require_numbers([record_id])[record_id]
