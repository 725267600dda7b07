"""k-means against scikit-learn and planted clusters."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from anomem.errors import InputError, ParameterError
from anomem.nn import kmeans as module
from anomem.nn.kmeans import kmeans


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _inertia(vectors: Tensor, centres: Tensor) -> float:
    return float(torch.cdist(vectors, centres).min(dim=1).values.square().sum())


@pytest.mark.parametrize(("n", "k"), [(1000, 20), (3000, 300)], ids=["one by one", "in rounds"])
def test_inertia_is_within_a_few_percent_of_scikit_learn(n: int, k: int) -> None:
    from sklearn.cluster import KMeans

    centres = torch.randn(40, 8, generator=_generator())
    vectors = centres[torch.randint(40, (n,), generator=_generator(1))]
    vectors = vectors + 0.4 * torch.randn(n, 8, generator=_generator(2))
    reference = KMeans(k, n_init=1, random_state=0, max_iter=100).fit(vectors.numpy()).inertia_
    for seed in range(3):
        found = _inertia(vectors, kmeans(vectors, k, _generator(seed), iterations=30))
        assert found < 1.05 * reference


@pytest.mark.parametrize("seed", range(5))
def test_planted_clusters_are_recovered_far_from_the_origin(seed: int) -> None:
    centres = 100 + 20 * torch.eye(12)
    vectors = centres.repeat_interleave(25, dim=0) + 0.1 * torch.randn(300, 12, generator=_generator())
    found = kmeans(vectors, 12, _generator(seed))
    expected = vectors.reshape(12, 25, 12).mean(dim=1)
    distances, nearest = torch.cdist(expected, found).min(dim=1)
    assert sorted(nearest.tolist()) == list(range(12))
    assert distances.max() < 1e-3


def test_the_generator_decides_alone() -> None:
    vectors = torch.randn(500, 6, generator=_generator())
    state = torch.random.get_rng_state()
    first, again, other = (kmeans(vectors, 30, _generator(s)) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(state, torch.random.get_rng_state())


def test_more_iterations_never_raise_the_inertia() -> None:
    vectors = torch.randn(800, 5, generator=_generator())
    inertias = [_inertia(vectors, kmeans(vectors, 40, _generator(), i)) for i in (0, 1, 3, 10)]
    assert inertias == sorted(inertias, reverse=True)
    assert inertias[-1] < 0.9 * inertias[0]


def test_a_candidate_limit_and_chunks_keep_the_quality(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = torch.randn(2000, 5, generator=_generator())
    free = _inertia(vectors, kmeans(vectors, 40, _generator()))
    monkeypatch.setattr(module, "_MIN_CANDIDATES", 100)
    monkeypatch.setattr(module, "_CHUNK_ELEMENTS", 1000)
    assert _inertia(vectors, kmeans(vectors, 40, _generator())) < 1.05 * free


def test_empty_clusters_take_over_the_farthest_vectors() -> None:
    vectors = torch.tensor([[0.0], [1.0], [2.0], [50.0]])
    assigned = torch.tensor([0, 0, 0, 0])
    distances = torch.tensor([0.0, 1.0, 4.0, 2500.0])
    means = module._means(vectors, assigned, distances, 3)
    assert means.squeeze(1).tolist() == [13.25, 50.0, 2.0]


@pytest.mark.parametrize("k", [1, 4, 6])
def test_equal_vectors_are_no_trouble(k: int) -> None:
    vectors = torch.tensor([[1.0, 2.0]] * 3 + [[4.0, 6.0]] * 3)
    centres = kmeans(vectors, k, _generator())
    assert centres.isfinite().all()
    if k > 1:
        assert _inertia(vectors, centres) == pytest.approx(0, abs=1e-6)


def test_as_many_centres_as_vectors_are_the_vectors() -> None:
    vectors = torch.randn(300, 4, generator=_generator())
    centres = kmeans(vectors, 300, _generator())
    assert torch.cdist(vectors, centres).min(dim=1).values.max() < 1e-2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_precisions(dtype: torch.dtype) -> None:
    vectors = torch.randn(200, 4, generator=_generator()).to(dtype)
    centres = kmeans(vectors, 5, _generator())
    assert centres.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


def test_unusable_input_is_named() -> None:
    vectors = torch.randn(5, 2, generator=_generator())
    with pytest.raises(InputError, match="feature vectors: 5 cannot make 6"):
        kmeans(vectors, 6, _generator())
    with pytest.raises(InputError, match="NaN"):
        kmeans(torch.full((5, 2), torch.nan), 2, _generator())
    with pytest.raises(ParameterError, match="k must"):
        kmeans(vectors, 0, _generator())
    with pytest.raises(ParameterError, match="iterations"):
        kmeans(vectors, 2, _generator(), -1)
