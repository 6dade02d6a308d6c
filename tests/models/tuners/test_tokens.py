"""Learned tokens: against hooks on transformers' own forward pass, in a plain training loop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import DeiTConfig, DeiTModel, Dinov2Config, Dinov2Model, ViTConfig, ViTModel

from conftest import tiny_config
from lmeraser.config.schema import Config
from lmeraser.errors import BackboneError
from lmeraser.models.environment import deterministic
from lmeraser.models.modalities import Backbone, load_backbone
from lmeraser.models.modalities.image import to_input
from lmeraser.models.tuners import create_tuner
from lmeraser.models.tuners.base import QueryBatch
from lmeraser.models.tuners.tokens import TokenPrompt
from small import CLASSES, SIZE, Small, config, members, plain_loop, tuned

WIDTH, LAYERS, COUNT = 24, 3, 2


def save(folder: Path, family: str) -> Path:
    """A tiny transformer with random weights."""
    torch.manual_seed(0)
    shape = {"image_size": SIZE, "patch_size": 8, "hidden_size": WIDTH, "num_hidden_layers": LAYERS}
    if family == "dinov2":
        model: Any = Dinov2Model(Dinov2Config(**shape, num_attention_heads=2))
    else:
        config_class, model_class = {"vit": (ViTConfig, ViTModel), "deit": (DeiTConfig, DeiTModel)}[family]
        model_config = config_class(**shape, num_attention_heads=2, intermediate_size=48)
        model = model_class(model_config, add_pooling_layer=False)
    model.save_pretrained(folder)
    return folder


def settings(where: Path, **changes: Any) -> Config:
    tokens = {"count": COUNT, "learning_rate": 0.02, "weight_decay": 0.1, **changes.pop("tokens", {})}
    backbone = {"name": str(where), "image_size": SIZE, "resize": SIZE + 2, "micro_batch": 4}
    return config(constituent={"kind": "tokens"}, tokens=tokens, backbone=backbone, **changes)


@pytest.fixture(params=["vit", "deit", "dinov2"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return save(tmp_path / request.param, request.param)


def hooked(where: Path, tokens: Tensor, images: Tensor) -> Tensor:
    """Class tokens of transformers' own model; hooks put the tokens in front of its layers."""
    from transformers import AutoModel

    model = AutoModel.from_pretrained(where).eval().requires_grad_(False)
    layers = model.layers if hasattr(model, "layers") else model.encoder.layer

    def insert(number: int) -> Any:
        def hook(module: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Any, ...]:
            hidden, *others = arguments
            old = COUNT if number else 0
            learned = tokens[number].expand(len(hidden), -1, -1)
            return torch.cat([hidden[:, :1], learned, hidden[:, 1 + old :]], dim=1), *others

        return hook

    for number in range(len(tokens)):
        layers[number].register_forward_pre_hook(insert(number))
    class_tokens: Tensor = model(pixel_values=images).last_hidden_state[:, 0]
    return class_tokens


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("count", [1, 9])
@pytest.mark.filterwarnings("ignore:.*lr_scheduler.*")
def test_it_is_what_a_plain_training_loop_gives(where: Path, deep: bool, count: int) -> None:
    chosen = settings(where, tokens={"deep": deep}, tuning={"optimizer": "sgd", "epochs": 2})
    backbone, known = load_backbone(chosen), members(count)
    ours = tuned(known, chosen, backbone)
    initial = TokenPrompt(backbone, chosen).initial()
    assert initial.shape == (LAYERS if deep else 1, COUNT, WIDTH)
    bound = (6 / (3 * 8 * 8 + WIDTH)) ** 0.5
    assert 0.8 * bound < initial.abs().max() <= bound
    tokens, head, tuning = nn.Parameter(initial.clone()), nn.Linear(WIDTH, CLASSES), chosen.tuning
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    groups: list[dict[str, Any]] = [
        {"params": [tokens], "lr": 0.02, "weight_decay": 0.1},
        {"params": [head.weight], "lr": tuning.head_learning_rate, "weight_decay": tuning.head_weight_decay},
        {"params": [head.bias], "lr": tuning.head_learning_rate, "weight_decay": 0.0},
    ]
    plain_loop(known, chosen, groups, lambda images, ids: head(hooked(where, tokens, images)))
    assert (tokens.data - initial).abs().max() > 1e-3
    np.testing.assert_allclose(ours["tokens"], tokens.data.numpy(), rtol=2e-3, atol=2e-4)
    np.testing.assert_allclose(ours["head.weight"], head.weight.data.numpy(), rtol=2e-3, atol=2e-4)
    np.testing.assert_allclose(ours["head.bias"], head.bias.data.numpy(), rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize("deep", [False, True])
def test_tokens_of_several_clusters_share_a_pass_and_images_do_not_see_each_other(where: Path, deep: bool) -> None:
    chosen = settings(where, tokens={"deep": deep}, tuning={"epochs": 1})
    backbone = load_backbone(chosen)
    constituents = [tuned(members(count), chosen, backbone) for count in (5, 9)]
    pixels, chosen_heads = members(4).inputs[range(4)][:, 1:-1, 1:-1], np.array([1, 0, 0, 1])
    with deterministic(), torch.inference_mode():
        predictor = create_tuner(chosen, backbone).predictor(constituents)
        together = predictor.classify(QueryBatch(to_input(pixels, backbone)), chosen_heads)
        for row in range(4):
            alone = to_input(pixels[row : row + 1], backbone)
            result = predictor.classify(QueryBatch(alone), chosen_heads[row : row + 1])
            np.testing.assert_array_equal(result[0], together[row])
            tensors = constituents[chosen_heads[row]]
            features = hooked(where, torch.from_numpy(tensors["tokens"]), alone)[0].numpy()
            logits = tensors["head.weight"] @ features + tensors["head.bias"]
            expected = np.exp(logits - logits.max())
            np.testing.assert_allclose(together[row], expected / expected.sum(), rtol=1e-3, atol=1e-5)


def embedded(_: Path) -> Backbone:
    return Small()


def pooled(where: Path) -> Backbone:
    return load_backbone(tiny_config(backbone={"name": str(where), "image_size": SIZE, "pooling": "mean"}))


@pytest.mark.parametrize("make", [embedded, pooled])
def test_a_backbone_without_class_token_is_refused(tmp_path: Path, make: Any) -> None:
    where = save(tmp_path / "vit", "vit")
    with pytest.raises(BackboneError, match="ViT, DeiT or DINOv2"):
        tuned(members(3), settings(where), make(where))
