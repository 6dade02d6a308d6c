"""Workspaces that released versions made open, keep their digests and forget records as those versions did."""

from __future__ import annotations

import json
import shutil
import tarfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from conftest import Run
from lmeraser import Eraser

ARCHIVES = sorted((Path(__file__).parent / "golden").glob("workspaces-*.tar.xz"))
NAMES = ("instant", "prompts", "class_tree", "requests")
FORGOTTEN = "digit-0003"
NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.fixture(scope="module", params=ARCHIVES, ids=lambda path: path.name)
def released(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workspaces of one released version; only read by the tests."""
    folder = tmp_path_factory.mktemp("released")
    with tarfile.open(request.param) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture(params=NAMES)
def golden(
    request: pytest.FixtureRequest, released: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A workspace that may be changed; its backbone's name is relative to the current folder."""
    shutil.copytree(released / "backbone", tmp_path / "backbone")
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(released / request.param, tmp_path / request.param))


@pytest.fixture
def facts(golden: Path, released: Path) -> Any:
    """What the version that made the workspace said of it."""
    return json.loads((released / "facts.json").read_bytes())[golden.name]


def told(workspace: Path) -> dict[str, Any]:
    with Eraser(workspace, clock=lambda: NOW) as eraser:
        status, ledger = eraser.status(), eraser.check_ledger()
        return {
            "model_digest": eraser.model_digest,
            "head": ledger.head.to_json(),
            "sound": ledger.sound,
            "records": status.records,
            "generation": status.generation,
            "requests": {request.id: request.state for request in eraser.requests()},
        }


def test_a_released_workspace_opens_as_it_was(golden: Path, facts: Any, run: Run) -> None:
    assert run("-w", golden, "upgrade").code == 0
    assert told(golden) == facts["before"]


def test_after_an_unlearning_it_has_the_digest_that_the_released_version_gave(
    golden: Path, facts: Any, run: Run
) -> None:
    assert run("-w", golden, "upgrade").code == 0
    with Eraser(golden, clock=lambda: NOW) as eraser:
        report = eraser.unlearn() if golden.name == "requests" else eraser.unlearn(ids=[FORGOTTEN])
        same_environment = eraser.executor().fingerprint == facts["fingerprint"]
        if same_environment:  # elsewhere, new artifacts have other bits
            assert eraser.audit().identical
    after, expected = told(golden), facts["after"]
    assert after["sound"]
    states = ["requests"] if golden.name == "requests" else []  # others are given a random id
    for name in ["records", "generation", *states, *(["model_digest"] if same_environment else [])]:
        assert after[name] == expected[name]
    assert report.certificates
    for certificate in report.certificates:
        assert run("verify", certificate, "--key", golden / "signing.pub", "--ledger", golden / "ledger").code == 0


def test_certificates_of_the_released_version_verify(golden: Path, run: Run) -> None:
    certificates = sorted((golden / "certificates").glob("*.json"))
    assert bool(certificates) == (golden.name == "requests")
    for certificate in certificates:
        assert run("verify", certificate, "--key", golden / "signing.pub", "--ledger", golden / "ledger").code == 0
