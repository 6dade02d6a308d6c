"""A notice is due until it was told, survives restarts, is tried less and less often, and then forgotten."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

import faults
from conftest import Template
from faults import NOW, name, opened
from lmeraser import Eraser
from lmeraser.core.time import from_text
from lmeraser.workspace.requests.subscriptions import Notification, Subscriptions
from serving import fake_workspace

URL = "https://somebody.example/with?secret=of-patient-17"
PATIENCE = timedelta(days=1)


@pytest.fixture
def eraser(template: Template, tmp_path: Path) -> Iterator[Eraser]:
    with opened(fake_workspace(template, tmp_path)) as one:
        one.request(ids=[name(4)], request=faults.REQUEST)
        subscribe(one, [URL, URL])
        yield one


def subscribe(eraser: Eraser, urls: list[str]) -> None:
    with eraser.workspace.request_transaction("test") as connection:
        eraser.workspace.subscriptions.add(connection, faults.REQUEST, urls, now=NOW)


def of(eraser: Eraser) -> Subscriptions:
    return eraser.workspace.subscriptions


def due(eraser: Eraser, later: timedelta = timedelta()) -> list[Notification]:
    return of(eraser).due(NOW + later)


def next_try(eraser: Eraser) -> datetime:
    with eraser.workspace.database.reading() as connection:
        return from_text(connection.exec_driver_sql("SELECT next FROM subscriptions").scalar_one())


def test_nothing_is_due_before_the_state_changes(eraser: Eraser) -> None:
    assert due(eraser) == []
    assert of(eraser).count() == 1, "a URL that is named twice is told once"


def test_the_end_is_told_once_and_then_forgotten(eraser: Eraser) -> None:
    eraser.unlearn()
    (notice,) = due(eraser)
    assert (notice.request, notice.state, notice.url, notice.tries) == (faults.REQUEST, "completed", URL, 0)
    assert due(eraser) == [notice], "until it was told"
    of(eraser).delivered(notice)
    assert due(eraser) == []
    assert of(eraser).count() == 0


def test_a_state_on_the_way_is_told_and_the_end_after_it(eraser: Eraser) -> None:
    request = eraser.workspace.requests.require(faults.REQUEST)
    with eraser.workspace.writing("test"), eraser.workspace.write_transaction() as connection:
        eraser.workspace.request_changes.begin(connection, [request], None, now=NOW)
    (notice,) = due(eraser)
    assert notice.state == "in_progress"
    of(eraser).delivered(notice)
    assert due(eraser) == []
    eraser.train()
    assert [notice.state for notice in due(eraser)] == ["completed"]


def test_a_cancellation_is_told(eraser: Eraser) -> None:
    eraser.cancel(faults.REQUEST)
    assert [notice.state for notice in due(eraser)] == ["cancelled"]


def test_what_did_not_arrive_is_tried_later_and_later_and_then_given_up(eraser: Eraser) -> None:
    eraser.unlearn()
    now, waits = NOW, []
    while notices := of(eraser).due(now):
        if not of(eraser).failed(notices[0], now=now, patience=PATIENCE):
            break
        later = next_try(eraser)
        assert of(eraser).due(later - timedelta(seconds=1)) == []
        waits.append((later - now).total_seconds())
        now = later
    assert waits[:5] == [2, 4, 8, 16, 32]
    assert max(waits) == 3600
    assert PATIENCE <= now - NOW <= PATIENCE + timedelta(hours=1)
    assert of(eraser).count() == 0


def test_a_restart_forgets_nothing(eraser: Eraser) -> None:
    eraser.unlearn()
    (notice,) = due(eraser)
    assert of(eraser).failed(notice, now=NOW, patience=PATIENCE)
    eraser.close()
    with opened(eraser.workspace.root) as again:
        assert due(again) == []
        (later,) = due(again, timedelta(seconds=2))
        assert (later.url, later.tries, later.since) == (URL, 1, NOW)


@pytest.mark.sqlite
def test_a_url_is_sealed_and_its_key_erased_when_it_is_not_needed_any_more(eraser: Eraser) -> None:
    files = [*eraser.workspace.root.glob("records.*")]
    assert not any(b"of-patient-17" in path.read_bytes() for path in files)
    assert ("subscriptions", URL.encode()) in list(eraser.workspace.database.decrypted_values())
    eraser.unlearn()
    with eraser.workspace.database.reading() as connection:
        sealed = connection.exec_driver_sql("SELECT slot, sealed_url FROM subscriptions").one()
    of(eraser).delivered(due(eraser)[0])
    from lmeraser.storage.keystore import ErasedError

    with pytest.raises(ErasedError):
        eraser.workspace.database.keys.decrypt(sealed[0], "callback", sealed[1])
