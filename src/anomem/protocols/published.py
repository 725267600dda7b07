"""What the papers print: every result table of AnoMem, PLUME, FYD and PMB, each figure with its source."""

from __future__ import annotations

import csv
import difflib
import functools
from collections.abc import Collection
from dataclasses import dataclass
from importlib.resources import files

from anomem.errors import ParameterError


@dataclass(frozen=True)
class Published:
    """One figure as printed.

    Parameters
    ----------
    method : str
        Whose result it is, under one name for all papers; ``note`` says where a paper prints another one.
    paper : str
        Which paper prints it: "AnoMem v1", "AnoMem v2", "PLUME", "FYD" or "PMB".
    year : int
        Of that paper's preprint.
    data : str
        Data set.
    protocol : str
        "one-vs-rest", "per category", "cross-type", "linear evaluation" and the like.
    setting : str
        Parts separated by "; ": "mean" or one category first, then gamma, backbone, "ablation" and what was changed.
    metric : str
        "image AUROC", "pixel AUROC", "PRO", "accuracy" (percent), or "distance variance" (a plain number).
    value : float
    spread : float or None
        Standard deviation over runs, where one is printed.
    source : str
        Table, section and, where known, page.
    note : str
        What must be known before the figure is compared with another; empty mostly.
    """

    method: str
    paper: str
    year: int
    data: str
    protocol: str
    setting: str
    metric: str
    value: float
    spread: float | None
    source: str
    note: str


def published(method: str | None = None, data: str | None = None, protocol: str | None = None) -> tuple[Published, ...]:
    """Return published figures, in the order of the papers and their tables.

    Parameters
    ----------
    method, data, protocol : str, optional
        Only those of this method, data set or protocol; upper and lower case are alike.

    Raises
    ------
    ParameterError
        For a name that no figure has; the nearest one is suggested. Names that never stand together give no figure.

    Examples
    --------
    >>> found = published("AnoMem", "CIFAR-10", "one-vs-rest")
    >>> [(f.setting, f.value) for f in found if f.source.startswith("Table 1") and f.paper == "AnoMem v1"]
    [('mean; gamma=0', 91.5), ('mean; gamma=0.01', 92.5), ('mean; gamma=0.05', 97.1), ('mean; gamma=0.10', 97.6)]
    """
    found = _read()
    for field, wanted in (("method", method), ("data", data), ("protocol", protocol)):
        if wanted is not None:
            name = _known(field, wanted, {getattr(figure, field) for figure in _read()})
            found = tuple(figure for figure in found if getattr(figure, field) == name)
    return found


def _known(field: str, wanted: str, names: Collection[str]) -> str:
    by_lower = {name.lower(): name for name in names}
    if wanted.lower() in by_lower:
        return by_lower[wanted.lower()]
    near = difflib.get_close_matches(wanted.lower(), by_lower, n=1)
    hint = f"did you mean {by_lower[near[0]]}?" if near else "known: " + ", ".join(sorted(names))
    raise ParameterError(f"no published figure has {field}={wanted!r}; {hint}")


@functools.cache
def _read() -> tuple[Published, ...]:
    text = files("anomem.protocols").joinpath("published.csv").read_text(encoding="utf-8")
    return tuple(_figure(row) for row in csv.DictReader(text.splitlines()))


def _figure(row: dict[str, str]) -> Published:
    words = {name: row[name] for name in ("method", "paper", "data", "protocol", "setting", "metric", "source", "note")}
    spread = float(row["spread"]) if row["spread"] else None
    return Published(**words, year=int(row["year"]), value=float(row["value"]), spread=spread)
