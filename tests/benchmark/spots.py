"""Small real detector of spots, and folders of images for it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from anomem.data.sources import Sample, open_source
from anomem.errors import ImageError
from anomem.runtime.calibration import calibrate
from anomem.runtime.groups import group_facts


@dataclass(frozen=True)
class Result:
    index: int
    name: str
    digest: int
    score: float
    p_value: float
    anomalous: bool
    map: np.ndarray | None = None
    error: str | None = None


class SpotDetector:
    """Scores an image by its greatest distance from its median grey."""

    name = "spots"
    paper = "after <nobody> & co"
    localizes = True
    bits_ = 16
    groups_ = group_facts(["a.png", "<b>.png", "c.png"], ["x", "x", None], "near")

    def __init__(self, normals: list[Path], *, alpha: float = 0.1, localizes: bool = True) -> None:
        source = open_source(normals)
        self.localizes = localizes
        maps = [self._map(source.load(i)) for i in range(len(source))]
        self.calibration_ = calibrate([float(m.max()) for m in maps], alpha)
        self.digests_ = frozenset(source.digest(i) for i in range(len(source)))
        self.map_scale_ = (float(np.mean([m.mean() for m in maps])), 90.0)
        self.counts_ = {"n_train": 0, "n_tune": 0, "n_calibration": len(source), "n_labelled": 0}
        self.asked_for_maps: list[bool] = []

    @staticmethod
    def _map(image: np.ndarray) -> np.ndarray:
        grey = image.mean(axis=2, dtype=np.float32)
        return np.abs(grey - np.median(grey)).astype(np.float32)

    def score(
        self,
        images: Any,
        *,
        maps: bool = False,
        batch_size: int = 16,
        workers: int | None = None,
        skip_bad: bool = False,
        device: str = "auto",
    ) -> Iterator[Result]:
        self.asked_for_maps.append(maps)
        source = open_source(images)
        for i in range(len(source)):
            try:
                image, digest = source.load_with_digest(i)
            except ImageError as error:
                if not skip_bad:
                    raise
                yield Result(i, source.name(i), 0, np.nan, np.nan, False, None, str(error))
                continue
            found = self._map(image)
            score = float(found.max())
            p = float(self.calibration_.p_value([score])[0])
            yield Result(
                i,
                source.name(i),
                digest,
                score,
                p,
                p <= self.calibration_.alpha,
                found if maps else None,
            )

    def get_params(self) -> dict[str, Any]:
        return {"size": None, "letterbox": False, "roi": np.zeros((3, 4), bool), "note": "<b>&"}

    @property
    def resolved_(self) -> dict[str, Any]:
        return {**self.get_params(), "size": 224}


def texture(rng: np.random.Generator, size: tuple[int, int] = (48, 40)) -> np.ndarray:
    """A noisy grey surface."""
    grey = 120 + 6 * rng.normal(size=(*size, 1)) + 2 * rng.normal(size=(*size, 3))
    return np.clip(np.rint(grey), 0, 255).astype(np.uint8)


def spotted(image: np.ndarray, rng: np.random.Generator, depth: float) -> tuple[np.ndarray, np.ndarray]:
    """The image with a dark square, and the square's mask."""
    top, left = rng.integers(4, np.array(image.shape[:2]) - 12)
    mask = np.zeros(image.shape[:2], bool)
    mask[top : top + 8, left : left + 8] = True
    changed = np.where(mask[:, :, None], image - depth, image)
    return np.clip(np.rint(changed), 0, 255).astype(np.uint8), mask


def save(path: Path, pixels: np.ndarray) -> Path:
    """Write a PNG, folders included."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def spotted_set(
    root: Path, seed: int = 0, *, n_normal: int = 12, masks: bool = True
) -> tuple[list[Path], list[Sample]]:
    """Calibration normals, and test samples: normals, clear and faint spots, masks of the clear."""
    rng = np.random.default_rng(seed)
    made_from = [save(root / "train" / f"{i:02}.png", texture(rng)) for i in range(19)]
    samples = [
        Sample(save(root / "test" / "good" / f"{i:02}.png", texture(rng)), 0, None, "good") for i in range(n_normal)
    ]
    for kind, depth in (("clear", 80.0), ("faint", 14.0)):
        for i in range(5):
            # Sizes differ, as they do in the field.
            image, mask = spotted(texture(rng, (40 + i, 44)), rng, depth)
            path = save(root / "test" / kind / f"{i:02}.png", image)
            truth = root / "ground_truth" / kind / f"{i:02}_mask.png"
            has_mask = masks and kind == "clear"
            if has_mask:
                save(truth, mask.astype(np.uint8) * 255)
            samples.append(Sample(path, 1, truth if has_mask else None, kind))
    return made_from, samples
