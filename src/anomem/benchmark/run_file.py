"""Run lines on disk: one JSON object per line, in an append-only file that survives a killed process."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from anomem.benchmark.unit import FORMAT, plain
from anomem.errors import InputError
from anomem.runtime.locking import lock_file

__all__ = ["RunFile", "read_runs"]


class RunFile:
    """Append-only file of finished units, locked by one process at a time.

    Each line is written whole and flushed to disk, so a unit is finished if and only if its line is complete. A killed
    process may leave an incomplete last line; the next process that opens the file cuts it off. The operating system
    frees the lock of a process however it ended.

    Parameters
    ----------
    path : str or Path
        Created where it is missing.

    Raises
    ------
    InputError
        On entering: another process has the lock, the file cannot be written, or it has other content than run lines.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "runs.jsonl"
    >>> with RunFile(path) as run_file:
    ...     run_file.append({"format": FORMAT, "key": "a", "image": {"auroc": 0.9}})
    >>> [line["key"] for line in read_runs(path)]
    ['a']
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.keys: set[str] = set()
        self._descriptor: int | None = None
        self._open = ExitStack()

    def __enter__(self) -> Self:
        """Lock the file, cut off an incomplete last line, read the keys of finished units."""
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
        try:
            descriptor = os.open(self.path, flags, 0o666)
        except OSError as error:
            raise InputError(f"{self.path}: {error.strerror}; choose another file for the runs") from error
        with ExitStack() as stack:
            stack.callback(os.close, descriptor)
            lock_file(
                descriptor, f"{self.path}: another run is writing to it; wait for its end, or choose another file"
            )
            content = self.path.read_bytes()
            whole = content.rfind(b"\n") + 1
            # Checked before anything is cut off: the file may be an unrelated text.
            self.keys = {str(line["key"]) for line in _parsed(content[:whole], self.path)}
            if whole < len(content):
                _refuse_foreign(content, whole, self.path)
                os.ftruncate(descriptor, whole)
            os.fsync(descriptor)
            self._open = stack.pop_all()
        self._descriptor = descriptor
        return self

    def __exit__(self, *_: object) -> None:
        """Close and unlock the file."""
        self._descriptor = None
        self._open.close()

    def append(self, line: Mapping[str, Any]) -> None:
        """Write one line and wait until it is on disk.

        Parameters
        ----------
        line : mapping
            With ``format`` and ``key``; numpy scalars and NaN are converted to plain values.

        Raises
        ------
        InputError
            The disk is full or was removed.
        ValueError
            The file has a unit of this key.
        """
        key = str(line["key"])
        if self._descriptor is None or key in self.keys:
            raise ValueError(f"{self.path}: {'not open' if self._descriptor is None else f'{key} is there already'}")
        content = (json.dumps(plain(line), allow_nan=False) + "\n").encode("ascii")
        size = os.fstat(self._descriptor).st_size
        try:
            rest = memoryview(content)
            while rest:  # one call, except on a nearly full disk
                rest = rest[os.write(self._descriptor, rest) :]
            os.fsync(self._descriptor)
        except OSError as error:
            os.ftruncate(self._descriptor, size)
            raise InputError(
                f"{self.path}: {error.strerror}; free disk space and rerun the command to resume"
            ) from error
        self.keys.add(key)


def read_runs(path: str | Path) -> list[dict[str, Any]]:
    """Read the finished units of a run file, without an incomplete last line.

    Raises
    ------
    InputError
        The file is missing, or has other content than run lines of this format.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; name a file written by anomem bench") from error
    return list(_parsed(content[: content.rfind(b"\n") + 1], Path(path)))


def _parsed(content: bytes, path: Path) -> Iterator[dict[str, Any]]:
    seen: set[str] = set()
    for number, text in enumerate(content.splitlines(), start=1):
        try:
            line = json.loads(text)
        except ValueError as error:
            raise InputError(f"{path}: line {number} is no run of anomem bench; choose another file") from error
        if not isinstance(line, dict) or not ("format" in line and isinstance(line.get("key"), str)):
            raise InputError(f"{path}: line {number} is no run of anomem bench; choose another file")
        if line["format"] != FORMAT:
            raise InputError(f"{path}: line {number} has format {line['format']}, not {FORMAT}; choose another file")
        if line["key"] in seen:
            raise InputError(f"{path}: line {number} repeats an earlier one; remove it")
        seen.add(line["key"])
        yield line


def _refuse_foreign(content: bytes, whole: int, path: Path) -> None:
    """Raise unless the incomplete last line begins like a run line, or is zeros left by a power cut."""
    torn, beginning = content[whole:].rstrip(b"\0"), f'{{"format": {FORMAT},'.encode()
    if not beginning.startswith(torn[: len(beginning)]):
        raise InputError(f"{path}: its last line is no run of anomem bench; choose another file")
