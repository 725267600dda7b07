"""One class normal, all others anomalous; with or without labelled anomalies among the training images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from anomem.benchmark.image_sets import BenchmarkSet
from anomem.benchmark.judging import Findings
from anomem.benchmark.protocols.base import Opener, Protocol, drawn, judged
from anomem.benchmark.unit import Task, Unit
from anomem.benchmark.workspace import Workspace
from anomem.data.labelled_images import Images
from anomem.errors import InputError
from anomem.params import Each, OneOf, Range, Text, param, parameters

__all__ = ["OneVsRest", "drawn_anomalies", "labelled_facts", "n_anomalies"]

ALL = "all"


def n_anomalies(n_normal: int, gamma: float) -> int:
    """Return the number a of labelled anomalies for a share gamma of the training images: gamma = a / (n + a).

    A share above 0 gives at least one: 1 % of the 30 images of a CUB class would be none.

    Examples
    --------
    >>> [n_anomalies(5000, gamma) for gamma in (0.01, 0.05, 0.10)]
    [51, 263, 556]
    """
    return max(round(n_normal * gamma / (1 - gamma)), 1 if gamma else 0)


@parameters
class OneVsRest(Protocol):
    """Detection of all other classes, with each class in turn as the normal one.

    A set that defines its normals has a single such task.

    Parameters
    ----------
    gammas : tuple of float, default (0, 0.01, 0.05, 0.1)
        Shares of labelled anomalies among the training images; 0: one-class.
    draws : int, default 10
        Draws of the anomalies per gamma above 0. Within a draw, a smaller gamma takes a subset of a larger one's.
    anomalies : {"all", "one"}, default "all"
        Drawn uniformly from the training images of all other classes, or from the next class by number alone.
    labels : {"refit", "anew"}, default "refit"
        "refit": labels train the second stage, of methods that have one. "anew": they train everything, first stages
        included.
    classes : tuple of str or None, default None
        Classes that are normal in turn; None: all.

    References
    ----------
    Jezequel et al., "Anomaly Detection via Multi-Scale Contrasted Memory", 2022, Table 1.
    """

    name: ClassVar[str] = "one-vs-rest"

    gammas: tuple[float, ...] = param(
        (0.0, 0.01, 0.05, 0.10), Each(Range(0.0, 0.9)), doc="Shares of labelled anomalies in training."
    )
    draws: int = param(10, Range(1, 1000, integer=True), doc="Draws of the anomalies.")
    anomalies: str = param(ALL, OneOf((ALL, "one")), doc="Draw from all other classes, or from the next one.")
    labels: str = param("refit", OneOf(("refit", "anew")), doc="Stages that labels train: the second, or all.")
    classes: tuple[str, ...] | None = param(
        None, Each(Text("a class")), doc="Classes that are normal in turn.", optional=True
    )

    def tasks(self, data: BenchmarkSet, opened: Opener) -> Iterator[Task | str]:
        """Yield a task per class, gamma and draw; gamma 0 has one draw."""
        options = self.options()
        wanted = options["classes"] or data.classes
        for normal in wanted or ("",):
            chosen = data.choose((normal,) if normal else ())
            common: dict[str, Any] = {"protocol": self.name, "data": data.name, "category": normal or data.category}
            common["train"] = {"normal": [normal]} if normal else {}
            pool = _pool(chosen, data, normal, options["anomalies"])
            for gamma in sorted(options["gammas"]):
                count = n_anomalies(len(chosen.train), gamma)
                if not gamma:
                    yield Task(**common, facts={"gamma": 0.0})
                elif not 0 < count <= len(pool):
                    yield f"{data.name} {normal}: gamma {gamma:g} needs {count} labelled anomalies, found {len(pool)}"
                else:
                    facts = {"gamma": gamma, "anomalies": options["anomalies"], "labels": options["labels"]}
                    for draw in range(options["draws"]):
                        yield Task(**common, facts={**facts, "draw": draw}, labelled=True)

    def run(self, unit: Unit, work: Workspace) -> Findings:
        """Fit to one class, with labelled anomalies where gamma is above 0; judge on all test images."""
        facts, whole = unit.task.facts, work.open(unit.task.data, unit.limit)
        normal = "".join(unit.task.train.get("normal", ()))
        data = whole.choose((normal,) if normal else ())
        if not facts["gamma"]:
            return judged(work, work.one_class(unit, data.train), data.test, maps=False)
        chosen = drawn_anomalies(whole, normal, facts)
        fit = work.with_labels(unit, data.train, chosen, anew=facts["labels"] == "anew")
        return judged(work, fit, data.test, maps=False, extra={"labelled": labelled_facts(chosen)})


def drawn_anomalies(whole: BenchmarkSet, normal: str, facts: Mapping[str, Any]) -> Images:
    """Return the labelled anomalies of a task, a share gamma of the training images, in the draw's order.

    Parameters
    ----------
    whole : BenchmarkSet
        Before :meth:`~BenchmarkSet.choose`.
    normal : str
        Normal class; empty where the set defines its normals.
    facts : mapping
        ``gamma``, ``draw``, and ``anomalies``: "all" or "one".
    """
    data = whole.choose((normal,) if normal else ())
    pool = _pool(data, whole, normal, facts["anomalies"])
    count = n_anomalies(len(data.train), facts["gamma"])
    number = whole.classes.index(normal) if normal else 0
    return pool.subset(drawn(len(pool), number, facts["draw"])[:count], "labelled")


def labelled_facts(chosen: Images) -> dict[str, Any]:
    """Return the number of labelled anomalies per kind."""
    return {"n": len(chosen), "kinds": {kind: chosen.kinds.count(kind) for kind in sorted(set(chosen.kinds))}}


def _pool(data: BenchmarkSet, whole: BenchmarkSet, normal: str, anomalies: str) -> Images:
    """Return the anomalies that may be labelled."""
    if anomalies == ALL:
        return data.spare
    if not whole.classes:
        raise InputError(f"{whole.name}: anomalies=one needs a set of classes; set anomalies=all")
    following = whole.classes[(whole.classes.index(normal) + 1) % len(whole.classes)]
    places = [i for i, kind in enumerate(data.spare.kinds) if kind == following]
    return data.spare.subset(places, f"{data.spare.name} {following}")
