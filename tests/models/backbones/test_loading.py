"""A folder that cannot be loaded is described by what is wrong with it, and nothing in it is run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from lmeraser.errors import BackboneError
from lmeraser.models.backbones.image_processor import pixel_statistics
from lmeraser.models.backbones.loading import load_model
from lmeraser.models.backbones.location import Location

_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 346293852\n"
_CUSTOM = {"model_type": "own", "auto_map": {"AutoConfig": "own.Config", "AutoModel": "own.Model"}}


def _vit(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "vit"}')


def _pointer(folder: Path) -> None:
    _vit(folder)
    (folder / "model.safetensors").write_bytes(_POINTER)


def _pickled(folder: Path) -> None:
    _vit(folder)
    (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'false'\ntR.")


def _own_code(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps(_CUSTOM))


@pytest.mark.parametrize(
    ("fill", "why", "step"),
    [
        (_pointer, "model.safetensors is a pointer of Git LFS", "git lfs pull"),
        (_pickled, "its weights are pickled", "save them as safetensors"),
        (_own_code, "code of its own, which is never run", "choose a model of a family"),
        (_vit, "no file named model.safetensors", "make the folder complete"),
    ],
)
def test_a_folder_says_what_is_wrong_with_it(
    tmp_path: Path, fill: Callable[[Path], None], why: str, step: str
) -> None:
    fill(tmp_path)
    with pytest.raises(BackboneError, match=why) as caught:
        load_model(Location.of(str(tmp_path)), str(tmp_path))
    assert step in caught.value.next_step


@pytest.mark.parametrize("name", ["no/such/folder", "x" * 5000, "a\0b"])
def test_a_name_of_nothing_is_called_that(name: str) -> None:
    with pytest.raises(BackboneError, match="there is no such folder") as caught:
        load_model(Location.of(name), name)
    assert "without network" in caught.value.next_step


def test_pixels_are_never_divided_by_zero(tmp_path: Path) -> None:
    values = {"image_processor_type": "ViTImageProcessor", "image_mean": [0.5] * 3, "image_std": [0.5, 0.0, 0.5]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(values))
    with pytest.raises(BackboneError, match="deviation of zero"):
        pixel_statistics(Location.of(str(tmp_path)), "vit", "tiny")
