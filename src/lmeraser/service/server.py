"""The service as a process that listens: safe defaults, TLS, and a clean end.

Rules:
1. it listens on this machine only, unless another address is asked for;
2. every guarded route needs a key, also here: other users and web pages reach a loopback address, too;
3. on another address it starts only with TLS (or behind a proxy that has it, if that is said) and with a key made.
"""

from __future__ import annotations

import contextlib
import gc
import ipaddress
import logging
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import uvicorn
from fastapi import FastAPI

from lmeraser.errors import InputError
from lmeraser.service.service import Service

_GRACE = 10  # seconds for calls that are under way when the service is stopped
_BACKLOG = 1024
_KEEP = 75  # seconds for which a connection without a call stays open; callers close theirs sooner
_SWITCH = 0.0005  # seconds after which a thread hands over Python's lock; calls wait for predictions otherwise


class _Server(uvicorn.Server):
    """Tells open streams to end, which would be waited for otherwise."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._service.stopping.set()
        super().handle_exit(sig, frame)


def check_exposure(service: Service, host: str, *, tls: bool, behind_proxy: bool) -> None:
    """Rule 3.

    Raises:
        InputError: it would be open to others without TLS or without keys.
    """
    if is_loopback(host):
        return
    if not tls and not behind_proxy:
        raise InputError(
            "On an address that others reach, keys and images travel encrypted.",
            got=f"{host} without TLS",
            next_step="give --tls-certificate and --tls-key, or --behind-proxy if a proxy in front has TLS",
        )
    if not service.workspace.api_keys.any_active():
        raise InputError(
            "On an address that others reach, a service starts with a key.",
            got="no key, or all of them revoked",
            next_step="make one with 'lmeraser keys create --name NAME --scope SCOPE'",
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0: a free one.

    Raises:
        InputError: the address is in use, or not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With its protocol named, asyncio sends answers at once; else their parts wait 40 ms for each other.
    opened = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        opened.bind((host, port))
        opened.listen(_BACKLOG)
    except OSError as error:
        opened.close()
        raise InputError(
            "A service listens on a free port of this machine.",
            got=f"{host}, port {port}: {error.strerror}",
            next_step="give another --host or --port",
        ) from error
    return opened


def run(
    app: FastAPI,
    service: Service,
    opened: socket.socket,
    *,
    certificate: Path | None = None,
    key: Path | None = None,
    ready: Callable[[str], None],
) -> None:
    """Answer until the process is told to stop.

    Args:
        app: what answers.
        service: not started yet.
        opened: a socket that listens.
        certificate: PEM file with the chain of TLS certificates.
        key: PEM file with their private key.
        ready: told the address once it answers.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("httpx2").setLevel(logging.ERROR)  # it would log URLs
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,  # it would log paths, into which callers may put anything (`logs`)
        log_level="warning",
        timeout_graceful_shutdown=_GRACE,
        ssl_certfile=certificate,
        ssl_keyfile=key,
        timeout_keep_alive=_KEEP,
        server_header=False,
        lifespan="off",
    )
    host, port = opened.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    with service, contextlib.closing(opened):
        for number in (signal.SIGTERM, signal.SIGINT):  # uvicorn raises them again when it has ended
            signal.signal(number, lambda *_: None)
        gc.collect()
        gc.freeze()  # what is in memory now stays: libraries and the model
        sys.setswitchinterval(_SWITCH)
        ready(f"http{'s' if certificate else ''}://{shown}:{port}")
        _Server(config, service).run(sockets=[opened])
