"""The pages: what each scope sees, forms that only their page can send, and names that stay names."""

from __future__ import annotations

import csv
import io
import json
import logging
import re
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Request
from starlette.testclient import TestClient

import lmeraser.pipeline.executors.local as local
from conftest import DIGIT_COLUMNS, Template, digits, respell
from lmeraser import Eraser
from lmeraser.core.time import add_months, from_text, to_text
from lmeraser.evidence.dsse import SigningKey
from lmeraser.pipeline.executors.local import LocalExecutor
from lmeraser.service.dashboard.dashboard import add_dashboard
from lmeraser.service.dashboard.pages import _reference_end, format_time
from lmeraser.service.routes.planning import PLAN_TOKENS
from serving import HELD, Running, config_of, running

RECORD, PERSON = '<script>alert("3")</script>', 'w"><img src=x onerror=alert(1)>'
PLAIN = "digit-0004"
KINDS = ("instant", "prompts")
OURS = "lmeraser.service"
Page = Any  # a response of the library that the test client uses


def hostile(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "id": RECORD, "writer": PERSON} if row["id"] == "digit-0003" else row


@pytest.fixture(scope="module", params=["instant", pytest.param("prompts", marks=pytest.mark.long)])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def network(kind: str) -> LocalExecutor:
    return LocalExecutor(config_of(kind))


@pytest.fixture(scope="module")
def trained(template: Template, kind: str, network: LocalExecutor) -> Path:
    """A workspace in which one record and one person have names that are markup."""

    def make(root: Path) -> None:
        with Eraser.create(root, config_of(kind)) as eraser:
            eraser.session.executors.use(network)
            eraser.add(digits(HELD).map(hostile), columns=DIGIT_COLUMNS)
            eraser.train()

    return template(f"hostile-{kind}", make)


@pytest.fixture
def api(
    trained: Path, tmp_path: Path, network: LocalExecutor, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Running]:
    monkeypatch.setattr(local, "load_backbone", lambda config: network.network)
    root = Path(shutil.copytree(trained, tmp_path / "w"))
    with running(root, network) as one:
        assert isinstance(one.http.app, FastAPI)
        add_dashboard(one.http.app)
        yield one


class Tags(HTMLParser):
    """Every tag of a page with its attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.words += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def hidden(self) -> dict[str, str]:
        return {i["name"]: i["value"] for i in self.all("input") if i.get("type") == "hidden"}


@dataclass
class Browser:
    """Somebody who looks at pages."""

    http: TestClient

    def get(self, path: str) -> Page:
        return self.http.get(path, follow_redirects=True)

    def send(self, path: str, page: Page, **fields: str) -> Page:
        """Send a form of a page."""
        return self.http.post(path, data={**Tags(page.text).hidden, **fields}, follow_redirects=True)

    def plan(self, **fields: str) -> Page:
        return self.send("/ui/file/plan", self.get("/ui/file"), **fields)

    def file(self, **fields: str) -> Page:
        """File a request through its plan."""
        return self.send("/ui/file", self.plan(**fields), **fields)


def counted(api: Running, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """What the rate limiter is asked for from now on."""
    asked: list[tuple[str, int]] = []
    monkeypatch.setattr(
        api.service.rate_limiter, "take", lambda caller, tokens=1: asked.append((caller.split()[0], tokens))
    )
    return asked


def browser(api: Running, scope: str | None = "admin") -> Browser:
    one = Browser(TestClient(api.http.app, base_url="http://localhost"))
    if scope is not None:
        page = one.send("/ui/login", one.get("/ui/login"), key=api.keys[scope])
        assert page.status_code == (403 if scope == "predict" else 200), page.text
    return one


def request_id(page: Page) -> str:
    return str(page.url.path).rsplit("/", 1)[-1]


def derive(api: Running) -> None:
    """Carry out what is open, as the service's process would."""
    with Eraser(api.service.workspace.root) as eraser:
        eraser.session.executors.use(api.service.eraser.executor())
        eraser.unlearn()
    api.service.model_holder.load_published()


# --- who sees what -----------------------------------------------------------------------------------------

PAGES = {
    "/ui/requests": {"read", "admin"},
    "/ui/requests/ID": {"read", "request", "admin"},
    "/ui/file": {"request", "admin"},
    "/ui/people": {"find", "admin"},
    "/ui/model": {"read", "admin"},
    "/ui/ledger": {"read", "admin"},
}


@pytest.mark.parametrize("scope", SCOPES := ("read", "request", "find", "admin"))
def test_every_page_for_every_scope(api: Running, scope: str) -> None:
    filed = request_id(browser(api).file(ids=PLAIN))
    one = browser(api, scope)
    for path, allowed in PAGES.items():
        page = one.get(path.replace("ID", filed))
        assert page.status_code == (200 if scope in allowed else 403), path
        assert page.headers["content-type"].startswith("text/html")
        links = {a["href"] for a in Tags(page.text).all("a")}
        shown = {p for p in PAGES if p in links}
        assert shown == {p for p in PAGES if scope in PAGES[p] and "ID" not in p}
    assert ("Cancel this request" in one.get(f"/ui/requests/{filed}").text) == (scope in ("request", "admin"))
    first = {"request": "/ui/file", "find": "/ui/people"}.get(scope, "/ui/requests")
    assert one.get("/").url.path == first


def test_nobody_sees_anything_without_logging_in(api: Running) -> None:
    filed = request_id(browser(api).file(ids=PLAIN))
    one = browser(api, None)
    paths = [*PAGES, "/ui", "/ui/requests/ID/certificate", "/ui/requests/ID/events"]
    for path in paths:
        assert one.get(path.replace("ID", filed)).url.path == "/ui/login"
    page = one.get("/ui/login")
    for path in ("/ui/file", "/ui/file/plan", "/ui/ledger", f"/ui/requests/{filed}/cancel"):
        answer = one.send(path, page, ids=PLAIN, request_id=str(uuid.uuid4()))
        assert answer.url.path == "/ui/login", path
    assert [request.state for request in api.service.eraser.requests()] == ["pending"]


@pytest.mark.parametrize("key", ["", "lme_000000000000_" + "x" * 43, "é" * 300, "<script>"])
def test_a_key_that_is_none(api: Running, key: str) -> None:
    one = browser(api, None)
    page = one.send("/ui/login", one.get("/ui/login"), key=key)
    assert page.status_code in (400, 403)
    assert one.get("/ui/requests").url.path == "/ui/login"


def test_a_key_for_predictions_only_is_told_so(api: Running) -> None:
    assert browser(api, "predict").get("/ui").url.path == "/ui/login"


def test_login_attempts_are_counted(api: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api.service.rate_limiter, "_burst", 3.0)
    monkeypatch.setattr(api.service.rate_limiter, "_rate", 0.001)
    one = browser(api, None)
    page = one.get("/ui/login")
    answers = [one.send("/ui/login", page, key="wrong") for _ in range(5)]
    assert {answer.status_code for answer in answers} == {403, 429}


def test_a_session_ends_with_the_logout_and_with_its_key(api: Running) -> None:
    one, other = browser(api), browser(api)
    cookie = dict(one.http.cookies)
    page = one.send("/ui/logout", one.get("/ui/ledger"))
    assert page.url.path == "/ui/login"
    for name, value in cookie.items():
        one.http.cookies.set(name, value)
    assert one.get("/ui/ledger").url.path == "/ui/login", "not even with the old cookie"
    keys = api.service.workspace.api_keys
    for key in keys.all():
        keys.revoke(key.id, now=api.service.workspace.clock())
    assert other.get("/ui/ledger").url.path == "/ui/login"


def test_cookies_are_for_this_host_alone_and_not_for_scripts(api: Running) -> None:
    for base, name, secure in (("http://localhost", "lmeraser", False), ("https://host", "__Host-lmeraser", True)):
        answer = TestClient(api.http.app, base_url=base).get("/ui/login")
        cookie = answer.headers["set-cookie"]
        assert cookie.startswith(f"{name}=")
        assert {"HttpOnly", "Path=/", "SameSite=strict"} <= set(cookie.split("; "))
        assert ("; Secure" in cookie) == secure
        assert api.keys["admin"] not in cookie
    behind_proxy = TestClient(api.http.app, base_url="http://erasure.example").get("/ui/login")
    assert "; Secure" in behind_proxy.headers["set-cookie"]


def test_every_answer_has_the_headers_of_a_page(api: Running) -> None:
    one = browser(api)
    filed = request_id(one.file(ids=PLAIN))
    paths = [
        "/ui/requests",
        f"/ui/requests/{filed}",
        "/ui/nothing",
        "/ui/requests/nothing",
        "/ui/static/style.css",
    ]
    for path in paths:
        headers = one.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert (headers["x-content-type-options"], headers["referrer-policy"]) == ("nosniff", "no-referrer")
        assert headers["cache-control"] == "no-store"


def test_nothing_is_inline_and_nothing_comes_from_elsewhere(api: Running) -> None:
    one = browser(api)
    filed = request_id(one.file(ids=PLAIN))
    for path in [*(p.replace("ID", filed) for p in PAGES), "/ui/nothing"]:
        tags = Tags(one.get(path).text)
        assert not tags.all("style")
        assert all(script.keys() == {"src", "defer"} for script in tags.all("script"))
        for _, attributes in tags.tags:
            assert not [name for name in attributes if name.startswith("on") or name == "style"]
            for name in ("href", "src", "action"):
                assert attributes.get(name, "/").startswith(("/", "#")), attributes
    assert one.get("/ui/static/follow.js").headers["content-type"].startswith("text/javascript")
    assert one.get("/ui/static/dashboard.py").status_code == 404


# --- forms -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("token", ["", "0" * 64, "é"])
def test_a_form_is_sent_from_its_page(api: Running, token: str) -> None:
    one = browser(api)
    filed = request_id(one.file(ids=PLAIN))
    other = Tags(browser(api).get("/ui/file").text).hidden["token"]
    for wrong in (token, other):
        for path in ("/ui/file/plan", "/ui/file", "/ui/file/change", f"/ui/requests/{filed}/cancel", "/ui/ledger"):
            fields = {"token": wrong, "ids": "digit-0005", "request_id": str(uuid.uuid4())}
            assert one.http.post(path, data=fields).status_code == 403, path
        assert one.http.post("/ui/logout", data={"token": wrong}).status_code == 403
        assert one.http.post("/ui/login", data={"token": wrong, "key": api.keys["admin"]}).status_code == 403
    assert [request.state for request in api.service.eraser.requests()] == ["pending"]


def test_a_request_is_planned_filed_followed_and_verified(api: Running, kind: str) -> None:
    one = browser(api, "request")
    plan = one.plan(ids=PLAIN, regulation="gdpr", asked="2026-01-31")
    assert api.service.eraser.requests() == [], "a plan files nothing"
    words = Tags(plan.text).words
    assert "2026-02-28" in words
    assert "Records to delete1" in words
    assert "Asked2026-01-31" in words
    assert "no other record holds the same image" in words
    hidden = Tags(plan.text).hidden
    page = one.send("/ui/file", plan, ids=PLAIN)
    assert request_id(page) == hidden["request_id"]
    assert "pending" in page.text
    again = one.send("/ui/file", plan, ids=PLAIN)
    assert request_id(again) == request_id(page), "confirmed twice, filed once"
    shown = one.get(f"/ui/requests/{request_id(page)}?plan=true")
    tuned = "Clusters to tune again" if kind == "prompts" else "nothing: the records are subtracted from sums"
    assert tuned in shown.text
    derive(api)
    done = one.get(page.url.path)
    words = Tags(done.text).words
    assert "Valid: signed with the key of this workspace" in words
    assert "Valid: unbroken chain with an entry for this certificate" in words
    assert "follow.js" not in done.text
    assert "Asked2026-01-31" in words
    assert "0 other records held the same image" in words
    assert "Affected clusters" not in words, "what is completed keeps no numbers of clusters"
    got = one.get(f"{page.url.path}/certificate")
    assert got.headers["content-disposition"] == f'attachment; filename="certificate-{request_id(page)}.json"'
    path = api.service.workspace.certificates / f"{request_id(page)}.json"
    assert got.content == path.read_bytes()
    for form, suffix, start in (("text", "txt", b"CERTIFICATE OF DELETION"), ("pdf", "pdf", b"%PDF-")):
        other = one.get(f"{page.url.path}/certificate?format={form}")
        assert other.headers["content-disposition"].endswith(f'-{request_id(page)}.{suffix}"')
        assert other.content.startswith(start)
        assert f"/certificate?format={form}" in done.text
    path.write_bytes(got.content.replace(b'"payload": "', b'"payload": "e30', 1))
    assert "Invalid: " in one.get(page.url.path).text


def test_certificates_of_an_earlier_signing_key_hold_as_long_as_it_is_kept(api: Running) -> None:
    one, root = browser(api), api.service.workspace.root
    page = one.file(ids=PLAIN)
    derive(api)
    new = SigningKey.new()
    (root / "signing.pub").rename(root / "signing-until-2026.pub")
    (root / "signing.key").write_bytes(new.pem)
    (root / "signing.pub").write_bytes(new.public.pem)
    api.service.workspace.__dict__.pop("signing_key", None)  # as after a restart
    assert "Valid" in Tags(one.get(page.url.path).text).words
    (root / "signing-until-2026.pub").unlink()
    assert "Invalid: " in one.get(page.url.path).text
    later = one.file(ids="digit-0005")
    derive(api)
    assert "Valid" in Tags(one.get(later.url.path).text).words


def test_a_pending_request_is_taken_back(api: Running) -> None:
    one = browser(api, "request")
    page = one.file(ids=PLAIN)
    cancelled = one.send(f"{page.url.path}/cancel", page)
    assert "cancelled" in cancelled.text
    again = one.send(f"{page.url.path}/cancel", page)
    assert (again.status_code, "no longer be cancelled: it is not pending" in again.text) == (409, True)
    assert one.send(f"/ui/requests/{uuid.uuid4()}/cancel", page).status_code == 404


def test_names_that_were_never_here_are_shown_beside_the_form(api: Running) -> None:
    one = browser(api, "request")
    page = one.plan(ids="<b>nobody</b>\n" + PLAIN, subjects="w1", regulation="ccpa")
    assert page.status_code == 422
    tags = Tags(page.text)
    assert "<b>nobody</b>" in tags.words
    assert not tags.all("b")
    assert PLAIN in tags.words, "what was filled in stays"
    assert [i for i in tags.all("input") if i.get("value") == "ccpa" and "checked" in i]
    changed = one.send("/ui/file/change", page, ids=PLAIN, subjects="w1", audit="true")
    assert PLAIN in Tags(changed.text).words


def test_duplicates_are_selected_if_the_box_is_ticked_and_today_is_the_day_that_was_shown(api: Running) -> None:
    one = browser(api, "request")
    plan = one.plan(ids=PLAIN, with_duplicates="true")
    tags = Tags(plan.text)
    assert "other records with the same image are deleted, too" in tags.words
    assert tags.hidden["with_duplicates"] == "true"
    page = one.send("/ui/file", plan, ids=PLAIN)
    (request,) = api.service.workspace.requests.all()
    assert request.id == request_id(page)
    assert request.asked == f"{tags.hidden['asked']}T00:00:00Z"
    assert request_id(one.send("/ui/file", plan, ids=PLAIN)) == request.id, "confirmed later, it is the same"


def test_names_that_look_alike_are_shown_before_anything_is_confirmed(api: Running) -> None:
    records = api.service.workspace.records
    respell(records, PLAIN, subject="Anna")
    respell(records, "digit-0005", subject="anna", to="Digit-0006")
    one = browser(api, "request")
    words = Tags(one.plan(subjects="Anna\r\n").text).words
    assert "subject 'Anna' looks like 'anna', which is not selected" in words
    assert "look alike" in Tags(one.plan(ids="digit-0006").text).words
    assert "look alike" not in Tags(one.plan(subjects="w1").text).words


def test_a_line_of_the_form_is_a_name_as_it_is_written(api: Running) -> None:
    respell(api.service.workspace.records, PLAIN, to="17")
    respell(api.service.workspace.records, "digit-0005", to="17 ")
    one = browser(api, "request")
    page = one.plan(ids="#1\r\n 17\r\n")
    assert (page.status_code, "record id &#39;#1&#39;" in page.text) == (422, True)
    one.file(ids="17 \r\n\r\n \r\n")
    assert api.service.workspace.requests.pending_selection().ids == ("17 ",)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"ids": " \n "},
        {"ids": PLAIN, "regulation": "hammurabi"},
        {"ids": PLAIN, "asked": "yesterday"},
        {"ids": PLAIN, "asked": "2999-01-01"},
        {"ids": "x" * 2000},
        {"ids": PLAIN, "audit": "perhaps"},
    ],
)
def test_a_form_that_was_filled_in_wrongly(api: Running, fields: dict[str, str]) -> None:
    one = browser(api, "request")
    assert one.plan(**fields).status_code == 400
    token = Tags(one.get("/ui/file").text).hidden["token"]
    sent = {**fields, "token": token, "request_id": str(uuid.uuid4())}
    assert one.http.post("/ui/file", data=sent).status_code == 400
    assert one.http.post("/ui/file", data={"token": token, "ids": PLAIN, "request_id": "1"}).status_code == 400
    assert api.service.eraser.requests() == []


def test_pages_say_when_a_reference_is_erased() -> None:
    assert [_reference_end(days) for days in (0, 1, 30)] == [
        "when the request is closed",
        "1 day after the request is closed",
        "30 days after the request is closed",
    ]


def test_a_request_has_a_reference_an_extension_and_a_time_to_take_back(
    api: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = api.service.config.model_copy(update={"grace_period": 7200.0})
    monkeypatch.setattr(api.service, "config", config)
    one = browser(api)
    plan = one.plan(ids=PLAIN, reference="ticket <4711>")
    assert "Can be taken backfor 2 h" in Tags(plan.text).words
    page = one.send("/ui/file", plan, ids=PLAIN)
    words = Tags(page.text).words
    assert "ticket <4711>" in words
    assert "filed by admin" in words
    (countdown,) = [span for span in Tags(page.text).all("span") if span.get("id") == "countdown"]
    assert 7100 < int(countdown["data-seconds"]) <= 7200
    asked = api.service.eraser.requests()[0].asked
    assert asked is not None
    later = format_time(to_text(add_months(from_text(asked), 3)))
    assert f"One extension is possible, to {later}" in words, "the day itself, of this law"
    for what in ("cancel", "extend"):  # no reason stands in the ledger because it was the first of the list
        chosen = next(each for each in Tags(page.text).all("select") if each["id"] == f"{what}-reason")
        assert "required" in chosen
        assert re.search(f'id="{what}-reason"[^>]*>\\s*<option value="">', page.text)
    assert one.send(f"{page.url.path}/extend", page, reason="").status_code == 400
    extended = one.send(f"{page.url.path}/extend", page, reason="number")
    assert "there are many requests" in Tags(extended.text).words
    assert one.send(f"{page.url.path}/extend", page, reason="number").status_code == 409
    started = one.send(f"{page.url.path}/start", page)
    assert "countdown" not in started.text
    found = one.send("/ui/requests", one.get("/ui/requests"), words="TICKET")
    assert request_id(page) in found.text
    cancelled = one.send(f"{page.url.path}/cancel", page, reason="withdrawn")
    assert "the person withdrew it" in Tags(cancelled.text).words
    assert "4711" not in cancelled.text
    (request,) = api.service.workspace.requests.all()
    assert (request.filed_by is not None, request.cancel_reason) == (True, "withdrawn")
    assert one.send(f"{page.url.path}/start", page).status_code == 409


def test_people_are_found_in_the_body_of_a_form_and_filed_from_there(api: Running) -> None:
    records = api.service.workspace.records
    respell(records, PLAIN, subject="J\u00f6rg")
    one = browser(api)
    empty = one.get("/ui/people")
    found = one.send("/ui/people", empty, name=" J\u00f6rg", kind="subject")
    assert PLAIN in Tags(found.text).words
    missed = one.send("/ui/people", empty, name="jorg", kind="subject")
    assert "These names look alike" in missed.text
    assert "J\u00f6rg" in Tags(missed.text).words
    form = one.send("/ui/file/change", found, subjects="J\u00f6rg")
    assert "J\u00f6rg" in Tags(form.text).words
    listed = one.send("/ui/people/list", empty, words="JORG")
    assert "People: 1" in Tags(listed.text).words
    hostile_name = one.send("/ui/people", empty, name=PERSON, kind="subject")
    assert not Tags(hostile_name.text).all("img")
    (payload,) = records.payloads([PLAIN])
    assert one.send("/ui/people/record", found, record_id=PLAIN).content == payload
    finder = browser(api, "find")
    assert "download" not in finder.send("/ui/people", finder.get("/ui/people"), name=PLAIN, kind="id").text
    assert finder.send("/ui/people/record", found, record_id=PLAIN).status_code == 403


def test_lists_have_views_and_exports(api: Running) -> None:
    for number in (5, 6, 7):
        api.file(f"digit-{number:04d}")
    one = browser(api, "read")
    assert "Open requests: 3" in Tags(one.get("/ui/requests?view=open").text).words
    for query in ("view=late&law=gdpr", "view=all&order=changed&page=99", "view=week&law=other&order=received"):
        assert one.get(f"/ui/requests?{query}").status_code == 200
    assert one.get("/ui/requests?view=nothing").status_code == 400
    rows = list(csv.DictReader(io.StringIO(one.get("/ui/requests.csv?view=open").text)))
    assert [row["state"] for row in rows] == ["pending"] * 3
    assert len(one.get("/ui/requests.json").json()) == 3
    ledger = one.get("/ui/ledger?kind=request")
    assert "Entries: 3" in Tags(ledger.text).words
    assert "Entries: 1" in Tags(one.get(f"/ui/ledger?request={rows[0]['id'][:13]}").text).words
    entries = one.get("/ui/ledger.json").json()
    assert [entry["position"] for entry in entries] == list(range(6))
    assert len(list(csv.DictReader(io.StringIO(one.get("/ui/ledger.csv").text)))) == 6


def test_who_may_not_list_requests_finds_one_by_its_id(api: Running) -> None:
    one = browser(api, "request")
    filed = request_id(one.file(ids=PLAIN))
    form = one.get("/ui/file")
    assert request_id(one.send("/ui/find", form, request_id=f" {filed} ")) == filed
    for wrong in (str(uuid.uuid4()), "nothing", ""):
        assert one.send("/ui/find", form, request_id=wrong).status_code == 404


# --- names stay names --------------------------------------------------------------------------------------


def test_hostile_names_are_text_and_are_in_no_address_and_no_log(
    api: Running, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    keys = api.service.workspace.api_keys
    _, key = keys.create("<img src=x>", ["admin"], now=api.service.workspace.clock())
    one = browser(api, None)
    pages = [one.send("/ui/login", one.get("/ui/login"), key=key)]
    pages.append(one.plan(ids=RECORD, subjects=PERSON))
    assert {RECORD, PERSON} <= set(re.findall(r"(?m)^(?:person|record): (.*)$", Tags(pages[-1].text).words))
    pages.append(one.file(ids=RECORD, subjects=PERSON))
    pages += [one.get(path) for path in ("/ui/requests", "/ui/model", "/ui/ledger", pages[-1].url.path)]
    derive(api)
    pages += [one.get(path) for path in ("/ui/requests", "/ui/ledger", pages[-1].url.path)]
    assert "completed" in pages[-1].text
    for page in pages:
        tags = Tags(page.text)
        assert not tags.all("img")
        assert all("src" in script for script in tags.all("script"))
        for answer in (*page.history, page):
            assert "alert" not in str(answer.url)
    ours = [record.getMessage() for record in caplog.records if record.name == OURS]
    assert any("/ui/file/plan" in line for line in ours)
    assert not [line for line in ours if "alert" in line or key in line or "digit" in line]


# --- what pages show ---------------------------------------------------------------------------------------


def test_late_requests_are_marked_in_words(api: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    one = browser(api)
    one.file(ids=PLAIN)
    assert "29 days left" in one.get("/ui/requests").text or "30 days left" in one.get("/ui/requests").text
    later = api.service.workspace.clock() + timedelta(days=60)
    monkeypatch.setattr(api.service.workspace, "clock", lambda: later)
    page = one.get("/ui/requests")
    assert "late by 31 days" in Tags(page.text).words or "late by 30 days" in Tags(page.text).words
    assert 'class="past"' in page.text


def test_a_day_that_has_begun_somewhere_is_not_in_the_future(api: Running) -> None:
    one, now = browser(api, "request"), api.service.workspace.clock()
    tomorrow, later = ((now + timedelta(days=days)).date().isoformat() for days in (1, 2))
    assert f'max="{tomorrow}"' in one.get("/ui/file").text
    assert f"Asked{tomorrow}" in Tags(one.plan(ids=PLAIN, asked=tomorrow).text).words
    assert "in the future" in one.plan(ids=PLAIN, asked=later).text
    one.send("/ui/file", one.plan(ids=PLAIN, asked=tomorrow), ids=PLAIN)
    (request,) = api.service.eraser.requests()
    assert request.asked == request.received


def test_a_plan_on_a_page_costs_what_it_costs_over_http(api: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    one, key = browser(api, "admin"), api.service.workspace.api_keys.find(api.keys["admin"])
    assert key is not None
    page, filed = one.get("/ui/file"), api.file(PLAIN).json()["subject_request_id"]
    asked = counted(api, monkeypatch)
    one.send("/ui/file/plan", page, ids=PLAIN)
    assert (key.id, PLAN_TOKENS) in asked
    asked.clear()
    one.get(f"/ui/requests/{filed}")
    assert (key.id, PLAN_TOKENS) not in asked
    one.get(f"/ui/requests/{filed}?plan=true")
    assert (key.id, PLAN_TOKENS) in asked


@pytest.mark.parametrize("kind", KINDS, indirect=True, scope="module")
def test_the_model_page_draws_clusters_or_says_that_there_are_none(api: Running, kind: str) -> None:
    one = browser(api, "read")
    page = one.get("/ui/model")
    tags, model = Tags(page.text), api.service.workspace.generations.require()
    circles = tags.all("circle")
    assert len(circles) == (len(model.clusters) if kind == "prompts" else 0)
    assert ("This model has no clusters" in page.text) == (kind == "instant")
    assert model.model_digest in page.text
    assert f"<code>{model.public_digest.short}</code>" in page.text
    assert "lmeraser evaluate" in page.text
    if kind == "prompts":
        api.file(PLAIN)
        assert "no, quarantined" in one.get("/ui/model").text
        assert any(circle.get("class") == "out" for circle in Tags(one.get("/ui/model").text).all("circle"))


def test_accuracy_is_shown_for_the_generation_that_was_evaluated(api: Running) -> None:
    one, workspace = browser(api, "read"), api.service.workspace
    digest = workspace.generations.require().model_digest
    found = {"model_digest": digest, "accuracy": 0.875, "images": 40, "linear_accuracy": None}
    workspace.reports.mkdir(exist_ok=True)
    path = workspace.reports / "evaluation.json"
    path.write_text(json.dumps(found))
    assert "0.8750 on 40 images" in one.get("/ui/model").text
    for other in (json.dumps({**found, "model_digest": "sha256:" + "0" * 64}), "{", "[]"):
        path.write_text(other)
        assert "lmeraser evaluate" in one.get("/ui/model").text


def test_the_ledger_is_checked_now(api: Running) -> None:
    one, path = browser(api, "read"), api.service.workspace.ledger.path
    page = one.get("/ui/ledger")
    assert "unbroken" not in page.text
    assert "Valid: unbroken chain of 3 entries" in Tags(one.send("/ui/ledger", page).text).words
    path.write_bytes(path.read_bytes().replace(b'"records":24', b'"records":25', 1))
    for broken in (one.get("/ui/ledger"), one.send("/ui/ledger", page)):
        assert "Invalid: " in broken.text
        assert "entry 1" in broken.text


def test_pages_before_the_first_training(tmp_path: Path, api: Running) -> None:
    (api.service.workspace.root / "generations" / "current").unlink()
    one = browser(api)
    assert "No model has been trained yet" in one.get("/ui/model").text
    plan = one.plan(ids=PLAIN)
    assert "No plan available" in Tags(plan.text).words
    assert "pending" in one.send("/ui/file", plan, ids=PLAIN).text
    assert one.get("/ui/requests").status_code == 200


def test_events_are_for_those_who_are_logged_in(api: Running) -> None:
    one = browser(api, "request")
    page = one.file(ids=PLAIN)
    one.send(f"{page.url.path}/cancel", page)
    answer = one.get(f"{page.url.path}/events")
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert '"state": "cancelled"' in answer.text
    assert "follow.js" in page.text


def test_pages_have_landmarks_labels_and_headers(api: Running) -> None:
    one = browser(api)
    filed = request_id(one.file(ids=PLAIN))
    for path in [p.replace("ID", filed) for p in PAGES]:
        page = one.get(path)
        tags = Tags(page.text)
        assert page.text.startswith("<!DOCTYPE html>")
        assert tags.all("html") == [{"lang": "en"}]
        assert len(tags.all("h1")) == len(tags.all("main")) == len(tags.all("nav")) == 1
        assert all("scope" in header for header in tags.all("th"))
        labelled = {label["for"] for label in tags.all("label") if "for" in label}
        for field in (*tags.all("input"), *tags.all("textarea")):
            assert field.get("type") in ("hidden", "radio", "checkbox") or field["id"] in labelled
        ids = [attributes["id"] for _, attributes in tags.tags if "id" in attributes]
        assert len(ids) == len(set(ids))
        named = [a[n] for _, a in tags.tags for n in ("aria-labelledby", "aria-describedby") if n in a]
        assert {name for names in named for name in names.split()} <= set(ids)
    assert "aria-live" in one.get(f"/ui/requests/{filed}").text


def test_forms_without_a_session_are_counted_and_not_read(api: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(_: Request) -> None:
        raise AssertionError("read")

    asked = counted(api, monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr(Request, "stream", read)
        for path in ("login", "file", "file/plan", f"requests/{uuid.uuid4()}/cancel", "logout"):
            assert api.http.post(f"/ui/{path}", data={"key": "x"}, follow_redirects=False).status_code == 303
    assert asked == [("address", 1)] * 5
    stranger = browser(api, None)
    page = stranger.get("/ui/login")
    assert stranger.send("/ui/login", page, key="lme_wrong").status_code == 403
    assert stranger.http.post("/ui/login", data={"token": "wrong"}).status_code == 403
    assert asked == [("address", 1)] * 7
    assert stranger.http.post("/ui/login", data={"token": "x" * 5000}).status_code == 413


def test_a_long_form_costs_more_and_is_limited(api: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    one = browser(api)
    page = one.get("/ui/file")
    asked = counted(api, monkeypatch)
    assert "Too many" in one.send("/ui/file/plan", page, ids="\n".join(f"n{n}" for n in range(20_000))).text
    assert [tokens for _, tokens in asked if tokens > 1] == [2, PLAN_TOKENS]
    assert one.send("/ui/file/plan", page, ids="x" * 300_000).status_code == 413
