"""Verdicts of `score` beyond alpha: by stratum, by group, for the batch; and its shift."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anomem.errors import InputError
from anomem.runtime.neutral import printable
from anomem.runtime.text import count, number

if TYPE_CHECKING:
    from anomem.data.samples import Sample
    from anomem.loading import Model
    from anomem.runtime.calibration import Calibration
    from anomem.runtime.fdr import Batch
    from anomem.runtime.group_verdicts import ScoredGroup
    from anomem.runtime.scored import Scored
    from anomem.runtime.shift import Shift

FRESH = 20
"""Number of fresh normals that a shift asks for, at least."""


@dataclass(frozen=True)
class Listed:
    """Images of one argument: a file, a folder or a table."""

    place: Path
    paths: tuple[Path, ...]


@dataclass(frozen=True)
class Verdicts:
    """Verdicts of a batch; None or empty where they were not requested."""

    fdr: Batch | None
    rejected: tuple[bool, ...]
    groups: tuple[ScoredGroup, ...] | None
    shift: Shift | None

    def facts(self) -> dict[str, Any]:
        """Return the keys `shift`, and `fdr` and `groups` if requested, of the JSON object."""
        facts: dict[str, Any] = {"shift": self.shift and asdict(self.shift)}
        if self.fdr is not None:
            facts["fdr"] = asdict(self.fdr)
        if self.groups is not None:
            facts["groups"] = [_group_facts(group, self.fdr is not None) for group in self.groups]
        return facts


def _group_facts(group: ScoredGroup, with_fdr: bool) -> dict[str, Any]:
    facts = {**asdict(group), "n": len(group.images)}
    return facts if with_fdr else {name: value for name, value in facts.items() if name != "anomalous_fdr"}


def strata_of(listed: Sequence[Listed], rule: str | None, calibration: Calibration) -> list[Hashable | None] | None:
    """Return the stratum of each image by `rule`, by default the calibration's; None without strata.

    Raises
    ------
    InputError
        A rule for a model without strata, or an image without a stratum.
    """
    from anomem.data.sources import PathSource, sample_column, table_samples
    from anomem.runtime.groups import resolve_strata
    from anomem.runtime.strata import COLUMN

    if calibration.strata is None:
        if rule is not None:
            raise InputError("--calibrate-by: the model has one calibration for all images; calibrate with it first")
        return None
    by, found = rule or calibration.strata.by or COLUMN, list[Hashable | None]()
    for part in listed:
        column = sample_column(table_samples(part.place, by), "stratum") if _is_table(part.place) else None
        if column is None and by == COLUMN:
            raise InputError(f"{part.place}: has no column {COLUMN!r}, which the model needs; give --calibrate-by")
        found += resolve_strata(by, PathSource(part.paths)) if column is None else column
    return found


def groups_of(listed: Sequence[Listed], rule: str | None) -> list[Hashable | None] | str | None:
    """Return `rule`, or the groups that tables carry; None without any."""
    from anomem.data.sources import sample_column, table_samples

    if rule is not None:
        return rule
    columns = [sample_column(table_samples(part.place), "group") if _is_table(part.place) else None for part in listed]
    if not any(columns):
        return None
    filled = (column or [None] * len(part.paths) for column, part in zip(columns, listed, strict=True))
    return [group for column in filled for group in column]


def _is_table(place: Path) -> bool:
    from anomem.data.tables import TABLE_SUFFIXES

    return place.suffix.lower() in TABLE_SUFFIXES and place.is_file()


def judge(results: Sequence[Scored], calibration: Calibration, fdr: float | None, *, grouped: bool) -> Verdicts:
    """Judge a batch of readable images together."""
    from anomem.runtime.fdr import judge_batch, largest_stratum
    from anomem.runtime.group_verdicts import judge_groups
    from anomem.runtime.shift import find_shift

    rejected, batch = None, None
    if fdr is not None:
        rejected, batch = judge_batch([result.p_value for result in results], largest_stratum(calibration), fdr)
    strata = None if calibration.strata is None else [str(result.stratum) for result in results]
    groups = [result.group for result in results] if grouped else None
    return Verdicts(
        batch,
        () if rejected is None else tuple(map(bool, rejected)),
        judge_groups(results, calibration, fdr) if grouped else None,
        find_shift(calibration, [result.score for result in results], strata, groups),
    )


def lines(found: Verdicts, calibration: Calibration, model: Path) -> Iterator[str]:
    """Yield the verdicts about groups and the batch as lines of text."""
    for group in found.groups or ():
        verdict = "not judged" if group.anomalous is None else "anomalous" if group.anomalous else "normal"
        shown = f"group {printable(str(group.group))}: {count(len(group.images), 'image')}, {number(group.score)}"
        reason = f" (its size carries no alpha below {group.alpha_min:.3g})" if group.anomalous is None else ""
        yield f"{shown}, p {group.p_value:.4g}, {verdict}{reason}"
    if found.fdr is not None:
        yield batch_line(found.fdr, "image")
    if found.shift is not None and found.shift.shifted:
        yield shift_line(found.shift, calibration.alpha, str(model))


def batch_line(batch: Batch, noun: str) -> str:
    """Return the verdict at a false-discovery rate, and what batch and calibration make possible."""
    least = batch.least_rejected
    possible = f"at least {least:,} together, or none" if least <= batch.n else "none: the calibration is too small"
    return (
        f"at fdr {batch.fdr:.3g}: {batch.n_rejected:,} of {count(batch.n, noun)} rejected (possible in this batch: "
        f"{possible})"
    )


def shift_line(shift: Shift, alpha: float, model: str) -> str:
    """Return the shift of a batch, and the command that calibrates anew."""
    higher = "higher" if shift.higher else "lower"
    at_once = alpha >= 1 / (FRESH + 1)
    option = "" if at_once else " --blend"
    where = "" if shift.stratum is None else f" of stratum {shift.stratum}"
    return (
        f"shift: accepted scores{where} are {higher} than those of the calibration ({shift.n_accepted:,} against "
        f"{shift.n_calibration:,}, p {shift.p_value:.3g}): the false-alarm rate may not hold; calibrate on {FRESH} "
        f"fresh normals: anomem calibrate {model} NORMALS --alpha {alpha:.3g}{option}"
    )


def normals_with_columns(
    detector: Model, chosen: Sequence[Sample], group_by: str | None, calibrate_by: str | None
) -> dict[str, Any]:
    """Return normals with their groups and strata; exported models, which know no samples, get the columns."""
    from anomem.data.sources import PathSource, sample_column
    from anomem.runtime.session import Session as Exported

    if not isinstance(detector, Exported):
        return {"normals": list(chosen), "groups": group_by, "strata": calibrate_by}
    return {
        "normals": PathSource(sample.path for sample in chosen),
        "groups": group_by or sample_column(chosen, "group"),
        "strata": sample_column(chosen, "stratum") or calibrate_by,
    }
