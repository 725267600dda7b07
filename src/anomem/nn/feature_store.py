"""Pooled features of a set of images, extracted once: in memory within a budget, beyond it in a temporary file."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import torch
from torch import Tensor

from anomem.data.imageset import ImageSet
from anomem.nn.backbones import Backbone
from anomem.nn.endless import Mapped, Shuffled
from anomem.nn.inference import feature_batches
from anomem.runtime.atomic import scratch
from anomem.types import FloatArray, Record

BLOCK = 4096
"""Number of rows read at once in passes over all rows."""


class FeatureStore:
    """Table of feature vectors, filled row by row, then sampled.

    Parameters
    ----------
    budget_mb : float
        Memory for the rows, megabytes (2**20 bytes); beyond it all of them are in a memory-mapped file in a temporary
        folder, which :meth:`close` (or leaving the ``with`` block) removes.

    Examples
    --------
    >>> with FeatureStore(budget_mb=1) as store:
    ...     store.add(torch.ones(3, 4))
    ...     len(store), store.rows(torch.tensor([2, 0])).shape
    (3, torch.Size([2, 4]))
    """

    def __init__(self, budget_mb: float) -> None:
        self.budget = int(budget_mb * 2**20)
        self._chunks: list[Tensor] = []
        self._count, self._dim = 0, 0
        self._folder: Path | None = None
        self._opened = ExitStack()
        self._mapped: FloatArray | None = None

    def __len__(self) -> int:
        return self._count

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def dim(self) -> int:
        """Number of values per row, D; 0 while it is empty."""
        return self._dim

    @property
    def file(self) -> Path | None:
        """Path of the file that holds the rows, or None while they are in memory."""
        return None if self._folder is None else self._folder / "features.f32"

    def add(self, rows: Tensor) -> None:
        """Append rows (n, D) of any floating type, stored as float32."""
        self._mapped, self._dim = None, rows.shape[1]
        self._count += len(rows)
        self._chunks.append(rows.detach().to("cpu", torch.float32).clone())
        if self._folder is None and 4 * self._count * self._dim > self.budget:
            self._folder = self._opened.enter_context(scratch("features"))
        if self.file is not None:
            with self.file.open("ab") as file:
                for chunk in self._chunks:
                    file.write(chunk.numpy().tobytes())
            self._chunks.clear()

    def rows(self, indices: Tensor | slice) -> Tensor:
        """Return copies of the rows at `indices`, (n, D) float32 on the CPU."""
        if self.file is None:
            return self._in_memory()[indices].clone()
        if self._mapped is None:
            self._mapped = np.memmap(self.file, np.float32, "r", shape=(self._count, self._dim))
        chosen = indices if isinstance(indices, slice) else indices.numpy()
        return torch.from_numpy(np.array(self._mapped[chosen]))

    def moments(self) -> tuple[Tensor, Tensor]:
        """Return mean and population variance per dimension, (D,) float32 each; two passes in float64."""
        mean = sum((block.double().sum(dim=0) for block in self.blocks()), torch.zeros(self._dim).double())
        mean /= self._count
        squares = ((block.double() - mean).square().sum(dim=0) for block in self.blocks())
        variance = sum(squares, torch.zeros(self._dim).double()) / self._count
        return mean.float(), variance.float()

    def blocks(self) -> Iterator[Tensor]:
        """Yield all rows in their order, (BLOCK or fewer, D) each."""
        for start in range(0, self._count, BLOCK):
            yield self.rows(slice(start, start + BLOCK))

    def batches(self, size: int, rng: torch.Generator) -> Mapped[Tensor]:
        """Return endless batches (size, D): random orders of all rows, one after the other without a gap.

        Fewer rows than a batch holds repeat within it.
        """
        return Mapped(self.rows, Shuffled(self._count, size, rng))

    def close(self) -> None:
        """Drop the rows, and remove the temporary folder."""
        self._chunks.clear()
        self._mapped = None
        if self._folder is not None:
            self._opened.close()
            self._folder = None
        self._count = self._dim = 0

    def _in_memory(self) -> Tensor:
        if len(self._chunks) > 1:
            self._chunks = [torch.cat(self._chunks)]
        return self._chunks[0]


def store_features(
    store: FeatureStore,
    backbone: Backbone,
    images: ImageSet,
    embed: Callable[[list[Tensor]], Tensor],
    *,
    precision: str,
    batch_size: int,
) -> Generator[Record, None, None]:
    """Pass every image once through a frozen backbone and store its embedding.

    Parameters
    ----------
    store : FeatureStore
        Store that takes one row per image (or tile).
    backbone : Backbone
        Backbone, put into evaluation mode; no gradient is computed.
    images : ImageSet
        Images to embed.
    embed : callable
        Function from the backbone's maps of a batch to (B, D).
    precision : {"float32", "bfloat16"}
        Arithmetic of the forward pass.
    batch_size : int
        Images per forward pass.

    Yields
    ------
    Record
        Number of stored rows.
    """
    backbone.eval()
    for maps in feature_batches(backbone, images, precision=precision, batch_size=batch_size):
        store.add(embed(maps))
        yield Record("features", len(store), max(len(store), len(images)))
