"""Folder of a sharded run: plan, manifest, and one file per finished shard."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from anomem.errors import InputError, one_line
from anomem.runtime.atomic import atomic_path
from anomem.runtime.locking import lock_file
from anomem.scale.shard import Finished, read_finished, shard_file

__all__ = ["MANIFEST", "Ledger", "locked"]

MANIFEST = "manifest.json"
_FORMAT = 1
_COUNTS = ("rows", "errors", "anomalous")


class Ledger:
    """Finished shards of a run.

    Parameters
    ----------
    folder : Path
        Folder of the run.
    facts : mapping
        Facts that every run into this folder must share, with ``plan`` and ``shards``.

    Raises
    ------
    InputError
        The folder holds a run with other facts, the first of which is named, or something else.
    """

    def __init__(self, folder: Path, facts: Mapping[str, object]) -> None:
        self.folder = folder
        self.facts: dict[str, Any] = json.loads(json.dumps({"format": _FORMAT, **facts}))
        found = _read(folder / MANIFEST)
        if found is not None:
            _check_same(folder, found, self.facts)
        shard_file(folder, 0).parent.mkdir(exist_ok=True)
        if found is None:
            self._write(self.facts)

    def pending(self) -> list[int]:
        """Return the shards without a readable file of this plan, in order."""
        return [shard for shard in range(self.facts["shards"]) if self._facts_of(shard) is None]

    def finish(self) -> tuple[int, int, int]:
        """Write the manifest of the complete run and return the numbers of rows, errors and rejected images.

        Raises
        ------
        InputError
            A shard is missing.
        """
        found = [self._facts_of(shard) for shard in range(self.facts["shards"])]
        missing = [shard for shard, facts in enumerate(found) if facts is None]
        if missing:
            raise InputError(f"{self.folder}: shard {missing[0]} is missing; run the command again")
        shards = [facts for facts in found if facts is not None]
        counts = [sum(getattr(facts, name) for facts in shards) for name in _COUNTS]
        rows = {"rows_of_shards": [facts.rows for facts in shards]}
        self._write({**self.facts, "complete": True, **dict(zip(_COUNTS, counts, strict=True)), **rows})
        return counts[0], counts[1], counts[2]

    def _facts_of(self, shard: int) -> Finished | None:
        facts = read_finished(shard_file(self.folder, shard))
        return facts if facts is not None and facts.plan == self.facts["plan"] else None

    def _write(self, manifest: Mapping[str, Any]) -> None:
        with atomic_path(self.folder / MANIFEST) as part:
            part.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Create the folder of a run and lock it for this process; InputError if another one has it.

    Raises
    ------
    InputError
        The folder cannot be made, is locked, or holds files of something else.
    """
    try:
        if folder.is_dir() and not (folder / MANIFEST).exists() and any(_foreign(folder)):
            raise InputError(f"{folder}: holds other files; name an empty or new folder for the shards")
        folder.mkdir(exist_ok=True)
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
    except OSError as error:
        raise InputError(f"{folder}: {error.strerror}; choose another folder for the shards") from error
    try:
        lock_file(descriptor, f"{folder}: another run is writing to it; wait for its end, or choose another folder")
        yield
    finally:
        os.close(descriptor)


def _foreign(folder: Path) -> Iterator[Path]:
    """Yield visible files that no run without a manifest leaves."""
    own = {"lock", "plan.parquet", "plan.new.parquet", "shards", "heatmaps"}
    return (path for path in folder.iterdir() if path.name not in own and not path.name.startswith("."))


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict) or "plan" not in found:
            raise ValueError("not an object with a plan")
        return found
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not a manifest of shards ({one_line(error, 100)}); choose another folder") from error


def _check_same(folder: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Refuse a folder whose run has other facts, and name the first one."""
    for name, now in wanted.items():
        if found.get(name) != now:
            before = found.get(name)
            shown = f"{name} was {before!r}, now {now!r}" if len(f"{before!r}{now!r}") < 200 else f"another {name} now"
            raise InputError(f"{folder}: holds shards of another run: {shown}; choose another folder for --out")
