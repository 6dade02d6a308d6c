"""Receipts of other systems are attached to open requests, within bounds, and listed in the order they came."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lmeraser.core.digests import Digest
from lmeraser.errors import InputError
from lmeraser.storage.database import Database
from lmeraser.workspace.requests.receipts import LONGEST_SYSTEM, MOST, Receipt, Receipts
from lmeraser.workspace.requests.state import Request

REQUEST = Request(
    id="00000000-0000-4000-8000-000000000001",
    regulation="gdpr",
    state="pending",
    received="2026-01-31T12:00:00Z",
    due="2026-02-28T12:00:00Z",
    changed="2026-01-31T12:00:00Z",
    names=1,
    audit=False,
)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(tmp_path / "records.db")
    yield opened
    opened.close()


def receipt(name: str, system: str = "warehouse") -> Receipt:
    return Receipt(system, Digest.of(name.encode()))


def attach(database: Database, *receipts: Receipt, request: Request = REQUEST) -> list[Receipt]:
    with database.transaction() as connection:
        Receipts(database).attach(connection, request, receipts)
    return Receipts(database).of(request.id)


def test_receipts_are_listed_as_they_came_each_once(database: Database) -> None:
    assert Receipts(database).of(REQUEST.id) == []
    first, second, third = receipt("b"), receipt("a", "vector store"), receipt("c")
    assert attach(database, first, second, first) == [first, second]
    assert attach(database, replace(first, system="another name"), third) == [first, second, third]
    assert attach(database, third, request=replace(REQUEST, id="another")) == [third]


@pytest.mark.parametrize("state", ["in_progress", "failed", "completed", "cancelled"])
def test_a_request_that_is_carried_out_takes_none(database: Database, state: str) -> None:
    with pytest.raises(InputError, match="takes no more receipts"):
        attach(database, receipt("a"), request=replace(REQUEST, state=state))  # type: ignore[arg-type]


def test_their_number_is_bounded(database: Database) -> None:
    most = [receipt(str(number)) for number in range(MOST)]
    assert len(attach(database, *most)) == MOST
    assert len(attach(database, *most)) == MOST, "none of them is new"
    with pytest.raises(InputError, match="Too many"):
        attach(database, receipt("one more"))
    assert len(Receipts(database).of(REQUEST.id)) == MOST


@pytest.mark.parametrize("system", ["", "  ", "x" * (LONGEST_SYSTEM + 1), "a\nb", "\x1b[2K", "\u202e"])
def test_names_that_cannot_be_shown_are_refused(database: Database, system: str) -> None:
    with pytest.raises(InputError, match="Name of a system"):
        attach(database, receipt("good"), receipt("a", system))
    assert Receipts(database).of(REQUEST.id) == []
