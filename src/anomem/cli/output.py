"""What commands write: lines or one JSON object on stdout, and files that appear whole or not at all."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from anomem.cli.session import Session
from anomem.errors import InputError, MissingExtraError
from anomem.runtime import machine
from anomem.runtime.atomic import atomic_path
from anomem.runtime.plain import plain

TABLE_SUFFIXES = (".csv", ".jsonl", ".parquet")


@dataclass(frozen=True)
class Output:
    """Where a command's results go: lines for people, or with ``--json`` one object and nothing else."""

    as_json: bool

    def line(self, text: str = "") -> None:
        """Print a line for people."""
        if not self.as_json:
            click.echo(text)

    def result(self, content: Mapping[str, Any]) -> None:
        """Print the JSON object."""
        if self.as_json:
            click.echo(json.dumps(plain(content), allow_nan=False))


def check_file(path: Path, *, what: str = "file") -> None:
    """Refuse, before any work is done, a file that could not be written at its end.

    Raises
    ------
    InputError
        Its folder is missing or not writable, or it is something other than a regular file.
    """
    target = Path(os.path.realpath(path))
    if not target.parent.is_dir():
        raise InputError(f"{path}: the folder {target.parent} does not exist: create it first")
    if target.is_dir():
        raise InputError(f"{path}: is a folder: name the {what} inside it")
    if target.exists() and not target.is_file():
        raise InputError(f"{path}: is not a regular file: name another {what}")
    if not os.access(target.parent, os.W_OK):
        raise InputError(f"{path}: the folder {target.parent} may not be written: choose another")


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


def check_table(path: Path) -> None:
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
    check_file(path)
    if path.suffix.lower() == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise MissingExtraError("pyarrow", "tables")


def write_text(path: Path, text: str, session: Session) -> None:
    """Write a text file, whole or not at all."""
    with session.putting_in_place(path), atomic_path(path) as part:
        part.write_text(text, encoding="utf-8", errors="surrogateescape")


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
        with session.putting_in_place(path), atomic_path(path) as part:
            _write_csv(part, content, columns)


def _write_csv(part: Path, rows: Sequence[Mapping[str, Any]], columns: Mapping[str, type]) -> None:
    with part.open("w", encoding="utf-8", errors="surrogateescape", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(columns)
        for row in rows:
            writer.writerow(str(cell).lower() if isinstance(cell, bool) else cell for cell in row.values())


def _write_parquet(part: Path, rows: Sequence[Mapping[str, Any]], columns: Mapping[str, type]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {str: pa.string(), float: pa.float64(), bool: pa.bool_()}
    schema = pa.schema([(name, kinds[kind]) for name, kind in columns.items()])
    safe = [{k: _unicode(v) if isinstance(v, str) else v for k, v in row.items()} for row in rows]
    pq.write_table(pa.Table.from_pylist(safe, schema=schema), part)


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
    name = f".{target.name}-{secrets.token_hex(6)}"
    # Inside, where the folder exists: it may be a file system of its own.
    stage = target / name if target.is_dir() else target.with_name(name)
    try:
        stage.mkdir()
        yield stage
        with session.putting_in_place(path):
            _move(stage, target)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _move(stage: Path, target: Path) -> None:
    if not target.exists():
        stage.rename(target)
        return
    for file in sorted(stage.rglob("*")):
        place = target / file.relative_to(stage)
        if file.is_dir():
            place.mkdir(exist_ok=True)
        else:
            file.replace(place)


def peak_mb() -> float | None:
    """Return the largest memory that this process has held so far, megabytes; None where the system does not tell."""
    peak = machine.peak_mb()
    return None if peak is None else round(peak, 1)
