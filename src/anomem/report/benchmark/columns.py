"""Table columns: sets and categories, their flags, and the means over them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from anomem.report.benchmark.captions import set_title, shortened
from anomem.report.benchmark.confounds import Confounds
from anomem.report.benchmark.runs import Column, Run

__all__ = ["TableColumn", "table_columns"]

TOGETHER = 8
"""Maximum columns of a table of several sets; above it, each set of several categories has its own table."""

_IMAGE_LEVEL = ("image_auroc", "image_ap")
_GROUPS = {"object": "objects", "texture": "textures"}


@dataclass(frozen=True)
class TableColumn:
    """Column of a table.

    Parameters
    ----------
    key : str
        Unique in the table.
    title : str
    kind : str
        "one" category, "group" (mean of objects or textures), "mean" of all, "clear" (mean of unflagged ones).
    members : tuple of Column
    family : str
        Name of the set; empty for columns of several sets.
    development : bool
        True where defaults were chosen on it.
    confounded : bool
        True where a trivial feature comes near the best method.
    """

    key: str
    title: str
    kind: str
    members: tuple[Column, ...]
    family: str = ""
    development: bool = False
    confounded: bool = False


def table_columns(runs: Sequence[Run], confounds: Confounds, metric: str) -> list[tuple[TableColumn, ...]]:
    """Return the columns of each table that run lines make for one figure.

    Parameters
    ----------
    runs : sequence of Run
        Lines of one protocol and setting.
    confounds : Confounds
    metric : str

    Returns
    -------
    list of tuple of TableColumn
    """
    by_column: dict[Column, list[Run]] = {}
    for run in runs:
        by_column.setdefault(run.column, []).append(run)
    families: dict[str, list[Column]] = {}
    for key, part in by_column.items():
        families.setdefault(part[0].family, []).append(key)
    if len(by_column) <= TOGETHER:
        parts = [list(by_column)] if by_column else []
    else:
        single = [keys[0] for keys in families.values() if len(keys) == 1]
        parts = [*(keys for keys in families.values() if len(keys) > 1), *([single] if single else [])]
    return [_columns({key: by_column[key] for key in part}, confounds, metric) for part in parts]


def _columns(runs: dict[Column, list[Run]], confounds: Confounds, metric: str) -> tuple[TableColumn, ...]:
    keys = list(runs)
    families = {part[0].family for part in runs.values()}
    family = families.pop() if len(families) == 1 else ""
    titles = _titles(runs, one_set=bool(family))
    found = [
        TableColumn(
            key=f"c{place}",
            title=titles[key],
            kind="one",
            members=(key,),
            family=runs[key][0].family,
            development=any(run.development for run in runs[key]),
            confounded=metric in _IMAGE_LEVEL and confounds.check(runs[key]).confounded,
        )
        for place, key in enumerate(keys)
    ]
    # Means first: the last of many categories are beyond the edge of the screen.
    return (*(_means(runs, found, family) if len(keys) > 1 else ()), *found)


def _means(runs: dict[Column, list[Run]], columns: Sequence[TableColumn], family: str) -> list[TableColumn]:
    of_group = {group: tuple(key for key, part in runs.items() if part[0].group == group) for group in _GROUPS}
    found = [TableColumn("mean", "mean", "mean", tuple(runs), family)]
    if family and all(of_group.values()):
        found += [TableColumn(name, name, "group", of_group[group], family) for group, name in _GROUPS.items()]
    clear = tuple(key for column in columns if not column.confounded for key in column.members)
    if 1 < len(clear) < len(runs):
        found.append(TableColumn("clear", "mean of the others", "clear", clear, family))
    return found


def _titles(runs: dict[Column, list[Run]], *, one_set: bool) -> dict[Column, str]:
    """Return short titles where they are unique."""
    several = len({key[:2] for key in runs}) > 1
    short = {}
    for key, part in runs.items():
        _, category, apart = key
        family = part[0].family
        whole = category == family.partition(":")[0]
        own = set_title(family) if whole else category if one_set else f"{set_title(family)} {category}"
        short[key] = (f"{own}: {apart}" if several else apart) if apart and apart != category else own
    if len(set(short.values())) < len(short):
        short = {key: " ".join(filter(None, key)) for key in runs}
    return {key: shortened(title, 48) for key, title in short.items()}
