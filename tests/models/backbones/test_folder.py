"""A backbone folder is complete and has a provenance, or is not there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from lmeraser import __version__
from lmeraser.config.inputs import BackboneConfig
from lmeraser.core.digests import Digest
from lmeraser.data.provenance import PROVENANCE, read_provenance
from lmeraser.errors import BackboneError, InputError
from lmeraser.models.backbones.folder import (
    check_output_folder,
    package_versions,
    pixel_statistics,
    write_backbone,
)
from lmeraser.models.backbones.huggingface import HuggingFaceBackbone


def parts(tmp_path: Path) -> dict[str, Any]:
    """The files of a tiny ViT."""
    import transformers as hf

    torch.manual_seed(0)
    layout: Any = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48}
    config = hf.ViTConfig(image_size=32, patch_size=8, num_labels=7, **layout)
    hf.ViTForImageClassification(config).save_pretrained(tmp_path / "saved")
    return {
        "config": (tmp_path / "saved" / "config.json").read_bytes(),
        "weights": (tmp_path / "saved" / "model.safetensors").read_bytes(),
        "pixels": pixel_statistics((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), 32),
        "size": 32,
    }


def test_what_was_written_is_loaded_and_told(tmp_path: Path) -> None:
    given = parts(tmp_path)
    origin = write_backbone(tmp_path / "out", **given, provenance={"made_by": "a test"})
    loaded = HuggingFaceBackbone(BackboneConfig(name=str(tmp_path / "out"), image_size=32), torch.device("cpu"))
    assert origin == read_provenance(tmp_path / "out")
    assert (origin["made_by"], origin["feature_dim"], origin["class_vectors"]) == ("a test", 24, 7)
    assert (origin["weights"], origin["backbone"]) == (Digest.of(given["weights"]), loaded.digest)
    assert package_versions("torch").items() >= {"lmeraser": __version__, "torch": torch.__version__}.items()
    white = loaded.normalize(torch.full((1, 3, 1, 1), 255, dtype=torch.uint8)).flatten()
    torch.testing.assert_close(white, torch.tensor([0.9 / 0.4, 0.8 / 0.5, 0.7 / 0.6]))


@pytest.mark.parametrize("damage", ["config", "weights", "pixels"])
def test_what_cannot_be_read_back_is_not_left_there(tmp_path: Path, damage: str) -> None:
    given = parts(tmp_path)
    with pytest.raises((BackboneError, json.JSONDecodeError)):
        write_backbone(tmp_path / "out", **{**given, damage: given[damage][:20]}, provenance={})
    assert list((tmp_path / "out").iterdir()) == []


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    check_output_folder(tmp_path / "missing")
    check_output_folder(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"of an interrupted run")
    check_output_folder(tmp_path)
    (tmp_path / "begun").mkdir()
    check_output_folder(tmp_path, allowed="begun")
    with pytest.raises(InputError, match="other files"):
        check_output_folder(tmp_path)
    (tmp_path / PROVENANCE).write_text("{}")
    with pytest.raises(InputError, match="finished backbone"):
        check_output_folder(tmp_path, allowed="begun")
    with pytest.raises(InputError, match="other files"):
        check_output_folder(tmp_path / PROVENANCE)
