"""A transaction happens as a whole or not at all, and what is removed leaves no byte in the database's log."""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, bindparam, column, delete, event, insert, select, table, update

from lmeraser.errors import CorruptError, InputError, StorageError
from lmeraser.storage.database import Database, SlotDraw, chunked
from lmeraser.storage.keystore import ErasedError

FACTS = table("facts", column("name"), column("value"))


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(tmp_path / "records.db")
    yield opened
    opened.close()


def put(database: Database, name: str, value: str) -> None:
    with database.transaction() as connection:
        database.set_metadata(connection, name, value)


def held(path: Path) -> dict[str, str]:
    """The facts, read by another program."""
    connection = sqlite3.connect(path)
    try:
        return dict(connection.execute("SELECT name, value FROM facts").fetchall())
    finally:
        connection.close()


# --- transactions ------------------------------------------------------------------------------------------


def test_a_transaction_is_seen_by_others_when_it_has_ended(database: Database) -> None:
    with database.transaction() as connection:
        database.set_metadata(connection, "a", "1")
        assert database.get_metadata("a", connection) == "1"
        assert held(database.keys.path.with_suffix(".db")) == {}
    assert held(database.keys.path.with_suffix(".db")) == {"a": "1"}


@pytest.mark.parametrize("kind", [ValueError, InputError, KeyboardInterrupt])
def test_a_transaction_that_is_left_by_an_exception_has_not_happened(
    database: Database, kind: type[BaseException]
) -> None:
    put(database, "a", "1")

    def half() -> None:
        with database.transaction() as connection:
            database.set_metadata(connection, "a", "2")
            database.set_metadata(connection, "b", "1")
            raise kind("stopped")

    with pytest.raises(kind, match="stopped"):
        half()
    assert held(database.keys.path.with_suffix(".db")) == {"a": "1"}
    put(database, "b", "2")
    assert held(database.keys.path.with_suffix(".db")) == {"a": "1", "b": "2"}


def test_a_transaction_within_another_is_a_part_of_it(database: Database) -> None:
    with database.transaction() as outer:
        database.set_metadata(outer, "a", "1")
        with database.transaction(outer) as inner:
            assert inner is outer
            database.set_metadata(inner, "b", "1")
        assert held(database.keys.path.with_suffix(".db")) == {}, "the end of the part is not the end of the whole"
    assert held(database.keys.path.with_suffix(".db")) == {"a": "1", "b": "1"}


def test_a_transaction_within_another_goes_with_it(database: Database) -> None:
    def half() -> None:
        with database.transaction() as outer:
            with database.transaction(outer) as inner:
                database.set_metadata(inner, "a", "1")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        half()
    assert held(database.keys.path.with_suffix(".db")) == {}


def test_a_refused_statement_takes_the_whole_transaction_with_it(database: Database) -> None:
    def twice() -> None:
        with database.transaction() as connection:
            for value in "12":
                connection.execute(insert(FACTS).values(name="a", value=value))

    with pytest.raises(StorageError, match=r"records\.db"):
        twice()
    assert held(database.keys.path.with_suffix(".db")) == {}


@pytest.mark.parametrize(
    ("setting", "value"), [("journal_mode", "wal"), ("foreign_keys", 1), ("secure_delete", 1), ("synchronous", 2)]
)
def test_every_connection_is_durable_and_erases_what_is_deleted(
    database: Database, setting: str, value: object
) -> None:
    with database.reading() as first, database.transaction() as second:
        for connection in (first, second):
            assert connection.exec_driver_sql(f"PRAGMA {setting}").scalar_one() == value


# --- facts -------------------------------------------------------------------------------------------------


def test_a_fact_is_what_was_set_last(database: Database) -> None:
    assert database.get_metadata("a") is None
    put(database, "a", "1")
    put(database, "a", "2")
    put(database, "b", "")
    assert (database.get_metadata("a"), database.get_metadata("b"), database.get_metadata("c")) == ("2", "", None)


def test_facts_outlive_the_connection(database: Database) -> None:
    put(database, "ключ", "値 ' \" ; --")
    database.close()
    again = Database(database.keys.path.with_suffix(".db"))
    assert again.get_metadata("ключ") == "値 ' \" ; --"
    again.close()


def test_rows_are_found_however_many_are_asked_for(database: Database) -> None:
    names = [f"n{number:04d}" for number in range(1201)]
    with database.transaction() as connection:
        connection.execute(insert(FACTS), [{"name": name, "value": "x"} for name in names])
    wanted = [*names[1:], "nobody"]
    found = database.fetch_where_in(select(FACTS.c.name), FACTS.c.name, wanted, lambda row: row.name)
    assert sorted(found) == names[1:]
    assert list(database.fetch_where_in(select(FACTS), FACTS.c.name, [], lambda row: row)) == []


def test_all_that_is_read_through_one_connection_is_of_one_state(database: Database) -> None:
    put(database, "a", "1")
    with database.reading() as connection:
        assert database.get_metadata("a", connection) == "1"
        put(database, "a", "2")
        put(database, "b", "2")
        assert (database.get_metadata("a", connection), database.get_metadata("b", connection)) == ("1", None)
    assert database.get_metadata("b") == "2"


# --- keys --------------------------------------------------------------------------------------------------


def made(database: Database, count: int) -> list[int]:
    with database.transaction() as connection:
        return database.new_keys(connection, count)


def doomed(database: Database, *slots: int) -> None:
    with database.transaction() as connection:
        database.schedule_erasure(connection, slots)


def test_every_key_has_a_slot_of_its_own(database: Database) -> None:
    other = Database(database.keys.path.with_suffix(".db"))
    slots = [*made(database, 3), *made(other, 2), *made(database, 1)]
    assert len({database.keys.key(slot) for slot in slots}) == len(set(slots)) == 6
    other.close()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])  # transactions follow each other
@given(expected=st.integers(0, 40), takes=st.lists(st.integers(1, 30), min_size=1, max_size=4))
@pytest.mark.sqlite
def test_slots_say_nothing_of_the_order_in_which_they_were_taken(
    database: Database, expected: int, takes: list[int]
) -> None:
    with database.transaction() as connection:
        before = int(database.get_metadata("slots", connection) or 1)
        draw = SlotDraw(database, connection, expected)
        taken = [slot for count in takes for slot in draw.take(count)]
        end = int(database.get_metadata("slots", connection) or 0)
    assert len(set(taken)) == len(taken) == sum(takes)
    assert set(taken) <= set(range(before, end))
    assert end - before >= 2 * max(len(taken), expected), "half of them are never used"
    keys = database.keys.path.read_bytes()
    unused = set(range(before, end)).difference(taken)
    assert {keys[32 * slot : 32 * slot + 32] for slot in unused} == {bytes(32)}, "as if they were erased"


def test_the_first_record_may_get_any_slot(database: Database) -> None:
    def first(connection: Connection) -> int:
        before = int(database.get_metadata("slots", connection) or 1)
        return SlotDraw(database, connection, 50).take(50)[0] - before

    with database.transaction() as connection:
        drawn = [first(connection) for _ in range(40)]
    assert min(drawn) < 40 < 60 < max(drawn), "each of 100 as likely; all on one side: less than 1 in 10^8"


def test_keys_of_a_transaction_that_did_not_happen_are_made_anew(database: Database) -> None:
    old: list[bytes] = []

    def half() -> None:
        with database.transaction() as connection:
            old.extend(database.keys.key(slot) for slot in database.new_keys(connection, 2))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        half()
    assert set(made(database, 2)) <= set(range(1, 5)), "the same slots"
    assert not any(key in database.keys.path.read_bytes() for key in old)


def test_keys_are_on_the_disk_before_what_they_seal(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    put(database, "a", "0")
    monkeypatch.setattr(
        database.keys, "flush", lambda: order.append(held(database.keys.path.with_suffix(".db")).get("a"))
    )
    order: list[str | None] = []
    with database.transaction() as connection:
        database.new_keys(connection, 1)
        database.set_metadata(connection, "a", "1")
    assert order == ["0"]


def test_doomed_keys_are_erased_after_the_transaction(database: Database) -> None:
    slots = made(database, 5)
    doomed(database, slots[1], slots[4])
    assert len(database.keys.key(slots[1])) == 32
    database.erase()
    for slot in (slots[1], slots[4]):
        with pytest.raises(ErasedError):
            database.keys.key(slot)
    assert all(len(database.keys.key(slots[n])) == 32 for n in (0, 2, 3))
    assert min(made(database, 1)) > max(slots), "a slot is used once"


def test_keys_that_were_not_doomed_after_all_stay(database: Database) -> None:
    def half() -> None:
        with database.transaction() as connection:
            database.schedule_erasure(connection, [slot])
            raise KeyboardInterrupt

    (slot,) = made(database, 1)
    with pytest.raises(KeyboardInterrupt):
        half()
    database.erase()
    assert len(database.keys.key(slot)) == 32


def test_erasing_that_was_interrupted_is_done_again(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = made(database, 1100)
    (kept,) = made(database, 1)
    doomed(database, *gone)

    def stop(slots: Iterable[int]) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(database.keys, "erase", stop)
        with pytest.raises(KeyboardInterrupt):
            database.erase()
    again = Database(database.keys.path.with_suffix(".db"))
    again.erase()
    again.close()
    data = database.keys.path.read_bytes()
    assert not any(any(data[32 * slot : 32 * slot + 32]) for slot in gone)
    assert len(database.keys.key(kept)) == 32


def test_what_others_delete_meanwhile_is_read_again(database: Database) -> None:
    tried: list[str | None] = []

    def read(connection: Connection) -> str | None:
        tried.append(database.get_metadata("a", connection))
        if len(tried) < 3:
            put(database, "a", str(len(tried)))
            raise ErasedError("gone", got="a slot")
        return tried[-1]

    assert database.read_consistently(read) == "2"
    assert tried == [None, "1", "2"]


def test_what_is_there_without_its_key_is_an_error_in_the_end(database: Database) -> None:
    def read(connection: Connection) -> None:
        raise ErasedError("gone", got="a slot")

    with pytest.raises(ErasedError):
        database.read_consistently(read)


@pytest.mark.sqlite
def test_a_change_waits_for_its_turn_but_not_for_ever(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    other = Database(database.keys.path.with_suffix(".db"))
    turns = list[float]()

    def end(seconds: float) -> None:
        turns.append(seconds)
        if len(turns) == 3:
            first.__exit__(None, None, None)

    monkeypatch.setattr("lmeraser.storage.engines.time.sleep", end)
    first = other.transaction()
    first.__enter__()
    put(database, "kept", "1")
    assert len(turns) == 3
    monkeypatch.setattr("lmeraser.storage.engines._SQLITE_TIMEOUT", 0)
    with other.transaction(), pytest.raises(StorageError, match="locked"):
        put(database, "kept", "2")
    put(database, "kept", "3")
    other.close()


# --- freed bytes -------------------------------------------------------------------------------------------


def test_after_compaction_no_byte_of_what_was_deleted_is_in_any_file(database: Database) -> None:
    folder, secret = database.keys.path.with_suffix(".db").parent, "the-secret-" * 400

    def remains() -> list[str]:
        return [path.name for path in folder.iterdir() if b"the-secret" in path.read_bytes()]

    assert not database.compaction_due
    put(database, "kept", "1")
    put(database, "gone", secret)
    assert remains(), "the probe finds it while it is there"
    with database.transaction() as connection:
        connection.execute(delete(FACTS).where(FACTS.c.name == "gone"))
        database.mark_compaction_due(connection)
    assert database.compaction_due
    assert remains(), "deleting is not enough"
    database.compact()
    assert not database.compaction_due
    assert (folder / "records.db-wal").stat().st_size == 0
    assert remains() == []
    assert database.get_metadata("kept") == "1"


def test_a_table_that_is_compacted_alone_keeps_its_rows_and_no_byte_of_those_it_had(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, names = database.keys.path.parent, [f"{number:04}" for number in range(2000)]
    drawn = random.Random(1)
    longer = update(FACTS).where(FACTS.c.name == bindparam("row")).values(value=bindparam("longer"))

    def remains() -> int:
        return sum(path.read_bytes().count(b"the-secret") for path in folder.iterdir())

    with database.transaction() as connection:
        secrets = [{"name": name, "value": "the-secret " * drawn.randint(1, 9)} for name in names]
        connection.execute(insert(FACTS), secrets)
        connection.exec_driver_sql("INSERT INTO doomed VALUES (7)")
    with database.transaction() as connection:
        moved = [
            {"row": name, "longer": "the-secret " * drawn.randint(5, 40)} for name in drawn.sample(names, 600)
        ]
        connection.execute(longer, moved)
    with database.transaction() as connection:
        connection.execute(update(FACTS).values(value=FACTS.c.name))
        database.mark_compaction_due(connection, table="facts")
    database._backend.empty_log()
    assert remains(), "pages keep copies of rows that they moved, whatever is overwritten"
    assert database.compaction_due
    monkeypatch.setattr("lmeraser.storage.database._QUICK_TO_COMPACT", 0)
    assert database.quick_to_compact
    database.compact()
    assert remains() == 0
    assert not database.compaction_due
    found = held(folder / "records.db")
    assert {name: found[name] for name in names} == dict(zip(names, names, strict=True))
    with database.reading() as connection:
        assert connection.exec_driver_sql("SELECT slot FROM doomed").scalars().all() == [7]
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar_one() == 1
        assert connection.exec_driver_sql("PRAGMA integrity_check").scalar_one() == "ok"


def test_a_table_is_compacted_alone_only_where_nothing_else_is_due_and_it_is_small(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    rewritten = list[str]()
    monkeypatch.setattr(database._backend, "rewrite", lambda tables: rewritten.append("all"))
    monkeypatch.setattr(database._backend, "rewrite_table", rewritten.append)

    def compact_after(*tables: str | None) -> None:
        with database.transaction() as connection:
            for table in tables:
                database.mark_compaction_due(connection, table=table)
        database.compact()

    compact_after("facts", "facts")
    compact_after("facts", "doomed")
    compact_after("facts", None)
    compact_after(None, "facts")
    compact_after("no table of this version")
    monkeypatch.setattr("lmeraser.storage.database._FEW_ROWS", 0)
    compact_after("facts")
    assert rewritten == ["facts", "all", "all", "all", "all", "all"]


def test_a_table_that_cannot_be_compacted_alone_keeps_its_rows(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with database.transaction() as connection:
        database.set_metadata(connection, "kept", "1")
        database.mark_compaction_due(connection, table="facts")

    def stop(connection: sqlite3.Connection, cursor: object, statement: str, *_: object) -> None:
        if statement == "COMMIT":
            raise KeyboardInterrupt

    event.listen(database._engine, "before_cursor_execute", stop)
    with pytest.raises(KeyboardInterrupt):
        database.compact()
    event.remove(database._engine, "before_cursor_execute", stop)
    assert database.get_metadata("kept") == "1"
    assert database.compaction_due
    database.compact()
    assert not database.compaction_due
    assert held(database.keys.path.with_suffix(".db"))["kept"] == "1"


def test_compaction_gives_free_pages_back(database: Database) -> None:
    def free_pages() -> int:
        with database.reading() as connection:
            return int(connection.exec_driver_sql("PRAGMA freelist_count").scalar_one())

    database.compact()
    empty = database.keys.path.with_suffix(".db").stat().st_size
    put(database, "gone", "x" * 1_000_000)
    with database.transaction() as connection:
        connection.execute(delete(FACTS))
    assert free_pages() > 10
    database.compact()
    assert free_pages() == 0
    assert database.keys.path.with_suffix(".db").stat().st_size == empty, "all that 1,000,000 bytes took"


CHECKPOINT = """
import fcntl, sys, time
with open(sys.argv[1], "r+b") as index:
    fcntl.lockf(index, fcntl.LOCK_EX, 1, 121)  # the byte that stands for a checkpoint under way
    print("locked", flush=True)
    time.sleep(0.5)
"""


def test_compaction_waits_for_a_checkpoint_that_somebody_elses_commit_set_off(database: Database) -> None:
    with database.reading():  # or nobody has the log open
        log = database.keys.path.with_name("records.db-wal")
        arguments = [sys.executable, "-c", CHECKPOINT, str(log.with_name("records.db-shm"))]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE) as other:
            assert other.stdout is not None
            assert other.stdout.readline() == b"locked\n"
            put(database, "kept", "1")
            database.compact()
            assert not database.compaction_due
            assert log.stat().st_size == 0


def test_compaction_can_be_repeated_and_becomes_due_again(database: Database) -> None:
    for _ in range(2):
        database.compact()
        database.compact()
        assert not database.compaction_due
        with database.transaction() as connection:
            database.mark_compaction_due(connection)
            database.mark_compaction_due(connection)
        assert database.compaction_due


def test_a_deletion_that_did_not_happen_needs_no_compaction(database: Database) -> None:
    def half() -> None:
        with database.transaction() as connection:
            database.mark_compaction_due(connection)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        half()
    assert not database.compaction_due


# --- failures ----------------------------------------------------------------------------------------------


def test_a_file_that_is_not_a_database_is_corrupt_and_stays_as_it_is(tmp_path: Path) -> None:
    path, data = tmp_path / "records.db", b"this is a letter and not a database\n" * 100
    path.write_bytes(data)
    with pytest.raises(CorruptError, match=r"records\.db"):
        Database(path)
    assert path.read_bytes() == data


def test_a_folder_is_not_taken_for_a_database(tmp_path: Path) -> None:
    (tmp_path / "records.db").mkdir()
    with pytest.raises(StorageError, match=r"records\.db"):
        Database(tmp_path / "records.db")


def test_a_database_in_a_folder_that_is_missing_cannot_be_made(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"records\.db"):
        Database(tmp_path / "missing" / "records.db")
    assert list(tmp_path.iterdir()) == []


# --- chunks ------------------------------------------------------------------------------------------------


@given(st.integers(0, 2100))
def test_chunks_are_the_items_in_order_and_only_the_last_is_short(count: int) -> None:
    chunks = list(chunked(iter(range(count))))
    assert [item for chunk in chunks for item in chunk] == list(range(count))
    assert {len(chunk) for chunk in chunks[:-1]} <= {500}
    assert all(0 < len(chunk) <= 500 for chunk in chunks)


@pytest.mark.parametrize("name", ["a?b", "a%41b", "a#b", "a b", "ä", "a?mode=memory", "file:x"])
def test_the_file_lies_where_the_path_says_whatever_it_is_called(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    database = Database(tmp_path / name / "records.db")
    put(database, "name", "value")
    database.close()
    assert held(tmp_path / name / "records.db")["name"] == "value"
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_what_is_deleted_while_the_file_is_rewritten_is_still_to_be_rewritten(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def need() -> None:
        with database.transaction() as connection:
            database.mark_compaction_due(connection)

    real = database._backend.rewrite

    def rewrite(tables: Iterable[str]) -> None:
        real(tables)
        assert database.compaction_due
        need()

    need()
    with monkeypatch.context() as patch:
        patch.setattr(database._backend, "rewrite", rewrite)
        database.compact()
    assert database.compaction_due
    database.compact()
    assert not database.compaction_due


def test_transactions_of_several_threads_come_one_after_the_other(database: Database) -> None:
    def count(_: int) -> None:
        for _ in range(10):
            with database.transaction() as connection:
                database.set_metadata(connection, "n", str(int(database.get_metadata("n", connection) or 0) + 1))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(count, range(4)))
    assert database.get_metadata("n") == "40"


# --- a folder that cannot be written to --------------------------------------------------------------------


@pytest.fixture
def only_readable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    """A database in a folder that this process, but not another one, is said to be unable to write to."""
    others = Database(tmp_path / "records.db")
    put(others, "a", "1")
    others.close()
    can = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK and can(path, mode))
    opened = Database(tmp_path / "records.db")
    monkeypatch.undo()
    yield opened
    opened.close()


@pytest.mark.sqlite
def test_a_folder_that_cannot_be_written_to_is_read(only_readable: Database) -> None:
    folder = only_readable.keys.path.parent
    before = sorted(folder.iterdir())
    assert only_readable.get_metadata("a") == "1"
    with pytest.raises(StorageError, match="readonly") as caught:
        put(only_readable, "a", "2")
    assert "copy the workspace" in caught.value.next_step
    assert sorted(folder.iterdir()) == before  # no log was made


@pytest.mark.sqlite
def test_what_others_write_is_read_there_too(only_readable: Database) -> None:
    """At once from their log, and from the file when they are done."""
    assert only_readable.get_metadata("a") == "1"
    others = Database(only_readable.keys.path.with_suffix(".db"))
    put(others, "a", "2")
    assert only_readable.get_metadata("a") == "2"
    others.close()
    assert only_readable.get_metadata("a") == "2"


@pytest.mark.sqlite
def test_a_file_that_changes_while_it_is_read_there_is_an_error(only_readable: Database) -> None:
    """As long as nobody had written to its log, it was opened as one that does not change."""

    def change(_: Connection) -> None:
        others = Database(only_readable.keys.path.with_suffix(".db"))
        put(others, "a", "3" * 40_000)
        others.close()  # which moves the log into the file

    with pytest.raises(StorageError, match="changed while it was read"):
        only_readable.read_consistently(change)
    assert only_readable.get_metadata("a") == "3" * 40_000
