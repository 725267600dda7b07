"""Deep SAD objective against slow loops, and the direction of its gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from anomem.detectors.baselines._hypersphere import deep_sad, hypersphere_centre, squared_distance
from anomem.errors import ParameterError

ANOMALOUS = torch.tensor([False, True, False, False, True])


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("eta", [1.0, 0.3, 10.0])
def test_objective_equals_the_loop_over_images(eta: float) -> None:
    outputs, centre = _random(5, 3), _random(3, seed=1)
    total = 0.0
    for row, anomalous in zip(outputs, ANOMALOUS, strict=True):
        distance = sum((float(z) - float(c)) ** 2 for z, c in zip(row, centre, strict=True))
        total += eta * (distance + 1e-6) ** -1 if anomalous else distance
    assert deep_sad(outputs, centre, ANOMALOUS, eta=eta).item() == pytest.approx(total / 5, rel=1e-12)


def test_without_anomalies_it_is_the_mean_squared_distance() -> None:
    outputs, centre = _random(5, 3), _random(3, seed=1)
    none = torch.zeros(5, dtype=torch.bool)
    expected = (outputs - centre).norm(dim=1).square().mean()
    assert deep_sad(outputs, centre, none).item() == pytest.approx(float(expected), rel=1e-12)


def test_normals_are_pulled_to_the_centre_and_anomalies_pushed_away() -> None:
    outputs, centre = _random(5, 3).requires_grad_(), _random(3, seed=1)
    (gradient,) = torch.autograd.grad(deep_sad(outputs, centre, ANOMALOUS), outputs)
    outward = ((outputs - centre) * gradient).sum(dim=1)
    assert (outward[~ANOMALOUS] > 0).all()
    assert (outward[ANOMALOUS] < 0).all()


def test_an_anomaly_at_the_centre_keeps_everything_finite() -> None:
    outputs = torch.zeros(2, 3, requires_grad=True)
    value = deep_sad(outputs, torch.zeros(3), torch.tensor([True, False]))
    (gradient,) = torch.autograd.grad(value, outputs)
    assert value.item() == pytest.approx(0.5e6, rel=1e-5)
    assert torch.isfinite(gradient).all()


def test_half_precision_is_computed_in_float32() -> None:
    centre = torch.full((64,), 0.1, dtype=torch.bfloat16)
    outputs = torch.full((2, 64), 0.12, dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = squared_distance(outputs, centre)
    wanted = 64 * (float(outputs[0, 0]) - float(centre[0])) ** 2
    assert found.dtype == torch.float32
    assert found.tolist() == pytest.approx([wanted, wanted], rel=1e-4)


def test_eta_is_positive() -> None:
    with pytest.raises(ParameterError, match="eta must be above 0"):
        deep_sad(_random(5, 3), _random(3), ANOMALOUS, eta=0.0)


def test_no_coordinate_of_the_centre_is_near_zero() -> None:
    outputs = torch.tensor([[1.0, 0.2, -0.02, 0.0, -3.0], [3.0, -0.1, -0.06, 0.0, -1.0]])
    torch.testing.assert_close(hypersphere_centre(outputs), torch.tensor([2.0, 0.1, -0.1, 0.1, -2.0]))
    outputs = outputs.requires_grad_()
    assert not hypersphere_centre(outputs).requires_grad


def test_without_the_floor_zero_weights_would_be_a_solution() -> None:
    """A bias-free network with all weights 0 gives 0: the centre keeps its distance from that."""
    nothing = torch.zeros(4, 8)
    centre = hypersphere_centre(nothing)
    assert deep_sad(nothing, centre, torch.zeros(4, dtype=torch.bool)).item() == pytest.approx(8 * 0.01)
