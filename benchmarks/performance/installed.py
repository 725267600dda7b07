"""Size and import time of an installed anomem-runtime: packages, megabytes, seconds.

For each engine, the wheel built from this tree is installed with its extra into a fresh environment without pip. There
an exported model is scored, and its scores are compared with those of the original model.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from functools import partial
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from benchmarks.common import HERE, Row, isolated, options, start

ENGINES = ("onnxruntime", "openvino")
SIZES, TIMES = "Installed", "Seconds to import, a fresh process each time"

IMPORT = "import time; t = time.perf_counter(); import {module}; print(time.perf_counter() - t)"
SCORE = """
import json, sys, time
started = time.perf_counter()
from anomem.runtime.session import Session
session = Session.open(sys.argv[1])
scores = [float(scored.score) for scored in session.score(sys.argv[2:], maps=True)]
print(json.dumps({"engine": session.engine.name, "scores": scores, "seconds": time.perf_counter() - started}))
"""


def install(engine: str, place: Path) -> Path:
    """Build the wheel and install it with one engine into a fresh environment; return its Python."""
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = ["wheel", "--no-build-isolation", "--no-deps", "--wheel-dir", str(place), str(HERE.parent / "runtime")]
    subprocess.run([*pip, *build], check=True)
    (wheel,) = place.glob("anomem_runtime-*.whl")
    venv.create(place / "venv", with_pip=False)
    python = place / "venv" / "bin" / "python"
    subprocess.run([*pip, "--python", str(python), "install", f"{wheel}[{engine}]"], check=True)
    return python


def size_mb(folder: Path) -> float:
    """Return a folder's size on disk in 10**6 bytes, rounded up to blocks."""
    return sum(path.lstat().st_blocks * 512 for path in folder.rglob("*")) / 1e6


def import_seconds(python: Path | str, module: str, repeats: int) -> dict[str, float]:
    """Import a module in fresh processes: the statement alone, and the whole process."""
    statements, processes = [], []
    for _ in range(repeats):
        started = time.perf_counter()
        said = subprocess.run([python, "-c", IMPORT.format(module=module)], capture_output=True, text=True, check=True)
        processes.append(time.perf_counter() - started)
        statements.append(float(said.stdout))
    return {
        "median": round(statistics.median(statements), 4),
        "highest": round(max(statements), 4),
        "median, with Python": round(statistics.median(processes), 4),
        "n": repeats,
    }


def installed(engine: str, repeats: int) -> dict[str, Any]:
    """Install one engine; measure its size and time, and check its scores."""
    with tempfile.TemporaryDirectory(prefix="anomem-installed-") as name:
        python = install(engine, Path(name))
        (site,) = (Path(name) / "venv" / "lib").glob("python3*/site-packages")
        packages = {found.metadata["Name"]: found.version for found in distributions(path=[str(site)])}
        weight, of_engine = size_mb(site.parents[2]), size_mb(site / engine)
        times = {module: import_seconds(python, module, repeats) for module in ("anomem", "anomem.runtime.session")}
        model = isolated(export_model, name)
        words = [str(python), "-c", SCORE, model["file"], *model["images"]]
        # The working directory must not contain the sources.
        said = subprocess.run(words, capture_output=True, text=True, check=True, cwd=name)
    found = json.loads(said.stdout)
    span = max(model["scores"]) - min(model["scores"])
    gap = max(abs(a - b) for a, b in zip(found["scores"], model["scores"], strict=True))
    return {
        "packages": dict(sorted(packages.items(), key=lambda item: item[0].lower())),
        "mb": round(weight, 1),
        "engine_mb": round(of_engine, 1),
        "times": times,
        "engine": found["engine"],
        "gap": gap / span,
        "images": len(found["scores"]),
        "seconds": round(found["seconds"], 3),
    }


def export_model(folder: str) -> dict[str, Any]:
    """Fit the default model on textures, export it, and score with it."""
    import warnings

    from anomem.data.synthetic import write_textures
    from anomem.detectors.anomem.detector import AnoMem

    (root,) = write_textures(Path(folder) / "textures", n_train=30, n_test=4, size=256, seed=0, textures=["brick"])
    images = sorted(str(path) for path in (root / "test").rglob("*.png"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        detector = AnoMem().fit(root, device="cpu")
    file = Path(folder) / "model.onnx"
    detector.export(file)
    return {"file": str(file), "images": images, "scores": [float(s) for s in detector.anomaly_score(images)]}


def main() -> None:
    """Measure and write the result file."""
    bench = start("installed", "anomem-runtime, installed", options(__doc__).parse_args())
    repeats = 5 if bench.args.limit else 21
    rows, notes = [], []
    for engine in ENGINES:
        found = bench.unit({"engine": engine, "repeats": repeats}, partial(installed, engine, repeats))
        if found["engine"] != engine or found["gap"] > 1e-4:
            sys.exit(
                f"{engine}: scores of {found['engine']} differ from the model's by {found['gap']:.1e} of the range"
            )
        count, mb = len(found["packages"]), found["mb"]
        name = f"anomem-runtime[{engine}]"
        rows.append(
            Row(
                SIZES,
                name,
                {
                    "MB": mb,
                    "of them the engine": found["engine_mb"],
                    "packages": count,
                    f"scores of {found['images']} images, largest difference / range": float(f"{found['gap']:.1e}"),
                    "scored from a cold start, s": found["seconds"],
                },
            )
        )
        for module, seconds in found["times"].items():
            rows.append(Row(TIMES, f"import {module}, {name}", seconds))
        versions = ", ".join(f"{package} {version}" for package, version in found["packages"].items())
        notes.append(f"{name}: {versions}.")
    whole = bench.unit(
        {"engine": "all", "repeats": repeats}, lambda: {"anomem": import_seconds(sys.executable, "anomem", repeats)}
    )["anomem"]
    rows.append(Row(TIMES, "import anomem, everything installed", whole))
    notes += [
        "OpenVINO includes its plugins for graphics and neural processors; no extra leaves them out.",
        "The environment has no pip; MB: disk blocks of all its files, compiled modules included.",
        "The bar limits the whole process, the start of Python included.",
        "The scores are compared with those of the model in torch: brick, planted defects, the default method.",
    ]
    bench.write(rows, notes=notes)


if __name__ == "__main__":
    os.environ.pop("PYTHONPATH", None)
    main()
