"""The statistics in the database are always those of the included records, whatever happens to the records."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from numpy.typing import NDArray
from sqlalchemy import Connection

import lmeraser.data.statistics as statistics
import lmeraser.storage.database as database
from conftest import examples, forget
from lmeraser.core.sufficient_statistics import SCALE, SufficientStatistics
from lmeraser.data.records import Record, Records
from lmeraser.data.statistics import StatisticsStore
from lmeraser.errors import StorageError, UnknownRecordError
from lmeraser.storage.database import Database
from lmeraser.storage.keystore import ErasedError, KeyStore

WIDTH = 4
CLASSES = 3


def name(number: int) -> str:
    return f"r{number:04d}"


def label_of(number: int) -> int:
    return number % CLASSES


def quantized(number: int, key: str = "k") -> NDArray[np.int16]:
    """The quantized embedding of a record under a key; all are different."""
    values = np.random.default_rng([number, *key.encode()]).integers(-32767, 32768, WIDTH)
    return np.array([*values[1:], SCALE], np.int16)


def fill(records: Records, numbers: Sequence[int]) -> None:
    new = [Record(name(n), f"s{n % 3}", label_of(n), f"image {n}".encode()) for n in numbers]
    with records.database.transaction() as connection:
        records.insert(connection, new, entry=1)


def include(records: Records, numbers: Sequence[int], *, key: str = "k", classes: int = CLASSES) -> None:
    labels = [records.find([name(n)])[name(n)][1] for n in numbers]
    records.statistics.include({name(n): quantized(n, key) for n in numbers}, labels, classes, key=key)


def relabel(records: Records, numbers: Sequence[int], label: int) -> None:
    with records.database.transaction() as connection:
        records.relabel(connection, [name(n) for n in numbers], label, entry=2)


def scratch(labels: dict[int, int], *, key: str = "k", classes: int = CLASSES) -> SufficientStatistics:
    """The statistics of these records, added up once."""
    embeddings = np.array([quantized(n, key) for n in labels], np.int16).reshape(-1, WIDTH)
    return SufficientStatistics.zero(WIDTH, classes).plus(embeddings, list(labels.values()))


def of(*numbers: int) -> dict[int, int]:
    """Records with the labels that they came with."""
    return {n: label_of(n) for n in numbers}


def digest(statistics: SufficientStatistics | None) -> str | None:
    return None if statistics is None else str(statistics.digest)


def state(statistics: StatisticsStore, key: str = "k") -> tuple[str | None, list[str], list[bytes]]:
    """All that the database holds of it."""
    ids = sorted(statistics.ids(key=key))
    return digest(statistics.current()), ids, statistics.quantized_embeddings(ids)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of eight records, of which none is included; only copied by the tests."""
    path = tmp_path_factory.mktemp("filled") / "records.db"
    opened = Records(Database(path), secret=b"secret")
    fill(opened, range(8))
    opened.database.close()
    return path


@pytest.fixture
def records(filled: Path, tmp_path: Path) -> Iterator[Records]:
    shutil.copy(filled.with_suffix(".keys"), tmp_path)
    opened = Records(Database(Path(shutil.copy(filled, tmp_path))), secret=b"secret")
    yield opened
    opened.database.close()


# --- including ----------------------------------------------------------------------------------------------


def test_before_any_record_is_included_there_are_no_statistics(records: Records) -> None:
    assert records.statistics.current() is None
    assert records.statistics.without([name(0)], key="k") is None
    assert records.statistics.ids(key="k") == set()
    assert records.statistics.quantized_embeddings([]) == []


def test_included_records_have_ids_embeddings_and_statistics(records: Records, tmp_path: Path) -> None:
    include(records, [0, 1, 2])
    include(records, [5])
    assert records.statistics.ids(key="k") == {name(n) for n in (0, 1, 2, 5)}
    assert records.statistics.quantized_embeddings([name(5), name(0), name(5)]) == [
        quantized(n).tobytes() for n in (5, 0, 5)
    ]
    assert digest(records.statistics.current()) == digest(scratch(of(0, 1, 2, 5)))
    records.database.close()
    again = Records(Database(tmp_path / "records.db"), secret=b"secret")
    assert state(again.statistics) == state(records.statistics), "it is on the disk"
    again.database.close()


def test_the_order_and_the_batches_of_including_do_not_matter(records: Records) -> None:
    include(records, [7, 3, 0, 1])
    together = state(records.statistics)
    records.statistics.clear()
    for number in (0, 1, 3, 7):
        include(records, [number])
    assert state(records.statistics) == together


def test_a_record_is_not_included_twice(records: Records) -> None:
    include(records, [0, 1])
    before = state(records.statistics)
    with pytest.raises(StorageError):
        include(records, [2, 1])
    assert state(records.statistics) == before, "nothing of the batch was included"


def test_a_record_that_does_not_exist_is_not_included(records: Records) -> None:
    include(records, [0])
    before = state(records.statistics)
    with pytest.raises(UnknownRecordError):
        records.statistics.include({name(1): quantized(1), "nobody": quantized(99)}, [1, 0], CLASSES, key="k")
    assert state(records.statistics) == before


@pytest.mark.parametrize("labels", [[0], [0, 1, 2]])
def test_every_included_record_has_one_label(records: Records, labels: list[int]) -> None:
    include(records, [0])
    before = state(records.statistics)
    with pytest.raises(ValueError):
        records.statistics.include({name(1): quantized(1), name(2): quantized(2)}, labels, CLASSES, key="k")
    assert state(records.statistics) == before


def test_including_is_not_a_change_of_the_records(records: Records) -> None:
    revision, index = records.changes.revision, records.index()
    include(records, [0, 1])
    assert (records.changes.revision, records.index()) == (revision, index)
    assert not records.database.compaction_due


def test_a_longer_list_of_classes_keeps_what_was_included(records: Records) -> None:
    include(records, [0, 1, 2])
    relabel(records, [4], 4)
    include(records, [3, 4], classes=5)
    statistics = records.statistics.current()
    assert digest(statistics) == digest(scratch({**of(0, 1, 2, 3), 4: 4}, classes=5))
    assert statistics is not None
    assert statistics.records_by_class == (2, 1, 1, 0, 1)
    include(records, [5], classes=CLASSES)
    assert digest(records.statistics.current()) == digest(scratch({**of(0, 1, 2, 3, 5), 4: 4}, classes=5))


# --- keys --------------------------------------------------------------------------------------------------


def test_under_another_key_no_record_is_included(records: Records) -> None:
    include(records, [0, 1])
    assert records.statistics.ids(key="other") == set()
    assert records.statistics.ids(key="k") == {name(0), name(1)}


def test_including_under_another_key_starts_anew(records: Records) -> None:
    include(records, [0, 1, 2], classes=5)
    include(records, [1, 4], key="other")
    assert records.statistics.ids(key="k") == set()
    assert records.statistics.ids(key="other") == {name(1), name(4)}
    assert records.statistics.quantized_embeddings([name(1)]) == [quantized(1, "other").tobytes()]
    assert digest(records.statistics.current()) == digest(scratch(of(1, 4), key="other"))
    with pytest.raises(KeyError):
        records.statistics.quantized_embeddings([name(0)])


def test_including_under_another_key_that_fails_leaves_what_was_included(records: Records) -> None:
    include(records, [0, 1])
    before = state(records.statistics)
    with pytest.raises(UnknownRecordError):
        records.statistics.include({"nobody": quantized(99)}, [0], CLASSES, key="other")
    assert state(records.statistics) == before


def test_embeddings_under_another_key_may_have_another_length(records: Records) -> None:
    include(records, [0, 1])
    short = np.array([3, SCALE], np.int16)
    records.statistics.include({name(0): short}, [0], 1, key="other")
    statistics = records.statistics.current()
    assert statistics is not None
    assert statistics.gram.tolist() == [[9, 3 * SCALE], [3 * SCALE, SCALE**2]]
    assert records.statistics.quantized_embeddings([name(0)]) == [short.tobytes()]


# --- excluding --------------------------------------------------------------------------------------------


def test_deleting_records_subtracts_them_and_removes_their_embeddings(records: Records) -> None:
    include(records, [0, 1, 2, 3])
    forget(records, [name(n) for n in (1, 3, 6)], subjects=["s1"])
    assert state(records.statistics)[:2] == (digest(scratch(of(0, 2))), [name(0), name(2)])
    with pytest.raises(KeyError):
        records.statistics.quantized_embeddings([name(1)])
    with records.database.reading() as connection:
        numbers = records.derived.record_numbers([name(0), name(2)])
        assert {str(n) for n in connection.exec_driver_sql("SELECT number FROM codes").scalars()} == numbers


@pytest.mark.sqlite
def test_statistics_from_before_a_deletion_cannot_be_read_after_it(records: Records, tmp_path: Path) -> None:
    include(records, [0, 1, 2])
    backup = tmp_path / "backup"
    backup.mkdir()
    for path in tmp_path.glob("records.db*"):
        shutil.copy(path, backup)
    forget(records, [name(1)])
    records.database.erase()
    shutil.copy(tmp_path / "records.keys", backup)
    old = Records(Database(backup / "records.db"), secret=b"secret")
    for read in (old.statistics.current, lambda: old.statistics.quantized_embeddings([name(1)])):
        with pytest.raises(ErasedError):
            read()
    assert old.statistics.quantized_embeddings([name(2)]) == [quantized(2).tobytes()]
    old.database.close()


def test_records_and_statistics_change_in_the_same_transaction(records: Records) -> None:
    def half() -> None:
        with records.database.transaction() as connection:
            records.delete(connection, [name(1)])
            seen.append(state(records.statistics))  # another connection
            raise KeyboardInterrupt

    include(records, [0, 1, 2])
    before, seen = state(records.statistics), list[object]()
    with pytest.raises(KeyboardInterrupt):
        half()
    assert seen == [before], "what is not committed is not seen"
    assert state(records.statistics) == before
    assert sorted(records.find([name(1)])) == [name(1)]
    forget(records, [name(1)])
    assert records.find([name(1)]) == {}
    assert digest(records.statistics.current()) == digest(scratch(of(0, 2)))


def test_deletions_in_one_transaction_all_count(records: Records) -> None:
    include(records, [0, 1, 2, 3])
    with records.database.transaction() as connection:
        records.delete(connection, [name(0)])
        records.delete(connection, [name(3), name(2)])
    assert state(records.statistics)[:2] == (digest(scratch(of(1))), [name(1)])


def test_a_transaction_that_excludes_what_was_prepared_packs_nothing(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others wait for its end, and packing wide statistics takes longer than all the rest."""
    include(records, range(5))
    records.statistics.prepare_exclusion([name(1)])
    monkeypatch.setattr("lmeraser.core.sufficient_statistics.pack", None)
    forget(records, [name(1)])
    monkeypatch.undo()
    assert digest(records.statistics.current()) == digest(scratch(of(0, 2, 3, 4)))
    assert digest(StatisticsStore(records.statistics._index).current()) == digest(scratch(of(0, 2, 3, 4)))


def test_wide_statistics_are_in_a_file_that_is_there_before_the_transaction(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever accepts a request waits for a transaction, and one that writes 20 MB takes a tenth of a second."""
    monkeypatch.setattr(statistics, "_IN_FILE_BYTES", 0)
    include(records, range(5))
    files = records.database.files
    (before,) = files.folder.iterdir()
    records.statistics.prepare_exclusion([name(1)])
    with monkeypatch.context() as patch:
        patch.setattr(files, "write", None)
        forget(records, [name(1)])
    assert before.exists(), "a reader may have it open"
    records.database.discard_files()
    assert not before.exists()
    assert len(list(files.folder.iterdir())) == 1
    other = Database(records.database.keys.path.with_suffix(".db"))
    assert digest(Records(other, secret=b"secret").statistics.current()) == digest(scratch(of(0, 2, 3, 4)))
    assert [len(data) > 0 for table, data in other.decrypted_values() if table == "sums"] == [True, True]
    other.close()


def test_a_file_that_was_removed_since_it_was_prepared_is_written_again(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statistics, "_IN_FILE_BYTES", 0)
    include(records, range(5))
    records.statistics.prepare_exclusion([name(1)])
    records.database.discard_files()
    forget(records, [name(1)])
    again = StatisticsStore(records.statistics._index)
    assert digest(again.current()) == digest(scratch(of(0, 2, 3, 4)))


def test_an_exclusion_announces_what_it_is_about_to_write(records: Records) -> None:
    include(records, range(4))
    announced = list[SufficientStatistics]()
    with records.statistics.announcing(announced.append):
        forget(records, [name(1)])
        forget(records, [name(9)])
    forget(records, [name(2)])
    assert [digest(each) for each in announced] == [digest(scratch(of(0, 2, 3)))]


def test_what_is_prepared_is_announced_and_encrypted_before_the_transaction(records: Records) -> None:
    include(records, range(4))
    announced = list[SufficientStatistics]()
    with records.statistics.announcing(announced.append):
        records.statistics.prepare_exclusion([name(1)])
        assert [digest(each) for each in announced] == [digest(scratch(of(0, 2, 3)))]
    forget(records, [name(1)])
    assert records.statistics.current() is announced[0]


def test_a_disk_that_refuses_what_is_prepared_stops_the_transaction(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statistics, "_IN_FILE_BYTES", 0)
    include(records, range(4))
    before = state(records.statistics)
    with monkeypatch.context() as patch:
        patch.setattr(records.database.files, "write", lambda *_: 1 // 0)
        records.statistics.prepare_exclusion([name(1)])
        with pytest.raises(ZeroDivisionError):
            forget(records, [name(1)])
    assert state(records.statistics) == before
    forget(records, [name(1)])
    assert digest(records.statistics.current()) == digest(scratch(of(0, 2, 3)))


def test_what_was_read_once_is_not_decrypted_for_an_exclusion(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    include(records, range(5))
    store = StatisticsStore(records.statistics._index)
    assert digest(store.current()) == digest(scratch(of(0, 1, 2, 3, 4)))
    left = set(range(5))
    for gone in (1, 3):
        left.remove(gone)
        with monkeypatch.context() as patched, records.database.transaction() as connection:
            patched.setattr(store._database, "decrypt", lambda *_: pytest.fail("they were decrypted"))
            store.exclude(connection, [name(gone)])
        assert digest(store.current()) == digest(scratch(of(*left)))


def test_whether_more_than_so_many_are_included(records: Records) -> None:
    assert not records.statistics.exceeds(0, key="k")
    include(records, range(3))
    assert [records.statistics.exceeds(number, key="k") for number in range(4)] == [True, True, True, False]
    assert not records.statistics.exceeds(0, key="another")


@pytest.mark.parametrize("deleted", [[1], [1, 2, 3], [2]], ids=["the same", "more", "others"])
def test_what_was_prepared_is_used_where_it_fits(
    records: Records, monkeypatch: pytest.MonkeyPatch, deleted: list[int]
) -> None:
    include(records, range(5))
    records.statistics.prepare_exclusion([name(1)])
    read = list[int]()
    real = StatisticsStore._read
    monkeypatch.setattr(StatisticsStore, "_read", lambda store, c: read.append(1) or real(store, c))  # type: ignore[func-returns-value]
    forget(records, [name(n) for n in deleted])
    assert bool(read) == (1 not in deleted)
    assert digest(records.statistics.current()) == digest(scratch(of(*set(range(5)) - set(deleted))))


def test_what_was_prepared_before_the_statistics_changed_is_not_used(records: Records, tmp_path: Path) -> None:
    include(records, range(5))
    records.statistics.prepare_exclusion([name(1)])
    other = Records(Database(records.database.keys.path.with_suffix(".db")), secret=b"secret")
    forget(other, [name(2)])
    other.database.close()
    forget(records, [name(1)])
    assert digest(records.statistics.current()) == digest(scratch(of(0, 3, 4)))


def test_statistics_of_a_rolled_back_transaction_are_dropped_with_it(records: Records) -> None:
    """Its slot of a key is given to the next version."""

    def half(connection: Connection) -> None:
        records.delete(connection, [name(1)])
        records.delete(connection, [name(2)])
        raise KeyboardInterrupt

    include(records, range(4))
    with pytest.raises(KeyboardInterrupt), records.database.transaction() as connection:
        half(connection)
    forget(records, [name(0)])
    assert digest(records.statistics.current()) == digest(scratch(of(1, 2, 3)))


def test_after_the_last_record_the_statistics_are_zeros(records: Records) -> None:
    include(records, [0, 1])
    forget(records, [name(0), name(1)])
    assert digest(records.statistics.current()) == digest(SufficientStatistics.zero(WIDTH, CLASSES))
    assert records.statistics.ids(key="k") == set()
    include(records, [2])
    assert digest(records.statistics.current()) == digest(scratch(of(2)))


def test_excluding_records_that_are_not_included_changes_nothing(records: Records) -> None:
    def try_it() -> None:
        with records.database.transaction() as connection:
            records.statistics.exclude(connection, [name(5), "nobody"])
            records.statistics.exclude(connection, [])

    try_it()
    assert records.statistics.current() is None
    include(records, [0, 1])
    before = state(records.statistics)
    try_it()
    assert state(records.statistics) == before
    forget(records, [name(7)])
    assert state(records.statistics) == before


def test_a_relabelled_record_is_excluded_until_it_is_included_with_its_new_label(records: Records) -> None:
    include(records, [0, 1, 2])
    relabel(records, [1, 7], 2)
    assert state(records.statistics)[:2] == (digest(scratch(of(0, 2))), [name(0), name(2)])
    include(records, [1, 7])
    statistics = records.statistics.current()
    assert digest(statistics) == digest(scratch({**of(0, 2), 1: 2, 7: 2}))
    assert statistics is not None
    assert statistics.records_by_class == (1, 0, 3)
    forget(records, [name(1)])
    assert digest(records.statistics.current()) == digest(scratch({**of(0, 2), 7: 2})), (
        "it went with its new label"
    )


def test_a_rolled_back_correction_leaves_the_statistics_as_they_were(records: Records) -> None:
    def half() -> None:
        with records.database.transaction() as connection:
            records.relabel(connection, [name(0)], 2, entry=2)
            raise KeyboardInterrupt

    include(records, [0, 1])
    before = state(records.statistics)
    with pytest.raises(KeyboardInterrupt):
        half()
    assert state(records.statistics) == before
    assert records.find([name(0)])[name(0)][1] == 0


def test_more_records_than_one_statement_takes_are_included_and_excluded(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_IN_CHUNK", 3)
    include(records, range(8))
    assert digest(records.statistics.without([name(n) for n in range(7)], key="k")) == digest(scratch(of(7)))
    forget(records, [name(n) for n in range(4)])
    assert state(records.statistics)[:2] == (digest(scratch(of(4, 5, 6, 7))), [name(n) for n in (4, 5, 6, 7)])
    assert records.statistics.quantized_embeddings([name(n) for n in (7, 6, 5, 4)]) == [
        quantized(n).tobytes() for n in (7, 6, 5, 4)
    ]


# --- without some ------------------------------------------------------------------------------------------


def test_under_another_key_there_are_no_statistics_to_leave_records_out_of(records: Records) -> None:
    include(records, [0, 1])
    assert records.statistics.without([name(0)], key="other") is None


def test_a_record_that_is_named_twice_is_subtracted_once(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_IN_CHUNK", 1)
    include(records, [0, 1])
    assert digest(records.statistics.without([name(0), name(0)], key="k")) == digest(scratch(of(1)))


def test_statistics_without_some_records_are_those_of_the_others_and_change_nothing(records: Records) -> None:
    include(records, [0, 1, 2, 3])
    before = state(records.statistics)
    without = [[], [name(1)], [name(3), name(0)], [name(7), "nobody"], [name(7), name(2)]]
    left = [of(0, 1, 2, 3), of(0, 2, 3), of(1, 2), of(0, 1, 2, 3), of(0, 1, 3)]
    for ids, others in zip(without, left, strict=True):
        assert digest(records.statistics.without(ids, key="k")) == digest(scratch(others))
    assert digest(records.statistics.without([name(n) for n in range(8)], key="k")) == digest(scratch({}))
    assert state(records.statistics) == before
    forget(records, [name(3), name(0)])
    assert digest(records.statistics.current()) == digest(scratch(of(1, 2)))


# --- clearing ----------------------------------------------------------------------------------------------


def test_after_clearing_no_record_is_included(records: Records) -> None:
    include(records, [0, 1])
    records.statistics.clear()
    assert state(records.statistics) == (None, [], [])
    assert records.count() == 8
    include(records, [1])
    assert digest(records.statistics.current()) == digest(scratch(of(1)))


def test_clearing_takes_part_in_the_callers_transaction(records: Records) -> None:
    def half(connection: Connection) -> None:
        records.statistics.clear(connection)
        raise KeyboardInterrupt

    include(records, [0, 1])
    before = state(records.statistics)
    with pytest.raises(KeyboardInterrupt), records.database.transaction() as connection:
        half(connection)
    assert state(records.statistics) == before


# --- any history -------------------------------------------------------------------------------------------

_numbers = st.sets(st.integers(0, 9), min_size=1, max_size=4)
_IN_FILE_BYTES = statistics._IN_FILE_BYTES


class History(RuleBasedStateMachine):
    """Additions, inclusions, deletions, corrections, other keys, crashes and restarts, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.records = self.opened()
        self.labels: dict[int, int] = {}  # of the records that are there
        self.statistics: dict[int, int] = {}  # label with which each is included
        self.key, self.classes = "k", CLASSES
        self.included_classes: int | None = None  # None: no record was ever included

    def opened(self) -> Records:
        return Records(Database(self.folder / "records.db"), secret=b"secret")

    def teardown(self) -> None:
        self.store_in_files(_IN_FILE_BYTES)
        self.records.database.close()
        shutil.rmtree(self.folder)

    @rule(numbers=_numbers)
    def add(self, numbers: set[int]) -> None:
        new = sorted(numbers - self.labels.keys())
        fill(self.records, new)
        self.labels |= of(*new)

    @precondition(lambda self: self.labels)
    @rule(data=st.data(), key=st.sampled_from(["k", "k", "k", "other"]))
    def include(self, data: st.DataObject, key: str) -> None:
        if key != self.key:
            self.statistics, self.included_classes, self.key = {}, None, key
            new = sorted(self.labels)
        else:
            new = sorted(self.labels.keys() - self.statistics.keys())
        if not new:
            return
        chosen = data.draw(st.lists(st.sampled_from(new), unique=True, min_size=1))
        include(self.records, chosen, key=key, classes=self.classes)
        self.statistics |= {number: self.labels[number] for number in chosen}
        self.included_classes = self.classes

    @rule(numbers=_numbers)
    def delete(self, numbers: set[int]) -> None:
        forget(self.records, [name(n) for n in sorted(numbers)])
        self.drop(numbers)

    @rule(numbers=_numbers)
    def prepare(self, numbers: set[int]) -> None:
        """For a deletion of these that comes next, or of others, or never."""
        self.records.statistics.prepare_exclusion([name(n) for n in numbers])

    @rule(numbers=_numbers, more=_numbers)
    def delete_what_was_prepared(self, numbers: set[int], more: set[int]) -> None:
        self.prepare(numbers)
        self.delete(numbers | more)

    @rule(size=st.sampled_from([0, _IN_FILE_BYTES]))
    def store_in_files(self, size: int) -> None:
        statistics._IN_FILE_BYTES = size

    @rule()
    def discard_files(self) -> None:
        self.records.database.discard_files()

    @rule()
    def release(self) -> None:
        self.records.statistics.release_memory()

    @rule(numbers=_numbers)
    def delete_in_vain(self, numbers: set[int]) -> None:
        with pytest.raises(KeyboardInterrupt), self.records.database.transaction() as connection:
            self.half(connection, numbers)

    @rule(numbers=_numbers, data=st.data())
    def relabel(self, numbers: set[int], data: st.DataObject) -> None:
        label, known = data.draw(st.integers(0, self.classes - 1)), sorted(numbers & self.labels.keys())
        relabel(self.records, known, label)
        self.labels |= dict.fromkeys(known, label)
        self.statistics = {n: old for n, old in self.statistics.items() if n not in known}

    @rule()
    def extend_classes(self) -> None:
        self.classes = min(self.classes + 1, CLASSES + 2)

    @rule()
    def clear(self) -> None:
        self.records.statistics.clear()
        self.statistics, self.included_classes = {}, None

    @rule()
    def restart(self) -> None:
        self.records.database.close()
        self.records = self.opened()

    def half(self, connection: Connection, numbers: set[int]) -> None:
        self.records.delete(connection, [name(n) for n in sorted(numbers)])
        raise KeyboardInterrupt

    def drop(self, numbers: set[int]) -> None:
        self.labels = {n: label for n, label in self.labels.items() if n not in numbers}
        self.statistics = {n: label for n, label in self.statistics.items() if n not in numbers}

    def expected(self, numbers: Sequence[int]) -> str | None:
        if self.included_classes is None:
            return None
        labels = {n: self.statistics[n] for n in numbers}
        return digest(scratch(labels, key=self.key, classes=self.included_classes))

    @invariant()
    def the_statistics_are_those_of_what_is_included(self) -> None:
        assert digest(self.records.statistics.current()) == self.expected(sorted(self.statistics))

    @invariant()
    def ids_and_embeddings_are_those_of_what_is_included(self) -> None:
        ids = [name(n) for n in sorted(self.statistics)]
        assert sorted(self.records.statistics.ids(key=self.key)) == ids
        assert self.records.statistics.quantized_embeddings(ids) == [
            quantized(n, self.key).tobytes() for n in sorted(self.statistics)
        ]

    @invariant()
    def the_statistics_without_some_are_those_of_the_others(self) -> None:
        even = [n for n in range(10) if n % 2 == 0]
        without = self.records.statistics.without([name(n) for n in even], key=self.key)
        assert digest(without) == self.expected(sorted(self.statistics.keys() - even))


TestAnyHistory = History.TestCase
TestAnyHistory.settings = settings(
    examples(fast=4, explore=10), stateful_step_count=14, suppress_health_check=list(HealthCheck)
)


def test_a_version_that_was_rolled_back_is_not_taken_for_the_one_that_got_its_slot(records: Records) -> None:
    include(records, range(4))

    def interrupted() -> None:
        with records.database.transaction() as connection:
            records.statistics.exclude(connection, [name(0)])
            raise RuntimeError

    with pytest.raises(RuntimeError):
        interrupted()
    assert digest(records.statistics.current()) == digest(scratch(of(*range(4))))
    records.statistics.clear()
    include(records, [1, 2])
    assert digest(records.statistics.current()) == digest(scratch(of(1, 2)))
    records.statistics.release_memory()
    assert digest(records.statistics.current()) == digest(scratch(of(1, 2)))


def test_a_version_that_was_just_written_is_not_decrypted(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    include(records, range(4))
    decrypted: list[str] = []
    decrypt = KeyStore.decrypt

    def counted(keys: KeyStore, slot: int, what: str, encrypted: bytes) -> bytes:
        decrypted.append(what)
        return decrypt(keys, slot, what, encrypted)

    monkeypatch.setattr(KeyStore, "decrypt", counted)
    include(records, range(4, 8))
    with records.database.transaction() as connection:
        records.statistics.exclude(connection, [name(0)])
    assert digest(records.statistics.current()) == digest(scratch(of(*range(1, 8))))
    assert "sums" not in decrypted
    records.statistics.release_memory()
    assert digest(records.statistics.current()) == digest(scratch(of(*range(1, 8))))
    assert "sums" in decrypted
