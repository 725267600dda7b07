"""One-class scores of pooled embeddings: nearest neighbours, nearest centres, Mahalanobis distance."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from anomem.errors import ParameterError
from anomem.nn.kernel_ridge import squared_distances
from anomem.nn.kmeans import kmeans
from anomem.nn.normalise import principal_axes


class NearestVectors(nn.Module):
    """Sum of the k smallest squared distances to a bank of vectors.

    A bank of normal embeddings gives the k-NN score, one of k-means centres with k = 1 the distance to a prototype.

    Parameters
    ----------
    n : int, >= 1
        Number of vectors in the bank.
    dim : int, >= 1
        Length D of the vectors.
    k : int, from 1 to n
        Number of neighbours.

    Attributes
    ----------
    bank : buffer, (n, D), float32
    """

    bank: Tensor

    def __init__(self, n: int, dim: int, k: int) -> None:
        super().__init__()
        if not 1 <= k <= n:
            raise ParameterError(f"k={k} is not allowed; expected 1 to {n}, the number of vectors")
        self.k = k
        self.register_buffer("bank", torch.zeros(n, dim))

    def forward(self, vectors: Tensor) -> Tensor:
        """Score (B, D) embeddings: (B,), both float32."""
        squared = squared_distances(vectors, self.bank)
        return squared.topk(self.k, dim=1, largest=False).values.sum(dim=1)


class ClusterGaussians(nn.Module):
    """Smallest squared Mahalanobis distance to one of m Gaussians (SSD, Eq. 3).

    Parameters
    ----------
    n_clusters : int, >= 1
        Number of clusters, m.
    dim : int, >= 1
        Length D of the vectors.

    Attributes
    ----------
    means : buffer, (m, D), float32
    whitenings : buffer, (m, D, D), float32
        W with W^T W the inverse of the shrunk covariance: a distance is ||W (z - mean)||^2.
    """

    means: Tensor
    whitenings: Tensor

    def __init__(self, n_clusters: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("means", torch.zeros(n_clusters, dim))
        self.register_buffer("whitenings", torch.zeros(n_clusters, dim, dim))

    def forward(self, vectors: Tensor) -> Tensor:
        """Score (B, D) embeddings: (B,), both float32."""
        centred = vectors[None] - self.means[:, None]
        whitened = centred @ self.whitenings.transpose(1, 2)
        return whitened.square().sum(dim=2).amin(dim=0)


@torch.no_grad()
def nearest_of(vectors: Tensor, k: int) -> NearestVectors:
    """Return a k-NN score on (N, D) normal embeddings; where there are fewer than k, all count."""
    scores = NearestVectors(len(vectors), vectors.shape[1], min(k, len(vectors)))
    scores.bank.copy_(vectors)
    return scores


@torch.no_grad()
def prototypes_of(vectors: Tensor, n_prototypes: int, rng: torch.Generator) -> NearestVectors:
    """Return a score by the nearest k-means centre of (N, D) normal embeddings; at most N centres."""
    return nearest_of(kmeans(vectors, min(n_prototypes, len(vectors)), rng), 1)


@torch.no_grad()
def gaussians_of(vectors: Tensor, n_clusters: int, shrinkage: float, rng: torch.Generator) -> ClusterGaussians:
    """Fit one Gaussian per k-means cluster of normal embeddings.

    Parameters
    ----------
    vectors : Tensor, (N, D), float32
        Normal embeddings.
    n_clusters : int, >= 1
        Number of clusters, m; at most N, and empty clusters are left out.
    shrinkage : float, in [0, 1]
        Shrinkage s: a covariance (population) becomes (1 - s) cov + s (trace / D) I. SSD has none and takes the
        pseudo-inverse, which ignores directions in which normals never varied; with fewer images than dimensions these
        are most directions, and an anomaly may lie in just those.
    rng : torch.Generator
        Generator of the first centres.
    """
    centres = kmeans(vectors, min(n_clusters, len(vectors)), rng)
    nearest = squared_distances(vectors, centres).argmin(dim=1)
    clusters = [vectors[nearest == c].double() for c in nearest.unique()]
    scores = ClusterGaussians(len(clusters), vectors.shape[1])
    for c, cluster in enumerate(clusters):
        mean = cluster.mean(dim=0)
        scores.means[c] = mean
        scores.whitenings[c] = _whitening((cluster - mean).T @ (cluster - mean) / len(cluster), shrinkage)
    return scores


def _whitening(covariance: Tensor, shrinkage: float) -> Tensor:
    """Return the whitening W (D, D) of a (D, D) float64 covariance: principal axes over their deviations as rows."""
    variances, axes = principal_axes(covariance, shrinkage)
    return (axes / variances.sqrt()).T
