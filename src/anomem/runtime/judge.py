"""What users ask of a model, whatever computes the answers: scores, maps, p-values, verdicts, a calibration."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from anomem.errors import InputError
from anomem.runtime.calibration import Calibration
from anomem.runtime.preprocess import Preprocessing
from anomem.runtime.scoring import ImageResult, PreparedImages
from anomem.types import FloatArray, IntArray, Record

__all__ = ["Judge", "Scored", "describe"]


@dataclass(frozen=True)
class Scored:
    """One image's result.

    Parameters
    ----------
    index : int
        Position among the images given.
    name : str
        Path, or position in an array.
    digest : int
        Content hash.
    score : float
        Raw anomaly score, higher = more anomalous; NaN where `error` is set.
    p_value : float
        Conformal p-value, (1 + #{calibration scores >= score}) / (n + 1).
    anomalous : bool
        Whether p_value <= alpha.
    map : ndarray or None
        (H, W) float32 in the image's own frame and size.
    error : str or None
        Why the image could not be read.
    """

    index: int
    name: str
    digest: int
    score: float
    p_value: float
    anomalous: bool
    map: FloatArray | None = None
    error: str | None = None


def describe(result: ImageResult, name: str, preprocessing: Preprocessing, calibration: Calibration) -> Scored:
    """Turn a network's result into what a user reads: p-value, decision, and the map in the image's own frame."""
    if result.error is not None:
        return Scored(result.index, name, 0, np.nan, np.nan, False, None, result.error)
    full = None
    if result.tile_maps is not None:
        full = preprocessing.assemble(result.tile_maps, result.height_width)
    scores = np.asarray([result.score], dtype=np.float32)
    return Scored(
        result.index,
        name,
        result.digest,
        float(scores[0]),
        float(calibration.p_value(scores)[0]),
        bool(calibration.decide(scores)[0]),
        full,
    )


class Judge(ABC):
    """Whatever scores images one by one: what users ask of it, whatever computes the answers."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The method's name."""

    @property
    @abstractmethod
    def localizes(self) -> bool:
        """Whether it draws maps."""

    @property
    @abstractmethod
    def calibration_(self) -> Calibration:
        """Calibration scores, alpha, threshold and p-values."""

    @property
    @abstractmethod
    def bits_(self) -> int:
        """Bits that 16-bit samples use: 8, 10, 12, 14 or 16."""

    @abstractmethod
    def _prepared(self, images: Any, *, workers: int | None, skip_bad: bool, max_pixels: int | None) -> PreparedImages:
        """Open what users give."""

    @abstractmethod
    def _results(self, images: PreparedImages, *, maps: bool, batch_size: int, device: str) -> Iterator[ImageResult]:
        """Compute what the network says of each image."""

    @abstractmethod
    def _with_alpha(self, alpha: float) -> None:
        """Decide at another rate of false alarms."""

    @abstractmethod
    def _calibrated(
        self, images: PreparedImages, alpha: float | None, *, batch_size: int, device: str
    ) -> Generator[Record, None, None]:
        """Calibrate on fresh normals."""

    def score(
        self,
        images: Any,
        *,
        maps: bool = False,
        batch_size: int = 16,
        workers: int | None = None,
        skip_bad: bool = False,
        device: str = "auto",
        max_pixels: int | None = None,
    ) -> Iterator[Scored]:
        """Score images lazily, in order: the one path that Python, commands, reports and benchmarks take.

        Parameters
        ----------
        images : folder, file, array, tensor, Pillow image, bytes, or list of these
            Of a folder every image, whatever its layout. Arrays are RGB, bytes the content of an image file.
        maps : bool
            Whether to return anomaly maps, in each image's own size; refused where the method draws none.
        batch_size : int
            Images a forward pass; the scores do not depend on it beyond rounding.
        workers : int, optional
            Decoding threads; by default one a core, at most eight.
        skip_bad : bool
            List unreadable images instead of failing.
        device : str
            "auto", "cpu", "cuda", "cuda:1", ...; exported models run on the processor.
        max_pixels : int, optional
            Images with more pixels are refused before they are decoded; by default 120 million.

        Yields
        ------
        Scored
        """
        calibration = self.calibration_
        prepared = self._prepared(images, workers=workers, skip_bad=skip_bad, max_pixels=max_pixels)
        for result in self.results(prepared, maps=maps, batch_size=batch_size, device=device):
            yield describe(result, prepared.source.name(result.index), prepared.preprocessing, calibration)

    def results(
        self,
        images: Any,
        *,
        maps: bool = False,
        batch_size: int = 16,
        workers: int | None = None,
        skip_bad: bool = False,
        device: str = "auto",
        max_pixels: int | None = None,
    ) -> Iterator[ImageResult]:
        """Give what the network says of each image, lazily, in order, before a calibration has judged it.

        Parameters
        ----------
        images
            As for :meth:`score`, or PreparedImages, which know their workers and whether bad ones are skipped.
        maps : bool
            Whether to keep the map of each tile.
        batch_size, workers, skip_bad, device, max_pixels
            As for :meth:`score`.

        Yields
        ------
        ImageResult
        """
        if maps and not self.localizes:
            raise InputError(f"{self.name} scores whole images and draws no maps; use a method that localizes")
        if not isinstance(images, PreparedImages):
            images = self._prepared(images, workers=workers, skip_bad=skip_bad, max_pixels=max_pixels)
        yield from self._results(images, maps=maps, batch_size=batch_size, device=device)

    def anomaly_score(self, images: Any, **options: Any) -> FloatArray:
        """Return raw anomaly scores, (N,) float32, higher = more anomalous; options as for :meth:`score`."""
        return np.asarray([r.score for r in self.score(images, **options)], dtype=np.float32)

    def anomaly_map(self, images: Any, **options: Any) -> FloatArray | list[FloatArray]:
        """Return anomaly maps in the frame and size of each image: (N, H, W) float32, or a list where sizes differ."""
        if options.get("skip_bad"):
            raise InputError("an unreadable image has no map: use score(..., maps=True, skip_bad=True)")
        maps = [r.map for r in self.score(images, maps=True, **options) if r.map is not None]
        return np.stack(maps) if len({m.shape for m in maps}) == 1 else maps

    def p_value(self, images: Any, **options: Any) -> npt.NDArray[np.float64]:
        """Return conformal p-values, (N,) float64 in (0, 1]."""
        return np.asarray([r.p_value for r in self.score(images, **options)], dtype=np.float64)

    def predict(self, images: Any, **options: Any) -> IntArray:
        """Return (N,) 1 where an image is rejected at alpha, 0 where not, -1 where it cannot be read (`skip_bad`)."""
        decided = [-1 if r.error else int(r.anomalous) for r in self.score(images, **options)]
        return np.asarray(decided, dtype=np.intp)

    def calibrate(self, normals: Any = None, alpha: float | None = None, **options: Any) -> Self:
        """Calibrate on fresh normals, or (without `normals`) only change alpha; see :meth:`calibrate_steps`."""
        if normals is None:
            self._with_alpha(self.calibration_.alpha if alpha is None else alpha)
            return self
        for _ in self.calibrate_steps(normals, alpha, **options):
            pass
        return self

    def calibrate_steps(
        self,
        normals: Any,
        alpha: float | None = None,
        *,
        batch_size: int = 16,
        workers: int | None = None,
        device: str = "auto",
        skip_bad: bool = False,
        max_pixels: int | None = None,
    ) -> Generator[Record, None, None]:
        """Calibrate on fresh normals, step by step; images and options as for :meth:`score`.

        Parameters
        ----------
        normals : images
            Those that the model has learnt from or was tuned on are left out with a warning.
        alpha : float, optional
            The promised false-alarm rate; by default the present one where the normals carry it.

        Raises
        ------
        CalibrationError
            For an alpha that the normals cannot carry.
        """
        images = self._prepared(normals, workers=workers, skip_bad=skip_bad, max_pixels=max_pixels)
        yield from self._calibrated(images, alpha, batch_size=batch_size, device=device)
