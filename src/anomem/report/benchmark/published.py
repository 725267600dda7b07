"""Published figures beside measured ones: rows of papers that match a table's columns."""

from __future__ import annotations

import csv
import functools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files

from anomem.errors import ParameterError, nearest, suggestion
from anomem.report.benchmark.columns import TableColumn
from anomem.report.benchmark.tables import Cell, Row, Table

__all__ = ["with_published"]

_METHODS = {
    "anomem": "AnoMem",
    "plume": "PLUME",
    "fyd": "FYD",
    "pmb": "PMB",
    "padim": "PaDiM",
    "deepsad": "DeepSAD",
    "supervised": "Supervised",
    "ocsvm": "OC-SVM",
    "iforest": "Isolation Forest",
    "memae": "MemAE",
    "plad": "PLAD",
}
_DATA = {
    "cifar10": ("CIFAR-10", 10),
    "cifar100": ("CIFAR-100", 100),
    "cifar100:coarse": ("CIFAR-100", 20),
    "mnist": ("MNIST", 10),
    "cub200": ("CUB-200", 200),
    "wmca": ("WMCA", 0),
    "mvtec_ad": ("MVTec AD", 15),
    "btad": ("BTAD", 3),
    "shanghaitech:every_fifth": ("ShanghaiTech Campus", 7),
    "spark:cropped": ("SPARK", 0),
    "kermany": ("Retinal-OCT", 0),
}
"""Set -> its name in the papers, and the number of categories of a published mean."""

_GROUP_SIZES = {"MVTec AD": {"objects": 10, "textures": 5}}
_PROTOCOLS = {
    "localisation": ("per category", "satellites vs debris", "healthy vs damaged"),
    "one-vs-rest": ("one-vs-rest",),
    "cross-type": ("cross-type",),
    "linear-evaluation": ("linear evaluation",),
    "disturbed": ("per category",),
    "distance-variance": ("distance variance",),
}
_METRICS = {
    "image_auroc": "image AUROC",
    "pixel_auroc": "pixel AUROC",
    "aupro": "PRO",
    "accuracy": "accuracy",
    "distance_variance": "distance variance",
}
_MEANS = {"mean": "mean", "mean of objects": "objects", "mean of textures": "textures", "mean (12 categories)": "mean"}
_SAME = {"airplane": "plane", "automobile": "car"}
_PLACES = ("category=", "unseen=", "scene=")
_LEFT_OUT = ("maximum of runs",)


def with_published(table: Table) -> Table:
    """Add rows of published figures of the table's methods, and notes with their sources.

    Only figures of the same set, protocol, gamma or disturbance and metric; no ablations. A published mean is shown
    beside a mean over as many categories, and left out beside one over fewer.

    Parameters
    ----------
    table : Table

    Returns
    -------
    Table
    """
    names = list(dict.fromkeys(_METHODS[m] for m in _methods(table) if m in _METHODS))
    if table.sweep or table.metric not in _METRICS or table.protocol not in _PROTOCOLS or not names:
        return table
    rows: dict[tuple[str, str, str], dict[str, Cell]] = {}
    sources: dict[str, None] = {}
    for figure in published():
        if figure.method not in names or figure.metric != _METRICS[table.metric] or not _fits(figure, table):
            continue
        place, rest = _parted(figure)
        column = _column(figure, place, table.columns)
        cells = rows.setdefault((figure.method, figure.paper, rest), {})
        if column is None or column.key in cells:
            continue
        scale = 1.0 if table.metric == "distance_variance" else 100.0
        said = f"{figure.paper} ({figure.year}), {figure.source}" + (f": {figure.note}" if figure.note else "")
        cells[column.key] = Cell(
            figure.value / scale, None if figure.spread is None else figure.spread / scale, note=said
        )
    found = _without_repeats(rows)
    for cells in found.values():
        sources.update(dict.fromkeys(cell.note for cell in cells.values()))
    added = [Row(_name(*key), "published", cells, label=key[0]) for key, cells in found.items()]
    # A source with a note is not repeated without it.
    told = [source for source in sources if not any(other.startswith(f"{source}:") for other in sources)]
    notes = (f"Published: {'; '.join(told)}.",) if told else ()
    return replace(table, rows=(*table.rows, *added), notes=(*table.notes, *notes))


def _methods(table: Table) -> list[str]:
    return [run.method for row in table.measured for runs in row.runs.values() for run in runs[:1]]


def _fits(figure: Published, table: Table) -> bool:
    """Return True where a figure is of the table's protocol and setting."""
    parts = figure.setting.split("; ")
    if any(part in _LEFT_OUT for part in parts):
        return False
    # A linear evaluation compares ablations, including the whole method.
    if "ablation" in parts and table.protocol != "linear-evaluation":
        return False
    if table.protocol == "one-vs-rest":
        given = next((float(part[6:]) for part in parts if part.startswith("gamma=")), 0.0)
        return (
            figure.protocol == "one-vs-rest"
            and table.facts.get("gamma") == given
            and table.facts.get("anomalies") != "one"
        )
    if table.protocol == "cross-type":
        everything = table.facts.get("k") == "all" and table.facts.get("labelled") == "others"
        return figure.protocol == "cross-type" and everything and parts[0].startswith("unseen=")
    if table.protocol == "disturbed":
        kind = f"disturbance={table.facts.get('disturbed')}"
        return figure.data.startswith("Disturbed ") and kind in parts
    if figure.data == "WMCA":
        return table.protocol == "localisation" and parts == ["one-class"]
    return figure.protocol in _PROTOCOLS[table.protocol] and not figure.data.startswith("Disturbed ")


def _parted(figure: Published) -> tuple[str, str]:
    """Return the part of the setting that names the column, and the rest."""
    parts = [part for part in figure.setting.split("; ") if part]
    places = [part for part in parts if part in _MEANS or part == "one-class" or part.startswith(_PLACES)]
    dropped = (*places, "ablation")
    rest = [part for part in parts if part not in dropped and not part.startswith(("gamma=", "disturbance="))]
    return places[0] if places else "", ", ".join(part.removeprefix("backbone=") for part in rest)


def _column(figure: Published, place: str, columns: Sequence[TableColumn]) -> TableColumn | None:
    data = figure.data.removeprefix("Disturbed ")
    for column in columns:
        title, whole = _DATA.get(column.family, ("", 0))
        if title != data:
            continue
        if column.kind == "one":
            _, category, apart = column.members[0]
            named = place.partition("=")[2] if place.startswith(_PLACES) else None
            if named is not None and _plain(apart or category) == _plain(named):
                return column
            # A set without categories has a single figure.
            if named is None and not whole:
                return column
            if named is None and figure.protocol == "linear evaluation":
                return column
        elif column.kind in ("mean", "group") and _MEANS.get(place) == column.title:
            wanted = _GROUP_SIZES.get(data, {}).get(column.title, 12 if "12" in place else whole)
            if len(column.members) == wanted:
                return column
    return None


def _plain(name: str) -> str:
    lowered = name.lower().replace("_", " ").replace("-", " ")
    return _SAME.get(lowered, lowered)


def _without_repeats(
    rows: Mapping[tuple[str, str, str], dict[str, Cell]],
) -> dict[tuple[str, str, str], dict[str, Cell]]:
    """Return rows with figures; where two versions of a paper print the same, the later one."""
    found: dict[tuple[str, str, str], dict[str, Cell]] = {}
    for (method, paper, rest), cells in rows.items():
        values = {key: cell.mean for key, cell in cells.items()}
        for other in [key for key in found if key[0] == method and key[2] == rest]:
            if {key: cell.mean for key, cell in found[other].items()} == values:
                del found[other]
        if cells:
            found[method, paper, rest] = cells
    return found


def _name(method: str, paper: str, rest: str) -> str:
    own = paper.split(" v", maxsplit=1)[0] == method
    return ", ".join(filter(None, [method, rest, "" if own else f"in {paper}"]))


@dataclass(frozen=True)
class Published:
    """Published figure, as printed.

    Parameters
    ----------
    method : str
        Method, under one name for all papers; ``note`` gives the printed name where it differs.
    paper : str
        Paper that prints it: "AnoMem v1", "AnoMem v2", "PLUME", "FYD" or "PMB".
    year : int
        Year of the paper's preprint.
    data : str
        Data set.
    protocol : str
        "one-vs-rest", "per category", "cross-type", "linear evaluation" and the like.
    setting : str
        Parts separated by "; ": "mean" or one category first, then gamma, backbone, "ablation" and the change.
    metric : str
        "image AUROC", "pixel AUROC", "PRO", "accuracy" (percent), or "distance variance" (a plain number).
    value : float
    spread : float or None
        Standard deviation over runs, where one is printed.
    source : str
        Table, section and, where known, page.
    note : str
        Caveat for comparisons with other figures; usually empty.
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
        Filters by method, data set and protocol; case is ignored.

    Raises
    ------
    ParameterError
        A name is unknown; the nearest one is suggested. Known names without a common figure return no figures.

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
    near = nearest(wanted.lower(), by_lower)
    hint = suggestion(by_lower[near] if near else wanted, sorted(names))
    raise ParameterError(f"no published figure has {field}={wanted!r}; {hint}")


@functools.cache
def _read() -> tuple[Published, ...]:
    text = files("anomem.report.benchmark").joinpath("published.csv").read_text(encoding="utf-8")
    return tuple(_figure(row) for row in csv.DictReader(text.splitlines()))


def _figure(row: dict[str, str]) -> Published:
    words = {name: row[name] for name in ("method", "paper", "data", "protocol", "setting", "metric", "source", "note")}
    spread = float(row["spread"]) if row["spread"] else None
    return Published(**words, year=int(row["year"]), value=float(row["value"]), spread=spread)
