"""Accuracy and cost of peers and of our methods: same images, size, backbone weights and cores, in turns.

Each measurement, ours included, is a separate process, with time and memory from start to end. Our metrics are used for
every AUROC and AUPRO, on raw scores and maps. Peers that did not run are listed with the reason. Peers run in separate
environments: ``--peer-pythons`` has their interpreters, ``--peer-weights`` the backbone's weights in timm's names (see
README.md beside this script).
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.common import HERE, SETS, Bench, Row, linked, options, spread, start
from benchmarks.peers.lines import write_lines
from benchmarks.peers.sides import SideError, measured

INDUSTRIAL = ("toothbrush", "bottle", "magnetic_tile", "capsules")
SIZE = 224
"""Side of the input, pixels, unless another is asked for; also the default of the peers' scripts."""
OWN = "own"
"""PatchCore's sampler as anomalib has it; not in the parameters of lines."""
OURS = ("anomem", "padim", "knn", "ocsvm", "iforest")
Found = dict[tuple[str, str], list[dict[str, Any]]]
"""Title of a side and name of a set -> its units."""
ABSENT = "Did not run"
COLUMNS = {
    "whole_seconds": ("Whole process, seconds", 1),
    "peak_rss_mb": ("Peak memory of the process, MB", 0),
}
"""Tables; the run lines have accuracy, and seconds of fits and scores."""


@dataclass(frozen=True)
class Peer:
    """Peer: a method of another library.

    Parameters
    ----------
    library : str
        Library whose interpreter runs it.
    model : str
        Name in its script.
    title : str
        Name in tables.
    chance : bool
        True where the result depends on the seed.
    extra : tuple of str
        Options of this script that are passed to its script.
    """

    library: str
    model: str
    title: str
    chance: bool = False
    extra: tuple[str, ...] = ()

    @property
    def trained(self) -> bool:
        """True where the number of optimiser steps is an option."""
        return "steps" in self.extra

    @property
    def name(self) -> str:
        """Name in ``--peers``."""
        return f"{self.library}-{self.model}"


PEERS = {
    peer.name: peer
    for peer in (
        Peer("anomalib", "padim", "anomalib PaDiM", chance=True),
        Peer("anomalib", "patchcore", "anomalib PatchCore", chance=True, extra=("coreset", "sampler")),
        Peer("anomalib", "stfpm", "anomalib STFPM", chance=True, extra=("steps",)),
        Peer("anomalib", "fastflow", "anomalib FastFlow", chance=True, extra=("steps",)),
        Peer("anomalib", "supersimplenet", "anomalib SuperSimpleNet", chance=True, extra=("steps",)),
        Peer("pyod", "ecod", "PyOD ECOD"),
        Peer("pyod", "copod", "PyOD COPOD"),
        Peer("pyod", "iforest", "PyOD Isolation Forest", chance=True),
        Peer("pyod", "knn", "PyOD k-NN"),
        Peer("pyod", "lof", "PyOD LOF"),
        Peer("pyod", "ocsvm", "PyOD OC-SVM"),
        Peer("pyod", "deepsvdd", "PyOD DeepSVDD", chance=True),
        Peer("pyod", "lunar", "PyOD LUNAR", chance=True),
        Peer("sklearn", "ocsvm", "scikit-learn OC-SVM"),
        Peer("sklearn", "iforest", "scikit-learn Isolation Forest", chance=True),
        Peer("sklearn", "lof", "scikit-learn LOF"),
    )
}
LIBRARIES = tuple(dict.fromkeys(peer.library for peer in PEERS.values()))

CANNOT = {
    "anomalib EfficientAD": "downloads its teacher's weights and photographs before training; takes no backbone",
    "anomalib DRAEM": "downloads photographs of textures when it is made; takes no backbone",
    "anomalib Reverse Distillation": "supports ResNets alone",
    "anomalib CFA": "supports four backbones of torchvision alone, whose weights are downloaded",
    "anomalib Dinomaly, AnomalyDINO": "made for DINOv2's transformers, whose weights are downloaded",
    "anomalib WinCLIP": "made for CLIP, whose weights are downloaded",
    "PyOD with its own encoders": "DINOv2 and CLIP, whose weights are downloaded; here it has the shared backbone",
}
"""Peers left out, with the reason."""

NOTES = (
    "All: EfficientNet-Lite0 with the same ImageNet weights, input x / 127.5 - 1, no crop, batches of 16.",
    "All: squares of 224 px unless another size is named.",
    "Whole process: from the start of the interpreter, imports included, to its end; memory: peak resident.",
    "anomalib's maps have the size of the input and are resized to each image's frame; PyOD's: none.",
    "PyOD's and scikit-learn's detectors have the libraries' defaults and take the 1,280 pooled values per image.",
    "PyOD's EmbeddingOD standardises these values, scikit-learn does not.",
    "PyOD's ECOD and COPOD rank a test image among all test images: its score depends on the other images.",
    "Peers are fitted to all training images; ours reserve a part of them for calibration.",
    "anomalib's FastFlow does not support EfficientNet: it takes maps at the same strides as of a ResNet.",
)


def sides(bench: Bench) -> Iterator[tuple[str, str, Peer | None]]:
    """Yield name, title and peer of every side, in turn order; ours have no peer."""
    for method in bench.args.ours:
        yield f"anomem-{method}", f"ours: {method}", None
    for name in bench.args.peers:
        yield name, PEERS[name].title, PEERS[name]


def given_to(peer: Peer | None, bench: Bench) -> dict[str, Any]:
    """Return the options passed to a side; ours have their defaults."""
    if peer is None:
        return {}
    size = {"size": bench.args.size} if bench.args.size != SIZE else {}
    given = {option: getattr(bench.args, option) for option in peer.extra if getattr(bench.args, option) != OWN}
    return given | size


def label_of(peer: Peer, bench: Bench) -> str:
    """Return the name of a peer in tables, with PatchCore's coreset and a size that is not the usual."""
    share = "largest affordable" if bench.args.sampler != OWN else f"{100 * bench.args.coreset:g} %"
    coreset = f", coreset {share}" if "coreset" in peer.extra else ""
    size = f", {bench.args.size} px" if bench.args.size != SIZE else ""
    return f"{peer.title}{coreset}{size}"


def command(bench: Bench, folder: Path, who: str, peer: Peer | None, seed: int) -> list[str]:
    """Return the command line of one measurement, without its output folder.

    Raises
    ------
    SideError
        The interpreter or the weights are missing.
    """
    args = bench.args
    shared = [folder, "--seed", seed, "--threads", args.threads]
    if peer is None:
        method = who.removeprefix("anomem-")
        own = ["--model", method, "--size", args.size]
        return [str(part) for part in (sys.executable, HERE / "peers" / "anomem_side.py", *shared, *own)]
    python = args.peer_pythons.get(peer.library)
    if python is None or args.peer_weights is None:
        what = f"--peer-pythons {peer.library}=PYTHON" if python is None else "--peer-weights"
        raise SideError(f"no {what} was given")
    script = HERE / "peers" / f"{peer.library}_peer.py"
    more = [part for name, value in given_to(peer, bench).items() for part in (f"--{name}", value)]
    own = ["--model", peer.model, "--weights", args.peer_weights, *more]
    return [str(part) for part in (python, script, *shared, *own)]


def take_turns(bench: Bench) -> tuple[Found, dict[str, dict[str, list[str]]]]:
    """Run every side on every set and seed; return the units, and the reasons and sets of sides that did not run."""
    args = bench.args
    found: Found = {}
    failed: dict[str, dict[str, list[str]]] = {}
    for name in args.sets:
        folder = linked(bench.folder / "images" / name, name, args.limit)
        for seed in args.seeds:
            for who, title, peer in sides(bench):
                if peer is not None and not (peer.chance or args.all_seeds or seed == args.seeds[0]):
                    continue
                if peer is not None and peer.trained and name not in args.trained_sets:
                    continue
                key = {"who": who, "set": name, "seed": seed, "threads": args.threads, **given_to(peer, bench)}
                try:
                    line = command(bench, folder, who, peer, seed)
                    unit = bench.unit(key, partial(measured, name, line, folder, bench))
                except SideError as reason:
                    print(f"{title} on {name}: {reason}", file=sys.stderr, flush=True)
                    where = failed.setdefault(title, {}).setdefault(str(reason), [])
                    where += [] if name in where else [name]
                else:
                    found.setdefault((title, name), []).append(unit)
    return found, failed


def rows_of(found: Found, sets: list[str]) -> list[Row]:
    """Return one table per figure: a row per side, a column per set."""
    rows = []
    titles = list(dict.fromkeys(title for title, _ in found))
    for key, (table, digits) in COLUMNS.items():
        for title in titles:
            values = {name: _joined(found.get((title, name), []), key, digits) for name in sets}
            if any(value is not None for value in values.values()):
                rows.append(Row(table, title, values))
    return rows


def absent_rows(failed: dict[str, dict[str, list[str]]], sets: list[str]) -> list[Row]:
    """Return a row per peer that did not run, with the reason, and the sets where not all failed."""
    reasons = {
        title: "; ".join(why if where == sets else f"{', '.join(where)}: {why}" for why, where in said.items())
        for title, said in failed.items()
    }
    return [Row(ABSENT, title, {"reason": reason}) for title, reason in {**reasons, **CANNOT}.items()]


def _joined(units: list[dict[str, Any]], key: str, digits: int) -> Any:
    known = [unit[key] for unit in units if unit[key] is not None]
    return spread(known, digits) if known else None


def budget_notes(found: Found) -> list[str]:
    """Return notes on the training budgets and the load of the machine."""
    units = [unit for part in found.values() for unit in part]
    steps = sorted({(unit["set"], unit["epochs"], unit["steps"]) for unit in units if unit.get("epochs")})
    items = sorted({(unit["set"], unit["coreset_items"]) for unit in units if unit.get("coreset_items")})
    notes = []
    if steps:
        told = "; ".join(f"{name} {n} steps ({epochs} epochs)" for name, epochs, n in steps)
        notes.append(f"anomalib's trained models, with its own optimisers and schedules: {told}.")
    if items:
        notes.append("PatchCore's memory, patches: " + "; ".join(f"{name} {count:,}" for name, count in items) + ".")
    if units:
        load = statistics.fmean(unit["load_average"] for unit in units)
        notes.append(f"Mean load of the machine at the end of a process: {load:.1f}.")
    return notes


def interpreters(pairs: list[str]) -> dict[str, str]:
    """Parse NAME=PYTHON into library -> interpreter."""
    found = dict(pair.partition("=")[::2] for pair in pairs)
    for library, python in found.items():
        if library not in LIBRARIES or not Path(python).is_file():
            sys.exit(
                f"--peer-pythons {library}={python}: wrong form; give NAME=PYTHON, NAME one of {', '.join(LIBRARIES)}"
            )
    return found


def main() -> None:
    """Measure all sides and write the result file."""
    parser = options(__doc__)
    parser.add_argument("--sets", nargs="+", default=list(INDUSTRIAL), choices=list(SETS))
    parser.add_argument("--trained-sets", nargs="*", choices=list(SETS), help="sets for trained peers [all sets]")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--peers", nargs="*", default=list(PEERS), choices=list(PEERS), metavar="PEER")
    parser.add_argument("--ours", nargs="*", default=list(OURS), metavar="METHOD", help="methods of anomem")
    parser.add_argument(
        "--peer-pythons", nargs="+", default=[], metavar="NAME=PYTHON", help="interpreters of the peers"
    )
    parser.add_argument("--peer-weights", type=Path, help="the backbone's weights in timm's names")
    parser.add_argument(
        "--steps", type=int, default=200, help="steps of anomalib's trained models, rounded to whole epochs"
    )
    parser.add_argument("--coreset", type=float, default=0.003, help="share of patches in PatchCore's coreset")
    parser.add_argument(
        "--sampler", choices=(OWN, "pruned"), default=OWN, help="of PatchCore; pruned: the same picks sooner"
    )
    parser.add_argument("--size", type=int, default=SIZE, help="side of the square input, pixels")
    parser.add_argument("--patience", type=float, default=3600, help="time limit per process, seconds")
    parser.add_argument("--all-seeds", action="store_true", help="run every seed also where only seconds depend on it")
    parser.add_argument("--lines", type=Path, default=HERE / "results" / "peers.jsonl", help="run lines of the peers")
    bench = start("peers", "Peers: the same images, backbone weights and cores", parser.parse_args())
    bench.args.peer_pythons = interpreters(bench.args.peer_pythons)
    bench.args.trained_sets = bench.args.sets if bench.args.trained_sets is None else bench.args.trained_sets
    found, failed = take_turns(bench)
    if not bench.args.limit:
        titled = {PEERS[name].title: PEERS[name] for name in bench.args.peers}
        parts = [(titled[title], units) for (title, _), units in found.items() if title in titled]
        lines = [
            (peer.name, label_of(peer, bench), given_to(peer, bench), unit) for peer, units in parts for unit in units
        ]
        write_lines(bench.args.lines, lines, bench.args.limit)
    sets = bench.args.sets
    rows = [*rows_of(found, sets), *absent_rows(failed, sets)]
    notes = []
    if set(bench.args.trained_sets) != set(sets):
        notes.append(f"anomalib's trained models ran on {', '.join(bench.args.trained_sets)} alone, to save time.")
    left_out = [peer.title for name, peer in PEERS.items() if name not in bench.args.peers]
    notes += [f"Not in this run: {', '.join(left_out)}."] if left_out else []
    notes += [] if bench.args.all_seeds else ["Deterministic peers ran with the first seed alone."]
    bench.write(rows, notes=[*NOTES, *budget_notes(found), *notes])


if __name__ == "__main__":
    main()
