"""Feature store: equal features in memory and on disk, uniform draws of rows, no files left."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from anomem.data.imageset import ImageSet
from anomem.data.sources import open_source
from anomem.data.synthetic import crops
from anomem.nn.backbones import Backbone, load_backbone
from anomem.nn.feature_store import BLOCK, FeatureStore, store_features
from anomem.runtime.preprocess import Preprocessing

BUDGETS = {"memory": 1024.0, "file": 0.0, "file from the third block on": 12 * 4 * 4 / 2**20}


def features(n: int = 20, dim: int = 4) -> Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=BUDGETS)
def store(request: pytest.FixtureRequest) -> Iterator[FeatureStore]:
    with FeatureStore(BUDGETS[request.param]) as filled:
        for part in features().split(6):
            filled.add(part)
        assert (filled.file is None) == (request.param == "memory")
        yield filled


def test_rows_come_back(store: FeatureStore) -> None:
    assert (len(store), store.dim) == (20, 4)
    chosen = torch.tensor([19, 0, 7, 7])
    assert torch.equal(store.rows(chosen), features()[chosen])
    assert torch.equal(store.rows(slice(5, 18)), features()[5:18])


def test_rows_are_copies(store: FeatureStore) -> None:
    store.rows(torch.tensor([1])).zero_()
    store.rows(slice(0, 20)).zero_()
    assert torch.equal(store.rows(slice(0, 20)), features())


def test_it_grows_after_it_was_read(store: FeatureStore) -> None:
    store.rows(torch.tensor([0]))
    store.add(features() + 1)
    assert torch.equal(store.rows(slice(18, 22)), torch.cat([features()[18:], features()[:2] + 1]))


def test_moments_are_those_of_all_rows(store: FeatureStore) -> None:
    mean, variance = store.moments()
    torch.testing.assert_close(mean, features().mean(dim=0))
    torch.testing.assert_close(variance, features().var(dim=0, correction=0))


def test_moments_reach_beyond_a_block() -> None:
    long = features(2 * BLOCK + 5, 2) + torch.tensor([1000.0, 0.0])
    with FeatureStore(1) as store:
        store.add(long)
        mean, variance = store.moments()
    np.testing.assert_allclose(mean.numpy(), long.double().mean(dim=0), rtol=1e-6)
    np.testing.assert_allclose(variance.numpy(), long.double().var(dim=0, correction=0), rtol=1e-5)


def test_batches_pass_over_all_rows_without_a_gap(store: FeatureStore) -> None:
    drawn = list(itertools.islice(store.batches(8, torch.Generator().manual_seed(1)), 5))
    assert {tuple(batch.shape) for batch in drawn} == {(8, 4)}
    order = torch.cat(drawn)[:, 0]
    for epoch in (order[:20], order[20:]):
        assert torch.equal(epoch.sort().values, features()[:, 0].sort().values)
    assert not torch.equal(order[:20], order[20:])


def test_batches_are_the_same_in_memory_and_in_a_file() -> None:
    drawn = []
    for budget in BUDGETS.values():
        with FeatureStore(budget) as store:
            store.add(features())
            drawn.append(torch.cat(list(itertools.islice(store.batches(6, torch.Generator().manual_seed(3)), 9))))
    assert torch.equal(drawn[0], drawn[1])
    assert torch.equal(drawn[0], drawn[2])


def test_fewer_rows_than_a_batch_are_repeated() -> None:
    with FeatureStore(1) as store:
        store.add(features(3))
        batch = next(store.batches(7, torch.Generator().manual_seed(0)))
    counts = [int((batch == row).all(dim=1).sum()) for row in features(3)]
    assert sorted(counts) == [2, 2, 3]


def test_the_file_goes_with_the_store() -> None:
    with FeatureStore(0) as store:
        store.add(features())
        file = store.file
        assert isinstance(file, Path)
        assert file.stat().st_size == 20 * 4 * 4
    assert not file.parent.exists()
    assert len(store) == 0


def test_the_file_goes_when_the_work_fails() -> None:
    store = FeatureStore(0)

    def fail() -> None:
        with store:
            store.add(features())
            raise RuntimeError("broken")

    store.add(features())
    folder = store.file
    assert isinstance(folder, Path)
    with pytest.raises(RuntimeError, match="broken"):
        fail()
    assert not folder.exists()


def test_memory_stays_free_beyond_the_budget() -> None:
    with FeatureStore(0.001) as store:
        store.add(features(10))
        assert store._chunks
        store.add(features(1000))
        assert not store._chunks


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return load_backbone(stages=(-1,), embedding=True, folded=True)


def test_features_are_the_frozen_backbones(backbone: Backbone) -> None:
    images = crops("gravel", 5, size=32, half="train", rng=np.random.default_rng(0))
    prepared = ImageSet(open_source(images), Preprocessing(size=32))
    backbone.train()
    with FeatureStore(1) as store:
        options = {"precision": "float32", "batch_size": 2}
        records = list(store_features(store, backbone, prepared, lambda m: m[-1].flatten(1), **options))  # type: ignore[arg-type]
        found = store.rows(slice(0, 5))
    assert not backbone.training
    assert [r.step for r in records] == [2, 4, 5]
    assert {r.total for r in records} == {5}
    with torch.no_grad():
        wanted = backbone(torch.from_numpy(images).permute(0, 3, 1, 2))[-1].flatten(1)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    assert not found.requires_grad
    torch.nn.Linear(1280, 1)(found).sum().backward()  # a frozen feature is an ordinary input of training
