"""Streaming moments and the normalisations against whole-batch references."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from anomem.errors import NotFittedError, ParameterError
from anomem.nn.normalise import FeatureMoments, Mode, Normaliser


def _maps(n: int = 12, c: int = 5, h: int = 3, w: int = 4, seed: int = 0) -> Tensor:
    """Correlated channels whose mean depends on the position."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(c, c, generator=generator, dtype=torch.float64)
    place = 2 * torch.randn(c, h, w, generator=generator, dtype=torch.float64)
    noise = torch.randn(n, c, h, w, generator=generator, dtype=torch.float64)
    return torch.einsum("dc,nchw->ndhw", mixing, noise) + place


def _moments(maps: Tensor, hw: tuple[int, int] | None, unit: bool = True) -> FeatureMoments:
    moments = FeatureMoments(maps.shape[1], hw, unit=unit)
    for batch in maps.split([1, 5, len(maps) - 6]):
        moments.update(batch)
    return moments


def _vectors(maps: Tensor) -> Tensor:
    return maps.movedim(1, -1).flatten(0, -2)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**20), offset=st.sampled_from([0.0, 1e3]), unit=st.booleans())
def test_streaming_moments_equal_those_of_the_whole(seed: int, offset: float, unit: bool) -> None:
    maps = _maps(seed=seed) + offset
    seen = F.normalize(maps, dim=1) if unit else maps
    moments = _moments(maps, (3, 4), unit)
    vectors = _vectors(seen).numpy()
    assert moments.count == len(vectors)
    np.testing.assert_allclose(moments.mean(), vectors.mean(axis=0), rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(moments.mean_map(), seen.mean(dim=0), rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(moments.covariance(per_position=False), np.cov(vectors.T, bias=True), rtol=0, atol=1e-10)
    around = _vectors(seen - seen.mean(dim=0)).numpy()
    np.testing.assert_allclose(moments.covariance(), around.T @ around / len(around), rtol=0, atol=1e-10)


def test_moments_without_positions_take_maps_of_any_size() -> None:
    maps, small = _maps(), _maps(h=1, w=1, seed=1)
    moments = FeatureMoments(5, unit=False)
    moments.update(maps)
    moments.update(small)
    vectors = torch.cat([_vectors(maps), _vectors(small)]).numpy()
    np.testing.assert_allclose(moments.mean_map()[:, 0, 0], vectors.mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(moments.covariance(), np.cov(vectors.T, bias=True), atol=1e-10)


@pytest.mark.parametrize("unit", [True, False])
@pytest.mark.parametrize("hw", [None, (3, 4)], ids=["one mean", "mean per position"])
def test_whitening_gives_identity_covariance_on_the_fitting_data(hw: tuple[int, int] | None, unit: bool) -> None:
    maps = _maps(n=40)
    normaliser = Normaliser("whiten", 5, hw, unit=unit)
    normaliser.fit(_moments(maps, hw, unit), shrinkage=0.0)
    white = normaliser(maps.float())
    assert white.shape == maps.shape
    vectors = _vectors(white).double()
    covariance = vectors.T @ vectors / len(vectors)
    torch.testing.assert_close(5 * covariance, torch.eye(5).double(), rtol=0, atol=1e-4)
    mean = white.mean(dim=0) if hw else vectors.mean(dim=0)
    torch.testing.assert_close(mean, torch.zeros_like(mean), rtol=0, atol=1e-4)


def test_the_mean_per_position_removes_what_the_one_mean_leaves() -> None:
    maps = _maps(n=40)
    left = {}
    for hw in (None, (3, 4)):
        normaliser = Normaliser("whiten", 5, hw)
        normaliser.fit(_moments(maps, (3, 4)))
        left[hw] = normaliser(maps.float()).mean(dim=0).abs().max().item()
    assert left[(3, 4)] < 1e-4
    assert left[None] > 0.5


@pytest.mark.parametrize("unit", [True, False])
def test_lengths_count_only_without_unit_norm(unit: bool) -> None:
    maps = _maps(n=40)
    normaliser = Normaliser("whiten", 5, (3, 4), unit=unit)
    normaliser.fit(_moments(maps, (3, 4), unit))
    seen = [normaliser(scale * maps[:4].float()) for scale in (1.0, 3.0)]
    assert torch.allclose(*seen, atol=1e-4) == unit
    positions = torch.arange(12)
    vectors = normaliser.vectors(maps[0].float().flatten(1).T, positions)
    torch.testing.assert_close(vectors.T.reshape(5, 3, 4), seen[0][0])


def test_whitening_equals_the_manual_form_and_shrinkage_bounds_it() -> None:
    maps = _maps(n=30)
    vectors = _vectors(F.normalize(maps, dim=1)).numpy()
    for shrinkage in (0.01, 0.3, 1.0):
        normaliser = Normaliser("whiten", 5)
        normaliser.fit(_moments(maps, None), shrinkage)
        covariance = np.cov(vectors.T, bias=True)
        shrunk = (1 - shrinkage) * covariance + shrinkage * np.trace(covariance) / 5 * np.eye(5)
        white = _vectors(normaliser(maps.float())).double()
        centred = vectors - vectors.mean(axis=0)
        squared = np.einsum("mi,ij,mj->m", centred, np.linalg.inv(shrunk), centred)
        np.testing.assert_allclose(white.square().sum(dim=1), squared / squared.mean(), rtol=1e-3)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_the_power_of_whitening_bends_the_spectrum_and_keeps_the_mean_square_norm_at_one(power: float) -> None:
    maps = _maps(n=40)
    normaliser = Normaliser("whiten", 5)
    normaliser.fit(_moments(maps, None), shrinkage=0.0, power=power)
    vectors = _vectors(normaliser(maps.float())).double()
    assert vectors.square().sum(dim=1).mean().item() == pytest.approx(1, abs=1e-4)
    before = np.linalg.eigvalsh(np.cov(_vectors(F.normalize(maps, dim=1)).numpy().T, bias=True))
    after = np.linalg.eigvalsh(np.cov(vectors.numpy().T, bias=True))
    np.testing.assert_allclose(
        np.sort(after / after.sum()), np.sort(before ** (1 - power) / (before ** (1 - power)).sum()), rtol=1e-3
    )


@pytest.mark.parametrize("maps", [torch.zeros(7, 5, 3, 4), torch.full((7, 5, 3, 4), 0.3)])
def test_constant_features_stay_finite(maps: Tensor) -> None:
    for hw in (None, (3, 4)):
        normaliser = Normaliser("whiten", 5, hw)
        normaliser.fit(_moments(maps, hw))
        assert normaliser(maps).isfinite().all()
        assert normaliser(_maps().float()).isfinite().all()


def test_the_other_modes() -> None:
    maps = _maps().float()
    assert torch.equal(Normaliser("raw", 5)(maps), maps)
    unit = Normaliser("unit", 5)(maps)
    torch.testing.assert_close(unit.norm(dim=1), torch.ones(12, 3, 4))
    torch.testing.assert_close(unit * maps.norm(dim=1, keepdim=True), maps)
    layernorm = Normaliser("layernorm", 5)(maps)
    expected = (maps - maps.mean(dim=1, keepdim=True)) / maps.std(dim=1, keepdim=True, correction=0)
    torch.testing.assert_close(layernorm, expected, rtol=1e-3, atol=1e-3)


def test_the_state_dict_carries_everything() -> None:
    maps = _maps()
    fitted = Normaliser("whiten", 5, (3, 4))
    assert fitted(maps.float()).isnan().all()
    fitted.fit(_moments(maps, (3, 4)))
    loaded = Normaliser("whiten", 5, (3, 4))
    loaded.load_state_dict(fitted.state_dict())
    assert torch.equal(loaded(maps.float()), fitted(maps.float()))
    assert sorted(fitted.state_dict()) == ["mean", "projection"]
    assert list(fitted.parameters()) == []
    assert not Normaliser("unit", 5).state_dict()


@pytest.mark.parametrize("mode", ["whiten", "unit", "layernorm", "raw"])
def test_exported_graphs_take_any_batch(mode: Mode) -> None:
    normaliser = Normaliser(mode, 5, (3, 4)).eval()
    normaliser.fit(_moments(_maps(), (3, 4)))
    graph = torch.export.export(
        normaliser, (_maps().float(),), dynamic_shapes=({0: torch.export.Dim("batch")},)
    ).module()
    for n in (1, 7):
        maps = _maps(n=n).float()
        torch.testing.assert_close(graph(maps), normaliser(maps))


def test_unusable_moments_are_named() -> None:
    maps = _maps()
    with pytest.raises(NotFittedError):
        FeatureMoments(5).mean()
    with pytest.raises(ParameterError, match=r"\(B, 5, 4, 4\)"):
        FeatureMoments(5, (4, 4)).update(maps)
    with pytest.raises(ParameterError, match="hw"):
        _moments(maps, None).covariance(per_position=True)
    with pytest.raises(ParameterError, match="unit=False"):
        Normaliser("whiten", 5).fit(_moments(maps, None, unit=False))
    with pytest.raises(ParameterError, match="hw"):
        Normaliser("whiten", 5, (3, 4)).fit(_moments(maps, None))
    with pytest.raises(ParameterError, match="shrinkage"):
        Normaliser("whiten", 5).fit(_moments(maps, None), 1.5)
    with pytest.raises(ParameterError, match="normalise"):
        Normaliser("zca", 5)  # type: ignore[arg-type]
