"""Normalisation of backbone features before a memory."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anomem.errors import NotFittedError, ParameterError
from anomem.nn.precision import without_autocast

Mode = Literal["whiten", "unit", "layernorm", "raw"]
_MODES = ("whiten", "unit", "layernorm", "raw")

_RELATIVE_FLOOR = 1e-6
_ABSOLUTE_FLOOR = 1e-12
"""Floor of the eigenvalues that are divided by: a share of the mean one, and a value for constant features."""


class FeatureMoments:
    """First and second moments of feature vectors, accumulated batch by batch in float64.

    Sums are kept around the mean of the first batch, so that features far from the origin lose no
    digits.

    Parameters
    ----------
    dim : int, >= 1
        Number of channels, C.
    hw : (int, int) or None
        Size of the maps for a mean per position. None: maps of any size, one mean.
    unit : bool
        Scale each vector to unit norm first, as the "whiten" mode of `Normaliser` needs it.

    Attributes
    ----------
    count : int
        Number of vectors added.
    """

    def __init__(self, dim: int, hw: tuple[int, int] | None = None, *, unit: bool = True) -> None:
        self.dim = dim
        self.hw = hw
        self.unit = unit
        self.count = 0
        self._n_maps = 0
        self._origin = torch.zeros(0)
        self._sums = torch.zeros(0)
        self._products = torch.zeros(0)

    @torch.no_grad()
    def update(self, maps: Tensor) -> None:
        """Add a batch of feature maps.

        Parameters
        ----------
        maps : Tensor, (B, C, h, w), floating
            Maps; pooled vectors are maps of 1 x 1.

        Raises
        ------
        ParameterError
            If the shape is not the declared one.
        """
        wrong_size = self.hw is not None and maps.shape[2:] != self.hw
        if maps.ndim != 4 or maps.shape[1] != self.dim or wrong_size:
            size = self.hw or ("h", "w")
            raise ParameterError(f"feature maps must be (B, {self.dim}, {size[0]}, {size[1]}), got {tuple(maps.shape)}")
        # Apple's GPU has no float64.
        maps = (maps.cpu() if maps.device.type == "mps" else maps).double()
        if self.unit:
            maps = F.normalize(maps, dim=1)
        if not self.count:
            self._origin = maps.mean(dim=(0, 2, 3))
            size = self.hw or (1, 1)
            self._sums = maps.new_zeros(self.dim, *size)
            self._products = maps.new_zeros(self.dim, self.dim)
        shifted = maps - self._origin[:, None, None]
        self._sums += shifted.sum(dim=0 if self.hw else (0, 2, 3)).reshape(self._sums.shape)
        vectors = shifted.transpose(0, 1).flatten(1)
        self._products.addmm_(vectors, vectors.T)
        self._n_maps += len(maps)
        self.count += vectors.shape[1]

    def mean(self) -> Tensor:
        """Return the mean of all vectors, (C,) float64."""
        self._check_seen()
        return self._origin + self._sums.sum(dim=(1, 2)) / self.count

    def mean_map(self) -> Tensor:
        """Return the mean per position, (C, h, w) float64; (C, 1, 1) if ``hw`` is None."""
        self._check_seen()
        if self.hw is None:
            return self.mean()[:, None, None]
        return self._origin[:, None, None] + self._sums / self._n_maps

    def covariance(self, *, per_position: bool | None = None) -> Tensor:
        """Return the covariance (population) around the mean.

        Parameters
        ----------
        per_position : bool or None
            Take the covariance around each position's own mean, pooled over positions, or around the one mean of all.
            None: per position where ``hw`` was given.

        Returns
        -------
        Tensor, (C, C), float64

        Raises
        ------
        NotFittedError
            Before the first `update`.
        ParameterError
            If ``per_position`` is asked for and ``hw`` was not given.
        """
        self._check_seen()
        if per_position is None:
            per_position = self.hw is not None
        if per_position and self.hw is None:
            raise ParameterError("a covariance per position needs moments with hw")
        if per_position:
            sums = self._sums.flatten(1)
            explained = sums @ sums.T / self._n_maps
        else:
            total = self._sums.sum(dim=(1, 2))
            explained = torch.outer(total, total) / self.count
        covariance = (self._products - explained) / self.count
        return (covariance + covariance.T) / 2

    def _check_seen(self) -> None:
        if not self.count:
            raise NotFittedError("no features were gathered; call update first")


class Normaliser(nn.Module):
    """Normaliser of the vectors of feature maps.

    ========== =====================================================================================
    mode       each vector becomes
    ========== =====================================================================================
    whiten     unit norm (with ``unit``), minus the mean (of its position where ``hw`` is given),
               PCA-whitened; learnt by `fit`, NaN before
    unit       unit norm
    layernorm  mean 0 and variance 1 over its channels
    raw        itself
    ========== =====================================================================================

    Parameters
    ----------
    mode : {"whiten", "unit", "layernorm", "raw"}
    dim : int, >= 1
        Number of channels, C.
    hw : (int, int) or None
        "whiten": subtract a mean for each position of maps of this size (aligned objects). None: one
        mean, maps of any size.
    unit : bool
        "whiten": scale vectors to unit norm first; False: their lengths count.

    Attributes
    ----------
    mean : buffer, (C, h, w) or (C, 1, 1), float32
        Mean, "whiten" only.
    projection : buffer, (C, C), float32
        Projection, "whiten" only; row i is the i-th principal axis over its standard deviation, widest first, at
        a common scale.

    Raises
    ------
    ParameterError
        If the mode is unknown.
    """

    mean: Tensor
    projection: Tensor

    def __init__(self, mode: Mode, dim: int, hw: tuple[int, int] | None = None, *, unit: bool = True) -> None:
        super().__init__()
        if mode not in _MODES:
            raise ParameterError(f"normalise must be one of {', '.join(_MODES)}, got {mode!r}")
        self.mode: Mode = mode
        self.dim = dim
        self.hw = hw
        self.unit = unit
        if mode == "whiten":
            # NaN until fitted, so that an untrained normaliser is noticed.
            self.register_buffer("mean", torch.full((dim, *(hw or (1, 1))), torch.nan))
            self.register_buffer("projection", torch.full((dim, dim), torch.nan))

    def extra_repr(self) -> str:
        """Describe the normaliser in ``repr``."""
        return f"mode={self.mode!r}, dim={self.dim}, hw={self.hw}, unit={self.unit}"

    @torch.no_grad()
    def fit(self, moments: FeatureMoments, shrinkage: float = 0.01, power: float = 1.0) -> None:
        """Learn mean and whitening; other modes learn nothing.

        Parameters
        ----------
        moments : FeatureMoments
            Moments with the normaliser's ``unit`` and ``dim``, and its ``hw`` unless that is None.
        shrinkage : float, in [0, 1]
            Shrinkage s: the covariance becomes (1 - s) cov + s (trace / C) I before it is inverted, which bounds
            the amplification of directions without variance.

        power : float, in [0, 1]
            Power of the standard deviation that each axis is divided by: 1 whitens, 0 leaves the axes as they are.
            Vectors of the fitting data have a mean squared norm of 1 in any case.

        Raises
        ------
        ParameterError
            If the shrinkage or power is out of range, or the moments are of other features.
        NotFittedError
            If the moments are empty.
        """
        if not 0 <= shrinkage <= 1:
            raise ParameterError(f"shrinkage must be from 0 to 1, got {shrinkage}")
        if not 0 <= power <= 1:
            raise ParameterError(f"the power of whitening must be from 0 to 1, got {power}")
        if self.mode != "whiten":
            return
        if moments.unit != self.unit or moments.dim != self.dim or self.hw not in (None, moments.hw):
            raise ParameterError(
                f"whitening needs moments with unit={self.unit}, dim={self.dim}, hw={self.hw}; "
                f"got unit={moments.unit}, dim={moments.dim}, hw={moments.hw}"
            )
        per_position = self.hw is not None
        covariance = moments.covariance(per_position=per_position)
        mean = moments.mean_map() if per_position else moments.mean()[:, None, None]
        self.mean.copy_(mean)
        self.projection.copy_(_whitening(covariance, shrinkage, power))

    def forward(self, maps: Tensor) -> Tensor:
        """Normalise maps.

        Parameters
        ----------
        maps : Tensor, (B, C, h, w), floating
            Maps of size ``hw`` where that was given.

        Returns
        -------
        Tensor, (B, C, h, w)
        """
        if self.mode == "raw":
            return maps
        if self.mode == "layernorm":
            return F.layer_norm(maps.movedim(1, -1), (self.dim,)).movedim(-1, 1)
        scaled = F.normalize(maps, dim=1) if self.unit or self.mode == "unit" else maps
        if self.mode == "unit":
            return scaled
        # The mean goes first: after the projection, which may amplify by 1e3, digits would be lost.
        with without_autocast(maps.device):
            centred = scaled.to(self.mean.dtype) - self.mean
            return F.conv2d(centred, self.projection[:, :, None, None])

    def to_channels(self) -> Tensor | None:
        """Return the rotation (C, C) from the axes of this whitening to the channels; None in other modes.

        Axes of another sample would depend on images in it: what these lack, no image in the sample has.
        """
        if self.mode != "whiten":
            return None
        return F.normalize(self.projection.double(), dim=1).T.to(self.projection.dtype)

    def vectors(self, vectors: Tensor, positions: Tensor) -> Tensor:
        """Normalise single vectors, as `forward` does at their positions.

        Parameters
        ----------
        vectors : Tensor, (M, C), float32
        positions : Tensor, (M,), int64
            Flat positions ``i * w + j``; ignored where there is one mean.

        Returns
        -------
        Tensor, (M, C)
        """
        if self.mode != "whiten":
            return self.forward(vectors[:, :, None, None])[:, :, 0, 0]
        means = self.mean.flatten(1)
        mean = means[:, positions].T if self.hw is not None else means.T
        scaled = F.normalize(vectors, dim=1) if self.unit else vectors
        return (scaled - mean) @ self.projection.T


class Whitening(nn.Module):
    """Pooled features, scaled to unit norm, along their principal axes: each of variance 1 among normals, of mean 1.

    Directions in which normals hardly differ count as much as others. The mean lies away from the origin, so that
    a linear map I + alpha beta^T moves every normal by much the same where beta is near 1.

    Parameters
    ----------
    dim : int, >= 1
        Number of features, D.
    """

    mean: Tensor
    axes: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("axes", torch.eye(dim))

    @torch.no_grad()
    def fit(self, moments: FeatureMoments, shrinkage: float) -> None:
        """Learn mean and axes from the moments of unit vectors; the covariance is shrunk (:func:`principal_axes`)."""
        variances, axes = principal_axes(moments.covariance(per_position=False), shrinkage)
        self.mean.copy_(moments.mean())
        self.axes.copy_(axes / variances.sqrt())

    def forward(self, features: Tensor) -> Tensor:
        """Whiten features, (N, D) to (N, D)."""
        return (F.normalize(features, dim=1) - self.mean) @ self.axes + 1


def principal_axes(covariance: Tensor, shrinkage: float) -> tuple[Tensor, Tensor]:
    """Return variances (D,) of a shrunk covariance (D, D) float64, largest first, and their axes (D, D) as columns.

    The covariance becomes (1 - s) cov + s (trace / D) I; no variance returned is below a millionth of the mean one.
    """
    from scipy.linalg import eigh  # torch's own does not converge on covariances of few vectors, on several threads

    mean_variance = covariance.diagonal().mean()
    identity = torch.eye(len(covariance), dtype=covariance.dtype, device=covariance.device)
    shrunk = (1 - shrinkage) * covariance + shrinkage * mean_variance * identity
    variances, axes = (torch.from_numpy(found).to(covariance) for found in eigh(shrunk.cpu().numpy()))
    floor = (_RELATIVE_FLOOR * mean_variance).clamp_min(_ABSOLUTE_FLOOR)
    return torch.maximum(variances, floor).flip(0), axes.flip(1)


def _whitening(covariance: Tensor, shrinkage: float, power: float) -> Tensor:
    """Return the whitening of a covariance, (C, C) float64: principal axes over their (power of) deviations as rows."""
    variances, axes = principal_axes(covariance, shrinkage)
    # An axis has no sign of its own: its largest entry is made positive, so that files agree.
    signs = axes.gather(0, axes.abs().argmax(dim=0, keepdim=True)).sign()
    projection: Tensor = (axes * signs / variances ** (power / 2)).T
    # One mean squared norm for all modes: beta has the same meaning as on unit vectors.
    mean_square = (projection @ covariance @ projection.T).trace()
    return projection / mean_square.clamp_min(_ABSOLUTE_FLOOR).sqrt()
