"""Sets with split and classes in list files: VisA, CUB-200-2011, SPARK, WMCA."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath

from anomem.data.official.mvtec import Layout, category_of, read_category
from anomem.data.official.sets import Item, Listing, Part, Wanted
from anomem.data.official.tree import Tree
from anomem.errors import InputError

__all__ = ["read_cub", "read_spark", "read_visa", "read_wmca"]

VISA_COLUMNS = {"object": ("object",), "split": ("split",), "label": ("label",), "image": ("image",), "mask": ("mask",)}
VISA_KINDS = {"normal": "good", "anomaly": "bad"}
SPARK_COLUMNS = {
    "image": ("image name", "filename", "image", "name"),
    "class": ("class",),
    "box": ("bounding box", "bbox"),
}
SPARK_PARTS: tuple[tuple[Part, tuple[str, ...], tuple[str, ...]], ...] = (
    ("train", ("train_rgb", "train"), ("train_labels.csv", "train.csv", "labels/train.csv")),
    ("test", ("validate_rgb", "val", "validate"), ("validate_labels.csv", "val.csv", "labels/val.csv")),
)
WMCA_KINDS = (
    *("bonafide", "prints", "replay", "papermask", "flexiblemask"),
    *("rigidmask", "fakehead", "glasses"),
)
WMCA_GROUPS: Mapping[str, Part] = {"train": "train", "dev": "validation", "eval": "test"}


def read_visa(tree: Tree, wanted: Wanted) -> Listing:
    """Read one object of VisA: by ``split_csv/<variant>.csv``, or in the MVTec layout of its authors' script.

    Normal images are of the kind ``good``, all others ``bad``, in both layouts.
    """
    table, category = f"split_csv/{wanted.variant}.csv", wanted.category
    as_published = tree.has("split_csv") or any(tree.has(f"{folder}/Data") for folder in tree.folders())
    if not as_published:
        return read_category(category_of(tree, category, "train/good"), Layout())
    rows = list(tree.table(table, VISA_COLUMNS))
    objects = sorted({cells["object"] for _, cells in rows})
    if category is None:
        raise InputError(f"{tree.root}: holds {len(objects)} categories ({', '.join(objects)}); name one of them")
    rows = [(where, cells) for where, cells in rows if cells["object"] == category]
    if not rows:
        raise tree.absent(f"{tree.path(table)}: lists no {category}")
    known = set(tree.images(tree.need(category), deep=True))
    items = []
    for where, cells in rows:
        part, kind = _visa_part(where, cells["split"]), VISA_KINDS.get(cells["label"])
        if kind is None:
            raise InputError(f"{where}: label {cells['label']!r}; expected normal or anomaly")
        for place in filter(None, (cells["image"], cells["mask"])):
            if place not in known:
                raise tree.absent(f"{tree.path(place)}: absent ({where})")
        mask = tree.path(cells["mask"]) if kind == "bad" and cells["mask"] else None
        items.append(Item(part, tree.path(cells["image"]), kind, mask))
    return Listing(tuple(items), ("good", "bad"))


def read_cub(tree: Tree, _: Wanted) -> Listing:
    """Read CUB-200-2011 by its four lists; class names are those of ``classes.txt``."""
    classes = _numbered(tree, "classes.txt")
    places = _numbered(tree, "images.txt")
    class_of, is_train = _numbered(tree, "image_class_labels.txt"), _numbered(tree, "train_test_split.txt")
    known = set(tree.images(tree.need("images"), deep=True))
    items = []
    for number, place in places.items():
        if f"images/{place}" not in known:
            raise tree.absent(f"{tree.path(f'images/{place}')}: absent")
        try:
            kind, part = classes[class_of[number]], {"1": "train", "0": "test"}[is_train[number]]
        except KeyError as error:
            raise InputError(f"{tree.root}: image {number} is not in all four lists; copy them again") from error
        items.append(Item("train" if part == "train" else "test", tree.path(f"images/{place}"), kind))
    return Listing(tuple(items), tuple(classes.values()))


def read_spark(tree: Tree, wanted: Wanted) -> Listing:
    """Read SPARK's RGB images by its two label files; the validation images serve as test images.

    With the variant "cropped" each image is cut to its ground-truth box ``[row, column, row, column]``.
    """
    items = []
    for part, folders, tables in SPARK_PARTS:
        folder, table = tree.need(*folders), tree.need(*tables)
        known = set(tree.images(folder, deep=True))
        for where, cells in tree.table(table, SPARK_COLUMNS):
            candidates = (f"{folder}/{cells['image']}", f"{folder}/{cells['class']}/{cells['image']}")
            place = next((place for place in candidates if place in known), None)
            if place is None:
                raise tree.absent(f"{tree.path(candidates[-1])}: absent ({where})")
            path = tree.path(place)
            if wanted.variant == "cropped":
                path = path / f"box-{'-'.join(_box(where, cells['box']))}.ppm"
            items.append(Item(part, path, cells["class"]))
    return Listing(tuple(items), tuple(sorted({item.kind for item in items})))


def read_wmca(tree: Tree, wanted: Wanted) -> Listing:
    """Read colour frames of WMCA by one of its protocol files.

    Expected are ``frames/<type>/<recording>/*.png`` (or JPEG), the type being ``bonafide`` or one of the seven attacks,
    the recording called as its HDF5 file (``100_03_015_2_10``), and ``PROTOCOL-<variant>.csv``, whose rows begin with
    the recording's path and end with ``train``, ``dev`` or ``eval``. The person, the recording's first number, is the
    group.
    """
    protocols = f"PROTOCOL-{wanted.variant}.csv"
    table = tree.need(protocols, f"wmca-protocols-csv/{protocols}")
    if not tree.has("frames"):
        raise tree.absent(
            f"{tree.path('frames')}: absent: anomem does not read the HDF5 recordings; export their colour frames to "
            f"frames/<type>/<recording>/*.png with <type> among {', '.join(WMCA_KINDS)}"
        )
    kind_of = {recording: kind for kind in WMCA_KINDS for recording in tree.folders(f"frames/{kind}")}
    items = []
    for where, recording, part in _protocol(tree, table):
        if recording not in kind_of:
            raise tree.absent(f"{tree.path(f'frames/<type>/{recording}')}: absent ({where})")
        kind = kind_of[recording]
        person = recording.partition("_")[0]
        places = tree.need_images(f"frames/{kind}/{recording}")
        items += [Item(part, tree.path(place), kind, group=person) for place in places]
    return Listing(tuple(items), tuple(kind for kind in WMCA_KINDS if kind in kind_of.values()))


def _protocol(tree: Tree, table: str) -> Iterator[tuple[str, str, Part]]:
    found = False
    for number, (where, cells) in enumerate(tree.rows(table)):
        part = WMCA_GROUPS.get(cells[-1])
        if part is None and number:
            raise InputError(f"{where}: ends with {cells[-1]!r}; expected {', '.join(WMCA_GROUPS)}")
        if part is not None:  # otherwise the first row is a header
            found = True
            yield where, PurePosixPath(cells[0]).name.removesuffix(".hdf5"), part
    if not found:
        raise tree.absent(f"{tree.path(table)}: lists no recording")


def _visa_part(where: str, word: str) -> Part:
    if word == "train":
        return "train"
    if word == "test":
        return "test"
    raise InputError(f"{where}: split {word!r}; expected train or test")


def _numbered(tree: Tree, place: str) -> dict[str, str]:
    """Read lines of a number and a text."""
    pairs = (line.split(maxsplit=1) for line in tree.text(place).splitlines() if line.strip())
    return {pair[0]: pair[-1].strip() for pair in pairs}


def _box(where: str, written: str) -> list[str]:
    numbers = re.findall(r"\d+", written)
    if len(numbers) != 4:
        raise InputError(f"{where}: box {written!r}; expected [row, column, row, column]")
    return numbers
