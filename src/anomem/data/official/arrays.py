"""Sets whose images are records of array files (CIFAR, MNIST, SVHN, MedMNIST), or PNG copies of them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy.typing as npt

from anomem.data.official.coarse import COARSE, COARSE_OF
from anomem.data.official.folders import class_folders
from anomem.data.official.inside import read_array, read_file
from anomem.data.official.records import cifar_labels, pickled_cifar, svhn_digits
from anomem.data.official.sets import Item, Listing, Part, Wanted
from anomem.data.official.tree import Tree
from anomem.errors import InputError

__all__ = ["read_cifar", "read_medmnist", "read_mnist", "read_svhn"]

PARTS: tuple[Part, ...] = ("train", "test")
DIGITS = tuple("0123456789")
FASHION = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)


class _Cifar(NamedTuple):
    """Names of folders, batches and class name lists (coarse first) of one of the two sets."""

    binary: str
    python: str
    batches: dict[Part, tuple[str, ...]]
    names: tuple[str, ...]


CIFAR = {
    "cifar10": _Cifar(
        "cifar-10-batches-bin",
        "cifar-10-batches-py",
        {"train": tuple(f"data_batch_{i}" for i in range(1, 6)), "test": ("test_batch",)},
        ("batches.meta.txt",),
    ),
    "cifar100": _Cifar(
        "cifar-100-binary",
        "cifar-100-python",
        {"train": ("train",), "test": ("test",)},
        ("coarse_label_names.txt", "fine_label_names.txt"),
    ),
}


def read_cifar(tree: Tree, wanted: Wanted) -> Listing:
    """Read CIFAR-10 or CIFAR-100: class folders, the binary version, or the Python version through torchvision.

    The variant "coarse" labels CIFAR-100's images with their coarse class.
    """
    facts, coarse = CIFAR[wanted.name], wanted.variant == "coarse"
    found = class_folders(tree, coarse=coarse)
    if found is not None:
        return found
    for folder, listing in ((facts.binary, _binary_cifar), (facts.python, _pickled_cifar)):
        if tree.root.name == folder or tree.has(folder):
            return listing(tree if tree.root.name == folder else tree.at(folder), facts, coarse=coarse)
    raise tree.absent(f"{tree.path(facts.binary)}: absent (nor {facts.python}, nor train/<class>)")


def read_mnist(tree: Tree, wanted: Wanted) -> Listing:
    """Read MNIST or Fashion-MNIST: class folders, or four IDX files, here or where torchvision puts them."""
    found = class_folders(tree)
    if found is not None:
        return found
    classes = FASHION if wanted.name == "fashion_mnist" else DIGITS
    items: list[Item] = []
    parts: tuple[tuple[Part, str], ...] = (("train", "train"), ("test", "t10k"))
    for part, prefix in parts:
        files = [_idx_file(tree, f"{prefix}-{what}-ubyte") for what in ("images-idx3", "labels-idx1")]
        images, labels = (tree.path(file) for file in files)
        _same_length(images, labels)
        items += _records(part, images, _named(labels, read_array(labels), classes))
    return Listing(tuple(items), classes)


def read_svhn(tree: Tree, _: Wanted) -> Listing:
    """Read SVHN's cropped digits: ``train_32x32.mat`` and ``test_32x32.mat``."""
    items: list[Item] = []
    for part in PARTS:
        file = tree.path(tree.need(f"{part}_32x32.mat"))
        digits = svhn_digits(file, None if file.is_file() else read_file(file))
        items += _records(part, file, _named(file, digits, DIGITS), "ppm")
    return Listing(tuple(items), DIGITS)


def read_medmnist(tree: Tree, _: Wanted) -> Listing:
    """Read PneumoniaMNIST: class folders, or MedMNIST's ``pneumoniamnist.npz``."""
    found = class_folders(tree)
    if found is not None:
        return found
    file, classes = tree.need("pneumoniamnist.npz", "train/normal"), ("normal", "pneumonia")
    items: list[Item] = []
    parts: tuple[tuple[Part, str], ...] = (("train", "train"), ("test", "test"), ("validation", "val"))
    for part, prefix in parts:
        images, labels = (tree.path(f"{file}/{prefix}_{what}.npy") for what in ("images", "labels"))
        _same_length(images, labels)
        items += _records(part, images, _named(labels, read_array(labels).reshape(-1), classes))
    return Listing(tuple(items), classes)


def _binary_cifar(tree: Tree, facts: _Cifar, *, coarse: bool) -> Listing:
    column = 0 if coarse else len(facts.names) - 1
    classes = tuple(tree.text(facts.names[column]).split())
    items: list[Item] = []
    for part, batches in facts.batches.items():
        for batch in batches:
            path = tree.path(tree.need(f"{batch}.bin"))
            numbers = cifar_labels(path, None if path.is_file() else read_file(path))[:, column]
            items += _records(part, path, _named(path, numbers, classes), "ppm")
    return Listing(tuple(items), classes)


def _pickled_cifar(tree: Tree, facts: _Cifar, *, coarse: bool) -> Listing:
    for batch in (*facts.batches["train"], *facts.batches["test"]):
        tree.need(batch)
    if not tree.root.is_dir():
        raise InputError(f"{tree.root}: CIFAR's Python version inside a zip; unpack it, or use the binary version")
    content = pickled_cifar(tree.root)
    classes = tuple(COARSE) if coarse else content.classes
    items: list[Item] = []
    for part, batches in facts.batches.items():
        for batch in batches:
            kinds = _named(tree.path(batch), content.batches[batch][1], content.classes)
            items += _records(part, tree.path(batch), [COARSE_OF[k] for k in kinds] if coarse else kinds, "ppm")
    return Listing(tuple(items), classes, ("Python version, read by torchvision",))


def _records(part: Part, file: Path, kinds: Iterable[str], suffix: str = "pgm") -> list[Item]:
    return [Item(part, file / f"{i:05d}.{suffix}", kind) for i, kind in enumerate(kinds)]


def _named(file: Path, numbers: npt.NDArray[Any], classes: tuple[str, ...]) -> list[str]:
    if numbers.size and int(numbers.max()) >= len(classes):
        raise InputError(f"{file}: class number {int(numbers.max())} of {len(classes)} classes; copy the file again")
    return [classes[number] for number in numbers]


def _same_length(images: Path, labels: Path) -> None:
    n_images, n_labels = len(read_array(images)), len(read_array(labels))
    if n_images != n_labels:
        raise InputError(f"{labels}: {n_labels:,} labels for {n_images:,} images in {images.name}; copy both again")


def _idx_file(tree: Tree, file: str) -> str:
    return tree.need(*(f"{place}{file}{end}" for place in ("", "raw/") for end in ("", ".gz")))
