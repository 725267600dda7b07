"""Uniform sample of feature vectors from a stream of any length, in bounded memory."""

from __future__ import annotations

import torch
from torch import Tensor

_MOVED_AT_ONCE = 4096


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
        return self._vectors[: self._held].clone(), self._positions[: self._held].clone()

    def _keep(self, keys: Tensor, vectors: Tensor, positions: Tensor) -> None:
        seats = slice(self._held, self._held + len(keys))
        self._keys[seats], self._positions[seats] = keys, positions
        self._vectors[seats].copy_(vectors)
        self._held = seats.stop

    def _shrink(self) -> None:
        """Keep the smallest keys, in place, without a copy of the sample."""
        count = min(self.limit, self._held)
        kept = self._keys[: self._held].topk(count, largest=False).indices.sort().values
        for start in range(0, count, _MOVED_AT_ONCE):
            part = slice(start, min(start + _MOVED_AT_ONCE, count))
            for held in (self._keys, self._positions, self._vectors):
                held[part] = held[kept[part]]
        self._held = count
        if count == self.limit:
            self._bar = float(self._keys[:count].max())
