"""Class-balanced kernel ridge regression from distances, and the test of the labels' gain."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

RIDGE = 1e-3
FURTHER = 1024
"""Maximum number of further normals that cross-validation fits to; the final fit takes all."""


@dataclass(frozen=True)
class KernelRidge:
    """Fitted kernel ridge regression: f(x) = sum_i alpha_i exp(-||x - x_i||^2 / bandwidth)."""

    alpha: Tensor
    bandwidth: Tensor

    def __call__(self, squared: Tensor) -> Tensor:
        """Evaluate from squared distances (M, N) to the N fitted vectors: (M,)."""
        return torch.exp(-squared / self.bandwidth) @ self.alpha


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """Return squared distances, never below 0: (M, d) and (N, d) to (M, N)."""
    products = a @ b.T
    return (a.square().sum(dim=1)[:, None] + b.square().sum(dim=1) - 2 * products).clamp_min(0)


def fit_kernel_ridge(squared: Tensor, labels: Tensor, *, sharpness: float = 1.0, ridge: float = RIDGE) -> KernelRidge:
    """Fit, both classes weighing one half, targets -1 (normal) and +1 (anomalous), no intercept.

    Parameters
    ----------
    squared : Tensor
        Squared distances (N, N) between the vectors.
    labels : Tensor
        Labels (N,), 0 or 1.
    sharpness : float
        Divisor of the bandwidth, which otherwise is twice the weighted mean squared distance to the weighted mean.
    ridge : float
        Constant added to the weighted kernel's diagonal.
    """
    anomalous = labels.bool()
    weights = torch.where(anomalous, 0.5 / anomalous.sum(), 0.5 / (~anomalous).sum())
    # The mean squared distance of weighted points to their mean is half that between pairs.
    bandwidth = ((weights @ squared @ weights) / sharpness).clamp_min(1e-12)
    root = weights.sqrt()
    system = torch.exp(-squared / bandwidth) * root[:, None] * root
    system.diagonal().add_(ridge)
    targets = torch.where(anomalous, 1.0, -1.0)
    solved = torch.cholesky_solve((root * targets)[:, None], torch.linalg.cholesky(system))[:, 0]
    return KernelRidge(root * solved, bandwidth)


@dataclass(frozen=True)
class Head:
    """Head before the fit: the distances that it is fitted to.

    Parameters
    ----------
    squared : Tensor
        Squared distances (N + L, N + L): N samples that are judged (tune normals, labelled images), then L further
        normals that are only fitted to.
    sharpness, ridge : float
        As for :func:`fit_kernel_ridge`.
    """

    squared: Tensor
    sharpness: float = 1.0
    ridge: float = RIDGE

    def trimmed(self, count: int) -> Head:
        """Return the same head with only so many samples."""
        return replace(self, squared=self.squared[:count, :count])

    def fit(self, rows: Tensor, labels: Tensor) -> tuple[KernelRidge, Tensor]:
        """Fit on the judged samples in `rows` and all further normals; return the fit and predictions for all N."""
        n, further = len(labels), torch.arange(len(labels), len(self.squared))
        full = torch.cat([rows, further])
        targets = torch.cat([labels[rows], torch.zeros(len(further))])
        options = {"sharpness": self.sharpness, "ridge": self.ridge}
        fitted = fit_kernel_ridge(self.squared[full][:, full], targets, **options)
        return fitted, fitted(self.squared[:n][:, full])


def out_of_fold(head: Head, labels: Tensor, fold_of: Tensor) -> Tensor:
    """Predict every judged sample from a fit without its fold, (N,)."""
    held = torch.empty(len(labels))
    for fold in fold_of.unique():
        out = fold_of == fold
        held[out] = head.fit((~out).nonzero()[:, 0], labels)[1][out]
    return held


def random_folds(labels: Tensor, rng: torch.Generator) -> Tensor | None:
    """Draw at most five folds of normals and anomalies, (N,) int64; None where there are too few of either."""
    normals, anomalies = (labels == 0).nonzero()[:, 0], (labels == 1).nonzero()[:, 0]
    folds = min(5, len(anomalies), len(normals))
    if folds < 2:
        return None
    fold_of = torch.empty(len(labels), dtype=torch.long)
    for members in (anomalies, normals):
        fold_of[members] = torch.randperm(len(members), generator=rng) % folds
    return fold_of


def standardised(predictions: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and deviation of out-of-fold predictions for tune normals."""
    normals = predictions[labels == 0]
    return normals.mean(), normals.std(correction=0).clamp_min(1e-6)


def cross_validated_gain(
    heads: list[Head],
    deviation: Tensor,
    labels: Tensor,
    weight: float,
    *,
    rng: torch.Generator,
    repeats: int | None = None,
) -> tuple[float, float]:
    """Return the gain in AUROC by labels on held-out samples, and its standard error.

    Parameters
    ----------
    heads : list of Head
        Heads whose standardised predictions are averaged.
    deviation : Tensor
        Standardised one-class score, (N,).
    labels : Tensor
        Labels (N,), 0 (tune normals) or 1 (labelled anomalies).
    weight : float
        w, the heads' share of the mixture.
    rng : torch.Generator
        Generator of the folds.
    repeats : int or None
        Number of random partitions whose results are averaged; None: three, or one where there are fifty anomalies.

    Returns
    -------
    tuple of float
        Mean gain, and its standard error from the placements of labels and normals (DeLong, DeLong and Clarke-Pearson
        1988); infinite where there are too few of either for a test.
    """
    heads = [head.trimmed(len(labels) + FURTHER) for head in heads]
    gains, errors = [], []
    repeats = repeats or (1 if labels.sum() >= 50 else 3)
    for _ in range(repeats):
        fold_of = random_folds(labels, rng)
        if fold_of is None:
            return 0.0, float("inf")
        said = torch.zeros_like(deviation)
        for head in heads:
            held = out_of_fold(head, labels, fold_of)
            mean, width = standardised(held, labels)
            said += (held - mean) / width / len(heads)
        gain, error = _paired_gain((1 - weight) * deviation + weight * said, deviation, labels)
        gains.append(gain)
        errors.append(error)
    return sum(gains) / repeats, sum(errors) / repeats


def _paired_gain(new: Tensor, old: Tensor, labels: Tensor) -> tuple[float, float]:
    """Return AUROC(new) - AUROC(old) and its standard error."""
    normals, anomalies = labels == 0, labels == 1
    by_anomaly = _placements(new[anomalies], new[normals]) - _placements(old[anomalies], old[normals])
    by_normal = _placements(-new[normals], -new[anomalies]) - _placements(-old[normals], -old[anomalies])
    variance = by_anomaly.var(correction=1) / len(by_anomaly) + by_normal.var(correction=1) / len(by_normal)
    return float(by_anomaly.mean()), float(variance.sqrt())


def _placements(above: Tensor, below: Tensor) -> Tensor:
    """Return, for each of `above`, the share of `below` that lies under it; ties count half."""
    return (above[:, None] > below).float().mean(dim=1) + 0.5 * (above[:, None] == below).float().mean(dim=1)
