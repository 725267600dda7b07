"""Class-balanced kernel ridge regression from distances, and the test whether labels help."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

RIDGE = 1e-3


@dataclass(frozen=True)
class KernelRidge:
    """A fitted kernel ridge regression: f(x) = sum_i alpha_i exp(-||x - x_i||^2 / bandwidth)."""

    alpha: Tensor
    bandwidth: Tensor

    def __call__(self, squared: Tensor) -> Tensor:
        """Evaluate from squared distances (M, N) to the N fitted vectors: (M,)."""
        return torch.exp(-squared / self.bandwidth) @ self.alpha


def fit_kernel_ridge(squared: Tensor, labels: Tensor, ridge: float = RIDGE) -> KernelRidge:
    """Fit, both classes weighing one half, targets -1 (normal) and +1 (anomalous), no intercept.

    Parameters
    ----------
    squared : Tensor
        (N, N) squared distances between the vectors.
    labels : Tensor
        (N,) 0 or 1.
    ridge : float
        Added to the weighted kernel's diagonal.

    Returns
    -------
    KernelRidge
        With the bandwidth at twice the weighted mean squared distance to the weighted mean.
    """
    squared, anomalous = squared.double(), labels.bool()
    weights = torch.where(anomalous, 0.5 / anomalous.sum(), 0.5 / (~anomalous).sum()).double()
    # Of weighted points, the mean squared distance to their mean is half that between pairs.
    bandwidth = (weights @ squared @ weights).clamp_min(1e-12)
    root = weights.sqrt()
    system = torch.exp(-squared / bandwidth) * root[:, None] * root
    system.diagonal().add_(ridge)
    targets = torch.where(anomalous, 1.0, -1.0).double()
    alpha = root * torch.linalg.solve(system, root * targets)
    return KernelRidge(alpha.float(), bandwidth.float())


def standardised_predictions(
    squared: Tensor, labels: Tensor, rows: Tensor, folds: int = 4
) -> tuple[Tensor, Tensor, Tensor]:
    """Fit on `rows` and predict all; also what the predictions for normals would be had they not been fitted to.

    Parameters
    ----------
    squared : Tensor
        (N, N) squared distances.
    labels : Tensor
        (N,) 0 or 1.
    rows : Tensor
        (R,) positions to fit to.
    folds : int
        Of the normals, to see their predictions out of fold.

    Returns
    -------
    tuple of Tensor
        Predictions (N,), and mean and deviation of the out-of-fold predictions of the normals among `rows`.
    """
    fitted = fit_kernel_ridge(squared[rows][:, rows], labels[rows])
    predictions = fitted(squared[:, rows])
    normals = rows[labels[rows] == 0]
    anomalies = rows[labels[rows] == 1]
    count = min(folds, len(normals))
    if count < 2:
        return predictions, predictions[normals].mean(), predictions[normals].std(correction=0).clamp_min(1e-6)
    held = torch.empty(len(normals))
    for fold in range(count):
        out = torch.arange(len(normals)) % count == fold
        kept = torch.cat([normals[~out], anomalies])
        held[out] = fit_kernel_ridge(squared[kept][:, kept], labels[kept])(squared[normals[out]][:, kept])
    return predictions, held.mean(), held.std(correction=0).clamp_min(1e-6)


def cross_validated_gain(
    mixed: Callable[[Tensor], Tensor],
    one_class: Tensor,
    labels: Tensor,
    *,
    rng: torch.Generator,
    repeats: int = 3,
) -> tuple[float, float]:
    """How much AUROC labels add on labels not fitted to, and the standard error of that.

    Parameters
    ----------
    mixed : callable
        From rows to fit to, to the mixed score of all N samples.
    one_class : Tensor
        (N,) score without labels.
    labels : Tensor
        (N,) 0 (tune normals) or 1 (labelled anomalies).
    rng : torch.Generator
        Draws the folds.
    repeats : int
        Random partitions whose results are averaged.

    Returns
    -------
    tuple of float
        Mean gain, and its standard error from the placements of labels and normals (DeLong, DeLong and Clarke-Pearson
        1988).
    """
    normals, anomalies = (labels == 0).nonzero()[:, 0], (labels == 1).nonzero()[:, 0]
    folds = min(5, len(anomalies))
    if folds < 2 or len(normals) < 2:
        return 0.0, float("inf")
    gains, errors = [], []
    for _ in range(repeats):
        fold_of = torch.empty(len(labels), dtype=torch.long)
        fold_of[anomalies] = torch.randperm(len(anomalies), generator=rng) % folds
        fold_of[normals] = torch.randperm(len(normals), generator=rng) % folds
        held = torch.empty(len(labels))
        for fold in range(folds):
            out = fold_of == fold
            if (labels[~out] == 0).sum() == 0:
                return 0.0, float("inf")
            held[out] = mixed((~out).nonzero()[:, 0])[out]
        gain, error = _paired_gain(held, one_class, normals, anomalies)
        gains.append(gain)
        errors.append(error)
    return sum(gains) / repeats, sum(errors) / repeats


def _paired_gain(new: Tensor, old: Tensor, normals: Tensor, anomalies: Tensor) -> tuple[float, float]:
    """AUROC(new) - AUROC(old) and its standard error."""
    by_anomaly = _placements(new[anomalies], new[normals]) - _placements(old[anomalies], old[normals])
    by_normal = _placements(-new[normals], -new[anomalies]) - _placements(-old[normals], -old[anomalies])
    variance = by_anomaly.var(correction=1) / len(anomalies) + by_normal.var(correction=1) / len(normals)
    return float(by_anomaly.mean()), float(variance.sqrt())


def _placements(above: Tensor, below: Tensor) -> Tensor:
    """For each of `above`, the share of `below` that lies under it; ties count half."""
    return (above[:, None] > below).float().mean(dim=1) + 0.5 * (above[:, None] == below).float().mean(dim=1)
