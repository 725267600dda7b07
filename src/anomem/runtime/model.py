"""Interface shared by fitted detectors and exported models: scores, maps, p-values, verdicts, a calibration."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from anomem.errors import InputError
from anomem.renamed import OldNames, warn_renamed
from anomem.runtime.calibration import Calibration
from anomem.runtime.fdr import benjamini_hochberg
from anomem.runtime.files import is_folder
from anomem.runtime.frame import Frame
from anomem.runtime.groups import Groups, fresh_strata, image_strata, resolve_groups
from anomem.runtime.listing import image_files
from anomem.runtime.preprocess import Preprocessing
from anomem.runtime.progress import Progress, run_to_end
from anomem.runtime.recalibration import Fresh
from anomem.runtime.scored import Scored, describe
from anomem.runtime.scoring import ImageResult, PreparedImages
from anomem.runtime.words import check_no_defects
from anomem.types import FloatArray, ImagesLike, IntArray, Record

__all__ = ["Model", "Scored", "describe"]


class Model(OldNames, ABC):
    """Interface shared by fitted detectors and exported models; all scoring goes through :meth:`score`."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Name of the method."""

    @property
    @abstractmethod
    def paper(self) -> str:
        """Publication of the method."""

    @property
    @abstractmethod
    def localizes(self) -> bool:
        """True if the model draws anomaly maps."""

    @property
    @abstractmethod
    def calibration_(self) -> Calibration:
        """Calibration scores, alpha, threshold and p-values."""

    @property
    @abstractmethod
    def counts_(self) -> dict[str, int]:
        """Number of images by role: n_train, n_tune, n_calibration, n_labelled."""

    @property
    def groups_(self) -> Mapping[str, Any]:
        """Groups among the normals of the fit; see :func:`anomem.runtime.groups.group_facts`."""
        return {}

    @property
    @abstractmethod
    def digests_by_role_(self) -> Mapping[str, frozenset[int]]:
        """Content hashes by role: learn, tune, calibration, labelled."""

    @property
    @abstractmethod
    def map_scale_(self) -> tuple[float, float]:
        """Limits of the colour scale of the model's maps; (0, 1) without maps."""

    @property
    @abstractmethod
    def preprocessing_(self) -> Preprocessing:
        """Steps from a decoded image to the network's input."""

    @property
    @abstractmethod
    def frame_(self) -> Frame | None:
        """Size at which the fit's normal images are seen; None for files that are older than this fact."""

    @property
    @abstractmethod
    def resolved_(self) -> dict[str, Any]:
        """Hyperparameters of the fit, with the preset's values filled in."""

    @abstractmethod
    def get_params(self) -> dict[str, Any]:
        """Return the hyperparameters as given."""

    @abstractmethod
    def save(self, path: str | Path) -> None:
        """Write the model file atomically."""

    @abstractmethod
    def _prepared(
        self, images: ImagesLike, *, workers: int | None, skip_bad: bool, max_pixels: int | None
    ) -> PreparedImages:
        """Open images of any accepted kind."""

    @abstractmethod
    def _results(self, images: PreparedImages, *, maps: bool, batch_size: int, device: str) -> Iterator[ImageResult]:
        """Run the network over prepared images."""

    @abstractmethod
    def _with_alpha(self, alpha: float) -> None:
        """Replace alpha."""

    @staticmethod
    def _request(alpha: float | None, groups: Sequence[Hashable | None] | None) -> Fresh:
        return Fresh(alpha, groups)

    @abstractmethod
    def _calibrated(
        self, images: PreparedImages, fresh: Fresh, *, batch_size: int, device: str
    ) -> Generator[Record, None, None]:
        """Replace the calibration with one on fresh normals."""

    def _normals(
        self, normals: ImagesLike, stratum: str | None = None
    ) -> tuple[Any, dict[str, Sequence[Hashable | None] | None]]:
        """Return the normal images of a user's calibration input, and their columns `groups` and `strata`, if known.

        Raises
        ------
        InputError
            Folder with a subfolder named for anomalous images.
        """
        if isinstance(normals, (str, Path)) and is_folder(normals):
            found = image_files(normals, among=False)
            check_no_defects(found, normals)
            return found, {}
        return normals, {}

    def _strata_of(self, images: ImagesLike, column: str) -> Sequence[Hashable | None] | None:
        """Return the strata of samples, or of a table's column, if any."""
        return None

    def _before_scoring(self) -> None:
        """Warn if p-values may be invalid."""

    @property
    def bits_(self) -> int:
        """Bits used by 16-bit samples: 8, 10, 12, 14 or 16."""
        return self.preprocessing_.bits

    @property
    def digests_(self) -> frozenset[int]:
        """Content hashes of all images used for training, tuning, calibration or labels."""
        return frozenset().union(*self.digests_by_role_.values())

    def score(
        self,
        images: ImagesLike,
        *,
        maps: bool = False,
        strata: Groups = None,
        groups: Groups = None,
        batch_size: int = 16,
        workers: int | None = None,
        skip_bad: bool = False,
        device: str = "auto",
        max_pixels: int | None = None,
    ) -> Iterator[Scored]:
        """Score images lazily, in order; Python, commands, reports and benchmarks all use this method.

        Parameters
        ----------
        images : folder, zip, file, array, tensor, Pillow image, bytes, or list of these
            All images of a folder, whatever its layout. Arrays are RGB, bytes the content of an image file.
        maps : bool
            Return anomaly maps too, each in its image's own size; InputError if the method draws none.
        strata : sequence, column of a table, "folder" or regular expression, optional
            Stratum of each image, for a model with strata; by default as in its calibration.
        groups : sequence, "near", "folder" or regular expression, optional
            Groups of the images, passed on to the results; see `anomem.runtime.group_verdicts.judge_groups`.
        batch_size : int
            Images per forward pass; affects scores by rounding only.
        workers : int, optional
            Decoding threads; by default one per core, at most eight.
        skip_bad : bool
            Yield unreadable images with their error instead of failing.
        device : str
            "auto", "cpu", "cuda", "cuda:1", ...; exported models run on the processor.
        max_pixels : int, optional
            Maximum number of pixels per image, checked before decoding; by default 120 million.

        Yields
        ------
        Scored

        Raises
        ------
        InputError
            Images that cannot be opened, an image of a stratum without calibration, or maps of a method that draws
            none.
        ImageError
            Unreadable image, unless `skip_bad`.
        """
        self._before_scoring()
        calibration = self.calibration_
        prepared = self._prepared(images, workers=workers, skip_bad=skip_bad, max_pixels=max_pixels)
        rule = calibration.strata.by if strata is None and calibration.strata is not None else strata
        carried = self._strata_of(images, rule) if isinstance(rule, str) else None
        named = image_strata(calibration, strata if carried is None else carried, prepared.source)
        grouped = run_to_end(resolve_groups(groups, prepared.source, workers=workers)) or (None,) * len(named)
        results = self.raw_results(prepared, maps=maps, batch_size=batch_size, device=device)
        return (
            describe(
                result,
                prepared.source.name(result.index),
                calibration,
                stratum=named[result.index],
                group=grouped[result.index],
            )
            for result in results
        )

    def raw_results(
        self,
        images: ImagesLike,
        *,
        maps: bool = False,
        batch_size: int = 16,
        workers: int | None = None,
        skip_bad: bool = False,
        device: str = "auto",
        max_pixels: int | None = None,
    ) -> Iterator[ImageResult]:
        """Run the network over images lazily, in order, without p-values and verdicts.

        Parameters
        ----------
        images
            As for :meth:`score`; or PreparedImages, with their own `workers` and `skip_bad`.
        maps : bool
            Draw the map of each image.
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
        return self._results(images, maps=maps, batch_size=batch_size, device=device)

    def anomaly_score(
        self,
        images: ImagesLike,
        *,
        batch_size: int = 16,
        workers: int | None = None,
        skip_bad: bool = False,
        device: str = "auto",
        max_pixels: int | None = None,
    ) -> FloatArray:
        """Return raw anomaly scores, (N,) float32, higher = more anomalous; parameters as for :meth:`score`."""
        options: dict[str, Any] = {"batch_size": batch_size, "workers": workers, "skip_bad": skip_bad, "device": device}
        self._before_scoring()
        results = self.raw_results(images, max_pixels=max_pixels, **options)
        return np.asarray([r.score for r in results], dtype=np.float32)

    def anomaly_map(
        self,
        images: ImagesLike,
        *,
        batch_size: int = 16,
        workers: int | None = None,
        device: str = "auto",
        max_pixels: int | None = None,
    ) -> list[FloatArray]:
        """Return one (H, W) float32 anomaly map per image, in the image's own size; parameters as for :meth:`score`."""
        options: dict[str, Any] = {"batch_size": batch_size, "workers": workers, "device": device}
        results = self.raw_results(images, maps=True, max_pixels=max_pixels, **options)
        return [r.map for r in results if r.map is not None]

    def p_value(
        self,
        images: ImagesLike,
        *,
        strata: Groups = None,
        batch_size: int = 16,
        workers: int | None = None,
        skip_bad: bool = False,
        device: str = "auto",
        max_pixels: int | None = None,
    ) -> npt.NDArray[np.float64]:
        """Return conformal p-values, (N,) float64 in (0, 1]; parameters as for :meth:`score`."""
        options: dict[str, Any] = {"batch_size": batch_size, "workers": workers, "skip_bad": skip_bad, "device": device}
        scored = self.score(images, strata=strata, max_pixels=max_pixels, **options)
        return np.asarray([r.p_value for r in scored], dtype=np.float64)

    def predict(
        self,
        images: ImagesLike,
        *,
        fdr: float | None = None,
        strata: Groups = None,
        batch_size: int = 16,
        workers: int | None = None,
        skip_bad: bool = False,
        device: str = "auto",
        max_pixels: int | None = None,
    ) -> IntArray:
        """Return verdicts, (N,): 1 rejected, 0 not, -1 unreadable (`skip_bad`); other parameters as for `score`.

        Rejected is ``p_value <= alpha``; with `fdr` by `anomem.runtime.fdr.benjamini_hochberg`, all together.
        """
        options: dict[str, Any] = {"batch_size": batch_size, "workers": workers, "skip_bad": skip_bad, "device": device}
        scored = list(self.score(images, strata=strata, max_pixels=max_pixels, **options))
        if fdr is None:
            rejected = np.asarray([r.anomalous for r in scored], dtype=bool)
        else:
            rejected = benjamini_hochberg([r.p_value for r in scored], fdr)
        unread = np.asarray([r.error is not None for r in scored], dtype=bool)
        return np.where(unread, -1, rejected).astype(np.intp)

    def set_alpha(self, alpha: float) -> Self:
        """Set the promised false-alarm rate and return self; scores and calibration are unchanged.

        Raises
        ------
        CalibrationError
            Alpha too small for the number of calibration images, or for that of a stratum.
        """
        self._with_alpha(alpha)
        return self

    def calibrate(
        self,
        normals: ImagesLike = None,
        alpha: float | None = None,
        *,
        batch_size: int = 16,
        workers: int | None = None,
        device: str = "auto",
        skip_bad: bool = False,
        max_pixels: int | None = None,
        groups: Groups = None,
        strata: Groups = None,
        blend: bool = False,
        progress: Progress | None = None,
    ) -> Self:
        """Calibrate on fresh normals and return self.

        Parameters
        ----------
        normals : images
            As for :meth:`score`. Images used for training or tuning are left out with a warning.
        alpha : float, optional
            Promised false-alarm rate; by default the current one if there are enough normals.
        groups : sequence, "near", "folder" or regular expression, optional
            Groups of images of one part, lot or burst; p-values count groups. See
            `anomem.runtime.groups.resolve_groups`.
        strata : sequence, column of a table, "folder" or regular expression, optional
            Strata (camera, product, shift), each with a calibration of its own; by default those of samples, or as in
            the present calibration. See `anomem.runtime.groups.resolve_strata`.
        blend : bool
            Keep the present calibration scores beside the fresh ones, moved and stretched to them, for an alpha that
            few fresh normals do not carry; see `anomem.runtime.blend.blended`.
        batch_size, workers, device, skip_bad, max_pixels
            As for :meth:`score`.
        progress : callable, optional
            Called with a Record per image.

        Raises
        ------
        CalibrationError
            Alpha too small for the number of normals or groups.
        InputError
            No image is new to the model, or a folder with a subfolder named for anomalous images.
        """
        if normals is None:
            warn_renamed("calibrate(alpha=...) without normals", "set_alpha(alpha)")
            return self.set_alpha(self.calibration_.alpha if alpha is None else alpha)
        former = self.calibration_
        rule = former.strata.by if strata is None and former.strata is not None else strata
        normals, known = self._normals(normals, rule if isinstance(rule, str) else None)
        images = self._prepared(normals, workers=workers, skip_bad=skip_bad, max_pixels=max_pixels)
        counted = run_to_end(resolve_groups(known.get("groups") if groups is None else groups, images.source), progress)
        named, by = fresh_strata(former, known.get("strata") or strata, images.source, rule)
        fresh = Fresh(alpha, counted, named, by, blend)
        run_to_end(self._calibrated(images, fresh, batch_size=batch_size, device=device), progress)
        return self
