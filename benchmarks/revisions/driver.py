"""Run every case with one revision of the package, through its public API, and write the results to a folder.

``python -m benchmarks.revisions.driver --out DIR``, from the repository's root, with the revision's sources first on
PYTHONPATH. `benchmarks.revisions` runs it once per revision and compares the folders.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.revisions import plan
from benchmarks.revisions.plan import Case
from tests.golden import cases, names

Task = tuple[str, Callable[[], None]]


def main() -> None:
    """Run the tasks of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to fill")
    parser.add_argument("--cross", type=Path, help="folder of the other revision, whose model files are loaded")
    parser.add_argument("--only", action="append", default=[], help="method or case, as a pattern")
    parser.add_argument("--quick", action="store_true", help="tiny parameters on textures")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    only = tuple(options.only)
    chosen = plan.cases(names.methods(), only=only, quick=options.quick)
    tasks = _fit_tasks(options.out, chosen, quick=options.quick)
    if options.cross is not None:
        tasks += _cross_tasks(options.out, options.cross)
    if plan.chosen("bench", only):
        protocols = plan.JOURNAL[:1] if options.quick else plan.JOURNAL
        tasks += [(f"bench/{name}", lambda name=name: bench(options.out, name)) for name in protocols]
    if plan.chosen("commands", only):
        tasks += command_tasks(options.out, quick=options.quick)
    run(tasks, options.out)


def run(tasks: list[Task], out: Path) -> None:
    """Run the tasks without results in `out`, in order; a failed task writes its error as result."""
    finished = out / "tasks.txt"
    done = set(finished.read_text().splitlines()) if finished.is_file() else set()
    for place, (name, task) in enumerate(tasks, 1):
        if name in done:
            continue
        started, error_file = time.perf_counter(), out / f"{name}.error.json"
        error_file.unlink(missing_ok=True)
        try:
            task()
        except Exception as error:  # noqa: BLE001 - the error of a case is its result
            said = f"{type(error).__name__}: {error}"
            write_json(error_file, {"error": said})
            said = f"  FAILED: {said}"
        else:
            said = ""
            with finished.open("a") as file:
                file.write(f"{name}\n")
        seconds = time.perf_counter() - started
        print(f"[{place}/{len(tasks)}] {name}  {seconds:.1f} s{said}", file=sys.stderr, flush=True)


def _fit_tasks(out: Path, chosen: list[Case], *, quick: bool) -> list[Task]:
    tasks: list[Task] = [("images/textures", lambda: inputs(out))]
    return tasks + [(str(case), lambda case=case: fitted(out, case, quick=quick)) for case in chosen]


def inputs(out: Path) -> None:
    """Record the images of all cases: a change in them would change every other result."""
    images = cases.textures()
    parts = {name: cases.digests(getattr(images, name)) for name in ("train", "test", "labelled", "fresh")}
    write_npz(out / "images/textures.npz", parts)


def fitted(out: Path, case: Case, *, quick: bool) -> None:
    """Fit one case; measure it, with labels, recalibrated; save and export it where the case requires."""
    images = plan.images_of(case.data)
    detector = _new(case)
    cases.fit(detector, images, fit_precision="auto")
    stride = 1 if case.data == plan.TEXTURES else 8
    found = cases.measure(detector, images.test, stride=stride)
    found["digests"] = np.asarray(sorted(detector.digests_), dtype=object).astype(str)
    found["counts"] = np.asarray([f"{name}={count}" for name, count in sorted(detector.counts_.items())])
    write_npz(out / f"{case}.npz", found)
    if case.saved:
        _saved(out, case, detector, images, formats(case.method, quick=quick))
    if detector.supervision == "optional":
        _labels_at_fit(out, case, images)
    detector.calibrate(images.fresh, alpha=0.1, device="cpu")
    write_npz(out / f"{case}-calibrated.npz", cases.measure(detector, images.test, stride=stride))
    if case.method == "anomem":
        names.label(detector, images.labelled, device="cpu")
        write_npz(out / f"{case}-labels-later.npz", cases.measure(detector, images.test, stride=stride))


def _new(case: Case) -> Any:
    params = dict(case.params)
    if "roi" in params:
        top, bottom, left, right = params["roi"]
        params["roi"] = np.zeros((cases.SIDE, cases.SIDE), np.uint8)
        params["roi"][top:bottom, left:right] = 255
    return names.unfitted(case.method, params, tiny=case.tiny)


def _saved(out: Path, case: Case, detector: Any, images: cases.Images, suffixes: list[str]) -> None:
    import anomem

    folder = out / "models"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{case.method}.safetensors"
    detector.save(file)
    write_npz(folder / f"{case.method}.npz", cases.measure(anomem.load(file), images.test, stride=1))
    for suffix in suffixes:
        file = out / "exported" / f"{case.method}.{suffix}"
        file.parent.mkdir(parents=True, exist_ok=True)
        detector.export(file)
        measured = cases.measure(anomem.load(file), images.test, stride=1)
        write_npz(file.with_name(f"{case.method}-{suffix}.npz"), measured)


def formats(method: str, *, quick: bool) -> list[str]:
    """Return the export formats of a method whose engine is installed."""
    if quick and method == "anomem":
        return []
    return [suffix for suffix in plan.EXPORTED.get(method, ()) if importlib.util.find_spec(plan.ENGINES[suffix])]


def _labels_at_fit(out: Path, case: Case, images: cases.Images) -> None:
    detector = _new(case)
    cases.fit(detector, images, labels=True, fit_precision="auto")
    write_npz(out / f"{case}-labels-at-fit.npz", cases.measure(detector, images.test, stride=8))


def _cross_tasks(out: Path, other: Path) -> list[Task]:
    files = sorted((other / "models").glob("*.safetensors")) + sorted((other / "exported").glob("*.*"))
    kept = [file for file in files if file.suffix in (".safetensors", ".onnx", ".xml")]
    return [(f"cross/{file.name}", lambda file=file: crossed(out, file)) for file in kept]


def crossed(out: Path, file: Path) -> None:
    """Load a file of the other revision and measure it."""
    import anomem

    suffix = "" if file.suffix == ".safetensors" else f"-{file.suffix[1:]}"
    images = plan.images_of(plan.TEXTURES)
    measured = cases.measure(anomem.load(file), images.test, stride=1)
    write_npz(out / "cross" / file.parent.name / f"{file.stem}{suffix}.npz", measured)


def bench(out: Path, protocol: str) -> None:
    """Run a tiny benchmark; its journal is the result."""
    (out / "bench").mkdir(parents=True, exist_ok=True)
    (out / "bench" / f"{protocol}.jsonl").unlink(missing_ok=True)
    said = ""
    for name in names.PROTOCOLS.get(protocol, (protocol,)):
        former = names.arguments("anomem", "anomem.")
        done = _anomem(out / "bench", "bench", name, *plan.JOURNAL_ARGUMENTS, *former, "--out", f"{protocol}.jsonl")
        if done.returncode == 0:
            return
        said = done.stderr.strip()
    raise RuntimeError(said)


COMMANDS = {
    "fit": ["fit", "data", "--out", "m", "--method", "anomem", "--set", "size=64", "--alpha", "0.2"],
    "label": ["label", "m", "--labels", "labels.csv", "--out", "labelled"],
    "evaluate-labelled": ["evaluate", "labelled", "data"],
    "score-labelled": ["score", "labelled", "data/test"],
    "evaluate": ["evaluate", "m", "data"],
    "score": ["score", "m", "data/test"],
    "calibrate": ["calibrate", "m", "data/fresh", "--alpha", "0.15", "--out", "calibrated"],
    "score-calibrated": ["score", "calibrated", "data/test"],
    "methods": ["methods"],
}
"""Name -> arguments of one command, in order; --quick takes the first four."""


def command_tasks(out: Path, *, quick: bool) -> list[Task]:
    """Fit, label, calibrate, score and evaluate on the command line, with ``--json``."""
    _write_folder(out / "commands" / "data")
    chosen = list(COMMANDS)[:4] if quick else list(COMMANDS)
    return [(f"commands/{name}", lambda name=name: command(out / "commands", name)) for name in chosen]


def command(work: Path, name: str) -> None:
    """Run one command and store its output."""
    pinned = []
    if name == "fit":
        options = names.options(names.public("get")("knn").fit, {"calibration": "split"})
        pinned = [*(f"--{key}={value}" for key, value in options.items()), *names.arguments("anomem")]
    done = _anomem(work, *COMMANDS[name], *pinned, "--json")
    if done.returncode:
        raise RuntimeError(done.stderr.strip())
    write_json(work / f"{name}.json", json.loads(done.stdout))


def _write_folder(root: Path) -> None:
    """Write the textures in MVTec layout, with labelled defects and fresh normals beside them."""
    images = cases.textures()
    half = len(images.test) // 2
    parts = {"train/good": images.train, "test/good": images.test[:half], "test/defect": images.test[half:]}
    for folder, members in {**parts, "labelled": images.labelled, "fresh": images.fresh}.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for i, image in enumerate(members):
            Image.fromarray(image).save(root / folder / f"{i:03d}.png")
    rows = [f"data/labelled/{i:03d}.png,1" for i in range(len(images.labelled))]
    (root.parent / "labels.csv").write_text("\n".join(["path,label", *rows]) + "\n")


def _anomem(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "anomem", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def write_npz(path: Path, arrays: cases.Arrays) -> None:
    """Write arrays, creating the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays)


def write_json(path: Path, content: Any) -> None:
    """Write plain values, creating the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
