"""Pages and lists of a service whose ledger is long, compared with those of a short one.

    python benchmarks/pages.py --out bench

Builds two workspaces of handwritten digits (preset ``instant``): one with 200 open requests and a ledger of 10,000
entries, of which all but a few are about requests that were accepted and cancelled; and one with 2 open requests
and 20 entries. Asks the application for each page and list, in turn, without a network between, and reports the
median seconds of the long ledger, and how many times those of the short one they are.
"""

from __future__ import annotations

import re
import statistics
import tempfile
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
from sqlalchemy import insert, select
from starlette.testclient import TestClient

from lmeraser import Columns, Eraser
from lmeraser.cli.demo import handwritten_digits
from lmeraser.config.schema import parse
from lmeraser.core.time import to_text
from lmeraser.evidence.entries import RequestAccepted, RequestCancelled
from lmeraser.service.app import make_app
from lmeraser.service.dashboard.dashboard import add_dashboard
from lmeraser.service.service import Service
from lmeraser.workspace.requests.draft import RequestDraft, Selector
from lmeraser.workspace.requests.table import table
from lmeraser.workspace.workspace import Workspace
from measuring import keep, parser_of, seconds

Calls = dict[str, Callable[[], httpx2.Response]]


def build(root: Path, open_requests: int, entries: int) -> str:
    """A workspace with so many open requests and entries; returns a key for everything."""
    records = max(20, open_requests)
    settings = {
        "embedding": {"views": ["clean"]},
        "service": {"requests_per_second": 1e4, "burst": 10_000},
    }
    with Eraser.create(root, parse(settings, base="instant")) as eraser:
        eraser.add(handwritten_digits()[0].select(range(records)), columns=Columns(id="id"))
        eraser.train()
        workspace = eraser.workspace
        now = workspace.clock()
        with workspace.database.transaction() as connection:
            for number, record_id in enumerate(eraser.record_ids()[:open_requests]):
                draft = RequestDraft(
                    Selector.of([record_id]), reference=f"ticket {number}", grace=timedelta(days=1)
                )
                workspace.request_changes.accept(
                    draft, now=now - timedelta(days=number % 40), connection=connection
                )
        cancel_many(workspace, (entries - workspace.ledger.head.entries) // 2)
        workspace.settle_requests("benchmark")
        assert eraser.check_ledger().sound
        return workspace.api_keys.create("benchmark", ["admin"], now=now)[1]


def cancel_many(workspace: Workspace, count: int) -> None:
    """Requests that were accepted and cancelled, as the repository leaves them, in one transaction."""
    now = to_text(workspace.clock())
    with workspace.database.transaction() as connection:
        like = dict(connection.execute(select(table).limit(1)).mappings().one())
        erased = dict.fromkeys(("slot", "sealed_names", "reference_slot", "sealed_reference"))
        rows = []
        events: list[RequestAccepted | RequestCancelled] = []
        for _ in range(count):
            row = {**like, **erased, "id": str(uuid.uuid4()), "state": "cancelled", "selector": "", "changed": now}
            rows.append(row)
            values = {name: row[name] for name in ("regulation", "received", "due", "names")}
            events += [
                RequestAccepted(request=row["id"], by=row["filed_by"], **values),
                RequestCancelled(request=row["id"], reason="withdrawn", by=None),
            ]
        connection.execute(insert(table), rows)
        workspace.ledger.note_all(connection, events, now=workspace.clock())


def calls_of(http: TestClient, key: str) -> Calls:
    """What is asked for; the pages in a session."""
    headers = {"Authorization": f"Bearer {key}"}
    http.post("/ui/login", data={"key": key, "token": token_of(http.get("/ui/login").text)}).raise_for_status()
    token = token_of(http.get("/ui/requests").text)
    listed = http.get("/requests?limit=1", headers=headers).json()["requests"]
    request_id = listed[0]["subject_request_id"]
    return {
        "page of open requests": partial(http.get, "/ui/requests"),
        "page of all requests, the last": partial(http.get, "/ui/requests?view=all&order=changed&page=100000"),
        "search by reference": partial(http.post, "/ui/requests", data={"words": "ticket 1", "token": token}),
        "page of one request": partial(http.get, f"/ui/requests/{request_id}"),
        "page of the ledger": partial(http.get, "/ui/ledger"),
        "page of the ledger about one request": partial(http.get, f"/ui/ledger?request={request_id}"),
        "check of the ledger": partial(http.post, "/ui/ledger", data={"token": token}),
        "export of the ledger": partial(http.get, "/ui/ledger.csv"),
        "GET /requests": partial(http.get, "/requests", headers=headers),
        "POST /requests/search": partial(
            http.post, "/requests/search", json={"search": "ticket"}, headers=headers
        ),
    }


def token_of(page: str) -> str:
    """The token in the forms of a page."""
    found = re.search(r'name="token" value="([^"]+)"', page)
    assert found is not None
    return found[1]


def measured(call: Callable[[], httpx2.Response]) -> float:
    """Seconds of one call."""
    answers: list[httpx2.Response] = []
    spent = seconds(lambda: answers.append(call()))
    answers[0].raise_for_status()
    assert answers[0].url.path != "/ui/login", "there is no session"
    return spent


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--requests", type=int, default=200, help="that are open")
    parser.add_argument("--entries", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        every = []
        for name, counts in (("long", (options.requests, options.entries)), ("short", (2, 20))):
            root = Path(folder) / name
            key = build(root, *counts)
            service = Service(stack.enter_context(Eraser(root)))
            app = make_app(stack.enter_context(service))
            add_dashboard(app)
            every.append(calls_of(stack.enter_context(TestClient(app, base_url="http://localhost")), key))
        rows: dict[str, Any] = {}
        for name in every[0]:
            times = [[measured(calls[name]) for calls in every] for _ in range(options.repeats + 1)][1:]
            long, short = (statistics.median(column) for column in zip(*times, strict=True))
            rows |= {f"{name} (s)": long, f"{name}, times that of a short ledger": long / short}
    keep(options, "pages", rows)


if __name__ == "__main__":
    main()
