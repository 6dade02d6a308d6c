"""Layers with frozen weights: fast forward passes, and fast backward passes to the input alone.

`freeze` replaces layers of a network by them. A frozen linear map has a fixed transpose, so the gradient of its
input is one more forward pass, through the same inference kernel: oneDNN's with weights in its own layout where
torch has these kernels (a CPU, float32), torch's own elsewhere. The bits differ between the two; the canary of the
environment fingerprint tells them apart. `TunableConv` is a frozen convolution whose weights can be tuned again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, cast

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor, nn

_ONEDNN: Any = torch.ops.mkldnn  # torch's stubs lack its operations, and types for `mkldnn` and `Function.apply`
_packs = ContextVar("packs", default=True)
_AVAILABLE = bool(cast("Any", torch.backends.mkldnn).is_available())


def freeze(module: nn.Module, *, replace: bool = True) -> nn.Module:
    """Freeze a network in place.

    Args:
        module: the network.
        replace: whether to replace layers by those of this file.

    Returns:
        ``module`` in evaluation mode, without gradients for its weights.
    """
    module.eval()  # not chained: `train` of some networks returns nothing (LeViT)
    module.requires_grad_(False)
    if replace:
        _replace_layers(module)
        module.eval()
    return module


def _replace_layers(module: nn.Module) -> None:
    for name, child in module.named_children():
        plain = not child._forward_hooks and not child._forward_pre_hooks
        if plain and type(child) is nn.Linear:  # not a subclass, which may do more
            setattr(module, name, FrozenLinear(child.weight, child.bias))
        elif plain and type(child) is nn.Conv2d and _splits_into_patches(child):
            setattr(module, name, FrozenPatches(child))
        else:
            _replace_layers(child)


def _splits_into_patches(convolution: nn.Conv2d) -> bool:
    plain = convolution.groups == 1 and convolution.padding == (0, 0) and convolution.dilation == (1, 1)
    return plain and convolution.kernel_size == convolution.stride


@contextlib.contextmanager
def plain_kernels() -> Iterator[None]:
    """Networks that this thread freezes meanwhile use torch's own kernels, which other runtimes know as well."""
    token = _packs.set(False)
    try:
        yield
    finally:
        _packs.reset(token)


def can_pack(weight: Tensor) -> bool:
    """Whether oneDNN's kernels for weights in its own layout accept this one."""
    if not _packs.get():
        return False
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
        self.out_features, self.in_features = weight.shape
        self.bias = None if bias is None else bias.detach()
        self._packed = can_pack(weight)
        weight = weight.detach()
        transposed = weight.t().contiguous()
        self.weight = _ONEDNN._reorder_linear_weight(weight) if self._packed else weight
        self.transposed = _ONEDNN._reorder_linear_weight(transposed) if self._packed else transposed

    def forward(self, x: Tensor) -> Tensor:
        """The output, differentiable in x."""
        result: Tensor = cast("Any", _Linear).apply(x, self)
        return result

    def pass_forward(self, x: Tensor) -> Tensor:
        """The output, without autograd."""
        return self._multiply(x, self.weight, self.bias)

    def pass_backward(self, gradient: Tensor) -> Tensor:
        """Gradient of x from that of the output."""
        return self._multiply(gradient, self.transposed, None)

    def _multiply(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if not self._packed:
            return F.linear(x, weight, bias)
        result: Tensor = _ONEDNN._linear_pointwise(x.contiguous(), weight, bias, "none", [], "")
        return result


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: FrozenLinear) -> Tensor:
        ctx.layer = layer
        return layer.pass_forward(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return ctx.layer.pass_backward(gradients[0]), None


class FrozenPatches(nn.Module):
    """A convolution over patches that do not overlap, computed as one matrix product.

    Has the attributes of the convolution that networks read (MobileNet pads its input by them).

    Args:
        convolution: its stride is the size of its kernel; it has no padding, dilation or groups.
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        for name in ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups"):
            setattr(self, name, getattr(convolution, name))
        self.height, self.width = convolution.kernel_size
        self.linear = FrozenLinear(convolution.weight.flatten(1), convolution.bias)

    @property
    def weight(self) -> Tensor:
        """Weight of the matrix product; models read its dtype."""
        return self.linear.weight

    def forward(self, x: Tensor) -> Tensor:
        """[n, channels, height, width] to [n, out, rows, columns]; incomplete patches at the end are ignored."""
        count, channels = x.shape[:2]
        rows, columns = x.shape[2] // self.height, x.shape[3] // self.width
        whole = x[:, :, : rows * self.height, : columns * self.width]
        patches = whole.reshape(count, channels, rows, self.height, columns, self.width)
        flat = patches.permute(0, 2, 4, 1, 3, 5).reshape(count * rows * columns, -1)
        result: Tensor = self.linear(flat)
        return result.reshape(count, rows, columns, -1).permute(0, 3, 1, 2)


class FrozenConv(nn.Module):
    """A convolution with frozen weights, and optionally the clamp to [0, 6] (ReLU6) that follows it.

    Its passes are plain functions without autograd, so that a block can call both and reuse memory. The side of
    the output is ceil(side / stride), which is TensorFlow's "SAME" padding. It may need one more row of zeros
    after the image than before it; zeros in the kernel have the same effect without a copy of the image, and
    oneDNN's backward pass is many times faster with symmetric padding.

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
        self._packed = can_pack(weight)
        plain = weight.detach().to(memory_format=torch.channels_last)
        # With stride 2 the first tap of an even side's outputs lies one pixel further right than an odd side's.
        self.plain = {side: _shifted(plain) if stride == 2 and side == 0 else plain for side in (0, 1)}
        # The input's gradient is a convolution with these weights.
        self.reversed: Tensor | None = None
        if stride == 1 and groups == weight.shape[0]:
            self.reversed = plain.flip(2, 3)
        elif stride == 1 and weight.shape[-1] == 1:
            self.reversed = plain.transpose(0, 1)
        # Kernels in oneDNN's layout are made when they are used first: a prediction needs a third of them. Others
        # are made now, because the network may be traced.
        self._kernels: dict[str, Tensor] = {}
        if not self._packed:
            for side in (0, 1):
                self._forward_kernel(side)
            self._reversed_kernel()

    def forward(self, x: Tensor) -> Tensor:
        """The output, without autograd; `backward` is the backward pass."""
        kernel = self._forward_kernel(x.shape[-1] % 2)
        return self._convolve(x, kernel, self.bias, self.stride, clamp=self.clamp)

    def linear(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """The output before the clamp, differentiable in x by torch's autograd."""
        weight = self.plain[x.shape[-1] % 2]
        return F.conv2d(x, weight, bias, self.stride, weight.shape[-1] // 2, groups=self.groups)

    def backward(self, gradient: Tensor, output: Tensor, x: Tensor) -> Tensor:
        """Gradient of x.

        Args:
            gradient: of the output; overwritten where the layer clamps.
            output: of `forward` for x.
            x: the input.
        """
        if self.clamp:
            mask_clamped(gradient, output)
        if (kernel := self._reversed_kernel()) is not None:
            return self._convolve(gradient, kernel, None, 1, clamp=False)
        return self.linear_backward(gradient, x)

    def linear_backward(self, gradient: Tensor, x: Tensor) -> Tensor:
        """Gradient of x from that of `linear`; only the shape and the layout of ``x`` are used."""
        weight = self.plain[x.shape[-1] % 2]
        strides = [self.stride] * 2
        padding = [weight.shape[-1] // 2] * 2
        dilation = [1, 1]
        output_padding = [0, 0]
        needed = [True, False, False]  # gradients of the input, the weight, the bias
        input_gradient: Tensor = torch.ops.aten.convolution_backward(
            gradient, x, weight, None, strides, padding, dilation, False, output_padding, self.groups, needed
        )[0]
        return input_gradient

    def _forward_kernel(self, side: int) -> Tensor:
        """The kernel of `forward` for images whose side is even (0) or odd (1)."""
        if self.stride == 1:  # both are the same
            return self._kernel("forward", self.plain[1], 1)
        return self._kernel(f"forward {side}", self.plain[side], self.stride)

    def _reversed_kernel(self) -> Tensor | None:
        return None if self.reversed is None else self._kernel("reversed", self.reversed, 1)

    def _kernel(self, name: str, weight: Tensor, stride: int) -> Tensor:
        """Weights in the layout that `_convolve` reads; two threads may make them at once, and make the same."""
        kernel = self._kernels.get(name)
        if kernel is None:
            kernel = weight.contiguous(memory_format=torch.channels_last)
            if self._packed:
                padding = [weight.shape[-1] // 2] * 2
                kernel = _ONEDNN._reorder_convolution_weight(kernel, padding, [stride] * 2, [1, 1], self.groups)
            self._kernels[name] = kernel
        return kernel

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, *, clamp: bool) -> Tensor:
        padding = weight.shape[-1] // 2
        if not self._packed:
            y = F.conv2d(x, weight, bias, stride, padding, groups=self.groups)
            return y.clamp_(0.0, 6.0) if clamp else y
        attribute, scalars = ("hardtanh", [0.0, 6.0]) if clamp else ("none", [])
        result: Tensor = _ONEDNN._convolution_pointwise(
            x, weight, bias, [padding] * 2, [stride] * 2, [1, 1], self.groups, attribute, scalars, ""
        )
        return result


class TunableConv(nn.Module):
    """A convolution like `FrozenConv`, in torch's own operations and with weights that can be tuned.

    Args:
        frozen: gives the initial weights.
        clamp: whether the output is clamped; None: as in ``frozen``.
    """

    def __init__(self, frozen: FrozenConv, *, clamp: bool | None = None) -> None:
        super().__init__()
        self.stride = frozen.stride
        self.groups = frozen.groups
        self.clamp = frozen.clamp if clamp is None else clamp
        self.weight = nn.Parameter(frozen.plain[1].clone(memory_format=torch.contiguous_format))
        self.bias = nn.Parameter(frozen.bias.clone())

    def description(self) -> dict[str, Any]:
        """Shape of the weights, and how they are applied."""
        shape = list(self.weight.shape)
        return {"shape": shape, "stride": self.stride, "groups": self.groups, "clamp": self.clamp}

    def forward(self, x: Tensor) -> Tensor:
        """The output."""
        weight = _shifted(self.weight) if self.stride == 2 and x.shape[-1] % 2 == 0 else self.weight
        y = F.conv2d(x, weight, self.bias, self.stride, weight.shape[-1] // 2, groups=self.groups)
        return F.relu6(y) if self.clamp else y


def mask_clamped(gradient: Tensor, output: Tensor) -> None:
    """Set the gradient of a clamped output to zero, in place, wherever the output is 0 or 6."""
    torch.ops.aten.hardtanh_backward.grad_input(gradient, output, 0.0, 6.0, grad_input=gradient)


def _shifted(kernel: Tensor) -> Tensor:
    """The kernel moved one pixel to the right and down, in a larger kernel of odd side."""
    return F.pad(kernel, (2, 0, 2, 0))
