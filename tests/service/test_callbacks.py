"""Callbacks reach those who were listed, signed, and cannot be turned against anybody else."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import http.server
import json
import socketserver
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

import faults
from conftest import Template
from faults import NOW, name, opened
from lmeraser import Eraser
from lmeraser.config.deployment import ServiceConfig
from lmeraser.service import callbacks
from lmeraser.service.callbacks import CallbackSender, check_urls
from lmeraser.service.problems import Problem
from serving import copied, fake_workspace, set_service

LISTED = ServiceConfig(
    callback_hosts=("one.example", "two.example:8443", "inside.example:9000", "intranet"),
    private_callback_hosts=("inside.example:9000", "intranet"),
)


class Receiver(http.server.ThreadingHTTPServer):
    """Somebody who is called back; answers with the statuses that it is told, then with 204."""

    def __init__(self) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.statuses: list[int] = []
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append((dict(self.headers), body))
        self.send_response(self.server.statuses.pop(0) if self.server.statuses else 204)
        self.send_header("Location", f"http://127.0.0.1:{self.server.server_port}/elsewhere")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as one:
        thread = threading.Thread(target=one.serve_forever)
        thread.start()
        yield one
        one.shutdown()
        thread.join()


@pytest.fixture
def root(template: Template, tmp_path: Path) -> Path:
    return fake_workspace(template, tmp_path)


@pytest.fixture
def eraser(root: Path, receiver: Receiver) -> Iterator[Eraser]:
    host = f"inside.example:{receiver.server_port}"
    set_service(
        root, callback_hosts=[host, "public.example"], private_callback_hosts=[host], domain="eraser.example"
    )
    with opened(root) as one:
        yield one


@pytest.fixture(scope="module")
def completed(template: Template, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a completed request of which a public host is not yet told; only to be copied."""
    root = fake_workspace(template, tmp_path_factory.mktemp("completed"))
    with opened(root) as eraser:
        subscribed(eraser, "https://public.example/told")
    return root


@pytest.fixture
def untold(completed: Path, tmp_path: Path) -> Iterator[Eraser]:
    root = copied(completed, tmp_path, callback_hosts=["public.example"], domain="eraser.example")
    with opened(root) as one:
        yield one


def subscribed(eraser: Eraser, url: str) -> None:
    """A request that is completed, and somebody who wants to be told."""
    eraser.request(ids=[name(4)], request=faults.REQUEST)
    with eraser.workspace.request_transaction("test") as connection:
        eraser.workspace.subscriptions.add(connection, faults.REQUEST, [url], now=NOW)
    eraser.unlearn()


def telling(eraser: Eraser, *addresses: str) -> tuple[CallbackSender, list[bool], list[str]]:
    """Callbacks with a name server of our own, whether they arrived, and the names that were looked up."""
    arrived, names = list[bool](), list[str]()

    def resolve(host: str, port: int) -> list[str]:
        names.append(host)
        return list(addresses)

    return CallbackSender(eraser.workspace, arrived.append, resolve=resolve), arrived, names


# --- what is sent --------------------------------------------------------------------------------------------


def test_a_callback_is_signed_and_names_nobody(eraser: Eraser, receiver: Receiver) -> None:
    url = f"http://inside.example:{receiver.server_port}/told?about=them"
    subscribed(eraser, url)
    calls, arrived, names = telling(eraser, "127.0.0.1")
    calls.send_due()
    calls.send_due()
    ((headers, body),) = receiver.got
    assert (arrived, names) == ([True], ["inside.example"])
    assert headers["Host"] == f"inside.example:{receiver.server_port}"
    assert headers["X-OpenDSR-Processor-Domain"] == "eraser.example"
    eraser.workspace.signing_key.public.verify_body(body, base64.b64decode(headers["X-OpenDSR-Signature"]))
    told = json.loads(body)
    assert (told["subject_request_id"], told["request_status"]) == (faults.REQUEST, "completed")
    assert (told["results_count"], told["status_callback_url"]) == (1, url)
    assert name(4) not in body.decode()
    assert eraser.workspace.subscriptions.count() == 0


def test_what_did_not_arrive_is_tried_again(
    eraser: Eraser, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    subscribed(eraser, f"http://inside.example:{receiver.server_port}/secret-path")
    receiver.statuses = [500, 307]
    calls, arrived, _ = telling(eraser, "127.0.0.1")
    for later in (0, 1, 2, 3, 4, 5, 6):
        eraser.workspace.clock = lambda later=later: NOW + timedelta(seconds=later)  # type: ignore[misc]
        calls.send_due()
    assert arrived == [False, False, True]
    assert len(receiver.got) == 3, "a redirect is not followed"
    assert "will be retried: status 500" in caplog.text
    assert "secret-path" not in caplog.text


def test_the_holder_of_a_copy_is_told_of_its_recall(eraser: Eraser, receiver: Receiver, tmp_path: Path) -> None:
    made = eraser.export(tmp_path / "out", holder_url=f"http://inside.example:{receiver.server_port}/recall")
    calls, arrived, _ = telling(eraser, "127.0.0.1")
    calls.send_due()
    assert receiver.got == []
    eraser.unlearn(ids=[name(4)])
    receiver.statuses = [500]
    for later in (0, 1, 2, 3):
        eraser.workspace.clock = lambda later=later: NOW + timedelta(seconds=later)  # type: ignore[misc]
        calls.send_due()
    assert arrived == [False, True]
    headers, body = receiver.got[-1]
    eraser.workspace.signing_key.public.verify_body(body, base64.b64decode(headers["X-OpenDSR-Signature"]))
    told = json.loads(body)
    assert (told["event"], told["id"], told["records_erased"]) == ("export.recalled", made.export, 1)
    assert told["confirm"] == f"/exports/{made.export}/confirm"
    assert name(4) not in body.decode()
    (held,) = eraser.exports()
    assert (held.copy.told_of, held.copy.state) == (1, "recalled")
    assert eraser.check_ledger().sound


def test_after_days_it_is_given_up(eraser: Eraser, receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    subscribed(eraser, f"http://inside.example:{receiver.server_port}/")
    receiver.statuses = [500] * 9
    calls, arrived, _ = telling(eraser, "127.0.0.1")
    calls.send_due()
    eraser.workspace.clock = lambda: NOW + timedelta(days=8)
    calls.send_due()
    assert (arrived, eraser.workspace.subscriptions.count()) == ([False, False], 0)
    assert "is given up" in caplog.text


def test_calls_are_made_in_a_thread_of_their_own(
    eraser: Eraser, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(callbacks, "_POLL_SECONDS", 0.01)
    done = threading.Event()
    subscribed(eraser, f"http://inside.example:{receiver.server_port}/")
    calls = CallbackSender(eraser.workspace, lambda _: done.set(), resolve=lambda *_: ["127.0.0.1"])
    calls.start()
    assert done.wait(60)
    calls.stop()
    assert len(receiver.got) == 1


class Dripping(socketserver.ThreadingTCPServer):
    """Somebody who answers with a byte now and then, for ever."""

    daemon_threads = True

    def __init__(self) -> None:
        self.called = threading.Event()
        self.ended = threading.Event()
        super().__init__(("127.0.0.1", 0), _Drip)


class _Drip(socketserver.BaseRequestHandler):
    server: Dripping

    def handle(self) -> None:
        self.server.called.set()
        with contextlib.suppress(OSError):
            self.request.sendall(b"HTTP/1.1 200 OK\r\n")
            while not self.server.ended.wait(0.01):
                self.request.sendall(b"X-Y: z\r\n")


@pytest.fixture
def dripping() -> Iterator[Dripping]:
    with Dripping() as one:
        thread = threading.Thread(target=one.serve_forever)
        thread.start()
        yield one
        one.ended.set()
        one.shutdown()
        thread.join()


@pytest.fixture
def two_hosts(root: Path, receiver: Receiver, dripping: Dripping) -> Iterator[Eraser]:
    """A workspace in which a dripping host is to be told first, then another one."""
    hosts = [
        f"{name}.example:{server.server_address[1]}" for name, server in (("slow", dripping), ("quick", receiver))
    ]
    set_service(root, callback_hosts=hosts, private_callback_hosts=hosts)
    with opened(root) as one:
        one.request(ids=[name(4)], request=faults.REQUEST)
        with one.workspace.request_transaction("test") as connection:
            urls = [f"http://{host}/" for host in hosts]
            one.workspace.subscriptions.add(connection, faults.REQUEST, urls, now=NOW)
        one.unlearn()
        yield one


def test_a_call_has_a_deadline_however_its_host_drips(
    two_hosts: Eraser, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Deadlines pass when the other host was told, so that the test depends on no clock."""
    deadlines: list[tuple[float | None, asyncio.Timeout, asyncio.AbstractEventLoop]] = []
    real, first, arrived = asyncio.timeout, threading.Event(), list[bool]()

    def timeout(seconds: float | None) -> asyncio.Timeout:
        deadlines.append((seconds, real(None), asyncio.get_running_loop()))
        return deadlines[-1][1]

    def attempted(success: bool) -> None:
        arrived.append(success)
        first.set()

    def pass_by(deadline: asyncio.Timeout, loop: asyncio.AbstractEventLoop) -> None:
        with contextlib.suppress(RuntimeError):  # that of the other host, whose call has ended
            deadline.reschedule(loop.time())

    monkeypatch.setattr(asyncio, "timeout", timeout)
    calls = CallbackSender(two_hosts.workspace, attempted, resolve=lambda *_: ["127.0.0.1"])
    sending = threading.Thread(target=calls.send_due)
    sending.start()
    assert first.wait(60)
    for seconds, deadline, loop in deadlines:
        assert seconds == callbacks._TIMEOUT
        loop.call_soon_threadsafe(pass_by, deadline, loop)
    sending.join(60)
    assert arrived == [True, False], "the other host did not wait for it"
    assert "no answer in time" in caplog.text
    assert len(receiver.got) == 1


@pytest.mark.parametrize("stuck", ["answer", "look-up"])
def test_a_host_that_does_not_answer_holds_up_neither_others_nor_the_end(
    two_hosts: Eraser, receiver: Receiver, dripping: Dripping, monkeypatch: pytest.MonkeyPatch, stuck: str
) -> None:
    monkeypatch.setattr(callbacks, "_POLL_SECONDS", 0.01)
    begun = dripping.called if stuck == "answer" else threading.Event()

    def resolve(host: str, port: int) -> list[str]:
        if stuck == "look-up" and host == "slow.example":
            begun.set()
            assert dripping.ended.wait(60)
        return ["127.0.0.1"]

    arrived = threading.Event()
    calls = CallbackSender(two_hosts.workspace, lambda _: arrived.set(), resolve=resolve)
    calls.start()
    assert begun.wait(60)
    assert arrived.wait(60)
    started = time.perf_counter()
    calls.stop()
    assert time.perf_counter() - started < 5.0
    assert two_hosts.workspace.subscriptions.count() == 1, "it is told by the next service"
    assert len(receiver.got) == 1


# --- who is called -------------------------------------------------------------------------------------------

PRIVATE = [
    "127.0.0.1", "10.0.0.1", "172.16.5.4", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
    "::1", "fe80::1%eth0", "fd00::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "255.255.255.255", "240.0.0.1", "::",
]  # fmt: skip


@pytest.mark.parametrize("address", PRIVATE)
def test_a_public_host_with_a_private_address_is_not_called(
    untold: Eraser, caplog: pytest.LogCaptureFixture, address: str
) -> None:
    for addresses in ([address], ["93.184.216.34", address]):
        calls, arrived, _ = telling(untold, *addresses)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(CallbackSender, "_post", None)
            calls.send_due()
        assert arrived == [False]
        assert "private network" in caplog.text
        untold.workspace.clock = lambda: NOW + timedelta(seconds=2)


def test_a_public_address_is_called_itself_not_its_name_again(
    untold: Eraser, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[str] = []

    async def post(_: CallbackSender, notice: object, parts: object, address: str) -> str:
        called.append(address)
        return ""

    monkeypatch.setattr(CallbackSender, "_post", post)
    calls, arrived, names = telling(untold, "93.184.216.34", "2606:2800:220:1::1")
    calls.send_due()
    assert (called, arrived, names) == (["93.184.216.34"], [True], ["public.example"])


def test_a_host_that_is_not_listed_any_more_is_not_called(untold: Eraser) -> None:
    set_service(untold.workspace.root, callback_hosts=[], private_callback_hosts=[])
    with opened(untold.workspace.root) as again:
        calls, arrived, names = telling(again, "93.184.216.34")
        calls.send_due()
    assert (arrived, names) == ([False], [])


def test_a_host_that_cannot_be_found_is_tried_again(untold: Eraser, caplog: pytest.LogCaptureFixture) -> None:

    def nowhere(host: str, port: int) -> list[str]:
        raise OSError(host)

    CallbackSender(untold.workspace, lambda _: None, resolve=nowhere).send_due()
    assert "host not found" in caplog.text
    assert "public.example" not in caplog.text


@pytest.mark.parametrize(
    "url",
    ["https://one.example/told", "https://ONE.example:443", "https://two.example:8443/x?y=z", "http://intranet/",
     "http://inside.example:9000/", "https://inside.example:9000/"],
)  # fmt: skip
def test_urls_that_are_taken(url: str) -> None:
    check_urls([url], LISTED)


@pytest.mark.parametrize(
    "url",
    ["http://one.example/", "https://one.example:8443/", "https://two.example/", "https://sub.one.example/",
     "https://one.example.evil/", "https://evil/?one.example", "https://one.example@evil/", "https://u:p@one.example/",
     "https://evil\\@one.example/", "https://evil#@one.example/", "ftp://one.example/", "file:///etc/passwd",
     "//one.example", "one.example", "", "https://", "https://[::1]/", "https://127.0.0.1/", "https://one.example:99999/",
     "https://one.example:x/", "https://[one.example/", "https://one.example/\n",
     "https://one.example /", "javascript:1"],
)  # fmt: skip
def test_urls_that_are_not(url: str) -> None:
    with pytest.raises(Problem) as caught:
        check_urls(["https://one.example/", url], LISTED)
    assert [fault.where for fault in caught.value.faults] == ["status_callback_urls.1"]
    assert not url or url not in caught.value.detail + caught.value.faults[0].message


def test_without_a_list_nobody_is_called() -> None:
    with pytest.raises(Problem):
        check_urls(["https://one.example/"], ServiceConfig())
    check_urls([], ServiceConfig())


def test_private_hosts_are_listed_hosts() -> None:
    with pytest.raises(ValueError, match="intranet"):
        ServiceConfig(private_callback_hosts=("intranet",))


def test_names_are_looked_up() -> None:
    assert "127.0.0.1" in callbacks.resolve("localhost", 80)
