"""Normals that a person leaves out of a fit."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from anomem.data.corpus import Corpus
from anomem.data.samples import Sample
from anomem.data.sources import PathSource
from anomem.errors import InputError
from anomem.types import UNKNOWN

__all__ = ["Exclude", "excluded_paths", "without_excluded"]

Exclude = str | Path | Sequence[str | Path | Sample] | None
"""Table with the column path, or paths, of images to leave out."""


def excluded_paths(exclude: Exclude) -> list[Path]:
    """Return the paths to leave out; those of a table are relative to its folder.

    Raises
    ------
    InputError
        The table is missing or has no column path.
    """
    if exclude is None:
        return []
    if not isinstance(exclude, (str, Path)):
        return [Path(entry.path if isinstance(entry, Sample) else entry) for entry in exclude]
    table = Path(exclude)
    try:
        with table.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, csv.Error) as error:
        raise InputError(f"{table}: cannot be read; give a CSV file with the column path") from error
    if any(not row.get("path") for row in rows):
        raise InputError(f"{table}: a row without path; give a CSV file with the column path")
    return [table.parent / row["path"] for row in rows]


def without_excluded(corpus: Corpus, exclude: Exclude) -> tuple[Corpus, int]:
    """Return a corpus in which excluded normals and their copies count for nothing, and their number.

    Raises
    ------
    InputError
        An excluded file is missing, or is none of the normals.
    """
    paths = excluded_paths(exclude)
    if not paths:
        return corpus, 0
    normals = corpus.found_normals()
    known = {corpus.digests[i] for i in normals}
    source = PathSource(paths)
    left_out = [source.digest(i) for i in range(len(paths))]
    for path, digest in zip(paths, left_out, strict=True):
        if digest not in known:
            raise InputError(f"{path}: excluded, but none of the normal images; remove it from the list")
    labels, gone = corpus.labels.copy(), [i for i in normals if corpus.digests[i] in set(left_out)]
    labels[np.asarray(gone, dtype=np.intp)] = UNKNOWN
    return replace(corpus, labels=labels), len(gone)
