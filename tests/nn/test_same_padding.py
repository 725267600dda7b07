"""Widened kernels against timm's padded ones."""

from __future__ import annotations

import copy

import pytest
import torch
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn

from anomem.nn.same_padding import WidenedSame, widen_same
from anomem.nn.tracing import exporting_here


def layers(channels: int, groups: int, kernel: tuple[int, int], stride: int) -> tuple[Conv2dSame, nn.Conv2d]:
    """timm's own, and a copy that was handed to `widen_same`."""
    torch.manual_seed(0)
    theirs = Conv2dSame(channels, channels if groups > 1 else 6, kernel, stride, groups=groups)
    mine = copy.deepcopy(theirs)
    widen_same(nn.Sequential(mine))
    assert type(mine) is WidenedSame
    return theirs, mine


@pytest.mark.parametrize("hw", [(16, 16), (17, 17), (16, 17), (15, 18), (2, 3)])
@pytest.mark.parametrize("kernel", [(3, 3), (5, 5), (3, 5), (2, 4)])
@pytest.mark.parametrize(("channels", "groups"), [(3, 1), (8, 8)])
@pytest.mark.parametrize("stride", [2, 3])
def test_the_same_sums(hw: tuple[int, int], kernel: tuple[int, int], channels: int, groups: int, stride: int) -> None:
    theirs, mine = layers(channels, groups, kernel, stride)
    images = torch.randn(2, channels, *hw, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(mine(images), theirs(images))


def test_the_same_gradients() -> None:
    theirs, mine = layers(8, 8, (5, 5), 2)
    images = torch.randn(2, 8, 12, 12, generator=torch.Generator().manual_seed(1))
    found: list[list[Tensor]] = []
    for layer in (theirs, mine):
        given = images.clone().requires_grad_()
        layer(given).square().sum().backward()
        gradients = [given.grad, layer.weight.grad, layer.bias.grad]
        found.append([gradient for gradient in gradients if gradient is not None])
    assert len(found[0]) == 3
    torch.testing.assert_close(found[0], found[1])


def test_an_exported_graph_keeps_its_padding() -> None:
    _, mine = layers(8, 8, (3, 3), 2)
    with exporting_here():
        program = torch.export.export(nn.Sequential(mine), (torch.randn(1, 8, 16, 16),))
    kernels = [node.args[1].meta["val"].shape for node in program.graph.nodes if "conv2d" in str(node.target)]
    assert kernels == [(8, 1, 3, 3)]


def test_dear_convolutions_are_left_alone() -> None:
    model = nn.Sequential(Conv2dSame(64, 64, 3, 2), Conv2dSame(3, 6, 3, 2, dilation=2), nn.Conv2d(3, 6, 3))
    before = [type(layer) for layer in model]
    widen_same(model)
    assert [type(layer) for layer in model] == before
