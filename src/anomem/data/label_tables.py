"""Labels that somebody gives beside a data set: read and merged."""

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
    """Merge labelled images with those of a data set.

    Parameters
    ----------
    samples : sequence of Sample
        The data set's own images.
    labels : path or sequence of Sample
        A table of labels, or labelled images; a label for one of `samples` replaces its own.

    Returns
    -------
    samples : list of Sample
        The data set's images, then further anomalies, then further normals.
    picked : frozenset of int
        Positions of the further normals: somebody picked them, so that they must not calibrate.
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
