"""Backbones from image models of ``transformers``: ViT, Swin, DINOv2, ConvNeXt, ResNet...

Weights are loaded from a local folder, or from the hub if the name says so, as safetensors only: no code is
unpickled and none is fetched. The features are the class token where there is one (ViT), else the model's own
pooling (Swin: mean of the tokens), unless a folder's ``config.json`` names another pooling (`checkpoints`). Pixel
statistics are read from the model's ``preprocessor_config.json``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from numpy.typing import NDArray
from torch import Tensor, nn

from lmeraser.config.schema import BackboneConfig
from lmeraser.errors import BackboneError
from lmeraser.models.backbones.base import DTYPES, Backbone, channel_constants, weights_digest
from lmeraser.models.backbones.frozen import freeze
from lmeraser.models.backbones.tokens import token_input

ALIASES = {
    "vit-b-22k": "google/vit-base-patch16-224-in21k",
    "vit-b-1k": "google/vit-base-patch16-224",
    "swin-b-22k": "microsoft/swin-base-patch4-window7-224-in22k",
    "swin-b-1k": "microsoft/swin-base-patch4-window7-224",
}
HUB = "hub:"  # begins the name of a model of the Hugging Face hub
_CLASS_TOKEN = frozenset({"vit", "deit", "dinov2", "dinov2_with_registers", "beit", "data2vec-vision", "vit_mae"})
_INTERPOLATING = frozenset({"vit", "deit"})  # the others adapt to the size of the input without an argument
_CLASSIFIER = "classifier.weight"  # name of the class vectors in transformers' image classifiers
POOLING = "lmeraser_pooling"  # key in config.json: the pooling for its classifier, if not the model's usual one
_DEFAULT_MEAN = _DEFAULT_STD = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class _Location:
    """Where a model is loaded from.

    Attributes:
        name: a folder, or a model's name on the hub.
        local_files_only: ask no server. Only a name that says so is looked for on the hub: the path of a folder
            that does not exist may be private, and would be sent there.
    """

    name: str
    local_files_only: bool

    @classmethod
    def of(cls, name: str) -> _Location:
        """The location that ``backbone.name`` means; a name without prefix is a folder, or in the hub's cache."""
        if name in ALIASES:
            return cls(ALIASES[name], local_files_only=False)
        if name.startswith(HUB):
            return cls(name.removeprefix(HUB), local_files_only=False)
        return cls(name, local_files_only=True)

    def file(self, name: str) -> str | None:
        """The path of one of the model's files; None if it has none of this name.

        Raises:
            OSError: the hub cannot be reached.
        """
        from transformers.utils import cached_file

        path: str | None = cached_file(
            self.name,
            name,
            local_files_only=self.local_files_only,
            _raise_exceptions_for_missing_entries=False,
        )
        return path


class HuggingFaceBackbone(Backbone):
    """A frozen ``transformers`` image model."""

    def __init__(self, config: BackboneConfig, device: torch.device) -> None:
        location = _Location.of(config.name)
        model, missing = _load(location, config.name)
        model_type = str(model.config.model_type)
        natural = _natural_pooling(model.config)
        self._pooling = config.pooling if config.pooling != "auto" else natural
        _drop_unused_pooler(model, self._pooling)
        _check_complete(model, missing, config.name)
        self._extra = {"interpolate_pos_encoding": True} if model_type in _INTERPOLATING else {}
        mean, std = _pixel_statistics(location)
        architecture = {"config": _stable(model.config), "pooling": self._pooling, "mean": mean, "std": std}
        classifier = _classifier(location)
        classifier_state = {} if classifier is None else {_CLASSIFIER: torch.from_numpy(classifier)}
        self.digest = weights_digest(architecture, {**model.state_dict(), **classifier_state})
        self.image_size = config.image_size
        self.micro_batch = config.micro_batch
        self.device = device
        self._mean = channel_constants(mean, device)
        self._std = channel_constants(std, device)
        if model_type in _INTERPOLATING and self._pooling in ("cls", "pooler"):
            _keep_class_token(model)
        self._dtype = DTYPES[config.precision]
        self._location = location
        self._name = config.name
        self._model: Any = freeze(model.to(device, self._dtype))
        self.feature_dim = self._probe(config)
        fits = self._pooling == natural and classifier is not None and classifier.shape[1] == self.feature_dim
        self.class_vectors = classifier if fits else None  # features of another pooling lie in another space
        if self._pooling == "cls":
            self.token_input = token_input(self._model, self._extra)

    def features(self, images: Tensor, prompt: Tensor | None = None) -> Tensor:
        """Pooled features, float32 [n, d]."""
        pixels = images if prompt is None else images + prompt
        output = self._model(pixel_values=pixels.to(self._dtype), **self._extra)
        return _pooled(output, self._pooling).float()

    def network(self) -> nn.Module:
        """The model as transformers builds it, loaded again."""
        model, _ = _load(self._location, self._name)
        _drop_unused_pooler(model, self._pooling)
        return _Tunable(model.to(self.device, self._dtype), self._pooling, self._extra).eval()

    def _probe(self, config: BackboneConfig) -> int:
        """Length of a feature vector, measured with one pass."""
        shape = (config.micro_batch, 3, config.image_size, config.image_size)
        try:
            with torch.no_grad():
                return int(self.features(torch.zeros(shape, device=self.device)).shape[1])
        except (RuntimeError, ValueError, AttributeError, TypeError) as error:
            raise BackboneError(
                "The backbone cannot compute features with these settings",
                got=f"{config.name} with backbone.image_size = {config.image_size} and "
                f"backbone.pooling = {config.pooling!r}: {error}",
                next_step="set backbone.image_size to the size that the model was trained on, and "
                "backbone.pooling to a pooling that it has",
            ) from error


class _Tunable(nn.Module):
    """A model of transformers as a module from images to features."""

    def __init__(self, model: Any, pooling: str, extra: dict[str, bool]) -> None:
        super().__init__()
        self.model = model
        self._pooling = pooling
        self._extra = extra

    def forward(self, images: Tensor) -> Tensor:
        output = self.model(pixel_values=images.to(self.model.dtype), **self._extra)
        return _pooled(output, self._pooling).float()


def _pooled(output: Any, pooling: str) -> Tensor:
    """Features, [n, d], from the output of a model of transformers."""
    if pooling == "pooler":
        pooled: Tensor = output.pooler_output
        return pooled.flatten(1)
    tokens: Tensor = output.last_hidden_state
    if tokens.ndim == 4:  # convolutional: [n, d, h, w]
        return tokens.mean(dim=(2, 3))
    return tokens[:, 0] if pooling == "cls" else tokens.mean(dim=1)


def _keep_class_token(model: Any) -> None:
    """Replace the last layer by one that computes the class token only.

    Does nothing where the installed version of transformers builds its layers in another way.
    """
    layers = getattr(model, "layers", None)
    if isinstance(layers, nn.ModuleList) and hasattr(getattr(layers[-1], "attention", None), "q_proj"):
        layers[-1] = _ClassTokenLayer(layers[-1])


class _ClassTokenLayer(nn.Module):
    """The last layer of a ViT, for the class token only: the other tokens are keys and values, not queries."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, tokens: Tensor, *_: Any, **__: Any) -> Tensor:
        """[n, tokens, d] to [n, 1, d]."""
        attention = self.layer.attention
        first = tokens[:, :1]
        normed = self.layer.layernorm_before(tokens)

        def heads(x: Tensor) -> Tensor:
            return x.view(*x.shape[:2], -1, attention.head_dim).transpose(1, 2)

        query = heads(attention.q_proj(normed[:, :1]))
        key = heads(attention.k_proj(normed))
        value = heads(attention.v_proj(normed))
        mixed = F.scaled_dot_product_attention(query, key, value, scale=attention.scaling)
        x = first + attention.o_proj(mixed.transpose(1, 2).flatten(2))
        result: Tensor = x + self.layer.mlp(self.layer.layernorm_after(x))
        return result


def _classifier(location: _Location) -> NDArray[np.float32] | None:
    """Weights of the checkpoint's own classifier, float32 [classes, d], which `AutoModel` does not load.

    None where there are none, or where the checkpoint is split into several files.
    """
    from safetensors import safe_open

    path = location.file("model.safetensors")
    if path is None:
        return None
    with safe_open(path, framework="numpy") as file:
        if _CLASSIFIER not in file.keys():  # noqa: SIM118 - not a dictionary
            return None
        weights: NDArray[np.float32] = file.get_tensor(_CLASSIFIER).astype(np.float32)
    return weights if weights.ndim == 2 else None


def _natural_pooling(config: Any) -> str:
    """The pooling that the checkpoint's classifier was trained on."""
    return str(getattr(config, POOLING, "cls" if config.model_type in _CLASS_TOKEN else "pooler"))


def _drop_unused_pooler(model: Any, pooling: str) -> None:
    """Remove a pooler with weights that the features don't use; checkpoints often lack these weights."""
    pooler = getattr(model, "pooler", None)
    if pooling != "pooler" and isinstance(pooler, nn.Module) and any(True for _ in pooler.parameters()):
        model.pooler = None


def _check_complete(model: Any, missing: set[str], name: str) -> None:
    """Refuse missing weights: transformers would draw them at random, differently in every process."""
    if used := sorted(missing & set(model.state_dict())):
        raise BackboneError(
            "The backbone's checkpoint is incomplete",
            got=f"{name} lacks {len(used)} tensors, for instance {used[0]}",
            next_step="use a complete checkpoint, or a backbone.pooling that does not need them",
        )


def _load(location: _Location, name: str) -> tuple[Any, set[str]]:
    """The model, and the names of the weights that its checkpoint lacks.

    Args:
        location: where it is.
        name: ``backbone.name``, for errors.
    """
    from transformers import AutoModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()  # `_check_complete` reports missing weights
    try:
        # Safetensors only, and never code from the model's folder: loading must not execute anything.
        model, report = AutoModel.from_pretrained(
            location.name,
            local_files_only=location.local_files_only,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=torch.float32,
            output_loading_info=True,
        )
    except Exception as error:  # transformers raises OSError, ValueError, KeyError... with long explanations
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise BackboneError(
            "The backbone cannot be loaded",
            got=f"{name!r} (possible: 'efficientnet-lite0', a folder saved by transformers, "
            f"or {HUB}OWNER/NAME on the Hugging Face hub): {first}",
            next_step=f"without network, put config.json and model.safetensors of {location.name} into a folder "
            "and set backbone.name to that folder's path",
        ) from error
    # A mismatched key is a name whose shapes differ; its weights would be random as well.
    mismatched = [key if isinstance(key, str) else key[0] for key in report["mismatched_keys"]]
    return model, {*report["missing_keys"], *mismatched}


def _pixel_statistics(location: _Location) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation that pixels from 0 to 1 are normalised with, by channel."""
    try:
        path = location.file("preprocessor_config.json")
    except OSError:
        path = None
    values = json.loads(Path(path).read_text(encoding="utf-8")) if path else {}
    if values.get("do_normalize") is False:
        return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    return (
        tuple(float(v) for v in values.get("image_mean", _DEFAULT_MEAN)),
        tuple(float(v) for v in values.get("image_std", _DEFAULT_STD)),
    )


def _stable(config: Any) -> dict[str, Any]:
    """The model's configuration without the entries that depend on its location or on versions."""
    volatile = {"_name_or_path", "transformers_version", "architectures", "dtype", "torch_dtype"}
    values = {key: value for key, value in config.to_dict().items() if key not in volatile}
    stable: dict[str, Any] = json.loads(json.dumps(values, sort_keys=True, default=str))
    return stable
