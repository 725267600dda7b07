"""Memories that replace a feature map by a combination of learnt normal features: PMB's, MemAE's and DAAD's.

All three address learnable items by a softmax of cosines, drop small weights and return a weighted sum of items. They
differ in what one query is (Fig. 1 of Xing and Li, "Visual Anomaly Detection Via Partition Memory Bank Module and Error
Estimation"): one channel of one horizontal strip of the map (:class:`PartitionMemory`), all channels of one position
(MemAE), or all channels of one block of positions (DAAD; both :class:`BlockMemory`).

Shapes: G independent groups of items, N queries per group, d values per query, m items per group.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anomem.errors import ParameterError
from anomem.nn.precision import without_autocast

SHRINKS = ("subtract", "cut")
INITIAL_STD = 0.02
_SHORTEST = 1e-6
"""Minimum norm that queries and items are divided by: a dead channel addresses nothing."""
_EMPTY = 1e-12
"""Minimum sum that weights are divided by; below it all weights are (almost) equal and the read fades to zero."""
_CACHE_ELEMENTS = 2**19
"""Number of elements of queries, weights and items processed at once on a processor."""


@dataclass(frozen=True)
class Addressing:
    """Settings that turn cosines into weights, Eq. 3 and 4.

    Parameters
    ----------
    temperature : float, > 0
        The softmax is taken of cosine / temperature; 1 is the papers' form, in which m items weigh almost the same.
    threshold : float, >= 0
        delta_m, in units of 1/m.
    shrink : {"subtract", "cut"}
        Treatment of a weight above the threshold: w - delta_m (Eq. 4 of PMB), or w (Eq. 7 of MemAE).
    renormalise : bool
        Scale the remaining weights to a sum of 1, as MemAE does. False is PMB to the letter, whose reads have a
        few hundredths of an item's norm.

    Raises
    ------
    ParameterError
        For a value outside its range.
    """

    temperature: float = 1.0
    threshold: float = 1.0
    shrink: str = "subtract"
    renormalise: bool = True

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not self.temperature > 0:
            raise ParameterError(f"temperature must be above 0, not {self.temperature}")
        if not self.threshold >= 0:
            raise ParameterError(f"threshold must be at least 0, not {self.threshold}")
        if self.shrink not in SHRINKS:
            raise ParameterError(f"shrink must be one of {', '.join(SHRINKS)}, not {self.shrink!r}")


def address(queries: Tensor, items: Tensor, how: Addressing) -> Tensor:
    """Return the weight of every item for every query, Eq. 2 to 4.

    Parameters
    ----------
    queries : Tensor, (G, N, d), floating
    items : Tensor, (G, m, d), floating
    how : Addressing

    Returns
    -------
    Tensor, (G, N, m), at least float32
        At least 0; each row sums to 1 if renormalised, or to 0 where all items are alike.
    """
    cosines = unit(queries) @ unit(items).mT.to(queries.dtype)
    share = (_full(cosines) / how.temperature).softmax(dim=-1)
    kept = _shrunk(share, how.threshold / items.shape[1], how.shrink)
    if how.renormalise:
        kept = kept / kept.sum(dim=-1, keepdim=True).clamp_min(_EMPTY)
    return kept


def unit(vectors: Tensor) -> Tensor:
    """Scale vectors (..., d) to norm 1 (Eq. 2); vectors of almost zero norm stay short."""
    norms: Tensor = torch.linalg.vector_norm(_full(vectors), dim=-1, keepdim=True)
    return vectors * norms.clamp_min(_SHORTEST).reciprocal().to(vectors.dtype)


class Memory(nn.Module):
    """Base of the three memories: items, the read, and the reshaping of maps to queries and back.

    Parameters
    ----------
    groups, n_items, dim : int, >= 1
        G, m and d.
    addressing : Addressing
        Conversion of cosines to weights.
    generator : torch.Generator or None
        Generator of the first items, from N(0, 0.02), on the CPU. Equal items would get weights of exactly zero and
        never a gradient. None: one seeded with 0; the global random state is never used.

    Attributes
    ----------
    items : nn.Parameter, (G, m, d), float32
    """

    def __init__(
        self, groups: int, n_items: int, dim: int, addressing: Addressing, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.addressing = addressing
        generator = torch.Generator().manual_seed(0) if generator is None else generator
        self.items = nn.Parameter(INITIAL_STD * torch.randn(groups, n_items, dim, generator=generator))

    @abstractmethod
    def gather(self, maps: Tensor) -> Tensor:
        """Reshape (B, C, h, w) features to (G, N, d) queries."""

    @abstractmethod
    def scatter(self, reads: Tensor, channels: int) -> Tensor:
        """Reshape (G, N, d) reads to (B, C, h, w) features, channels last: the inverse of :meth:`gather`."""

    def look_up(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Read the memory (Eq. 2 to 5), and return the weights as well: (B, C, h, w) and (G, N, m)."""
        weights = address(self.gather(maps), self.items, self.addressing)
        reads = weights.to(maps.dtype) @ self.items.to(maps.dtype)
        return self.scatter(reads, maps.shape[1]), weights

    def forward(self, maps: Tensor) -> Tensor:
        """Replace (B, C, h, w) features by their read from the memory, (B, C, h, w)."""
        if torch.is_grad_enabled() and (maps.requires_grad or self.items.requires_grad):
            trained: Tensor = _Read.apply(maps, self.items, self)
            return trained
        return self.look_up(maps)[0]


class PartitionMemory(Memory):
    """Partition memory bank: a query is one channel of one horizontal strip (Sec. III-B, Fig. 4 of PMB).

    Parameters
    ----------
    hw : tuple of int
        Height and width of the feature map.
    partitions : int
        k: strips of h / k rows, each with items of its own.
    n_items : int
        m: items of each strip, of (h / k) w values.
    addressing, generator
        As for :class:`Memory`.

    Raises
    ------
    ParameterError
        If the strips do not divide the height.

    Examples
    --------
    >>> memory = PartitionMemory((8, 6), partitions=4, n_items=10, addressing=Addressing())
    >>> memory.items.shape, memory(torch.ones(2, 3, 8, 6)).shape
    (torch.Size([4, 10, 12]), torch.Size([2, 3, 8, 6]))
    """

    def __init__(
        self,
        hw: tuple[int, int],
        *,
        partitions: int,
        n_items: int,
        addressing: Addressing,
        generator: torch.Generator | None = None,
    ) -> None:
        height, width = hw
        if height % partitions:
            raise ParameterError(f"partitions={partitions} strips do not divide a feature map of {height} rows evenly")
        self.rows, self.width = height // partitions, width
        super().__init__(partitions, n_items, self.rows * width, addressing, generator)

    def gather(self, maps: Tensor) -> Tensor:
        """Reshape (B, C, h, w) to (k, B C, (h / k) w)."""
        strips: Tensor = maps.unflatten(2, (-1, self.rows)).permute(2, 0, 1, 3, 4)
        return strips.reshape(len(self.items), -1, self.rows * self.width)

    def scatter(self, reads: Tensor, channels: int) -> Tensor:
        """Reshape (k, B C, (h / k) w) to (B, C, h, w)."""
        strips = reads.reshape(len(self.items), -1, channels, self.rows, self.width)
        last: Tensor = strips.permute(1, 0, 3, 4, 2).flatten(1, 2).contiguous()
        return last.permute(0, 3, 1, 2)


class BlockMemory(Memory):
    """Memory of blocks of all channels, shared by all places: DAAD's; MemAE's with blocks of one position.

    Parameters
    ----------
    channels : int
        C of the feature map.
    hw : tuple of int
        Its height and width.
    block : int
        Side a of the blocks; blocks do not overlap.
    n_items : int
        m: items of C a a values.
    addressing, generator
        As for :class:`Memory`.

    Raises
    ------
    ParameterError
        If the blocks do not divide the map.

    References
    ----------
    Gong et al., "Memorizing Normality to Detect Anomaly", ICCV 2019 (MemAE). Hou et al., "Divide-and-Assemble: Learning
    Block-wise Memory for Unsupervised Anomaly Detection", ICCV 2021 (DAAD).
    """

    def __init__(
        self,
        channels: int,
        hw: tuple[int, int],
        *,
        block: int,
        n_items: int,
        addressing: Addressing,
        generator: torch.Generator | None = None,
    ) -> None:
        height, width = hw
        if height % block or width % block:
            raise ParameterError(f"block={block} does not divide a feature map of {height} x {width} evenly")
        self.block, self.grid = block, (height // block, width // block)
        super().__init__(1, n_items, channels * block * block, addressing, generator)

    def gather(self, maps: Tensor) -> Tensor:
        """Reshape (B, C, h, w) to (1, B (h / a) (w / a), a a C)."""
        rows: Tensor = maps.unflatten(3, (-1, self.block))
        blocks: Tensor = rows.unflatten(2, (-1, self.block)).permute(0, 2, 4, 3, 5, 1)
        return blocks.reshape(1, -1, self.items.shape[2])

    def scatter(self, reads: Tensor, channels: int) -> Tensor:
        """Reshape (1, B (h / a) (w / a), a a C) to (B, C, h, w)."""
        blocks = reads.reshape(-1, *self.grid, self.block, self.block, channels)
        last: Tensor = blocks.permute(0, 1, 3, 2, 4, 5).flatten(3, 4).flatten(1, 2).contiguous()
        return last.permute(0, 3, 1, 2)


class _Read(torch.autograd.Function):
    """Memory read with a gradient of its own: far fewer passes over memory than automatic differentiation.

    Groups are independent: on a processor they are processed in portions that fit its cache.
    """

    @staticmethod
    def forward(ctx: Any, maps: Tensor, items: Tensor, memory: Memory) -> Tensor:
        with without_autocast(maps.device):
            queries = memory.gather(maps)
            groups, n_queries, dim = queries.shape
            held = _Held(
                items,
                queries.new_empty(groups, n_queries, dim),
                queries.new_empty(groups, n_queries, items.shape[1]),
                queries.new_empty(groups, n_queries, items.shape[1]),
                queries.new_empty(groups, n_queries, 1),
                queries.new_empty(groups, n_queries, 1),
            )
            reads = torch.empty_like(held.directions)
            for part in _portions(queries, items):
                held.part(part).read(queries[part], memory.addressing, reads[part])
        ctx.save_for_backward(*held)
        ctx.memory = memory
        return memory.scatter(reads, maps.shape[1])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        held = _Held(*ctx.saved_tensors)
        memory: Memory = ctx.memory
        into_reads = memory.gather(gradient.to(held.directions.dtype))
        into_items, into_queries = torch.empty_like(held.items), torch.empty_like(held.directions)
        for part in _portions(into_queries, into_items):
            held.part(part).flow_back(into_reads[part], memory.addressing, into_items[part], into_queries[part])
        return memory.scatter(into_queries, gradient.shape[1]), into_items, None


class _Held(NamedTuple):
    """Tensors that a read saves for its gradient, each of G groups."""

    items: Tensor
    directions: Tensor
    """Queries of unit norm, (G, N, d)."""
    share: Tensor
    """Softmax of Eq. 3, (G, N, m)."""
    weights: Tensor
    """Weights of Eq. 4, (G, N, m), renormalised or not."""
    shorter: Tensor
    """Scale factors of the queries, (G, N, 1)."""
    larger: Tensor
    """Scale factors of the weights, (G, N, 1)."""

    def part(self, groups: slice) -> _Held:
        """Return the tensors of some of the groups."""
        return _Held(*(tensor[groups] for tensor in self))

    def read(self, queries: Tensor, how: Addressing, reads: Tensor) -> None:
        """Fill in all but the items from queries, and `reads` with the weighted sums (Eq. 5)."""
        dtype, wide = queries.dtype, torch.promote_types(queries.dtype, torch.float32)
        lengths = torch.linalg.vector_norm(queries, dim=-1, keepdim=True, dtype=wide)
        self.shorter.copy_(lengths.clamp_min_(_SHORTEST).reciprocal_())
        torch.mul(queries, self.shorter, out=self.directions)
        torch.bmm(self.directions, self._keys(how).to(dtype).mT, out=self.share)
        torch.softmax(self.share, dim=-1, out=self.share)
        shrink = torch.ops.aten.softshrink if how.shrink == "subtract" else torch.ops.aten.hardshrink
        shrink.out(self.share, how.threshold / self.items.shape[1], out=self.weights)
        if how.renormalise:
            total = self.weights.sum(dim=-1, keepdim=True, dtype=wide)
            self.larger.copy_(total.clamp_min_(_EMPTY).reciprocal_())
            self.weights.mul_(self.larger)
        torch.bmm(self.weights, self.items.to(dtype), out=reads)

    def flow_back(self, into_reads: Tensor, how: Addressing, into_items: Tensor, into_queries: Tensor) -> None:
        """Fill in the gradients of items and queries from the gradient of the reads."""
        dtype = into_reads.dtype
        into_weights = torch.bmm(into_reads, self.items.to(dtype).mT)
        if how.renormalise:
            along = (into_weights * self.weights).sum(dim=-1, keepdim=True)
            into_weights.sub_(along).mul_(self.larger)
        into_share = torch.ops.aten.threshold_backward(into_weights, self.weights, 0)
        into_cosines = torch._softmax_backward_data(into_share, self.share, -1, dtype)
        keys = self._keys(how)
        torch.bmm(into_cosines, keys.to(dtype), out=into_queries)
        _across(into_queries, self.directions).mul_(self.shorter)
        # Of keys M / (|M| T): their gradient leads to the items across M alone, divided by |M| T.
        into_keys = torch.bmm(into_cosines.mT, self.directions).to(keys.dtype)
        scale = self._key_scale(how)
        along = torch.linalg.vecdot(into_keys, keys).unsqueeze(-1).mul_(how.temperature**2)
        torch.mul(into_keys.addcmul_(keys, along, value=-1), scale, out=into_items)
        into_items.add_(torch.bmm(self.weights.mT, into_reads))

    def _keys(self, how: Addressing) -> Tensor:
        return self.items * self._key_scale(how)

    def _key_scale(self, how: Addressing) -> Tensor:
        lengths: Tensor = torch.linalg.vector_norm(self.items, dim=-1, keepdim=True)
        return lengths.clamp_min_(_SHORTEST).mul_(how.temperature).reciprocal_()


def _across(gradient: Tensor, directions: Tensor) -> Tensor:
    """Remove from a gradient, in place, its component along unit vectors, whose length is fixed."""
    along = (gradient * directions).sum(dim=-1, keepdim=True)
    return gradient.addcmul_(directions, along, value=-1)


def _portions(queries: Tensor, items: Tensor) -> list[slice]:
    groups, n_queries, dim = queries.shape
    if queries.device.type != "cpu":
        return [slice(0, groups)]
    count = max(1, _CACHE_ELEMENTS // (n_queries * (dim + items.shape[1]) + items[0].numel()))
    return [slice(start, start + count) for start in range(0, groups, count)]


def _shrunk(share: Tensor, threshold: float, shrink: str) -> Tensor:
    """Set weights below the threshold to 0 (Eq. 4)."""
    # A share is never negative: there the shrinkage of both signs is max(0, w - threshold), in one pass.
    return F.softshrink(share, threshold) if shrink == "subtract" else F.hardshrink(share, threshold)


def _full(values: Tensor) -> Tensor:
    """Convert half precision to float32; leave float32 and float64 as they are."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
