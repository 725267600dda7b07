"""What commands write: lines or one JSON object on stdout, and files that appear whole or not at all."""

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
    """Where a command's results go: lines for people, or with ``--json`` one object and nothing else."""

    as_json: bool

    def line(self, text: str = "") -> None:
        """Print a line for people; tabs separate columns, other control characters are written out."""
        if not self.as_json:
            click.echo(printable(text, keep="\t"))

    def result(self, content: Mapping[str, Any]) -> None:
        """Print the JSON object."""
        if self.as_json:
            click.echo(json.dumps(plain(content), allow_nan=False))


def check_file(path: Path, session: Session, *, what: str = "file") -> None:
    """Refuse, before any work is done, a file that could not be written at its end, or that is one of the inputs.

    Raises
    ------
    InputError
        As for `check_target`; it is an input of this command, or another of its outputs.
    """
    check_target(path, what=what)
    session.plan(path)


def check_folder(path: Path) -> None:
    """Refuse, before any work is done, a folder that could not be made or filled at its end.

    Raises
    ------
    InputError
        It is a file, the folder around it is missing, or it may not be written.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_dir():
        raise InputError(f"{path}: is a file: name a folder")
    if not target.exists() and not target.parent.is_dir():
        raise InputError(f"{path}: the folder {target.parent} does not exist: create it first")
    if not os.access(target if target.exists() else target.parent, os.W_OK):
        raise InputError(f"{path}: may not be written: choose another folder")


def check_table(path: Path, session: Session) -> None:
    """Refuse a table of results that could not be written: as `check_file`, and by its suffix.

    Raises
    ------
    InputError
        An unknown suffix, or as for `check_file`.
    MissingExtraError
        Parquet without pyarrow.
    """
    if path.suffix.lower() not in TABLE_SUFFIXES:
        raise InputError(f"{path}: results are written as {', '.join(TABLE_SUFFIXES)}: choose one of these suffixes")
    check_file(path, session)
    if path.suffix.lower() == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise MissingExtraError("pyarrow", "tables")


def files_of(samples: Iterable[Sample]) -> list[Path]:
    """Image and mask files of samples."""
    return [Path(file) for sample in samples for file in (sample.path, sample.mask) if file is not None]


def write_text(path: Path, text: str, session: Session) -> None:
    """Write a text file, whole or not at all."""
    with session.putting_in_place(path), atomic_path(path) as part:
        part.write_text(text, encoding="utf-8", errors="surrogateescape", newline="")


def write_table(path: Path, rows: Sequence[Mapping[str, Any]], columns: Mapping[str, type], session: Session) -> None:
    """Write rows as CSV, JSON lines or Parquet, by the suffix; whole or not at all.

    Parameters
    ----------
    path : Path
        Ending in one of `TABLE_SUFFIXES`.
    rows : sequence of mappings
        Each with all of `columns`; None where there is nothing.
    columns : mapping of str to type
        Names and types (str, float, bool), in order.
    session : Session
        Notes what has been written.
    """
    content = [{name: plain(row[name]) for name in columns} for row in rows]
    if path.suffix.lower() == ".parquet":
        with session.putting_in_place(path), atomic_path(path) as part:
            _write_parquet(part, content, columns)
    elif path.suffix.lower() == ".jsonl":
        write_text(path, "".join(json.dumps(row, allow_nan=False) + "\n" for row in content), session)
    else:
        write_text(path, _csv(content, columns), session)


def _csv(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, type]) -> str:
    """Rows as CSV: file names that open from the current directory, and that no spreadsheet takes for formulas."""
    cells = ([_cell(name, value) for name, value in row.items()] for row in rows)
    return csv_text([list(columns), *cells])


def _cell(name: str, value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    return path_cell(value) if name in PATH_COLUMNS and isinstance(value, str) else value


def _write_parquet(part: Path, rows: Sequence[Mapping[str, Any]], columns: Mapping[str, type]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {str: pa.string(), float: pa.float64(), bool: pa.bool_()}
    schema = pa.schema([(name, kinds[kind]) for name, kind in columns.items()])
    safe = [{k: _unicode(v) if isinstance(v, str) else v for k, v in row.items()} for row in rows]
    table = pa.Table.from_pylist(safe, schema=schema)
    with part.open("wb") as stream:
        pq.write_table(table, stream)


def _unicode(text: str) -> str:
    """Parquet holds nothing but Unicode; bytes of a file name that are no text become escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


@contextmanager
def filled_folder(path: Path, session: Session) -> Iterator[Path]:
    """Fill a hidden folder, and when all of it is there, move it to its place.

    Files that are in the folder already stay, unless one of the same name is written.

    Parameters
    ----------
    path : Path
        The folder; it is made where it is missing.
    session : Session
        Notes what has been written.

    Yields
    ------
    Path
        An empty folder. Write there.
    """
    target = Path(os.path.realpath(path))
    # Inside, where the folder exists: it may be a file system of its own.
    around = target if target.is_dir() else target.parent
    with stage(around, target.name, private=False) as room, _naming(path, room):
        yield room
        with session.putting_in_place(path):
            _move(room, target, session)


@contextmanager
def _naming(path: Path, room: Path) -> Iterator[None]:
    """Name what could not be written by where it would have been: nobody knows the hidden folder."""
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
    """Return the largest memory that this process has held so far, megabytes; None where the system does not tell."""
    peak = machine.peak_mb()
    return None if peak is None else round(peak, 1)
