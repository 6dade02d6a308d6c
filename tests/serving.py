"""A service over a small workspace in this process, for tests; its backbone is loaded once."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.testclient import TestClient

import faults
import lmeraser.pipeline.executors.local as local
from conftest import DIGIT_COLUMNS, Template, digits, tiny_config
from lmeraser import Eraser
from lmeraser.config.schema import Config
from lmeraser.pipeline.executors.local import LocalExecutor
from lmeraser.service.app import make_app
from lmeraser.service.service import Service
from lmeraser.workspace.api_keys import SCOPES

HELD = range(24)
NOW = "2026-01-31T12:00:00Z"
PATIENCE = 120.0  # seconds; a limit against hanging, not a measurement
_INSTANT: dict[str, dict[str, Any]] = {
    "partition": {"method": "single", "clusters": None},
    "global_head": {"weight": 1.0},
    "constituent": {"kind": "none"},
}
KINDS: dict[str, dict[str, dict[str, Any]]] = {"instant": _INSTANT, "prompts": {}}


def config_of(kind: str = "prompts", **service: Any) -> Config:
    """Settings of a small workspace that derives only when a test asks for it."""
    complete = {"backbone": {"resize": 37}, "prompt": {"width": 4}}
    return tiny_config(
        **complete,
        **KINDS[kind],
        service={"batch_seconds": 3600.0, "deriving_share": 1.0, "grace_period": 0.0, **service},
    )


def made(root: Path, config: Config, network: LocalExecutor | None = None) -> Path:
    """A trained workspace of two dozen digits."""
    with Eraser.create(root, config) as eraser:
        if network is not None:
            eraser.session.executors.use(network)
        eraser.add(digits(HELD), columns=DIGIT_COLUMNS)
        eraser.train()
    return root


def prepared(template: Template, kind: str = "prompts", network: LocalExecutor | None = None) -> Path:
    """A trained workspace of a kind, made once a session; only to be copied."""
    return template(f"served-{kind}", lambda root: made(root, config_of(kind), network))


def fake_workspace(template: Template, folder: Path) -> Path:
    """A copy, in a folder, of a workspace of random pictures that was trained on a fake backbone."""

    def make(root: Path) -> None:
        Eraser.create(root, faults.CONFIG, classes=faults.CLASSES, clock=lambda: faults.NOW).close()
        with faults.opened(root) as eraser:
            faults.trained(eraser)

    return Path(shutil.copytree(template("served-fake", make), folder / "w"))


def copied(trained: Path, folder: Path, **service: Any) -> Path:
    """A copy of a workspace in a folder, with other settings of its service."""
    root = Path(shutil.copytree(trained, folder / "w"))
    set_service(root, **service)
    return root


def set_service(root: Path, **changes: Any) -> None:
    """Change settings of a workspace's service."""
    toml = root / "lmeraser.toml"
    text = toml.read_text()
    for name, value in changes.items():
        line = next(line for line in text.splitlines() if line.startswith(f"{name} = "))
        text = text.replace(line, f"{name} = {json.dumps(value)}")
    toml.write_text(text)


def erasure(*names: str, subjects: Sequence[str] = (), request: str | None = None, **more: Any) -> dict[str, Any]:
    """A deletion request as it is filed."""
    kinds = [("lmeraser_record_id", names), ("controller_customer_id", subjects)]
    identities = [
        {"identity_type": kind, "identity_value": name, "identity_format": "raw"}
        for kind, values in kinds
        for name in values
    ]
    return {
        "regulation": "gdpr",
        "subject_request_id": request or str(uuid.uuid4()),
        "subject_request_type": "erasure",
        "submitted_time": NOW,
        "subject_identities": identities,
        **more,
    }


def problem(answer: httpx2.Response, status: int, kind: str) -> dict[str, Any]:
    """The body of an answer that has to be a problem of this kind."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    values: dict[str, Any] = answer.json()
    assert (values["status"], values["type"]) == (status, f"urn:lmeraser:problem:{kind}")
    assert values["title"]
    assert values["detail"]
    return values


def until(condition: Callable[[], object]) -> None:
    """Wait for something that another thread or process does."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


@dataclass
class Running:
    """A service, and somebody who calls it.

    Attributes:
        service: started.
        http: without a key.
        keys: one for each scope.
    """

    service: Service
    http: TestClient
    keys: dict[str, str] = field(default_factory=dict)

    def call(self, method: str, path: str, scope: str = "admin", **more: Any) -> httpx2.Response:
        """A call with the key of a scope."""
        headers = {"Authorization": f"Bearer {self.keys[scope]}", **more.pop("headers", {})}
        return self.http.request(method, path, headers=headers, **more)

    def get(self, path: str, scope: str = "admin", **more: Any) -> httpx2.Response:
        return self.call("GET", path, scope, **more)

    def file(self, *names: str, **more: Any) -> httpx2.Response:
        """File a deletion request."""
        return self.call("POST", "/requests", "request", json=erasure(*names, **more))

    def predict(self, *images: bytes, scope: str = "predict") -> httpx2.Response:
        """Classify images."""
        files = [("images", ("image.png", image, "image/png")) for image in images]
        return self.call("POST", "/predict", scope, files=files)


@contextlib.contextmanager
def running(root: Path, network: LocalExecutor | None = None, **changes: Any) -> Iterator[Running]:
    """A started service over a workspace; nothing derives unless its window is made short."""
    set_service(root, **changes)
    with Eraser(root) as eraser:
        if network is not None:
            eraser.session.executors.use(network)
        keys, now = eraser.workspace.api_keys, eraser.workspace.clock()
        texts: dict[str, str] = {scope: keys.create(scope, [scope], now=now)[1] for scope in SCOPES}
        service = Service(eraser)
        with service, TestClient(make_app(service), raise_server_exceptions=True) as http:
            yield Running(service, http, texts)


def fixtures(kind: str, **service: Any) -> tuple[Any, Any, Any, Any]:
    """The fixtures ``network``, ``trained``, ``root`` and ``api`` of a module that calls a running service.

    Args:
        kind: of the workspace, trained once a session; every test has a copy of it, at ``root``.
        service: settings of the service.
    """

    @pytest.fixture(scope="module")
    def network() -> LocalExecutor:
        return LocalExecutor(config_of(kind))

    @pytest.fixture(scope="module")
    def trained(template: Template, network: LocalExecutor) -> Path:
        return prepared(template, kind, network)

    @pytest.fixture
    def root(trained: Path, tmp_path: Path) -> Path:
        return copied(trained, tmp_path, **service)

    @pytest.fixture
    def api(root: Path, network: LocalExecutor, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
        monkeypatch.setattr(local, "load_backbone", lambda config: network.network)
        with running(root, network) as one:
            yield one

    return network, trained, root, api


class Process:
    """A service in a process of its own, with what it wrote."""

    def __init__(self, root: Path, log: Path, *options: str) -> None:
        self._log = log.open("a")
        command = [sys.executable, "-m", "lmeraser", "-w", str(root), "serve", "--port", "0", *options]
        self.popen = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self._log, text=True)
        assert self.popen.stdout is not None
        line = self.popen.stdout.readline()
        match = re.search(r"https?://\S+", line)
        assert match, f"{line}{log.read_text()}"
        self.url = match[0]

    def end(self, how: signal.Signals) -> int:
        """Send a signal, wait for the end; the exit code."""
        self.popen.send_signal(how)
        code = self.popen.wait(PATIENCE)
        assert self.popen.stdout is not None
        self.popen.stdout.close()
        self._log.close()
        return code
