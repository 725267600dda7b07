"""Image sets of benchmarks, opened by name.

=====================  ===========================================================================================
name                   image set
=====================  ===========================================================================================
``textures``           three photographs as classes, shipped with anomem
``textures/brick``     one of them with planted defects
``mvtec_ad``           a set of the catalogue; every category that is present
``mvtec_ad/bottle``    one category
``cifar100:coarse``    a variant
``path/to/folder``     your own folder or table, as for ``anomem fit``
=====================  ===========================================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from anomem.data.catalog import CATALOG, NATIVE, known, open_set
from anomem.data.labelled_images import Images
from anomem.data.official.folders import class_folders
from anomem.data.official.sets import OfficialSet, label
from anomem.data.official.tree import open_tree
from anomem.data.samples import Dataset, Sample
from anomem.data.sources import ArraySource, PathSource, read_dataset
from anomem.data.synthetic import DEFECTS, TEXTURES, crops, plant
from anomem.errors import InputError
from anomem.types import ANOMALOUS, NORMAL, UNKNOWN, BoolArray

__all__ = ["TEXTURED", "BenchmarkSet", "expand", "open_bench_set"]

SHIPPED = "textures"
TEXTURE_SIZE, TEXTURE_TRAIN, TEXTURE_TEST = 96, 60, 30
"""Shipped textures: side in pixels, normal training images, and test images per label."""

TEXTURED = {"mvtec_ad": ("carpet", "grid", "leather", "tile", "wood"), "btad": ("02",)}
"""Texture categories; the other categories of these sets are objects. Published means separate the two."""

GOOD = "good"
HELD_OUT = 5
"""Every fifth normal is a test image where the set has no split of its own."""


@dataclass(frozen=True, eq=False)
class BenchmarkSet:
    """Image set, or one category of it.

    Parameters
    ----------
    name : str
        As requested.
    title : str
        Name of the whole set; a folder's name.
    category : str
        Its category; the name of the set where it has none.
    group : str
        "texture" or "object" where published means separate the two; else empty.
    role : str
        "development" where defaults were chosen on it, else "report" or "none".
    train, test : Images
        Normal training images; test images of both labels.
    spare : Images
        Labelled anomalies outside the test images.
    classes : tuple of str
        Classes, each of which may be the normal one; empty where the set defines its normals.
    """

    name: str
    title: str
    category: str
    group: str
    role: str
    train: Images
    test: Images
    spare: Images
    classes: tuple[str, ...] = ()
    _chosen: dict[tuple[str, ...], BenchmarkSet] = field(default_factory=dict, repr=False)

    @property
    def types(self) -> tuple[str, ...]:
        """Kinds of the anomalous test images, in alphabetical order."""
        anomalous = (self.test.kinds[i] for i in self.test.positions(ANOMALOUS))
        return tuple(sorted({kind for kind in anomalous if kind}))

    def choose(self, normal: Sequence[str]) -> BenchmarkSet:
        """Make some classes normal and all others anomalous; no effect where the set defines its normals.

        Raises
        ------
        InputError
            A class is unknown.
        """
        if not self.classes or not normal:
            return self
        unknown = [kind for kind in normal if kind not in self.classes]
        if unknown:
            raise InputError(f"{self.name}: no class {unknown[0]!r}; choose from {', '.join(self.classes)}")
        if tuple(normal) not in self._chosen:
            self._chosen.clear()
            self._chosen[tuple(normal)] = self._labelled(tuple(normal))
        return self._chosen[tuple(normal)]

    def _labelled(self, normal: tuple[str, ...]) -> BenchmarkSet:
        stem = f"{self.name} {'+'.join(normal)}"
        everything = self.train.joined(self.spare, "") if len(self.spare) else self.train
        train = everything.relabelled(normal, "")
        return replace(
            self,
            train=train.subset(train.positions(NORMAL), f"{stem} train"),
            spare=train.subset(train.positions(ANOMALOUS), f"{stem} spare"),
            test=self.test.relabelled(normal, f"{stem} test"),
        )

    def thinned(self, limit: int | None) -> BenchmarkSet:
        """Keep at most `limit` evenly spaced images per kind and part; all without a limit."""
        if limit is None:
            return self
        train, test, spare = (_thinned(part, limit) for part in (self.train, self.test, self.spare))
        return replace(self, train=train, test=test, spare=spare, _chosen={})


def expand(name: str, root: Path | None) -> tuple[list[str], list[str]]:
    """Return the set names that a name expands to, and its categories that are absent.

    Raises
    ------
    InputError
        No category of the set is present.
    """
    head, _, category = name.partition("/")
    title, _, variant = head.partition(":")
    if title not in CATALOG or category or not known(title).categories:
        return [name], []
    found: list[str] = []
    absent: list[str] = []
    why: InputError | None = None
    for category in known(title).categories:
        try:
            open_set(title, root, category=category, variant=variant or None)
        except InputError as error:
            absent.append(category)
            why = why or error
        else:
            found.append(f"{head}/{category}")
    if why is not None and not found:
        raise why
    return found, absent


def open_bench_set(name: str, root: Path | None = None) -> BenchmarkSet:
    """Open an image set by its name.

    Parameters
    ----------
    name : str
        As described above.
    root : Path, optional
        Folder of the sets of the catalogue; by default ``$ANOMEM_DATA``.

    Raises
    ------
    InputError
        The set is absent, unknown or unusable.
    """
    head, _, category = name.partition("/")
    title, _, variant = head.partition(":")
    if title == SHIPPED:
        return _textures(name, category)
    if title in CATALOG:
        data = open_set(title, root, category=category or None, variant=variant or None)
        return _of_catalogue(name, data, CATALOG[title].role_of(category or None))
    if not Path(name).exists():
        if name == title:
            known(title)  # suggests the nearest name
        raise InputError(f"{name}: no such folder and no image set of the catalogue; check the name")
    return _of_folder(name)


def _of_catalogue(name: str, data: OfficialSet, role: str) -> BenchmarkSet:
    textured = TEXTURED.get(data.name)
    group = "" if textured is None else "texture" if data.category in textured else "object"
    unlabelled = all(sample.label == UNKNOWN for sample in data.train)

    def images(samples: Sequence[Sample], part: str) -> Images:
        return _images(f"{name} {part}", samples, data.class_of)

    judged = [sample for sample in data.test if unlabelled or sample.label != UNKNOWN]
    train, test = images(data.train, "train"), images(judged, "test")
    if not unlabelled and not data.split:
        train, test = _held_out(train, test)
    head = name.partition("/")[0]
    return BenchmarkSet(
        name,
        head if head.endswith(f":{NATIVE}") else data.name,
        data.category or data.name,
        group,
        role,
        train,
        test,
        images(data.spare, "spare"),
        tuple(data.classes) if unlabelled else (),
    )


def _of_folder(name: str) -> BenchmarkSet:
    """Open the user's folder or table: class folders, or any layout that defines its normals."""
    path = Path(name)
    if path.is_dir():
        tree = open_tree(path, "check the folder")
        kinds = tree.folders("train") if tree.has("train") and tree.has("test") else []
        listing = class_folders(tree) if len(kinds) > 1 else None
        if listing is not None:
            data = label(OfficialSet("imagefolder", path, (), (), name=path.name, listing=listing), ())
            return _of_catalogue(name, data, "none")
    return _of_dataset(name, read_dataset(path))


def _of_dataset(name: str, data: Dataset) -> BenchmarkSet:
    def images(samples: Sequence[Sample], part: str) -> Images:
        return _images(f"{name} {part}", samples, lambda s: s.type or ("" if s.label == ANOMALOUS else GOOD))

    normals = [sample for sample in data.train if sample.label == NORMAL]
    spare = [sample for sample in data.train if sample.label == ANOMALOUS]
    test = [sample for sample in data.test if sample.label != UNKNOWN]
    parts = images(normals, "train"), images(test, "test")
    if not data.split:
        parts = _held_out(*parts)
    title = Path(name).resolve().name
    return BenchmarkSet(name, title, title, "", "none", *parts, images(spare, "spare"))


def _images(name: str, samples: Sequence[Sample], kind_of: Callable[[Sample], str]) -> Images:
    ordered = sorted(samples, key=lambda sample: sample.path)
    return replace(Images.of_samples(name, ordered), kinds=tuple(kind_of(sample) for sample in ordered))


def _held_out(train: Images, test: Images) -> tuple[Images, Images]:
    """Move every fifth normal, or group of normals, to the test images."""
    units = list(dict.fromkeys(train.groups or range(len(train))))
    moved = set(units[HELD_OUT - 1 :: HELD_OUT])
    aside = [i for i in range(len(train)) if (train.groups[i] if train.groups else i) in moved]
    kept = np.setdiff1d(np.arange(len(train)), aside)
    judged = train.subset(aside, "").joined(test, test.name)
    return train.subset(kept, train.name), judged


def _thinned(images: Images, limit: int) -> Images:
    chosen: list[int] = []
    for kind in dict.fromkeys(images.kinds):
        places = [i for i, k in enumerate(images.kinds) if k == kind]
        even = np.unique(np.linspace(0, len(places) - 1, min(len(places), limit)).round().astype(int))
        chosen += [places[i] for i in even]
    return images.subset(sorted(chosen), f"{images.name} limit={limit}")


def _textures(name: str, category: str) -> BenchmarkSet:
    """Cut the shipped photographs into crops and plant defects, in memory: equal arrays on every call."""
    if category:
        train, test = _planted(name, category)
        return BenchmarkSet(name, SHIPPED, category, "texture", "none", train, test, _empty(name))
    parts = []
    for number, half in enumerate(("train", "test")):
        count = TEXTURE_TRAIN if half == "train" else TEXTURE_TEST
        streams = [np.random.default_rng([number, place]) for place in range(len(TEXTURES))]
        arrays = [
            crops(kind, count, size=TEXTURE_SIZE, half=half, rng=rng)  # type: ignore[arg-type]
            for kind, rng in zip(TEXTURES, streams, strict=True)
        ]
        labels = np.full(count * len(TEXTURES), UNKNOWN, dtype=np.intp)
        kinds = tuple(kind for kind in TEXTURES for _ in range(count))
        parts.append(Images(f"{name} {half}", ArraySource(np.concatenate(arrays)), labels, kinds))
    return BenchmarkSet(name, SHIPPED, SHIPPED, "", "none", parts[0], parts[1], _empty(name), TEXTURES)


def _planted(name: str, category: str) -> tuple[Images, Images]:
    if category not in TEXTURES:
        raise InputError(f"{name}: no texture {category!r}; choose one of {', '.join(TEXTURES)}")
    streams = [np.random.default_rng([2, TEXTURES.index(category), part]) for part in range(3)]
    train = crops(category, TEXTURE_TRAIN, size=TEXTURE_SIZE, half="train", rng=streams[0])
    good = crops(category, TEXTURE_TEST, size=TEXTURE_SIZE, half="test", rng=streams[1])
    clean = crops(category, TEXTURE_TEST, size=TEXTURE_SIZE, half="test", rng=streams[2])
    kinds = [DEFECTS[i % len(DEFECTS)] for i in range(TEXTURE_TEST)]
    planted = [plant(image, kind, streams[2]) for image, kind in zip(clean, kinds, strict=True)]
    masks: tuple[BoolArray | None, ...] = (*[None] * TEXTURE_TEST, *(mask for _, mask in planted))
    arrays = np.concatenate([good, np.stack([image for image, _ in planted])])
    labels = np.repeat([NORMAL, ANOMALOUS], TEXTURE_TEST).astype(np.intp)
    test = Images(f"{name} test", ArraySource(arrays), labels, (*[GOOD] * TEXTURE_TEST, *kinds), masks)
    normal = np.zeros(TEXTURE_TRAIN, dtype=np.intp)
    return Images(f"{name} train", ArraySource(train), normal, (GOOD,) * TEXTURE_TRAIN), test


def _empty(name: str) -> Images:
    return Images(f"{name} spare", PathSource(()), np.zeros(0, dtype=np.intp), ())
