"""Convolutions padded as in TensorFlow, without a padded copy of their input."""

from __future__ import annotations

from timm.layers.conv2d_same import Conv2dSame
from timm.layers.padding import get_same_padding
from torch import Tensor, nn

from anomem.nn.tracing import exporting

_FEW_CHANNELS = 4
"""Size up to which a dense convolution is cheap enough for a wider kernel."""


class WidenedSame(Conv2dSame):
    """Strided convolution whose kernel includes the padding by which one side exceeds the other.

    TensorFlow pads an even length with one more zero behind than before. A padded copy of the input takes longer than
    a depthwise convolution itself; so a row (column) of zeros is put before the kernel instead, and both sides are
    padded alike: the same sums. Exported graphs keep the padding, at no cost in their runtimes.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (B, C, h, w) to (B, D, ceil(h / stride), ceil(w / stride))."""
        if exporting():
            return super().forward(x)  # type: ignore[no-untyped-call, no-any-return]
        sizes = zip(x.shape[-2:], self.kernel_size, self.stride, strict=True)
        pads = [get_same_padding(length, kernel, stride, 1) for length, kernel, stride in sizes]
        more = [pad % 2 for pad in pads]
        weight = nn.functional.pad(self.weight, (more[1], 0, more[0], 0))
        behind = [pad - pad // 2 for pad in pads]
        return nn.functional.conv2d(x, weight, self.bias, self.stride, behind, 1, self.groups)


def widen_same(model: nn.Module) -> None:
    """Widen the kernels of a model's cheap convolutions to include their padding, in place."""
    for layer in model.modules():
        if type(layer) is not Conv2dSame or layer.dilation != (1, 1):
            continue
        depthwise = layer.groups == layer.in_channels == layer.out_channels
        if depthwise or layer.in_channels <= _FEW_CHANNELS:
            layer.__class__ = WidenedSame
