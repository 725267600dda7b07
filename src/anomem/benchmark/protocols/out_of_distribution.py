"""Out-of-distribution detection: one image set is normal, another anomalous."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar

import numpy as np

from anomem.benchmark.image_sets import BenchmarkSet
from anomem.benchmark.judging import Findings
from anomem.benchmark.protocols.base import Opener, Protocol, judged
from anomem.benchmark.unit import Task, Unit
from anomem.benchmark.workspace import Workspace
from anomem.data.labelled_images import Images
from anomem.errors import InputError
from anomem.params import Each, Text, param, parameters
from anomem.types import ANOMALOUS

__all__ = ["OutOfDistribution"]


@parameters
class OutOfDistribution(Protocol):
    """Out-of-distribution detection: the test images of a set are normal, those of another set anomalous.

    Methods are fitted to all training images of the normal set.

    Parameters
    ----------
    against : tuple of str, default ("cifar100", "svhn", "lsun")
        The other sets, one task per set.

    References
    ----------
    Jezequel et al., "Anomaly Detection via Multi-Scale Contrasted Memory", version 2, 2022, Table 2.
    """

    name: ClassVar[str] = "out-of-distribution"

    against: tuple[str, ...] = param(
        ("cifar100", "svhn", "lsun"), Each(Text("an image set")), doc="Sets to tell from the normal one."
    )

    def tasks(self, data: BenchmarkSet, opened: Opener) -> Iterator[Task | str]:
        """Yield a task per other set; absent ones are left out."""
        for other in self.options()["against"]:
            try:
                found = opened(other)
            except InputError as error:
                yield str(error)
            else:
                yield Task(self.name, data.name, found.name, {"normal": "all"}, {"against": other})

    def run(self, unit: Unit, work: Workspace) -> Findings:
        """Fit to the whole set, judge on the test images of both."""
        data = work.open(unit.task.data, unit.limit)
        data = data.choose(data.classes)
        other = work.open(unit.task.facts["against"], unit.limit)
        test = data.test.subset(np.flatnonzero(data.test.labels != ANOMALOUS), data.test.name)
        both = test.joined(_foreign(other), f"{data.test.name} against {other.name}")
        return judged(work, work.one_class(unit, data.train), both, maps=False)


def _foreign(other: BenchmarkSet) -> Images:
    """Return all test images of a set as anomalous, with the set's name as their type."""
    labels = np.full(len(other.test), ANOMALOUS, dtype=np.intp)
    return replace(other.test, labels=labels, kinds=(other.name,) * len(labels), masks=())
