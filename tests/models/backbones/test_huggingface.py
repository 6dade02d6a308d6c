"""Image models of transformers are what their publishers meant, to the bit in every load, or say why not."""

from __future__ import annotations

from functools import wraps
from pathlib import Path

import pytest
import torch
from torch import nn

from lmeraser.config.inputs import BackboneConfig
from lmeraser.errors import BackboneError
from lmeraser.models.backbones.frozen import FrozenLinear, FrozenPatches
from lmeraser.models.backbones.huggingface import HuggingFaceBackbone
from tiny_models import Family, build, circumstances, documented, examine, families, table

LOADED = {  # one for each way in which families are special
    "mobilenet_v2": ("MobileNetV2Model", "pooler"),  # reads its layers' attributes
    "levit": ("LevitModel", "pooler"),  # its `train` returns nothing
    "clip": ("CLIPModel", "pooler"),  # takes text as well
    "pvt": ("PvtModel", "cls"),  # has no pooler
    "efficientnet": ("EfficientNetModel", "pooler"),  # its processor does more than its values say
}


@pytest.mark.parametrize("model_type", LOADED)
def test_it_is_the_publishers_to_rounding_and_the_same_to_the_bit(tmp_path: Path, model_type: str) -> None:
    architecture, pooling = LOADED[model_type]
    finding = examine(Family(model_type, architecture), tmp_path)
    assert (finding.result, finding.detail) == ("loads", pooling)


@pytest.mark.parametrize(
    ("model_type", "architecture", "reason"),
    [
        ("vit_mae", "ViTMAEModel", "layer 'embeddings' (ViTMAEEmbeddings) draws random numbers"),
        ("imagegpt", "ImageGPTModel", "takes input_ids instead of pixels"),
        ("siglip2", "Siglip2Model", "besides pixels it needs pixel_attention_mask, spatial_shapes"),
        ("videomae", "VideoMAEModel", "takes videos"),
    ],
)
def test_what_cannot_be_a_backbone_says_why(
    tmp_path: Path, model_type: str, architecture: str, reason: str
) -> None:
    finding = examine(Family(model_type, architecture), tmp_path)
    assert finding.result == "refused"
    assert reason in finding.detail
    assert "\n" not in finding.detail


@pytest.mark.long
@pytest.mark.timeout(900)
def test_every_image_model_that_can_be_built_small_is_listed_as_it_was_found(tmp_path: Path) -> None:
    findings = [examine(family, tmp_path / f"{number}") for number, family in enumerate(families())]
    assert sum(finding.result == "loads" for finding in findings) > 20
    made_with, listed = documented()
    if made_with == circumstances():
        assert table(findings) == listed, "write it again: python tests/tiny_models.py"


def test_a_network_that_asks_its_layers_for_more_keeps_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a network reads of a layer besides its attributes; here, the layer's class."""
    from transformers import ResNetModel

    build(Family("resnet", "ResNetModel")).save_pretrained(tmp_path)
    original = ResNetModel.forward

    @wraps(original)
    def forward(self: nn.Module, *arguments: object, **options: object) -> object:
        if any(isinstance(module, (FrozenLinear, FrozenPatches)) for module in self.modules()):
            raise AttributeError("'FrozenPatches' object has no attribute 'dilation_of_something'")
        return original(self, *arguments, **options)

    expected = load(tmp_path).features(torch.ones(2, 3, 64, 64))
    monkeypatch.setattr(ResNetModel, "forward", forward)
    torch.testing.assert_close(load(tmp_path).features(torch.ones(2, 3, 64, 64)), expected, rtol=1e-4, atol=1e-5)


def test_tokens_without_a_pooling_ask_for_one(tmp_path: Path) -> None:
    from transformers import SiglipVisionConfig, SiglipVisionModel

    layout = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48}
    config = SiglipVisionConfig(image_size=64, patch_size=16, vision_use_head=False, **layout)
    SiglipVisionModel(config).save_pretrained(tmp_path)
    with pytest.raises(BackboneError, match="'cls'"):
        load(tmp_path)
    assert load(tmp_path, pooling="mean").feature_dim == 24


def load(folder: Path, pooling: str = "auto") -> HuggingFaceBackbone:
    config = BackboneConfig.model_validate(
        {"name": str(folder), "image_size": 64, "micro_batch": 2, "pooling": pooling}
    )
    return HuggingFaceBackbone(config, torch.device("cpu"))
