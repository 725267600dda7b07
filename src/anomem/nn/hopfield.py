"""Memory of prototypes, read by Hopfield retrieval, and seeded by k-means."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from anomem.errors import ParameterError
from anomem.nn.effective_items import effective_items, perplexity
from anomem.nn.kmeans import kmeans
from anomem.nn.nearest import largest
from anomem.nn.precision import without_autocast
from anomem.nn.tracing import exporting

__all__ = ["HopfieldMemory", "effective_items", "kmeans"]

Association = Literal["euclidean", "dot"]
ItemNorm = Literal["none", "unit", "layernorm"]

_CHUNK_ELEMENTS = 2**18
"""Elements of an association matrix held at once without gradients: 1 MB in float32 stays in a core's cache."""

_PIECE = 256
"""Number of items that an exported graph compares with one image's positions at once, to stay in a core's cache."""

_TOLERANCE = 1e-4
"""Change of a query's association (L2 norm) below which its retrieval has converged."""

_MAX_STEPS = 50

_INITIAL_STD = 0.02


class HopfieldMemory(nn.Module):
    """Learnable items, recalled by the update rule of modern Hopfield networks, Eq. 1 of AnoMem.

    One step replaces a query xi by a weighted mean of the items x_n. The weights, xi's association,
    are softmax(beta (xi . x_n - ||x_n||^2 / 2)), which equals softmax(-beta ||xi - x_n||^2 / 2): for
    growing beta it becomes the nearest item. On items of one norm this is the paper's
    softmax(beta xi . x_n). On others the plain product prefers long items to near ones; it stays as
    ``association="dot"``, and the literal paper is ``association="dot", beta=2, steps=None``.

    Parameters
    ----------
    n_items : int, >= 1
        Number N of items.
    dim : int, >= 1
        Length C of an item.
    beta : float, > 0 or inf
        Inverse temperature, in units of the squared scale of the features: choose it again for
        each normalisation. ``math.inf`` recalls the nearest item alone.
    steps : int >= 1 or None
        Updates of Eq. 1. None: each query until its association changes by less than 1e-4, at most
        50 (always 50 in an exported graph).
    association : {"euclidean", "dot"}
        Nearness of an item: by distance or by product.
    hard : bool
        The same as ``beta=math.inf``.
    item_norm : {"none", "unit", "layernorm"}
        Normalisation of the items whenever they are recalled, as `Normaliser` has it for queries.
    per_root_dim : bool
        Divide beta by the root of C, as attention does.
    generator : torch.Generator or None
        Generator of the first items, from N(0, 0.02), on the CPU. None: one seeded with 0; the global random
        state is never used. Retrievals from such items almost coincide: see `seed`.

    Attributes
    ----------
    items : nn.Parameter, (N, C), float32

    Raises
    ------
    ParameterError
        If an argument is outside its range.

    References
    ----------
    Ramsauer et al., "Hopfield Networks is All You Need", ICLR 2021.

    Examples
    --------
    >>> memory = HopfieldMemory(3, 2, beta=math.inf)
    >>> _ = memory.items.data.copy_(torch.tensor([[0.0, 0.0], [1.0, 0.0], [9.0, 0.0]]))
    >>> memory(torch.tensor([[0.8, 0.1]])).tolist()
    [[1.0, 0.0]]
    """

    def __init__(
        self,
        n_items: int,
        dim: int,
        *,
        beta: float,
        steps: int | None = 1,
        association: Association = "euclidean",
        hard: bool = False,
        item_norm: ItemNorm = "none",
        per_root_dim: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        _check_arguments(n_items, dim, beta, steps, association)
        self.beta = math.inf if hard else float(beta) / (math.sqrt(dim) if per_root_dim else 1.0)
        self.item_norm: ItemNorm = item_norm
        self.steps = steps
        self.association: Association = association
        if generator is None:
            generator = torch.Generator().manual_seed(0)
        self.items = nn.Parameter(_INITIAL_STD * torch.randn(n_items, dim, generator=generator))

    @property
    def n_items(self) -> int:
        """Number of items N."""
        return self.items.shape[0]

    @property
    def dim(self) -> int:
        """Length C of an item."""
        return self.items.shape[1]

    @property
    def patterns(self) -> Tensor:
        """Items as they are recalled, (N, C)."""
        if self.item_norm == "unit":
            return nn.functional.normalize(self.items, dim=1)
        return self.items if self.item_norm == "none" else nn.functional.layer_norm(self.items, (self.dim,))

    @property
    def hard(self) -> bool:
        """True where a single item is recalled."""
        return math.isinf(self.beta)

    def extra_repr(self) -> str:
        """Describe the memory in ``repr``."""
        return (
            f"n_items={self.n_items}, dim={self.dim}, beta={self.beta}, steps={self.steps}, "
            f"association={self.association!r}"
        )

    def forward(self, queries: Tensor) -> Tensor:
        """Return the retrieval of each query.

        Parameters
        ----------
        queries : Tensor, (..., C), floating
            Computed in the items' precision, under autocast too.

        Returns
        -------
        Tensor, (..., C)
            Without gradients, computed in chunks: no (M, N) matrix is kept. With ``hard``, gradients
            reach the items only.
        """
        with without_autocast(self.items.device):
            flat = queries.reshape(-1, self.dim).to(self.items.dtype)
            if self._in_one_piece(flat):
                return self._recall(flat).reshape(queries.shape)
            step, bias = self._chunk_length(), self._bias(1.0 if self.hard else self.beta)
            retrieved = torch.empty_like(flat)
            for start in range(0, len(flat), step):
                self._recall(flat[start : start + step], bias, out=retrieved[start : start + step])
            return retrieved.reshape(queries.shape)

    def distances(self, queries: Tensor) -> Tensor:
        """Return the distance from each query to its retrieval, ||xi - HF(xi)||.

        Parameters
        ----------
        queries : Tensor, (..., C), floating

        Returns
        -------
        Tensor, (...)
            With ``hard`` and the euclidean association nothing is retrieved: the largest association
            is the distance to the nearest item.
        """
        if not self.hard or self.association != "euclidean":
            retrieved: Tensor = self(queries)
            away: Tensor = (queries - retrieved).norm(dim=-1)
            return away
        with without_autocast(self.items.device):
            flat = queries.reshape(-1, self.dim).to(self.items.dtype)
            nearness = self._largest_exported(flat) if exporting() else self._largest(flat)
            squared = flat.square().sum(dim=-1) - 2 * nearness
            return squared.clamp_min(0).sqrt().reshape(queries.shape[:-1])

    def recall_with_distances(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Return the results of `forward` and `distances` from one pass over the items.

        Parameters
        ----------
        queries : Tensor, (..., C), floating

        Returns
        -------
        tuple of Tensor, (..., C) and (...)
        """
        if not self.hard or self.association != "euclidean":
            retrieved: Tensor = self(queries)
            return retrieved, (queries - retrieved).norm(dim=-1)
        with without_autocast(self.items.device):
            flat = queries.reshape(-1, self.dim).to(self.items.dtype)
            found = [largest(nearness) for nearness in self._nearness(flat)]
            nearness, nearest = (torch.cat(parts) for parts in zip(*found, strict=True))
            squared = flat.square().sum(dim=-1) - 2 * nearness
            recalled = self.patterns.index_select(0, nearest).reshape(queries.shape)
            return recalled, squared.clamp_min(0).sqrt().reshape(queries.shape[:-1])

    def associations(self, queries: Tensor) -> Tensor:
        """Return the weights of the items in each retrieval (of its last step).

        Parameters
        ----------
        queries : Tensor, (..., C), floating

        Returns
        -------
            Each row sums to 1; one-hot with ``hard``. The whole matrix: mind its size.
        """
        with without_autocast(self.items.device):
            flat = queries.reshape(-1, self.dim).to(self.items.dtype)
            if self.hard:
                weights = nn.functional.one_hot(self._nearest(flat), self.n_items).to(flat.dtype)
            else:
                weights = self._weights(flat)
            return weights.reshape(*queries.shape[:-1], self.n_items)

    @torch.no_grad()
    def usage(self, queries: Tensor) -> Tensor:
        """Return each item's mean association over the queries.

        Parameters
        ----------
        queries : Tensor, (..., C), floating, at least one

        Returns
        -------
        Tensor, (N,)
            Mean associations, which sum to 1. `effective_items` turns them into one figure.
        """
        flat = queries.reshape(-1, self.dim)
        total = torch.zeros(self.n_items, dtype=torch.float64)
        for chunk in flat.split(self._chunk_length()):
            if self.hard:
                total += torch.bincount(self._queried(chunk), minlength=self.n_items).cpu()
            else:
                total += self.associations(chunk).sum(dim=0).double().cpu()
        return (total / len(flat)).to(self.items)

    @torch.no_grad()
    def effective_items_per_query(self, queries: Tensor) -> Tensor:
        """Return the effective number of items that each single retrieval mixes.

        Parameters
        ----------
        queries : Tensor, (..., C), floating

        Returns
        -------
        Tensor, (...)
            Number from 1 (one item is recalled) to N (every retrieval is the mean of all items).
        """
        flat = queries.reshape(-1, self.dim)
        parts = [perplexity(self.associations(c)) for c in flat.split(self._chunk_length())]
        return torch.cat(parts).reshape(queries.shape[:-1])

    @torch.no_grad()
    def seed(self, vectors: Tensor, generator: torch.Generator, iterations: int = 10) -> None:
        """Seed the items with k-means centres of some features; see `kmeans`.

        Parameters
        ----------
        vectors : Tensor, (M, C), floating
            Vectors to cluster, at least as many as there are items.
        generator : torch.Generator
            CPU generator.
        iterations : int, >= 0
            Number of Lloyd iterations.
        """
        self.items.copy_(kmeans(vectors, self.n_items, generator, iterations))

    def _queried(self, flat: Tensor) -> Tensor:
        """Return the item that each query ends at, (M, C) to (M,), in the items' precision."""
        with without_autocast(self.items.device):
            return self._nearest(flat.to(self.items.dtype))

    def _in_one_piece(self, flat: Tensor) -> bool:
        # A loop over chunks would fix the number of queries in an exported graph.
        watched = torch.is_grad_enabled() and (flat.requires_grad or self.items.requires_grad)
        return exporting() or watched or len(flat) <= self._chunk_length()

    def _chunks(self, flat: Tensor) -> Sequence[Tensor]:
        return [flat] if self._in_one_piece(flat) else flat.split(self._chunk_length())

    def _chunk_length(self) -> int:
        return max(1, _CHUNK_ELEMENTS // self.n_items)

    def _recall(self, flat: Tensor, bias: Tensor | None = None, out: Tensor | None = None) -> Tensor:
        """Return retrievals, (M, C) to (M, C); without gradients also into `out`."""
        if self.hard:
            return torch.index_select(self.patterns, 0, self._nearest(flat, bias), out=out)
        return torch.mm(self._weights(flat, bias), self.patterns, out=out)

    def _bias(self, scale: float) -> Tensor:
        """Return the reduction of the logits by the items' own norms, (N,), times ``scale``."""
        return (-0.5 * scale) * self.patterns.square().sum(dim=1)

    def _logits(self, state: Tensor, scale: float, bias: Tensor | None = None) -> Tensor:
        """Return logits, (M, C) to (M, N): nearness of each item, times ``scale``; ``bias`` where already known."""
        if self.association == "dot":
            return (scale * state) @ self.patterns.T
        return torch.addmm(self._bias(scale) if bias is None else bias, state, self.patterns.T, alpha=scale)

    def _largest(self, flat: Tensor) -> Tensor:
        """Return the largest association, (M, C) to (M,)."""
        return torch.cat([nearness.amax(dim=-1) for nearness in self._nearness(flat)])

    def _nearness(self, flat: Tensor) -> Iterator[Tensor]:
        """Yield (m, N) nearness of each item per chunk of (M, C), always from one formula, so that distances agree."""
        bias = self._bias(1.0)
        if self.dim >= self.n_items or exporting():
            yield from (self._logits(chunk, 1.0, bias) for chunk in self._chunks(flat))
            return
        # A product with a bias first writes it into every row: a feature of constant 1 includes it, if that is shorter.
        queries, items = nn.functional.pad(flat, (0, 1), value=1.0), torch.cat([self.patterns, bias[:, None]], dim=1).T
        yield from (chunk @ items for chunk in self._chunks(queries))

    def _largest_exported(self, flat: Tensor) -> Tensor:
        """Return the largest association in a graph: rows in one piece; items in pieces, to avoid the whole matrix."""
        pieces = zip(self.patterns.split(_PIECE), self._bias(1.0).split(_PIECE), strict=True)
        found = [torch.addmm(bias, flat, items.T).amax(dim=-1) for items, bias in pieces]
        return functools.reduce(torch.maximum, found)

    def _weights(self, flat: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return the associations of the last step of each query, (M, C) to (M, N)."""
        weights = _softmax(self._logits(flat, self.beta, bias))
        if self.steps is not None:
            for _ in range(self.steps - 1):
                weights = _softmax(self._logits(weights @ self.patterns, self.beta, bias))
            return weights
        moving = torch.ones_like(weights[:, :1], dtype=torch.bool)
        for _ in range(_MAX_STEPS - 1):
            updated = _softmax(self._logits(weights @ self.patterns, self.beta, bias))
            change = torch.linalg.vector_norm(updated - weights, dim=-1, keepdim=True)
            # Each query stops individually, so that its retrieval does not depend on its batch.
            weights = torch.where(moving, updated, weights)
            moving = moving & (change >= _TOLERANCE)
            if self._settled(moving):
                break
        return weights

    def _nearest(self, flat: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return the item that each query ends at, (M, C) to (M,)."""
        _, nearest = largest(self._logits(flat, 1.0, bias))
        if self.association == "euclidean":
            return nearest  # An item is its own nearest item: further steps change nothing.
        for _ in range((self.steps or _MAX_STEPS) - 1):
            before = nearest
            _, nearest = largest(self._logits(self.patterns[before], 1.0))
            if self._settled(nearest != before):
                break
        return nearest

    @staticmethod
    def _settled(moving: Tensor) -> bool:
        # An exported graph has no data-dependent exit: it takes all steps.
        if exporting():
            return False
        return not bool(moving.any())


def _softmax(logits: Tensor) -> Tensor:
    """Apply softmax over the last axis, in place where no gradient needs the logits: a new tensor takes longer."""
    if exporting() or logits.requires_grad:
        return logits.softmax(dim=-1)
    return torch.softmax(logits, -1, out=logits)


def _check_arguments(n_items: int, dim: int, beta: float, steps: int | None, association: str) -> None:
    if n_items < 1 or dim < 1:
        raise ParameterError(f"n_items and dim must be at least 1, got {n_items}, {dim}")
    if not beta > 0:
        raise ParameterError(f"beta must be above 0, got {beta}")
    if steps is not None and steps < 1:
        raise ParameterError(f"steps must be at least 1, or None for convergence, got {steps}")
    if association not in ("euclidean", "dot"):
        raise ParameterError(f"association must be 'euclidean' or 'dot', got {association!r}")
