"""Telemetry of dependencies is off: no files, no sockets, in any import order."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.cli.process import completed, environment
from tests.exports import exported, exported_ir, pictures

_PROBE = """
import os, socket, sys

def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        os.write(2, f"{event} {arguments}".encode())
        os._exit(9)

sys.addaudithook(refuse)
import anomem
anomem.load(sys.argv[1]).anomaly_score(sys.argv[2:])
descriptors = (f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd"))
opened = [os.readlink(place) for place in descriptors if os.path.exists(place)]
assert not [name for name in opened if name.startswith("socket:")], opened
assert "openvino_telemetry" not in sys.modules
os._exit(0)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_nothing_is_written_and_nobody_is_called(engine: str, tmp_path: Path) -> None:
    pytest.importorskip(engine)
    file = exported("memae").file if engine == "onnxruntime" else exported_ir("fp32").file
    places = {name: tmp_path / name for name in ("home", "tmp", "cache")}
    for place in places.values():
        place.mkdir()
    changes = {"HOME": str(places["home"]), "TMPDIR": str(places["tmp"]), "XDG_CACHE_HOME": str(places["cache"])}
    loud = {key: value for key, value in environment(**changes).items() if "TELEMETRY" not in key}
    ran = completed([sys.executable, "-c", _PROBE, str(file), *map(str, pictures()[:2])], env=loud)
    assert ran.returncode == 0, ran.stderr
    assert [path for place in places.values() for path in place.rglob("*")] == []


def test_child_processes_are_told_too() -> None:
    probe = "import anomem, os; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    loud = {key: value for key, value in environment().items() if "TELEMETRY" not in key}
    assert completed([sys.executable, "-c", probe], env=loud).stdout == "1\n"
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"
