"""Synthetic data: disjoint halves, exact masks, the same for the same seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anomem.data import synthetic
from anomem.data.sources import read_dataset
from anomem.data.synthetic import DEFECTS, TEXTURES, VISIBLE, crops, plant, texture, write_textures
from anomem.errors import InputError
from anomem.runtime.images import decode, read_mask


def rng(*seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("name", TEXTURES)
def test_textures_are_photographs(name: str) -> None:
    image = texture(name)
    assert (image.shape, image.dtype) == ((448, 448, 3), np.uint8)
    assert image.std() > 10
    image[:] = 0
    assert texture(name).any()  # a copy was handed out


def test_source_and_licence_are_named() -> None:
    folder = Path(synthetic.__file__).parent / "textures"
    text = (folder / "SOURCE.md").read_text()
    assert "CC0" in text
    assert all(f"{name}.png" in text for name in TEXTURES)
    assert sum(path.stat().st_size for path in folder.iterdir()) < 500_000


@pytest.mark.parametrize("name", TEXTURES)
def test_halves_share_no_pixel(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # A photograph whose values say which half they are from: no crop may show the other's.
    marked = np.zeros((448, 448, 3), np.uint8)
    marked[:, 224:] = 200
    monkeypatch.setattr(synthetic, "_photograph", lambda _: marked)
    assert crops(name, 40, size=96, half="train", rng=rng(0)).max() == 0
    assert crops(name, 40, size=96, half="test", rng=rng(1)).min() >= 0.9 * 200


@pytest.mark.parametrize("size", [16, 64, 300])
def test_crops(size: int) -> None:
    images = crops("gravel", 3, size=size, half="test", rng=rng(0))
    assert (images.shape, images.dtype) == ((3, size, size, 3), np.uint8)
    assert np.array_equal(images, crops("gravel", 3, size=size, half="test", rng=rng(0)))
    assert not np.array_equal(images[0], images[1])


@pytest.mark.parametrize("kind", DEFECTS)
@given(seed=st.integers(0, 10_000), size=st.floats(0.02, 0.6))
def test_mask_is_exactly_what_changed(kind: str, seed: int, size: float) -> None:
    random = rng(seed)
    shape = random.integers(16, 90, 2)
    image = random.integers(0, 256, (*shape, 3), dtype=np.uint8)
    if seed % 3 == 0:
        image[:] = random.choice([0, 3, 128, 250, 255])
    before = image.copy()
    planted, mask = plant(image, kind, random, size)
    assert np.array_equal(image, before)
    assert (planted.shape, planted.dtype, mask.dtype) == (image.shape, np.uint8, np.bool_)
    change = np.abs(planted.astype(int) - image).max(axis=2)
    assert np.array_equal(change > 0, mask)
    assert (change[mask] >= VISIBLE).all()
    assert mask.any()
    assert not mask.all()


@pytest.mark.parametrize("name", TEXTURES)
@pytest.mark.parametrize("kind", DEFECTS)
def test_defects_are_visible_but_not_trivial(name: str, kind: str) -> None:
    areas, changes, jumps = [], [], []
    for seed in range(12):
        (image,) = crops(name, 1, size=128, half="test", rng=rng(seed))
        planted, mask = plant(image, kind, rng(seed, 1))
        areas.append(mask.mean())
        changes.append(np.abs(planted.astype(float) - image)[mask].mean())
        jumps.append(abs(planted.mean() - image.mean()))
    assert 0.001 < np.mean(areas) < 0.12
    assert np.mean(changes) > 15
    # Mean brightness of the image gives nothing away: it moves less than among normals.
    spread = np.std([i.mean() for i in crops(name, 40, size=128, half="test", rng=rng(99))])
    assert np.mean(jumps) < 1.5 * spread


@pytest.mark.parametrize("kind", DEFECTS)
def test_defects_follow_the_seed(kind: str) -> None:
    (image,) = crops("grass", 1, size=64, half="test", rng=rng(0))
    a, b, c = (plant(image, kind, rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(a[0], b[0])
    assert np.array_equal(a[1], b[1])
    assert not np.array_equal(a[0], c[0])


def test_larger_size_larger_defect() -> None:
    image = texture("gravel")[:128, :128]
    for kind in DEFECTS:
        small, large = (
            np.mean([plant(image, kind, rng(seed), size)[1].sum() for seed in range(8)]) for size in (0.1, 0.4)
        )
        assert large > 2 * small


def test_wrong_arguments() -> None:
    image = texture("brick")
    with pytest.raises(InputError, match="no defect 'dent'; choose one of scratch"):
        plant(image, "dent", rng(0))
    with pytest.raises(InputError, match="size 0.9"):
        plant(image, "hole", rng(0), 0.9)
    with pytest.raises(InputError, match="16 px or more"):
        plant(image[:8], "hole", rng(0))
    with pytest.raises(InputError, match="no texture 'wood'"):
        texture("wood")
    with pytest.raises(InputError, match="no half 'both'"):
        crops("brick", 1, size=32, half="both", rng=rng(0))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="size 8"):
        crops("brick", 1, size=8, half="test", rng=rng(0))


def test_written_tree_is_a_dataset(tmp_path: Path) -> None:
    roots = write_textures(tmp_path / "out", n_train=4, n_test=6, size=48, seed=0)
    assert [root.name for root in roots] == list(TEXTURES)
    for root in roots:
        data = read_dataset(root)
        assert (data.layout, data.notes) == ("mvtec", ())
        counts = data.counts()
        assert (counts["train_normal"], counts["test_normal"]) == (4, 6)
        assert (counts["test_anomalous"], counts["masks"], counts["types"]) == (6, 6, 5)
        for sample in data.test:
            assert decode(sample.path).shape == (48, 48, 3)
            if sample.mask is not None:
                assert 0 < read_mask(sample.mask).mean() < 0.5
        everything = [s.path.read_bytes() for s in (*data.train, *data.test)]
        assert len(set(everything)) == len(everything)


def test_writing_again(tmp_path: Path) -> None:
    def write(n_train: int, n_test: int, seed: int = 0) -> dict[str, bytes]:
        write_textures(tmp_path, n_train=n_train, n_test=n_test, size=32, seed=seed, textures=["brick"])
        return {p.relative_to(tmp_path).as_posix(): p.read_bytes() for p in tmp_path.rglob("*.png")}

    first = write(2, 2)
    assert write(2, 2) == first
    more = write(3, 2)
    assert {place: more[place] for place in first} == first  # independent streams
    assert write(3, 3, seed=1)["brick/train/good/000.png"] != first["brick/train/good/000.png"]
    with pytest.raises(InputError, match="already exists"):
        write(1, 1)
    with pytest.raises(InputError, match="n_train 0"):
        write(0, 1)
