"""Uniform sample of feature vectors from a stream of any length, in bounded memory."""

from __future__ import annotations

import torch
from torch import Tensor


class VectorSample:
    """Sample of at most `limit` vectors, each of the stream's equally likely, with their positions on their maps.

    Every vector draws a random key; those with the smallest keys are kept.

    Parameters
    ----------
    limit : int
        Maximum number of vectors kept.
    rng : torch.Generator
        Generator of the keys.
    """

    def __init__(self, limit: int, rng: torch.Generator) -> None:
        self.limit, self.rng, self.seen = limit, rng, 0
        self._room = limit + max(1, limit // 4)
        self._vectors = torch.empty(0, 0)
        self._positions = torch.empty(self._room, dtype=torch.int64)
        self._keys = torch.empty(self._room)
        self._seats = torch.arange(self._room)  # Rows of the vectors: those held in order of arrival, then free ones.
        self._held, self._bar = 0, 1.0

    def add(self, maps: Tensor) -> None:
        """Offer every position of (B, C, h, w) maps."""
        b, c, h, w = maps.shape
        if not self._vectors.numel():
            # Pages that are never written take no memory.
            self._vectors = torch.empty(self._room, c)
        vectors = maps.permute(0, 2, 3, 1).reshape(-1, c)
        keys = torch.rand(len(vectors), generator=self.rng)
        positions = torch.arange(h * w).repeat(b)
        self.seen += len(vectors)
        likely = keys <= self._bar  # A larger key cannot be kept any more.
        if not likely.all():
            keys, vectors, positions = keys[likely], vectors.cpu()[likely], positions[likely]
        start = 0
        while start < len(keys):
            if self._held == self._room:
                self._shrink()
            taken = slice(start, start + self._room - self._held)
            self._keep(keys[taken], vectors[taken], positions[taken])
            start = taken.stop

    def result(self) -> tuple[Tensor, Tensor]:
        """Return vectors (M, C) and their flat positions (M,), in order of arrival."""
        self._shrink()
        # Copies: views would keep the whole buffer alive.
        return self._vectors[self._seats[: self._held]], self._positions[: self._held].clone()

    def _keep(self, keys: Tensor, vectors: Tensor, positions: Tensor) -> None:
        added = slice(self._held, self._held + len(keys))
        self._keys[added], self._positions[added] = keys, positions
        self._vectors[self._seats[added]] = vectors.to(self._vectors)
        self._held = added.stop

    def _shrink(self) -> None:
        """Keep the smallest keys; vectors stay in their seats."""
        if self._held <= self.limit:
            return
        keys = self._keys[: self._held]
        self._bar = float(keys.kthvalue(self.limit).values)
        kept = torch.zeros(self._room, dtype=torch.bool)
        kept[: self._held] = keys < self._bar
        equal = (keys == self._bar).nonzero()[:, 0]
        kept[equal[: self.limit - int(kept.sum())]] = True  # Of equal keys, those that arrived first.
        self._seats = torch.cat([self._seats[kept], self._seats[~kept]])
        for held in (self._keys, self._positions):
            held[: self.limit] = held[kept]
        self._held = self.limit
