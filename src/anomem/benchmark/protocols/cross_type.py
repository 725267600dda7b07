"""Anomalies of an unseen type: some types are labelled, the others judged."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from anomem.benchmark.image_sets import BenchmarkSet
from anomem.benchmark.judging import Findings
from anomem.benchmark.protocols.base import (
    CALIBRATIONS,
    Opener,
    Protocol,
    drawn,
    fitted_with,
    judged,
    label_pool,
    own_normals,
)
from anomem.benchmark.protocols.one_vs_rest import labelled_facts
from anomem.benchmark.unit import Task, Unit
from anomem.benchmark.workspace import Workspace
from anomem.data.labelled_images import Images
from anomem.errors import InputError
from anomem.params import Each, Either, OneOf, Range, Text, param, parameters
from anomem.types import NORMAL

__all__ = ["CrossType", "split_types"]

EVERY = "all"


@parameters
class CrossType(Protocol):
    """Detection of unseen types: each type in turn is judged, with the other types labelled.

    Judged against all normal test images.

    Parameters
    ----------
    labelled : {"others", "one"}, default "others"
        "others": all types but one are labelled, and that one is judged. "one": one type alone is labelled, and all
        others are judged.
    k : tuple, default (0, "all")
        Number of labelled anomalies, "all" of the pool, or 0: one-class, on the same images.
    draws : int, default 1
        Draws per k below "all".
    types : tuple of str or None
        Types held out in turn; None: all.
    labels : {"refit", "anew"}, default "refit"
        "refit": labels train the second stage, of methods that have one. "anew": they train everything.
    calibration : str, default "split"
        Calibration of the fits: split, auto or cross.

    References
    ----------
    Jezequel et al., "Anomaly Detection via Multi-Scale Contrasted Memory", 2022, Table 3 (WMCA).
    """

    name: ClassVar[str] = "cross-type"

    labelled: str = param("others", OneOf(("others", "one")), doc="Label all types but one, or one alone.")
    k: tuple[Any, ...] = param(
        (0, EVERY),
        Each(Either((Range(0, 100_000, integer=True), OneOf((EVERY,))))),
        doc="Number of labelled anomalies.",
    )
    draws: int = param(1, Range(1, 1000, integer=True), doc="Draws per k below all.")
    types: tuple[str, ...] | None = param(None, Each(Text("a type")), doc="Types held out in turn.", optional=True)

    labels: str = param("refit", OneOf(("refit", "anew")), doc="Stages that labels train: the second, or all.")
    calibration: str = param("split", CALIBRATIONS, doc="Calibration of the fits.")

    def tasks(self, data: BenchmarkSet, opened: Opener) -> Iterator[Task | str]:
        """Yield a task per held-out type, k and draw."""
        own_normals(data, self.name)
        options = self.options()
        if len(data.types) < 2:
            raise InputError(f"{data.name}: {len(data.types)} type of anomaly; cross-type needs at least two")
        for kind in options["types"] or data.types:
            pool = split_types(data, kind, options["labelled"])[0]
            common: dict[str, Any] = {"apart": kind, "labelled": options["labelled"]}
            # Absent where labels refit, as in lines of all versions.
            anew = {"labels": "anew"} if options["labels"] == "anew" else {}
            for k in options["k"]:
                if k == 0:
                    yield self._task(data, {**common, "k": 0}, labelled=False)
                elif k == EVERY and len(pool):
                    yield self._task(data, {**common, **anew, "k": EVERY}, labelled=True)
                elif k == EVERY or k > len(pool):
                    yield f"{data.name} {kind}: {len(pool)} anomalies of the types to label, fewer than k = {k}"
                else:
                    for draw in range(options["draws"]):
                        yield self._task(data, {**common, **anew, "k": k, "draw": draw}, labelled=True)

    def _task(self, data: BenchmarkSet, facts: dict[str, Any], *, labelled: bool) -> Task:
        train = fitted_with(self.options()["calibration"])
        return Task(self.name, data.name, data.category, train, facts, labelled=labelled)

    def run(self, unit: Unit, work: Workspace) -> Findings:
        """Fit to normals and labelled anomalies; judge on normals and the unlabelled types."""
        facts, data = unit.task.facts, work.open(unit.task.data, unit.limit)
        pool, types = split_types(data, facts["apart"], facts["labelled"])
        rest = [i for i, kind in enumerate(data.test.kinds) if data.test.labels[i] == NORMAL or kind in types]
        if facts["k"] == 0:
            return judged(work, work.one_class(unit, data.train), data.test, maps=False, among=rest)
        count = len(pool) if facts["k"] == EVERY else facts["k"]
        chosen = pool.subset(drawn(len(pool), facts.get("draw", 0))[:count], "labelled")
        fit = work.with_labels(unit, data.train, chosen, anew=facts.get("labels") == "anew")
        return judged(work, fit, data.test, maps=False, among=rest, extra={"labelled": labelled_facts(chosen)})


def split_types(data: BenchmarkSet, apart: str, labelled: str) -> tuple[Images, tuple[str, ...]]:
    """Return the anomalies that may be labelled, and the types to judge; the two are disjoint.

    Raises
    ------
    InputError
        The type is unknown.
    """
    if apart not in data.types:
        raise InputError(f"{data.name}: no type {apart!r}; choose from {', '.join(data.types)}")
    pool = label_pool(data)[0]
    shown = [i for i, kind in enumerate(pool.kinds) if kind and (kind == apart) == (labelled == "one")]
    types = (apart,) if labelled == "others" else tuple(kind for kind in data.types if kind != apart)
    return pool.subset(shown, f"{pool.name} {labelled} {apart}"), types
