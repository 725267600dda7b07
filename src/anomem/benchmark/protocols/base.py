"""What every protocol is: tasks on an image set, and how one of them is done for one method and seed."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, TypeAlias

import numpy as np

from anomem.benchmark.fits import Fit
from anomem.benchmark.image_sets import BenchmarkSet
from anomem.benchmark.judging import Findings, findings
from anomem.benchmark.unit import Task, Unit, Variant
from anomem.benchmark.workspace import Workspace
from anomem.data.labelled_images import Images
from anomem.detectors import get
from anomem.errors import InputError
from anomem.evaluation.judge import with_masks
from anomem.params import Parameters, parameters
from anomem.types import ANOMALOUS

__all__ = ["Opener", "Protocol", "attainable", "judged", "label_pool", "own_normals"]

Opener: TypeAlias = Callable[[str], BenchmarkSet]
"""Opens an image set by its name."""


@parameters
class Protocol(Parameters):
    """Base of all protocols: declared options, the tasks they make of an image set, and how a task is done.

    A protocol never looks at the method: it fits, refits and scores through the contract that all detectors keep.
    """

    name: ClassVar[str]
    seeds: ClassVar[tuple[int, ...]] = (0,)
    """Of the fits, unless others are asked for."""

    @abstractmethod
    def tasks(self, data: BenchmarkSet, opened: Opener) -> Iterator[Task | str]:
        """Tasks on an image set; a string says what is left out, and why.

        Raises
        ------
        InputError
            The set does not suit the protocol.
        """

    @abstractmethod
    def run(self, unit: Unit, work: Workspace) -> Findings:
        """Do one unit; all that it depends on stands in the unit, not in this object's options."""

    def expanded(self, variants: Sequence[Variant]) -> list[tuple[Variant, Protocol]]:
        """Methods that take part, each with the protocol whose tasks it is given."""
        return [(variant, self) for variant in variants]

    def options(self) -> dict[str, Any]:
        """The options, checked.

        Raises
        ------
        ParameterError
            Naming the option, its value and the allowed range.
        """
        return dict(self.resolve())


def judged(work: Workspace, fit: Fit, test: Images, *, maps: bool, **options: Any) -> Findings:
    """Score images and judge the scores; maps too, where they are wanted, drawn and have masks to be held against."""
    wanted = maps and fit.detector.localizes and with_masks(test)
    seen = work.see(fit, test, maps=wanted)
    return findings(fit, seen if wanted else seen.without_maps(), test, work.trivial(test), **options)


def own_normals(data: BenchmarkSet, protocol: str) -> None:
    """Refuse a set of classes, any of which might be normal.

    Raises
    ------
    InputError
        Naming the set.
    """
    if data.classes:
        raise InputError(f"{data.name}: {protocol} needs a set that says what is normal; classes are for one-vs-rest")


def label_pool(data: BenchmarkSet) -> tuple[Images, bool]:
    """Anomalies that may be labelled, and whether they are test images.

    Labelled anomalies of the training part, where the provider gives some; else those of the test part, which then
    must not be judged.
    """
    if len(data.spare):
        return data.spare, False
    return data.test.subset(data.test.positions(ANOMALOUS), f"{data.test.name} anomalies"), True


def attainable(method: str, task: Task) -> bool:
    """Whether a method takes part in a task: with labels where it can use them, without where it needs none."""
    supervision = get(method).supervision
    return supervision != "none" if task.labelled else supervision != "required"


def drawn(count: int, *numbers: int) -> list[int]:
    """All of `count` positions in an order drawn by the numbers."""
    return [int(i) for i in np.random.default_rng(list(numbers)).permutation(count)]
