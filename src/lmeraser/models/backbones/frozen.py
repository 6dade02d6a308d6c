"""Layers whose weights never change: fast passes forward, and backward to the input alone; `freeze` puts them in.

A frozen linear map has a fixed transpose, so the gradient of its input is one more forward pass, through the same
inference kernel: oneDNN's with weights in its own layout where torch has them (a CPU, float32), torch's elsewhere.
The bits differ between the two, which is the fingerprint's business. `TunableConv` is a convolution thawed again.
Knows nothing about whole networks.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor, nn

_ONEDNN: Any = torch.ops.mkldnn  # torch's stubs lack its operations, and types of `mkldnn` and `Function.apply`
_AVAILABLE = bool(cast("Any", torch.backends.mkldnn).is_available())


def freeze(module: nn.Module) -> nn.Module:
    """``module`` in evaluation mode, without gradients for its weights, with the layers of this file in it."""
    for name, child in module.named_children():
        if type(child) is nn.Linear:  # not its subclasses, which may do more
            setattr(module, name, FrozenLinear(child.weight, child.bias))
        elif type(child) is nn.Conv2d and _cuts_patches(child):
            setattr(module, name, FrozenPatches(child))
        else:
            freeze(child)
    return module.eval().requires_grad_(False)


def _cuts_patches(convolution: nn.Conv2d) -> bool:
    plain = convolution.groups == 1 and convolution.padding == (0, 0) and convolution.dilation == (1, 1)
    return plain and convolution.kernel_size == convolution.stride


def packs(weight: Tensor) -> bool:
    """Whether oneDNN's kernels for packed weights take this one."""
    if weight.device.type != "cpu" or weight.dtype != torch.float32 or not _AVAILABLE:
        return False
    return hasattr(_ONEDNN, "_linear_pointwise") and hasattr(_ONEDNN, "_reorder_linear_weight")


class FrozenLinear(nn.Module):
    """x Wᵀ + b with frozen W and b.

    Args:
        weight: [out, in].
        bias: [out], or None.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.bias = None if bias is None else bias.detach()
        self._packed = packs(weight)
        weight, transposed = weight.detach(), weight.detach().t().contiguous()
        self.weight = _ONEDNN._reorder_linear_weight(weight) if self._packed else weight
        self.transposed = _ONEDNN._reorder_linear_weight(transposed) if self._packed else transposed

    def forward(self, x: Tensor) -> Tensor:
        """The layer, differentiable in its input."""
        result: Tensor = cast("Any", _Linear).apply(x, self)
        return result

    def straight(self, x: Tensor) -> Tensor:
        """The layer, no gradient kept."""
        return self._multiplied(x, self.weight, self.bias)

    def back(self, gradient: Tensor) -> Tensor:
        """Gradient of x from that of the result."""
        return self._multiplied(gradient, self.transposed, None)

    def _multiplied(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if not self._packed:
            return F.linear(x, weight, bias)
        result: Tensor = _ONEDNN._linear_pointwise(x.contiguous(), weight, bias, "none", [], "")
        return result


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: FrozenLinear) -> Tensor:
        ctx.layer = layer
        return layer.straight(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return ctx.layer.back(gradients[0]), None


class FrozenPatches(nn.Module):
    """A convolution over patches that do not overlap, as one matrix product.

    Args:
        convolution: whose stride is its kernel's size, without padding, dilation and groups.
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.height, self.width = convolution.kernel_size
        self.linear = FrozenLinear(convolution.weight.flatten(1), convolution.bias)

    @property
    def weight(self) -> Tensor:
        """Of the matrix product; models ask it for its dtype."""
        return self.linear.weight

    def forward(self, x: Tensor) -> Tensor:
        """[n, channels, height, width] to [n, out, rows, columns]; what is left of a patch is left out."""
        count, channels = x.shape[:2]
        rows, columns = x.shape[2] // self.height, x.shape[3] // self.width
        whole = x[:, :, : rows * self.height, : columns * self.width]
        cut = whole.reshape(count, channels, rows, self.height, columns, self.width)
        flat = cut.permute(0, 2, 4, 1, 3, 5).reshape(count * rows * columns, -1)
        result: Tensor = self.linear(flat)
        return result.reshape(count, rows, columns, -1).permute(0, 3, 1, 2)


class FrozenConv(nn.Module):
    """A convolution with frozen weights, and optionally the clamp to [0, 6] (ReLU6) that follows it.

    Its passes are plain functions without autograd, so that a block can run both and reuse memory. The output's
    side is ceil(side / stride), as TensorFlow pads ("SAME"). That may need one more row of zeros after the image
    than before it; zeros in the kernel do the same without copying the image, and oneDNN's backward pass is many
    times faster on even padding.

    Args:
        weight: [out, in / groups, side, side], side odd.
        bias: [out].
        stride: 1 or 2.
        groups: 1, or the number of channels (depthwise).
        clamp: whether the result is clamped.
    """

    def __init__(self, weight: Tensor, bias: Tensor, *, stride: int, groups: int, clamp: bool) -> None:
        super().__init__()
        self.stride, self.groups, self.clamp = stride, groups, clamp
        self.bias = bias.detach()
        self._packed = packs(weight)
        plain = weight.detach().to(memory_format=torch.channels_last)
        # With stride 2 the first tap of an even side's outputs lies one pixel further right than an odd side's.
        self.plain = {side: _shifted(plain) if stride == 2 and side == 0 else plain for side in (0, 1)}
        self.weight = {side: self._pack(taps, stride) for side, taps in self.plain.items()}
        self.reversed: Tensor | None = None  # the input's gradient is a convolution with these weights
        if stride == 1 and groups == weight.shape[0]:
            self.reversed = self._pack(plain.flip(2, 3), 1)
        elif stride == 1 and weight.shape[-1] == 1:
            self.reversed = self._pack(plain.transpose(0, 1), 1)

    def forward(self, x: Tensor) -> Tensor:
        """The layer; `back` is its backward pass."""
        weight = self.weight[x.shape[-1] % 2]
        return self._convolved(x, weight, self.bias, self.stride, clamp=self.clamp)

    def linear(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """The layer without its clamp, differentiable in the input by torch's own means."""
        weight = self.plain[x.shape[-1] % 2]
        return F.conv2d(x, weight, bias, self.stride, weight.shape[-1] // 2, groups=self.groups)

    def back(self, gradient: Tensor, result: Tensor, x: Tensor) -> Tensor:
        """Gradient of the input.

        Args:
            gradient: of the result; overwritten where the layer clamps.
            result: what `forward` gave.
            x: for what.
        """
        if self.clamp:
            mask_clamped(gradient, result)
        if self.reversed is not None:
            return self._convolved(gradient, self.reversed, None, 1, clamp=False)
        return self.linear_back(gradient, x)

    def linear_back(self, gradient: Tensor, x: Tensor) -> Tensor:
        """Gradient of the input from that of `linear`; of ``x`` only shape and layout are read."""
        weight = self.plain[x.shape[-1] % 2]
        strides, padding, none, ones = [self.stride] * 2, [weight.shape[-1] // 2] * 2, [0, 0], [1, 1]
        wanted = [True, False, False]
        found: Tensor = torch.ops.aten.convolution_backward(
            gradient, x, weight, None, strides, padding, ones, False, none, self.groups, wanted
        )[0]
        return found

    def _pack(self, weight: Tensor, stride: int) -> Tensor:
        weight = weight.contiguous(memory_format=torch.channels_last)
        if not self._packed:
            return weight
        found: Tensor = _ONEDNN._reorder_convolution_weight(
            weight, [weight.shape[-1] // 2] * 2, [stride] * 2, [1, 1], self.groups
        )
        return found

    def _convolved(self, x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, *, clamp: bool) -> Tensor:
        padding = weight.shape[-1] // 2
        if not self._packed:
            y = F.conv2d(x, weight, bias, stride, padding, groups=self.groups)
            return y.clamp_(0.0, 6.0) if clamp else y
        attribute, scalars = ("hardtanh", [0.0, 6.0]) if clamp else ("none", [])
        found: Tensor = _ONEDNN._convolution_pointwise(
            x, weight, bias, [padding] * 2, [stride] * 2, [1, 1], self.groups, attribute, scalars, ""
        )
        return found


class TunableConv(nn.Module):
    """The same convolution with weights that can be tuned, in torch's own operations.

    Args:
        frozen: whose weights it starts with.
        clamp: whether the result is clamped; None: as it is there.
    """

    def __init__(self, frozen: FrozenConv, *, clamp: bool | None = None) -> None:
        super().__init__()
        self.stride, self.groups = frozen.stride, frozen.groups
        self.clamp = frozen.clamp if clamp is None else clamp
        self.weight = nn.Parameter(frozen.plain[1].clone(memory_format=torch.contiguous_format))
        self.bias = nn.Parameter(frozen.bias.clone())

    def forward(self, x: Tensor) -> Tensor:
        """The layer."""
        weight = _shifted(self.weight) if self.stride == 2 and x.shape[-1] % 2 == 0 else self.weight
        y = F.conv2d(x, weight, self.bias, self.stride, weight.shape[-1] // 2, groups=self.groups)
        return F.relu6(y) if self.clamp else y


def mask_clamped(gradient: Tensor, result: Tensor) -> None:
    """Set the gradient to zero, in place, where the result stands at 0 or 6."""
    torch.ops.aten.hardtanh_backward.grad_input(gradient, result, 0.0, 6.0, grad_input=gradient)


def _shifted(kernel: Tensor) -> Tensor:
    """The kernel one pixel further right and down, in a larger one of odd side."""
    return F.pad(kernel, (2, 0, 2, 0))
