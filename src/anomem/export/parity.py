"""Comparison of an exported file's scores with its model's, from the same image files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from anomem.data.imageset import ImageSet
from anomem.data.sources import ImageSource
from anomem.data.synthetic import DEFECTS, TEXTURES, crops, plant
from anomem.errors import ExportError
from anomem.fitting import Fitted
from anomem.nn.devices import moved
from anomem.nn.inference import score_images
from anomem.runtime.images import write_png
from anomem.runtime.preprocess import Preprocessing
from anomem.runtime.scoring import ImageResult
from anomem.runtime.session import Session
from anomem.types import UInt8Image

SCORES = {"float32": 1e-4, "bfloat16": 0.1}
"""Tolerance of scores, relative to their range. Two implementations of bfloat16 round differently."""

MAPS = {"float32": 1e-3, "bfloat16": 0.2}
"""Tolerance of maps, relative to the range of their values. At a memory item distances are pure rounding."""

STEPS = {"scores": 1 / 15, "maps": 0.02}
"""Share of images and of pixels exempt where scores move in steps: rounding may move some by a step."""

BATCH = 8


@dataclass(frozen=True)
class Difference:
    """Differences between an exported file and its model.

    Parameters
    ----------
    score : float
        Largest absolute difference of two scores.
    share : float
        The same as a share of the range of scores.
    map_share : float or None
        Largest difference of two pixels as a share of the range of the maps; None without maps.
    n_images : int
        Images compared.
    """

    score: float
    share: float
    map_share: float | None
    n_images: int


def example_files(folder: Path, preprocessing: Preprocessing) -> list[Path]:
    """Write images to compare on: unchanged textures and ones with planted defects, of several shapes.

    Parameters
    ----------
    folder : Path
        Folder for the files.
    preprocessing : Preprocessing
        Preprocessing of the model; where it cuts tiles, images are larger than one.
    """
    side = max(48, min(512, round(1.2 * (preprocessing.tile or max(preprocessing.hw)))))
    height, width = (max(32, round(side * part / max(preprocessing.hw))) for part in preprocessing.hw)
    shapes = ((height, width), (height, round(0.8 * width)), (round(0.7 * height), width))
    rng, files = np.random.default_rng(0), []
    for t, name in enumerate(TEXTURES):
        for i, whole in enumerate(crops(name, 5, size=side, half="test", rng=rng)):
            height, width = shapes[(t + i) % len(shapes)]
            image: UInt8Image = np.ascontiguousarray(whole[:height, :width])
            if i % 2:
                image, _ = plant(image, DEFECTS[(t + i) % len(DEFECTS)], rng, 0.3)
            files.append(folder / f"{name}_{i}.png")
            write_png(files[-1], image)
    return files


def native_results(state: Fitted, files: ImageSource, *, precision: str, maps: bool) -> list[ImageResult]:
    """Score files by the model itself, on the CPU, in a chosen precision."""
    images = ImageSet(files, state.preprocessing, workers=0)
    scorer = moved(state.scorer, "cpu")
    return list(score_images(scorer, images, precision=precision, batch_size=BATCH, whole=maps))


def compare(state: Fitted, session: Session, files: ImageSource, precision: str) -> Difference:
    """Compare an exported file with its model in equal precision.

    Parameters
    ----------
    state : Fitted
        Fitted model.
    session : Session
        Exported file.
    files : ImageSource
        Image files; each is decoded by both.
    precision : {"float32", "bfloat16"}
        Arithmetic of the model's own scores.
    """
    native = native_results(state, files, precision=precision, maps=session.localizes)
    exported = list(session.raw_results(files, maps=session.localizes, batch_size=BATCH, workers=0))
    found, wanted = (np.asarray([r.score for r in part], np.float64) for part in (exported, native))
    span = float(np.ptp(np.concatenate([wanted, state.calibration.scores])))
    steps = not state.scorer.continuous
    largest = _largest(found - wanted, STEPS["scores"] if steps else 0.0)
    share = largest / max(span, 1e-12)
    return Difference(largest, share, _map_share(exported, native, STEPS["maps"] if steps else 0.0), len(files))


def _map_share(exported: Sequence[ImageResult], native: Sequence[ImageResult], steps: float) -> float | None:
    """Return the largest difference of the images' maps, as a share of the maps' range."""
    found, wanted = ([r.map.ravel() for r in part if r.map is not None] for part in (exported, native))
    if not found:
        return None
    apart = _largest(np.concatenate(found) - np.concatenate(wanted), steps)
    return apart / max(float(np.ptp(np.concatenate(wanted))), 1e-12)


def _largest(differences: npt.NDArray[np.floating[Any]], steps: float) -> float:
    """Return the largest absolute difference except for a share `steps` of them; infinite where one is NaN."""
    if not np.isfinite(differences).all():
        return float("inf")
    apart = np.sort(np.abs(differences))
    return float(apart[len(apart) - 1 - int(steps * len(apart))])


def require_parity(difference: Difference, precision: str) -> None:
    """Refuse a file that does not score as its model.

    Raises
    ------
    ExportError
        If they differ by more than the tolerance; the line names the difference.
    """
    found = {"scores": (difference.share, SCORES[precision]), "maps": (difference.map_share or 0.0, MAPS[precision])}
    for what, (share, most) in found.items():
        if not share <= most:
            raise ExportError(
                f"exported file: {what} differ from the model's by {share:.1e} of their range on "
                f"{difference.n_images} images, more than the tolerance {most:.0e}; nothing was written"
            )


def on_cpu(state: Fitted) -> Fitted:
    """Return the same model with its scorer on the CPU."""
    return state.replaced(scorer=moved(state.scorer, "cpu"))
