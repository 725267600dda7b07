"""Losses against slow loops written from the papers' equations."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from anomem.detectors.anomem import loss as losses
from anomem.errors import ParameterError
from anomem.nn import contrastive_loss
from anomem.nn.hopfield import HopfieldMemory


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=_generator(seed), dtype=torch.float64)


def _cosine(a: Tensor, b: Tensor) -> float:
    return float(a @ b / (a.norm() * b.norm()))


def _slow_nt_xent(anchor: Tensor, other: Tensor, temperature: float) -> float:
    """Eq. 4 with Eq. 5 for one position, member by member."""
    n = len(anchor)
    members = [*anchor, *other]

    def one(query: int, positive: int) -> float:
        terms = [math.exp(_cosine(members[query], members[p]) / temperature) for p in range(2 * n) if p != query]
        similarity = _cosine(members[query], members[positive]) / temperature
        return -math.log(math.exp(similarity) / sum(terms))

    return sum(one(k, n + k) + one(n + k, k) for k in range(n)) / (2 * n)


def _slow_barlow(anchor: Tensor, other: Tensor, weight: float) -> float:
    n, c = anchor.shape
    loss = 0.0
    for i in range(c):
        for j in range(c):
            a, b = anchor[:, i], other[:, j]
            covariance = float(((a - a.mean()) * (b - b.mean())).sum()) / n
            spread = math.sqrt(float(a.var(correction=0)) + 1e-5)
            spread *= math.sqrt(float(b.var(correction=0)) + 1e-5)
            correlation = covariance / spread
            loss += (1 - correlation) ** 2 if i == j else weight * correlation**2
    return loss


def _slow_variance(retrieved: Tensor, normal: Tensor, kind: str, hinge: bool, unit: bool) -> float:
    """Eq. 6 for one position."""
    rows = [row / row.norm() if unit else row for row, ok in zip(retrieved, normal, strict=True) if ok]
    if not rows:
        return 0.0
    columns = list(torch.stack(rows).T) if kind == "batch" else rows
    total = 0.0
    for values in columns:
        mean = sum(float(v) for v in values) / len(values)
        std = math.sqrt(sum((float(v) - mean) ** 2 for v in values) / len(values))
        total += max(0.0, 1 - std) if hinge else -std
    return total / len(columns)


NORMAL = torch.tensor([True, False, True, True, False])


def test_nt_xent_equals_the_loop_over_members_and_positions() -> None:
    anchor, other = _random(3, 4, 6), _random(3, 4, 6, seed=1)
    slow = sum(_slow_nt_xent(a, b, 0.3) for a, b in zip(anchor, other, strict=True)) / 3
    assert losses.nt_xent(anchor, other, 0.3).item() == pytest.approx(slow, rel=1e-12)


def test_nt_xent_ignores_the_scale_and_is_zero_for_a_single_pair() -> None:
    anchor, other = _random(2, 5, 6), _random(2, 5, 6, seed=1)
    expected = losses.nt_xent(anchor, other).item()
    assert losses.nt_xent(7 * anchor, other / 3).item() == pytest.approx(expected, rel=1e-12)
    assert losses.nt_xent(anchor[:, :1], other[:, :1]).item() == pytest.approx(0, abs=1e-12)


def test_nt_xent_is_smaller_for_matching_views_than_for_shuffled_ones() -> None:
    anchor = _random(2, 8, 16)
    other = anchor + 0.1 * _random(2, 8, 16, seed=1)
    assert losses.nt_xent(anchor, other) < losses.nt_xent(anchor, other.roll(1, dims=1)) - 5


@pytest.mark.parametrize("shape", [(2, 9, 4), (2, 4, 9)], ids=["B>C", "B<C"])
def test_barlow_equals_the_cross_correlation_entry_by_entry(shape: tuple[int, int, int]) -> None:
    anchor, other = _random(*shape), _random(*shape, seed=1)
    slow = sum(_slow_barlow(a, b, 0.02) for a, b in zip(anchor, other, strict=True)) / 2
    assert losses.barlow_twins(anchor, other, 0.02).item() == pytest.approx(slow, rel=1e-10)


@pytest.mark.parametrize("kind", ["batch", "sample"])
@pytest.mark.parametrize("hinge", [False, True])
@pytest.mark.parametrize("unit", [False, True])
def test_variance_equals_the_loop(kind: losses.VarianceKind, hinge: bool, unit: bool) -> None:
    retrieved = 0.7 * _random(3, 5, 6)
    slow = sum(_slow_variance(r, NORMAL, kind, hinge, unit) for r in retrieved) / 3
    fast = losses.variance_loss(retrieved, NORMAL, kind, hinge, unit)
    assert fast.item() == pytest.approx(slow, rel=1e-9)


def test_variance_scales_to_unit_norm_unless_hinged() -> None:
    retrieved = _random(2, 5, 6)
    for hinge in (False, True):
        default = losses.variance_loss(retrieved, NORMAL, hinge=hinge)
        assert default == losses.variance_loss(retrieved, NORMAL, hinge=hinge, unit=not hinge)


def test_only_the_batch_reading_sees_that_retrievals_coincide() -> None:
    coinciding = _random(1, 1, 6).expand(2, 5, 6)
    everyone = torch.ones(5, dtype=torch.bool)
    assert losses.variance_loss(coinciding, everyone, "batch").item() == pytest.approx(0, abs=1e-9)
    assert losses.variance_loss(coinciding, everyone, "sample").item() < -0.1


def test_variance_of_no_normal_image_is_zero_with_finite_gradients() -> None:
    retrieved = _random(2, 5, 6).requires_grad_()
    for hinge in (False, True):
        loss = losses.variance_loss(retrieved, torch.zeros(5, dtype=torch.bool), hinge=hinge)
        (gradient,) = torch.autograd.grad(loss, retrieved)
        assert loss.item() == 0
        assert not gradient.any()


def test_anomalous_images_bypass_the_memory() -> None:
    z, other, retrieved = _random(2, 5, 6), _random(2, 5, 6, seed=1), _random(2, 5, 6, seed=2)
    remembered = torch.stack([retrieved[:, k] if NORMAL[k] else z[:, k] for k in range(5)], dim=1)
    loss = losses.contrasted_memory_loss(z, other, retrieved, NORMAL, temperature=0.2)
    assert loss.item() == pytest.approx(losses.nt_xent(remembered, other, 0.2).item(), rel=1e-12)
    barlow = losses.contrasted_memory_loss(z, other, retrieved, NORMAL, base="barlow")
    assert barlow.item() == pytest.approx(losses.barlow_twins(remembered, other).item(), rel=1e-12)


@pytest.mark.parametrize(
    ("h", "w", "ratio", "count"),
    [
        (8, 8, 0.3, 19),
        (14, 14, 0.3, 58),
        (16, 16, 0.3, 76),
        (4, 4, 1.0, 16),
        (2, 2, 0.1, 1),
        (10, 10, 0.29, 29),
    ],
)
def test_positions_are_counted_as_in_the_paper(h: int, w: int, ratio: float, count: int) -> None:
    positions = losses.sample_positions(h, w, ratio, _generator())
    assert len(positions) == len(positions.unique()) == count
    assert positions.min() >= 0
    assert positions.max() < h * w


def test_positions_follow_the_generator_alone_and_reach_the_whole_map() -> None:
    state = torch.random.get_rng_state()
    generator = _generator(3)
    draws = [losses.sample_positions(4, 4, 0.3, generator) for _ in range(60)]
    assert torch.equal(draws[0], losses.sample_positions(4, 4, 0.3, _generator(3)))
    assert len(torch.cat(draws).unique()) == 16
    assert torch.equal(state, torch.random.get_rng_state())


def _two_scales() -> tuple[list[Tensor], list[Tensor], list[HopfieldMemory]]:
    maps = [_random(5, 6, 4, 4), _random(5, 8, 2, 3, seed=1)]
    others = [_random(5, 6, 4, 4, seed=2), _random(5, 8, 2, 3, seed=3)]
    memories = [HopfieldMemory(7, c, beta=1.0, generator=_generator(c)).double() for c in (6, 8)]
    return maps, others, memories


@pytest.mark.parametrize("base", ["simclr", "barlow"])
def test_multi_scale_loss_equals_the_loop_over_positions(base: losses.Base) -> None:
    maps, others, memories = _two_scales()
    loss = losses.multi_scale_contrasted_memory_loss(
        maps, others, memories, NORMAL, ratios=[0.3, 1.0], generator=_generator(9), base=base
    )
    generator, slow, n_positions = _generator(9), 0.0, 0
    for s, ratio in enumerate([0.3, 1.0]):
        h, w = maps[s].shape[-2:]
        for flat in losses.sample_positions(h, w, ratio, generator).tolist():
            i, j = divmod(flat, w)
            z, other = maps[s][:, :, i, j], others[s][:, :, i, j]
            retrieved = memories[s](z).detach()
            remembered = torch.where(NORMAL[:, None], retrieved, z)
            contrast = (
                _slow_nt_xent(remembered, other, 0.1) if base == "simclr" else _slow_barlow(remembered, other, 5e-3)
            )
            spread = _slow_variance(retrieved, NORMAL, "batch", hinge=False, unit=True)
            slow += 2**s * (contrast + 0.05 * spread)
            n_positions += 1
    assert n_positions == 4 + 6
    assert loss.item() == pytest.approx(slow / n_positions, rel=1e-9)


def test_projection_heads_shape_the_contrast_but_not_the_variance() -> None:
    maps, others, memories = _two_scales()
    weights = [_random(c, 3, seed=c) for c in (6, 8)]
    heads = [lambda z, weight=weight: z @ weight for weight in weights]

    def loss(variance_weight: float, *, projected: bool) -> float:
        return losses.multi_scale_contrasted_memory_loss(
            maps,
            others,
            memories,
            NORMAL,
            ratios=[1.0, 1.0],
            generator=_generator(),
            variance_weight=variance_weight,
            projections=heads if projected else None,
        ).item()

    slow = 0.0
    for s in range(2):
        z, other = (m[s].flatten(2).permute(2, 0, 1) for m in (maps, others))
        retrieved = memories[s](z) @ weights[s]
        slow += (
            2**s * len(z) * losses.contrasted_memory_loss(z @ weights[s], other @ weights[s], retrieved, NORMAL).item()
        )
    assert loss(0.0, projected=True) == pytest.approx(slow / (16 + 6), rel=1e-10)
    variance = loss(1.0, projected=False) - loss(0.0, projected=False)
    assert loss(1.0, projected=True) - loss(0.0, projected=True) == pytest.approx(variance, rel=1e-9)


@pytest.mark.parametrize("base", ["simclr", "barlow"])
def test_chunks_change_neither_loss_nor_gradients(base: losses.Base, monkeypatch: pytest.MonkeyPatch) -> None:
    def run() -> list[Tensor]:
        maps, others, memories = _two_scales()
        leaves = [m.requires_grad_() for m in maps + others] + [m.items for m in memories]
        loss = losses.multi_scale_contrasted_memory_loss(
            maps, others, memories, NORMAL, ratios=[1.0, 1.0], generator=_generator(), base=base
        )
        return [loss.detach(), *torch.autograd.grad(loss, leaves)]

    whole = run()
    monkeypatch.setattr(contrastive_loss, "_CHUNK_ELEMENTS", 300)
    for expected, chunked in zip(whole, run(), strict=True):
        torch.testing.assert_close(chunked, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("base", ["simclr", "barlow"])
@pytest.mark.parametrize("association", ["euclidean", "dot"])
def test_every_parameter_and_both_branches_get_a_gradient(base: str, association: str) -> None:
    torch_generator = _generator()
    encoder = nn.Conv2d(3, 6, 3)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=torch_generator))
    memory = HopfieldMemory(7, 6, beta=1.0, association=association)  # type: ignore[arg-type]
    views = [torch.randn(5, 3, 5, 5, generator=torch_generator) for _ in range(2)]
    maps, others = encoder(views[0]), encoder(views[1])
    maps.retain_grad()
    others.retain_grad()
    loss = losses.multi_scale_contrasted_memory_loss(
        [maps],
        [others],
        [memory],
        NORMAL,
        ratios=[1.0],
        generator=torch_generator,
        base=base,  # type: ignore[arg-type]
    )
    loss.backward()
    gradients = [maps.grad, others.grad, *(p.grad for p in encoder.parameters())]
    for gradient in gradients:
        assert gradient.isfinite().all()
        assert gradient.abs().sum() > 0
    assert (memory.items.grad.abs().sum(dim=1) > 0).all()


def test_gradients_are_those_of_finite_differences() -> None:
    z, other, retrieved = (_random(2, 5, 4, seed=s).requires_grad_() for s in range(3))
    for base in ("simclr", "barlow"):

        def contrast(z: Tensor, other: Tensor, retrieved: Tensor, base: str = base) -> Tensor:
            return losses.contrasted_memory_loss(z, other, retrieved, NORMAL, base=base)  # type: ignore[arg-type]

        assert torch.autograd.gradcheck(contrast, (z, other, retrieved))
    for kind in ("batch", "sample"):

        def spread(features: Tensor, kind: str = kind) -> Tensor:
            return losses.variance_loss(features, NORMAL, kind)  # type: ignore[arg-type]

        assert torch.autograd.gradcheck(spread, (retrieved,))


def test_half_precision_is_computed_in_float32_under_autocast_too() -> None:
    anchor, other = (_random(2, 6, 8, seed=s).bfloat16() for s in range(2))
    for loss in (losses.nt_xent, losses.barlow_twins):
        expected = loss(anchor.float(), other.float())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            torch.testing.assert_close(loss(anchor, other), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("margin", [2.0, 3.0])
def test_double_hinge_in_our_labels(margin: float) -> None:
    distance = torch.tensor([0.1, 1.5, 0.1, 1.5, 9.0, 9.0])
    label = torch.tensor([0, 0, 1, 1, 1, -1])
    expected = [0, 1.5 - 1 / margin, margin - 0.1, margin - 1.5, 0, 0]
    torch.testing.assert_close(losses.double_hinge(distance, label, margin), torch.tensor(expected))


def test_choices_out_of_range_are_named() -> None:
    z = _random(2, 5, 4)
    with pytest.raises(ParameterError, match="temperature"):
        losses.nt_xent(z, z, 0.0)
    with pytest.raises(ParameterError, match="kind"):
        losses.variance_loss(z, NORMAL, "row")  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match="base"):
        losses.contrasted_memory_loss(z, z, z, NORMAL, base="byol")  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match="ratio"):
        losses.sample_positions(2, 2, 1.5, _generator())
    with pytest.raises(ParameterError, match="margin"):
        losses.double_hinge(z, z, 0.5)
