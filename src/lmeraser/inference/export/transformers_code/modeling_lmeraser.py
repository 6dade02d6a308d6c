"""A classifier that lmeraser exported, for transformers; needs torch, numpy and transformers, not lmeraser.

    views of images, or token ids -> backbone -> vectors of layers -> embedding in whole numbers -> scores

Every constant is in ``config.json`` and every tensor in ``model.safetensors``. The embedding is rounded to whole
numbers as in the workspace, and scores are added up in numpy's order, so that answers agree with the workspace's.
"""

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
import transformers
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import ImageClassifierOutput, SequenceClassifierOutput

_EPSILON = 1e-12  # below the mean square of a vector


class LmeraserConfig(PreTrainedConfig):
    """Constants of an exported classifier.

    Args:
        backbone: ``kind`` ("model" of transformers, with the names of its classes and its configuration, or
            "convolutions") and what `_Model` or `_Convolutions` take besides.
        layers: names of the vectors that are embedded, in their order.
        frame: the number of the view to which the random frame is added; None: of none.
        pixels: of image models ``mean``, ``std`` and ``channels`` (the order of the image's in the input).
        largest: of the whole numbers of an embedding.
        scale: of an embedding; a number q stands for q / scale.
        random_features: width of the random layer; 0: none.
        projected: length of the vectors that the random layer takes.
        shift: by how many bits the random layer's sums are shifted.
        heads: of each head the ``sharpness`` of its scores and the ``share`` of its probabilities.
        embedding_length: of the vectors that are scored.
        kwargs: of the base class.
    """

    model_type = "lmeraser"

    def __init__(
        self,
        backbone: Any = None,
        layers: Any = ("final",),
        frame: int | None = None,
        pixels: Any = None,
        largest: int = 32767,
        scale: float = 1.0,
        random_features: int = 0,
        projected: int = 0,
        shift: int = 0,
        heads: Any = (),
        embedding_length: int = 0,
        **kwargs: Any,
    ) -> None:
        self.backbone = backbone
        self.layers = list(layers)
        self.frame = frame
        self.pixels = pixels
        self.largest = largest
        self.scale = scale
        self.random_features = random_features
        self.projected = projected
        self.shift = shift
        self.heads = list(heads)
        self.embedding_length = embedding_length
        super().__init__(**kwargs)


class _Convolution(nn.Module):
    """A convolution with TensorFlow's "SAME" padding, clamped to [0, 6] where the network does so."""

    def __init__(self, shape: list[int], stride: int, groups: int, clamp: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(shape))
        self.bias = nn.Parameter(torch.empty(shape[0]))
        self.stride = stride
        self.groups = groups
        self.clamp = clamp

    def forward(self, x: Tensor) -> Tensor:
        even = self.stride == 2 and x.shape[-1] % 2 == 0
        weight = F.pad(self.weight, (2, 0, 2, 0)) if even else self.weight
        y = F.conv2d(x, weight, self.bias, self.stride, weight.shape[-1] // 2, groups=self.groups)
        return F.relu6(y) if self.clamp else y


class _Block(nn.Module):
    def __init__(self, layers: list[Any], skips: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Convolution(**layer) for layer in layers)
        self.skips = skips

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The output, and that of the last layer but one."""
        outputs = [x]
        for layer in self.layers:
            outputs.append(layer(outputs[-1]))
        return outputs[-1] + x if self.skips else outputs[-1], outputs[-2]


class _Convolutions(nn.Module):
    """EfficientNet-Lite0 with its batch norms folded into the convolutions; weights of its authors."""

    def __init__(self, stem: Any, blocks: Any, head: Any) -> None:
        super().__init__()
        self.stem = _Convolution(**stem)
        self.blocks = nn.ModuleList(_Block(**block) for block in blocks)
        self.head = _Block(**head)

    def forward(self, pixels: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
        """Vectors of all layers by their names."""
        found: dict[str, Tensor] = {}
        x = self.stem(pixels)
        for number, block in enumerate(self.blocks, 1):
            x, inner = block(x)
            mean = x.mean(dim=(2, 3))
            found[f"block{number}.mean"] = mean
            found[f"block{number}.std"] = (x - mean[:, :, None, None]).square().mean(dim=(2, 3)).sqrt()
            found[f"block{number}.inner"] = inner.mean(dim=(2, 3))
        found["final"] = self.head(x)[0].mean(dim=(2, 3))
        return found


class _Model(nn.Module):
    """A model of transformers and the vectors of its layers."""

    def __init__(
        self,
        architecture: str,
        configuration: str,
        values: dict[str, Any],
        pooling: str,
        blocks: str | None = None,
        arguments: Any = None,
        normalize: bool = False,
        pad: int = 0,
    ) -> None:
        super().__init__()
        config = getattr(transformers, configuration).from_dict(dict(values))
        self.model = getattr(transformers, architecture)._from_config(config)
        if pooling != "pooler" and getattr(self.model, "pooler", None) is not None:
            self.model.pooler = nn.Identity()  # what it returns is not used; some networks call it without asking
        self.pooling = pooling
        self.normalize = normalize
        self.pad = pad
        self.arguments = dict(arguments or {})
        self.hidden: dict[int, Tensor] = {}
        if blocks is not None:
            for number, block in enumerate(self.model.get_submodule(blocks), 1):
                block.register_forward_hook(self._keep(number))

    def _keep(self, number: int) -> Any:
        def keep(_: nn.Module, __: Any, output: Any) -> None:
            self.hidden[number] = output[0] if isinstance(output, tuple) else output

        return keep

    def forward(self, inputs: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
        """Vectors of all layers by their names."""
        self.hidden.clear()
        if mask is None:
            output = self.model(pixel_values=inputs, **self.arguments)
        else:
            known = inputs.masked_fill(mask == 0, self.pad)
            output = self.model(input_ids=known, attention_mask=mask.long(), **self.arguments)
        if self.pooling == "pooler":
            final = output.pooler_output.flatten(1)
        else:
            final = self._pool(output.last_hidden_state, mask, self.pooling)
        found = {"final": F.normalize(final.float(), dim=1) if self.normalize else final.float()}
        for number, state in self.hidden.items():
            kinds = ("cls", "mean", "last") if mask is not None else ("cls", "tokens")
            for kind in kinds if state.ndim == 3 else ():
                name = "mean" if kind == "tokens" else kind
                found[f"block{number}.{name}"] = self._pool(state, mask, kind)
        self.hidden.clear()
        return found

    def _pool(self, state: Any, mask: Tensor | None, kind: str) -> Tensor:
        """float32 [n, d] from hidden states [n, tokens, d] or maps [n, d, height, width]."""
        if state.ndim == 4:
            pooled: Tensor = state.mean(dim=(2, 3))
        elif kind == "cls":
            pooled = state[:, 0]
        elif kind == "tokens":  # all but the class token
            pooled = state[:, 1:].float().mean(dim=1)
        elif mask is None:
            pooled = state.mean(dim=1)
        else:
            places = torch.arange(state.shape[1], device=state.device)
            real = mask != 0
            chosen = real if kind == "mean" else places == real.sum(1, keepdim=True) - 1
            total = state.float().masked_fill(~chosen[:, :, None], 0.0).sum(1)
            pooled = total / chosen.sum(1, keepdim=True).clamp(min=1)
        return pooled.float()


class _Lmeraser(PreTrainedModel):
    config_class = LmeraserConfig
    base_model_prefix = "network"

    def __init__(self, config: LmeraserConfig) -> None:
        super().__init__(config)
        described = dict(config.backbone)
        network = {"model": _Model, "convolutions": _Convolutions}[described.pop("kind")]
        self.network = network(**described)
        length = config.embedding_length
        for number in range(len(config.heads)):
            self.register_buffer(f"head{number}", torch.zeros(config.num_labels, length + 1))
        if config.random_features:
            self.register_buffer("projection", torch.zeros(config.projected, length, dtype=torch.int8))
        if config.frame is not None:
            side = config.image_size
            self.register_buffer("frame", torch.zeros(1, 3, side, side))
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Nothing: every tensor is in the file."""

    def embed(self, vectors: Tensor) -> Tensor:
        """Embeddings as whole numbers, float32 [n, length], of vectors [n, views, d]."""
        config: Any = self.config
        embedded = _unit_rms(_unit_rms(vectors).mean(dim=1))
        quantized = (embedded * config.scale).round().clamp(-config.largest, config.largest)
        if not config.random_features:
            return quantized
        sums = quantized.double() @ self.get_buffer("projection").double()
        half, whole = (1 << config.shift) >> 1, 1 << config.shift
        return ((sums.clamp(min=0) + half) / whole).floor().clamp(max=config.largest).float()

    def logits(self, vectors: Tensor) -> Tensor:
        """Logarithms of the probabilities, float32 [n, classes], of vectors [n, views, d]."""
        config: Any = self.config
        embedded = self.embed(vectors) / config.scale
        with_constant = torch.cat([embedded, torch.ones_like(embedded[:, :1])], dim=1)[:, None]
        total: Any = 0.0
        for number, head in enumerate(config.heads):
            products = (with_constant * self.get_buffer(f"head{number}")).detach().cpu().numpy()
            scores = torch.from_numpy(products.sum(axis=-1)).to(vectors.device) * head["sharpness"]
            total = total + scores.softmax(dim=1) * head["share"]
        logarithms: Tensor = total.clamp(min=torch.finfo(torch.float32).tiny).log()
        return logarithms

    def chosen(self, inputs: Tensor, mask: Tensor | None = None) -> Tensor:
        """The vectors of the chosen layers, float32 [n, d]."""
        config: Any = self.config
        found = self.network(inputs, mask)
        if config.layers == ["final"]:
            return found["final"]
        return torch.cat([_unit_rms(found[name]) for name in config.layers], dim=1)


class LmeraserForImageClassification(_Lmeraser):
    """Classifies the views that `LmeraserImageProcessor` makes of images."""

    main_input_name = "pixel_values"

    def forward(self, pixel_values: Tensor, labels: Tensor | None = None, **_: Any) -> ImageClassifierOutput:
        """Logits are logarithms of the probabilities.

        Args:
            pixel_values: uint8 [n, views, 3, image_size, image_size].
            labels: for the loss, int64 [n].
        """
        config: Any = self.config
        views = []
        for number in range(pixel_values.shape[1]):
            pixels = pixel_values[:, number, config.pixels["channels"]].float() / 255.0
            mean, std = (pixels.new_tensor(config.pixels[name])[None, :, None, None] for name in ("mean", "std"))
            inputs = (pixels - mean) / std
            views.append(self.chosen(inputs + self.get_buffer("frame") if number == config.frame else inputs))
        logits = self.logits(torch.stack(views, dim=1))
        loss = None if labels is None else F.cross_entropy(logits, labels)
        return ImageClassifierOutput(loss=loss, logits=logits)


class LmeraserForSequenceClassification(_Lmeraser):
    """Classifies texts that fit into one window."""

    main_input_name = "input_ids"

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, labels: Tensor | None = None, **_: Any
    ) -> SequenceClassifierOutput:
        """Logits are logarithms of the probabilities.

        Args:
            input_ids: int64 [n, tokens].
            attention_mask: the same shape; 0 for padding.
            labels: for the loss, int64 [n].

        Raises:
            ValueError: a text is longer than one window, of which the workspace would take several.
        """
        config: Any = self.config
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        if mask.sum(dim=1).max() > config.max_tokens:
            raise ValueError(f"Text has more than {config.max_tokens} tokens; truncate it, or use load_predictor")
        logits = self.logits(self.chosen(input_ids, mask)[:, None])
        loss = None if labels is None else F.cross_entropy(logits, labels)
        return SequenceClassifierOutput(loss=loss, logits=logits)


def _unit_rms(vectors: Tensor) -> Tensor:
    """Vectors along the last axis scaled to root mean square 1."""
    return vectors / (vectors.square().mean(dim=-1, keepdim=True) + _EPSILON).sqrt()
