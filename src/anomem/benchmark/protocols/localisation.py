"""Sets that say what is normal: image AUROC, and pixel AUROC and AUPRO where there are masks; also disturbed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from anomem.benchmark.image_sets import BenchmarkSet
from anomem.benchmark.judging import Findings
from anomem.benchmark.protocols.base import Opener, Protocol, judged, own_normals
from anomem.benchmark.unit import Task, Unit
from anomem.benchmark.workspace import Workspace
from anomem.data.disturbance import disturbance_for
from anomem.errors import InputError
from anomem.params import FLAG, Each, OneOf, Range, param, parameters

__all__ = ["Disturbed", "Localisation"]


@parameters
class Localisation(Protocol):
    """MVTec-style sets: fit to normal training images, judge images and maps on the test images.

    Published means are over categories, of objects and of textures apart; each category is a task of its own.

    Parameters
    ----------
    maps : bool, default True
        Whether maps are judged, of methods that draw some, where there are masks.
    """

    name: ClassVar[str] = "localisation"

    maps: bool = param(True, FLAG, doc="Whether maps are judged.")

    def tasks(self, data: BenchmarkSet, opened: Opener) -> Iterator[Task | str]:
        """The one task."""
        own_normals(data, self.name)
        yield Task(self.name, data.name, data.category, facts={"maps": self.options()["maps"]})

    def run(self, unit: Unit, work: Workspace) -> Findings:
        """Fit, score, judge."""
        data = work.open(unit.task.data, unit.limit)
        return judged(work, work.one_class(unit, data.train), data.test, maps=unit.task.facts["maps"])


@parameters
class Disturbed(Protocol):
    """As localisation, on images that lie and are lit less orderly: each training and test image is disturbed once.

    Where another colour is a defect (tile, wood, capsule of MVTec AD) colours stay; where parts lie in a demanded
    direction (transistor) nothing is turned.

    Parameters
    ----------
    kinds : tuple, default ("spatial", "colour")
        Zoom, rotation and flips; brightness, contrast and adaptive equalisation.
    draws : int, default 1
        How many sets are drawn of each kind.
    maps : bool, default True
        As for localisation.

    References
    ----------
    Zheng et al., "Focus Your Distribution", 2022, Table 3.
    """

    name: ClassVar[str] = "disturbed"

    kinds: tuple[str, ...] = param(
        ("spatial", "colour"), Each(OneOf(("spatial", "colour"))), doc="What the images are disturbed in."
    )
    draws: int = param(1, Range(1, 100, integer=True), doc="Sets drawn of each kind.")
    maps: bool = param(True, FLAG, doc="Whether maps are judged.")

    def tasks(self, data: BenchmarkSet, opened: Opener) -> Iterator[Task | str]:
        """One task for each kind and draw."""
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
