"""Levels, links and gradients of the autoencoder; histogram error estimation."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from anomem.detectors.reconstruction.autoencoder import Autoencoder
from anomem.detectors.reconstruction.partition_memory import Addressing, PartitionMemory
from anomem.detectors.reconstruction.scorer import corrected_error, unavoidable_error
from anomem.errors import ParameterError

WIDTHS = (16, 32, 64, 128, 128)


def _memory(level: int, size: int = 32) -> PartitionMemory:
    side = size >> level
    return PartitionMemory((side, side), partitions=2, n_items=5, addressing=Addressing(temperature=0.1))


def test_levels_halve_and_the_image_comes_back_in_full() -> None:
    model = Autoencoder(WIDTHS, {level: nn.Identity() for level in range(5)}).eval()
    with torch.no_grad():
        maps = model.encode(torch.rand(2, 3, 128, 128))
        assert [tuple(m.shape[1:]) for m in maps] == [
            (16, 128, 128),
            (32, 64, 64),
            (64, 32, 32),
            (128, 16, 16),
            (128, 8, 8),
        ]
        assert model.decode(list(maps)).shape == (2, 3, 128, 128)


@pytest.mark.parametrize("kinds", ["mmm", "mms", "mss", "sss", "..s", ".ms", "m.m"])
def test_every_parameter_gets_a_gradient(kinds: str) -> None:
    links = {i: _memory(i) if kind == "m" else nn.Identity() for i, kind in enumerate(kinds) if kind != "."}
    model = Autoencoder((4, 6, 8), links)
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    (model(images) - images).square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def _reached(model: Autoencoder, level: int) -> bool:
    """Whether a level's encoder features, changed alone, change the image by another way than through deeper levels."""
    images = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        maps = model.encode(images)
        passed = [model.links[str(i)](m) if str(i) in model.links else None for i, m in enumerate(maps)]
        image = model.decode(passed)
        if passed[level] is None:
            return False
        passed[level] = torch.zeros_like(maps[level])
        return not torch.equal(model.decode(passed), image)


def test_links_are_the_only_ways_across() -> None:
    model = Autoencoder((4, 6, 8), {0: nn.Identity(), 2: nn.Identity()}).eval()
    assert [_reached(model, level) for level in range(3)] == [True, False, True]


def test_a_memory_level_passes_its_read_on_and_nothing_else() -> None:
    memory = _memory(0)
    model = Autoencoder((4, 6), {0: memory, 1: nn.Identity()}).eval()
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        maps = model.encode(images)
        expected = model.decode([memory.look_up(maps[0])[0], maps[1]])
        torch.testing.assert_close(model(images), expected)


def test_a_single_level_and_no_level_at_all() -> None:
    assert Autoencoder((4,), {0: _memory(0)}).eval()(torch.rand(1, 3, 32, 32)).shape == (1, 3, 32, 32)
    with pytest.raises(ParameterError, match="deepest"):
        Autoencoder((4, 8), {0: nn.Identity()})
    with pytest.raises(ParameterError, match="deepest"):
        Autoencoder((), {})
    with pytest.raises(ParameterError, match="passes nothing on"):
        Autoencoder((4,), {0: nn.Identity()}).decode([None])


def _slow_mu(error: Tensor, share: float) -> float:
    """Sort, take the smallest, average."""
    values = sorted(error.flatten().tolist())
    count = round(share * len(values))
    return sum(values[:count]) / count if count else 0.0


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 0.75, 0.9, 1.0])
def test_the_corrected_error_equals_the_loop(share: float) -> None:
    generator = torch.Generator().manual_seed(0)
    images, found = (torch.rand(3, 3, 8, 6, generator=generator, dtype=torch.float64) for _ in range(2))
    corrected = corrected_error(images, found, share)
    for b in range(3):
        error = sum((images[b, c] - found[b, c]).abs() for c in range(3)) / 3
        mu = _slow_mu(error, share)
        assert float(unavoidable_error(error[None], share)) == pytest.approx(mu, rel=1e-12)
        for i in range(8):
            for j in range(6):
                assert float(corrected[b, i, j]) == pytest.approx(max(0.0, float(error[i, j]) - mu), abs=1e-12)


def test_without_a_share_nothing_is_taken_off() -> None:
    error = torch.rand(2, 4, 4) + 1
    assert unavoidable_error(error, 0.0).tolist() == [0.0, 0.0]
    images = torch.rand(2, 3, 4, 4)
    torch.testing.assert_close(corrected_error(images, torch.zeros_like(images), 0.0), images.mean(dim=1))


def test_an_even_error_is_unavoidable() -> None:
    images = torch.rand(2, 3, 4, 4)
    assert float(corrected_error(images, images + 0.2, 0.5).max()) < 1e-6
