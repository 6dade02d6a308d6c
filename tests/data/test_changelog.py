"""What a request must look at: never less than what changed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lmeraser.data.changelog import Changes
from lmeraser.storage.database import Database


@pytest.fixture
def changes(tmp_path: Path) -> Iterator[Changes]:
    database = Database(tmp_path / "records.db")
    yield Changes(database)
    database.close()


def note(changes: Changes, *places: tuple[str, str, bool], anything: bool = False) -> None:
    with changes._database.transaction() as connection:
        changes.note(connection, None if anything else places)


def test_every_change_has_a_revision(changes: Changes) -> None:
    assert changes.revision == 0
    note(changes, ("p", "3", False))
    note(changes, anything=True)
    assert changes.revision == 2


def test_the_places_of_all_changes_since_are_touched(changes: Changes) -> None:
    note(changes, anything=True)
    note(changes, ("p", "3", False), ("p", "12/0101", False))
    note(changes, ("p", "12/0001", False))
    assert changes.trie_keys("p", since=1) == {"3", "12/0101", "12/0001"}
    assert changes.trie_keys("p", since=2) == {"12/0001"}
    assert changes.trie_keys("p", since=3) == set()


@pytest.mark.parametrize("since", [0, 1])
def test_what_adds_or_shapes_touches_everything(changes: Changes, since: int) -> None:
    note(changes, ("p", "3", False), ("p", "4", True))
    note(changes, anything=True)
    assert changes.trie_keys("p", since=since) is None


def test_a_record_that_shaped_one_partition_is_ordinary_under_another(changes: Changes) -> None:
    note(changes, ("p", "3", True), ("q", "5", False))
    assert changes.trie_keys("p", since=0) is None
    assert changes.trie_keys("q", since=0) == {"5"}


def test_a_change_that_was_not_noted_under_a_partition_may_touch_all_of_it(changes: Changes) -> None:
    note(changes, ("p", "3", False))
    note(changes, ("q", "5", False))
    assert changes.trie_keys("p", since=0) is None
    note(changes)  # of records without a place
    assert changes.trie_keys("q", since=1) is None


def test_what_is_forgotten_is_not_known(changes: Changes) -> None:
    note(changes, ("p", "3", False))
    note(changes, ("p", "4", False))
    changes.forget(until=1)
    assert changes.trie_keys("p", since=0) is None
    assert changes.trie_keys("p", since=1) == {"4"}


def test_a_change_that_is_rolled_back_has_no_revision(changes: Changes) -> None:
    def half() -> None:
        with changes._database.transaction() as connection:
            changes.note(connection, [("p", "3", False)])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        half()
    assert (changes.revision, changes.trie_keys("p", since=0)) == (0, set())
