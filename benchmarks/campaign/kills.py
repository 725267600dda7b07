"""Commands killed at random moments: no unreadable file, no finished result lost, resumed as uninterrupted.

``python -m benchmarks.campaign.kills``, about ten minutes: each command is run in peace, then killed (SIGKILL) 50
times, each time after a random share of its time, in forks of a process that has imported everything. After each kill
all results are read; a result that was finished stays finished, a file that was there before has its old or its new
content. A command that continues (fit, score --engine processes, bench) continues from what the kill left; the others
start again. Whatever ends is compared with the run in peace.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import random
import shutil
import signal
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path

import numpy as np

import anomem
from anomem.benchmark.run_file import read_runs
from anomem.cli.main import run
from anomem.data.synthetic import write_textures
from anomem.runtime.images import IMAGE_SUFFIXES
from benchmarks.campaign.result import FOLDER, write_result

SECONDS = 600
"""Time limit of a run."""

Results = dict[str, str]
"""Finished results with digests of their content."""


@dataclass(frozen=True)
class Command:
    """Command under test.

    Parameters
    ----------
    name : str
    arguments : tuple of str
        Arguments in a folder with ``brick``, ``m``, ``l.csv`` and, where `before` says so, an earlier result.
    results : callable
        Function from the folder to its finished results; raises for an unreadable one.
    before : str
        File that is copied to `target` before the first run.
    target : str
        File that the command replaces.
    continues : bool
        True for a command that continues what a kill left.
    """

    name: str
    arguments: tuple[str, ...]
    results: Callable[[Path], Results]
    before: str = ""
    target: str = ""
    continues: bool = False


@dataclass
class Counts:
    """Outcome of the kills of one command."""

    runs: int = 0
    killed: int = 0
    completed: int = 0
    failed: int = 0
    unreadable: int = 0
    lost: int = 0
    different: int = 0
    left_behind: int = 0
    seconds_in_peace: float = 0.0
    problems: list[str] = field(default_factory=list)

    def find(self, kind: str, text: str) -> None:
        """Count a problem and keep its first words."""
        setattr(self, kind, getattr(self, kind) + 1)
        self.problems.append(f"{kind}: {text[:300]}")
        print(self.problems[-1], flush=True)


def model_results(name: str) -> Callable[[Path], Results]:
    """Return the function from a folder to the scores and calibration of the model `name` in it."""

    def results(folder: Path) -> Results:
        if not (folder / name).exists():
            return {}
        model = anomem.load(folder / name)
        images = sorted(p for p in (folder / "brick" / "test").rglob("*") if p.suffix in IMAGE_SUFFIXES)
        found = [np.asarray(model.anomaly_score(images)), np.asarray(model.calibration_.scores)]
        return {name: digest(*(values.tobytes() for values in found), repr(model.calibration_.alpha).encode())}

    return results


def table_results(folder: Path) -> Results:
    """Read the table of `score --out`."""
    if not (folder / "r.csv").exists():
        return {}
    with (folder / "r.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    if any(None in row or None in row.values() for row in rows):
        raise ValueError("r.csv has a torn row")
    return {"r.csv": digest((folder / "r.csv").read_bytes())}


def shard_results(folder: Path) -> Results:
    """Read the finished shards."""
    import pyarrow.parquet as pq

    found = {}
    for path in sorted((folder / "run" / "shards").glob("*.parquet")):
        pq.read_table(path)
        found[path.name] = digest(path.read_bytes())
    return found


def bench_results(folder: Path) -> Results:
    """Read the finished units, without times; a torn last line is not finished."""
    if not (folder / "runs.jsonl").exists():
        return {}
    lines = [{k: v for k, v in line.items() if k != "measured"} for line in read_runs(folder / "runs.jsonl")]
    return {str(line["key"]): digest(json.dumps(line, sort_keys=True).encode()) for line in lines}


def digest(*parts: bytes) -> str:
    """Return a digest of contents."""
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


TRAINED = ("--method", "memae", "--set", "size=16", "--set", "train_steps=150", "--set", "train_batch=4")
BENCH = ("bench", "few-labels", "--methods", "knn", "--data", "brick", "--set", "knn.size=32")
DRAWS = ("--set", "few-labels.k=[0,1]", "--set", "few-labels.draws=30")

COMMANDS = (
    Command(
        "fit",
        ("fit", "brick", "--out", "new", *TRAINED, "--checkpoint-every", "0", "--resume"),
        model_results("new"),
        continues=True,
    ),
    Command(
        "fit, closed form",
        ("fit", "brick", "--out", "new", "--method", "knn", "--set", "size=64", "--resume", "--checkpoint-every", "0"),
        model_results("new"),
        continues=True,
    ),
    Command("label", ("label", "m", "--labels", "l.csv", "--out", "new"), model_results("new"), "m", "new"),
    Command(
        "calibrate",
        ("calibrate", "m", "brick/test/good", "--alpha", "0.2", "--out", "new"),
        model_results("new"),
        "m",
        "new",
    ),
    Command("score --out", ("score", "m", "brick", "--out", "r.csv"), table_results, "l.csv", "r.csv"),
    Command(
        "score --engine processes",
        (
            *("score", "m", "brick/test", "--out", "run", "--engine", "processes"),
            *("--workers", "1", "--shard-images", "1"),
        ),
        shard_results,
        continues=True,
    ),
    Command("export", ("export", "m", "--out", "new.onnx"), model_results("new.onnx")),
    Command("bench", (*BENCH, *DRAWS, "--out", "runs.jsonl"), bench_results, continues=True),
)


def forked(work: Callable[[], int]) -> int:
    """Run a function in a fork, silent, in a session of its own; return the process id."""
    child = os.fork()
    if not child:
        os.setsid()
        for descriptor in (1, 2):
            os.dup2(
                os.open("stderr" if descriptor == 2 else os.devnull, os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor
            )
        try:
            os._exit(work())
        finally:
            os._exit(9)
    return child


def ended(child: int) -> int:
    """Wait for a process; its exit code, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def read_in_fork(command: Command, folder: Path) -> Results | str:
    """Read the results in a fork, since runtimes must not be loaded here; a text for an unreadable one."""
    place = folder / "read.json"

    def work() -> int:
        try:
            found: Results | str = command.results(folder)
        except BaseException as error:  # noqa: BLE001 - whatever cannot be read
            found = f"{type(error).__name__}: {error}"
        place.write_text(json.dumps(found), encoding="utf-8")
        return 0

    ended(forked(work))
    found: Results | str = json.loads(place.read_text(encoding="utf-8"))
    place.unlink()
    return found


def killed_after(command: Command, delay: float) -> int:
    """Run a command in the current folder, kill it after a delay, and return its exit code."""
    child = forked(lambda: run(list(command.arguments)))
    deadline = time.monotonic() + min(delay, SECONDS)
    while time.monotonic() < deadline:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    return ended(child)


def prepare(root: Path) -> Path:
    """Make the images, the model and the labels that all commands start from."""
    seed = root / "seed"
    seed.mkdir()
    write_textures(seed, n_train=30, n_test=12, size=72, seed=0, textures=["brick"])
    os.chdir(seed)
    code = ended(forked(lambda: run(["fit", "brick", "--out", "m", "--set", "size=64", "--alpha", "0.1"])))
    if code:
        raise SystemExit(f"fit ended with code {code}: {(seed / 'stderr').read_text(encoding='utf-8')}")
    defects = sorted(p for p in (seed / "brick" / "test").rglob("*.png") if p.parent.name != "good")
    (seed / "l.csv").write_text("path,label\n" + "".join(f"{p},1\n" for p in defects), encoding="utf-8")
    return seed


def fresh(command: Command, seed: Path, folder: Path) -> None:
    """Lay the folder of a command anew."""
    os.chdir(seed)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for entry in seed.iterdir():
        if entry.name != "stderr":
            (folder / entry.name).symlink_to(entry)
    if command.before:
        shutil.copy(seed / command.before, folder / command.target)
    os.chdir(folder)


def attack(command: Command, seed: Path, folder: Path, kills: int, rng: random.Random) -> Counts:
    """Run a command in peace, then kill it, and count what is wrong."""
    counts = Counts()
    fresh(command, seed, folder)
    old = read_in_fork(command, folder)
    started = time.monotonic()
    code = killed_after(command, SECONDS)
    counts.seconds_in_peace = longest = round(time.monotonic() - started, 2)
    whole = read_in_fork(command, folder)
    if code or not isinstance(whole, dict) or not whole:
        raise SystemExit(f"{command.name}: in peace, code {code}: {whole}")
    fresh(command, seed, folder)
    before: Results = old if isinstance(old, dict) else {}
    while counts.killed < kills and counts.runs < 4 * kills:
        counts.runs += 1
        # A command that continues needs less and less time.
        delay = rng.uniform(0, longest * (0.6 if command.continues else 1.0))
        code = killed_after(command, delay)
        found = read_in_fork(command, folder)
        if code == -signal.SIGKILL:
            counts.killed += 1
            before = _check(counts, found, before, whole, old)
        elif code:
            counts.find("failed", f"code {code}: {_last_line(folder)}")
        else:
            counts.completed += 1
            _check_whole(counts, found, whole)
        if code != -signal.SIGKILL or not command.continues:
            fresh(command, seed, folder)
            before = old if isinstance(old, dict) else {}
    _finish(command, counts, folder, whole)
    return counts


def _check(counts: Counts, found: Results | str, before: Results, whole: Results, old: Results | str) -> Results:
    if not isinstance(found, dict):
        counts.find("unreadable", found)
        return before
    lost = [name for name in before if name not in found]
    if lost:
        counts.find("lost", ", ".join(lost))
    allowed = [whole, old if isinstance(old, dict) else {}]
    wrong = [name for name, value in found.items() if all(known.get(name) != value for known in allowed)]
    if wrong:
        counts.find("different", ", ".join(wrong))
    return found


def _check_whole(counts: Counts, found: Results | str, whole: Results) -> None:
    if found != whole:
        counts.find("different", f"a run to the end: {found}"[:300])


def _finish(command: Command, counts: Counts, folder: Path, whole: Results) -> None:
    """Run to the end on top of the last kill; then nothing unfinished is left."""
    code = killed_after(command, SECONDS)
    if code:
        counts.find("failed", f"code {code}: {_last_line(folder)}")
    _check_whole(counts, read_in_fork(command, folder), whole)
    for path in (*folder.glob(".*"), *folder.glob("run/.*"), *folder.glob("run/shards/.*")):
        counts.find("left_behind", path.name)


def _last_line(folder: Path) -> str:
    text = (folder / "stderr").read_text(encoding="utf-8", errors="replace").strip()
    return text.splitlines()[-1] if text else ""


def main() -> None:
    """Kill all commands and write the counts, after each command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=50, help="kills per command")
    parser.add_argument("--only", default="", help="commands whose names contain this text; the others' counts stay")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=FOLDER / "kills-commands.json")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    for name in ("detectors.anomem", "detectors.baselines.knn", "detectors.reconstruction.memae", "benchmark.run"):
        import_module(f"anomem.{name}")
    import_module("anomem.benchmark.protocols.few_labels")
    out = args.out.absolute()
    found = json.loads(out.read_text(encoding="utf-8"))["commands"] if out.exists() else {}
    with tempfile.TemporaryDirectory(prefix="anomem-kills-") as place:
        seed = prepare(Path(place))
        for command in (command for command in COMMANDS if args.only in command.name):
            rng = random.Random(f"{args.seed} {command.name}")
            found[command.name] = asdict(attack(command, seed, Path(place) / "work", args.kills, rng))
            print(command.name, found[command.name], flush=True)
            kinds = ("killed", "failed", "unreadable", "lost", "different", "left_behind")
            total = {kind: sum(counts[kind] for counts in found.values()) for kind in kinds}
            write_result("kills-commands", {"total": total, "commands": found}, out)
        os.chdir("/")


if __name__ == "__main__":
    main()
