"""Run every benchmark, each in a process of its own, then make RESULTS.md."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ORDER = (
    "trivial",
    "one_class",
    "labels",
    "promise",
    "cifar",
    "stage_one",
    "scratch",
    "growth",
    "plume",
    "fyd",
    "pmb",
    "comparison",
    "padim",
    "peers",
    "installed",
    "speed",
    "throughput",
    "latency",
    "retrieval",
    "roofline",
)
"""What measures speed comes last and alone: run it again by itself when the machine was busy."""


def commands(args: argparse.Namespace) -> list[list[str]]:
    """Command lines in order."""
    shared = ["--threads", str(args.threads)] + (["--cache", str(args.cache)] if args.cache else [])
    shared += ["--fresh"] if args.fresh else []
    extra: dict[str, list[str]] = {name: [] for name in ORDER}
    if args.peers:
        extra["one_class"] += ["--peers", str(args.peers)]
    if args.peer_python and args.peer_weights:
        peer = ["--peer-python", str(args.peer_python), "--peer-weights", str(args.peer_weights)]
        extra["speed"] += peer
        extra["padim"] += peer
        extra["throughput"] += peer
    if args.peer_pythons and args.peer_weights:
        extra["peers"] += ["--peer-pythons", *args.peer_pythons, "--peer-weights", str(args.peer_weights)]
    needed = ("padim", "peers")
    chosen = [name for name in ORDER if name in args.only and (name not in needed or extra[name])]
    return [[sys.executable, str(HERE / f"{name}.py"), *shared, *extra[name]] for name in chosen]


def main() -> None:
    """Run all that were asked for; one that fails does not keep the others from running."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=ORDER, default=list(ORDER))
    parser.add_argument("--cache", type=Path, help="units of work, features, models")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--fresh", action="store_true", help="forget what an earlier run has done")
    parser.add_argument("--peers", type=Path, help="folder of the peers' raw outputs (see peers/README.md)")
    parser.add_argument("--peer-python", type=Path, help="interpreter of the peers' environment")
    parser.add_argument("--peer-pythons", nargs="+", metavar="NAME=PYTHON", help="of every peer (see peers/README.md)")
    parser.add_argument("--peer-weights", type=Path, help="the backbone's weights in timm's names")
    codes = {Path(c[1]).stem: subprocess.run(c, check=False).returncode for c in commands(parser.parse_args())}
    subprocess.run([sys.executable, str(HERE / "tables.py")], check=True)
    if any(codes.values()):
        sys.exit(f"failed: {', '.join(name for name, code in codes.items() if code)}")


if __name__ == "__main__":
    main()
