"""Coverage-guided fuzzing of one reader: ``python -m benchmarks.fuzz.guided READER --runs N``.

Needs atheris (``pip install atheris``). Inputs begin with those of the random campaign; what reaches new code is kept
in the corpus, ``benchmarks/fuzz/corpus/READER.zip``. An error that is not anomem's ends the run with its input beside
it.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import warnings
import zipfile
from pathlib import Path
from random import Random

from anomem.runtime.atomic import atomic_path
from benchmarks.campaign.result import FOLDER, write_result

CORPUS = Path(__file__).parent / "corpus"
READERS = (
    *("image png", "image tiff", "table csv", "annotations json", "annotations cvat", "journal", "assignments"),
    *("store", "zip", "tar", "shards manifest", "model file", "onnx facts"),
)


def child(name: str, runs: int, corpus: Path, work: Path) -> None:
    """Run libFuzzer in this process, which ends with it."""
    import atheris

    with atheris.instrument_imports(include=["anomem"]):
        from anomem.errors import AnomemError
        from benchmarks.fuzz.__main__ import MEGABYTES, _readers
    (reader,) = (reader for reader in _readers(work) if reader.name == name)
    for i in range(40):
        (corpus / f"seed-{i}").write_bytes(reader.make(Random(i)))
    warnings.simplefilter("ignore")

    def one(data: bytes) -> None:
        try:
            reader.read(data)
        except AnomemError:
            return

    options = [f"-runs={runs}", "-timeout=30", f"-rss_limit_mb={2048 + MEGABYTES}", "-max_len=400000", "-verbosity=1"]
    atheris.Setup([sys.argv[0], *options, f"-artifact_prefix={work}/finding-", str(corpus)], one)
    atheris.Fuzz()


def guided(name: str, runs: int) -> dict[str, object]:
    """Fuzz a reader in a process of its own, and keep its corpus; return the counts."""
    kept = CORPUS / f"{name.replace(' ', '-')}.zip"
    with tempfile.TemporaryDirectory(prefix="anomem-guided-") as place:
        corpus, work = Path(place) / "corpus", Path(place) / "work"
        corpus.mkdir()
        work.mkdir()
        if kept.exists():
            with zipfile.ZipFile(kept) as file:
                file.extractall(corpus)
        command = [sys.executable, "-m", "benchmarks.fuzz.guided", name, "--runs", str(runs), "--child", place]
        ran = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        findings = sorted(work.glob("finding-*"))
        for finding in findings:
            print(name, finding.name, ran.stderr[-1500:])
            (CORPUS / f"{name.replace(' ', '-')}-{finding.name}").write_bytes(finding.read_bytes())
        done = re.findall(r"Done (\d+) runs|^#(\d+)\s", ran.stderr, re.MULTILINE)
        covered = re.findall(r"cov: (\d+)", ran.stderr)
        CORPUS.mkdir(exist_ok=True)
        inputs = sorted(path for path in corpus.iterdir() if path.stat().st_size < 20_000)[:400]
        with atomic_path(kept) as part, zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as file:
            for path in inputs:
                file.writestr(zipfile.ZipInfo(path.name), path.read_bytes())
    return {
        "runs": max((int(a or b) for a, b in done), default=0),
        "edges": int(covered[-1]) if covered else 0,
        "corpus": len(inputs),
        "findings": len(findings) or int(ran.returncode != 0),
    }


def main() -> None:
    """Fuzz one reader, or all that are worth it, and write the counts."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("readers", nargs="*", default=list(READERS))
    parser.add_argument("--runs", type=int, default=20_000)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child is not None:
        child(args.readers[0], args.runs, args.child / "corpus", args.child / "work")
        os._exit(0)
    path = FOLDER / "fuzz-guided.json"
    found = json.loads(path.read_text(encoding="utf-8"))["readers"] if path.exists() else {}
    for name in args.readers:
        found[name] = guided(name, args.runs)
        print(name, found[name], flush=True)
        total = {key: sum(count[key] for count in found.values()) for key in ("runs", "findings")}
        write_result("fuzz-guided", {"total": total, "readers": found})


if __name__ == "__main__":
    main()
