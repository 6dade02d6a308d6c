"""Callbacks: notify callers of changes to their requests, without becoming a tool against third parties (SSRF).

Rules:
1. a URL is accepted only if its host is on the operator's list; it is https, without user or password;
2. the host name is resolved when the call is made, and the call goes to the address that was checked, so that no
   DNS change can take effect between check and call;
3. addresses that are not public are refused, unless the operator lists the host as a private one (there, http is
   allowed as well);
4. redirects are not followed, proxies are not used, and the response body is not read;
5. a call has a deadline from its look-up to its answer; each host is called by itself, one call at a time, so that
   a slow host delays no other; stopping aborts calls;
6. a notification is signed and names no person; one that fails is retried for days and survives restarts
   (`subscriptions`).

Holders of copies of the model are told by the same rules that a copy is recalled (`workspace.exports`). The log
refers to a callback by number, and to a copy by its id, never by URL.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import logging
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from typing import TypeVar
from urllib.parse import SplitResult

import httpx2

from lmeraser.config.callback_urls import DEFAULT_PORTS, fault_of, is_listed, parse_url
from lmeraser.config.deployment import ServiceConfig
from lmeraser.evidence.dsse import SigningKey
from lmeraser.service.addresses import is_public
from lmeraser.service.export_responses import ExportRecall
from lmeraser.service.opendsr_responses import RequestStatus, StatusCallback
from lmeraser.service.problems import Fault, Problem
from lmeraser.workspace.exports import RecallNotice
from lmeraser.workspace.requests.subscriptions import Notification
from lmeraser.workspace.workspace import Workspace

_POLL_SECONDS = 1.0  # between two checks for due notifications
_TIMEOUT = 10.0  # seconds for a call, from the look-up of its host to its answer

log = logging.getLogger("lmeraser.service")
Resolve = Callable[[str, int], Sequence[str]]
_Host = tuple[str, int]
_Due = Notification | RecallNotice
R = TypeVar("R")


def check_urls(urls: Sequence[str], config: ServiceConfig) -> None:
    """Enforce rule 1.

    Raises:
        Problem: a URL is not allowed; names its position.
    """
    faults = []
    for position, url in enumerate(urls):
        if message := fault_of(url, config):
            faults.append(Fault(where=f"status_callback_urls.{position}", message=message))
    if faults:
        raise Problem(400, "callback", "Callback URL not allowed", faults=faults)


def resolve(host: str, port: int) -> Sequence[str]:
    """The IP addresses of a host."""
    return [str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def signature_headers(body: bytes, key: SigningKey, config: ServiceConfig) -> dict[str, str]:
    """OpenDSR's headers: the processor's domain, and its signature of a body."""
    signature = base64.b64encode(key.sign_body(body)).decode("ascii")
    return {"X-OpenDSR-Processor-Domain": config.domain, "X-OpenDSR-Signature": signature}


class CallbackSender:
    """Sends due notifications, in a thread of its own.

    Args:
        workspace: holds requests and subscriptions.
        on_attempt: called after each call with whether it was successful.
        resolve: resolves host names.
    """

    def __init__(
        self, workspace: Workspace, on_attempt: Callable[[bool], None], *, resolve: Resolve = resolve
    ) -> None:
        self._workspace = workspace
        self._on_attempt = on_attempt
        self._resolve = resolve
        self._config = workspace.config.service
        self._stop: Callable[[], object] = lambda: None  # set by the thread
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="callback-sender", daemon=True)
        self._calls: dict[_Host, asyncio.Task[None]] = {}  # of the hosts that are being called

    def start(self) -> None:
        """Start sending."""
        self._thread.start()
        self._started.wait()

    def stop(self) -> None:
        """Stop, and abort the calls in progress; the next service sends their notifications again."""
        self._stop()
        self._thread.join()

    def send_due(self) -> None:
        """Send every notification that is due, and wait for the answers; for a sender that is not started."""
        asyncio.run(self._wait_for_calls())

    def _run(self) -> None:
        asyncio.run(self._send_until_stopped())

    async def _send_until_stopped(self) -> None:
        loop = asyncio.get_running_loop()
        stopping = asyncio.Event()
        self._stop = lambda: loop.call_soon_threadsafe(stopping.set)
        self._started.set()
        while not stopping.is_set():
            with contextlib.suppress(Exception):  # the database is busy or gone: retry at the next poll
                self._start_due()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), _POLL_SECONDS)
        # `asyncio.run` cancels the calls in progress.

    async def _wait_for_calls(self) -> None:
        self._start_due()
        await asyncio.gather(*self._calls.values())

    def _start_due(self) -> None:
        """Start calling the hosts that have notifications due and are not being called (rule 5)."""
        due: dict[_Host, list[_Due]] = {}
        now = self._workspace.clock()
        found: list[_Due] = [*self._workspace.subscriptions.due(now), *self._workspace.exports.due(now)]
        for notification in found:
            due.setdefault(_host_of(notification.url), []).append(notification)
        for host, notifications in due.items():
            if host not in self._calls:
                call = asyncio.get_running_loop().create_task(self._send_all(notifications))
                self._calls[host] = call
                call.add_done_callback(lambda _, host=host: self._calls.pop(host))  # type: ignore[misc]

    async def _send_all(self, notifications: Iterable[_Due]) -> None:
        """Send the notifications for one host, one after the other."""
        for notification in notifications:
            try:
                async with asyncio.timeout(_TIMEOUT):
                    failure = await self._send(notification)
            except TimeoutError:
                failure = "no answer in time"
            with contextlib.suppress(Exception):  # the database is busy: it stays due
                self._record(notification, failure)

    def _record(self, notification: _Due, failure: str) -> None:
        """Note the outcome of a call; '' is success."""
        self._on_attempt(not failure)
        if isinstance(notification, RecallNotice):
            self._record_recall(notification, failure)
            return
        subscriptions = self._workspace.subscriptions
        if not failure:
            subscriptions.delivered(notification)
            return
        patience = timedelta(days=self._config.callback_days)
        retried = subscriptions.failed(notification, now=self._workspace.clock(), patience=patience)
        consequence = "will be retried" if retried else "is given up"
        log.warning(
            "callback %d of request %s failed and %s: %s",
            notification.subscription,
            notification.request,
            consequence,
            failure,
        )

    def _record_recall(self, notice: RecallNotice, failure: str) -> None:
        workspace = self._workspace
        now = workspace.clock()
        if not failure:
            with workspace.request_transaction("recall") as connection:
                workspace.exports.told(connection, notice.copy, now=now)
            return
        soon = workspace.exports.failed(notice, now=now, patience=timedelta(days=self._config.callback_days))
        consequence = "will be retried" if soon else "will be retried once a day"
        log.warning("recall of export %s failed and %s: %s", notice.copy.id, consequence, failure)

    async def _send(self, notification: _Due) -> str:
        """Send one notification; the reason if it failed, else ''."""
        parts = parse_url(notification.url)
        if parts is None or not is_listed(parts, self._config.callback_hosts):
            return "host no longer listed"
        try:
            address = await self._checked_address(parts)
            if not address:
                return "address in a private network"
            return await self._post(notification, parts, address)
        except OSError:
            return "host not found"
        except httpx2.HTTPError as error:
            return type(error).__name__

    async def _checked_address(self, parts: SplitResult) -> str:
        """The address to call (rules 2 and 3); '' if one of the host's addresses is not allowed."""
        host = parts.hostname or ""
        port = parts.port or DEFAULT_PORTS[parts.scheme]
        addresses = await _in_daemon_thread(lambda: self._resolve(host, port))
        private = is_listed(parts, self._config.private_callback_hosts)
        return addresses[0] if private or all(map(is_public, addresses)) else ""

    def _body(self, notification: _Due) -> bytes:
        """What a holder or caller is told, as JSON."""
        workspace = self._workspace
        if isinstance(notification, RecallNotice):
            return ExportRecall.of(notification.copy, self._config).model_dump_json().encode()
        request = workspace.requests.require(notification.request)
        status = RequestStatus.of(request, self._config, workspace.clock())
        callback = StatusCallback(**status.model_dump(), status_callback_url=notification.url)
        return callback.model_dump_json().encode()

    async def _post(self, notification: _Due, parts: SplitResult, address: str) -> str:
        body = self._body(notification)
        url = httpx2.URL(notification.url).copy_with(host=address)
        headers = {
            "Host": parts.netloc,
            "Content-Type": "application/json",
            **signature_headers(body, self._workspace.signing_key, self._config),
        }
        async with (
            httpx2.AsyncClient(
                verify=_tls_context(), timeout=_TIMEOUT, trust_env=False, follow_redirects=False
            ) as client,
            client.stream(
                "POST", url, content=body, headers=headers, extensions={"sni_hostname": parts.hostname}
            ) as response,
        ):
            return "" if response.is_success else f"status {response.status_code}"


@functools.cache
def _tls_context() -> ssl.SSLContext:
    """Load the certificate authorities once; each call has a client, and so connections, of its own."""
    return httpx2.create_ssl_context(trust_env=False)


async def _in_daemon_thread(function: Callable[[], R]) -> R:
    """Call a function that cannot be aborted, in a thread that holds up neither the deadline nor the end."""
    loop = asyncio.get_running_loop()
    result: asyncio.Future[R] = loop.create_future()

    def set_result(value: R) -> None:
        if not result.done():
            result.set_result(value)

    def set_error(error: BaseException) -> None:
        if not result.done():
            result.set_exception(error)

    def call() -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
            try:
                value = function()
            except Exception as error:
                loop.call_soon_threadsafe(set_error, error)
            else:
                loop.call_soon_threadsafe(set_result, value)

    threading.Thread(target=call, name="callback-lookup", daemon=True).start()
    return await result


def _host_of(url: str) -> _Host:
    """The host and port of a URL, by which calls are kept apart."""
    parts = parse_url(url)
    return ("", 0) if parts is None else (parts.hostname or "", parts.port or DEFAULT_PORTS[parts.scheme])
