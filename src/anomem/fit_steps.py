"""Steps of a fit from the corpus on, for any method: roles, first stage, calibration, second stage."""

from __future__ import annotations

import hashlib
from collections.abc import Generator
from dataclasses import replace
from typing import Any, Protocol

import torch

from anomem.cross_fitting import ClosedForm, MapsTooLargeError, chosen_kind, cross_fit
from anomem.data.corpus import Corpus
from anomem.data.imageset import ImageSet
from anomem.data.store import stored_normals
from anomem.errors import InputError
from anomem.fitting import (
    Fitted,
    Labelled,
    Run,
    calibration_pass,
    final_scores,
    only_groups,
    remember_calibration,
    suspects_among,
)
from anomem.framing import frame_of
from anomem.nn.inference import ImageResult
from anomem.nn.scorer import Scorer, TwoStageScorer
from anomem.roles import Roles, add_labelled, assign_roles
from anomem.runtime.calibration import calibrate
from anomem.training import isolated_rng
from anomem.types import Record
from anomem.version import __version__

__all__ = ["Method", "check_calibration", "fit_facts", "fitted_state"]

_FirstStage = tuple[Scorer, list[ImageResult], tuple[float, float]]


class Method(Protocol):
    """Parts of a detector that a fit calls."""

    @property
    def name(self) -> str:
        """Name of the method."""

    @property
    def supervision(self) -> str:
        """Use of labels: "none", "optional", "required"."""

    @property
    def seed(self) -> int:
        """Random seed."""

    def _fit(
        self, learn: ImageSet, tune: ImageSet, labelled: Labelled | None, run: Run[Any]
    ) -> Generator[Record, None, Scorer]: ...

    def _refit(self, scorer: TwoStageScorer, labelled: Labelled, run: Run[Any]) -> Generator[Record, None, None]: ...


def check_calibration(calibration: str, method: Method, run: Run[Any]) -> None:
    """Refuse a calibration that a method cannot have, before any image is read; errors as of `chosen_kind`."""
    chosen_kind(calibration, method, method.name, run.params, 0)


def fit_facts(method: Method, corpus: Corpus, alpha: float | None, run: Run[Any], calibration: str) -> dict[str, Any]:
    """Return the facts of a fit that one resumed from its checkpoint must share."""
    data = zip(corpus.labels.tolist(), corpus.types, map(str, corpus.masks), map(str, corpus.groups), strict=True)
    rows = repr([*data, corpus.strata, sorted(corpus.picked)])
    call = {"alpha": alpha, "calibration": calibration, "fit_precision": run.fit_precision}
    return {
        "version": __version__,
        "torch": torch.__version__,
        "device": run.device.type,
        "method": method.name,
        **run.params.to_dict(),
        **call,
        "batch_size": run.batch_size,
        "number of images": len(corpus.digests),
        # An image that differs is named: positions are those of one order.
        **{corpus.source.name(i): f"{digest:016x}" for i, digest in enumerate(corpus.digests)},
        "labels, types, masks, groups or strata": hashlib.sha256(rows.encode("utf-8", "surrogateescape")).hexdigest(),
    }


def fitted_state(
    method: Method, corpus: Corpus, alpha: float | None, run: Run[Any], calibration: str, *, second_stage: bool
) -> Generator[Record, None, Fitted]:
    """Fit a method to a corpus, on random numbers of its own.

    Parameters
    ----------
    method : Method
        The detector.
    corpus : Corpus
        Images with labels.
    alpha : float or None
        Promised false-alarm rate.
    run : Run
        Circumstances of the fit.
    calibration : str
        Calibration asked for; "auto" is a split where features of all images are too large to be kept.
    second_stage : bool
        True where the method refits a second stage to labels.
    """

    def steps(kind: str) -> Generator[Record, None, Fitted]:
        return isolated_rng(_steps(method, corpus, alpha, run, kind, second_stage), method.seed)

    kind = chosen_kind(calibration, method, method.name, run.params, len(corpus.found_normals()))
    if kind == "cross-exact" and corpus.strata:
        raise InputError("strata: cross-exact counts the normals of all strata together; take calibration='cross'")
    try:
        state = yield from steps(kind)
    except MapsTooLargeError:
        if calibration != "auto":
            raise
        state = yield from steps("split")
    return state.replaced(wanted=calibration)


def _steps(
    method: Method, corpus: Corpus, alpha: float | None, run: Run[Any], kind: str, second_stage: bool
) -> Generator[Record, None, Fitted]:
    roles = assign_roles(corpus, alpha, run, kind)
    add_labelled(roles, corpus, run, method=method.name, supervision=method.supervision, second_stage=second_stage)
    scorer, results, scale = yield from _first_stage(method, roles, run)
    suspects = suspects_among(scorer, results, roles.calibration, roles.tune)
    if roles.labelled is not None and isinstance(scorer, TwoStageScorer):
        # Same draws as a later refit, so that labels given now or later lead to the same scores.
        fresh = replace(run, rng=torch.Generator().manual_seed(run.params.seed))
        yield from method._refit(scorer, roles.labelled, fresh)
    scores = final_scores(scorer, results)
    return Fitted(
        scorer,
        run.params.to_dict(),
        roles.learn.preprocessing,
        calibrate(
            scores,
            alpha,
            run.params.precision,
            roles.groups,
            kind=roles.kind,
            folds=roles.n_folds,
            strata=roles.strata,
            strata_by=corpus.strata_by,
        ),
        scale,
        roles.digests,
        corpus.skipped,
        labels=roles.label_rows,
        calibration_groups=only_groups(roles.groups),
        calibration_strata=None if roles.strata is None else tuple(roles.strata),
        normals=stored_normals(corpus),
        suspects=suspects,
        frame=frame_of(roles.normals(), scorer.grid_hw),
    )


def _first_stage(method: Method, roles: Roles, run: Run[Any]) -> Generator[Record, None, _FirstStage]:
    """Fit the first stage, and score the calibration normals."""
    if roles.folds is not None and isinstance(method, ClosedForm):
        exact = roles.groups if roles.kind == "cross-exact" else None
        if exact is not None and roles.labelled is not None:
            raise InputError("calibration='cross-exact': takes no labels; take calibration='cross'")
        fit = yield from cross_fit(method, roles.learn, roles.folds, run, exact=exact)
        return fit.scorer, fit.results, fit.map_scale
    scorer = yield from method._fit(roles.learn, roles.tune, roles.labelled, run)
    scorer.eval().requires_grad_(False).to(run.device)
    results, scale = yield from calibration_pass(scorer, roles.calibration, run)
    remember_calibration(scorer, results)
    return scorer, results, scale
