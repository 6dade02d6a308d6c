"""Conversion of the checkpoints that the paper's code uses into backbone folders.

The checkpoints are files of torch (or of safetensors) whose tensors have the names of timm and of Microsoft's
Swin: ``blocks.0.attn.qkv.weight``, ``layers.0.blocks.0.attn.relative_position_bias_table``. `convert` gives them
the names that every version of transformers reads, and splits queries, keys and values. Nothing in a file is
executed.

Features are those of the paper's code (``forward_features``): for ViT-B-1K the class token after the last norm,
for ViT-B-22K the tanh of a linear layer on it (``pre_logits``, transformers' pooler), for Swin-B the mean of the
tokens. Pixels are normalised as in the training of the networks; for ViT-B-1K the paper's code uses ImageNet's
statistics instead of 0.5.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load, save
from torch import Tensor

from lmeraser.core.atomic_files import read_file
from lmeraser.core.digests import Digest
from lmeraser.core.time import to_text, utc_now
from lmeraser.errors import BackboneError, InputError, listing
from lmeraser.models.backbones.folder import (
    check_output_folder,
    package_versions,
    pixel_statistics,
    write_backbone,
)
from lmeraser.models.backbones.huggingface import POOLING

Family = Literal["vit", "swin"]

_HALF = (0.5, 0.5, 0.5)
_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_VIT_B = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "patch_size": 16,
    "layer_norm_eps": 1e-6,
}
_SWIN_B = {"embed_dim": 128, "depths": [2, 2, 18, 2], "num_heads": [4, 8, 16, 32], "window_size": 7}


@dataclass(frozen=True)
class PublishedCheckpoint:
    """A published checkpoint.

    Attributes:
        family: of the network.
        md5: of the file, as stated in the README of the paper's code.
        config: transformers' settings of the network.
        mean: of the pixels, by channel.
        std: standard deviation of the pixels, by channel.
        size: side of the input, px.
    """

    family: Family
    md5: str
    config: Mapping[str, Any] = field(repr=False)
    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: int = 224


PUBLISHED_CHECKPOINTS = {
    "vit-b-22k": PublishedCheckpoint("vit", "b3563fde27a47c2017e78044a0a72748", _VIT_B, _HALF, _HALF),
    "vit-b-1k": PublishedCheckpoint("vit", "4423d3eecb5a0e00c353217a992d300f", _VIT_B, _HALF, _HALF),
    "swin-b-22k": PublishedCheckpoint("swin", "bf9cc182ae5e417f97390e2b21a0eb09", _SWIN_B, *_IMAGENET),
    "swin-b-1k": PublishedCheckpoint("swin", "733836a1b1b88a8ec21da708c35bd29e", _SWIN_B, *_IMAGENET),
}

_BLOCK = {
    r"norm1": "layernorm_before",
    r"attn\.qkv": "attention.{}.QKV",
    r"attn\.proj": "attention.output.dense",
    r"norm2": "layernorm_after",
    r"mlp\.fc1": "intermediate.dense",
    r"mlp\.fc2": "output.dense",
}
_NAMES: dict[Family, dict[str, str]] = {
    "vit": {
        r"cls_token": r"vit.embeddings.cls_token",
        r"pos_embed": r"vit.embeddings.position_embeddings",
        r"patch_embed\.proj\.(\w+)": r"vit.embeddings.patch_embeddings.projection.\1",
        **{
            rf"blocks\.(\d+)\.{old}\.(\w+)": rf"vit.encoder.layer.\1.{new.format('attention')}.\2"
            for old, new in _BLOCK.items()
        },
        r"norm\.(\w+)": r"vit.layernorm.\1",
        r"pre_logits\.fc\.(\w+)": r"vit.pooler.dense.\1",
        r"head\.(\w+)": r"classifier.\1",
    },
    "swin": {
        r"patch_embed\.proj\.(\w+)": r"swin.embeddings.patch_embeddings.projection.\1",
        r"patch_embed\.norm\.(\w+)": r"swin.embeddings.norm.\1",
        **{
            rf"layers\.(\d+\.blocks\.\d+)\.{old}\.(\w+)": rf"swin.encoder.layers.\1.{new.format('self')}.\2"
            for old, new in _BLOCK.items()
        },
        r"layers\.(\d+\.blocks\.\d+)\.attn\.(relative_position_bias_table)": (
            r"swin.encoder.layers.\1.attention.self.\2"
        ),
        r"layers\.(\d+\.downsample\.\w+\.\w+)": r"swin.encoder.layers.\1",
        r"norm\.(\w+)": r"swin.layernorm.\1",
        r"head\.(?:fc\.)?(\w+)": r"classifier.\1",
    },
}
_COMPUTED = re.compile(r".*\.(?:relative_position_index|attn_mask)")  # buffers that are computed from the sizes


def convert(
    file: Path,
    out: Path,
    arch: str,
    *,
    unverified: bool = False,
    clock: Callable[[], datetime] = utc_now,
) -> dict[str, Any]:
    """Convert a published checkpoint into a backbone folder.

    Args:
        file: the checkpoint, of torch or of safetensors.
        out: the folder; empty or missing.
        arch: key in `PUBLISHED_CHECKPOINTS`.
        unverified: accept a file whose MD5 is not the published one, if its tensors fit.
        clock: gives the current time.

    Returns:
        The content of ``provenance.json``.

    Raises:
        InputError: the file or the architecture does not exist, or the MD5 of the file is not the published one.
        BackboneError: the file does not hold exactly the tensors of this architecture.
    """
    if arch not in PUBLISHED_CHECKPOINTS:
        raise InputError(
            "Architecture not found",
            got=f"{arch!r} (there are: {', '.join(PUBLISHED_CHECKPOINTS)})",
            next_step="choose one of these with --arch",
        )
    check_output_folder(out)
    published = PUBLISHED_CHECKPOINTS[arch]
    data = read_file(file)
    md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
    if md5 != published.md5 and not unverified:
        raise InputError(
            "The file is not the published checkpoint",
            got=f"{file} has MD5 {md5} ({arch} has {published.md5})",
            next_step="get that file, or convert this one with --any; its provenance will say 'unverified'",
        )
    tensors = rename_tensors(read_checkpoint(data, file), published.family)
    is_zero = "classifier.weight" in tensors and not tensors["classifier.weight"].any()
    if is_zero:  # Google published ViT-B-22K without its classifier
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("classifier.")}
    return write_backbone(
        out,
        config=_config(published, tensors),
        weights=save({name: tensor.contiguous() for name, tensor in tensors.items()}, metadata={"format": "pt"}),
        pixels=pixel_statistics(published.mean, published.std, published.size),
        size=published.size,
        provenance={
            "made_by": "lmeraser convert",
            "published_as": arch,
            "file": file.name,
            "file_sha256": Digest.of(data),
            "file_md5": md5,
            "checked": "unverified" if md5 != published.md5 else "MD5, as the README of the paper's code gives it",
            "classifier": "left out: all of its weights are 0" if is_zero else "as in the file",
            "versions": package_versions("torch", "transformers"),
            "finished": to_text(clock()),
        },
    )


def read_checkpoint(data: bytes, file: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint, by name; nothing in it is executed.

    Args:
        data: the content of the file.
        file: its path; the suffix tells the format.

    Raises:
        BackboneError: the file is damaged, or holds anything but tensors.
    """
    try:
        safe = file.suffix == ".safetensors"
        content: Any = load(data) if safe else torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # a pickle with more than tensors, a damaged archive, an invalid header...
        raise BackboneError(
            "The checkpoint is damaged, or holds more than tensors",
            got=f"{file}: {str(error).splitlines()[0] if str(error) else type(error).__name__}",
            next_step="check that the file is complete, or save it again with torch.save(model.state_dict(), ...)",
        ) from error
    for wrapping in ("module", "model", "state_dict"):
        content = content[wrapping] if isinstance(content, dict) and wrapping in content else content
    if not isinstance(content, dict) or not all(isinstance(tensor, Tensor) for tensor in content.values()):
        raise BackboneError(
            "The checkpoint is not a dictionary of tensors",
            got=f"{file}: {type(content).__name__}",
            next_step="save it again with torch.save(model.state_dict(), ...)",
        )
    return content


def rename_tensors(tensors: Mapping[str, Tensor], family: Family) -> dict[str, Tensor]:
    """Tensors under the names of transformers; queries, keys and values are separated.

    Raises:
        BackboneError: there are names that the architecture does not have.
    """
    result: dict[str, Tensor] = {}
    unknown: list[str] = []
    for name, tensor in tensors.items():
        if _COMPUTED.fullmatch(name):
            continue
        new = _new_name(_with_merging_at_end(name, tensors), family)
        if new is None:
            unknown.append(name)
        elif ".QKV." in new:
            for part, third in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                result[new.replace("QKV", part)] = third
        else:
            result[new] = tensor
    if unknown:
        raise BackboneError(
            "The checkpoint has tensors that the architecture does not have",
            got=listing(unknown),
            next_step=f"check --arch; these are not tensors of a {family}",
        )
    return result


def _new_name(name: str, family: Family) -> str | None:
    """A tensor's name in transformers; None where the family has no such tensor."""
    for pattern, new in _NAMES[family].items():
        if match := re.fullmatch(pattern, name):
            return match.expand(new)
    return None


def _with_merging_at_end(name: str, tensors: Mapping[str, Tensor]) -> str:
    """A name in the layout where patches are merged at the end of a stage.

    Later versions of timm merge them at the beginning of the next stage.
    """
    match = re.fullmatch(r"layers\.(\d+)(\.downsample\..+)", name)
    if match is None or "layers.0.downsample.norm.weight" in tensors:
        return name
    return f"layers.{int(match[1]) - 1}{match[2]}"


def _config(published: PublishedCheckpoint, tensors: Mapping[str, Tensor]) -> bytes:
    """Content of the network's ``config.json``."""
    from transformers import SwinConfig, ViTConfig

    settings: dict[str, Any] = {**published.config, "image_size": published.size}
    if "classifier.weight" in tensors:
        settings["num_labels"] = len(tensors["classifier.weight"])
    if "vit.pooler.dense.weight" in tensors:  # the input of the classifier, and the features of the paper's code
        settings[POOLING] = "pooler"
    config = (ViTConfig if published.family == "vit" else SwinConfig)(**settings)
    config.architectures = [f"{'ViT' if published.family == 'vit' else 'Swin'}ForImageClassification"]
    text: str = config.to_json_string()
    return text.encode()
