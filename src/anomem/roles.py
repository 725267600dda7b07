"""Roles of the images of a fit: learn, tune, calibration, labelled."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field

import numpy as np

from anomem.data.corpus import Corpus
from anomem.data.imageset import ImageSet
from anomem.data.labels import LabelRow, label_rows
from anomem.data.splits import groups_of, split_normals
from anomem.errors import AnomemWarning, InputError
from anomem.fitting import Labelled, Run, Shared, gather_labelled
from anomem.framing import read_preprocessing
from anomem.runtime.calibration import check_alpha
from anomem.types import ANOMALOUS


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
    Files of the labelled images, stored in the model.
        Files of the labelled images, remembered by the model.
    groups : list of int
        Group of each calibration image.
    """

    learn: ImageSet
    tune: ImageSet
    calibration: ImageSet
    labelled: Labelled | None = None
    digests: dict[str, frozenset[int]] = field(default_factory=dict)
    label_rows: tuple[LabelRow, ...] = ()
    groups: list[int] = field(default_factory=list)


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
    split = split_normals(hashes, groups if grouped else None, seed=run.params.seed)
    held_out = np.sort(np.concatenate([split.calibrate, split.beside]))
    # A copy of an image is not a second observation: each content calibrates once.
    once = np.unique([hashes[i] for i in held_out], return_index=True)[1]
    parts = {"learn": split.learn, "tune": split.tune, "calibration": held_out[np.sort(once)]}
    units = groups_of(hashes, groups)
    counted = [units[i] for i in parts["calibration"]]
    check_alpha(alpha, len(set(counted)), grouped=grouped)
    preprocessing = read_preprocessing(run.params, corpus.source.subset(normals[split.learn]))
    sets = {
        role: ImageSet(corpus.source, preprocessing, normals[part], workers=run.workers) for role, part in parts.items()
    }
    digests = {role: frozenset(corpus.digests[i] for i in images.indices) for role, images in sets.items()}
    digests["labelled"] = frozenset()
    return Roles(sets["learn"], sets["tune"], sets["calibration"], digests=digests, groups=counted)


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
