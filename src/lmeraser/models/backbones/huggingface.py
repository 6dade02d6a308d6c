"""Backbones from image models of ``transformers``: ViT, Swin, DINOv2, ConvNeXt, ResNet, CLIP...

Weights are loaded from a local folder, or from the hub if the name says so (`loading`). Of a model for images and
text the vision tower is loaded. The features are the class token where the family is known for one (ViT), else the
model's own pooling (Swin: mean of the tokens), else the mean of the last feature map, unless a folder's
``config.json`` names another pooling (`checkpoints`). Pixel statistics are those of the model's own image
processor (`image_processor`). `docs/backbones.md` lists the families.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from numpy.typing import NDArray
from torch import Tensor, nn

from lmeraser.config.inputs import BackboneConfig
from lmeraser.core.digests import Digest
from lmeraser.errors import BackboneError
from lmeraser.models.backbones.base import DTYPES, FINAL, ImageBackbone, channel_constants, weights_digest
from lmeraser.models.backbones.class_vectors import CLASSIFIER, classifier_weights, reproduces_logits
from lmeraser.models.backbones.frozen import freeze
from lmeraser.models.backbones.image_processor import PixelStatistics, pixel_statistics
from lmeraser.models.backbones.layers import LayerOutputs, block_number, last_layers, token_layers, token_mean
from lmeraser.models.backbones.loading import check_complete, check_takes_images, first_line, load_model
from lmeraser.models.backbones.location import Location
from lmeraser.models.backbones.text_tokens import describe_model, find_layers
from lmeraser.models.backbones.tokens import token_input
from lmeraser.models.check_cache import cached_check

POOLING = "lmeraser_pooling"  # key in config.json: the pooling for its classifier, if not the model's usual one
_CLASS_TOKEN = (
    *("vit", "deit", "dinov2", "dinov2_with_registers", "beit", "data2vec-vision", "vit_mae"),
    *("vit_msn", "pvt"),  # without a pooler; their own classifiers see the class token
)
_POOLINGS = {**dict.fromkeys(_CLASS_TOKEN, "cls"), "ijepa": "mean"}  # of families that do not use a pooler
_INTERPOLATING = frozenset({"vit", "deit"})  # always told to adapt their positions to the size of the input
_INTERPOLATE = "interpolate_pos_encoding"
_DEFAULT_BLOCKS = 4  # last ones whose tokens are embedded by default


class HuggingFaceBackbone(ImageBackbone):
    """A frozen ``transformers`` image model."""

    def __init__(self, config: BackboneConfig, device: torch.device) -> None:
        location = Location.of(config.name)
        model, missing = load_model(location, config.name)
        check_takes_images(model, config.name)
        self._extra = _extra_arguments(model, config.image_size)
        self.image_size = config.image_size
        self.micro_batch = config.micro_batch
        natural = _natural_pooling(model, config, self._extra)
        self._pooling = config.pooling if config.pooling != "auto" else natural
        _drop_unused_pooler(model, self._pooling)
        check_complete(model, missing, config.name, location)
        pixels = pixel_statistics(location, str(model.config.model_type), config.name)
        classifier = classifier_weights(location)
        self.digest = _digest(model, self._pooling, pixels, classifier)
        self.device = device
        self._mean = channel_constants(pixels.mean, device)
        self._std = channel_constants(pixels.std, device)
        self._channels = list(pixels.order)
        self._dtype = DTYPES[config.precision]
        self._location = location
        self._name = config.name
        self._model: Any = self._frozen(model)
        try:
            self.feature_dim = self._probe(config)
        except BackboneError:  # a network that asks its layers for more than a forward pass keeps its own
            model, _ = load_model(location, config.name)
            _drop_unused_pooler(model, self._pooling)
            self._model = freeze(model.to(device, self._dtype), replace=False)
            self.feature_dim = self._probe(config)
        self.class_vectors = classifier if self._has_logits(model.config, classifier) else None
        if self._pooling == "cls":
            self.token_input = token_input(self._model, self._extra)

    def features(self, images: Tensor, prompt: Tensor | None = None) -> Tensor:
        """Pooled features, float32 [n, d]."""
        pixels = images if prompt is None else images + prompt
        output = self._model(pixel_values=pixels.to(self._dtype), **self._extra)
        return _pooled(output, self._pooling).float()

    def layered(self, inputs: Tensor, layers: Sequence[str]) -> Tensor:
        """Features and, of blocks numbered from 1, the class token or the mean of the other tokens."""
        numbers = {block_number(name) for name in layers}
        features, hidden = self._outputs.run(partial(self.features, inputs), numbers)
        vectors = [
            token_mean(hidden[block_number(name)]) if name.endswith(".mean") else hidden[block_number(name)][:, 0]
            for name in layers
        ]
        return torch.cat([features, *(vector.float() for vector in vectors)], dim=1)

    @cached_property
    def layers(self) -> Mapping[str, int]:
        """Of each block ``blockN.cls`` and ``blockN.mean``, where the network has a class token."""
        layers = find_layers(self._model) if self._pooling == "cls" else None
        if layers is None:
            return {}
        self._outputs = LayerOutputs(layers)
        probe = torch.zeros(self.micro_batch, 3, self.image_size, self.image_size, device=self.device)
        with torch.no_grad():
            _, hidden = self._outputs.run(partial(self.features, probe), range(1, len(layers) + 1))
        plain = [state.ndim == 3 and state.shape[2] == self.feature_dim for state in hidden.values()]
        if len(plain) < len(layers) or not all(plain):
            return {}
        offered = token_layers(("cls", "mean"), len(layers), self.feature_dim)
        if hidden[len(layers)].shape[1] == 1:  # the last layer computes the class token alone
            del offered[f"block{len(layers)}.mean"]
        return offered

    @property
    def default_layers(self) -> tuple[str, ...]:
        """The last blocks and the features."""
        return (*last_layers(self.layers, _DEFAULT_BLOCKS), FINAL)

    def network(self) -> nn.Module:
        """The model as transformers builds it, loaded again."""
        model, _ = load_model(self._location, self._name)
        _drop_unused_pooler(model, self._pooling)
        tunable = _Tunable(model.to(self.device, self._dtype), self._pooling, self._extra)
        tunable.eval()
        return tunable

    def description(self) -> dict[str, Any]:
        """Classes and configuration in transformers, and the pooling."""
        return {
            **describe_model(self._model, _stable(self._model.config), uses_layers=bool(self.layers)),
            "pooling": self._pooling,
            "arguments": self._extra,
        }

    def _frozen(self, model: Any) -> nn.Module:
        """The network with fast layers, on its device."""
        if str(model.config.model_type) in _INTERPOLATING and self._pooling in ("cls", "pooler"):
            _keep_class_token(model)
        return freeze(model.to(self.device, self._dtype))

    def _probe(self, config: BackboneConfig) -> int:
        """Length of a feature vector, measured with one pass."""
        shape = (config.micro_batch, 3, config.image_size, config.image_size)
        try:
            with torch.no_grad():
                features = self.features(torch.zeros(shape, device=self.device))
        except Exception as error:  # a network may raise anything
            raise _no_features(config, first_line(error)) from error
        if features.ndim != 2 or len(features) != config.micro_batch:
            raise _no_features(config, f"the output has the shape {list(features.shape)}")
        return int(features.shape[1])

    def _has_logits(self, model_config: Any, classifier: NDArray[np.float32] | None) -> bool:
        """Whether the classifier's weights belong to the features; found out once for each backbone and size."""
        if classifier is None or classifier.shape[1] != self.feature_dim:
            return False  # features of another pooling lie in another space
        if hasattr(model_config, POOLING):  # stated by `checkpoints.convert`, which knows the published network
            return bool(self._pooling == getattr(model_config, POOLING))
        from transformers import __version__

        facts = {
            "check": "class vectors",
            "backbone": str(self.digest),
            "image_size": self.image_size,
            "torch": torch.__version__,
            "transformers": __version__,
        }
        images = torch.randn(2, 3, self.image_size, self.image_size, generator=torch.Generator().manual_seed(0))
        pool = partial(_pooled, pooling=self._pooling)
        return cached_check(facts, lambda: reproduces_logits(self._location, images, self._extra, pool))


def _digest(model: Any, pooling: str, pixels: PixelStatistics, classifier: NDArray[np.float32] | None) -> Digest:
    """Digest of all that the features and class vectors depend on."""
    architecture = {
        "config": _stable(model.config),
        "pooling": pooling,
        "mean": pixels.mean,
        "std": pixels.std,
    }
    if pixels.order != PixelStatistics.order:
        architecture["channels"] = pixels.order
    classifier_state = {} if classifier is None else {CLASSIFIER: torch.from_numpy(classifier)}
    return weights_digest(architecture, {**model.state_dict(), **classifier_state})


def _extra_arguments(model: Any, image_size: int) -> dict[str, bool]:
    """Arguments of every pass besides the pixels."""
    if str(model.config.model_type) in _INTERPOLATING:
        return {_INTERPOLATE: True}
    takes = _INTERPOLATE in inspect.signature(model.forward).parameters
    trained = getattr(model.config, "image_size", image_size)
    return {_INTERPOLATE: True} if takes and trained not in (image_size, [image_size] * 2) else {}


def _natural_pooling(model: Any, config: BackboneConfig, extra: dict[str, bool]) -> str:
    """The pooling that the checkpoint's classifier was trained on.

    Raises:
        BackboneError: the network has no pooling of its own, and its tokens could be pooled in several ways.
    """
    known = getattr(model.config, POOLING, _POOLINGS.get(str(model.config.model_type)))
    if known is not None or config.pooling != "auto":
        return str(known)
    try:
        with torch.no_grad():
            output = model.eval()(pixel_values=torch.zeros(1, 3, config.image_size, config.image_size), **extra)
        if getattr(output, "pooler_output", None) is not None:
            return "pooler"
        dimensions = output.last_hidden_state.ndim
    except Exception as error:  # a network may raise anything
        raise _no_features(config, first_line(error)) from error
    if dimensions != 4:
        raise BackboneError(
            "The backbone has no pooling of its own",
            got=f"{config.name} ({model.config.model_type}): its tokens could be pooled in several ways",
            next_step="set backbone.pooling to 'cls' (the first token) or 'mean', as its publisher says",
        )
    return "mean"


def _no_features(config: BackboneConfig, why: str) -> BackboneError:
    return BackboneError(
        "The backbone cannot compute features with these settings",
        got=f"{config.name} with backbone.image_size = {config.image_size} and "
        f"backbone.pooling = {config.pooling!r}: {why}",
        next_step="set backbone.image_size to the size that the model was trained on, and "
        "backbone.pooling to a pooling that it has",
    )


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


def _drop_unused_pooler(model: Any, pooling: str) -> None:
    """Remove a pooler with weights that the features don't use; checkpoints often lack these weights."""
    pooler = getattr(model, "pooler", None)
    if pooling != "pooler" and isinstance(pooler, nn.Module) and any(True for _ in pooler.parameters()):
        model.pooler = None


def _stable(config: Any) -> dict[str, Any]:
    """The model's configuration without the entries that depend on its location or on versions."""
    volatile = {"_name_or_path", "transformers_version", "architectures", "dtype", "torch_dtype"}
    values = {key: value for key, value in config.to_dict().items() if key not in volatile}
    stable: dict[str, Any] = json.loads(json.dumps(values, sort_keys=True, default=str))
    return stable
