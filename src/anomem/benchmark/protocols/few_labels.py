"""Benefit of a few labelled defects: the same remaining images, judged after 0, 1, 3, 10 and 30 labels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

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
from anomem.params import FLAG, Each, Range, param, parameters

__all__ = ["FewLabels", "split_draw"]


@parameters
class FewLabels(Protocol):
    """Training with k labelled defects, drawn repeatedly; every k of a draw is judged on the same images.

    The labels of a draw are nested: a smaller k takes the first of them. Where they are test images, those labelled at
    the draw's largest k are judged at no k. At least half of the defects remain unlabelled; larger k are left out.

    Parameters
    ----------
    k : tuple of int, default (0, 1, 3, 10, 30)
        Numbers of labelled defects; 0: one-class.
    draws : int, default 10
        Draws of the labelled defects.
    masks : bool, default False
        Pass the masks of labelled defects.
    maps : bool, default False
        Judge maps, too. This scores every image once per k; image-level figures of methods with a second stage need
        one pass for all k.
    calibration : str, default "split"
        Calibration of the fits: split, auto or cross.
    """

    name: ClassVar[str] = "few-labels"

    k: tuple[int, ...] = param((0, 1, 3, 10, 30), Each(Range(0, 100_000, integer=True)), doc="Labelled defects.")
    draws: int = param(10, Range(1, 1000, integer=True), doc="Draws of the labelled defects.")
    masks: bool = param(False, FLAG, doc="Pass the masks of labelled defects.")
    maps: bool = param(False, FLAG, doc="Judge maps, too.")
    calibration: str = param("split", CALIBRATIONS, doc="Calibration of the fits.")

    def tasks(self, data: BenchmarkSet, opened: Opener) -> Iterator[Task | str]:
        """Yield a task per draw and k."""
        own_normals(data, self.name)
        options, pool = self.options(), label_pool(data)[0]
        few = [k for k in sorted(set(options["k"])) if 2 * k <= len(pool)]
        many = sorted(set(options["k"]) - set(few))
        if many:
            yield f"{data.name}: k = {', '.join(map(str, many))} would label more than half of {len(pool)} defects"
        if not any(few):
            raise InputError(f"{data.name}: {len(pool)} defects, too few for k = {options['k']}; choose smaller k")
        for draw in range(options["draws"]):
            for k in few:
                facts: dict[str, Any] = {"k": k, "draw": draw, "most": max(few), "maps": options["maps"]}
                facts |= {"masks": options["masks"]} if k else {}
                train = fitted_with(options["calibration"])
                yield Task(self.name, data.name, data.category, train, facts, labelled=k > 0)

    def run(self, unit: Unit, work: Workspace) -> Findings:
        """Fit to normals and the first k labels of the draw; judge on the images left at every k."""
        facts, data = unit.task.facts, work.open(unit.task.data, unit.limit)
        most, rest, unseen = split_draw(data, facts["draw"], facts["most"])
        if facts["k"]:
            chosen = most.subset(range(facts["k"]), "labelled")
            fit = work.with_labels(unit, data.train, chosen, masks=facts["masks"])
            extra = {"labelled": labelled_facts(chosen)}
        else:
            fit, extra = work.one_class(unit, data.train), {}
        if facts["maps"]:
            test = data.test.subset(rest, f"{data.test.name} draw={facts['draw']} most={facts['most']}")
            return judged(work, fit, test, maps=True, unseen=unseen, extra=extra)
        return judged(work, fit, data.test, maps=False, among=rest, unseen=unseen, extra=extra)


def split_draw(data: BenchmarkSet, draw: int, most: int) -> tuple[Images, list[int], frozenset[int]]:
    """Return the labels of a draw at its largest k, and the remaining test images.

    Returns
    -------
    labelled : Images
        In labelling order.
    rest : list of int
        Positions of the other test images.
    unseen : frozenset of int
        Content hashes of the labelled images; images of equal content must not be judged.
    """
    pool, from_test = label_pool(data)
    order = drawn(len(pool), draw)[:most]
    labelled = pool.subset(order, "labelled at most")
    unseen = frozenset(labelled.source.digest(i) for i in range(len(labelled)))
    if not from_test:
        return labelled, list(range(len(data.test))), unseen
    places = data.test.positions(1)[order]
    return labelled, [int(i) for i in np.setdiff1d(np.arange(len(data.test)), places)], unseen
