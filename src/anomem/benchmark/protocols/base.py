"""Base class of protocols: the tasks of an image set, and the execution of one for one method and seed."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from anomem.params import OneOf, Parameters, parameters
from anomem.types import ANOMALOUS, IntArray

__all__ = ["CALIBRATIONS", "Opener", "Protocol", "attainable", "fitted_with", "judged", "label_pool", "own_normals"]

Opener: TypeAlias = Callable[[str], BenchmarkSet]
"""Function that opens an image set by its name."""


CALIBRATIONS = OneOf(("split", "auto", "cross"))
"""Calibrations of a fit that protocols offer."""


@parameters
class Protocol(Parameters):
    """Base class of all protocols: declared options, tasks of an image set, execution of a unit.

    A protocol is independent of the method: it fits, refits and scores through the detector interface.
    """

    name: ClassVar[str]
    seeds: ClassVar[tuple[int, ...]] = (0,)
    """Default seeds of the fits."""

    @abstractmethod
    def tasks(self, data: BenchmarkSet, opened: Opener) -> Iterator[Task | str]:
        """Yield the tasks of an image set; a string names a task left out, and the reason.

        Raises
        ------
        InputError
            The set does not suit the protocol.
        """

    @abstractmethod
    def run(self, unit: Unit, work: Workspace) -> Findings:
        """Execute one unit; it depends on the unit alone, not on this object's options."""

    def expanded(self, variants: Sequence[Variant]) -> list[tuple[Variant, Protocol]]:
        """Return the variants that take part, each with the protocol that makes its tasks."""
        return [(variant, self) for variant in variants]

    def options(self) -> dict[str, Any]:
        """Return the options, checked.

        Raises
        ------
        ParameterError
            An option is outside its allowed range.
        """
        return dict(self.resolve())


def judged(
    work: Workspace,
    fit: Fit,
    test: Images,
    *,
    maps: bool,
    among: Sequence[int] | IntArray | None = None,
    unseen: frozenset[int] = frozenset(),
    extra: Mapping[str, Any] | None = None,
) -> Findings:
    """Score images and judge the scores; `maps` judges maps, too, where the method localizes and masks exist.

    `among`, `unseen` and `extra` are as for :func:`anomem.benchmark.judging.findings`.
    """
    wanted = maps and fit.detector.localizes and with_masks(test)
    seen = work.see(fit, test, maps=wanted)
    answers, trivial = seen if wanted else seen.without_maps(), work.trivial(test)
    return findings(fit, answers, test, trivial, among=among, unseen=unseen, extra=extra)


def own_normals(data: BenchmarkSet, protocol: str) -> None:
    """Raise for a set of classes, which does not define its normals.

    Raises
    ------
    InputError
        The set has classes.
    """
    if data.classes:
        raise InputError(
            f"{data.name}: {protocol} needs a set that defines its normals; run one-vs-rest on sets of classes"
        )


def label_pool(data: BenchmarkSet) -> tuple[Images, bool]:
    """Return the anomalies that may be labelled, and True where they are test images.

    They are the training part's labelled anomalies where the provider has some; else the test part's, which then must
    not be judged.
    """
    if len(data.spare):
        return data.spare, False
    return data.test.subset(data.test.positions(ANOMALOUS), f"{data.test.name} anomalies"), True


def fitted_with(calibration: str) -> dict[str, Any]:
    """Return a task's `train` for a calibration of the fits; a split is not named, as in earlier run lines."""
    return {} if calibration == "split" else {"calibration": calibration}


def attainable(method: str, task: Task) -> bool:
    """Return True where a method can run a task: with labels if it uses them, without if it needs none."""
    supervision = get(method).supervision
    return supervision != "none" if task.labelled else supervision != "required"


def drawn(count: int, *numbers: int) -> list[int]:
    """Return `count` positions in a random order seeded by the numbers."""
    return [int(i) for i in np.random.default_rng(list(numbers)).permutation(count)]
