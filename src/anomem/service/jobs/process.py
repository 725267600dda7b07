"""Process of a job: ``python -m anomem.service.jobs.process FOLDER``."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any

from anomem.errors import AnomemError, AnomemWarning, one_line
from anomem.service.jobs.spec import read_spec, write_result
from anomem.types import Record

__all__ = ["main"]

_EVERY_S = 0.2
_NICE = 10
_ORPHANED = 3


class Reporter:
    """Lines of progress on stdout, at most five per second, and each new stage."""

    def __init__(self) -> None:
        self._last, self._stage = 0.0, ""

    def __call__(self, record: Record) -> None:
        """Write a record of a fit."""
        moment = time.monotonic()
        if record.stage == self._stage and record.step < record.total and moment - self._last < _EVERY_S:
            return
        self._last, self._stage = moment, record.stage
        _say({"stage": record.stage, "step": record.step, "total": record.total})


def main(folder: str) -> int:
    """Run the task in a folder; exit code 0 with a result, 2 with an error on the last line of stdout."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if hasattr(os, "nice"):
        os.nice(_NICE)  # scoring goes first
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("ignore")
            warnings.simplefilter("always", AnomemWarning)
            from anomem.service.jobs.work import run

            result = run(read_spec(Path(folder)), Reporter())
        result["notes"] = [one_line(entry.message) for entry in caught if issubclass(entry.category, AnomemWarning)]
        write_result(Path(folder), result)
    except (AnomemError, OSError, MemoryError) as error:
        _say({"error": one_line(error)})
        return 2
    return 0


def _say(content: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(content) + "\n")
    sys.stdout.flush()


def _end_with_parent() -> None:
    """End the process once stdin closes: the station has been killed, and takes the job up again."""
    while os.read(sys.stdin.fileno(), 1024):
        pass
    os._exit(_ORPHANED)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
