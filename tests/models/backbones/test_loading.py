"""A folder that cannot be loaded is described by what is wrong with it, and nothing in it is run."""

from __future__ import annotations

import json
import re
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
from lmeraser.models.backbones.loading import (
    check_complete,
    check_takes_images,
    load_model,
    name_outputs,
    refuse_left_over,
)
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


def _of_type(**config: Any) -> Callable[[Path], None]:
    def fill(folder: Path) -> None:
        (folder / "config.json").write_text(json.dumps(config))

    return fill


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
        (_of_type(model_type="nope"), "transformers has no network of its kind", "docs/backbones.md lists"),
        (_of_type(hidden_size=8), "it has no model_type", "docs/backbones.md lists"),
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


def test_weights_that_belong_into_the_encoder_and_find_no_place_are_refused() -> None:
    """A shorter network, or one without biases, is not the one that was published."""
    model = _network(6)
    refuse_left_over(model, _NO_FAULTS, "x")
    for tensor in ("net.blocks.6.weight", "blocks.17.attention.query.weight", "blocks.0.bias"):
        with pytest.raises(BackboneError, match=re.escape(tensor)) as caught:
            refuse_left_over(model, [*_NO_FAULTS, tensor], "x")
        assert "config.json that was published" in caught.value.next_step


_NO_FAULTS = (
    *("classifier.weight", "classifier.1.bias", "net.pooler.dense.weight", "cls.predictions.bias"),
    *("net.embeddings.position_ids", "net.blocks.0.attn.bias", "blocks.0.rotary.inv_freq", "net.mask_token"),
    *("text_model.blocks.7.weight", "decoder.blocks.0.weight"),
)


def _network(blocks: int) -> nn.Module:
    model = nn.Module()
    model.blocks = nn.ModuleList([nn.Linear(2, 2, bias=False) for _ in range(blocks)])
    model.embeddings = nn.Embedding(3, 2)
    model.base_model_prefix = "net"  # type: ignore[assignment] # as transformers' models have it
    return model


def test_a_configuration_with_fewer_layers_than_its_weights_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "vit"
    from transformers import ViTConfig, ViTForImageClassification

    sizes = {"hidden_size": 8, "num_attention_heads": 1, "intermediate_size": 8, "image_size": 16, "patch_size": 8}
    ViTForImageClassification(ViTConfig(num_hidden_layers=2, **sizes)).save_pretrained(folder)
    load_model(Location.of(str(folder)), "vit")  # its classifier is left out
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "num_hidden_layers": 1}))
    with pytest.raises(BackboneError, match="another network than its configuration"):
        load_model(Location.of(str(folder)), "vit")
