"""A folder that cannot be loaded is described by what is wrong with it, and nothing in it is run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from lmeraser.errors import BackboneError
from lmeraser.models.backbones.image_processor import pixel_statistics
from lmeraser.models.backbones.loading import check_complete, check_takes_images, load_model, name_outputs
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


def _of_kind(name: str) -> Callable[[Path], None]:
    def fill(folder: Path) -> None:
        _vit(folder)
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"x")

    return fill


def _adapter(folder: Path) -> None:
    """Beside a model, where transformers applies it if peft is installed, and else says nothing."""
    _of_kind("model.safetensors")(folder)
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')


def _own_code(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps(_CUSTOM))


@pytest.mark.parametrize(
    ("fill", "why", "step"),
    [
        (_pointer, "model.safetensors is a pointer of Git LFS", "git lfs pull"),
        (_pickled, "its weights are pickled", "save them as safetensors"),
        (_own_code, "code of its own, which is never run", "choose a model of a family"),
        (_vit, "no file named model.safetensors", "make the folder complete"),
        (_of_kind("vit.pth"), "its weights are pickled", "save them as safetensors"),
        (_of_kind("onnx/model.onnx"), "an ONNX graph", "get the same model as safetensors"),
        (_of_kind("tf_model.h5"), "TensorFlow's", "get the same model as safetensors"),
        (_adapter, "it holds an adapter", "merge it into its model"),
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


@pytest.mark.parametrize("name", ["someone/vit-base", "https://huggingface.co/someone/vit-base"])
def test_a_name_as_the_hub_writes_it_is_told_how_to_be_named(name: str) -> None:
    with pytest.raises(BackboneError, match="there is no such folder") as caught:
        load_model(Location.of(name), name)
    assert "set backbone.name to 'hub:someone/vit-base'" in caught.value.next_step


def test_a_folder_around_the_models_is_told_which(tmp_path: Path) -> None:
    """The cache of the hub keeps a model in snapshots/, a training in checkpoint-N/."""
    inner = tmp_path / "models--someone--vit" / "snapshots" / "0a1b"
    inner.mkdir(parents=True)
    _of_kind("model.safetensors")(inner)
    with pytest.raises(BackboneError, match="a folder in it has") as caught:
        load_model(Location.of(str(tmp_path / "models--someone--vit")), "x")
    assert caught.value.next_step == f"set backbone.name to {inner}"


def test_a_file_is_not_taken_for_its_folder(tmp_path: Path) -> None:
    _of_kind("model.safetensors")(tmp_path)
    for file in ("model.safetensors", "config.json"):
        with pytest.raises(BackboneError, match="it is a file") as caught:
            load_model(Location.of(str(tmp_path / file)), "x")
        assert caught.value.next_step == "set backbone.name to the folder that holds it"


class _Grey(nn.Module):
    """As transformers' networks are; it takes grey images, and returns its outputs as a tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(model_type="grey", num_channels=1, torchscript=True, return_dict=False)
        self.layer = nn.Linear(2, 2)

    def forward(self, pixel_values: Any) -> Any:
        return pixel_values


def test_a_network_for_grey_images_is_called_that() -> None:
    with pytest.raises(BackboneError, match="images with 1 channels instead of red, green and blue"):
        check_takes_images(_Grey(), "x")


def test_outputs_have_names_whatever_the_configuration_says() -> None:
    model = _Grey()
    name_outputs(model)
    assert (model.config.torchscript, model.config.return_dict) == (False, True)


def test_tensors_of_other_names_are_shown(tmp_path: Path) -> None:
    """torch.compile and DataParallel put a prefix before all names."""
    save_file(
        {f"_orig_mod.{name}": torch.zeros(2) for name in ("layer.weight", "a")}, tmp_path / "model.safetensors"
    )
    with pytest.raises(BackboneError) as caught:
        check_complete(_Grey(), {"layer.weight", "of a part that was dropped"}, "x", Location.of(str(tmp_path)))
    assert caught.value.got == (
        "x lacks 1 tensors, for instance layer.weight; those that it has are named like _orig_mod.layer.weight"
    )


def test_pixels_are_never_divided_by_zero(tmp_path: Path) -> None:
    values = {"image_processor_type": "ViTImageProcessor", "image_mean": [0.5] * 3, "image_std": [0.5, 0.0, 0.5]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(values))
    with pytest.raises(BackboneError, match="deviation of zero"):
        pixel_statistics(Location.of(str(tmp_path)), "vit", "tiny")
