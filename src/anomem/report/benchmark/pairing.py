"""Which units of work two rows share: the same test images, seed and draw."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from anomem.report.benchmark.comparison import Pair
from anomem.report.benchmark.kept import KeptScores
from anomem.report.benchmark.runs import Column, Run

__all__ = ["pairs_of"]


def pairs_of(
    a: Mapping[Column, Sequence[Run]],
    b: Mapping[Column, Sequence[Run]],
    members: Sequence[Column],
    metric: str,
    kept: KeptScores,
) -> list[Pair]:
    """Pair two rows' lines.

    Parameters
    ----------
    a, b : mapping of Column to runs
    members : sequence of Column
        Only these.
    metric : str
    kept : KeptScores
        Where both lines' scores are kept, the standard error over test images is that of a paired difference; else
        it comes from both lines' own intervals as if their luck had nothing in common, which is wider.
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


def _error(a: Run, b: Run, metric: str, kept: KeptScores) -> float | None:
    if metric == "image_auroc":
        paired = kept.error(a, b)
        if paired is not None:
            return paired
    errors = [run.error(metric) for run in (a, b)]
    if errors[0] is None or errors[1] is None:
        return None
    return math.hypot(errors[0], errors[1])
