"""The contract that every detector keeps; not one line here knows a method."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Generator, Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch

from anomem.data.corpus import Corpus, Mask, read_corpus
from anomem.data.imageset import ImageSet
from anomem.data.sources import open_source
from anomem.data.splits import split_normals
from anomem.errors import InputError, NotFittedError
from anomem.export.exporting import Exported, export_steps
from anomem.fitting import (
    Fitted,
    Labelled,
    Run,
    calibration_pass,
    conclude,
    copy_scorer,
    final_scores,
    gather_labelled,
    make_run,
    moved,
    read_preprocessing,
    recalibrated,
    remember_calibration,
)
from anomem.modelfile import save_model
from anomem.nn.inference import score_images
from anomem.nn.scorer import Scorer, TwoStageScorer
from anomem.params import FLAG, FileOrArray, OneOf, Parameters, Range, param
from anomem.runtime.calibration import Calibration, calibrate, check_alpha
from anomem.runtime.judge import Judge
from anomem.runtime.pixels import BITS
from anomem.runtime.scoring import ImageResult, PreparedImages
from anomem.training import exhaust, isolated_rng, recorded
from anomem.types import ANOMALOUS, NORMAL, Record

Supervision = Literal["none", "optional", "required"]


@dataclass(kw_only=True, repr=False, eq=False)
class Detector(Parameters, Judge):
    """Base of all detectors: fit on normals, score, localise, promise a false-alarm rate.

    Parameters
    ----------
    size : int
        Side of the square that every image (or tile) is resized to, pixels.
    letterbox : bool, default False
        Keep the aspect when resizing and fill up with grey.
    tile : int or None, default None
        Cut images into overlapping squares of this many pixels, in fitting and scoring, so that small defects in large
        photographs stay visible.
    tile_overlap : float, default 0.25
        How much neighbouring tiles share, as a fraction of their side.
    roi : path, array (H, W) or None, default None
        A mask image; what is black in it is left out of fitting, scores and maps.
    bits : {"auto", 8, 10, 12, 14, 16}, default "auto"
        Bits that 16-bit samples use, 2 ** bits - 1 being white; auto: as many as the learnt normals use. The model
        remembers it. 8-bit images are taken as they are.
    precision : {"float32", "bfloat16"}, default "float32"
        In which the model scores; its calibration belongs to it.
    seed : int, default 0
        Of the split and of everything random in the fit.
    """

    name: ClassVar[str]
    supervision: ClassVar[Supervision]
    localizes: ClassVar[bool]
    paper: ClassVar[str]
    test_params: ClassVar[dict[str, Any]] = {}
    """Hyperparameters so small that a contract test takes a second."""
    contract_skips: ClassVar[dict[str, str]] = {}
    """Contract tests that this method cannot keep, each with the reason in words."""
    _fitted: Fitted | None = field(default=None, init=False)

    size: int | None = param(224, Range(16, 4096, integer=True), doc="Input side, pixels.", preset=True)
    letterbox: bool = param(False, FLAG, doc="Keep the aspect, fill up with grey.")
    tile: int | None = param(
        None, Range(32, 8192, integer=True), doc="Side of tiles that images are cut into, pixels.", optional=True
    )
    tile_overlap: float = param(0.25, Range(0.0, 0.75), doc="Share of a tile's side that neighbours overlap.")
    roi: Any = param(
        None, FileOrArray("a mask image's path, or an (H, W) array"), doc="Region to look at.", optional=True
    )
    bits: int | str = param(
        "auto", OneOf(("auto", *BITS)), doc="Bits that 16-bit samples use; auto: those of the normals."
    )
    precision: str = param("float32", OneOf(("float32", "bfloat16")), doc="In which the model scores.")
    seed: int = param(0, Range(0, 2**31 - 1, integer=True), doc="Of the split and of the fit.")

    @abstractmethod
    def _fit(
        self, learn: ImageSet, tune: ImageSet, labelled: Labelled | None, run: Run
    ) -> Generator[Record, None, Scorer]:
        """Learn from normals (and from labelled images where the first stage takes them); return the scorer."""

    def _refit(self, scorer: TwoStageScorer, labelled: Labelled, run: Run) -> Generator[Record, None, None]:
        """Fit the second stage of `scorer` in place."""
        raise InputError(f"{self.name} has no second stage: fit it again with the labels")

    @classmethod
    @abstractmethod
    def _build(cls, config: dict[str, Any]) -> Scorer:
        """Build an empty scorer from its config."""

    def fit(self, images: Any, y: Sequence[int] | None = None, **options: Any) -> Self:
        """Fit, and return self; parameters as for :meth:`fit_steps`, run to its end."""
        exhaust(self.fit_steps(images, y, **options))
        return self

    def fit_steps(
        self,
        images: Any,
        y: Sequence[int] | None = None,
        *,
        masks: Sequence[Mask] | None = None,
        groups: Sequence[Hashable | None] | None = None,
        types: Sequence[str | None] | None = None,
        alpha: float | None = None,
        device: str = "auto",
        fit_precision: str = "auto",
        batch_size: int = 16,
        workers: int | None = None,
        skip_bad: bool = False,
        max_pixels: int | None = None,
    ) -> Generator[Record, None, None]:
        """Fit step by step: yields what it does. Exhausted, the detector is fitted; abandoned, it stays unfitted.

        Parameters
        ----------
        images : folder, list of paths, uint8 arrays (N, H, W[, C]), tensors, Pillow images, bytes, list of Sample
            Normal images (arrays: RGB); labelled anomalies may stand among them. Of a folder the training part is read.
        y : sequence of int, optional
            0 normal, 1 anomalous, -1 unknown (left out); by default what the source says, else all normal.
        masks : sequence, optional
            For each image an (H, W) mask, a path to one, or None. Never needed.
        groups : sequence, optional
            Images of one group (part, lot, burst) are never separated by the split.
        types : sequence of str, optional
            Defect type of each labelled image.
        alpha : float, optional
            Promised false-alarm rate; by default 0.01, or 1 / (n + 1) where n calibration normals carry no less.
        device : str
            "auto", or a torch device.
        fit_precision : {"auto", "float32", "bfloat16"}
            Of the features learnt from; auto takes bfloat16 where the processor multiplies it natively.
        batch_size : int
            Images a forward pass.
        workers : int, optional
            Decoding threads.
        skip_bad : bool
            Leave unreadable images out (they are listed) instead of failing.
        max_pixels : int, optional
            Images with more pixels are refused before they are decoded; by default 120 million.

        Raises
        ------
        ParameterError, InputError, CalibrationError
            For a hyperparameter outside its range; images or labels that cannot be used; an alpha that n cannot carry.
        """
        self._fitted = None
        options: dict[str, Any] = {"batch_size": batch_size, "workers": workers}
        run = make_run(self.resolve(), device=device, fit_precision=fit_precision, **options)
        given: dict[str, Any] = {"masks": masks, "groups": groups, "types": types}
        given["preprocessing"] = read_preprocessing(run.params)
        corpus = yield from read_corpus(images, y, skip_bad=skip_bad, max_pixels=max_pixels, **given)
        history: list[Record] = []
        steps = isolated_rng(self._fit_state(corpus, alpha, run), self.seed)
        state = yield from recorded(steps, history)
        self._fitted = state.replaced(history=tuple(history))

    def _fit_state(self, corpus: Corpus, alpha: float | None, run: Run) -> Generator[Record, None, Fitted]:
        normals = corpus.positions(NORMAL)
        hashes, groups = [corpus.digests[i] for i in normals], [corpus.groups[i] for i in normals]
        split = split_normals(hashes, groups, seed=run.params.seed)
        # An image that stands there twice is one image: it must not count twice in a promise.
        once = np.unique([corpus.digests[i] for i in normals[split.calibrate]], return_index=True)[1]
        preprocessing = read_preprocessing(run.params, corpus.source.subset(normals[split.learn]))
        parts = {"learn": split.learn, "tune": split.tune, "calibration": split.calibrate[np.sort(once)]}
        check_alpha(alpha, len(once))
        sets = {
            role: ImageSet(corpus.source, preprocessing, normals[part], workers=run.workers)
            for role, part in parts.items()
        }
        digests = {role: frozenset(corpus.digests[i] for i in s.indices) for role, s in sets.items()}
        digests["labelled"], labelled = frozenset(), None
        chosen = corpus.positions(ANOMALOUS)
        if self.supervision == "required" and not len(chosen):
            raise InputError(f"{self.name} learns from labelled anomalies; label some (y = 1)")
        if self.supervision != "none" and len(chosen):
            labelled, digests["labelled"] = gather_labelled(corpus, chosen, preprocessing, digests, run)

        scorer = yield from self._fit(sets["learn"], sets["tune"], labelled, run)
        scorer.eval().requires_grad_(False).to(run.device)
        results, scale = yield from calibration_pass(scorer, sets["calibration"], run)
        remember_calibration(scorer, results)
        if labelled is not None and isinstance(scorer, TwoStageScorer):
            # As a later refit would draw, so that labels given now or later lead to the same scores.
            fresh = replace(run, rng=torch.Generator().manual_seed(run.params.seed))
            yield from self._refit(scorer, labelled, fresh)
        return Fitted(
            scorer,
            vars(run.params),
            preprocessing,
            calibrate(final_scores(scorer, results), alpha, precision=run.params.precision),
            scale,
            digests,
            corpus.skipped,
        )

    def refit_labels(self, images: Any, y: Sequence[int] | None = None, **options: Any) -> Self:
        """Refit the second stage to labelled images, and return self; see :meth:`refit_labels_steps`."""
        exhaust(self.refit_labels_steps(images, y, **options))
        return self

    def refit_labels_steps(
        self,
        images: Any,
        y: Sequence[int] | None = None,
        *,
        masks: Sequence[Mask] | None = None,
        types: Sequence[str | None] | None = None,
        device: str = "auto",
        batch_size: int = 16,
        workers: int | None = None,
        skip_bad: bool = False,
        max_pixels: int | None = None,
    ) -> Generator[Record, None, None]:
        """Refit the second stage to labelled images, step by step; the first stage and the memory stay as they are.

        Parameters
        ----------
        images, masks, types, device, batch_size, workers, skip_bad, max_pixels
            As for :meth:`fit_steps`.
        y : sequence of int, optional
            By default what the source says, else all anomalous. Defects alone are enough.

        Notes
        -----
        The calibration scores are recomputed with the new score; labelled images never enter the calibration. Earlier
        labels are replaced: pass all of them.
        """
        state = self._state()
        run = make_run(state.resolved, device=device, fit_precision="auto", batch_size=batch_size, workers=workers)
        given: dict[str, Any] = {"masks": masks, "types": types, "max_pixels": max_pixels}
        given["preprocessing"] = state.preprocessing
        corpus = yield from read_corpus(images, y, default_label=ANOMALOUS, skip_bad=skip_bad, **given)
        if not isinstance(state.scorer, TwoStageScorer):
            raise InputError(f"{self.name} has no second stage that labels could refit; use anomem, or fit again")
        if not len(corpus.positions(ANOMALOUS)):
            raise InputError("none of the labelled images is anomalous; label at least one defect")
        chosen = np.sort(np.concatenate([corpus.positions(NORMAL), corpus.positions(ANOMALOUS)]))
        labelled, hashes = gather_labelled(corpus, chosen, state.preprocessing, state.digests, run)
        scorer = copy_scorer(state.scorer, run.device)
        history = list(state.history)
        yield from recorded(isolated_rng(self._refit(scorer, labelled, run), self.seed), history)
        self._fitted = state.replaced(
            scorer=scorer,
            calibration=calibrate(conclude(scorer), state.calibration.alpha, precision=state.calibration.precision),
            digests={**state.digests, "labelled": hashes},
            history=tuple(history),
        )

    def _prepared(self, images: Any, *, workers: int | None, skip_bad: bool, max_pixels: int | None) -> ImageSet:
        source = open_source(images, max_pixels=max_pixels)
        return ImageSet(source, self._state().preprocessing, workers=workers, skip_bad=skip_bad)

    def _results(self, images: PreparedImages, *, maps: bool, batch_size: int, device: str) -> Iterator[ImageResult]:
        state = self._state()
        scorer, precision = moved(state.scorer, device), state.calibration.precision
        yield from score_images(scorer, images, precision=precision, batch_size=batch_size, maps=maps)

    def _with_alpha(self, alpha: float) -> None:
        state = self._state()
        self._fitted = state.replaced(calibration=state.calibration.with_alpha(alpha))

    def _calibrated(
        self, images: PreparedImages, alpha: float | None, *, batch_size: int, device: str
    ) -> Generator[Record, None, None]:
        state, workers = self._state(), images.workers
        run = make_run(state.resolved, device=device, fit_precision="auto", batch_size=batch_size, workers=workers)
        self._fitted = yield from recalibrated(state, images, alpha, run)

    def _state(self) -> Fitted:
        if self._fitted is None:
            raise NotFittedError(f"this {type(self).__name__} is not fitted; call fit first, or load a model")
        return self._fitted

    @property
    def scorer_(self) -> Scorer:
        """The fitted module; its ``state_dict`` is the whole fitted state."""
        return self._state().scorer

    @property
    def calibration_(self) -> Calibration:
        """Calibration scores, alpha, threshold and p-values."""
        return self._state().calibration

    @property
    def bits_(self) -> int:
        """Bits that 16-bit samples use, as they were given or observed."""
        return self._state().preprocessing.bits

    @property
    def history_(self) -> list[Record]:
        """What the fit reported, in order."""
        return list(self._state().history)

    @property
    def map_scale_(self) -> tuple[float, float]:
        """Low and high of the one colour scale on which this model's maps are drawn."""
        return self._state().map_scale

    @property
    def counts_(self) -> dict[str, int]:
        """Images by role: n_train, n_tune, n_calibration, n_labelled."""
        return self._state().counts

    @property
    def skipped_(self) -> tuple[str, ...]:
        """One line for each image that the fit could not read."""
        return self._state().skipped

    @property
    def digests_(self) -> frozenset[int]:
        """Content hashes of every image that trained, tuned, calibrated or labelled the model."""
        return frozenset().union(*self._state().digests.values())

    def save(self, path: str | Path) -> None:
        """Write the model as one safetensors file with a JSON manifest; whole or not at all."""
        save_model(path, self.name, self.get_params(), self._state())

    def export(self, path: str | Path, **options: Any) -> Exported:
        """Write the model for another runtime, checked, and return what was found; see :meth:`export_steps`."""
        return exhaust(self.export_steps(path, **options))

    def export_steps(self, path: str | Path, **options: Any) -> Generator[Record, None, Exported]:
        """Export step by step; parameters and errors as of :func:`anomem.export.exporting.export_steps`."""
        return export_steps(self.name, self.paper, self.get_params(), self._state(), path, **options)

    @classmethod
    def from_state(cls, params: dict[str, Any], state: Fitted) -> Self:
        """Return a fitted detector from what a model file held."""
        detector = cls(**params)
        detector._fitted = state
        return detector
