"""Image sets by name, as protocols open them."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anomem.benchmark.image_sets import expand, open_bench_set
from anomem.data.disturbance import COLOUR, SPATIAL
from anomem.data.labelled_images import DisturbedSource, Images
from anomem.data.official.coarse import COARSE
from anomem.errors import InputError
from tests.benchmark.sets import classes, defects, images
from tests.conftest import WriteImages


def digests(found: Images) -> list[int]:
    return [found.source.digest(i) for i in range(len(found))]


def test_textures_come_with_the_package() -> None:
    brick = open_bench_set("textures/brick")
    assert (brick.title, brick.category, brick.classes) == ("textures", "brick", ())
    assert np.bincount(brick.test.labels).tolist() == [30, 30]
    assert set(brick.train.labels) == {0}
    assert brick.types == ("blob", "cutpaste", "hole", "scratch", "stain")
    masked = brick.test.mask(45, (96, 96))
    assert 0 < masked.sum() < 96 * 96
    assert brick.test.mask(3, (96, 96)) is None
    assert digests(brick.test) == digests(open_bench_set("textures/brick").test)
    everything = open_bench_set("textures")
    assert everything.classes == ("brick", "grass", "gravel")
    assert set(everything.train.labels) == {-1}
    with pytest.raises(InputError, match="no texture 'sand'"):
        open_bench_set("textures/sand")


def test_choosing_what_is_normal() -> None:
    data = classes(3, 4, 2)
    chosen = data.choose(("class 1",))
    assert set(chosen.train.kinds) == {"class 1"}
    assert sorted(set(chosen.spare.kinds)) == ["class 0", "class 2"]
    assert chosen.test.labels.tolist() == [1, 1, 0, 0, 1, 1]
    assert set(chosen.spare.labels) == {1}
    assert len(chosen.train) + len(chosen.spare) == len(data.train)
    both = data.choose(("class 0", "class 2"))
    assert both.test.labels.tolist() == [0, 0, 1, 1, 0, 0]
    assert data.choose(data.classes).test.labels.tolist() == [0] * 6
    assert len(data.choose(data.classes).spare) == 0
    with pytest.raises(InputError, match="no class 'class 7'; choose from class 0, class 1, class 2"):
        data.choose(("class 7",))
    own = defects({"crack": 2})
    assert own.choose(()) is own
    # Names distinguish what is computed about images.
    assert len({part.name for d in (chosen, both) for part in (d.train, d.test, d.spare)}) == 6


def test_limits_keep_every_kind() -> None:
    data = defects({"crack": 9, "hole": 1}, side=12).thinned(3)
    assert len(data.train) == 3
    assert sorted(data.test.kinds) == ["crack"] * 3 + ["good"] * 3 + ["hole"]
    assert data.thinned(None) is data
    assert data.train.name == "train normals limit=3", "names distinguish what is computed about images"
    assert data.test.mask(list(data.test.kinds).index("crack"), (12, 12)).any()
    whole = defects({"crack": 9, "hole": 1}, side=12)
    assert set(digests(data.test)) < set(digests(whole.test))


def test_a_folder_of_ones_own(mvtec_folder: Path) -> None:
    data = open_bench_set(str(mvtec_folder))
    assert (data.category, data.role, data.types) == ("part", "none", ("spot",))
    assert (len(data.train), np.bincount(data.test.labels).tolist()) == (12, [4, 3])
    spot = int(data.test.positions(1)[0])
    found = data.test.mask(spot, (24, 32))
    assert found.any()
    assert data.test.file_size(spot) == data.test.paths[spot].stat().st_size


def test_a_folder_of_classes(class_folder: Path) -> None:
    data = open_bench_set(str(class_folder))
    assert data.classes == ("plain", "spotted")
    assert len(data.train) == 24
    assert data.choose(("plain",)).test.labels.tolist() == [0] * 4 + [1] * 4


def test_a_table_without_a_split_holds_normals_out(tmp_path: Path, write_images: WriteImages) -> None:
    """Every fifth normal, groups together, goes to the test images."""
    good = write_images(tmp_path / "a", 20)
    bad = write_images(tmp_path / "b", 3, seed=1, spot=True)
    rows = [f"{p},0,g{i // 2}" for i, p in enumerate(good)] + [f"{p},1," for p in bad]
    table = tmp_path / "images.csv"
    table.write_text("path,label,group\n" + "\n".join(rows) + "\n")
    data = open_bench_set(str(table))
    assert len(data.train) == 16
    assert set(data.train.labels) == {0}
    assert np.bincount(data.test.labels, minlength=2)[0] == 4
    assert {data.test.groups[i] for i in data.test.positions(0)}.isdisjoint(data.train.groups)
    assert set(digests(data.train)).isdisjoint(digests(data.test))


def cifar100(root: Path) -> None:
    """One training and one test image of each fine class."""
    rng = np.random.default_rng(0)
    for part in ("train", "test"):
        for fine in sorted(name for names in COARSE.values() for name in names):
            folder = root / part / fine
            folder.mkdir(parents=True)
            Image.fromarray(rng.integers(0, 255, (4, 4, 3), dtype=np.uint8)).save(folder / "0.png")


def test_coarse_classes_are_twenty_of_five(tmp_path: Path) -> None:
    cifar100(tmp_path / "cifar100")
    fine = open_bench_set("cifar100", tmp_path)
    assert len(fine.classes) == 100
    coarse = open_bench_set("cifar100:coarse", tmp_path)
    assert len(coarse.classes) == 20
    chosen = coarse.choose(("trees",))
    assert [path.parent.name for path in chosen.train.paths] == list(COARSE["trees"])
    assert len({name for names in COARSE.values() for name in names}) == 100
    assert {len(names) for names in COARSE.values()} == {5}
    assert np.bincount(chosen.test.labels).tolist() == [5, 95]
    assert len(chosen.spare) == 95


def test_sets_of_the_catalogue(tmp_path: Path, mvtec_folder: Path) -> None:
    for category in ("bottle", "tile"):
        shutil.copytree(mvtec_folder, tmp_path / "mvtec_ad" / category)
    names, absent = expand("mvtec_ad", tmp_path)
    assert names == ["mvtec_ad/bottle", "mvtec_ad/tile"]
    assert len(absent) == 13
    data = open_bench_set("mvtec_ad/tile", tmp_path)
    assert (data.title, data.category, data.group, data.role) == ("mvtec_ad", "tile", "texture", "none")
    assert open_bench_set("mvtec_ad/bottle", tmp_path).group == "object"
    assert open_bench_set("mvtec_ad/bottle", tmp_path).role == "report"
    assert expand("cifar10", tmp_path) == (["cifar10"], []), "nothing is opened where there are no categories"
    with pytest.raises(InputError, match="btad"):
        expand("btad", tmp_path)
    with pytest.raises(InputError, match=r"no image set 'mvtec_da'; did you mean mvtec_ad\?"):
        open_bench_set("mvtec_da", tmp_path)
    with pytest.raises(InputError, match="no such folder and no image set of the catalogue"):
        open_bench_set("no/such", tmp_path)


def test_zips_are_read_as_they_are(tmp_path: Path, mvtec_folder: Path) -> None:
    root = tmp_path / "zipped"
    root.mkdir()
    with zipfile.ZipFile(root / "mvtec_ad_bottle.zip", "w") as file:
        for path in sorted(mvtec_folder.rglob("*.png")):
            file.write(path, Path("bottle") / path.relative_to(mvtec_folder))
    zipped, plain = open_bench_set("mvtec_ad/bottle", root), open_bench_set(str(mvtec_folder))
    for part in ("train", "test"):
        assert digests(getattr(zipped, part)) == digests(getattr(plain, part))
    for i in range(len(plain.test)):
        assert zipped.test.file_size(i) == plain.test.file_size(i)
        assert np.array_equal(zipped.test.source.load(i), plain.test.source.load(i))
    spot = int(zipped.test.positions(1)[0])
    assert np.array_equal(zipped.test.mask(spot, (24, 32)), plain.test.mask(spot, (24, 32)))


# --- images -------------------------------------------------------------------------------------


def test_images_join_and_part() -> None:
    first = images("first", ["a", "b", "c"], [0, 1, 0], side=12, masks=True)
    second = images("second", ["d"], [1], side=12)
    both = first.joined(second, "both")
    assert both.kinds == ("a", "b", "c", "d")
    assert both.labels.tolist() == [0, 1, 0, 1]
    assert digests(both) == digests(first) + digests(second)
    assert both.masks[3] is None
    assert both.groups == ()
    some = both.subset([3, 1], "some")
    assert some.kinds == ("d", "b")
    assert digests(some) == [digests(second)[0], digests(first)[1]]
    assert np.array_equal(some.mask(1, (12, 12)), first.mask(1, (12, 12)))
    assert np.array_equal(some.source.load(0), second.source.load(0))
    assert both.source.load_with_digest(1)[1] == both.source.digest(1)


@pytest.mark.parametrize("joined", [False, True])
def test_masks_move_with_disturbed_images(joined: bool) -> None:
    """The bright spot stays under its mask, in whatever order images are read."""
    plain = images("plain", ["spot"] * 8, [1] * 8, side=48, masks=True)
    found = plain.disturbed(SPATIAL, 0, "disturbed")
    if joined:
        found = images("other", ["good"], [0], side=48).joined(found, "joined").subset(range(1, 9), "again")
    moved = 0
    for i in (5, 0, 7, 2):
        image, mask, before = found.source.load(i), found.mask(i, (48, 48)), plain.mask(i, (48, 48))
        inside, outside = image[mask].mean(), image[~mask].mean()
        assert inside > outside + 80
        moved += bool((mask != before).any())
    assert moved == 4


def test_a_disturbance_belongs_to_the_image_and_its_number() -> None:
    plain = images("plain", ["good"] * 6, [0] * 6, side=16)
    first, again, other = (plain.disturbed(COLOUR, number, "") for number in (0, 0, 1))
    assert all(np.array_equal(first.source.load(i), again.source.load(i)) for i in range(6))
    assert any(not np.array_equal(first.source.load(i), other.source.load(i)) for i in range(6))
    assert isinstance(first.source, DisturbedSource)
    assert len({first.source.drawn(i) for i in range(6)}) == 6, "images are disturbed independently"
    part = first.subset([4, 2], "part")
    assert np.array_equal(part.source.load(0), first.source.load(4))
    assert digests(part) == [digests(first)[4], digests(first)[2]]
    assert len({*digests(plain), *digests(first), *digests(other)}) == 18
