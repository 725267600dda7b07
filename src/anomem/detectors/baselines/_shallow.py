"""Classical one-class learners as tensor modules: saved whole in their ``state_dict``, exported without change.

They are fitted by scikit-learn and converted; nothing of scikit-learn's own state is kept.
"""

from __future__ import annotations

import math
import random
from importlib import import_module
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anomem.nn.kernel_ridge import squared_distances
from anomem.nn.precision import without_autocast

ROWS = 32
"""Multiple to which support vectors are padded, without weight: a file's size hardly depends on the draw."""


class Normalise(nn.Module):
    """Normalisation of embeddings before a learner.

    Parameters
    ----------
    dim : int
        Length D of the vectors.
    unit : bool
        Scale every vector to unit length first.
    standard : bool
        Then subtract the mean of each dimension and divide by its standard deviation.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, dim: int, *, unit: bool, standard: bool) -> None:
        super().__init__()
        self.unit, self.standard = unit, standard
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("deviation", torch.ones(dim))

    @torch.no_grad()
    def fit(self, vectors: Tensor) -> Normalise:
        """Learn the statistics from (N, D) vectors, and return self.

        No deviation falls below a tenth of all dimensions' root mean square: a dimension that hardly moved in a few
        vectors would otherwise drown the others. Where nothing moves, deviations are 1.
        """
        if not self.standard:
            return self
        scaled = self._scaled(vectors)
        deviation = scaled.std(dim=0, correction=0)
        floor = 0.1 * deviation.square().mean().sqrt()
        self.mean = scaled.mean(dim=0).to(self.mean.device)
        self.deviation = torch.where(floor > 0, deviation.clamp_min(floor), 1.0).to(self.mean.device)
        return self

    def forward(self, vectors: Tensor) -> Tensor:
        """Normalise (B, D) vectors."""
        return (self._scaled(vectors) - self.mean) / self.deviation

    def _scaled(self, vectors: Tensor) -> Tensor:
        return F.normalize(vectors, dim=1) if self.unit else vectors


class OneClassSVM(nn.Module):
    """Decision function of a one-class support vector machine with a Gaussian kernel, as an anomaly score.

    score(x) = rho - sum_i alpha_i exp(-gamma ||x - v_i||^2), Eq. 3.9 of Schoelkopf et al. with the sign turned: above
    0 outside the learnt region. The sum has hundreds of nearly equal terms from which rho is subtracted, so
    it is computed in float64.

    Parameters
    ----------
    n : int
        Number of support vectors.
    dim : int
        Length D of the vectors.

    References
    ----------
    Schoelkopf, Platt, Shawe-Taylor, Smola and Williamson, "Estimating the Support of a High-Dimensional Distribution",
    Neural Computation 13, 2001.
    """

    vectors: Tensor
    weights: Tensor
    offset: Tensor
    gamma: Tensor

    def __init__(self, n: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("vectors", torch.zeros(n, dim))
        self.register_buffer("weights", torch.zeros(n, dtype=torch.float64))
        self.register_buffer("offset", torch.zeros((), dtype=torch.float64))
        self.register_buffer("gamma", torch.ones((), dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        """Score (B, D) vectors: (B,) float32."""
        with without_autocast(x.device):
            squared = squared_distances(x.double(), self.vectors.double())
            return (self.offset - torch.exp(-self.gamma * squared) @ self.weights).float()


def fit_one_class_svm(vectors: Tensor, *, nu: float = 0.1, gamma: float | str = "scale") -> OneClassSVM:
    """Fit scikit-learn's ``OneClassSVM`` and convert it.

    Parameters
    ----------
    vectors : Tensor
        Normals (N, D) float32; time grows with the square of N.
    nu : float
        Bound above 0 and below 1: at most this share of the vectors lies outside, at least this share supports.
    gamma : float or {"scale", "auto"}
        Factor of the kernel exp(-gamma ||x - v||^2); "scale": 1 / (D variance of all values), "auto": 1 / D.

    Returns
    -------
    OneClassSVM
        Module whose score is ``-decision_function``.
    """
    x = vectors.double().cpu().numpy()
    if isinstance(gamma, str):
        variance = float(x.var()) if gamma == "scale" else 1.0
        gamma = 1 / (x.shape[1] * variance) if variance > 0 else 1.0
    reference = _sklearn("svm").OneClassSVM(kernel="rbf", nu=nu, gamma=gamma)
    reference.random_state = 0  # The constructor takes no generator, and would draw from numpy's global one.
    fitted = reference.fit(x)
    found = len(fitted.support_)
    module = OneClassSVM(ROWS * math.ceil(found / ROWS), x.shape[1])
    module.vectors[:found] = torch.from_numpy(fitted.support_vectors_).float()
    module.weights[:found] = torch.from_numpy(fitted.dual_coef_[0])
    module.offset.fill_(float(fitted.offset_[0]))
    module.gamma.fill_(gamma)
    return module


class IsolationForest(nn.Module):
    """Isolation forest: the fewer random cuts isolate a vector from the others, the higher its score.

    score(x) = 2^(-E(h(x)) / c(psi)) (Eq. 2 of Liu et al.), where h is the depth of the leaf that x falls into plus c of
    the number of vectors that share it, and c(n) = 2 H(n - 1) - 2 (n - 1) / n is the mean path length of n vectors
    (Eq. 1; c(2) = 1, c(1) = 0).

    All trees lie in one table, each in the same number of rows; a leaf's children are itself, so that a fixed number of
    steps leads every vector to its leaf.

    Parameters
    ----------
    n_trees : int
        Number of trees.
    n_samples : int
        Number of vectors per tree, psi.

    References
    ----------
    Liu, Ting and Zhou, "Isolation Forest", ICDM 2008.
    """

    feature: Tensor
    threshold: Tensor
    left: Tensor
    right: Tensor
    length: Tensor

    def __init__(self, n_trees: int, n_samples: int) -> None:
        super().__init__()
        self.n_trees, self.steps = n_trees, max(1, math.ceil(math.log2(max(2, n_samples))))
        self.rows = min(2 * n_samples - 1, 2 ** (self.steps + 1) - 1)  # Maximum number of nodes of a tree.
        own = torch.arange(n_trees * self.rows)
        self.register_buffer("feature", torch.zeros_like(own))
        self.register_buffer("threshold", torch.zeros(len(own)))
        self.register_buffer("left", own.clone())
        self.register_buffer("right", own.clone())
        self.register_buffer("length", torch.zeros(len(own)))

    def forward(self, x: Tensor) -> Tensor:
        """Score (B, D) vectors: (B,) float32 in (0, 1)."""
        x = x.float()
        node = (torch.arange(self.n_trees, device=x.device) * self.rows).expand(x.shape[0], -1)
        for _ in range(self.steps):
            go_left = x.gather(1, self.feature[node]) <= self.threshold[node]
            node = torch.where(go_left, self.left[node], self.right[node])
        return torch.exp2(-self.length[node].mean(dim=1))


def fit_isolation_forest(
    vectors: Tensor, *, n_trees: int = 100, n_samples: int = 256, seed: int = 0
) -> IsolationForest:
    """Fit scikit-learn's ``IsolationForest`` and convert it.

    Parameters
    ----------
    vectors : Tensor
        Normals (N, D) float32.
    n_trees : int
        Number of trees.
    n_samples : int
        Number of vectors per tree, psi; at most N are used.
    seed : int
        Seed of the random cuts.

    Returns
    -------
    IsolationForest
        Module whose score is ``-score_samples``.
    """
    x = vectors.float().cpu().numpy()
    n_samples = min(n_samples, len(x))
    reference = _sklearn("ensemble").IsolationForest(n_estimators=n_trees, max_samples=n_samples, random_state=seed)
    fitted = reference.fit(x)
    module = IsolationForest(n_trees, n_samples)
    whole = mean_path_length(torch.tensor([float(n_samples)], dtype=torch.float64))
    for t, estimator in enumerate(fitted.estimators_):
        first = t * module.rows
        for name, values in _tree_table(estimator.tree_, whole).items():
            offset = first if name in ("left", "right") else 0
            getattr(module, name)[first : first + len(values)] = values + offset
    return module


def _tree_table(tree: Any, whole: Tensor) -> dict[str, Tensor]:
    """Return one of scikit-learn's trees as rows of :class:`IsolationForest`, children counted from its root."""
    left, right = torch.from_numpy(tree.children_left), torch.from_numpy(tree.children_right)
    leaf, own = left < 0, torch.arange(len(left))
    depth = torch.zeros(len(left), dtype=torch.float64)
    for node in (~leaf).nonzero()[:, 0].tolist():  # Parents precede their children.
        depth[left[node]] = depth[right[node]] = depth[node] + 1
    length = depth + mean_path_length(torch.from_numpy(tree.n_node_samples).double())
    return {
        "feature": torch.from_numpy(tree.feature).clamp_min(0),
        "threshold": rounded_down(torch.from_numpy(tree.threshold)),
        "left": torch.where(leaf, own, left),
        "right": torch.where(leaf, own, right),
        # A single vector has no path to compare with: scikit-learn scores everything 2^-1, undecided.
        "length": length / whole if whole > 0 else torch.ones_like(length),
    }


def mean_path_length(n: Tensor) -> Tensor:
    """Return c(n) of Eq. 1, the mean path length of n vectors, with H(i) = ln(i) + Euler's constant; float64."""
    several = n.clamp_min(3)
    euler = 0.5772156649015329
    found = 2 * ((several - 1).log() + euler) - 2 * (several - 1) / several
    return torch.where(n <= 1, 0.0, torch.where(n <= 2, 1.0, found))


def rounded_down(threshold: Tensor) -> Tensor:
    """Return the largest float32 at or below each float64, so that x <= threshold is unchanged for any float32 x."""
    near = threshold.float()
    below = torch.nextafter(near, torch.full_like(near, -math.inf))
    return torch.where(near.double() > threshold, below, near)


def _sklearn(room: str) -> Any:
    """Import a part of scikit-learn on demand; restore Python's global generator, which the import draws from."""
    state = random.getstate()
    try:
        return import_module(f"sklearn.{room}")
    finally:
        random.setstate(state)
