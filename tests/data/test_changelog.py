"""What a derivation must look at: never less than what changed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lmeraser.data.changelog import ChangedTrieKey, ChangeLog
from lmeraser.storage.database import Database


@pytest.fixture
def changes(tmp_path: Path) -> Iterator[ChangeLog]:
    database = Database(tmp_path / "records.db")
    yield ChangeLog(database)
    database.close()


def record(changes: ChangeLog, *changed: tuple[str, str, bool], anything: bool = False) -> None:
    """Each change is the key of a partition, a trie key, and whether the partition was fitted on the record."""
    with changes._database.transaction() as connection:
        changes.record(connection, None if anything else [ChangedTrieKey(*each) for each in changed])


def test_every_change_has_a_revision(changes: ChangeLog) -> None:
    assert changes.revision == 0
    record(changes, ("p", "3", False))
    record(changes, anything=True)
    assert changes.revision == 2


def test_the_trie_keys_of_all_changes_since_are_affected(changes: ChangeLog) -> None:
    record(changes, anything=True)
    record(changes, ("p", "3", False), ("p", "12/0101", False))
    record(changes, ("p", "12/0001", False))
    assert changes.trie_keys("p", since=1) == {"3", "12/0101", "12/0001"}
    assert changes.trie_keys("p", since=2) == {"12/0001"}
    assert changes.trie_keys("p", since=3) == set()


@pytest.mark.parametrize("since", [0, 1])
def test_adding_records_and_changing_sampled_ones_affects_everything(changes: ChangeLog, since: int) -> None:
    record(changes, ("p", "3", False), ("p", "4", True))
    record(changes, anything=True)
    assert changes.trie_keys("p", since=since) is None


def test_a_record_that_one_partition_was_fitted_on_is_ordinary_under_another(changes: ChangeLog) -> None:
    record(changes, ("p", "3", True), ("q", "5", False))
    assert changes.trie_keys("p", since=0) is None
    assert changes.trie_keys("q", since=0) == {"5"}


def test_a_change_without_trie_keys_under_a_partition_may_affect_all_of_it(changes: ChangeLog) -> None:
    record(changes, ("p", "3", False))
    record(changes, ("q", "5", False))
    assert changes.trie_keys("p", since=0) is None
    record(changes)  # of records without a trie key
    assert changes.trie_keys("q", since=1) is None


def test_what_is_discarded_is_not_known(changes: ChangeLog) -> None:
    record(changes, ("p", "3", False))
    record(changes, ("p", "4", False))
    changes.discard(until=1)
    assert changes.trie_keys("p", since=0) is None
    assert changes.trie_keys("p", since=1) == {"4"}


def test_a_change_that_is_rolled_back_has_no_revision(changes: ChangeLog) -> None:
    def half() -> None:
        with changes._database.transaction() as connection:
            changes.record(connection, [ChangedTrieKey("p", "3", False)])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        half()
    assert (changes.revision, changes.trie_keys("p", since=0)) == (0, set())


def test_what_is_discarded_after_the_first_deletion_is_to_be_rewritten(changes: ChangeLog) -> None:
    """Its trie keys may be those of deleted records; before, nothing is."""
    database = changes._database
    for deleted in (False, True):
        if deleted:
            with database.transaction() as connection:
                database.mark_compaction_due(connection)
            database.compact()
        record(changes, ("p", "3", False))
        changes.discard(until=changes.revision)
        assert database.compaction_due == deleted
        changes.discard(until=changes.revision)
    with database.reading() as connection:
        assert database._table_due(connection) == "touched", "alone"
    database.compact()
    changes.discard(until=changes.revision)
    assert not database.compaction_due, "nothing was discarded"
