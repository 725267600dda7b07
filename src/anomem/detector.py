"""Contract that every detector keeps, independent of any method."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Generator, Hashable, Iterator, Sequence
from dataclasses import field
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np

from anomem.checkpoints import active, checkpointing
from anomem.data.corpus import Mask, read_corpus
from anomem.data.exclusion import Exclude, without_excluded
from anomem.data.imageset import ImageSet
from anomem.data.labels import extended, label_rows
from anomem.data.ranks import joined
from anomem.data.sources import normal_samples, open_source, strata_of
from anomem.data.store import call_facts, write_store
from anomem.errors import InputError
from anomem.export.exporting import Exported, export_steps
from anomem.extending import earlier_normals, extended_call
from anomem.fit_steps import check_calibration, fit_facts, fitted_state
from anomem.fitted_model import FittedModel
from anomem.fitting import (
    Fitted,
    Labelled,
    Run,
    gather_labelled,
    make_run,
    recalibrated,
    reconcluded,
)
from anomem.framing import FrameParameters, read_preprocessing
from anomem.modelfile import save_model
from anomem.nn.devices import copy_scorer, moved
from anomem.nn.fold_scorer import FoldScorer
from anomem.nn.inference import score_images
from anomem.nn.scorer import Scorer, TwoStageScorer
from anomem.params import OneOf, Range, param, parameters
from anomem.runtime.groups import Groups
from anomem.runtime.progress import Progress, run_to_end
from anomem.runtime.recalibration import Fresh
from anomem.runtime.scoring import ImageResult, PreparedImages
from anomem.training import isolated_rng, recorded
from anomem.types import ANOMALOUS, NORMAL, ImagesLike, LabelsLike, Record

Supervision = Literal["none", "optional", "required"]


@parameters
class Detector(FrameParameters, FittedModel):
    """Base of all detectors: fit on normals, score, localise, keep a promised false-alarm rate."""

    name: ClassVar[str]
    supervision: ClassVar[Supervision]
    localizes: ClassVar[bool]
    paper: ClassVar[str]
    test_params: ClassVar[dict[str, Any]] = {}
    """Hyperparameters so small that a contract test takes a second."""
    contract_skips: ClassVar[dict[str, str]] = {}
    """Contract tests that do not apply to this method, each with the reason."""
    _fitted: Fitted | None = field(default=None, init=False)

    precision: str = param(
        "float32", OneOf(("float32", "bfloat16")), doc="Arithmetic used for scoring and calibration."
    )
    seed: int = param(0, Range(0, 2**31 - 1, integer=True), doc="Random seed for splitting and fitting.")

    @abstractmethod
    def _fit(
        self, learn: ImageSet, tune: ImageSet, labelled: Labelled | None, run: Run[Self]
    ) -> Generator[Record, None, Scorer]:
        """Learn from normals (and from labelled images where the first stage takes them); return the scorer."""

    def _refit(self, scorer: TwoStageScorer, labelled: Labelled, run: Run[Self]) -> Generator[Record, None, None]:
        """Fit the second stage of `scorer` in place."""
        raise InputError(f"{self.name}: no second stage to refit; fit again with the labels")

    @classmethod
    @abstractmethod
    def _build(cls, config: dict[str, Any]) -> Scorer:
        """Build an empty scorer from its config."""

    def fit(
        self,
        images: ImagesLike,
        y: Sequence[int] | None = None,
        *,
        labels: LabelsLike = None,
        masks: Sequence[Mask] | None = None,
        groups: Groups = None,
        strata: Groups = None,
        types: Sequence[str | None] | None = None,
        alpha: float | None = None,
        calibration: str = "auto",
        exclude: Exclude = None,
        extend: str | Path | None = None,
        device: str = "auto",
        fit_precision: str = "auto",
        features_mb: int = 1024,
        batch_size: int = 16,
        workers: int | None = None,
        skip_bad: bool = False,
        max_pixels: int | None = None,
        checkpoint: str | Path | None = None,
        checkpoint_minutes: float = 10.0,
        resume: bool = False,
        progress: Progress | None = None,
    ) -> Self:
        """Fit on normal images, and return self; interrupted, the detector stays unfitted.

        Parameters
        ----------
        images : folder, list of paths, uint8 arrays (N, H, W[, C]), tensors, Pillow images, bytes, list of Sample
            Normal images (arrays: RGB); labelled anomalies may be among them. A folder contributes its training part.
        y : sequence of int, optional
            0 normal, 1 anomalous, -1 unknown (left out); by default the source's own labels, else all normal.
        labels : table of labels or list of Sample, optional
            Labelled images beside `images`, which are files then. Defects are used as those of
            `images`; normals train the second stage (without one: the fit) and never calibrate. A label for one of
            `images` replaces its own.
        masks : sequence, optional
            Masks: an (H, W) array, a path to one, or None per image. Never required.
        groups : sequence, "near", "folder" or regular expression, optional
            Images of one group (part, lot, burst) are never separated by the split, and p-values count groups. By
            default as the samples say; "near": near-duplicates, found by thumbnails; "folder": images of one folder;
            otherwise the expression's match in a path (its first parenthesis, if any).
        strata : sequence, column of a table, "folder" or regular expression, optional
            Camera, product or shift of each image: each gets a calibration of its own, and images of each are held out
            for it. By default as the samples say; see `anomem.runtime.groups.resolve_strata`.
        types : sequence of str, optional
            Defect type of each labelled image.
        alpha : float, optional
            Promised false-alarm rate; by default 0.01, or 1 / (n + 1) where n calibration normals are too few for it.
        calibration : {"auto", "split", "cross", "cross-exact"}
            split: some normals are kept for calibration. cross: each calibrates by a model without its fold, and the
            final model learns from all. cross-exact: new images are scored by the models of all folds. See
            :class:`~anomem.runtime.calibration.Calibration`. auto: cross below 1,000 normals for methods that train
            nothing by gradient, else split; with `extend`, as that fit.
        exclude : path, or list of paths or Samples, optional
            Normals to leave out, such as a table of suspects; the rate then holds for normals unlike those.
        extend : path, optional
            A model file with its store beside it: its normals, unchanged, and then `images` are fitted to, all anew,
            with the model's alpha, rule of groups, fit_precision and max_pixels unless they are given.
        device : str
            "auto", or a torch device.
        fit_precision : {"auto", "float32", "bfloat16"}
            Arithmetic of the features learnt from; auto takes bfloat16 where the processor multiplies it natively.
        features_mb : int
            Memory for features that cross reads several times, megabytes; beyond it they are in a temporary file.
        batch_size : int
            Images per forward pass.
        workers : int, optional
            Decoding threads.
        skip_bad : bool
            Leave unreadable images out (they are listed) instead of failing.
        max_pixels : int, optional
            Images with more pixels are refused before they are decoded; by default 120 million.
        checkpoint : path, optional
            File for the state of the training, written every `checkpoint_minutes` and on SIGINT and SIGTERM, with a
            folder of extracted features beside it; both stay until they are removed. By default none.
        checkpoint_minutes : float
            Time between two checkpoints.
        resume : bool
            Continue from `checkpoint` where it exists, to the same model; on the processor equal to the bit.
        progress : callable, optional
            Called with each Record of the fit.

        Raises
        ------
        ParameterError, InputError, CalibrationError
            For a hyperparameter outside its range; images or labels that cannot be used; an alpha too small for n.
        """
        call: dict[str, Any] = {"alpha": alpha, "groups": groups, "strata": strata, "calibration": calibration}
        call |= {"fit_precision": fit_precision, "max_pixels": max_pixels}
        if extend is not None:
            call = extended_call(extend, call)
        options: dict[str, Any] = {"labels": labels, "masks": masks, "types": types, "device": device}
        options |= {"batch_size": batch_size, "workers": workers, "skip_bad": skip_bad}
        options |= {"exclude": exclude, "features_mb": features_mb}
        options["earlier"] = () if extend is None else earlier_normals(extend)
        with joined(device), checkpointing(checkpoint, checkpoint_minutes, resume=resume):
            run_to_end(self._fit_steps(images, y, **options, **call), progress)
        self._fitted = self._state().replaced(call=call_facts(call))
        return self

    def _fit_steps(
        self,
        images: ImagesLike,
        y: Sequence[int] | None = None,
        *,
        alpha: float | None = None,
        calibration: str = "auto",
        exclude: Exclude = None,
        device: str = "auto",
        fit_precision: str = "auto",
        features_mb: int = 1024,
        batch_size: int = 16,
        workers: int | None = None,
        **described: Any,
    ) -> Generator[Record, None, None]:
        self._fitted = None
        options: dict[str, Any] = {"batch_size": batch_size, "workers": workers, "features_mb": features_mb}
        run = make_run(self.resolve(), device=device, fit_precision=fit_precision, **options)
        check_calibration(calibration, self, run)
        corpus = yield from read_corpus(images, y, preprocessing=read_preprocessing(run.params), **described)
        corpus, excluded = without_excluded(corpus, exclude)
        checkpoints = active()
        if checkpoints is not None:
            checkpoints.begin(fit_facts(self, corpus, alpha, run, calibration))
        second_stage = type(self)._refit is not Detector._refit
        history: list[Record] = []
        steps = fitted_state(self, corpus, alpha, run, calibration, second_stage=second_stage)
        state = yield from recorded(steps, history)
        self._fitted = state.replaced(history=tuple(history), excluded=excluded, grouping=corpus.grouping)

    def label(
        self,
        images: ImagesLike,
        y: Sequence[int] | None = None,
        *,
        masks: Sequence[Mask] | None = None,
        types: Sequence[str | None] | None = None,
        device: str = "auto",
        batch_size: int = 16,
        workers: int | None = None,
        skip_bad: bool = False,
        max_pixels: int | None = None,
        add: bool = False,
        progress: Progress | None = None,
    ) -> Self:
        """Refit the second stage to labelled images, and return self; the memory is unchanged.

        Parameters
        ----------
        images, masks, types, device, batch_size, workers, skip_bad, max_pixels, progress
            As for :meth:`fit`.
        y : sequence of int, optional
            By default the source's own labels, else all anomalous. Defects alone are enough.
        add : bool
            Keep the earlier labels too: their files are read again from the paths stored in the model. Otherwise they
            are replaced.

        Raises
        ------
        InputError
            Without any defect; for a method without second stage; for an image that is also one of the fit's normals;
            with `add` for earlier files that are gone or have changed, and for labels of arrays.

        Notes
        -----
        The calibration scores are recomputed with the new score; labelled images never enter the calibration.
        """
        options: dict[str, Any] = {"masks": masks, "types": types, "device": device, "add": add}
        options |= {"batch_size": batch_size, "workers": workers, "skip_bad": skip_bad, "max_pixels": max_pixels}
        run_to_end(self._label_steps(images, y, **options), progress)
        return self

    def _label_steps(
        self,
        images: ImagesLike,
        y: Sequence[int] | None = None,
        *,
        device: str = "auto",
        batch_size: int = 16,
        workers: int | None = None,
        add: bool = False,
        **described: Any,
    ) -> Generator[Record, None, None]:
        state = self._state()
        params = self.from_dict(state.resolved).resolve(strict=False)
        run = make_run(params, device=device, fit_precision="auto", batch_size=batch_size, workers=workers)
        described["preprocessing"] = state.preprocessing
        corpus = yield from read_corpus(images, y, default_label=ANOMALOUS, **described)
        if add:
            corpus = yield from extended(corpus, state.labels, state.digests["labelled"])
        if isinstance(state.scorer, FoldScorer):
            raise InputError("calibration='cross-exact': takes no labels; fit again with calibration='cross'")
        if not isinstance(state.scorer, TwoStageScorer):
            raise InputError(f"{self.name}: no second stage to refit; use anomem, or fit again")
        if not len(corpus.positions(ANOMALOUS)):
            raise InputError("labels: no image is anomalous; label at least one defect")
        chosen = np.sort(np.concatenate([corpus.positions(NORMAL), corpus.positions(ANOMALOUS)]))
        labelled, hashes = gather_labelled(corpus, chosen, state.preprocessing, state.digests, run)
        scorer = copy_scorer(state.scorer, run.device)
        history = list(state.history)
        yield from recorded(isolated_rng(self._refit(scorer, labelled, run), self.seed), history)
        self._fitted = state.replaced(
            scorer=scorer,
            calibration=reconcluded(scorer, state),
            digests={**state.digests, "labelled": hashes},
            history=tuple(history),
            labels=label_rows(corpus, chosen),
        )

    def _prepared(self, images: ImagesLike, *, workers: int | None, skip_bad: bool, max_pixels: int | None) -> ImageSet:
        source = open_source(images, max_pixels=max_pixels)
        return ImageSet(source, self._state().preprocessing, workers=workers, skip_bad=skip_bad)

    def _results(self, images: PreparedImages, *, maps: bool, batch_size: int, device: str) -> Iterator[ImageResult]:
        state = self._state()
        scorer, precision = moved(state.scorer, device), state.calibration.precision
        yield from score_images(scorer, images, precision=precision, batch_size=batch_size, whole=maps)

    def _with_alpha(self, alpha: float) -> None:
        state = self._state()
        self._fitted = state.replaced(calibration=state.calibration.with_alpha(alpha))

    def _normals(
        self, normals: ImagesLike, stratum: str | None = None
    ) -> tuple[Any, dict[str, Sequence[Hashable | None] | None]]:
        return normal_samples(normals, stratum)

    def _strata_of(self, images: ImagesLike, column: str) -> Sequence[Hashable | None] | None:
        return strata_of(images, column)

    def _calibrated(
        self, images: PreparedImages, fresh: Fresh, *, batch_size: int, device: str
    ) -> Generator[Record, None, None]:
        state, workers = self._state(), images.workers
        params = self.from_dict(state.resolved).resolve(strict=False)
        run = make_run(params, device=device, fit_precision="auto", batch_size=batch_size, workers=workers)
        self._fitted = yield from recalibrated(state, images, fresh, run)

    def save(self, path: str | Path, *, keep_store: bool = False) -> None:
        """Write the model as one safetensors file; with `keep_store` also the table that `extend` of a fit reads."""
        save_model(path, self.name, self.to_dict(), self._state())
        if keep_store:
            write_store(path, self._state().normals)

    def export(
        self,
        path: str | Path,
        *,
        format: str | None = None,
        precision: str = "fp32",
        normals: ImagesLike = None,
        check: ImagesLike = None,
        eval_data: ImagesLike = None,
        max_drop: float | None = None,
        max_pixels: int | None = None,
        skip_bad: bool = False,
        progress: Progress | None = None,
    ) -> Exported:
        """Write the model for another runtime, checked against this one, and return the findings.

        Parameters
        ----------
        path : path
            Path of the .onnx file, or of the .xml file (OpenVINO; its .bin beside it).
        format : {"onnx", "openvino"}, optional
            Format of the file; by default decided by the suffix.
        precision : {"fp32", "bf16", "int8"}
            Arithmetic of the file; bf16 and int8 in OpenVINO only.
        normals : images, optional
            Normal images that int8 is fitted to, and that bf16 and int8 are calibrated on.
        check : images, optional
            Images whose scores are compared; by default shipped textures.
        eval_data : Dataset or path, optional
            Labelled images on which the cost in AUROC is measured.
        max_drop : float, optional
            Largest accepted cost in AUROC, 0 to 1; by default 0.01.
        max_pixels, skip_bad
            As for `fit`.
        progress : callable, optional
            Called with each Record of the export.

        Raises
        ------
        ExportError
            If the file does not score as the model; nothing is written.
        InputError, ParameterError, MissingExtraError
            As of :func:`anomem.export.exporting.export_steps`.
        """
        wishes = {"format": format, "precision": precision, "normals": normals, "check": check, "eval_data": eval_data}
        wishes |= {"max_drop": max_drop, "max_pixels": max_pixels, "skip_bad": skip_bad}
        return run_to_end(self._export_steps(path, **wishes), progress)

    def _export_steps(self, path: str | Path, **wishes: Any) -> Generator[Record, None, Exported]:
        return export_steps(self.name, self.paper, self.to_dict(), self._state(), path, **wishes)

    @classmethod
    def from_state(cls, params: dict[str, Any], state: Fitted) -> Self:
        """Return a fitted detector from what a model file held."""
        detector = cls(**params)
        detector._fitted = state
        return detector
