"""A side that is measured ends with the process that measures it."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.cli.process import running

ROOT = Path(__file__).parents[2]

MEASURE = """
import sys
from benchmarks.peers.sides import timed
timed(["sh", "-c", f"echo $$ > {sys.argv[1]}; exec sleep 60"], 1, 60.0)
"""


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_a_terminated_measurement_leaves_no_side_running(tmp_path: Path) -> None:
    named = tmp_path / "pid"
    with running([sys.executable, "-c", MEASURE, str(named)], cwd=ROOT) as measuring:
        side = int(waited_for(named))
        measuring.send_signal(signal.SIGTERM)
        assert measuring.wait(20) == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(side, 0)


def waited_for(file: Path) -> str:
    """Return the text of a file once it has a whole line."""
    for _ in range(600):
        if file.exists() and (text := file.read_text()).endswith("\n"):
            return text
        time.sleep(0.05)
    raise TimeoutError(file)
