"""Labels given in addition to a data set: reading and merging."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

from anomem.data.samples import Sample
from anomem.data.sources import read_labels
from anomem.errors import InputError
from anomem.types import ANOMALOUS, NORMAL, LabelsLike

__all__ = ["merge_labels"]


def merge_labels(samples: Sequence[Sample], labels: LabelsLike) -> tuple[list[Sample], frozenset[int]]:
    """Merge labelled images with the images of a data set.

    Parameters
    ----------
    samples : sequence of Sample
        Images of the data set.
    labels : path or sequence of Sample
        Table of labels, or labelled images; a label for one of `samples` replaces its label.

    Returns
    -------
    samples : list of Sample
        Images of the data set, then further anomalies, then further normals.
    picked : frozenset of int
        Positions of the further normals, which must not be used for calibration.
    """
    labelled = read_labels(labels) if isinstance(labels, (str, Path)) else labels
    if not isinstance(labelled, Sequence) or not all(isinstance(sample, Sample) for sample in labelled):
        raise InputError(
            "labels: neither a table nor samples; give a CSV file with path and label, or a list of Sample"
        )
    given = {os.path.realpath(sample.path): sample for sample in labelled}
    merged = []
    for sample in samples:
        own = given.pop(os.path.realpath(sample.path), None)
        merged.append(sample if own is None else dataclasses.replace(own, group=sample.group))
    merged += [sample for sample in given.values() if sample.label == ANOMALOUS]
    normals = [sample for sample in given.values() if sample.label == NORMAL]
    return [*merged, *normals], frozenset(range(len(merged), len(merged) + len(normals)))
