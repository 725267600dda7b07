"""Deviations, their standardisation and their fusion, against the equations."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from anomem.errors import ParameterError
from anomem.nn.deviation import MapFusion, ScaleMemory, smooth
from anomem.nn.tracing import exporting_here


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _scale(n_items: int = 6, **changes: Any) -> ScaleMemory:
    options: dict[str, Any] = {
        "neighbourhood": 1,
        "normalise": "raw",
        "position_mean": False,
        "max_grid": 28,
        "beta": 2.0,
        "hard": True,
    }
    return ScaleMemory(5, (4, 4), n_items=n_items, **{**options, **changes})


def _fusion(hws: list[tuple[int, int]], weights: list[float], **changes: Any) -> MapFusion:
    options: dict[str, Any] = {
        "input_hw": (32, 32),
        "reduction": "l2",
        "top": 0.1,
        "smoothing": 0.0,
        "standardise": "none",
    }
    return MapFusion(hws, weights, **{**options, **changes})


def _norms(n: int, hws: list[tuple[int, int]], seed: int = 0) -> list[Tensor]:
    generator = _generator(seed)
    return [2 + torch.rand(n, *hw, generator=generator) * (1 + s) for s, hw in enumerate(hws)]


HWS = [(8, 8), (4, 4)]


def test_delta_is_what_the_nearest_item_leaves_over() -> None:
    scale, maps = _scale(), torch.randn(2, 5, 4, 4, generator=_generator())
    delta = scale(maps)
    items = scale.memory.items
    for b, y, x in ((0, 0, 0), (1, 3, 2)):
        z = maps[b, :, y, x]
        nearest = items[(items - z).norm(dim=1).argmin()]
        torch.testing.assert_close(delta[b, :, y, x], z - nearest)


@pytest.mark.parametrize("weight", [0.5, 4.0])
def test_the_place_counts_beside_the_features(weight: float) -> None:
    scale, maps = _scale(place_weight=weight).requires_grad_(False), torch.randn(2, 5, 4, 4, generator=_generator())
    items = torch.randn(6, 7, generator=_generator(1))
    scale.memory.items.data.copy_(items)
    norms, delta = scale.norms(maps), scale(maps)
    for b, y, x in ((0, 0, 0), (1, 3, 2)):
        z = torch.cat([maps[b, :, y, x], weight * torch.tensor([(y + 0.5) / 4, (x + 0.5) / 4])])
        away = (items - z).norm(dim=1)
        assert float(norms[b, y, x]) == pytest.approx(float(away.min()), rel=1e-4)
        torch.testing.assert_close(delta[b, :, y, x], (z - items[away.argmin()])[:5])
    for found, expected in zip(scale.deviation(maps), (delta, norms), strict=True):
        torch.testing.assert_close(found, expected)
    vectors = scale.embed_vectors(maps[1].flatten(1).T, torch.arange(16))
    torch.testing.assert_close(vectors.T.reshape(7, 4, 4), scale.embed(maps)[1])


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_an_exported_memory_takes_any_batch(weight: float) -> None:
    class Norms(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = _scale(place_weight=weight).requires_grad_(False)

        def forward(self, maps: Tensor) -> Tensor:
            return self.scale.norms(maps)

    network, maps = Norms().eval(), torch.randn(3, 5, 4, 4, generator=_generator())
    with exporting_here():
        program = torch.export.export(network, (maps[:2],), dynamic_shapes={"maps": {0: torch.export.Dim("batch")}})
    for batch in (maps, maps[:1]):
        torch.testing.assert_close(program.module()(batch), network(batch))


def test_what_is_normal_elsewhere_deviates_where_the_place_counts() -> None:
    maps = torch.zeros(1, 5, 4, 4)
    maps[0, 0, 3, 3] = 1.0
    moved = maps.flip(2, 3)
    for weight, apart in ((0.0, 0.0), (2.0, min(1.0, 2.0 * 0.75 * 2**0.5))):
        scale = _scale(16, place_weight=weight).requires_grad_(False)
        scale.memory.items.data.copy_(scale.embed_vectors(maps[0].flatten(1).T, torch.arange(16)))
        assert float(scale.norms(maps).max()) == pytest.approx(0.0, abs=1e-3)
        assert float(scale.norms(moved).max()) == pytest.approx(apart, abs=1e-3)


def test_without_a_memory_all_is_deviation() -> None:
    maps = torch.randn(2, 5, 4, 4, generator=_generator())
    torch.testing.assert_close(_scale(0)(maps), maps)


def test_a_remembered_vector_does_not_deviate() -> None:
    scale, maps = _scale(16), torch.randn(1, 5, 4, 4, generator=_generator())
    scale.memory.items.data.copy_(maps[0].flatten(1).T)
    assert float(scale(maps).detach().abs().max()) < 1e-5


def test_a_neighbourhood_averages_what_there_is() -> None:
    maps = torch.arange(16.0).reshape(1, 1, 4, 4).expand(1, 5, 4, 4)
    around = _scale(neighbourhood=3).gather(maps)
    assert float(around[0, 0, 0, 0]) == pytest.approx((0 + 1 + 4 + 5) / 4)
    assert float(around[0, 0, 1, 1]) == pytest.approx(float(maps[0, 0, :3, :3].mean()))


def test_fine_maps_are_averaged_down() -> None:
    scale = _scale(max_grid=2)
    maps = torch.randn(1, 5, 4, 4, generator=_generator())
    assert scale.hw == (2, 2)
    torch.testing.assert_close(scale.gather(maps)[0, :, 0, 1], maps[0, :, :2, 2:].mean(dim=(1, 2)))


def test_literal_l2_is_equations_9_and_13() -> None:
    norms = _norms(3, HWS)
    score, map_ = _fusion(HWS, [1.0, 2.0])(norms)
    by_scale = [n.flatten(1).norm(dim=1) for n in norms]
    torch.testing.assert_close(score, (1.0 * by_scale[0] + 2.0 * by_scale[1]) / 3.0)
    assert map_.shape == (3, 16, 16)


def test_maximum_and_top_share_of_the_map() -> None:
    norms = _norms(3, HWS)
    highest, map_ = _fusion(HWS, [1.0, 1.0], reduction="max")(norms)
    torch.testing.assert_close(highest, map_.flatten(1).amax(dim=1))
    top, map_ = _fusion(HWS, [1.0, 1.0], reduction="top", top=0.25)(norms)
    torch.testing.assert_close(top, map_.flatten(1).sort(dim=1).values[:, -64:].mean(dim=1))
    single, _ = _fusion(HWS, [1.0, 1.0], reduction="top", top=1e-9)(norms)
    torch.testing.assert_close(single, highest)


@pytest.mark.parametrize("standardise", ["scale", "position"])
@pytest.mark.parametrize("scale", [0, 1])
def test_totals_are_standard_on_tune_normals(standardise: str, scale: int) -> None:
    alone = [float(s == scale) for s in range(2)]
    fusion, tune = _fusion(HWS, alone, standardise=standardise), _norms(50, HWS)
    fusion.standardise_on(tune, _norms(50, HWS, seed=1))
    assert _moments(fusion(tune)[0]) == pytest.approx((0, 1), abs=1e-4)


@pytest.mark.parametrize("standardise", ["scale", "position"])
@pytest.mark.parametrize("hw", HWS)
def test_peaks_are_standard_on_tune_normals(standardise: str, hw: tuple[int, int]) -> None:
    fusion = _fusion([hw], [1.0], standardise=standardise, reduction="max", input_hw=hw)  # a map of its own size
    tune = _norms(50, [hw])
    fusion.standardise_on(tune, _norms(50, [hw], seed=1))
    assert _moments(fusion(tune)[0]) == pytest.approx((0, 1), abs=1e-4)


def _moments(values: Tensor) -> tuple[float, float]:
    return float(values.mean()), float(values.std(correction=0))


def test_the_map_weighs_scales_as_equation_13() -> None:
    norms = [torch.full((1, *hw), value) for hw, value in zip(HWS, (1.0, 5.0), strict=True)]
    _, map_ = _fusion(HWS, [1.0, 3.0])(norms)
    torch.testing.assert_close(map_, torch.full_like(map_, (1 * 1 + 3 * 5) / 4))


@pytest.mark.parametrize("reduction", ["l2", "max", "top"])
def test_a_map_of_its_own_weights_leaves_the_score_alone(reduction: str) -> None:
    norms = _norms(3, HWS)
    apart = _fusion(HWS, [1.0, 3.0], map_weights=[2.0, 0.0], reduction=reduction)(norms)
    assert torch.equal(apart[0], _fusion(HWS, [1.0, 3.0], reduction=reduction)(norms)[0])
    assert torch.equal(apart[1], _fusion(HWS, [2.0, 0.0], reduction=reduction)(norms)[1])
    changed = [norms[0], 10 * norms[1]]
    again = _fusion(HWS, [1.0, 3.0], map_weights=[2.0, 0.0], reduction=reduction)(changed)
    assert torch.equal(again[1], apart[1])
    assert bool((again[0] > apart[0]).all())


def test_a_map_standardised_apart_leaves_the_score_alone() -> None:
    """The score discounts a noisy place, the map shows it as it is; one standardisation has no buffers of another."""
    tune, norms = _norms(40, HWS), _norms(3, HWS, seed=2)
    tune[0][:, 2, 2] += 5 * torch.rand(40, generator=_generator(9))
    alike = {"reduction": "top", "map_weights": [1.0, 0.5]}
    per_place, per_scale, apart = (
        _fusion(HWS, [1.0, 3.0], **alike, standardise=kind, map_standardise=of_map)
        for kind, of_map in (("position", None), ("scale", None), ("position", "scale"))
    )
    for fusion in (per_place, per_scale, apart):
        fusion.standardise_on(tune, _norms(5, HWS, seed=1))
    torch.testing.assert_close(apart(norms)[0], per_place(norms)[0], rtol=0, atol=0)
    torch.testing.assert_close(apart(norms)[1], per_scale(norms)[1], rtol=0, atol=0)
    assert not torch.equal(apart(norms)[1], per_place(norms)[1])
    assert apart.state_dict().keys() - per_place.state_dict().keys() == {
        f"map_{name}_{s}" for name in ("location", "spread") for s in range(2)
    }
    alone = _fusion(HWS, [1.0, 3.0], standardise="position", map_standardise="scale")
    assert alone.state_dict().keys() == per_place.state_dict().keys(), "one map for both"


@pytest.mark.parametrize("reduction", ["l2", "max", "top"])
def test_a_score_needs_the_norms_of_its_own_scales_alone(reduction: str) -> None:
    norms = _norms(3, HWS)
    fusion = _fusion(HWS, [1.0, 0.0], map_weights=[0.0, 1.0], reduction=reduction, standardise="scale")
    fusion.standardise_on(_norms(20, HWS, seed=1), norms)
    assert fusion.judged == ([0, 1] if reduction == "l2" else [0])
    assert torch.equal(fusion.score({s: norms[s] for s in fusion.judged}), fusion(norms)[0])


def test_a_map_without_any_scale_is_refused() -> None:
    with pytest.raises(ParameterError, match="weights: 0 for every scale"):
        _fusion(HWS, [1.0, 1.0], map_weights=[0.0, 0.0])


def test_few_normals_tell_little_about_single_positions() -> None:
    """The prior: alike positions stay alike where five images alone would make some of them look quiet."""
    tune, fresh = _norms(2, [(8, 8)]), _norms(100, [(8, 8)], seed=2)
    maps = []
    for standardise in ("scale", "position"):
        fusion = _fusion([(8, 8)], [1.0], standardise=standardise, reduction="max", input_hw=(8, 8))
        fusion.standardise_on(tune, _norms(3, [(8, 8)], seed=1))
        maps.append(fusion(fresh)[1].flatten())
    assert float(torch.corrcoef(torch.stack(maps))[0, 1]) > 0.99


def test_learnt_normals_tell_places_and_not_sizes() -> None:
    """Norms of what the memory has seen are too small: scaled and shifted as a whole, they say the same."""
    tune, learnt = _norms(20, [(8, 8)]), _norms(40, [(8, 8)], seed=1)
    scores = []
    for profile in (learnt, [0.1 * norms + 0.5 for norms in learnt]):
        fusion = _fusion([(8, 8)], [1.0], standardise="position", reduction="top")
        fusion.standardise_on(tune, profile)
        scores.append(fusion(_norms(10, [(8, 8)], seed=2))[0])
    torch.testing.assert_close(*scores, rtol=1e-4, atol=1e-4)


def test_no_scale_outvotes_another() -> None:
    tune = _norms(60, HWS)
    scaled = [tune[0], 1000 * tune[1] + 50]
    scores = []
    for norms in (tune, scaled):
        fusion = _fusion(HWS, [1.0, 1.0], standardise="scale", reduction="max")
        fusion.standardise_on(norms, norms)
        scores.append(fusion(norms)[0])
    torch.testing.assert_close(*scores, rtol=1e-4, atol=1e-4)


def test_a_noisy_place_is_discounted_where_positions_are_standardised() -> None:
    tune = _norms(400, [(8, 8)])
    tune[0][:, 2, 2] += 5 * torch.rand(400, generator=_generator(9))
    share = {}
    for standardise in ("scale", "position"):
        fusion = _fusion([(8, 8)], [1.0], standardise=standardise, reduction="max")
        fusion.standardise_on(tune, tune)
        _, map_ = fusion(tune)
        blocks = map_.unfold(1, 2, 2).unfold(2, 2, 2).amax(dim=(3, 4)).flatten(1)
        share[standardise] = float((blocks.argmax(dim=1) == 2 * 8 + 2).float().mean())
    assert share["scale"] > 0.7
    assert share["position"] < 0.4


def test_constant_deviations_stay_finite() -> None:
    constant = [torch.ones(10, *hw) for hw in HWS]
    for reduction in ("l2", "max", "top"):
        for standardise in ("scale", "position"):
            fusion = _fusion(HWS, [1.0, 1.0], standardise=standardise, reduction=reduction)
            fusion.standardise_on(constant, constant)
            score, map_ = fusion([0.5 * c for c in constant])
            assert torch.isfinite(score).all()
            assert torch.isfinite(map_).all()


def test_a_scale_of_one_position_is_off_the_map_but_counts_in_totals() -> None:
    hws = [(8, 8), (1, 1)]
    fusion, norms = _fusion(hws, [1.0, 1.0]), _norms(2, hws)
    louder = [norms[0], 10 * norms[1]]
    assert torch.equal(fusion(norms)[1], fusion(louder)[1])
    assert (fusion(louder)[0] > fusion(norms)[0]).all()


def test_what_was_learnt_is_in_the_state() -> None:
    fusion = _fusion(HWS, [1.0, 2.0], standardise="position", reduction="top", smoothing=4.0)
    fusion.standardise_on(_norms(30, HWS), _norms(30, HWS, seed=1))
    again = _fusion(HWS, [9.0, 9.0], standardise="position", reduction="top", smoothing=4.0)
    again.load_state_dict(fusion.state_dict())
    norms = _norms(3, HWS, seed=2)
    assert torch.equal(again(norms)[0], fusion(norms)[0])
    assert torch.equal(again(norms)[1], fusion(norms)[1])


def test_smoothing_keeps_constants_and_spreads_a_point_evenly() -> None:
    kernel = _fusion([(8, 8)], [1.0], smoothing=4.0).kernel
    torch.testing.assert_close(smooth(torch.full((1, 1, 16, 16), 3.0), kernel), torch.full((1, 1, 16, 16), 3.0))
    point = torch.zeros(1, 1, 33, 33)
    point[0, 0, 16, 16] = 1
    blurred = smooth(point, kernel)
    assert float(blurred.sum()) == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(blurred, blurred.flip(2))
    torch.testing.assert_close(blurred, blurred.transpose(2, 3))
