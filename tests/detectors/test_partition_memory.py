"""Memory reads against slow loops written from the papers' equations."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from anomem.detectors.reconstruction import partition_memory
from anomem.detectors.reconstruction.partition_memory import Addressing, BlockMemory, Memory, PartitionMemory, address
from anomem.errors import ParameterError

WAYS = [
    Addressing(temperature=0.3),
    Addressing(temperature=0.3, renormalise=False),
    Addressing(temperature=0.5, shrink="cut"),
    Addressing(temperature=0.5, threshold=1.4, shrink="cut", renormalise=False),
    Addressing(temperature=0.2, threshold=0.0),
]


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _partition(how: Addressing, hw: tuple[int, int] = (6, 5), k: int = 3, m: int = 4) -> PartitionMemory:
    memory = PartitionMemory(hw, partitions=k, n_items=m, addressing=how).double()
    memory.items.data.copy_(_random(*memory.items.shape, seed=9))
    return memory


def _block(how: Addressing, block: int, channels: int = 3) -> BlockMemory:
    memory = BlockMemory(channels, (6, 4), block=block, n_items=5, addressing=how).double()
    memory.items.data.copy_(_random(*memory.items.shape, seed=9))
    return memory


def _slow_read(query: list[float], items: list[list[float]], how: Addressing) -> list[float]:
    """Eq. 2 to 5 for one query, item by item."""

    def cosine(a: list[float], b: list[float]) -> float:
        product = sum(x * y for x, y in zip(a, b, strict=True))
        return product / math.sqrt(sum(x * x for x in a)) / math.sqrt(sum(x * x for x in b))

    powers = [math.exp(cosine(query, item) / how.temperature) for item in items]
    weights = [power / sum(powers) for power in powers]
    threshold = how.threshold / len(items)
    if how.shrink == "subtract":
        weights = [max(0.0, w - threshold) for w in weights]
    else:
        weights = [w if w > threshold else 0.0 for w in weights]
    if how.renormalise and sum(weights) > 0:
        weights = [w / sum(weights) for w in weights]
    return [sum(w * item[i] for w, item in zip(weights, items, strict=True)) for i in range(len(query))]


def _slow_partition_read(memory: PartitionMemory, maps: Tensor) -> Tensor:
    """Image by image, strip by strip, channel by channel."""
    read, rows = torch.zeros_like(maps), maps.shape[2] // len(memory.items)
    for b in range(maps.shape[0]):
        for strip, items in enumerate(memory.items.tolist()):
            part = slice(strip * rows, (strip + 1) * rows)
            for c in range(maps.shape[1]):
                values = _slow_read(maps[b, c, part].flatten().tolist(), items, memory.addressing)
                read[b, c, part] = torch.tensor(values, dtype=maps.dtype).reshape(rows, -1)
    return read


def _slow_block_read(memory: BlockMemory, maps: Tensor) -> Tensor:
    """Image by image, block by block; the values of a block in the order rows, columns, channels."""
    read, side = torch.zeros_like(maps), memory.block
    for b in range(maps.shape[0]):
        for top in range(0, maps.shape[2], side):
            for left in range(0, maps.shape[3], side):
                part = (b, slice(None), slice(top, top + side), slice(left, left + side))
                query = maps[part].permute(1, 2, 0).flatten().tolist()
                values = torch.tensor(_slow_read(query, memory.items[0].tolist(), memory.addressing))
                read[part] = values.reshape(side, side, -1).permute(2, 0, 1).to(maps.dtype)
    return read


@pytest.mark.parametrize("how", WAYS, ids=str)
def test_a_read_equals_the_loop_over_strips_and_channels(how: Addressing) -> None:
    memory, maps = _partition(how), _random(2, 3, 6, 5)
    with torch.no_grad():
        torch.testing.assert_close(memory(maps), _slow_partition_read(memory, maps), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("block", [1, 2])
@pytest.mark.parametrize("how", WAYS, ids=str)
def test_a_read_of_blocks_equals_the_loop_over_places(how: Addressing, block: int) -> None:
    memory, maps = _block(how, block), _random(2, 3, 6, 4)
    with torch.no_grad():
        torch.testing.assert_close(memory(maps), _slow_block_read(memory, maps).double(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("side", "channels", "k", "m", "length"),
    [
        (128, 16, 32, 150, 512),
        (64, 32, 16, 200, 256),
        (32, 64, 16, 200, 64),
        (16, 128, 8, 200, 32),
        (8, 128, 8, 200, 8),
    ],
)
def test_shapes_are_those_of_the_texture_setting(side: int, channels: int, k: int, m: int, length: int) -> None:
    memory = PartitionMemory((side, side), partitions=k, n_items=m, addressing=Addressing())
    assert memory.items.shape == (k, m, length)
    maps = torch.rand(2, channels, side, side)
    with torch.no_grad():
        read, weights = memory.look_up(maps)
    assert memory.gather(maps).shape == (k, 2 * channels, length)
    assert weights.shape == (k, 2 * channels, m)
    assert read.shape == maps.shape


@pytest.mark.parametrize("memory", [_partition(WAYS[0], k=k) for k in (1, 2, 6)] + [_block(WAYS[0], b) for b in (1, 2)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_scatter_undoes_gather_in_every_layout(memory: Memory, layout: torch.memory_format) -> None:
    hw = (6, 5) if isinstance(memory, PartitionMemory) else (6, 4)
    maps = _random(2, 3, *hw).contiguous(memory_format=layout)
    back = memory.scatter(memory.gather(maps), 3)
    assert torch.equal(back, maps)
    assert back.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("how", WAYS, ids=str)
@pytest.mark.parametrize("kind", ["partition", "one strip", "position", "block"])
def test_the_trained_read_is_the_read_and_has_its_gradient(how: Addressing, kind: str) -> None:
    memory: Memory = {
        "partition": lambda: _partition(how),
        "one strip": lambda: _partition(how, k=1),
        "position": lambda: _block(how, 1),
        "block": lambda: _block(how, 2),
    }[kind]()
    maps = _random(2, 3, 6, 5 if "strip" in kind or kind == "partition" else 4).requires_grad_()
    before, direction = maps.detach().clone(), _random(*maps.shape, seed=4)
    trained, plain = memory(maps), memory.look_up(maps)[0]
    torch.testing.assert_close(trained, plain, rtol=1e-12, atol=1e-12)
    fast = torch.autograd.grad((trained * direction).sum(), (maps, memory.items))
    slow = torch.autograd.grad((plain * direction).sum(), (maps, memory.items))
    for ours, automatic in zip(fast, slow, strict=True):
        torch.testing.assert_close(ours, automatic, rtol=1e-9, atol=1e-10)
        assert (ours != 0).any()
    assert torch.equal(maps, before)


def test_portions_change_neither_reads_nor_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    memory, maps = _partition(WAYS[0]), _random(2, 3, 6, 5).requires_grad_()

    def run() -> tuple[Tensor, ...]:
        read = memory(maps)
        return (read, *torch.autograd.grad(read.square().sum(), (maps, memory.items)))

    whole = run()
    monkeypatch.setattr(partition_memory, "_CACHE_ELEMENTS", 1)
    for ours, expected in zip(run(), whole, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)


def test_half_precision_stays_near() -> None:
    how = Addressing(temperature=0.1)
    memory = PartitionMemory((16, 16), partitions=4, n_items=20, addressing=how)
    maps = torch.rand(4, 8, 16, 16, generator=torch.Generator().manual_seed(0)).requires_grad_()
    exact, rough = memory(maps), memory(maps.bfloat16())
    assert rough.dtype == torch.bfloat16
    assert torch.cosine_similarity(exact.flatten(), rough.flatten().float(), dim=0) > 0.99
    gradients = [torch.autograd.grad((r * maps.detach()).sum(), memory.items)[0].flatten() for r in (exact, rough)]
    assert torch.cosine_similarity(*gradients, dim=0) > 0.98


def test_weights_are_a_distribution_that_leaves_out_the_far_items() -> None:
    weights = address(_random(3, 7, 30), _random(3, 10, 30, seed=1), Addressing())
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(3, 7, dtype=torch.float64))
    assert 0.3 < (weights == 0).double().mean() < 0.7
    sharp = address(_random(3, 7, 30), _random(3, 10, 30, seed=1), Addressing(temperature=0.01))
    assert sharp.max(dim=-1).values.mean() > 0.9


@pytest.mark.parametrize(("k", "m", "length"), [(32, 150, 512), (16, 200, 256), (16, 200, 64), (8, 200, 32)])
def test_taken_literally_a_read_is_a_few_hundredths_of_an_item(k: int, m: int, length: int) -> None:
    # Features after a ReLU are not negative, and neither are items that have learnt them.
    generator = torch.Generator().manual_seed(0)
    queries, items = (torch.randn(k, n, length, generator=generator).relu() for n in (40, m))
    norms = {}
    for renormalise in (False, True):
        reads = address(queries, items, Addressing(renormalise=renormalise)) @ items
        norms[renormalise] = float(reads.norm(dim=-1).mean() / items.norm(dim=-1).mean())
    assert 0.005 < norms[False] < 0.06
    assert norms[True] > 0.5


def test_identical_items_are_what_the_initialisation_must_break() -> None:
    memory = _partition(Addressing())
    memory.items.data.copy_(memory.items.data[:, :1].expand_as(memory.items))
    maps = _random(2, 3, 6, 5).requires_grad_()
    assert float(memory(maps).detach().abs().max()) < 1e-3
    fresh = PartitionMemory((6, 5), partitions=3, n_items=4, addressing=Addressing())
    gaps = torch.cdist(fresh.items.detach(), fresh.items.detach())
    assert float(gaps[:, ~torch.eye(4, dtype=torch.bool)].min()) > 0


def test_every_item_gets_a_gradient_and_dead_channels_stay_finite() -> None:
    memory = PartitionMemory((8, 8), partitions=2, n_items=6, addressing=Addressing())
    maps = torch.randn(8, 5, 8, 8, generator=torch.Generator().manual_seed(0))
    maps[:, 2] = 0
    maps.requires_grad_()
    memory(maps).square().sum().backward()
    assert (memory.items.grad.abs().sum(dim=-1) > 0).all()
    assert memory.items.grad.isfinite().all()
    assert maps.grad.isfinite().all()


def test_items_follow_the_generator_alone() -> None:
    state = torch.random.get_rng_state()
    drawn = [
        PartitionMemory(
            (4, 4), partitions=2, n_items=3, addressing=Addressing(), generator=torch.Generator().manual_seed(seed)
        ).items
        for seed in (1, 1, 2)
    ]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert torch.equal(state, torch.random.get_rng_state())


def test_wrong_shapes_and_values_are_named() -> None:
    with pytest.raises(ParameterError, match="partitions=3"):
        PartitionMemory((8, 8), partitions=3, n_items=2, addressing=Addressing())
    with pytest.raises(ParameterError, match="block=3"):
        BlockMemory(4, (8, 8), block=3, n_items=2, addressing=Addressing())
    with pytest.raises(ParameterError, match="temperature"):
        Addressing(temperature=0.0)
    with pytest.raises(ParameterError, match="threshold"):
        Addressing(threshold=-1.0)
    with pytest.raises(ParameterError, match="shrink"):
        Addressing(shrink="keep")
