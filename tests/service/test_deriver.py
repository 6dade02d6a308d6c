"""Deriving says how far it is and how it ended, and never whom it forgot."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import Template
from fake import Fake
from faults import name, opened
from lmeraser.pipeline.executors.provider import ExecutorProvider
from lmeraser.service import deriver as deriving
from lmeraser.service.deriver import Deriver
from serving import fake_workspace


@pytest.fixture
def root(template: Template, tmp_path: Path) -> Path:
    root = fake_workspace(template, tmp_path)
    with opened(root) as eraser:
        eraser.request(ids=[name(4)], subjects=["person-3"])
    return root


@pytest.fixture
def said() -> list[dict[str, Any]]:
    return []


@pytest.fixture
def deriver(root: Path, said: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> Iterator[Deriver]:
    monkeypatch.setattr(ExecutorProvider, "local", lambda _: Fake())
    one = Deriver(root, said.append)
    yield one
    one.close()


def test_it_says_how_far_it_is_and_how_it_ended(deriver: Deriver, said: list[dict[str, Any]]) -> None:
    ended = deriver.derive({})
    assert {"outcome": "done", "requests": 1, "failed": 0, "records": 4}.items() <= ended.items()
    assert ended["tuned_records"] > 0
    assert "purging" in [line["step"] for line in said]
    assert "person" not in json.dumps([ended, said])
    assert deriver.derive({}) == {
        "outcome": "refused",
        "error": "InputError",
        "message": "Nothing to delete",
    }


def test_the_workspace_is_opened_again_only_for_other_settings(deriver: Deriver, root: Path) -> None:
    deriver.derive({})
    first = deriver._eraser
    deriver.derive({})
    assert deriver._eraser is first
    toml = root / "lmeraser.toml"
    toml.write_text(toml.read_text().replace("gdpr_months = 1", "gdpr_months = 2"))
    deriver.derive({})
    assert deriver._eraser is not first
    assert deriver._eraser is not None
    assert deriver._eraser.workspace.config.requests.gdpr_months == 2
    second = deriver._eraser
    deriver.derive({"workers": 1})
    assert deriver._eraser is not second


def test_of_an_error_it_says_the_kind_and_the_place(deriver: Deriver, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ValueError(name(4))

    monkeypatch.setattr(deriving, "unlearn", broken)
    ended = deriver.derive({})
    assert (ended["outcome"], ended["error"]) == ("broken", "ValueError")
    assert ended["where"][-1].startswith("test_deriver.py:")
    assert name(4) not in json.dumps(ended)
