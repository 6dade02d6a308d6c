"""The listening process: safe defaults, TLS, and graceful shutdown.

Rules:
1. it listens on a loopback address unless another one is requested;
2. every protected route requires an API key, on loopback too, which other users and web pages can reach;
3. on any other address it starts only with TLS (or behind a proxy that terminates TLS, if so stated) and with at
   least one active API key;
4. the address of a caller is that of its connection; ``X-Forwarded-For`` is believed only from proxies that the
   operator names;
5. a request line and header fields of more than `_LONGEST_HEAD` bytes are refused while they arrive.
"""

from __future__ import annotations

import contextlib
import gc
import ipaddress
import logging
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import anyio.to_thread
import uvicorn
from fastapi import FastAPI
from PIL import Image
from starlette.exceptions import HTTPException
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from lmeraser.errors import InputError
from lmeraser.service.addresses import is_loopback
from lmeraser.service.service import Service

_SHUTDOWN_SECONDS = 10  # for calls in progress when the service is stopped
_BACKLOG = 1024
_KEEP_ALIVE_SECONDS = 75  # longer than clients keep idle connections, so that they close them first
_LONGEST_HEAD = 64 << 10  # bytes; of bodies, `limits` has the bounds
_GC_THRESHOLDS = (20_000, 20, 20)  # Python's own collect after 700 objects, a tenth of the event loop's time
# Threads of calls that read the database: with anyio's 40, those that answer at once would wait for each other.
_CALL_THREADS = 8
_SWITCH_INTERVAL = 0.0005  # seconds until a thread yields the GIL; otherwise calls wait for predictions


class _Server(uvicorn.Server):
    """Ends open event streams at shutdown; uvicorn would wait for them."""

    def __init__(self, config: uvicorn.Config, app: FastAPI, service: Service) -> None:
        super().__init__(config)
        self._app = app
        self._service = service

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        anyio.to_thread.current_default_thread_limiter().total_tokens = _CALL_THREADS
        await warm_up(self._app)
        await super().startup(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._service.stopping.set()
        super().handle_exit(sig, frame)


class BoundedProtocol(HttpToolsProtocol):
    """HTTP/1.1 whose request lines, header fields, chunk extensions and trailers are bounded (rule 5).

    The parser collects each of them until it ends, so that callers without a key could fill the memory. Trailers
    are left out: uvicorn would add them to the header fields, which a proxy in front has not seen.
    """

    _pending = 0  # bytes since the last head, piece of a body or end of a message
    _in_head = True

    def data_received(self, data: bytes) -> None:
        """Parse what came, and refuse what does not end; a single piece is bounded by the transport."""
        if self.transport.is_closing():
            return
        self._pending += len(data)
        super().data_received(data)
        if self._pending > _LONGEST_HEAD and not self.transport.is_closing():
            self.send_400_response("Request line or header fields too long.")

    def on_message_begin(self) -> None:
        """Begin a head."""
        self._in_head = True
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header field, but no trailer."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """End a head."""
        self._in_head = False
        self._pending = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a piece of a body."""
        self._pending = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End a message."""
        self._pending = 0
        super().on_message_complete()


async def warm_up(app: FastAPI) -> None:
    """Do what libraries put off to the first call, in whose time all others would wait.

    FastAPI makes routes ready when it first looks for one, Pillow loads its formats when it first opens an image.
    """

    async def unused(*_: object) -> Any:
        raise AssertionError("called for a route that does not exist")

    Image.init()
    nowhere = {"type": "http", "method": "GET", "path": "/-", "query_string": b"", "headers": [], "app": app}
    with contextlib.suppress(HTTPException):  # not found
        await app.router(nowhere, unused, unused)


def check_exposure(service: Service, host: str, *, tls: bool, behind_proxy: bool) -> None:
    """Enforce rule 3.

    Raises:
        InputError: the service would be exposed without TLS or without an API key.
    """
    if is_loopback(host):
        return
    if not tls and not behind_proxy:
        raise InputError(
            "Refusing to listen on a non-loopback address without TLS",
            got=host,
            next_step="give --tls-certificate and --tls-key, or --behind-proxy if a proxy terminates TLS",
        )
    if not service.workspace.api_keys.any_active():
        raise InputError(
            "Refusing to listen on a non-loopback address without an API key",
            got="no key, or all of them revoked",
            next_step="create one with 'lmeraser keys create --name NAME --scope SCOPE'",
        )


def check_proxies(proxies: Sequence[str]) -> None:
    """Check that trusted proxies are addresses or networks.

    Raises:
        InputError: one is not; uvicorn would compare it as a text and never trust it.
    """
    for proxy in proxies:
        try:
            ipaddress.ip_network(proxy)
        except ValueError as error:
            raise InputError(
                "Trusted proxy is not an IP address or network",
                got=repr(proxy),
                next_step="give its address, such as 10.0.0.5, or its network, such as 10.0.0.0/24",
            ) from error


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 selects a free one.

    Raises:
        InputError: the address is in use or does not belong to this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sets TCP_NODELAY only on sockets that name their protocol; without it, answers are delayed by 40 ms.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        raise InputError(
            "Cannot listen on this address",
            got=f"{host}, port {port}: {error.strerror}",
            next_step="give another --host or --port",
        ) from error
    return listening


def run(
    app: FastAPI,
    service: Service,
    listening: socket.socket,
    *,
    certificate: Path | None = None,
    key: Path | None = None,
    trusted_proxies: Sequence[str] = (),
    ready: Callable[[str], None],
) -> None:
    """Serve until the process receives SIGTERM or SIGINT.

    Args:
        app: the application.
        service: not started yet.
        listening: a listening socket.
        certificate: PEM file with the chain of TLS certificates.
        key: PEM file with their private key.
        trusted_proxies: addresses or networks whose ``X-Forwarded-For`` and ``X-Forwarded-Proto`` are believed.
        ready: called with the URL once the service answers.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("httpx2").setLevel(logging.ERROR)  # it would log the URLs of callbacks
    config = _uvicorn_config(app, trusted_proxies, certificate=certificate, key=key)
    host, port = listening.getsockname()[:2]
    url_host = f"[{host}]" if ":" in host else host
    with service, contextlib.closing(listening):
        for number in (signal.SIGTERM, signal.SIGINT):  # uvicorn raises them again after its shutdown
            signal.signal(number, lambda *_: None)
        gc.collect()
        gc.freeze()  # libraries and the model stay for good: exclude them from collections
        gc.set_threshold(*_GC_THRESHOLDS)
        sys.setswitchinterval(_SWITCH_INTERVAL)
        ready(f"http{'s' if certificate else ''}://{url_host}:{port}")
        _Server(config, app, service).run(sockets=[listening])


def _uvicorn_config(
    app: FastAPI, trusted_proxies: Sequence[str], *, certificate: Path | None = None, key: Path | None = None
) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=BoundedProtocol,
        proxy_headers=bool(trusted_proxies),  # uvicorn would believe every process of this machine (rule 4)
        forwarded_allow_ips=list(trusted_proxies),
        log_config=None,
        access_log=False,  # it would log paths, which may contain anything a caller sends (`logs`)
        log_level="warning",
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        server_header=False,
        lifespan="off",
        ssl_certfile=certificate,
        ssl_keyfile=key,
    )
