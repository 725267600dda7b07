"""Gaussians per position against loops over numpy.cov and scipy's Mahalanobis distance."""

from __future__ import annotations

import copy
import itertools
import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.spatial.distance import mahalanobis
from torch import Tensor

from anomem.errors import NotFittedError, ParameterError
from anomem.nn import gaussian as module
from anomem.nn.gaussian import GaussianMoments, PositionGaussian, choose_channels, concatenate_maps, split_channels

CHANNELS, HW = 6, (3, 5)
POSITIONS = list(itertools.product(range(HW[0]), range(HW[1])))


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _maps(count: int, *, seed: int = 0, offset: float = 0.0) -> Tensor:
    """Correlated channels, another mean and another covariance at each position; float64."""
    rng = _generator(seed)
    mixing = torch.randn(*HW, CHANNELS, CHANNELS, generator=_generator(99), dtype=torch.float64)
    centre = torch.randn(*HW, CHANNELS, generator=_generator(98), dtype=torch.float64) + offset
    noise = torch.randn(count, *HW, CHANNELS, generator=rng, dtype=torch.float64)
    return (torch.einsum("hwcd,bhwd->bhwc", mixing, noise) + centre).permute(0, 3, 1, 2)


def _gathered(maps: Tensor, batch: int = 8, weight: Tensor | None = None) -> GaussianMoments:
    moments = GaussianMoments(CHANNELS, HW)
    for start in range(0, len(maps), batch):
        part = slice(start, start + batch)
        moments.update(maps[part], None if weight is None else weight[part])
    return moments


def _covariance(moments: GaussianMoments) -> np.ndarray:
    return torch.cat([c for _, c in moments.covariances()]).numpy()


@pytest.mark.parametrize("offset", [0.0, 1e5], ids=["near", "far from the origin"])
@pytest.mark.parametrize("chunk", [10**6, 40], ids=["at once", "in chunks"])
def test_moments_equal_numpy_at_every_position(monkeypatch: pytest.MonkeyPatch, offset: float, chunk: int) -> None:
    monkeypatch.setattr(module, "_CHUNK_ELEMENTS", chunk)
    maps = _maps(40, offset=offset)
    moments = _gathered(maps)
    found, means = _covariance(moments), moments.mean().numpy()
    for p, (i, j) in enumerate(POSITIONS):
        vectors = maps[:, :, i, j].numpy()
        np.testing.assert_allclose(means[p], vectors.mean(axis=0), rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(found[p], np.cov(vectors, rowvar=False), rtol=1e-7, atol=1e-9)


def test_distances_equal_scipy() -> None:
    maps, fresh, ridge = _maps(40, offset=50.0), _maps(7, seed=1, offset=50.0), 0.05
    found = _gathered(maps).result(ridge)(fresh)
    assert found.shape == (7, *HW)
    assert found.dtype == torch.float32
    for i, j in POSITIONS:
        vectors = maps[:, :, i, j].numpy()
        precision = np.linalg.inv(np.cov(vectors, rowvar=False) + ridge * np.eye(CHANNELS))
        wanted = [mahalanobis(v, vectors.mean(axis=0), precision) for v in fresh[:, :, i, j].numpy()]
        np.testing.assert_allclose(found[:, i, j].numpy(), wanted, rtol=1e-4)


def test_the_ridge_carries_fewer_images_than_channels() -> None:
    maps = _maps(4)
    found = _gathered(maps).result(0.01)(maps)
    for i, j in POSITIONS:
        vectors = maps[:, :, i, j].numpy()
        precision = np.linalg.inv(np.cov(vectors, rowvar=False) + 0.01 * np.eye(CHANNELS))
        wanted = [mahalanobis(v, vectors.mean(axis=0), precision) for v in vectors]
        np.testing.assert_allclose(found[:, i, j].numpy(), wanted, rtol=1e-4)


def test_learnt_images_have_the_distances_that_algebra_demands() -> None:
    maps = _maps(30)
    squares = _gathered(maps).result(1e-9)(maps).double().square()
    torch.testing.assert_close(squares.sum(dim=0), torch.full(HW, 29.0 * CHANNELS).double(), rtol=1e-4, atol=0)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("batch", [1, 7, 100])
def test_batches_do_not_matter_to_the_bit(batch: int, weighted: bool) -> None:
    maps = _maps(100, offset=1e4)
    weight = torch.rand(100, *HW, generator=_generator(3)) < 0.6 if weighted else None
    found, wanted = _gathered(maps, batch, weight), _gathered(maps, 16, weight)
    assert np.array_equal(_covariance(found), _covariance(wanted))
    assert torch.equal(found.mean(), wanted.mean())
    fresh = _maps(5, seed=2, offset=1e4)
    gaussian = wanted.result(0.01)
    torch.testing.assert_close(torch.cat([gaussian(f[None]) for f in fresh]), gaussian(fresh), rtol=1e-5, atol=0)


def test_memory_does_not_grow_with_images() -> None:
    moments, sizes = GaussianMoments(CHANNELS, HW), []
    for _ in range(30):
        moments.update(_maps(8))
        sizes.append(len(pickle.dumps(moments)))
    assert len(set(sizes[3:])) == 1  # from the first 32 images on, which are added up at once


def test_what_was_gathered_may_be_looked_at_between_batches() -> None:
    maps, moments = _maps(100), GaussianMoments(CHANNELS, HW)
    for start in range(0, 100, 20):
        moments.update(maps[start : start + 20])
        assert moments.counts.tolist() == [start + 20] * len(POSITIONS)
        seen = maps[: start + 20].permute(0, 2, 3, 1).flatten(1, 2)
        torch.testing.assert_close(moments.mean(), seen.mean(dim=0), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(_covariance(moments), _covariance(_gathered(maps)), rtol=1e-9, atol=1e-10)


def test_images_are_left_as_they_were() -> None:
    # In the order in which vectors are added up and compared: the one in which nothing need be copied.
    maps = _maps(8).float().permute(2, 3, 0, 1).contiguous().permute(2, 3, 0, 1)
    before = maps.clone()
    moments = GaussianMoments(CHANNELS, HW)
    for weight in (None, torch.rand(8, *HW, generator=_generator()) > 0.5):
        moments.update(maps, weight)
    moments.result(0.01)(maps)
    assert torch.equal(maps, before)


def test_positions_that_do_not_count_are_not_looked_at() -> None:
    maps = _maps(40)
    weight = torch.rand(40, *HW, generator=_generator(3)) < 0.6
    spoilt = maps.masked_fill(~weight[:, None], torch.nan)
    found, means = _covariance(m := _gathered(spoilt, weight=weight)), m.mean().numpy()
    for p, (i, j) in enumerate(POSITIONS):
        vectors = maps[weight[:, i, j], :, i, j].numpy()
        assert m.counts[p] == len(vectors)
        np.testing.assert_allclose(means[p], vectors.mean(axis=0), rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(found[p], np.cov(vectors, rowvar=False), rtol=1e-8, atol=1e-10)


def test_positions_seen_once_or_never() -> None:
    maps, ridge = _maps(40), 0.04
    weight = torch.ones(40, *HW, dtype=torch.bool)
    weight[:, 0, 0] = False
    weight[1:, 1, 2] = False
    moments = _gathered(maps, weight=weight)
    seen = maps.permute(0, 2, 3, 1)[weight].numpy()
    np.testing.assert_allclose(moments.mean()[0].numpy(), seen.mean(axis=0), rtol=1e-10)
    np.testing.assert_allclose(_covariance(moments)[0], np.cov(seen, rowvar=False), rtol=1e-8, atol=1e-10)
    distances = moments.result(ridge)(maps)
    wanted = (maps[:, :, 1, 2] - maps[0, :, 1, 2]).norm(dim=1) / ridge**0.5
    torch.testing.assert_close(distances[:, 1, 2], wanted.float(), rtol=1e-5, atol=1e-4)


def test_a_batch_without_any_position_changes_nothing() -> None:
    nothing = torch.zeros(8, *HW, dtype=torch.bool)
    moments = GaussianMoments(CHANNELS, HW)
    moments.update(_maps(8), nothing)
    with pytest.raises(NotFittedError, match="update"):
        moments.mean()
    moments.update(_maps(8))
    before = _covariance(moments)
    moments.update(_maps(8, seed=5), nothing)
    assert np.array_equal(_covariance(moments), before)


def test_precision_of_the_features_does_not_reach_the_distance() -> None:
    maps = _maps(40).float()
    gaussian = _gathered(maps).result(0.01)
    rounded = maps.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(gaussian(rounded), gaussian(rounded.float()))
    assert gaussian(rounded).dtype == torch.float32


def test_the_map_may_lie_in_memory_in_any_order() -> None:
    maps = _maps(40).float()
    gaussian = _gathered(maps).result(0.01)
    for laid in (maps.contiguous(), maps.contiguous(memory_format=torch.channels_last)):
        assert torch.equal(gaussian(laid), gaussian(maps))


def test_a_file_holds_half_and_loses_nothing() -> None:
    maps = _maps(40)
    gaussian = _gathered(maps).result(0.01)
    parent = torch.nn.Sequential(gaussian)
    state = parent.state_dict()
    assert state["0.whitening"].shape == (len(POSITIONS), CHANNELS * (CHANNELS + 1) // 2)
    assert gaussian.whitening.tril(-1).abs().max() == 0
    with torch.device("meta"):
        empty = torch.nn.Sequential(PositionGaussian(CHANNELS, HW))
    for again, assign in ((torch.nn.Sequential(PositionGaussian(CHANNELS, HW)), False), (empty, True)):
        again.load_state_dict(state, assign=assign)
        assert torch.equal(again[0].whitening, gaussian.whitening)
        assert torch.equal(copy.deepcopy(again)(maps), gaussian(maps))
    assert state["0.whitening"].ndim == 2
    with pytest.raises(RuntimeError, match="whitening"):
        torch.nn.Sequential(PositionGaussian(CHANNELS + 1, HW)).load_state_dict(state)


def test_any_batch_goes_through_one_exported_graph() -> None:
    maps = _maps(40).float().contiguous(memory_format=torch.channels_last)
    gaussian = _gathered(maps).result(0.01)
    batch = torch.export.Dim("batch", max=64)
    graph = torch.export.export(gaussian, (maps[:2],), dynamic_shapes={"maps": {0: batch}}).module()
    torch.testing.assert_close(graph(maps[:9]), gaussian(maps[:9]))


def test_an_unfitted_gaussian_knows_no_distance() -> None:
    assert PositionGaussian(CHANNELS, HW)(_maps(2)).isnan().all()
    with pytest.raises(NotFittedError, match="update"):
        GaussianMoments(CHANNELS, HW).result(0.01)


def test_unusable_input_is_named() -> None:
    moments = GaussianMoments(CHANNELS, HW)
    with pytest.raises(ParameterError, match=r"\('B', 6, 3, 5\), got \(2, 6, 5, 3\)"):
        moments.update(_maps(2).transpose(2, 3))
    with pytest.raises(ParameterError, match=r"weight must be \(2, 3, 5\), got \(2, 5, 3\)"):
        moments.update(_maps(2), torch.ones(2, 5, 3, dtype=torch.bool))
    moments.update(torch.zeros(4, CHANNELS, *HW))
    with pytest.raises(ParameterError, match="ridge=0: "):
        moments.result(0.0)


def _features() -> list[Tensor]:
    shapes = ((2, 8, 8), (3, 4, 4), (5, 3, 3))
    return [torch.randn(2, *shape, generator=_generator(i)) for i, shape in enumerate(shapes)]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)], ids=["finest first", "finest within"])
def test_stages_meet_on_the_finest_grid(order: tuple[int, ...]) -> None:
    features = [_features()[i] for i in order]
    found = concatenate_maps(features)
    assert found.shape == (2, 10, 8, 8)
    start = 0
    for f in features:
        h, w = f.shape[2:]
        for i, j in itertools.product(range(8), range(8)):
            assert torch.equal(found[:, start : start + f.shape[1], i, j], f[:, :, i * h // 8, j * w // 8])
        start += f.shape[1]


@pytest.mark.parametrize("chosen", [[0, 1, 4, 9], [2, 5, 6], [8], list(range(10))])
def test_channels_may_be_taken_before_or_after(chosen: list[int]) -> None:
    features, wanted = _features(), torch.tensor(chosen)
    resized = [features[0], *(F.interpolate(f, size=(8, 8), mode="nearest") for f in features[1:])]
    after = torch.cat(resized, dim=1).index_select(1, wanted)
    assert torch.equal(concatenate_maps(features, split_channels(wanted, [2, 3, 5])), after)


def test_channels_are_drawn_by_the_generator_alone() -> None:
    state = torch.random.get_rng_state()
    first, again, other = (choose_channels(176, 100, _generator(s)) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(first, first.unique())
    assert first.dtype == torch.int64
    assert torch.equal(state, torch.random.get_rng_state())
    untouched = _generator()
    assert torch.equal(choose_channels(5, None, untouched), torch.arange(5))
    assert torch.equal(untouched.get_state(), _generator().get_state())


def test_every_channel_is_equally_likely() -> None:
    rng, counts = _generator(), torch.zeros(10)
    for _ in range(2000):
        counts[choose_channels(10, 3, rng)] += 1
    assert (counts / 2000 - 0.3).abs().max() < 0.05


@pytest.mark.parametrize("count", [0, 11])
def test_channels_that_there_are_not(count: int) -> None:
    with pytest.raises(ParameterError, match=f"{count} channels cannot be drawn from 10"):
        choose_channels(10, count, _generator())
