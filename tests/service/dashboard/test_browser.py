"""The pages in a real browser: from a plan to a verified certificate, by keyboard alone, and without scripts.

Needs Chromium, as Debian's package `chromium` or where LMERASER_CHROMIUM says; skipped without.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import venv
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import uvicorn
from playwright.sync_api import Browser, Page, expect, sync_playwright

from conftest import Run, Template
from lmeraser import Eraser
from lmeraser.service.app import make_app
from lmeraser.service.dashboard.dashboard import add_dashboard
from lmeraser.service.server import listen
from lmeraser.service.service import Service
from serving import Process, copied, prepared

CHROMIUM = os.environ.get("LMERASER_CHROMIUM") or shutil.which("chromium")
AXE = os.environ.get("LMERASER_AXE")  # axe.min.js of axe-core (npm), for accessibility
PATIENCE = 120_000.0  # milliseconds; a limit against hanging, not a measurement

expect.set_options(timeout=PATIENCE)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium; set LMERASER_CHROMIUM to its program")


@dataclass
class Watched:
    """A running service, its workspace, a key, and what a browser complained about.

    Attributes:
        url: of the service.
        root: of the workspace.
        key: with the scope admin.
        patient: whether requests wait until a test has them carried out.
        complaints: errors on the console and in scripts.
        hosts: that something was asked of.
    """

    url: str
    root: Path
    key: str
    patient: bool
    complaints: list[str] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)

    def follow(self, page: Page) -> Page:
        """Watch a page."""
        page.set_default_timeout(PATIENCE)
        page.on("console", lambda m: self.complaints.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.hosts.add(urlsplit(request.url).netloc))
        return page


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM)
        yield opened
        opened.close()


@pytest.fixture(scope="module", params=["here", pytest.param("process", marks=pytest.mark.long)])
def site(
    request: pytest.FixtureRequest, template: Template, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Watched]:
    """A service in this process, where tests carry requests out, or one of its own, which does so itself."""
    folder, here = tmp_path_factory.mktemp("site"), request.param == "here"
    root = copied(prepared(template), folder, batch_seconds=3600.0 if here else 2.0)
    with Eraser(root) as eraser:
        _, key = eraser.workspace.api_keys.create("officer", ["admin"], now=eraser.workspace.clock())
    with (served_here if here else served_by_a_process)(root, folder / "log") as url:
        yield Watched(url, root, key, here)
    assert "digit-" not in (folder / "log").read_text()


@contextlib.contextmanager
def served_by_a_process(root: Path, log: Path) -> Iterator[str]:
    process = Process(root, log)
    yield process.url
    assert process.end(signal.SIGTERM) == 0


@contextlib.contextmanager
def served_here(root: Path, log: Path) -> Iterator[str]:
    logger, handler = logging.getLogger("lmeraser"), logging.FileHandler(log)
    logger.addHandler(handler)
    try:
        with (
            Eraser(root) as eraser,
            Service(eraser) as service,
            contextlib.closing(listen("127.0.0.1", 0)) as opened,
        ):
            app = make_app(service)
            add_dashboard(app)
            server = uvicorn.Server(
                uvicorn.Config(
                    app, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=10
                )
            )
            thread = threading.Thread(target=server.run, kwargs={"sockets": [opened]})
            thread.start()
            yield f"http://127.0.0.1:{opened.getsockname()[1]}"
            service.stopping.set()
            server.should_exit = True
            thread.join()
    finally:
        logger.removeHandler(handler)
        handler.close()


@pytest.fixture(autouse=True)
def nothing_is_wrong(site: Watched) -> Iterator[None]:
    """Whatever a test does, the browser does not complain and asks nobody else."""
    site.complaints.clear()
    site.hosts.clear()
    yield
    assert site.complaints == []
    assert site.hosts == {urlsplit(site.url).netloc}


def carry_out(site: Watched) -> None:
    """Have carried out what was filed."""
    if site.patient:
        with Eraser(site.root) as eraser:
            eraser.unlearn()


@pytest.fixture(scope="module")
def verifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command of an environment that has only the verifier."""
    folder = tmp_path_factory.mktemp("verifier")
    script = Path(__file__).parents[3] / "scripts" / "build_verifier.py"
    subprocess.run([sys.executable, script, folder / "source"], check=True)
    venv.create(folder / "env", with_pip=True)
    python = folder / "env" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", folder / "source"], check=True)
    return folder / "env" / "bin" / "lmeraser-verify"


def download(page: Page, link: str, folder: Path) -> Path:
    """The file behind a link."""
    with page.expect_download() as downloading:
        page.get_by_role("link", name=link).click()
    file = folder / downloading.value.suggested_filename
    downloading.value.save_as(file)
    return file


def log_in(page: Page, site: Watched) -> None:
    page.goto(site.url)
    page.get_by_label("API key").fill(site.key)
    page.get_by_role("button", name="Log in").click()


def test_a_request_from_its_plan_to_its_verified_certificate(
    browser: Browser, site: Watched, tmp_path: Path, run: Run
) -> None:
    page = site.follow(browser.new_page())
    log_in(page, site)
    page.get_by_role("link", name="File a request").click()
    page.get_by_label("Single records").fill("digit-0004\ndigit-0009")
    page.get_by_role("button", name="Show the plan").click()
    expect(page.get_by_text("Records to delete")).to_be_visible()
    expect(page.get_by_role("listitem").filter(has_text="digit-0009")).to_be_visible()
    page.get_by_role("button", name="File the request").click()
    expect(page.locator("#request .state")).to_contain_text("pending" if site.patient else "completed")
    carry_out(site)
    expect(page.locator("#request .state")).to_contain_text("completed")
    expect(page.get_by_role("status")).to_have_text("The request is completed.")
    expect(page.get_by_text("Valid: signed with the key of this workspace")).to_be_visible()
    expect(page.get_by_text("Valid: unbroken chain with an entry for this certificate")).to_be_visible()
    certificate = download(page, "Download the certificate", tmp_path)
    verified = run(
        "verify", certificate, "--key", site.root / "signing.pub", "--ledger", site.root / "ledger", "--json"
    )
    assert (verified.code, verified.json["counts"]["records_deleted"]) == (0, 2)
    assert "digit" not in page.url
    page.get_by_role("link", name="Model").click()
    expect(page.get_by_role("img", name="Map of the clusters")).to_be_visible()
    page.get_by_role("link", name="Ledger").click()
    page.get_by_role("button", name="Check now").click()
    expect(page.get_by_role("status")).to_contain_text("in agreement with the records")
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_label("API key")).to_be_focused()
    page.close()


def tab_to(page: Page, text: str) -> None:
    """Go on with the tab key until something with this name has the focus, and see that one can see it."""
    for _ in range(40):
        page.keyboard.press("Tab")
        name, outline = page.evaluate(
            """() => {
                const at = document.activeElement;
                const label = at.labels && at.labels.length ? at.labels[0].textContent : at.textContent;
                return [label.trim(), getComputedStyle(at).outlineStyle];
            }"""
        )
        assert outline != "none", f"no outline on {name}"
        if text in name:
            return
    raise AssertionError(text)


@pytest.mark.parametrize("site", ["here"], indirect=True)  # it has to be pending when it is cancelled
def test_a_request_by_keyboard_alone(browser: Browser, site: Watched) -> None:
    page = site.follow(browser.new_page())
    page.goto(site.url)
    expect(page.locator("input:focus")).to_have_count(1)  # by itself, once the page is there
    page.keyboard.type(site.key)
    page.keyboard.press("Enter")
    page.wait_for_url("**/ui/requests")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    tab_to(page, "File a request")
    page.keyboard.press("Enter")
    page.wait_for_url("**/ui/file")
    tab_to(page, "People, one per line")
    page.keyboard.type("w1")
    tab_to(page, "GDPR")
    page.keyboard.press("ArrowRight")
    expect(page.get_by_label("CCPA")).to_be_checked()
    tab_to(page, "Show the plan")
    page.keyboard.press("Enter")
    page.wait_for_url("**/ui/file/plan")
    tab_to(page, "File the request")
    page.keyboard.press("Enter")
    page.wait_for_url("**/ui/requests/*")
    expect(page.locator("#request .state")).to_contain_text("pending")
    tab_to(page, "Reason, for the ledger")
    page.keyboard.press("ArrowDown")
    expect(page.locator("#cancel-reason")).to_have_value("withdrawn")
    tab_to(page, "Cancel this request")
    page.keyboard.press("Enter")
    expect(page.locator("#request .state")).to_contain_text("cancelled")
    page.close()


def test_everything_works_without_scripts(browser: Browser, site: Watched) -> None:
    context = browser.new_context(
        java_script_enabled=False, color_scheme="dark", viewport={"width": 360, "height": 640}
    )
    page = site.follow(context.new_page())
    log_in(page, site)
    page.get_by_role("link", name="File a request").click()
    page.get_by_label("Single records").fill("digit-0010")
    page.get_by_role("button", name="Show the plan").click()
    page.get_by_role("button", name="File the request").click()
    expect(page.locator("#request .state")).to_contain_text("pending" if site.patient else "completed")
    carry_out(site)
    expect(page.locator("#request .state")).to_contain_text("completed")  # the page renews itself
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_both_schemes_and_on_a_narrow_screen(
    browser: Browser, site: Watched, scheme: str
) -> None:
    context = browser.new_context(color_scheme=scheme, viewport={"width": 360, "height": 640})  # type: ignore[arg-type]
    page = site.follow(context.new_page())
    log_in(page, site)
    for path in ("requests", "file", "people", "model", "exports", "ledger"):
        page.goto(f"{site.url}/ui/{path}")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (
            f"{path} is wider than the screen"
        )
        for ratio, what in page.evaluate(_CONTRASTS):
            assert ratio >= 7, f"{path}: {what} has a contrast of {ratio:.1f}"
    context.close()


@pytest.mark.long
@pytest.mark.parametrize("site", ["here"], indirect=True)
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_day_at_the_desk(
    browser: Browser, site: Watched, tmp_path: Path, verifier: Path, scheme: str, width: int
) -> None:
    today = datetime.now(UTC)
    with Eraser(site.root) as eraser:
        ids = eraser.record_ids()[-12:]
        held = len(eraser.requests())
        for number in range(200):
            asked = today - timedelta(days=number % 45)
            eraser.request(ids=[ids[number % 8]], asked=asked, regulation="gdpr", reference=f"ticket {number}")
        before = {request.id for request in eraser.requests()}
    context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 800})  # type: ignore[arg-type]
    page = site.follow(context.new_page())
    log_in(page, site)
    sound(page, "requests")
    page.get_by_role("link", name="late").first.click()
    expect(page.get_by_role("heading", name="Late requests")).to_be_visible()
    page.get_by_label("Reference, or beginning").fill("TICKET 199")
    page.get_by_role("button", name="Search").click()
    expect(page.get_by_role("heading", name="Found: 1")).to_be_visible()
    page.goto(f"{site.url}/ui/requests?view=open")
    page.get_by_role("link", name="Next").click()
    expect(page.get_by_text("page 2 of")).to_be_visible()
    sound(page, "the second page of requests")
    page.get_by_role("link", name="People", exact=True).click()
    page.get_by_role("radio", name="a record").check()
    page.get_by_label("Name of a person").fill(ids[-1].upper())
    page.get_by_role("button", name="Find").click()
    sound(page, "near misses")
    page.get_by_role("button", name=ids[-1], exact=True).click()
    sound(page, "what is held")
    page.get_by_role("button", name="File a deletion request").click()
    page.get_by_label("Your reference").fill("ticket of the day")
    sound(page, "the form")
    page.get_by_role("button", name="Show the plan").click()
    sound(page, "the plan")
    page.get_by_role("button", name="File the request").click()
    expect(page.locator("#request .state")).to_contain_text("pending")
    expect(page.get_by_text("ticket of the day")).to_be_visible()
    page.get_by_text("More time for the answer").click()
    page.locator("#extend-reason").select_option("complexity")
    page.get_by_role("button", name="Extend it").click()
    expect(page.get_by_text("extended on")).to_be_visible()
    sound(page, "a pending request")
    page.locator("#cancel-reason").select_option("mistake")
    page.get_by_role("button", name="Cancel this request").click()
    expect(page.locator("#request .state")).to_contain_text("cancelled")
    with Eraser(site.root) as eraser:
        for request in eraser.requests():
            if request.id in before and request.state == "pending":
                eraser.cancel(request.id)
        assert len(eraser.requests()) == held + 201
    page.get_by_role("link", name="File a request").click()
    page.get_by_label("Single records").fill(ids[-1])
    page.get_by_role("button", name="Show the plan").click()
    page.get_by_role("button", name="File the request").click()
    expect(page.locator("#request .state")).to_contain_text("pending")
    carry_out(site)
    expect(page.locator("#request .state")).to_contain_text("completed")
    sound(page, "a completed request")
    pdf = download(page, "PDF", tmp_path)
    assert pdf.read_bytes().startswith(b"%PDF-")
    certificate = download(page, "Download the certificate", tmp_path)
    evidence: list[str | Path] = [certificate, "--key", site.root / "signing.pub"]
    evidence += ["--ledger", site.root / "ledger"]
    verified = subprocess.run([verifier, *evidence], check=True, capture_output=True, text=True)
    assert verified.stdout.endswith("verified: signature and entry in the ledger\n")
    page.get_by_role("link", name="Ledger").click()
    sound(page, "the ledger")
    page.get_by_label("Show").select_option("extended")
    page.get_by_role("button", name="Apply").click()
    expect(page.get_by_role("heading", name="Entries: ")).to_be_visible()
    assert len(download(page, "CSV", tmp_path).read_text().splitlines()) > 400
    context.close()


@pytest.mark.long
@pytest.mark.parametrize("site", ["here"], indirect=True)
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_copy_is_recalled_and_its_deletion_confirmed(
    browser: Browser, site: Watched, tmp_path: Path, scheme: str, width: int
) -> None:
    with Eraser(site.root) as eraser:
        for request in eraser.requests():  # of other tests
            if request.state == "pending":
                eraser.cancel(request.id)
        made = eraser.export(tmp_path / "out", holder_contact="model desk of the other house, " + "long " * 12)
        eraser.unlearn(ids=[eraser.record_ids()[0]])
    context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 800})  # type: ignore[arg-type]
    page = site.follow(context.new_page())
    log_in(page, site)
    page.get_by_role("link", name="Copies").click()
    expect(page.get_by_role("heading", name="Copies outside")).to_be_visible()
    sound(page, "the copies")
    page.get_by_role("button", name=f"Confirm that copy {made.export[:8]} is deleted").click()
    row = page.get_by_role("row").filter(has_text=made.export[:8])
    expect(row).to_contain_text("deleted, confirmed on")
    sound(page, "a confirmed copy")
    context.close()


def sound(page: Page, what: str) -> None:
    """Nothing is wider than the screen, and axe-core, where LMERASER_AXE says where it is, finds no violation."""
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{what} is wider than the screen"
    for ratio, text in page.evaluate(_CONTRASTS):
        assert ratio >= 7, f"{what}: {text} has a contrast of {ratio:.1f}"
    if AXE is not None:
        page.evaluate(Path(AXE).read_text())
        found = page.evaluate("axe.run().then((result) => result.violations)")
        assert not found, (what, [(one["id"], [node["html"] for node in one["nodes"]]) for one in found])


# Contrast of each text with the ground it stands on (WCAG 2.2, definition of contrast ratio).
_CONTRASTS = """() => {
    const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
    const light = (colour) => {
        const [r, g, b] = parts(colour).slice(0, 3).map((c) => c / 255)
            .map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const ground = (at) => {
        for (; at; at = at.parentElement) {
            const colour = getComputedStyle(at).backgroundColor;
            if ((parts(colour)[3] ?? 1) > 0) return colour;
        }
        return "rgb(255, 255, 255)";
    };
    const texts = [...document.querySelectorAll("body *")].filter((at) => !at.closest("svg") &&
        [...at.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim()));
    return texts.map((at) => {
        const [a, b] = [light(getComputedStyle(at).color), light(ground(at))];
        const what = at.tagName + " " + at.textContent.trim().slice(0, 30);
        return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), what];
    });
}"""
