"""Sets that define their normals, as they are and disturbed: image AUROC; with masks pixel AUROC and AUPRO."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from anomem.benchmark.image_sets import BenchmarkSet
from anomem.benchmark.judging import Findings
from anomem.benchmark.protocols.base import CALIBRATIONS, Opener, Protocol, fitted_with, judged, own_normals
from anomem.benchmark.unit import Task, Unit
from anomem.benchmark.workspace import Workspace
from anomem.data.disturbance import disturbance_for
from anomem.errors import InputError
from anomem.params import FLAG, Each, OneOf, Range, param, parameters

__all__ = ["Disturbed", "Localisation"]


@parameters
class Localisation(Protocol):
    """Detection and localisation on MVTec-style sets: fit to normal training images, judge the test images.

    Each category is a task; published means are over categories, and over objects and textures separately.

    Parameters
    ----------
    maps : bool, default True
        Judge maps where the method localizes and masks exist.
    calibration : str, default "split"
        Calibration of the fits: split, auto or cross.
    """

    name: ClassVar[str] = "localisation"

    maps: bool = param(True, FLAG, doc="Judge maps.")
    calibration: str = param("split", CALIBRATIONS, doc="Calibration of the fits.")

    def tasks(self, data: BenchmarkSet, opened: Opener) -> Iterator[Task | str]:
        """Yield the only task."""
        own_normals(data, self.name)
        options = self.options()
        train = fitted_with(options["calibration"])
        yield Task(self.name, data.name, data.category, train, {"maps": options["maps"]})

    def run(self, unit: Unit, work: Workspace) -> Findings:
        """Fit, score, judge."""
        data = work.open(unit.task.data, unit.limit)
        return judged(work, work.one_class(unit, data.train), data.test, maps=unit.task.facts["maps"])


@parameters
class Disturbed(Protocol):
    """Localisation with varied pose or colour: each training and test image is disturbed once.

    Colours are not changed where another colour is a defect (tile, wood, capsule of MVTec AD); images are not rotated
    where the direction of the part matters (transistor).

    Parameters
    ----------
    kinds : tuple, default ("spatial", "colour")
        Zoom, rotation and flips; brightness, contrast and adaptive equalisation.
    draws : int, default 1
        Disturbed copies of the set per kind.
    maps : bool, default True
        As for localisation.

    References
    ----------
    Zheng et al., "Focus Your Distribution", 2022, Table 3.
    """

    name: ClassVar[str] = "disturbed"

    kinds: tuple[str, ...] = param(
        ("spatial", "colour"), Each(OneOf(("spatial", "colour"))), doc="Kinds of disturbance."
    )
    draws: int = param(1, Range(1, 100, integer=True), doc="Disturbed copies of the set per kind.")
    maps: bool = param(True, FLAG, doc="Judge maps.")

    def tasks(self, data: BenchmarkSet, opened: Opener) -> Iterator[Task | str]:
        """Yield a task per kind and draw."""
        own_normals(data, self.name)
        options = self.options()
        for kind in options["kinds"]:
            try:
                disturbance_for(kind, data.category)
            except InputError as error:
                yield f"{data.name}, disturbed in {kind}: {error}"
                continue
            for draw in range(options["draws"]):
                facts = {"disturbed": kind, "draw": draw, "maps": options["maps"]}
                train = {"disturbed": kind, "draw": draw}
                yield Task(self.name, data.name, data.category, train, facts)

    def run(self, unit: Unit, work: Workspace) -> Findings:
        """Disturb, fit, score, judge."""
        facts, data = unit.task.facts, work.open(unit.task.data, unit.limit)
        how = disturbance_for(facts["disturbed"], data.category)
        suffix = f"disturbed {facts['disturbed']} {facts['draw']}"
        train, test = (
            images.disturbed(how, facts["draw"], f"{images.name} {suffix}") for images in (data.train, data.test)
        )
        return judged(work, work.one_class(unit, train), test, maps=facts["maps"])
