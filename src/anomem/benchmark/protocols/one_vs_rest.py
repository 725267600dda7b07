"""One class is normal, all others are not; with labelled anomalies among the training images, or without."""

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
    """How many labelled anomalies make up a share gamma of the training images: gamma = a / (n + a).

    Examples
    --------
    >>> [n_anomalies(5000, gamma) for gamma in (0.01, 0.05, 0.10)]
    [51, 263, 556]
    """
    return round(n_normal * gamma / (1 - gamma))


@parameters
class OneVsRest(Protocol):
    """Each class in turn is normal; test images of all other classes are anomalous.

    On a set that says itself what is normal there is one task of this kind.

    Parameters
    ----------
    gammas : tuple of float, default (0, 0.01, 0.05, 0.1)
        Shares of labelled anomalies among the training images; 0: one-class.
    draws : int, default 10
        How often the anomalies are drawn, for each gamma above 0. The smaller gammas of a draw are part of the larger.
    anomalies : {"all", "one"}, default "all"
        Drawn uniformly from the training images of all other classes; or from the class that follows by number alone.
    labels : {"refit", "anew"}, default "refit"
        What learns the labels: the second stage, of methods that have one; or everything, first stages that take labels
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
    anomalies: str = param(ALL, OneOf((ALL, "one")), doc="From all other classes, or from the next one.")
    labels: str = param("refit", OneOf(("refit", "anew")), doc="What learns labels: a second stage, or everything.")
    classes: tuple[str, ...] | None = param(
        None, Each(Text("a class")), doc="Classes that are normal in turn.", optional=True
    )

    def tasks(self, data: BenchmarkSet, opened: Opener) -> Iterator[Task | str]:
        """One task for each class and gamma 0, one for each class, further gamma and draw."""
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
                    yield f"{data.name} {normal}: gamma {gamma:g} takes {count} labelled anomalies, of {len(pool)}"
                else:
                    facts = {"gamma": gamma, "anomalies": options["anomalies"], "labels": options["labels"]}
                    for draw in range(options["draws"]):
                        yield Task(**common, facts={**facts, "draw": draw}, labelled=True)

    def run(self, unit: Unit, work: Workspace) -> Findings:
        """Fit to one class, and labelled anomalies where gamma is above 0; judge on all test images."""
        facts, whole = unit.task.facts, work.open(unit.task.data, unit.limit)
        normal = "".join(unit.task.train.get("normal", ()))
        data = whole.choose((normal,) if normal else ())
        if not facts["gamma"]:
            return judged(work, work.one_class(unit, data.train), data.test, maps=False)
        chosen = drawn_anomalies(whole, normal, facts)
        fit = work.with_labels(unit, data.train, chosen, anew=facts["labels"] == "anew")
        return judged(work, fit, data.test, maps=False, extra={"labelled": labelled_facts(chosen)})


def drawn_anomalies(whole: BenchmarkSet, normal: str, facts: Mapping[str, Any]) -> Images:
    """The labelled anomalies of a task: gamma of the training images, in the draw's order.

    Parameters
    ----------
    whole : BenchmarkSet
        Before a class was chosen.
    normal : str
        The class; empty where the set says itself what is normal.
    facts : mapping
        ``gamma``, ``draw``, and ``anomalies``: "all" or "one".
    """
    data = whole.choose((normal,) if normal else ())
    pool = _pool(data, whole, normal, facts["anomalies"])
    count = n_anomalies(len(data.train), facts["gamma"])
    number = whole.classes.index(normal) if normal else 0
    return pool.subset(drawn(len(pool), number, facts["draw"])[:count], "labelled")


def labelled_facts(chosen: Images) -> dict[str, Any]:
    """How many labelled anomalies, of which kinds."""
    return {"n": len(chosen), "kinds": {kind: chosen.kinds.count(kind) for kind in sorted(set(chosen.kinds))}}


def _pool(data: BenchmarkSet, whole: BenchmarkSet, normal: str, anomalies: str) -> Images:
    """Anomalies that may be labelled."""
    if anomalies == ALL:
        return data.spare
    if not whole.classes:
        raise InputError(f"{whole.name}: anomalies of one class need a set of classes; take anomalies=all")
    following = whole.classes[(whole.classes.index(normal) + 1) % len(whole.classes)]
    places = [i for i, kind in enumerate(data.spare.kinds) if kind == following]
    return data.spare.subset(places, f"{data.spare.name} {following}")
