"""A backbone's folder is the same one from every working directory, and its files are those of the model."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from conftest import DIGIT_COLUMNS, Run, Template, digits, tiny_config
from lmeraser import Eraser
from lmeraser.config.schema import parse, read
from lmeraser.errors import BackboneError
from lmeraser.models.backbone_names import ALIASES, BUNDLED, locate_backbone, locate_in_workspace
from small import save_transformer


def named(name: str, *folders: Path) -> str:
    return locate_backbone(parse({"backbone": {"name": name}}), *folders).backbone.name


def folder(path: Path) -> Path:
    path.mkdir(parents=True)
    (path / "config.json").write_text("{}")
    return path


def test_a_relative_path_begins_at_the_first_folder_that_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    here = folder(tmp_path / "here" / "bb").parent
    monkeypatch.chdir(here)
    assert named("bb", first, second) == str(here / "bb")
    folder(second / "bb")
    assert named("bb", first, second) == str(second / "bb")
    folder(first / "bb")
    assert named("./bb", first, second) == named("../first/bb", second) == str(first / "bb")


def test_names_that_are_no_folders_stay_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (BUNDLED, *ALIASES, "hub:owner/name"):
        folder(tmp_path / name)
        assert named(name) == name
    assert named("missing") == "missing"
    assert named(str(tmp_path / "missing")) == str(tmp_path / "missing")
    (tmp_path / "without-config").mkdir()
    assert named("without-config") == "without-config"


def test_a_folder_that_moved_with_its_workspace_is_found(tmp_path: Path) -> None:
    """A project on another disk or machine; deletions have to go on."""

    def found(name: str) -> str:
        return locate_in_workspace(parse({"backbone": {"name": name}}), tmp_path / "new" / "ws").backbone.name

    beside, deeper = folder(tmp_path / "new" / "bb"), folder(tmp_path / "new" / "models" / "vit")
    inside = folder(tmp_path / "new" / "ws" / "models" / "own")
    assert found("/old/project/bb") == str(beside)
    assert found("/old/project/models/vit") == str(deeper)
    assert found("/old/project/ws/models/own") == str(inside)
    assert found("bb") == str(beside)
    kept = folder(tmp_path / "elsewhere" / "bb")
    assert found(str(kept)) == str(kept), "a path that is there means itself"
    for name in ("/old/project/other", "/", BUNDLED, "hub:owner/bb", "/old/vit"):
        assert found(name) == name
    assert named("/old/project/bb", tmp_path / "new") == "/old/project/bb", "a new workspace has no moved backbone"


def test_settings_mean_the_folder_beside_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    folder(tmp_path / "project" / "bb")
    settings = tmp_path / "project" / "settings.toml"
    settings.write_text('[backbone]\nname = "bb"\n')
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert run("-w", tmp_path / "w", "init", "--config", settings).code == 0
    stored = read(tmp_path / "w" / "lmeraser.toml").backbone.name
    assert stored == str(tmp_path / "project" / "bb")


def _train(root: Path) -> None:
    """A workspace whose settings name the backbone's folder beside it, as those of version 0.1 do."""
    root.mkdir()
    save_transformer(root / "bb", "vit")
    config = tiny_config(
        backbone={"name": str(root / "bb")},
        partition={"method": "single", "clusters": None},
        constituent={"kind": "none"},
        global_head={"weight": 1.0},
    )
    with Eraser.create(root / "w", config) as eraser:
        eraser.add(digits(range(12)), columns=DIGIT_COLUMNS)
        settings = root / "w" / "lmeraser.toml"
        settings.write_text(settings.read_text().replace(str(root / "bb"), "bb"))
    with Eraser(root / "w") as eraser:
        eraser.train()


@pytest.fixture
def root(template: Template, tmp_path: Path) -> Path:
    return Path(shutil.copytree(template("beside a backbone", _train), tmp_path / "root"))


def test_a_workspace_finds_its_backbone_from_elsewhere(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with Eraser(root / "w") as eraser:
        assert eraser.unlearn(ids=["digit-0003"]).certificates
        assert eraser.audit().identical


def test_an_exchanged_backbone_deletes_nothing_until_it_is_trained_on(root: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = root / "bb" / "model.safetensors"
    save_file(
        {name: 2 * tensor for name, tensor in load_file(weights).items()}, weights, metadata={"format": "pt"}
    )
    with Eraser(root / "w") as eraser:
        with pytest.raises(BackboneError, match="nothing was deleted"):
            eraser.unlearn(ids=["digit-0003"])
        assert len(eraser.record_ids()) == 12
        before = eraser.model_digest
        assert eraser.train().changed
        assert eraser.model_digest != before
        assert eraser.unlearn(ids=["digit-0003"]).certificates
