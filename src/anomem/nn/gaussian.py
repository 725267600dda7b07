"""One Gaussian per position of a feature map, and the Mahalanobis distance to it (PaDiM; FYD, Eq. 6)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anomem.errors import NotFittedError, ParameterError
from anomem.nn.precision import without_autocast

_CHUNK_ELEMENTS = 1_000_000
"""Number of matrix entries factored at once: 8 MB in float64, whatever the size of the map."""

_PENDING = 32
"""Number of images buffered before their vectors are added up: the sums are read and written once for all of them."""


class PositionGaussian(nn.Module):
    """Mean and covariance per position of a feature map.

    Parameters
    ----------
    channels : int, >= 1
        Number of channels, C.
    hw : (int, int)
        Height and width of the maps; P = h * w positions.

    Attributes
    ----------
    mean : buffer, (P, C), float32
        NaN until a :class:`GaussianMoments` fills it.
    whitening : buffer, (P, C, C), float32
        Upper triangular factors: for each covariance S = L L^T the transposed inverse of L, so that a row vector times
        it has the Mahalanobis distance as its length.

    Notes
    -----
    In memory the factors take 4 P C^2 bytes: 125 MB for 100 channels at 56 x 56 positions, 2.5 GB for 448. A
    ``state_dict``, and with it a model's file, holds their upper triangles only, ``(P, C (C + 1) / 2)``: half of that,
    to the bit. Half precision would halve it again and change distances by some 1e-3 of their size.

    References
    ----------
    Defard et al., "PaDiM", 2021, Eq. 1 and 2; Zheng et al., "Focus your distribution", 2022, Eq. 6.
    """

    mean: Tensor
    whitening: Tensor

    def __init__(self, channels: int, hw: tuple[int, int]) -> None:
        super().__init__()
        self.channels, self.hw = channels, (int(hw[0]), int(hw[1]))
        positions = self.hw[0] * self.hw[1]
        # NaN until fitted, so that an unfitted distance is noticed.
        self.register_buffer("mean", torch.full((positions, channels), torch.nan))
        self.register_buffer("whitening", torch.full((positions, channels, channels), torch.nan))
        self.register_state_dict_post_hook(_packed)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_unpacked)  # type: ignore[no-untyped-call]

    def extra_repr(self) -> str:
        """Describe the module in ``repr``."""
        return f"channels={self.channels}, hw={self.hw}"

    def forward(self, maps: Tensor) -> Tensor:
        """Return the Mahalanobis distance of every position's vector to that position's Gaussian.

        Parameters
        ----------
        maps : Tensor, (B, C, h, w), floating
            Maps of the declared size; any precision, the distance is computed in float32.

        Returns
        -------
        Tensor, (B, h, w), float32, >= 0
        """
        with without_autocast(maps.device):
            vectors = maps.float().permute(2, 3, 0, 1).flatten(0, 1).contiguous()
            # The mean goes first: behind the product, which may amplify a hundredfold, digits would be lost.
            whitened = torch.bmm(vectors - self.mean[:, None], self.whitening)
            distances: Tensor = torch.linalg.vector_norm(whitened, dim=2)
            return distances.T.reshape(-1, *self.hw)


class GaussianMoments:
    """Moments of maps for a :class:`PositionGaussian`, accumulated batch by batch.

    Sums and sums of outer products are kept in float64 around the mean of the first images, so that features far from
    the origin lose no digits; memory is 8 P C (C + 32) bytes (331 MB for 100 channels at 56 x 56), whatever the number
    of images. They are added up 32 images at a time however the images come, so that batches do not matter, to the bit.

    Parameters
    ----------
    channels : int, >= 1
        Number of channels, C.
    hw : (int, int)
        Height and width of the maps; P = h * w positions.
    """

    def __init__(self, channels: int, hw: tuple[int, int]) -> None:
        self.channels, self.hw = channels, (int(hw[0]), int(hw[1]))
        self._counts = torch.zeros(self.hw[0] * self.hw[1], dtype=torch.float64)
        self._origin: Tensor | None = None
        self._sums = self._products = torch.zeros(0)
        self._waiting, self._vectors, self._valid = 0, torch.zeros(0), torch.zeros(0)

    @torch.no_grad()
    def update(self, maps: Tensor, weight: Tensor | None = None) -> None:
        """Add a batch of feature maps.

        Parameters
        ----------
        maps : Tensor, (B, C, h, w), floating
            Maps, finite at the positions that count.
        weight : Tensor, (B, h, w), bool, optional
            Positions that count; all by default. Values at the others, NaN included, are ignored.

        Raises
        ------
        ParameterError
            If a shape is not the declared one.
        """
        expected = (len(maps), self.channels, *self.hw)
        if tuple(maps.shape) != expected:
            raise ParameterError(f"feature maps must be {('B', *expected[1:])}, got {tuple(maps.shape)}")
        if weight is not None and tuple(weight.shape) != (len(maps), *self.hw):
            raise ParameterError(f"the weight must be {(len(maps), *self.hw)}, got {tuple(weight.shape)}")
        # Apple's GPU has no float64.
        maps = maps.cpu() if maps.device.type == "mps" else maps
        if not len(self._vectors):
            self._begin(maps)
        taken = 0
        while taken < len(maps):
            count = min(_PENDING - self._waiting, len(maps) - taken)
            part = slice(taken, taken + count)
            self._wait(maps[part], None if weight is None else weight[part])
            taken += count

    def _begin(self, maps: Tensor) -> None:
        positions, channels = len(self._counts), self.channels
        self._counts = self._counts.to(maps.device)
        self._sums = maps.new_zeros(positions, channels, dtype=torch.float64)
        self._products = maps.new_zeros(positions, channels, channels, dtype=torch.float64)
        self._vectors = maps.new_empty(positions, _PENDING, channels, dtype=torch.float64)
        self._valid = maps.new_empty(positions, _PENDING, dtype=torch.bool)

    def _wait(self, maps: Tensor, weight: Tensor | None) -> None:
        """Buffer images while there is room; add all up when it is full."""
        seats = slice(self._waiting, self._waiting + len(maps))
        self._vectors[:, seats].unflatten(0, self.hw).copy_(maps.permute(2, 3, 0, 1))
        if weight is None:
            self._valid[:, seats] = True
        else:
            self._valid[:, seats].unflatten(0, self.hw).copy_(weight.permute(1, 2, 0))
        self._waiting += len(maps)
        if self._waiting == _PENDING:
            self._add_up()

    @torch.no_grad()
    def _add_up(self) -> None:
        if not self._waiting:
            return
        vectors, valid = self._vectors[:, : self._waiting], self._valid[:, : self._waiting]
        self._waiting = 0
        if not valid.any():
            return
        if self._origin is None:
            self._origin = vectors[valid].mean(dim=0)
        vectors -= self._origin
        if not valid.all():
            vectors.masked_fill_(~valid[:, :, None], 0.0)
        self._counts += valid.sum(dim=1)
        self._sums += vectors.sum(dim=1)
        self._products.baddbmm_(vectors.mT, vectors)

    @property
    def counts(self) -> Tensor:
        """Vectors seen at each position: (P,) float64."""
        self._add_up()
        return self._counts

    def mean(self) -> Tensor:
        """Return the mean per position, (P, C) float64; a position without vectors takes the mean of all.

        Raises
        ------
        NotFittedError
            Before any update.
        """
        origin = self._seen()
        means = self._sums / self.counts.clamp_min(1)[:, None]
        means[self.counts == 0] = self._sums.sum(dim=0) / self.counts.sum()
        return origin + means

    def covariances(self) -> Iterator[tuple[slice, Tensor]]:
        """Yield the unbiased sample covariance per position, some positions at a time.

        A single vector has no covariance: zeros. A position without vectors takes the covariance of all
        vectors of all positions.

        Yields
        ------
        slice
            Positions.
        Tensor, (p, C, C), float64

        Raises
        ------
        NotFittedError
            Before any update.
        """
        self._seen()
        step = max(1, _CHUNK_ELEMENTS // self.channels**2)
        for start in range(0, len(self.counts), step):
            part = slice(start, start + step)
            counts = self.counts[part]
            found = _covariance(self._products[part], self._sums[part], counts)
            if (counts == 0).any():
                found[counts == 0] = _covariance(
                    self._products.sum(dim=0)[None], self._sums.sum(dim=0)[None], self.counts.sum()[None]
                )
            yield part, found

    def result(self, ridge: float) -> PositionGaussian:
        """Return a new module with the Gaussians, on the device of the maps; errors as of :meth:`fill`."""
        gaussian = PositionGaussian(self.channels, self.hw).to(self._seen().device)
        self.fill(gaussian, ridge)
        return gaussian.eval()

    @torch.no_grad()
    def fill(self, gaussian: PositionGaussian, ridge: float) -> None:
        """Write the Gaussians into a module, on any device.

        Parameters
        ----------
        gaussian : PositionGaussian
            Module of the same channels and size.
        ridge : float, > 0
            Added to the diagonal of every covariance, in squared units of the features (PaDiM: 0.01).

        Raises
        ------
        NotFittedError
            Before any update.
        ParameterError
            If a covariance with this ridge cannot be inverted.
        """
        gaussian.mean.copy_(self.mean())
        identity = torch.eye(self.channels, dtype=torch.float64, device=self.counts.device)
        for part, covariance in self.covariances():
            factors, failed = torch.linalg.cholesky_ex(covariance + ridge * identity)
            if failed.any():
                raise ParameterError(f"ridge={ridge:g}: a covariance cannot be inverted; raise ridge")
            inverse = torch.linalg.solve_triangular(factors, identity.expand_as(factors), upper=False)
            gaussian.whitening[part].copy_(inverse.mT)

    def _seen(self) -> Tensor:
        self._add_up()
        if self._origin is None:
            raise NotFittedError("no feature maps were gathered; call update first")
        return self._origin


def concatenate_maps(features: Sequence[Tensor], channels: Sequence[Tensor] | None = None) -> Tensor:
    """Bring the maps of several stages to the finest grid and stack their channels (PaDiM's patch embedding).

    Parameters
    ----------
    features : sequence of Tensor
        Maps (B, C_s, h_s, w_s), one per stage.
    channels : sequence of Tensor, optional
        Channels kept per stage, (c_s,) int64: the same as selecting them from the result, without
        building the rest. See :func:`split_channels`.

    Returns
    -------
    Tensor, (B, C, h, w)
        Stacked maps on the grid with most positions; coarser maps repeat their nearest value, as in the paper.
    """
    finest = max((tuple(f.shape[-2:]) for f in features), key=lambda hw: int(hw[0]) * int(hw[1]))
    kept = features if channels is None else [f.index_select(1, c) for f, c in zip(features, channels, strict=True)]
    # A stage without kept channels cannot be interpolated.
    there = [f for f in kept if f.shape[1]]
    same = [f if tuple(f.shape[-2:]) == finest else F.interpolate(f, size=finest, mode="nearest") for f in there]
    return torch.cat(same, dim=1)


def choose_channels(total: int, count: int | None, rng: torch.Generator) -> Tensor:
    """Draw channels at random, each equally likely (PaDiM's reduction of the embedding).

    Parameters
    ----------
    total : int
        Number of available channels.
    count : int or None
        Number of channels to draw; None: all of them, without a draw.
    rng : torch.Generator
        CPU generator.

    Returns
    -------
    Tensor, (count,), int64
        Sorted channels.

    Raises
    ------
    ParameterError
        If more are wanted than there are.
    """
    if count is None:
        return torch.arange(total)
    if not 1 <= count <= total:
        raise ParameterError(f"{count} channels cannot be drawn from {total}; reduce the number, or set None for all")
    return torch.randperm(total, generator=rng)[:count].sort().values


def split_channels(chosen: Tensor, counts: Sequence[int]) -> list[Tensor]:
    """Turn channels of a concatenation into channels of each stage.

    Parameters
    ----------
    chosen : Tensor, (C,), int64
        Sorted channels, as returned by :func:`choose_channels`.
    counts : sequence of int
        Number of channels per stage, C_s.

    Returns
    -------
    list of Tensor
        Channels per stage, (c_s,) int64, values below C_s.
    """
    found, start = [], 0
    for count in counts:
        found.append(chosen[(chosen >= start) & (chosen < start + count)] - start)
        start += count
    return found


def _covariance(products: Tensor, sums: Tensor, counts: Tensor) -> Tensor:
    """Return unbiased covariances (p, C, C) from sums (p, C, C), (p, C), (p,) around any origin."""
    explained = sums[:, :, None] * (sums / counts.clamp_min(1)[:, None])[:, None, :]
    covariance = (products - explained) / (counts - 1).clamp_min(1)[:, None, None]
    return (covariance + covariance.mT) / 2


def _triangle(channels: int, device: torch.device) -> tuple[Tensor, Tensor]:
    rows, columns = torch.triu_indices(channels, channels, device=device)
    return rows, columns


def _packed(_module: nn.Module, state: dict[str, Any], prefix: str, _metadata: dict[str, Any]) -> None:
    """Drop the zeros below the diagonal from a state_dict."""
    dense = state[prefix + "whitening"]
    rows, columns = _triangle(dense.shape[-1], dense.device)
    state[prefix + "whitening"] = dense[:, rows, columns]


def _unpacked(module: PositionGaussian, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Restore the zeros below the diagonal; other shapes are left for ``load_state_dict`` to refuse."""
    packed, shape = state.get(prefix + "whitening"), module.whitening.shape
    if packed is None or packed.shape != (shape[0], shape[1] * (shape[1] + 1) // 2):
        return
    rows, columns = _triangle(shape[1], packed.device)
    dense = packed.new_zeros(shape)
    dense[:, rows, columns] = packed
    state[prefix + "whitening"] = dense
