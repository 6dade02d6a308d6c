"""Callbacks: telling callers what becomes of their requests, without becoming a tool against others.

Rules:
1. a URL is taken only if its host is on the operator's list; it is https, without user or password;
2. the name is looked up when the call is made, and the call goes to the address that was checked: no answer of a
   name server can change between the check and the call;
3. addresses that are not public are refused, unless the operator listed the host as a private one (http is allowed
   there as well);
4. redirects are not followed, proxies are not used, and the answer's body is not read;
5. what is sent is signed, and names no person; what did not arrive is tried again, over days, and survives
   restarts (`subscriptions`).

The log tells of a callback by number, never by URL.
"""

from __future__ import annotations

import base64
import contextlib
import ipaddress
import logging
import socket
import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from urllib.parse import SplitResult, urlsplit

import httpx2

from lmeraser.config.deployment import ServiceConfig
from lmeraser.evidence.dsse import SigningKey
from lmeraser.service.answers import NotificationStatus, RequestStatus
from lmeraser.service.problems import Fault, Problem
from lmeraser.workspace.requests.subscriptions import Notification
from lmeraser.workspace.workspace import Workspace

_EVERY = 1.0  # seconds between two looks at what is due
_TIMEOUT = 10.0  # seconds for a call
_PORTS = {"https": 443, "http": 80}

log = logging.getLogger("lmeraser.service")
Resolve = Callable[[str, int], Sequence[str]]


def check_urls(urls: Sequence[str], config: ServiceConfig) -> None:
    """Rule 1.

    Raises:
        Problem: a URL is not to be called; says which by its position.
    """
    faults = []
    for position, url in enumerate(urls):
        parts = _parts(url)
        if parts is None or not _listed(parts, config.callback_hosts):
            rule = "https, without user and password, and a host in service.callback_hosts"
        elif parts.scheme != "https" and not _listed(parts, config.private_callback_hosts):
            rule = "https"
        else:
            continue
        faults.append(Fault(where=f"status_callback_urls.{position}", rule=rule))
    if faults:
        raise Problem(400, "callback", "Callbacks go to hosts that the operator has listed.", faults=faults)


def resolve(host: str, port: int) -> Sequence[str]:
    """The addresses of a host."""
    return [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def headers(body: bytes, key: SigningKey, config: ServiceConfig) -> dict[str, str]:
    """Who speaks, and a signature of what is said."""
    signature = base64.b64encode(key.sign_body(body)).decode("ascii")
    return {"X-OpenDSR-Processor-Domain": config.domain, "X-OpenDSR-Signature": signature}


class Callbacks:
    """Makes the calls that are due, in a thread of its own.

    Args:
        workspace: where requests and subscriptions are.
        resolve: looks up names.
        count: told whether each call arrived.
    """

    def __init__(self, workspace: Workspace, count: Callable[[bool], None], *, resolve: Resolve = resolve) -> None:
        self._workspace, self._count, self._resolve = workspace, count, resolve
        self._config = workspace.config.service
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="callbacks", daemon=True)

    def start(self) -> None:
        """Begin to call."""
        self._thread.start()

    def stop(self) -> None:
        """End after the call that is under way."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(_EVERY):
            with contextlib.suppress(Exception):  # the database is busy or gone: at the next look
                self.tell()

    def tell(self) -> None:
        """Make every call that is due."""
        now, subscriptions = self._workspace.clock(), self._workspace.subscriptions
        for notice in subscriptions.due(now):
            if self._stopping.is_set():
                return
            refusal = self._called(notice)
            self._count(not refusal)
            if not refusal:
                subscriptions.delivered(notice)
                continue
            patience = timedelta(days=self._config.callback_days)
            again = subscriptions.failed(notice, now=self._workspace.clock(), patience=patience)
            what = "will be tried again" if again else "is given up"
            log.warning("callback %d of request %s %s: %s", notice.subscription, notice.request, what, refusal)

    def _called(self, notice: Notification) -> str:
        """Make one call; why it did not arrive, or ''."""
        parts = _parts(notice.url)
        if parts is None or not _listed(parts, self._config.callback_hosts):
            return "its host is not listed any more"
        port = parts.port or _PORTS[parts.scheme]
        try:
            address = self._address(parts, port)
            if not address:
                return "its address is in a private network"
            return self._post(notice, parts, address)
        except OSError:
            return "its host cannot be found"
        except httpx2.HTTPError as error:
            return type(error).__name__

    def _address(self, parts: SplitResult, port: int) -> str:
        """The address to call (rules 2 and 3); '' if one of the host's is not to be called."""
        found = self._resolve(parts.hostname or "", port)
        private = _listed(parts, self._config.private_callback_hosts)
        return found[0] if private or all(map(_public, found)) else ""

    def _post(self, notice: Notification, parts: SplitResult, address: str) -> str:
        workspace, config = self._workspace, self._config
        status = RequestStatus.of(workspace.requests.require(notice.request), config, workspace.clock())
        body = NotificationStatus(**status.model_dump(), status_callback_url=notice.url).model_dump_json().encode()
        url = httpx2.URL(notice.url).copy_with(host=address)
        sent = {
            "Host": parts.netloc,
            "Content-Type": "application/json",
            **headers(body, workspace.signing_key, config),
        }
        with (
            httpx2.Client(timeout=_TIMEOUT, trust_env=False, follow_redirects=False) as client,
            client.stream(
                "POST", url, content=body, headers=sent, extensions={"sni_hostname": parts.hostname}
            ) as response,
        ):
            return "" if response.is_success else f"status {response.status_code}"


def _parts(url: str) -> SplitResult | None:
    """The parts of a URL, if it is one that may be called at all."""
    try:
        parts = urlsplit(url)
        fine = parts.scheme in _PORTS and parts.hostname and parts.username is None and (parts.port or 1) > 0
    except ValueError:
        return None
    return parts if fine and url.isprintable() and " " not in url and "\\" not in url else None


def _listed(parts: SplitResult, hosts: Sequence[str]) -> bool:
    """Whether a list has the host, for every port that is usual, or the host with this port."""
    port = parts.port or _PORTS[parts.scheme]
    usual = port == _PORTS[parts.scheme]
    return f"{parts.hostname}:{port}" in hosts or (usual and parts.hostname in hosts)


def _public(address: str) -> bool:
    found = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(found, "ipv4_mapped", None)
    found = mapped if mapped is not None else found
    return found.is_global and not found.is_multicast
