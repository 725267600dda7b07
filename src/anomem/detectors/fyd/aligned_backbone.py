"""Backbone with alignment before it and between its stages (FYD, Fig. 1)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn

from anomem.detectors.fyd.alignment import FeatureAligner, ImageAligner, Padding, compose, identity, in_frame, warp
from anomem.errors import ParameterError
from anomem.nn.backbones import Backbone, FeatureInfo
from anomem.nn.token_maps import TokenMaps


class Aligned(NamedTuple):
    """Batch of images in the common frame: maps and warps.

    Parameters
    ----------
    maps : list of Tensor
        Maps (B, C_s, h_s, w_s), one per stage.
    last : Tensor
        The last stage's map as it leaves the last aligner: (B, C_L, h_L, w_L).
    images : Tensor
        (B, 3, S, S) float32, values 0 to 255, turned by the image aligner.
    thetas : list of Tensor
        Warps (B, 2, 3) in order of application: the image aligner's, then each stage's.
    """

    maps: list[Tensor]
    last: Tensor
    images: Tensor
    thetas: list[Tensor]

    def theta(self) -> Tensor:
        """Return all warps combined, from the common frame to the image's: (B, 2, 3)."""
        return reduce(compose, self.thetas)

    def seen(self, hw: tuple[int, int]) -> Tensor:
        """Return a mask (B, h, w) float32: 1 where a position of the common frame shows the image, 0 where padding."""
        total = self.thetas[-1]
        seen = in_frame(total, hw)
        for theta in reversed(self.thetas[:-1]):
            total = compose(theta, total)
            seen = seen * in_frame(total, hw)
        return seen


class AlignedBackbone(nn.Module):
    """Backbone cut behind each wanted stage, with an image aligner before it and a feature aligner behind each cut.

    A transformer passes on tokens, which cannot be warped: it stays whole, and each of its maps is warped by the
    aligners of the stages before, as if they stood within the network.

    Parameters
    ----------
    backbone : Backbone
        Backbone with its stages in order of computation; no embedding.
    hw : (int, int)
        Height and width of the images, pixels; equal where an image aligner turns them.
    image : dict or None
        Keyword arguments of :class:`~anomem.detectors.fyd.alignment.ImageAligner` beside the size; None: no ICA.
    feature : dict or None
        Keyword arguments of :class:`~anomem.detectors.fyd.alignment.FeatureAligner` beside the map's shape, and
        ``behind``, the numbers of the stages that have one (all by default); None: no FCA.
    padding : {"reflection", "border"}
        Content beyond the edge of an image or a map.
    common_frame : bool
        Bring earlier stages' maps to the frame of the last one, so that one position shows one place of
        the object in all of them; otherwise each is in the frame of its own aligner.

    Raises
    ------
    ParameterError
        For a backbone whose stages pass on more than one map.

    Attributes
    ----------
    maps : list of FeatureInfo
        Channels and size of each stage's map.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: Backbone,
        hw: tuple[int, int],
        *,
        image: dict[str, Any] | None,
        feature: dict[str, Any] | None,
        padding: Padding = "reflection",
        common_frame: bool = True,
    ) -> None:
        super().__init__()
        self.padding: Padding = padding
        self.common_frame = common_frame
        self.register_buffer("mean", backbone.mean.clone())
        self.register_buffer("std", backbone.std.clone())
        self.maps = maps = backbone.describe(hw)
        self.layers = backbone.layers
        self.whole = isinstance(backbone.model, TokenMaps)
        self.segments = nn.ModuleList([backbone.model] if self.whole else cut(backbone))
        self.image_aligner = None if image is None else ImageAligner(hw[0], **image)
        self.feature_aligners = None if feature is None else _aligners(maps, **feature)

    @property
    def aligns(self) -> bool:
        """True where there is any aligner."""
        return self.image_aligner is not None or self.feature_aligners is not None

    def forward(self, images: Tensor) -> Aligned:
        """Align images (B, 3, S, S), RGB with values 0 to 255, and extract their maps."""
        x, thetas = images.float(), [identity(images.shape[0], self.mean)]
        if self.image_aligner is not None:
            thetas[0] = self.image_aligner(x)
            x = warp(x, thetas[0], padding=self.padding)
        turned, raw, own = x, [], []
        x = ((x - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        found = self.segments[0](x) if self.whole else {}
        for stage, layer in enumerate(self.layers):
            if self.whole:
                x = self._as_within(found[layer], thetas[1:])
            else:
                x = self.segments[stage](x.contiguous(memory_format=torch.channels_last))
            raw.append(x)
            if self.feature_aligners is not None:
                aligner = self.feature_aligners[stage]
                thetas.append(aligner(x) if isinstance(aligner, FeatureAligner) else identity(len(x), self.mean))
                x = warp(x, thetas[-1], padding=self.padding)
            own.append(x)
        return Aligned(self._in_common_frame(raw, own, thetas[1:]), x, turned, thetas)

    def _as_within(self, found: Tensor, thetas: list[Tensor]) -> Tensor:
        """Warp a map of the whole network by the feature aligners of the stages before it."""
        return warp(found, reduce(compose, thetas), padding=self.padding) if thetas else found

    def _in_common_frame(self, raw: list[Tensor], own: list[Tensor], thetas: list[Tensor]) -> list[Tensor]:
        """Warp every stage's map to the last one's frame, each resampled once."""
        if self.feature_aligners is None or not self.common_frame:
            return own
        maps, total = [own[-1]], thetas[-1]
        for before, theta in zip(reversed(raw[:-1]), reversed(thetas[:-1]), strict=True):
            total = compose(theta, total)
            maps.append(warp(before, total, padding=self.padding))
        return maps[::-1]


def _aligners(maps: Sequence[FeatureInfo], *, behind: Sequence[int] | None = None, **feature: Any) -> nn.ModuleList:
    """Return a feature aligner per stage, or the identity at those that `behind` leaves out."""
    chosen = range(len(maps)) if behind is None else behind
    found = (FeatureAligner(m.channels, m.hw, **feature) if i in chosen else nn.Identity() for i, m in enumerate(maps))
    return nn.ModuleList(found)


def cut(backbone: Backbone) -> list[nn.Module]:
    """Cut a backbone behind each of its stages: modules from the normalised image, or a stage's map, to the next.

    Raises
    ------
    ParameterError
        Where a stage needs more than the map of the one before it.
    """
    backbone.model.eval()
    graph: Any = backbone.model.graph
    (output,) = (node for node in graph.nodes if node.op == "output")
    ends = [output.args[0][layer] for layer in backbone.layers]
    source = next(node for node in graph.nodes if node.op == "placeholder")
    segments = []
    for end in ends:
        segments.append(_segment(backbone, graph, source, end))
        source = end
    return segments


def _segment(backbone: Backbone, graph: Any, source: fx.Node, end: fx.Node) -> nn.Module:
    """Return the part of a graph that leads from one node to another, as a module."""
    needed, pending = {source}, [end]
    while pending:
        node = pending.pop()
        if node in needed:
            continue
        if node.op == "placeholder":
            raise ParameterError(
                f"{backbone.name} cannot be cut at {backbone.layers}: give stages in order, each fed by the one before"
            )
        needed.add(node)
        pending += node.all_input_nodes
    part = fx.Graph()
    copies = {source: part.placeholder("x")}
    for node in graph.nodes:
        if node in needed and node is not source:
            copies[node] = part.node_copy(node, lambda n: copies[n])
    part.output(copies[end])
    module = fx.GraphModule(backbone.model, part)
    module.eval()
    return module


def spread_of(thetas: Sequence[Tensor]) -> dict[str, float]:
    """Return how much the warps of a batch differ, to watch the training.

    Parameters
    ----------
    thetas : sequence of Tensor
        Warps (B, 2, 3) each, as in :class:`Aligned`.

    Returns
    -------
    dict
        ``angle_spread``: circular standard deviation of the rotations, degrees, at most 360. ``scale_spread``:
        standard deviation of the magnifications. ``shift_spread``: of the shifts, 1 being half the image's side.
    """
    total = reduce(compose, [theta.detach().float() for theta in thetas])
    direction = torch.stack([total[:, 0, 0] + total[:, 1, 1], total[:, 1, 0] - total[:, 0, 1]], dim=1)
    concentration = nn.functional.normalize(direction, dim=1).mean(dim=0).norm().clamp(1e-8, 1.0)
    area = (total[:, 0, 0] * total[:, 1, 1] - total[:, 0, 1] * total[:, 1, 0]).abs()
    return {
        "angle_spread": float(torch.rad2deg((-2 * concentration.log()).sqrt())),
        "scale_spread": float(area.sqrt().std(correction=0)),
        "shift_spread": float(total[:, :, 2].std(dim=0, correction=0).norm()),
    }
