"""Roles of the images of a fit: learn, tune, calibration, labelled."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from anomem.data.corpus import Corpus
from anomem.data.imageset import ImageSet
from anomem.data.labels import LabelRow, label_rows
from anomem.data.splits import FEW, fold_normals, groups_of, split_within
from anomem.errors import AnomemWarning, InputError
from anomem.fitting import Labelled, Run, Shared, gather_labelled
from anomem.framing import read_preprocessing
from anomem.runtime.recalibration import Fresh
from anomem.types import ANOMALOUS, IntArray


@dataclass
class Roles:
    """Images of a fit by role.

    Parameters
    ----------
    learn, tune, calibration : ImageSet
        Normal images.
    labelled : Labelled or None
        Labelled images that the fit uses, defects among them.
    digests : dict
        Content hashes by role: learn, tune, calibration, labelled.
    label_rows : tuple of mapping
        Files of the labelled images, stored in the model.
    groups : list of int
        Group of each calibration image.
    strata : list of str or None
        Stratum of each calibration image.
    folds : ndarray of int or None
        Fold of each calibration image where all three parts are the same images; None: a split.
    kind : str
        Kind of the calibration.
    """

    learn: ImageSet
    tune: ImageSet
    calibration: ImageSet
    labelled: Labelled | None = None
    digests: dict[str, frozenset[int]] = field(default_factory=dict)
    label_rows: tuple[LabelRow, ...] = ()
    groups: list[int] = field(default_factory=list)
    strata: list[str] | None = None
    folds: IntArray | None = None
    kind: str = "split"

    @property
    def n_folds(self) -> int:
        """Number of folds; 0 for a split."""
        return 0 if self.folds is None else int(self.folds.max()) + 1

    def normals(self) -> tuple[ImageSet, ...]:
        """Return the sets of normals, each image once."""
        return (self.learn,) if self.folds is not None else (self.learn, self.tune, self.calibration)


def assign_roles(corpus: Corpus, alpha: float | None, run: Run[Shared], kind: str) -> Roles:
    """Assign roles to the found normals of a corpus, for a calibration of this kind; errors as of the two ways."""
    return split_roles(corpus, alpha, run) if kind == "split" else cross_roles(corpus, alpha, run, kind)


def split_roles(corpus: Corpus, alpha: float | None, run: Run[Shared]) -> Roles:
    """Split the found normals of a corpus into learn, tune and calibration.

    Raises
    ------
    InputError
        If there are fewer normals than a fit needs.
    CalibrationError
        If alpha is too small for the number of calibration normals.
    """
    normals = corpus.found_normals()
    hashes, groups = [corpus.digests[i] for i in normals], [corpus.groups[i] for i in normals]
    grouped = any(group is not None for group in groups)
    units = groups_of(hashes, groups)
    strata = _strata_of(corpus, units)
    split = split_within(hashes, groups if grouped else None, strata, seed=run.params.seed)
    held_out = np.sort(np.concatenate([split.calibrate, split.beside]))
    # A copy of an image is not a second observation: each content calibrates once.
    once = np.unique([hashes[i] for i in held_out], return_index=True)[1]
    parts = {"learn": split.learn, "tune": split.tune, "calibration": held_out[np.sort(once)]}
    counted = [units[i] for i in parts["calibration"]]
    named = None if strata is None else [strata[i] for i in parts["calibration"]]
    Fresh(alpha, counted if grouped else None, named).check(len(counted))
    preprocessing = read_preprocessing(run.params, corpus.source.subset(normals[split.learn]))
    sets = {
        role: ImageSet(corpus.source, preprocessing, normals[part], workers=run.workers) for role, part in parts.items()
    }
    digests = {role: frozenset(corpus.digests[i] for i in images.indices) for role, images in sets.items()}
    digests["labelled"] = frozenset()
    return Roles(sets["learn"], sets["tune"], sets["calibration"], digests=digests, groups=counted, strata=named)


def cross_roles(corpus: Corpus, alpha: float | None, run: Run[Shared], kind: str) -> Roles:
    """Assign every found normal to all three parts, each content once, and to a fold.

    Raises
    ------
    InputError
        If there are fewer normals than a fit needs.
    CalibrationError
        If alpha is too small for the number of normals.
    """
    normals = corpus.found_normals()
    hashes, groups = [corpus.digests[i] for i in normals], [corpus.groups[i] for i in normals]
    if len(normals) < 3:
        raise InputError(f"{len(normals)} normal images: at least 3 are needed, {FEW} or more are advisable")
    units = groups_of(hashes, groups)
    strata = _strata_of(corpus, units)
    once = np.sort(np.unique(hashes, return_index=True)[1])
    counted = [units[i] for i in once]
    grouped = any(group is not None for group in groups)
    folds = fold_normals([hashes[i] for i in once], counted, seed=run.params.seed)
    named = None if strata is None else [strata[i] for i in once]
    Fresh(alpha, counted if grouped else None, named).check(len(counted))
    preprocessing = read_preprocessing(run.params, corpus.source.subset(normals[once]))
    images = ImageSet(corpus.source, preprocessing, normals[once], workers=run.workers)
    own = frozenset(hashes)
    digests = {"learn": own, "tune": own, "calibration": own, "labelled": frozenset[int]()}
    return Roles(images, images, images, digests=digests, groups=counted, strata=named, folds=folds, kind=kind)


def _strata_of(corpus: Corpus, units: Sequence[int]) -> list[str] | None:
    """Return the stratum of each found normal; InputError if images of one group or content have two."""
    if not corpus.strata:
        return None
    strata = [str(corpus.strata[i]) for i in corpus.found_normals()]
    if len(set(zip(units, strata, strict=True))) > len(set(units)):
        raise InputError("strata: equal images, or images of one group, are in two strata; give each one stratum")
    return strata


def add_labelled(
    roles: Roles, corpus: Corpus, run: Run[Shared], *, method: str, supervision: str, second_stage: bool
) -> None:
    """Assign roles to labelled images.

    Defects are labelled images of the fit. Selected normals join them where the method has a second stage,
    else the training images: selected images are not exchangeable with new ones, so they never calibrate.

    Raises
    ------
    InputError
        If required defects are missing, or a labelled image has another role.
    """
    anomalies = corpus.positions(ANOMALOUS)
    if supervision == "none":
        n_labelled = len(anomalies) + len(corpus.picked)
        if n_labelled:
            line = f"{method}: learns from normal images only; {n_labelled} labelled images are left out"
            warnings.warn(line, AnomemWarning, stacklevel=2)
        return
    if supervision == "required" and not len(anomalies):
        raise InputError(f"{method}: no labelled anomalies, which it learns from; label some (y = 1)")
    if not len(anomalies):
        return
    chosen, preprocessing = anomalies, roles.learn.preprocessing
    picked = corpus.picked_normals(seen=frozenset().union(*roles.digests.values()))
    if second_stage:
        chosen = np.sort(np.concatenate([anomalies, picked]))
    elif len(picked):
        learn = np.concatenate([roles.learn.indices, picked])
        roles.learn = ImageSet(corpus.source, preprocessing, learn, workers=run.workers)
        roles.digests["learn"] |= {corpus.digests[i] for i in picked}
    roles.label_rows = label_rows(corpus, chosen)
    roles.labelled, roles.digests["labelled"] = gather_labelled(corpus, chosen, preprocessing, roles.digests, run)
