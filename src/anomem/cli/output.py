"""Output of commands: lines or one JSON object on stdout, and files written atomically."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from anomem.cli.session import Session
from anomem.errors import InputError, MissingExtraError, OutputError
from anomem.runtime import machine
from anomem.runtime.atomic import atomic_path, check_target, put, stage
from anomem.runtime.neutral import csv_text, path_cell, printable
from anomem.runtime.plain import plain

if TYPE_CHECKING:
    from anomem.data.samples import Sample

TABLE_SUFFIXES = (".csv", ".jsonl", ".parquet")
PATH_COLUMNS = ("path", "heatmap")


@dataclass(frozen=True)
class Output:
    """Printer of results: lines of text, or one object with ``--json``."""

    as_json: bool

    def line(self, text: str = "") -> None:
        """Print a line of text; tabs separate columns, other control characters are escaped."""
        if not self.as_json:
            click.echo(printable(text, keep="\t"))

    def result(self, content: Mapping[str, Any]) -> None:
        """Print the result as a JSON object with ``--json``."""
        if self.as_json:
            click.echo(json.dumps(plain(content), allow_nan=False))


def check_file(path: Path, session: Session, *, what: str = "file") -> None:
    """Check, before any work is done, that a file can be written and is not an input.

    Raises
    ------
    InputError
        As for `check_target`; the file is an input, or another output, of this command.
    """
    check_target(path, what=what)
    session.plan(path)


def check_folder(path: Path) -> None:
    """Check, before any work is done, that a folder can be made and written.

    Raises
    ------
    InputError
        The path is a file, its parent folder is missing, or permission is denied.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_dir():
        raise InputError(f"{path}: is a file; name a folder")
    if not target.exists() and not target.parent.is_dir():
        raise InputError(f"{path}: the folder {target.parent} does not exist; create it first")
    if not os.access(target if target.exists() else target.parent, os.W_OK):
        raise InputError(f"{path}: permission denied; choose another folder")


def check_table(path: Path, session: Session) -> None:
    """Check that a table of results can be written: its suffix, and as `check_file`.

    Raises
    ------
    InputError
        An unknown suffix, or as for `check_file`.
    MissingExtraError
        Parquet without pyarrow.
    """
    if path.suffix.lower() not in TABLE_SUFFIXES:
        raise InputError(f"{path}: results are written as {', '.join(TABLE_SUFFIXES)}; choose one of these suffixes")
    check_file(path, session)
    if path.suffix.lower() == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise MissingExtraError("pyarrow", "tables")


def files_of(samples: Iterable[Sample]) -> list[Path]:
    """Return the image and mask files of samples."""
    return [Path(file) for sample in samples for file in (sample.path, sample.mask) if file is not None]


def write_text(path: Path, text: str, session: Session) -> None:
    """Write a text file atomically."""
    with session.putting_in_place(path), atomic_path(path) as part:
        part.write_text(text, encoding="utf-8", errors="surrogateescape", newline="")


def write_table(path: Path, rows: Sequence[Mapping[str, Any]], columns: Mapping[str, type], session: Session) -> None:
    """Write rows atomically as CSV, JSON lines or Parquet, by the suffix.

    Parameters
    ----------
    path : Path
        Ending in one of `TABLE_SUFFIXES`.
    rows : sequence of mappings
        Rows with all of `columns`; None for a missing value.
    columns : mapping of str to type
        Names and types (str, float, bool), in order.
    session : Session
        Session that records written files.
    """
    from anomem.data.result_table import write_parquet

    content = [{name: plain(row[name]) for name in columns} for row in rows]
    if path.suffix.lower() == ".parquet":
        with session.putting_in_place(path), atomic_path(path) as part:
            write_parquet(part, content, columns)
    elif path.suffix.lower() == ".jsonl":
        write_text(path, "".join(json.dumps(row, allow_nan=False) + "\n" for row in content), session)
    else:
        write_text(path, _csv(content, columns), session)


def _csv(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, type]) -> str:
    """Return rows as CSV; file names open from the current directory and are not read as formulas by spreadsheets."""
    cells = ([_cell(name, value) for name, value in row.items()] for row in rows)
    return csv_text([list(columns), *cells])


def _cell(name: str, value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    return path_cell(value) if name in PATH_COLUMNS and isinstance(value, str) else value


@contextmanager
def filled_folder(path: Path, session: Session) -> Iterator[Path]:
    """Fill a hidden folder, and move it to its place once complete.

    Existing files in the folder stay unless overwritten.

    Parameters
    ----------
    path : Path
        Target folder; created if missing.
    session : Session
        Session that records written files.

    Yields
    ------
    Path
        Empty folder to write to.
    """
    target = Path(os.path.realpath(path))
    # An existing folder may be a separate file system, so stage inside it.
    around = target if target.is_dir() else target.parent
    with stage(around, target.name, private=False) as room, _naming(path, room):
        yield room
        with session.putting_in_place(path):
            _move(room, target, session)


@contextmanager
def _naming(path: Path, room: Path) -> Iterator[None]:
    """Raise write errors with the final path instead of the hidden folder's."""
    try:
        yield
    except OSError as error:
        failed = error.path if isinstance(error, OutputError) else error.filename
        place = room if failed is None else Path(os.fsdecode(failed))
        if not place.is_relative_to(room):
            raise
        cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
        raise OutputError(str(path / place.relative_to(room)), cause) from error


def _move(room: Path, target: Path, session: Session) -> None:
    if not target.exists():
        room.rename(target)
        return
    found = sorted(room.rglob("*"))
    places = [target / file.relative_to(room) for file in found]
    for file, place in zip(found, places, strict=True):
        if not file.is_dir():
            session.check_target(place)
    for file, place in zip(found, places, strict=True):
        if file.is_dir():
            place.mkdir(exist_ok=True)
        else:
            put(file, place)


def peak_mb() -> float | None:
    """Return the peak memory of this process in megabytes; None if the system does not report it."""
    peak = machine.peak_mb()
    return None if peak is None else round(peak, 1)
