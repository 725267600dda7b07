"""Scores that a bench has kept, and how much two methods' AUROC on the same images may differ by luck."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from anomem.errors import InputError
from anomem.report.runs import Run
from anomem.types import ANOMALOUS

__all__ = ["KeptScores", "auroc_components", "paired_error"]

Components = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]


class KeptScores:
    """The files that ``anomem bench --scores DIR`` has written, one for each line.

    Parameters
    ----------
    folders : sequence of Path
        Where ``KEY.npz`` may lie.

    Raises
    ------
    InputError
        There is no such folder.
    """

    def __init__(self, folders: Sequence[Path] = ()) -> None:
        for folder in folders:
            if not folder.is_dir():
                raise InputError(f"{folder}: no such folder: name the one that anomem bench --scores has filled")
        self._folders = tuple(folders)
        self._components: dict[str, Components | None] = {}

    def error(self, a: Run, b: Run) -> float | None:
        """Standard error of the difference of two lines' image AUROC on the same images; None where scores are missing.

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
        key = str(run.line["key"])
        if key not in self._components:
            self._components[key] = self._read(run, key)
        return self._components[key]

    def _read(self, run: Run, key: str) -> Components | None:
        # The key comes from a file: no part of a path.
        paths = [folder / f"{key}.npz" for folder in self._folders] if key.isalnum() else []
        path = next((path for path in paths if path.is_file()), None)
        if path is None:
            return None
        # Imported here, as they bring torch along, which nothing else of a report needs.
        from anomem.protocols.judging import scores_digest
        from anomem.protocols.performing import load_scores

        try:
            stored = load_scores(path)
            scores, labels = stored["scores"], stored["labels"]
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise InputError(f"{path}: no scores that anomem bench has kept: remove the file") from error
        if scores_digest(scores) != run.line.get("scores_sha256") or len(labels) != len(scores):
            raise InputError(f"{path}: not the scores of {run.where}: remove the file, or name the folder of that run")
        return auroc_components(scores, labels == ANOMALOUS)


def auroc_components(scores: npt.ArrayLike, anomalous: npt.ArrayLike) -> Components:
    """Structural components of an AUROC: of each anomalous image the share of normals below it, and the reverse.

    Parameters
    ----------
    scores : array_like of shape (N,)
    anomalous : array_like of shape (N,), bool

    Returns
    -------
    of_anomalous, of_normal : ndarray, float32
        In the order of the images; the mean of either is the AUROC.

    References
    ----------
    DeLong, DeLong and Clarke-Pearson, "Comparing the Areas under Two or More Correlated Receiver Operating
    Characteristic Curves", Biometrics, 1988.

    Examples
    --------
    >>> high, low = auroc_components([1, 2, 3, 4], [False, True, False, True])
    >>> high.tolist(), low.tolist()
    ([0.5, 1.0], [1.0, 0.5])
    """
    values, marks = np.asarray(scores, dtype=np.float64), np.asarray(anomalous, dtype=bool)
    high, low = values[marks], values[~marks]
    return _share_below(high, low).astype(np.float32), (1 - _share_below(low, high)).astype(np.float32)


def paired_error(a: Components, b: Components) -> float | None:
    """Standard error of the difference of two AUROCs on the same images, by DeLong's method.

    None where a class has a single image.
    """
    if min(len(part) for part in a) < 2:
        return None
    variances = [np.var(x.astype(np.float64) - y, ddof=1) / len(x) for x, y in zip(a, b, strict=True)]
    return math.sqrt(float(sum(variances)))


def _share_below(values: npt.NDArray[np.float64], others: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Share of the others below each value, ties half."""
    ranked = np.sort(others)
    below, up_to = np.searchsorted(ranked, values, "left"), np.searchsorted(ranked, values, "right")
    return (below + up_to) / (2 * max(1, len(ranked)))
