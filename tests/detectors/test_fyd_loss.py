"""FYD's losses against slow loops written from the paper's equations."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from anomem.detectors.fyd import loss as losses
from anomem.errors import ParameterError


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=_generator(seed), dtype=torch.float64)


def _cosine(a: Tensor, b: Tensor) -> float:
    return float(a @ b) / math.sqrt(float(a @ a) * float(b @ b))


def _slow_fine_alignment(predicted: Tensor, encoded: Tensor, pairing: Tensor) -> float:
    """Eq. 3 and 4, image by image and position by position."""
    count, _, height, width = predicted.shape
    total = 0.0
    for one in range(count):
        other = int(pairing[one])
        for i in range(height):
            for j in range(width):
                forth = -_cosine(predicted[one, :, i, j], encoded[other, :, i, j])
                back = -_cosine(predicted[other, :, i, j], encoded[one, :, i, j])
                total += 0.5 * forth + 0.5 * back
    return total / (count * height * width)


def test_non_contrastive_loss_equals_the_loop() -> None:
    predicted, encoded = _random(4, 5, 3, 2), _random(4, 5, 3, 2, seed=1)
    pairing = torch.tensor([2, 0, 3, 1])
    found = losses.non_contrastive_loss(predicted, encoded, pairing)
    assert float(found) == pytest.approx(_slow_fine_alignment(predicted, encoded, pairing), abs=1e-12)


def test_cosine_runs_along_channels_not_along_the_last_axis() -> None:
    # Each position points the same way in both maps, with a length of its own.
    direction = _random(2, 5, 1, 1)
    first, second = direction * _random(2, 1, 3, 4, seed=1).exp(), direction * _random(2, 1, 3, 4, seed=2).exp()
    assert float(losses.negative_cosine(first, second)) == pytest.approx(-1, abs=1e-12)
    assert float(-torch.cosine_similarity(first, second, dim=-1).mean()) > -0.95


def test_targets_get_no_gradient() -> None:
    predicted, encoded = _random(3, 4, 2, 2).requires_grad_(), _random(3, 4, 2, 2, seed=1).requires_grad_()
    losses.non_contrastive_loss(predicted, encoded, torch.tensor([1, 2, 0])).backward()
    assert float(predicted.grad.abs().min(dim=1).values.max()) > 0
    assert encoded.grad is None


def test_both_directions_of_a_pair_count() -> None:
    predicted, encoded, pairing = _random(3, 4, 1, 1), _random(3, 4, 1, 1, seed=1), torch.tensor([1, 2, 0])
    forth = losses.negative_cosine(predicted, encoded[pairing])
    back = losses.negative_cosine(predicted[pairing], encoded)
    assert float(forth) != pytest.approx(float(back), abs=1e-3)
    assert float(losses.non_contrastive_loss(predicted, encoded, pairing)) == pytest.approx(float(forth + back) / 2)


@given(count=st.integers(2, 40), seed=st.integers(0, 1000))
def test_no_image_is_paired_with_itself(count: int, seed: int) -> None:
    drawn = losses.derangement(count, _generator(seed))
    assert sorted(drawn.tolist()) == list(range(count))
    assert all(place != other for place, other in enumerate(drawn.tolist()))


def test_every_pairing_is_drawn_equally_often() -> None:
    generator = _generator()
    drawn = [tuple(losses.derangement(4, generator).tolist()) for _ in range(1800)]
    counts = [drawn.count(one) for one in set(drawn)]
    assert len(counts) == 9  # the derangements of four
    assert max(counts) - min(counts) < 100  # 200 each, with a deviation of 13


def test_one_image_has_no_pair() -> None:
    with pytest.raises(ParameterError, match="at least 2"):
        losses.derangement(1, _generator())


def test_image_loss_equals_the_loop() -> None:
    images, weight = _random(3, 3, 4, 5), (_random(3, 4, 5, seed=1) > 0).double()
    pairing = torch.tensor([1, 2, 0])
    total, weights = 0.0, 0.0
    for one in range(3):
        other = int(pairing[one])
        for i in range(4):
            for j in range(5):
                both = float(weight[one, i, j] * weight[other, i, j])
                total += both * math.sqrt(float((images[one, :, i, j] - images[other, :, i, j]).square().sum()))
                weights += both
    assert float(losses.image_alignment_loss(images, pairing, weight)) == pytest.approx(total / weights, abs=1e-9)
    everywhere = losses.image_alignment_loss(images, pairing)
    assert float(everywhere) == pytest.approx(float((images - images[pairing]).norm(dim=1).mean()))


def test_equal_images_have_a_finite_gradient() -> None:
    images = torch.ones(2, 3, 4, 4, requires_grad=True)
    losses.image_alignment_loss(images, torch.tensor([1, 0])).backward()
    assert bool(torch.isfinite(images.grad).all())


def test_unit_deviation_watches_for_collapse() -> None:
    free = _random(16, 64, 8, 8)
    assert float(losses.unit_deviation(free)) == pytest.approx(1 / math.sqrt(64), rel=0.02)
    assert float(losses.unit_deviation(100 * free)) == pytest.approx(1 / math.sqrt(64), rel=0.02)
    assert float(losses.unit_deviation(free[:1, :, :1, :1].expand(16, -1, 8, 8))) < 1e-6


def _slow_distance_variance(features: Tensor, ridge: float) -> float:
    """Eq. 6 and 8 to 10, position by position."""
    count, channels, height, width = features.shape
    total = 0.0
    for i in range(height):
        for j in range(width):
            x = features[:, :, i, j]
            mean = x.sum(dim=0) / count
            covariance = torch.zeros(channels, channels, dtype=x.dtype)
            for row in x:
                covariance += torch.outer(row - mean, row - mean) / (count - 1)
            inverse = torch.linalg.inv(covariance + ridge * torch.eye(channels, dtype=x.dtype))
            distances = torch.stack([((row - mean) @ inverse @ (row - mean)).sqrt() for row in x])
            total += float(((distances - distances.mean()) ** 2).sum()) / count
    return total / (height * width)


@pytest.mark.parametrize("ridge", [0.0, 0.5])
def test_distance_variance_equals_the_loop(ridge: float) -> None:
    features = _random(12, 3, 2, 4)
    assert losses.distance_variance(features, ridge=ridge) == pytest.approx(_slow_distance_variance(features, ridge))


def test_a_fixed_ridge_takes_smaller_features_for_compact_ones() -> None:
    features = _random(40, 6, 3, 3)
    fixed = [losses.distance_variance(f, ridge=0.1) for f in (features, 0.05 * features)]
    assert fixed[1] < 0.1 * fixed[0]
    for ridge in (0.0, 0.1):
        free = [losses.distance_variance(f, ridge=ridge, scale_free=True) for f in (features, 0.05 * features)]
        assert free[1] == pytest.approx(free[0], rel=1e-9)


def test_too_few_images_have_no_covariance() -> None:
    with pytest.raises(ParameterError, match="give a ridge"):
        losses.distance_variance(_random(7, 6, 2, 2))
