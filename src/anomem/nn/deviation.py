"""Deviations from a multi-scale memory of normal features: AnoMem's score without labels."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anomem.errors import ParameterError
from anomem.nn.hopfield import HopfieldMemory
from anomem.nn.normalise import Normaliser

Norms: TypeAlias = Sequence[Tensor] | Mapping[int, Tensor]
"""Norm map of each scale, or of some scales by number."""

PRIOR_IMAGES = 200.0
"""Weight, in images, of the prior that all positions of a scale are alike; that of version 0.1."""


def _coordinates(hw: tuple[int, int]) -> Tensor:
    """Return the centres of positions in shares of height and width, (2, h, w)."""
    rows, columns = ((torch.arange(n, dtype=torch.float32) + 0.5) / n for n in hw)
    return torch.stack(torch.meshgrid(rows, columns, indexing="ij"))


class ScaleMemory(nn.Module):
    """One scale: neighbourhood average, normalisation, memory, and deviation from the memory.

    Parameters
    ----------
    channels : int
        Number of channels of the backbone's map, C.
    hw : tuple of int
        Height and width of the backbone's map.
    n_items : int
        Number of memory items; 0: no memory, retrievals are the mean (zero in whitened space).
    neighbourhood : int
        Side of the average pooling (stride 1) around each position; odd, 1: off.
    normalise : {"whiten", "unit", "layernorm", "raw"}
        Space in which vectors are compared.
    position_mean : bool
        Subtract a mean per position when whitening (aligned objects) instead of one mean.
    max_grid : int
        Maximum number of positions per side; finer maps are averaged down.
    unit_norm : bool
        Scale vectors to unit norm before whitening.
    place_weight : float
        Weight w of the position: w times its coordinates (0 to 1 from the top and from the left) is appended to
        vectors and items, so that items at another place are farther away. 0: off.
    beta, hard, steps, association
        As for :class:`~anomem.nn.hopfield.HopfieldMemory`.
    """

    places: Tensor

    def __init__(
        self,
        channels: int,
        hw: tuple[int, int],
        *,
        n_items: int,
        neighbourhood: int,
        normalise: Any,
        position_mean: bool,
        max_grid: int,
        unit_norm: bool = True,
        place_weight: float = 0.0,
        **retrieval: Any,
    ) -> None:
        super().__init__()
        self.channels, self.dim = channels, channels + (2 if place_weight else 0)
        self.neighbourhood = neighbourhood if max(hw) > 1 else 1
        self.shrink = max(1, -(-max(hw) // max_grid))
        self.hw = (-(-hw[0] // self.shrink), -(-hw[1] // self.shrink))
        self.retrieval = retrieval
        self.normaliser = Normaliser(normalise, channels, self.hw if position_mean else None, unit=unit_norm)
        self.place_weight = place_weight
        self.register_buffer("places", None, persistent=False)
        self.memory = HopfieldMemory(n_items, self.dim, **retrieval) if n_items else None
        self.compute_places()

    def compute_places(self) -> None:
        """Set the weighted coordinates of the positions, (2 or 0, h, w), which no file holds."""
        weight = self.place_weight
        self.places = weight * _coordinates(self.hw) if weight else torch.zeros(0, *self.hw)

    def gather(self, maps: Tensor) -> Tensor:
        """Average each position with its neighbours (borders average what there is), then down to the grid; float32."""
        maps, side = maps.float(), self.neighbourhood
        if side > 1:
            maps = F.avg_pool2d(maps, side, stride=1, padding=side // 2, count_include_pad=False)
        return maps if self.shrink == 1 else F.avg_pool2d(maps, self.shrink, ceil_mode=True)

    def embed(self, maps: Tensor) -> Tensor:
        """Return features (B, D, h, w) in the space of the association: C channels, then the weighted place."""
        embedded: Tensor = self.normaliser(self.gather(maps))
        if self.dim == self.channels:
            return embedded
        return torch.cat([embedded, self.places.expand(embedded.shape[0], -1, -1, -1)], dim=1)

    def embed_vectors(self, vectors: Tensor, positions: Tensor) -> Tensor:
        """Return vectors (M, C) at flat positions (M,) in the space of the association, (M, D)."""
        embedded = self.normaliser.vectors(vectors, positions)
        return torch.cat([embedded, self.places.flatten(1)[:, positions].T], dim=1)

    def recall(self, vectors: Tensor) -> Tensor:
        """Return HF(z) for vectors (..., C) of that space."""
        return torch.zeros_like(vectors) if self.memory is None else self.memory(vectors)

    def forward(self, maps: Tensor) -> Tensor:
        """Return Delta = z - HF(z) at every position (Eq. 8): (B, C, h, w) to (B, C, h, w), without the place."""
        return self.difference(maps)[:, : self.channels]

    def difference(self, maps: Tensor) -> Tensor:
        """Return z - HF(z) in the space of the association, whose norms count: (B, C, h, w) to (B, D, h, w)."""
        z = self.embed(maps).permute(0, 2, 3, 1)
        return (z - self.recall(z)).permute(0, 3, 1, 2)

    def norms(self, maps: Tensor) -> Tensor:
        """Return the norm of the difference at every position, (B, C, h, w) to (B, h, w), without it where possible."""
        z = self.embed(maps).permute(0, 2, 3, 1)
        return z.norm(dim=-1) if self.memory is None else self.memory.distances(z)

    def deviation(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Return Delta (B, C, h, w) and the norm (B, h, w) from one pass over the memory, as `forward` and `norms`."""
        z = self.embed(maps).permute(0, 2, 3, 1)
        if self.memory is None:
            return z.permute(0, 3, 1, 2)[:, : self.channels], z.norm(dim=-1)
        recalled, norms = self.memory.recall_with_distances(z)
        return (z - recalled).permute(0, 3, 1, 2)[:, : self.channels], norms


class MapFusion(nn.Module):
    """Fusion of several scales' deviation norms to one map and one score (Eq. 9 and 13).

    Parameters
    ----------
    hws : list of tuple of int
        Height and width of each scale's map.
    weights : list of float
        lambda per scale, >= 0; 0: the scale does not count in the score.
    map_weights : list of float, optional
        Weights of the scales in the map that is shown, >= 0. None: one map serves both.
    input_hw : (int, int)
        Height and width of the model's input, pixels.
    reduction : {"l2", "max", "top"}
        "l2": the paper's L2 norm over each scale's map, scales fused afterwards. "max" and "top": maximum, or mean of
        the highest `top` share, of the fused map.
    top : float
        Share of the map that "top" averages.
    smoothing : float
        Standard deviation of the Gaussian on the fused map, in pixels of the model's input; 0: none.
    standardise : {"position", "scale", "none"}
        Standardisation of the norms before the fusion, by mean and deviation of normals: per position, per
        scale, or none (the paper). The statistic of the reduction (a map's L2 norm, else its maximum) is
        then brought to mean 0 and deviation 1 on tune normals, so that no scale outvotes another.
    position_prior : float
        Weight, in images, of the prior that all positions are alike, for standardisation per position.
    map_standardise : {"position", "scale", "none"}, optional
        The same of a map that is shown with `map_weights` of its own. None: as `standardise`.

    Notes
    -----
    The standardisation is one affine map per position, ``(norm - location) / spread``, and one per scale for L2 norms;
    the buffers are learnt by :meth:`standardise_on`. A scale of a single position has no place on the map and counts in
    L2 norms only. The map has twice the positions of the finest scale, per axis, at most those of the input.
    """

    weights: Tensor
    map_weights: Tensor
    totals: Tensor
    kernel: Tensor

    def __init__(
        self,
        hws: Sequence[tuple[int, int]],
        weights: Sequence[float],
        *,
        input_hw: tuple[int, int],
        reduction: str,
        top: float,
        smoothing: float,
        standardise: str,
        map_weights: Sequence[float] | None = None,
        map_standardise: str | None = None,
        position_prior: float = PRIOR_IMAGES,
    ) -> None:
        super().__init__()
        self.reduction, self.top, self.standardise = reduction, top, standardise
        self.position_prior = position_prior
        self.on_map = _placed(hws, weights)
        self.shown = None if map_weights is None else _placed(hws, map_weights)
        self.grid_hw = max(hws, key=math.prod)
        self.map_hw = _map_hw(hws, input_hw)
        self.register_buffer("weights", torch.tensor(weights, dtype=torch.float32))
        shown = torch.tensor(map_weights or weights, dtype=torch.float32, device="cpu")  # No file holds them.
        self.register_buffer("map_weights", shown, persistent=False)
        self.register_buffer("totals", torch.tensor([0.0, 1.0]).repeat(len(hws), 1))
        self.register_buffer("kernel", _gaussian(smoothing * max(self.map_hw) / max(input_hw)))
        self.standardisations = {"": standardise}
        if self.shown is not None and map_standardise not in (None, standardise):
            self.standardisations["map_"] = str(map_standardise)
        for prefix in self.standardisations:
            for s, hw in enumerate(hws):
                self.register_buffer(f"{prefix}location_{s}", torch.zeros(hw))
                self.register_buffer(f"{prefix}spread_{s}", torch.ones(hw))

    def standardise_on(self, tune: Sequence[Tensor], profile: Sequence[Tensor]) -> None:
        """Learn the distribution of the norms of normals.

        Parameters
        ----------
        tune : sequence of Tensor
            Norms of tune normals, (N, h, w) per scale.
        profile : sequence of Tensor
            Norms of some training images, (M, h, w) per scale: too small as such, but they
            show where on the map norms are large, which a few tune normals alone estimate badly. M may be 0.
        """
        pairs = [(t.double().cpu(), p.double().cpu()) for t, p in zip(tune, profile, strict=True)]
        for prefix, kind in self.standardisations.items():
            for s, (norms, learnt) in enumerate(pairs if kind != "none" else ()):
                location, width = self._affine(norms, learnt, kind)
                self.get_buffer(f"{prefix}location_{s}").copy_(location.expand(norms.shape[1:]))
                self.get_buffer(f"{prefix}spread_{s}").copy_(width.expand(norms.shape[1:]))
        for s, (norms, _) in enumerate(pairs if self.standardise != "none" else ()):
            totals = norms.square().sum(dim=(1, 2)).sqrt()
            self.totals[s] = torch.stack([totals.mean(), spread(totals)])

    def _affine(self, norms: Tensor, learnt: Tensor, kind: str) -> tuple[Tensor, Tensor]:
        """Return what the norms of a scale are moved by and divided by."""
        location, width = _scale_affine(norms)
        if kind == "position" and max(norms.shape[1:]) > 1:
            location, width = _position_affine(norms, learnt, self.position_prior)
        if self.reduction == "l2":
            return location, width
        peaks = ((norms - location) / width).flatten(1).amax(dim=1)
        return location + peaks.mean() * width, width * spread(peaks)

    def forward(self, norms: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Fuse norm maps [(B, h_s, w_s)] to a score (B,) and a map (B, *map_hw)."""
        if self.shown is None:
            fused = self._fused_map(norms, self.weights, self.on_map)
            return self._score(norms, fused), fused
        shown = self._fused_map(norms, self.map_weights, self.shown, list(self.standardisations)[-1])
        judged = shown if self.reduction == "l2" else self._fused_map(norms, self.weights, self.on_map)
        return self._score(norms, judged), shown

    @property
    def judged(self) -> list[int]:
        """Scales that the score is made of."""
        return list(range(len(self.weights))) if self.reduction == "l2" else self.on_map

    def score(self, norms: Norms) -> Tensor:
        """Fuse the norm maps (B, h_s, w_s) of the scales `judged` to a score (B,), as `forward` does."""
        if self.reduction == "l2":
            return self._fused_totals([norms[s] for s in self.judged])
        return self._reduced(self._fused_map(norms, self.weights, self.on_map))

    def _score(self, norms: Sequence[Tensor], fused: Tensor) -> Tensor:
        """Reduce norms and their fused map to a score, (B,)."""
        return self._fused_totals(norms) if self.reduction == "l2" else self._reduced(fused)

    def _reduced(self, fused: Tensor) -> Tensor:
        if self.reduction == "max":
            return fused.amax(dim=(1, 2))
        flat = fused.flatten(1)
        count = max(1, round(self.top * flat.shape[1]))
        return flat.topk(count, dim=1).values.mean(dim=1)

    def _fused_totals(self, norms: Sequence[Tensor]) -> Tensor:
        """Return Eq. 9 per scale, standardised, then fused by Eq. 13."""
        totals = torch.stack([n.square().sum(dim=(1, 2)).sqrt() for n in norms], dim=1)
        standard = (totals - self.totals[:, 0]) / self.totals[:, 1]
        return (standard * self.weights).sum(dim=1) / self.weights.sum()

    def _fused_map(self, norms: Norms, weights: Tensor, scales: Sequence[int], prefix: str = "") -> Tensor:
        """Return norms per position, standardised, up-sampled, fused with lambda (Eq. 13), smoothed."""
        layers = []
        for alike in self._alike(scales):
            weighted = [weights[s] * self._standard(s, norms[s], prefix) for s in alike]
            layers.append(_resized(reduce(operator.add, weighted)[:, None], self.map_hw))
        return smooth(sum(layers) / weights[scales].sum(), self.kernel)[:, 0]

    def _alike(self, scales: Sequence[int]) -> list[list[int]]:
        """Group scales that are up-sampled together: those of one grid, whose sum is up-sampled once.

        With one map for both, every scale alone: models of version 0.1 keep their scores to the bit.
        """
        if self.shown is None:
            return [[s] for s in scales]
        by_grid: dict[tuple[int, ...], list[int]] = {}
        for s in scales:
            by_grid.setdefault(tuple(self.get_buffer(f"location_{s}").shape), []).append(s)
        return list(by_grid.values())

    def _standard(self, scale: int, norms: Tensor, prefix: str) -> Tensor:
        return (norms - self.get_buffer(f"{prefix}location_{scale}")) / self.get_buffer(f"{prefix}spread_{scale}")


def _placed(hws: Sequence[tuple[int, int]], weights: Sequence[float]) -> list[int]:
    """Return the scales of a map: those that count and have several positions, or single positions where all have."""
    placed = [s for s, hw in enumerate(hws) if max(hw) > 1] or list(range(len(hws)))
    counted = [s for s in placed if weights[s] > 0]
    if not counted:
        raise ParameterError("weights: 0 for every scale of the map; give one of them a weight above 0")
    return counted


def smooth(maps: Tensor, kernel: Tensor) -> Tensor:
    """Blur (B, 1, h, w) maps by a separable Gaussian; borders are replicated."""
    reach = kernel.numel() // 2
    if reach == 0:
        return maps
    padded = F.pad(maps, (reach, reach, reach, reach), mode="replicate")
    return F.conv2d(F.conv2d(padded, kernel.view(1, 1, -1, 1)), kernel.view(1, 1, 1, -1))


def fitted_limit(hw: tuple[int, int], input_hw: tuple[int, int], size: int, max_grid: int) -> int:
    """Return the limit on positions per side at which a rectangular map is averaged as a square one is by `max_grid`.

    Parameters
    ----------
    hw : (int, int)
        Height and width of the backbone's map for inputs of `input_hw`.
    input_hw : (int, int)
        Height and width of the inputs, pixels.
    size : int
        Side of square inputs, for which `max_grid` is meant.
    max_grid : int
        Maximum positions per side of a square map.

    Examples
    --------
    >>> fitted_limit((48, 72), (192, 288), 224, 28)  # 56 x 56 positions of a square are halved
    36
    """
    if hw[0] == hw[1] or max_grid == 1:
        return max_grid
    side = math.sqrt(math.prod(hw) / math.prod(input_hw)) * size
    shrink = max(1, math.ceil(round(side, 6) / max_grid))
    return math.ceil(max(hw) / shrink)


def _map_hw(hws: Sequence[tuple[int, int]], input_hw: tuple[int, int]) -> tuple[int, int]:
    finest = [max(sides) for sides in zip(*hws, strict=True)]
    if max(finest) == 1:
        return 1, 1
    height, width = (min(pixels, 2 * positions) for pixels, positions in zip(input_hw, finest, strict=True))
    return height, width


def _resized(maps: Tensor, hw: tuple[int, int]) -> Tensor:
    return F.interpolate(maps, size=hw, mode="bilinear", align_corners=False)


def _gaussian(sigma: float) -> Tensor:
    if sigma <= 0:
        return torch.ones(1)
    reach = math.ceil(3 * sigma)
    weights = torch.exp(-torch.arange(-reach, reach + 1, dtype=torch.float32).square() / (2 * sigma**2))
    return weights / weights.sum()


def _scale_affine(norms: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and deviation of all norms of a scale."""
    return norms.mean(), spread(norms)


def _position_affine(norms: Tensor, learnt: Tensor, prior: float) -> tuple[Tensor, Tensor]:
    """Return mean and deviation of the norms per position: two maps (h, w).

    Norms of training images are brought to the tune normals' mean and deviation before they are included. Both maps are
    shrunk towards one value, the more the fewer images there are; the result has mean 0 and deviation 1 on the tune
    normals as a whole.
    """
    pooled = norms
    if len(learnt):
        as_tune = (learnt - learnt.mean()) / spread(learnt) * spread(norms) + norms.mean()
        pooled = torch.cat([as_tune, norms])
    trust = len(pooled) / (len(pooled) + prior)
    means = pooled.mean(dim=0)
    variances = (pooled - means).square().mean(dim=0)
    location = trust * means + (1 - trust) * means.mean()
    width = (trust * variances + (1 - trust) * variances.mean()).sqrt().clamp_min(1e-9)
    standard = (norms - location) / width
    return location + standard.mean() * width, width * spread(standard)


def spread(values: Tensor) -> Tensor:
    """Return the standard deviation with a floor, so that constant deviations do not divide by zero."""
    return values.std(correction=0).clamp_min(1e-6 * (1 + float(values.abs().mean())))
