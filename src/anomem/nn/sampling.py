"""A uniform sample of feature vectors from a stream of any length, in bounded memory."""

from __future__ import annotations

import torch
from torch import Tensor


class VectorSample:
    """Keeps at most `limit` vectors, each of the stream's equally likely, and where on its map each one stood.

    Every vector draws a random key; those with the smallest keys stay.

    Parameters
    ----------
    limit : int
        Vectors kept.
    rng : torch.Generator
        Draws the keys.
    """

    def __init__(self, limit: int, rng: torch.Generator) -> None:
        self.limit, self.rng, self.seen = limit, rng, 0
        self._vectors: list[Tensor] = []
        self._positions: list[Tensor] = []
        self._keys: list[Tensor] = []
        self._held, self._bar = 0, 1.0

    def add(self, maps: Tensor) -> None:
        """Offer every position of (B, C, h, w) maps."""
        b, c, h, w = maps.shape
        vectors = maps.permute(0, 2, 3, 1).reshape(-1, c)
        keys = torch.rand(len(vectors), generator=self.rng)
        positions = torch.arange(h * w).repeat(b)
        self.seen += len(vectors)
        likely = keys <= self._bar  # a larger key has no chance any more
        if not likely.all():
            keys, vectors, positions = keys[likely], vectors.cpu()[likely], positions[likely]
        self._keys.append(keys)
        self._vectors.append(vectors.float().cpu().clone())
        self._positions.append(positions)
        self._held += len(keys)
        if self._held > 2 * self.limit:
            self._shrink()

    def result(self) -> tuple[Tensor, Tensor]:
        """Return vectors (M, C) and their flat positions (M,)."""
        self._shrink()
        return self._vectors[0], self._positions[0]

    def _shrink(self) -> None:
        keys = torch.cat(self._keys)
        kept = keys.topk(min(self.limit, len(keys)), largest=False).indices.sort().values
        self._keys = [keys[kept]]
        self._vectors = [torch.cat(self._vectors)[kept]]
        self._positions = [torch.cat(self._positions)[kept]]
        self._held = len(kept)
        if self._held == self.limit:
            self._bar = float(self._keys[0].max())
