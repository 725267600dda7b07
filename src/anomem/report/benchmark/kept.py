"""Scores that a bench has kept, and how much two methods' AUROC on the same images may differ by luck."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

from anomem.errors import InputError
from anomem.metrics.delong import Components, auroc_components, paired_error
from anomem.report.benchmark.runs import Run
from anomem.types import ANOMALOUS

__all__ = ["KeptScores", "auroc_components", "paired_error"]


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
        from anomem.benchmark.execute import load_scores
        from anomem.benchmark.unit import scores_digest

        try:
            stored = load_scores(path)
            scores, labels = stored["scores"], stored["labels"]
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise InputError(f"{path}: no scores that anomem bench has kept: remove the file") from error
        if scores_digest(scores) != run.line.get("scores_sha256") or len(labels) != len(scores):
            raise InputError(f"{path}: not the scores of {run.where}: remove the file, or name the folder of that run")
        return auroc_components(scores, labels == ANOMALOUS)
