"""Perturbations against their equations; the printed constraint has one direction, the code's many."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from anomem.detectors.plume.loss import PRINTED, REVERSED, kl_divergence, noise_constraint
from anomem.detectors.plume.perturbator import (
    Perturbator,
    add_mult,
    draw_likelihood,
    gaussian,
    linear_map,
    relative_size,
)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_linear_map_is_the_matrix_of_eq_2() -> None:
    x, alpha, beta = (random(6, 5, seed=s) for s in range(3))
    found = linear_map(x, alpha, beta)
    for i in range(6):
        matrix = torch.eye(5) + torch.outer(alpha[i], beta[i])
        torch.testing.assert_close(found[i], matrix @ x[i])


def test_linear_map_holds_no_matrix() -> None:
    """64 samples of 8,192 values: a batch of D x D matrices would take 17 GB."""
    x = random(64, 8192)
    assert linear_map(x, torch.zeros_like(x), x).shape == x.shape


def test_add_mult_is_plads() -> None:
    x, alpha, beta = (random(3, 4, seed=s) for s in range(3))
    found = add_mult(x, alpha, beta)
    for i in range(3):
        for d in range(4):
            assert float(found[i, d]) == pytest.approx(
                float(alpha[i, d]) * float(x[i, d]) + float(beta[i, d]), abs=1e-6
            )


def test_what_leaves_a_sample_where_it_is() -> None:
    x = random(3, 4)
    ones, zeros = torch.ones(3, 4), torch.zeros(3, 4)
    assert torch.equal(linear_map(x, zeros, ones), x)
    assert torch.equal(linear_map(x, ones, zeros), x)
    assert torch.equal(add_mult(x, ones, zeros), x)
    assert float(noise_constraint(zeros, ones, REVERSED)) == float(noise_constraint(ones, zeros, PRINTED)) == 0


def test_gaussian_noise_has_its_size() -> None:
    x = random(200, 50)
    moved = gaussian(x, 0.3, rng()) - x
    assert float(moved.std()) == pytest.approx(0.3, rel=0.02)
    assert float(moved.mean()) == pytest.approx(0, abs=0.01)
    assert torch.equal(gaussian(x, 0.3, rng()), gaussian(x, 0.3, rng()))


def test_relative_size() -> None:
    x = torch.tensor([[3.0, 4.0], [0.0, 2.0], [0.0, 0.0]])
    moved = x + torch.tensor([[0.0, 1.0], [2.0, 0.0], [0.0, 0.0]])
    torch.testing.assert_close(relative_size(x, moved), torch.tensor([0.2, 1.0, 0.0]))


@pytest.mark.parametrize(("width", "wanted"), [(None, 6), (4, 4)])
def test_shapes(width: int | None, wanted: int) -> None:
    drawn = Perturbator(6, width)(random(3, 6), rng())
    assert drawn.alpha.shape == drawn.beta.shape == (3, 6)
    assert drawn.mu.shape == drawn.log_variance.shape == (3, wanted)


def test_layers_are_the_papers() -> None:
    """D -> D, LeakyReLU -> (mu, log variance) in R^D -> D, LeakyReLU -> 2D."""
    perturbator, x = Perturbator(5), random(4, 5)

    def leaky(v: Tensor) -> Tensor:
        return torch.where(v > 0, v, 0.01 * v)

    weights = dict(perturbator.named_parameters())
    assert sum(p.numel() for p in weights.values()) == 4 * (5 * 5 + 5) + 5 * 10 + 10

    def linear(name: str, v: Tensor) -> Tensor:
        return v @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    hidden = leaky(linear("encoder.0", x))
    mu, log_variance = linear("mu", hidden), linear("log_variance", hidden)
    latent = mu + torch.exp(log_variance / 2) * torch.randn(4, 5, generator=rng(7))
    decoded = linear("decoder.2", leaky(linear("decoder.0", latent)))
    drawn = perturbator(x, rng(7))
    for found, wanted in zip(drawn, (decoded[:, :5], decoded[:, 5:], mu, log_variance), strict=True):
        torch.testing.assert_close(found, wanted)


def test_a_start_is_near_its_target_and_still_learns() -> None:
    perturbator, x = Perturbator(50, start=(0.0, 1.0)), random(30, 50)
    with torch.no_grad():
        drawn, anywhere = perturbator(x, rng()), Perturbator(50)(x, rng())
    assert float(drawn.alpha.abs().max()) < 0.05
    assert float((drawn.beta - 1).abs().max()) < 0.05
    assert float(drawn.alpha.std()) > 1e-4
    assert float(anywhere.alpha.std()) > 0.1


def test_a_likelihood_has_the_variance_of_its_weight() -> None:
    alpha, beta = draw_likelihood(torch.full((400, 50), 3.0), torch.full((400, 50), -1.0), 5.0, rng())
    for found, mean in ((alpha, 3.0), (beta, -1.0)):
        assert float(found.mean()) == pytest.approx(mean, abs=0.01)
        assert float(found.var()) == pytest.approx(0.1, rel=0.03)
    assert abs(float(torch.corrcoef(torch.stack([alpha.flatten(), beta.flatten()]))[0, 1])) < 0.03


def test_draws_are_the_generators_alone() -> None:
    perturbator, x = Perturbator(5), random(4, 5)
    state = torch.get_rng_state()
    first, again, other = (perturbator(x, rng(seed)).alpha for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_every_parameter_has_a_gradient() -> None:
    perturbator, x = Perturbator(6, 4), random(3, 6)
    drawn = perturbator(x, rng())
    moved = linear_map(x, drawn.alpha, drawn.beta)
    (moved.square().mean() + kl_divergence(drawn.mu, drawn.log_variance).mean()).backward()
    for name, parameter in perturbator.named_parameters():
        assert parameter.grad.abs().max() > 0, name


def test_adaptivity_tells_whether_alpha_depends_on_the_sample() -> None:
    torch.manual_seed(0)
    perturbator, x = Perturbator(8), random(200, 8)
    with torch.no_grad():
        perturbator.log_variance.bias.fill_(-30)  # nothing is drawn: alpha is a function of the sample
        assert perturbator.adaptivity(x, rng()) == pytest.approx(1, abs=1e-4)
        perturbator.log_variance.bias.fill_(0)
        assert 0.01 < perturbator.adaptivity(x, rng()) < 0.99
        for layer in (perturbator.mu, perturbator.log_variance):
            layer.weight.zero_()  # the latent distribution is the prior, whatever the sample
            layer.bias.zero_()
        assert perturbator.adaptivity(x, rng()) == 0
        perturbator.decoder[2].weight.zero_()
        assert perturbator.adaptivity(x, rng()) == 0


def directions_after_training(target: tuple[float, float], steps: int = 150, dim: int = 32) -> Tensor:
    """Unit vectors of A x - x, of linear maps whose perturbator has learnt Eq. 1 and Eq. 4."""
    torch.manual_seed(0)
    perturbator, draw = Perturbator(dim), rng(1)
    x = random(64, dim, seed=2)
    optimiser = torch.optim.AdamW(perturbator.parameters(), lr=3e-3, fused=True)
    for _ in range(steps):
        drawn = perturbator(x, draw)
        loss = 5 * noise_constraint(drawn.alpha, drawn.beta, target)
        loss = loss + kl_divergence(drawn.mu, drawn.log_variance).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        drawn = perturbator(x, draw)
        return torch.nn.functional.normalize(linear_map(x, drawn.alpha, drawn.beta) - x, dim=1)


def test_as_printed_every_pseudo_anomaly_lies_along_the_ones() -> None:
    directions = directions_after_training(PRINTED)
    along = (directions @ torch.ones(32) / 32**0.5).abs()
    assert float(along.mean()) > 0.99


def test_in_the_codes_form_directions_differ() -> None:
    directions = directions_after_training(REVERSED)
    assert float((directions @ torch.ones(32) / 32**0.5).abs().mean()) < 0.25
    pairs = (directions @ directions.T).abs()
    off_diagonal = pairs[~torch.eye(64, dtype=torch.bool)]
    assert float(off_diagonal.mean()) < 0.4
