"""Pairing of two methods' run lines by unit, and stored scores, which narrow the intervals."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from anomem.errors import InputError
from anomem.metrics.delong import Components, auroc_components, paired_error
from anomem.metrics.paired import Pair
from anomem.report.benchmark.runs import Column, Run
from anomem.types import ANOMALOUS

__all__ = ["StoredScores", "pairs_of"]


def pairs_of(
    a: Mapping[Column, Sequence[Run]],
    b: Mapping[Column, Sequence[Run]],
    members: Sequence[Column],
    metric: str,
    kept: StoredScores,
) -> list[Pair]:
    """Pair the lines of two rows by unit.

    Parameters
    ----------
    a, b : mapping of Column to runs
    members : sequence of Column
        Columns to pair.
    metric : str
    kept : StoredScores
        With stored scores of both lines, the standard error over test images is that of a paired difference; else it
        comes from both lines' intervals as if they were independent, and is wider.
    """
    found = []
    for column in members:
        others = {(run.repeat, run.images): run for run in b.get(column, ())}
        for run in a.get(column, ()):
            other = others.get((run.repeat, run.images)) if run.images is not None else None
            if other is not None and metric in run.values and metric in other.values:
                error = _error(run, other, metric, kept)
                found.append(Pair(column, run.repeat, run.values[metric], other.values[metric], error))
    return found


def _error(a: Run, b: Run, metric: str, kept: StoredScores) -> float | None:
    if metric == "image_auroc":
        paired = kept.error(a, b)
        if paired is not None:
            return paired
    errors = [run.error(metric) for run in (a, b)]
    if errors[0] is None or errors[1] is None:
        return None
    return math.hypot(errors[0], errors[1])


class StoredScores:
    """Score files written by ``anomem bench --scores DIR``, one per line.

    Parameters
    ----------
    folders : sequence of Path
        Folders to search for ``KEY.npz``.

    Raises
    ------
    InputError
        A folder is missing.
    """

    def __init__(self, folders: Sequence[Path] = ()) -> None:
        for folder in folders:
            if not folder.is_dir():
                raise InputError(f"{folder}: no such folder; name the one written by anomem bench --scores")
        self._folders = tuple(folders)
        self._components: dict[str, Components | None] = {}

    def error(self, a: Run, b: Run) -> float | None:
        """Return the standard error of the difference of two lines' image AUROC; None where scores are missing.

        Both lines are of the same images.

        Raises
        ------
        InputError
            A file does not hold the scores of its line.
        """
        parts = [self._of(run) for run in (a, b)]
        if parts[0] is None or parts[1] is None or a.images != b.images:
            return None
        return paired_error(parts[0], parts[1])

    def _of(self, run: Run) -> Components | None:
        if run.key not in self._components:
            self._components[run.key] = self._read(run, run.key)
        return self._components[run.key]

    def _read(self, run: Run, key: str) -> Components | None:
        # The key comes from a file and must not contain a path.
        paths = [folder / f"{key}.npz" for folder in self._folders] if key.isalnum() else []
        path = next((path for path in paths if path.is_file()), None)
        if path is None:
            return None
        # Imported here: they import torch, which no other part of a report needs.
        from anomem.benchmark.execute import load_scores
        from anomem.benchmark.unit import scores_digest

        try:
            stored = load_scores(path)
            scores, labels = stored["scores"], stored["labels"]
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise InputError(f"{path}: no scores of anomem bench; remove the file") from error
        if scores_digest(scores) != run.scores or len(labels) != len(scores):
            raise InputError(f"{path}: not the scores of {run.where}; remove the file, or name the folder of that run")
        return auroc_components(scores, labels == ANOMALOUS)
