"""Map cache: bit for bit the computed maps, keyed by content alone, within the budget."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from anomem.data.synthetic import crops
from anomem.detectors.baselines.knn import KNN
from anomem.errors import AnomemWarning
from anomem.nn.backbones import Backbone, load_backbone
from anomem.nn.map_cache import MapCache, active, map_cache


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    found = load_backbone(stages=(1, 2), embedding=True, folded=True)
    return found.eval().requires_grad_(False)


def pictures(seed: int, count: int = 3, side: int = 32) -> Tensor:
    """As an ImageSet gives them: uint8, channels last in memory."""
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.integers(0, 256, (count, side, side, 3), dtype=np.uint8)).permute(0, 3, 1, 2)


def same(first: list[Tensor], second: list[Tensor]) -> bool:
    """Equal values in memory of equal layout."""
    return all(torch.equal(a, b) and a.stride() == b.stride() for a, b in zip(first, second, strict=True))


@torch.inference_mode()
def test_kept_maps_are_the_very_same(backbone: Backbone, tmp_path: Path) -> None:
    plain = backbone(pictures(0))
    with map_cache(tmp_path) as cache:
        assert active() is cache
        computed, found = backbone(pictures(0)), backbone(pictures(0))
        assert (cache.hits, cache.misses) == (1, 1)
        found[0].zero_()  # what is done to a result does not reach what is kept
        assert same(backbone(pictures(0)), plain)
    assert active() is None
    assert same(computed, plain)
    # Another process, or a later run, finds them too.
    with map_cache(tmp_path) as cache:
        assert same(backbone(pictures(0)), plain)
        assert (cache.hits, cache.misses) == (1, 0)


class Tiny(nn.Module):
    """The least that has maps."""

    def __init__(self, channels: int = 4, seed: int = 0) -> None:
        super().__init__()
        self.layers = ["conv"]
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.conv = nn.Conv2d(3, channels, 3).requires_grad_(False)
        self.eval()

    def forward(self, images: Tensor) -> list[Tensor]:
        return [self.conv(images.float())]


def test_whatever_may_change_a_result_is_looked_up_apart(tmp_path: Path) -> None:
    batch, threads, cache = pictures(0), torch.get_num_threads(), MapCache(tmp_path, 100)
    tiny, twin, wider, other = Tiny(), Tiny(), Tiny(5), Tiny(seed=1)
    renamed = Tiny()
    renamed.layers = ["another"]
    with torch.inference_mode():
        for module in (tiny, wider, other, renamed):
            cache.maps(module, batch, module)
        for images in (batch.contiguous(), batch[:2], batch.flip(0), pictures(1)):  # other layout, other content
            cache.maps(tiny, images, tiny)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            cache.maps(tiny, batch, tiny)
        torch.set_num_threads(threads + 1)
        cache.maps(tiny, batch, tiny)
        torch.set_num_threads(threads)
        assert (cache.hits, cache.misses) == (0, 10)
        cache.maps(twin, batch, twin)
        assert (cache.hits, cache.misses) == (1, 10), "equal weights, equal maps"


def test_changed_weights_are_noticed(tmp_path: Path) -> None:
    tiny, cache = Tiny(), MapCache(tmp_path, 100)

    def maps() -> Tensor:
        with torch.inference_mode():
            return cache.maps(tiny, pictures(0), tiny)[0]

    before = maps()
    with torch.no_grad():
        tiny.conv.weight.mul_(1.5)
    after = maps()
    tiny.conv = nn.Conv2d(3, 4, 3).requires_grad_(False)
    assert (cache.hits, cache.misses) == (0, 2)
    assert not torch.equal(before, after)
    assert not torch.equal(maps(), after)
    assert torch.equal(maps(), maps())
    assert (cache.hits, cache.misses) == (2, 3)


def test_weights_that_do_not_tell_of_changes_are_not_kept(tmp_path: Path) -> None:
    with torch.inference_mode():
        tiny, cache = Tiny(), MapCache(tmp_path, 100)
        assert cache.maps(tiny, pictures(0), tiny)[0].shape == (3, 4, 30, 30)
    assert (cache.hits, cache.misses) == (0, 0)


def test_training_and_augmented_views_are_never_kept(backbone: Backbone, tmp_path: Path) -> None:
    with map_cache(tmp_path) as cache:
        backbone(pictures(0))  # gradients are on
        with torch.no_grad():
            backbone(pictures(0).float())
            backbone.train()(pictures(0))
            backbone.eval()
        assert (cache.hits, cache.misses) == (0, 0)
    assert list(tmp_path.iterdir()) == []


@torch.inference_mode()
def test_the_budget_holds_and_what_is_used_stays(tmp_path: Path) -> None:
    with torch.inference_mode(False):
        tiny = Tiny(64)
    MapCache(tmp_path, 1).maps(tiny, pictures(0), tiny)
    (one,) = tmp_path.iterdir()
    assert one.stat().st_size > 600_000
    cache = MapCache(tmp_path, 3)
    for seed in range(1, 12):
        cache.maps(tiny, pictures(seed), tiny)
        time.sleep(0.01)  # clocks of files are coarse
        assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 3e6
        cache.maps(tiny, pictures(0), tiny)
    assert (cache.hits, cache.misses) == (11, 11), "what is used again and again is still there"
    cache.maps(tiny, pictures(1), tiny)
    assert cache.misses == 12, "the oldest was removed"


@torch.inference_mode()
def test_damaged_files_are_computed_again(backbone: Backbone, tmp_path: Path) -> None:
    plain = backbone(pictures(0))
    with map_cache(tmp_path) as cache:
        backbone(pictures(0))
        (file,) = tmp_path.iterdir()
        file.write_bytes(file.read_bytes()[:100])
        assert same(backbone(pictures(0)), plain)
        assert same(backbone(pictures(0)), plain)
        assert (cache.hits, cache.misses) == (1, 2)


def test_without_a_folder_nothing_is_kept(backbone: Backbone) -> None:
    with map_cache(None) as cache:
        assert cache is None
        assert active() is None


def test_fits_and_scores_are_bit_equal_with_and_without(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    normals, test = (crops("grass", count, size=32, half="train", rng=rng) for count in (18, 21))

    def scores() -> np.ndarray:
        with pytest.warns(AnomemWarning, match="calibrat"):
            return KNN(size=32, max_items=14).fit(normals).anomaly_score(test)

    plain = scores()
    with map_cache(tmp_path) as cache:
        assert np.array_equal(scores(), plain)
        before = cache.hits
        assert np.array_equal(scores(), plain)
        assert cache.hits - before == cache.misses >= 4


def test_files_of_others_stay(tmp_path: Path) -> None:
    model = tmp_path / "model.safetensors"
    model.write_bytes(bytes(2_000_000))
    cache = MapCache(tmp_path, budget_mb=1)
    for i in range(2):
        (tmp_path / f"{i:040x}.safetensors").write_bytes(bytes(600_000))
    cache._filled = 1_200_000
    cache._make_room()
    assert model.exists()
    assert len(list(tmp_path.iterdir())) == 2


def test_a_full_disk_keeps_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(*arguments: object, **options: object) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("safetensors.torch.save_file", fill)
    cache = MapCache(tmp_path, budget_mb=1)
    cache._write(tmp_path / f"{0:040x}.safetensors", [torch.ones(1, 2, 3, 3)])
    assert list(tmp_path.iterdir()) == []
