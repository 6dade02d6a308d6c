"""Class vectors are the weights of the checkpoint's classifier, and only where they give its logits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lmeraser.config.inputs import BackboneConfig
from lmeraser.models.backbones.huggingface import HuggingFaceBackbone

SMALL: dict[str, Any] = {
    "hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48,
    "image_size": 32, "patch_size": 8, "num_labels": 7,
}  # fmt: skip


def load(folder: Path, pooling: Any = "auto") -> HuggingFaceBackbone:
    config = BackboneConfig(name=str(folder), image_size=32, micro_batch=2, pooling=pooling)
    return HuggingFaceBackbone(config, torch.device("cpu"))


def saved(folder: Path, name: str, **options: Any) -> Any:
    import transformers

    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(initializer_range=0.3, **SMALL)
    model = getattr(transformers, f"{name}ForImageClassification")(config).eval()
    model.save_pretrained(folder, **options)
    return model


def check_logits(model: Any, backbone: HuggingFaceBackbone) -> None:
    assert backbone.class_vectors is not None
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        logits = model(pixel_values=images).logits - model.classifier.bias
        ours = backbone.features(images).numpy() @ backbone.class_vectors.T
    np.testing.assert_allclose(ours, logits.numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["ViT", "DeiT", "ViTMSN"])
def test_they_give_the_classifiers_logits(tmp_path: Path, name: str) -> None:
    check_logits(saved(tmp_path, name), load(tmp_path))


def test_a_classifier_of_another_pooling_has_none(tmp_path: Path) -> None:
    """BEiT's classifier sees the mean of the patches; its features here are the class token, as ever."""
    model = saved(tmp_path, "Beit")
    assert load(tmp_path).class_vectors is None
    check_logits(model, load(tmp_path, pooling="pooler"))


def test_a_checkpoint_in_several_files_is_the_same_backbone(tmp_path: Path) -> None:
    model = saved(tmp_path / "whole", "ViT")
    model.save_pretrained(tmp_path / "sharded", max_shard_size="12KB")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 1
    whole, sharded = load(tmp_path / "whole"), load(tmp_path / "sharded")
    assert whole.digest == sharded.digest
    assert whole.class_vectors is not None
    assert sharded.class_vectors is not None
    np.testing.assert_array_equal(whole.class_vectors, sharded.class_vectors)


def test_the_classifier_is_looked_at_once_for_each_backbone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModelForImageClassification

    monkeypatch.setenv("LMERASER_CACHE", str(tmp_path / "cache"))
    model = saved(tmp_path / "vit", "ViT")
    check_logits(model, load(tmp_path / "vit"))

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("loaded again")

    monkeypatch.setattr(AutoModelForImageClassification, "from_pretrained", refuse)
    check_logits(model, load(tmp_path / "vit"))
