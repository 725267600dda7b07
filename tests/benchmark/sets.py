"""Image sets for tests, in memory: real sizes where only counts matter, tiny where images are read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from anomem.benchmark.image_sets import BenchmarkSet
from anomem.data.labelled_images import Images
from anomem.data.sources import ArraySource, PathSource
from anomem.types import ANOMALOUS, NORMAL


def images(name: str, kinds: Sequence[str], labels: Sequence[int], *, side: int = 1, masks: bool = False) -> Images:
    """Images that all differ, each with a bright spot where it is anomalous; `masks` mark the spots."""
    count = len(kinds)
    pixels = np.zeros((count, side, side, 3), np.uint8)
    numbers = np.frombuffer(name.encode().ljust(8)[:8], np.uint8)
    if side == 1:
        for channel in range(3):
            pixels[:, 0, 0, channel] = np.arange(count) >> (8 * channel) & 255
        pixels[:, 0, 0, 2] += numbers[-1]  # parts share no image
    else:
        rng = np.random.default_rng(int(numbers.sum()))
        pixels[...] = np.clip(rng.normal(110, 12, pixels.shape), 0, 255)
    found: list[np.ndarray | None] = [None] * count
    for i, label in enumerate(labels):
        if label == ANOMALOUS and side > 1:
            top = i % (side // 2)
            pixels[i, top : top + side // 3, top : top + side // 3] = 250
            found[i] = np.zeros((side, side), bool)
            found[i][top : top + side // 3, top : top + side // 3] = True
    return Images(
        name,
        ArraySource(pixels) if count else PathSource(()),
        np.asarray(labels, dtype=np.intp),
        tuple(kinds),
        tuple(found) if masks else (),
    )


def classes(n_classes: int = 10, n_train: int = 5000, n_test: int = 1000, *, side: int = 1) -> BenchmarkSet:
    """As many classes, any of which may be normal."""
    names = tuple(f"class {c}" for c in range(n_classes))

    def part(name: str, count: int) -> Images:
        kinds = [kind for kind in names for _ in range(count)]
        return images(f"{name} of classes", kinds, [-1] * len(kinds), side=side)

    return BenchmarkSet(
        "classes", "classes", "classes", "", "none", part("train", n_train), part("test", n_test), nothing(), names
    )


def defects(
    types: dict[str, int], n_train: int = 40, n_good: int = 20, *, spare: dict[str, int] | None = None, side: int = 1
) -> BenchmarkSet:
    """A set that says what is normal, with defects of some types among the test images, and perhaps to be labelled."""

    def of(name: str, counts: dict[str, int], n_normal: int) -> Images:
        kinds = ["good"] * n_normal + [kind for kind, count in counts.items() for _ in range(count)]
        labels = [NORMAL] * n_normal + [ANOMALOUS] * (len(kinds) - n_normal)
        return images(name, kinds, labels, side=side, masks=True)

    return BenchmarkSet(
        *("defects", "defects", "defects", "", "none"),
        of("train normals", {}, n_train),
        of("judged", types, n_good),
        of("labelled", spare, 0) if spare else nothing(),
    )


def nothing() -> Images:
    return images("nothing", [], [])
