"""The service as a process: where it may listen, TLS, a clean end, and kills at any moment with nothing lost."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from ipaddress import ip_address
from pathlib import Path

import fastapi.routing
import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from fastapi import FastAPI
from PIL import Image
from sqlalchemy import event
from starlette.requests import Request
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from conftest import Run, Template
from lmeraser import Eraser
from lmeraser.errors import InputError, LockedError
from lmeraser.service.access import client_address
from lmeraser.service.app import make_app
from lmeraser.service.dashboard.dashboard import add_dashboard
from lmeraser.service.server import (
    BoundedProtocol,
    _uvicorn_config,
    check_exposure,
    check_proxies,
    listen,
    warm_up,
)
from lmeraser.service.service import Service
from lmeraser.storage.engines import SQLite
from serving import HELD, PATIENCE, Process, copied, erasure, prepared, set_service, until


@pytest.fixture
def root(template: Template, tmp_path: Path) -> Path:
    return copied(prepared(template, "instant"), tmp_path, batch_seconds=0.2)


def key_of(root: Path, *scopes: str) -> dict[str, str]:
    with Eraser(root) as eraser:
        _, text = eraser.workspace.api_keys.create("test", scopes, now=eraser.workspace.clock())
    return {"Authorization": f"Bearer {text}"}


@contextlib.contextmanager
def process(root: Path, log: Path, *options: str) -> Iterator[Process]:
    one = Process(root, log, *options)
    try:
        yield one
    finally:
        if one.popen.poll() is None:
            one.end(signal.SIGKILL)


# --- where it listens ----------------------------------------------------------------------------------------


def test_others_reach_it_only_with_tls_and_a_key(root: Path) -> None:
    with Eraser(root) as eraser:
        service = Service(eraser)
        check_exposure(service, "127.0.0.1", tls=False, behind_proxy=False)
        with pytest.raises(InputError, match="--behind-proxy"):
            check_exposure(service, "0.0.0.0", tls=False, behind_proxy=False)
        for tls in (True, False):
            with pytest.raises(InputError, match="keys create"):
                check_exposure(service, "0.0.0.0", tls=tls, behind_proxy=not tls)
        key, _ = eraser.workspace.api_keys.create("x", ["read"], now=eraser.workspace.clock())
        check_exposure(service, "0.0.0.0", tls=True, behind_proxy=False)
        check_exposure(service, "0.0.0.0", tls=False, behind_proxy=True)
        eraser.workspace.api_keys.revoke(key.id, now=eraser.workspace.clock())
        with pytest.raises(InputError, match="keys create"):
            check_exposure(service, "0.0.0.0", tls=True, behind_proxy=False)


def test_forwarded_addresses_are_believed_only_from_named_proxies(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "*")  # uvicorn's own setting
    set_service(root, burst=3, requests_per_second=0.01)
    refused: dict[tuple[str, ...], list[int]] = {}
    for proxies in ((), ("10.0.0.0/8",), ("127.0.0.1",)):
        with Eraser(root) as eraser:
            service = Service(eraser)
            config = _uvicorn_config(make_app(service), proxies)
            config.load()
            caller = TestClient(config.loaded_app, client=("127.0.0.1", 5))
            forwarded = ({"X-Forwarded-For": f"203.0.113.{number}"} for number in range(6))
            refused[proxies] = [caller.get("/model", headers=headers).status_code for headers in forwarded]
            service.key_lookups.shutdown()
    assert refused[()] == refused["10.0.0.0/8",] == [401] * 3 + [429] * 3
    assert refused["127.0.0.1",] == [401] * 6
    for wrong in ("*", "proxy.example", "10.0.0.1/8", ""):
        with pytest.raises(InputError, match="not an IP address"):
            check_proxies([wrong])


def test_addresses_of_one_network_are_one_caller() -> None:
    def caller(host: str | None) -> str:
        return client_address(Request({"type": "http", "client": (host, 1) if host else None}))

    assert caller("2606:2800:220:1::1") == caller("2606:2800:220:1:ffff::2") != caller("2606:2800:220:2::1")
    assert caller("93.184.216.34") != caller("93.184.216.35")
    assert caller("x" * 1000) == caller(None) == "address unknown"


def test_what_the_command_refuses(root: Path, run: Run) -> None:
    for options, words in (
        (["--host", "0.0.0.0"], "--tls-certificate"),
        (["--host", "0.0.0.0", "--behind-proxy"], "keys create"),
        (["--tls-key", "x"], "give both"),
        (["--tls-key", "x", "--tls-certificate", "x"], "Cannot read file: x"),
        (["--tls-key", root / "lmeraser.toml", "--tls-certificate", root / "lmeraser.toml"], "cannot be used"),
        (["--host", "203.0.113.1", "--behind-proxy"], "keys create"),
        (["--trusted-proxy", "proxy.example"], "not an IP address"),
    ):
        refused = run("-w", root, "serve", *options)
        assert refused.code == 2
        assert words in refused.err


def test_a_port_in_use_is_an_error() -> None:
    with contextlib.closing(listen("127.0.0.1", 0)) as first, pytest.raises(InputError, match="--port"):
        listen("127.0.0.1", first.getsockname()[1])
    with pytest.raises(InputError, match="--host"):
        listen("203.0.113.1", 0)


# --- the process ---------------------------------------------------------------------------------------------


def certificate(folder: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.now(UTC)
    names = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(names, critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "cert.pem").write_bytes(made.public_bytes(pem))
    plain = serialization.NoEncryption()
    (folder / "key.pem").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    return folder / "cert.pem", folder / "key.pem"


class Connection(asyncio.Transport):
    """The service's end of a connection, to which a caller has sent pieces."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent += bytes(data)

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


async def received(*pieces: bytes) -> tuple[Connection, list[tuple[bytes, bytes]], bytes]:
    """What a connection, the header fields and the body of its last call are after these pieces."""
    headers: list[tuple[bytes, bytes]] = []
    body = b""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal headers, body
        headers = scope["headers"]
        message = await receive()
        while message["more_body"]:
            body += message["body"]
            message = await receive()
        body += message["body"]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})

    config = _uvicorn_config(FastAPI(), ())
    config.load()
    config.loaded_app = app
    protocol = BoundedProtocol(config, ServerState(), {})
    connection = Connection()
    protocol.connection_made(connection)
    for piece in pieces:
        protocol.data_received(piece)
        await asyncio.sleep(0)
    protocol._unset_keepalive_if_required()
    return connection, headers, body


def test_request_lines_header_fields_and_trailers_without_end_are_refused() -> None:
    """The parser would keep them until they end, whoever sends them."""
    piece = b"a" * 4096
    pieces = [piece] * 20
    chunked = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    for begun in (
        b"GET /",
        b"GET / HTTP/1.1\r\nX: ",
        chunked + b"0\r\nX: ",
        chunked + b"1;",
        b"GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\nX: ",
    ):
        connection, _, _ = asyncio.run(received(begun, *pieces))
        assert connection.closed, begun
        assert b"400 Bad Request" in connection.sent
    fields = b"".join(b"X%d: a\r\n" % number for number in range(1000))
    connection, _, _ = asyncio.run(received(b"GET / HTTP/1.1\r\n", *[fields] * 10))
    assert connection.closed
    long = b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (20 * 4096)
    connection, _, body = asyncio.run(received(long, *pieces))
    assert not connection.closed
    assert len(body) == 20 * 4096


def test_a_trailer_is_no_header_field() -> None:
    sent = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nAuthorization: x\r\n\r\n"
    connection, headers, body = asyncio.run(received(sent))
    assert not connection.closed
    assert headers == [(b"transfer-encoding", b"chunked")]
    assert body == b"a"


def test_routes_and_formats_are_made_ready_before_the_first_call(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Eraser(root) as eraser:
        app = make_app(Service(eraser))
        add_dashboard(app)
        asyncio.run(warm_up(app))
        monkeypatch.setattr(fastapi.routing, "get_dependant", None)
        assert TestClient(app).get("/healthz").status_code == 200
        assert TestClient(app).get("/nowhere").status_code == 404
    assert {"PNG", "JPEG", "WEBP"} <= Image.OPEN.keys()


def test_answers_are_sent_at_once() -> None:
    """asyncio switches Nagle's algorithm off for sockets that name their protocol, and for no others."""
    with contextlib.closing(listen("127.0.0.1", 0)) as opened, socket.create_connection(opened.getsockname()):
        accepted, _ = opened.accept()
        with accepted:
            assert accepted.proto == socket.IPPROTO_TCP


def test_tls_a_key_made_while_it_runs_and_a_clean_end_with_a_stream_open(root: Path, tmp_path: Path) -> None:
    set_service(root, batch_seconds=3600.0)
    chain, key = certificate(tmp_path)
    tls = ssl.create_default_context(cafile=str(chain))
    with process(root, tmp_path / "log", "--tls-certificate", str(chain), "--tls-key", str(key)) as one:
        assert one.url.startswith("https://127.0.0.1:")
        with httpx2.Client(base_url=one.url, verify=tls, timeout=PATIENCE) as client:
            assert client.get("/readyz").status_code == 200
            assert client.get("/model").status_code == 401
            client.headers = httpx2.Headers(key_of(root, "admin"))
            assert client.get("/model").json()["generation"] == 0
            wanted = erasure("digit-0003")
            assert client.post("/requests", json=wanted).status_code == 201
            with client.stream("GET", f"/requests/{wanted['subject_request_id']}/events") as stream:
                lines = stream.iter_lines()
                assert next(lines) == "event: status"
                assert one.end(signal.SIGTERM) == 0
                assert any("pending" in line for line in lines)
    log = (tmp_path / "log").read_text()
    assert "all calls are rejected until 'lmeraser keys create' makes one" in log
    assert "Traceback" not in log


@pytest.mark.parametrize(
    ("moments", "again"),
    [
        pytest.param((1.2,), False, id="continued by a command"),
        pytest.param((0.05, 1.2, 3.0), True, marks=pytest.mark.long, id="continued by the next service"),
    ],
)
def test_killed_at_several_moments_no_accepted_request_is_lost(
    root: Path, tmp_path: Path, moments: tuple[float, ...], again: bool
) -> None:
    headers, log = key_of(root, "request"), tmp_path / "log"
    accepted: list[str] = []
    numbers = iter(HELD)

    def file(url: str, stop: threading.Event) -> None:
        with httpx2.Client(base_url=url, headers=headers, timeout=PATIENCE) as client:
            while not stop.is_set():
                wanted = erasure(f"digit-{next(numbers):04d}")
                answer = client.post("/requests", json=wanted)
                assert answer.status_code == 201
                accepted.append(wanted["subject_request_id"])
                stop.wait(0.2)

    for moment in moments:
        with process(root, log) as one:
            stop = threading.Event()
            filing = threading.Thread(target=_until_gone, args=(file, one.url, stop))
            before = len(accepted)
            filing.start()
            until(partial(_longer, accepted, before))
            time.sleep(moment)
            one.end(signal.SIGKILL)
            stop.set()
            filing.join()
    if again:
        _continue_by_service(root, log, headers, accepted)
    else:
        until(partial(_continue_by_command, root))
        assert all((root / "certificates" / f"{request}.json").exists() for request in accepted)
    assert len(accepted) >= len(moments)
    with Eraser(root) as eraser:
        assert eraser.check_ledger().sound
        assert eraser.audit().identical
        assert {request.id for request in eraser.requests()} >= set(accepted)
        assert {request.state for request in eraser.requests()} == {"completed"}
        assert eraser.status().records == len(HELD) - sum(request.records or 0 for request in eraser.requests())
    assert "digit-" not in log.read_text()


def _continue_by_service(root: Path, log: Path, headers: dict[str, str], accepted: list[str]) -> None:
    with process(root, log) as one, httpx2.Client(base_url=one.url, headers=headers, timeout=PATIENCE) as client:
        for request in accepted:
            until(partial(_completed, client, request))
            assert client.get(f"/requests/{request}/certificate").status_code == 200
        assert one.end(signal.SIGTERM) == 0


def _continue_by_command(root: Path) -> bool:
    """Carry out what is open, unless the killed service's derivation is still doing so; whether all is done."""
    with Eraser(root) as eraser:
        with contextlib.suppress(LockedError, InputError):  # it finishes what it has begun
            eraser.unlearn()
        return not eraser.workspace.requests.all("pending", "in_progress")


def _longer(names: list[str], length: int) -> bool:
    return len(names) > length


def _completed(client: httpx2.Client, request: str) -> bool:
    return bool(client.get(f"/requests/{request}").json()["request_status"] == "completed")


def _until_gone(file: object, url: str, stop: threading.Event) -> None:
    """File requests until the service is killed or there are none left."""
    assert callable(file)
    with contextlib.suppress(httpx2.HTTPError, StopIteration):
        file(url, stop)


def test_as_many_threads_as_a_service_has_find_a_connection_each_and_keep_it(tmp_path: Path) -> None:
    opened = list[int]()
    backend = SQLite(tmp_path / "r.db")
    event.listen(backend.engine, "connect", lambda *_: opened.append(1))
    for _ in range(2):
        with contextlib.ExitStack() as stack:
            for _ in range(30):
                stack.enter_context(backend.engine.connect())
    backend.engine.dispose()
    assert len(opened) == 30
