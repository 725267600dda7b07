"""Ray cluster of three nodes in network namespaces, one of which is cut off: ``python -m benchmarks.campaign.cluster``.

Needs root, `ip` and Ray (``pip install 'anomem[ray]'``); some minutes. A head and two nodes with one processor each get
addresses of their own on a bridge. `anomem score --engine ray` runs on the head's node. When a third of the shards are
there, the link of a node goes down: its task never ends, the head declares the node dead, and the shard is computed
elsewhere. Then all rows must be there, once, and equal to those of processes.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from anomem.detectors import get
from anomem.scale import score_shards
from benchmarks.campaign.result import write_result
from benchmarks.performance.sharding import fitted, write_files

BRIDGE, NET, NODES = "anomem-br", "10.77.0", 3
LIMIT = 600
WATCHED = {"RAY_health_check_period_ms": "1000", "RAY_health_check_failure_threshold": "5"}
"""A node that does not answer five checks, a second apart, is dead."""
TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
"""Token shared by nodes and driver."""


def ip(*arguments: str) -> None:
    """Run `ip`."""
    subprocess.run(["ip", *arguments], check=True)


def inside(node: int, *command: str) -> list[str]:
    """Return a command that runs in a node's namespace."""
    return ["ip", "netns", "exec", f"anomem-{node}", *command]


@contextmanager
def network() -> Iterator[None]:
    """Make a bridge and a namespace per node, and remove them at the end."""
    with ExitStack() as removed:
        ip("link", "add", BRIDGE, "type", "bridge")
        removed.callback(ip, "link", "del", BRIDGE)
        ip("link", "set", BRIDGE, "up")
        for node in range(NODES):
            ip("netns", "add", f"anomem-{node}")
            removed.callback(ip, "netns", "del", f"anomem-{node}")
            ip("link", "add", f"anomem-v{node}", "type", "veth", "peer", "name", "eth0", "netns", f"anomem-{node}")
            ip("link", "set", f"anomem-v{node}", "master", BRIDGE, "up")
            for rest in (("addr", "add", f"{NET}.{node + 1}/24", "dev", "eth0"), ("link", "set", "eth0", "up")):
                subprocess.run(inside(node, "ip", *rest), check=True)
            subprocess.run(inside(node, "ip", "link", "set", "lo", "up"), check=True)
        yield


@contextmanager
def started(node: int, root: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a node of the cluster."""
    ray = str(Path(sys.executable).with_name("ray"))
    address = f"{NET}.{node + 1}"
    how = ["--head", "--port", "6379", "--include-dashboard=false"] if not node else ["--address", f"{NET}.1:6379"]
    command = [ray, "start", *how, "--node-ip-address", address, "--num-cpus", "1", "--block", "--disable-usage-stats"]
    environment = {**os.environ, **WATCHED, **TOKEN, "RAY_TMPDIR": str(root / f"ray{node}")}
    (root / f"ray{node}").mkdir()
    with (root / f"node{node}.log").open("wb") as log:
        process = subprocess.Popen(
            inside(node, *command), stdout=log, stderr=log, env=environment, start_new_session=True
        )
        try:
            yield process
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def cut_off(root: Path, images: int) -> dict[str, Any]:
    """Score on three nodes, cut one off, and compare with processes."""
    model = fitted("memae", 16, root / "model", **get("memae").test_params)
    write_files(root / "in", images, 16)
    with ExitStack() as cluster:
        cluster.enter_context(network())
        for node in range(NODES):
            cluster.enter_context(started(node, root))
            time.sleep(15 if not node else 5)
        command = [sys.executable, "-m", "anomem", "score", str(model), str(root / "in"), "--out", str(root / "run")]
        command += ["--engine", "ray", "--address", f"{NET}.1:6379", "--shard-images", "10", "--json"]
        driver = cluster.enter_context(
            subprocess.Popen(inside(0, *command), stdout=subprocess.PIPE, env={**os.environ, **TOKEN})
        )
        began, shards = time.monotonic(), images // 10
        cut: float | None = None
        while driver.poll() is None:
            done = len(list((root / "run" / "shards").glob("*.parquet")))
            if cut is None and done >= shards // 3:
                ip("link", "set", "anomem-v2", "down")
                cut = time.monotonic()
            if time.monotonic() - began > LIMIT:
                driver.kill()
                raise SystemExit("the run hangs")
            time.sleep(0.05)
        out = driver.stdout.read() if driver.stdout else b""
        seconds = time.monotonic() - (cut or began)
    if driver.returncode:
        raise SystemExit(f"score ended with code {driver.returncode}")
    score_shards(model, [root / "in"], root / "alone", workers=0, shard_images=10)
    names = sorted(path.name for path in (root / "alone" / "shards").iterdir())
    equal = [(root / "run" / "shards" / n).read_bytes() == (root / "alone" / "shards" / n).read_bytes() for n in names]
    return {
        "nodes": NODES,
        "cut_off_after_shards": shards // 3,
        "seconds_from_then": round(seconds, 1),
        "rows": json.loads(out)["n"],
        "images": images,
        "shards_equal_to_processes": sum(equal),
        "shards": len(names),
    }


def main() -> None:
    """Run and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--images", type=int, default=3000)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="anomem-cluster-"))
    try:
        found = cut_off(root, args.images)
        print(found)
        write_result("cluster", found, args.out)
    finally:
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
