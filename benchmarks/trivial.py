"""What trivial features alone tell apart on each set: mean and deviation of grey, and the size of the file.

Where they reach far, so may any method for the same reason; `tables.py` prints these figures beside all others.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coarse import COARSE
from common import SETS, Bench, Row, options, spread, start

TABLE = "Trivial features alone"


def measure(name: str, limit: int | None) -> dict[str, Any]:
    """AUROC of each feature, percent: of a set in MVTec layout, or the spread over the classes of others."""
    from scoring import labels_of, read_set, trivial_level

    root = SETS[name].path
    if (root / "train" / "good").is_dir():
        test = read_set(name, limit)[1]
        return trivial_level([sample.path for sample in test], labels_of(test))
    paths = [path for folder in _folders(root) for path in sorted(folder.iterdir())[:limit]]
    levels = [trivial_level(paths, _others(paths, folders)) for folders in _classes(name, root).values()]
    return {key: spread([level[key] or 0.0 for level in levels]) for key in levels[0]}


def _folders(root: Path) -> list[Path]:
    return sorted(folder for folder in (root / "test").iterdir() if folder.is_dir())


def _classes(name: str, root: Path) -> Mapping[str, tuple[str, ...]]:
    """Each class that counts as normal in turn, with its folders."""
    if name == "cifar100_small":
        return COARSE
    return {folder.name: (folder.name,) for folder in _folders(root)}


def _others(paths: list[Path], normal: tuple[str, ...]) -> Any:
    import numpy as np

    return np.asarray([int(path.parent.name not in normal) for path in paths])


def main() -> None:
    """Measure all sets and write the result file."""
    parser = options(__doc__)
    parser.add_argument("--sets", nargs="*", default=list(SETS), choices=list(SETS))
    bench: Bench = start("trivial", "Trivial features alone, each set", parser.parse_args())
    units = {
        name: bench.unit({"set": name}, lambda name=name: measure(name, bench.args.limit)) for name in bench.args.sets
    }
    rows = [Row(TABLE, name, {f"{key} %": value for key, value in unit.items()}) for name, unit in units.items()]
    notes = ["AUROC in the better direction. Sets of classes: each class as normal in turn, mean and deviation."]
    bench.write(rows, sets=bench.args.sets, notes=notes)


if __name__ == "__main__":
    main()
