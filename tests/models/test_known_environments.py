"""What an earlier process found is found again while everything that it depends on is the same, else not."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lmeraser.config.schema import parse
from lmeraser.core.digests import Digest
from lmeraser.models import known_environments
from lmeraser.models.backbone_names import ALIASES
from lmeraser.models.check_cache import write_outcome
from lmeraser.models.fingerprint import Fingerprint
from lmeraser.models.known_environments import Facts, KnownEnvironment, facts_of, find, forget, remember

FOUND = KnownEnvironment(
    Fingerprint(
        torch="2",
        numpy="2",
        scipy="1",
        pillow="13",
        device="cpu X",
        machine="x86_64",
        micro_batch=8,
        canary=Digest.of(b"canary"),
    ),
    Digest.of(b"backbone"),
)


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LMERASER_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a backbone."""
    root = tmp_path / "backbone"
    (root / "1_Pooling").mkdir(parents=True)
    for name in ("config.json", "model.safetensors", "1_Pooling/config.json"):
        (root / name).write_bytes(b"{}")
    return root


def facts(name: str | Path, **settings: dict[str, Any]) -> Facts:
    found = facts_of(parse({**settings, "backbone": {"name": str(name), **settings.get("backbone", {})}}))
    assert found is not None
    return found


def test_what_was_remembered_is_found_until_it_is_forgotten(folder: Path) -> None:
    assert find(facts(folder)) is None
    remember(facts(folder), FOUND)
    assert find(facts(folder)) == FOUND
    forget(facts(folder))
    assert find(facts(folder)) is None


def _variable(folder: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setenv("OPENBLAS_CORETYPE", "Haswell")


def _weights(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Other weights of the same size and time."""
    file = folder / "model.safetensors"
    before = file.stat()
    file.unlink()
    file.write_bytes(b"[]")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def _subfolder(folder: Path, patch: pytest.MonkeyPatch) -> None:
    (folder / "1_Pooling" / "more.json").write_bytes(b"{}")


def _instruct(name: str, value: object) -> Callable[[Path, pytest.MonkeyPatch], None]:
    return lambda folder, patch: patch.setattr(known_environments, name, lambda *_: value)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(_variable, id="variable"),
        pytest.param(_weights, id="weights"),
        pytest.param(_subfolder, id="subfolder"),
        pytest.param(_instruct("_processor", ("flags: none",)), id="processor"),
        pytest.param(_instruct("_library", "another version"), id="library"),
        pytest.param(_instruct("_code", "another"), id="code"),
        pytest.param(_instruct("_arithmetic", "another"), id="arithmetic"),
    ],
)
def test_nothing_is_known_after_a_change(
    folder: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path, pytest.MonkeyPatch], None]
) -> None:
    remember(facts(folder), FOUND)
    change(folder, monkeypatch)
    assert find(facts(folder)) is None


def test_other_settings_are_not_known(folder: Path) -> None:
    remember(facts(folder), FOUND)
    assert find(facts(folder, backbone={"image_size": 64})) is None
    assert find(facts(folder, compute={"workers": 3})) == FOUND, "they change no bit"


def test_where_it_cannot_be_told_nothing_is_known(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    assert facts_of(parse({"compute": {"device": "cuda"}})) is None
    assert facts_of(parse({"backbone": {"name": str(tmp_path / "nothing")}})) is None
    assert facts_of(parse({"backbone": {"name": "vit-b-1k"}})) is None
    monkeypatch.setattr(known_environments, "_MOST_FILES", 2)
    assert facts_of(parse({"backbone": {"name": str(folder)}})) is None
    monkeypatch.setattr(known_environments, "_processor", tuple)
    assert facts_of(parse({})) is None
    assert find(None) is None
    remember(None, FOUND)
    forget(None)


def test_a_model_of_the_hub_is_its_files_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    model = tmp_path / f"models--{ALIASES['vit-b-1k'].replace('/', '--')}"
    for name in ("refs/main", "snapshots/abc/config.json"):
        (model / name).parent.mkdir(parents=True)
        (model / name).write_text("abc")
    remember(facts("vit-b-1k"), FOUND)
    assert find(facts("hub:" + ALIASES["vit-b-1k"])) is None, "another name in the settings"
    assert find(facts("vit-b-1k")) == FOUND
    (model / "refs" / "main").write_text("abcd")
    assert find(facts("vit-b-1k")) is None


def test_what_is_stored_shows_no_variable_and_no_token_is_read(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = facts(folder)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert facts(folder) == before
    monkeypatch.setenv("OMP_PLACES", "remarkable")
    remember(facts(folder), FOUND)
    (stored,) = (tmp_path / "cache" / "checks").iterdir()
    assert b"remarkable" not in stored.read_bytes()


@pytest.mark.parametrize("content", [b"", b"[]", b'{"outcome": {"fingerprint": {}}}'])
def test_a_damaged_entry_is_none(folder: Path, tmp_path: Path, content: bytes) -> None:
    remember(facts(folder), FOUND)
    (stored,) = (tmp_path / "cache" / "checks").iterdir()
    stored.write_bytes(content)
    assert find(facts(folder)) is None


def test_an_entry_with_other_fields_is_none(folder: Path) -> None:
    write_outcome(facts(folder), {"fingerprint": {"torch": "2"}, "backbone": "sha256:"})
    assert find(facts(folder)) is None
