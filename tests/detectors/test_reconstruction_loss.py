"""Reconstruction losses against slow loops written from the equations."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from anomem.detectors.reconstruction import loss as losses
from anomem.errors import ParameterError


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _slow_ssim(x: Tensor, y: Tensor, window: int, sigma: float) -> Tensor:
    """Wang et al.'s index at every pixel of one plane, from weighted sums over the window within the image."""
    height, width = x.shape
    reach, found = window // 2, torch.zeros_like(x)
    for i in range(height):
        for j in range(width):
            places = [
                (a, b, math.exp(-((a - i) ** 2 + (b - j) ** 2) / (2 * sigma**2)))
                for a in range(max(0, i - reach), min(height, i + reach + 1))
                for b in range(max(0, j - reach), min(width, j + reach + 1))
            ]
            total = sum(w for _, _, w in places)
            mean_x = sum(w * float(x[a, b]) for a, b, w in places) / total
            mean_y = sum(w * float(y[a, b]) for a, b, w in places) / total
            var_x = sum(w * (float(x[a, b]) - mean_x) ** 2 for a, b, w in places) / total
            var_y = sum(w * (float(y[a, b]) - mean_y) ** 2 for a, b, w in places) / total
            both = sum(w * (float(x[a, b]) - mean_x) * (float(y[a, b]) - mean_y) for a, b, w in places) / total
            upper = (2 * mean_x * mean_y + 0.01**2) * (2 * both + 0.03**2)
            found[i, j] = upper / ((mean_x**2 + mean_y**2 + 0.01**2) * (var_x + var_y + 0.03**2))
    return found


@pytest.mark.parametrize(("window", "sigma"), [(11, 1.5), (3, 0.8)])
def test_ssim_equals_the_loop_over_pixels(window: int, sigma: float) -> None:
    images = _random(2, 2, 13, 9)
    other = (images + 0.3 * _random(2, 2, 13, 9, seed=1)).clamp(0, 1)
    fast = losses.structural_similarity(images, other, window, sigma)
    for b in range(2):
        for c in range(2):
            torch.testing.assert_close(fast[b, c], _slow_ssim(images[b, c], other[b, c], window, sigma))
    assert losses.dissimilarity(images, other, window).item() == pytest.approx(
        float((1 - losses.structural_similarity(images, other, window)).mean())
    )


def test_ssim_is_one_for_equals_symmetric_and_falls_with_noise() -> None:
    images = _random(1, 3, 16, 16)
    torch.testing.assert_close(losses.structural_similarity(images, images), torch.ones_like(images))
    noise = _random(1, 3, 16, 16, seed=1) - 0.5
    levels = [losses.dissimilarity(images, images + a * noise).item() for a in (0.0, 0.1, 0.3, 1.0)]
    assert levels == sorted(levels)
    assert levels[-1] > 0.3
    torch.testing.assert_close(
        losses.structural_similarity(images, images + noise), losses.structural_similarity(images + noise, images)
    )


def test_losses_add_up_as_in_equation_9() -> None:
    images, other = _random(2, 3, 12, 12), _random(2, 3, 12, 12, seed=1)
    squares = [(float(a) - float(b)) ** 2 for a, b in zip(images.flatten(), other.flatten(), strict=True)]
    mse = sum(squares) / len(squares)
    ssim = losses.dissimilarity(images, other).item()
    assert losses.reconstruction_loss(images, other, "mse").item() == pytest.approx(mse)
    assert losses.reconstruction_loss(images, other, "ssim").item() == pytest.approx(ssim)
    assert losses.reconstruction_loss(images, other).item() == pytest.approx(mse + 0.1 * ssim)
    assert losses.reconstruction_loss(images, other, ssim_weight=3.0).item() == pytest.approx(mse + 3 * ssim)


@pytest.mark.parametrize("kind", losses.KINDS)
def test_gradients_are_those_of_finite_differences(kind: losses.Kind) -> None:
    images, other = _random(1, 1, 5, 6), _random(1, 1, 5, 6, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda found: losses.reconstruction_loss(images, found, kind, window=3), other)


def test_half_precision_is_computed_in_float32_under_autocast_too() -> None:
    images, other = _random(2, 3, 16, 16).bfloat16(), _random(2, 3, 16, 16, seed=1).bfloat16()
    expected = losses.reconstruction_loss(images.float(), other.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = losses.reconstruction_loss(images, other)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


def test_constant_images_have_finite_losses_and_gradients() -> None:
    for level in (0.0, 0.5, 1.0):
        other = torch.full((1, 3, 16, 16), level, requires_grad=True)
        loss = losses.reconstruction_loss(torch.full((1, 3, 16, 16), level), other)
        (gradient,) = torch.autograd.grad(loss, other)
        assert loss.item() == pytest.approx(0, abs=1e-4)
        assert gradient.isfinite().all()


def test_entropy_equals_the_loop() -> None:
    weights = torch.softmax(5 * _random(2, 7, 4), dim=-1)
    weights[0, 0] = torch.tensor([0.0, 1.0, 0.0, 0.0])
    rows = [row for group in weights.tolist() for row in group]
    slow = [-sum(w * math.log(w) for w in row if w > 0) for row in rows]
    assert losses.addressing_entropy(weights).item() == pytest.approx(sum(slow) / len(slow))
    even = torch.full((3, 8), 1 / 8)
    assert losses.addressing_entropy(even).item() == pytest.approx(math.log(8))


def test_entropy_has_finite_gradients_where_items_are_left_out() -> None:
    weights = torch.tensor([[0.0, 0.5, 0.5]], requires_grad=True)
    (gradient,) = torch.autograd.grad(losses.addressing_entropy(weights), weights)
    assert gradient.isfinite().all()


def test_choices_out_of_range_are_named() -> None:
    images = _random(1, 1, 4, 4)
    with pytest.raises(ParameterError, match="kind"):
        losses.reconstruction_loss(images, images, "l1")  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match="odd"):
        losses.structural_similarity(images, images, 4)
