"""Tables of images (CSV, Parquet) with labels, masks, types, groups and splits."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from anomem.data import label_studio
from anomem.data.annotations import EXPORT_SUFFIXES, LABEL_WORDS, Labelled, labelled_by, read_export
from anomem.data.layouts import type_by_place
from anomem.data.samples import Dataset, Sample, mask_note
from anomem.errors import InputError, MissingExtraError, nearest, one_line
from anomem.runtime.files import in_zip, is_file, is_folder
from anomem.runtime.limits import MAX_TABLE_BYTES, MAX_TABLE_ROWS
from anomem.runtime.strata import COLUMN
from anomem.runtime.words import class_of, mentions_defect
from anomem.types import ANOMALOUS, NORMAL

__all__ = ["TABLE_SUFFIXES", "read_labels", "read_table"]

TABLE_SUFFIXES = frozenset({".csv", ".tsv", ".parquet", ".pq"}) | EXPORT_SUFFIXES

_COLUMNS = ("path", "label", "mask", "type", "group", "split", COLUMN)
_ROWS_AT_ONCE = 1024
_SHRINKS = 20
"""Maximum ratio of the bytes of a large Parquet table to those of its file."""
_SEPARATOR = re.compile(r"sep=([,;\t])\s*(?:\r\n|\r|\n)", re.IGNORECASE)
Part = Literal["train", "val", "test"]
_SPLITS: dict[str, Part] = {
    **dict.fromkeys(("", "train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}


@dataclass(frozen=True)
class _Row:
    where: str
    sample: Sample
    part: Part


def read_table(table: Path, stratum: str | None = None) -> Dataset:
    """Read a table of images as a dataset.

    Columns are ``path`` and, each optional, ``label`` (0, good, normal, ok; 1, anomalous, defect,
    bad, ng; -1 or empty for unknown), ``mask``, ``type``, ``group``, ``stratum`` and ``split`` (train, test; val
    serves as test if there is no test). Rows without a split are for training, with their label.
    Without a label column, training rows are normal, as in a flat folder. Paths are
    absolute or relative to the table's folder. An anomalous image without a type that lies in MVTec
    style, ``test/<type>/<image>``, has its folder's name as type.

    Parameters
    ----------
    table : Path
        CSV file (UTF-8 or UTF-16; comma, semicolon or tab) or Parquet file.
    stratum : str, optional
        Another column that holds the strata; without it in the table, strata are left unknown.

    Returns
    -------
    Dataset

    Raises
    ------
    InputError
        Missing file, invalid label or split, contradicting rows of an image, or, without a label column, an image in a
        folder named for anomalous images; the message gives the line.
    MissingExtraError
        Parquet without pyarrow.
    """
    columns, rows = _read(table, stratum or COLUMN)
    labelled = "label" in columns
    parts: dict[Part, list[Sample]] = {"train": [], "val": [], "test": []}
    for row in rows:
        sample = row.sample
        if not labelled and row.part == "train":
            _check_normal(table, row)
            sample = Sample(sample.path, NORMAL, None, None, sample.group, sample.stratum)
        parts[row.part].append(sample)
    notes: list[str] = []
    if parts["val"] and parts["test"]:
        notes.append(f"split val not used ({len(parts['val']):,} images)")
    elif parts["val"]:
        notes.append("no split test, val used for it")
    test = parts["test"] or parts["val"]
    unused = [name for name in columns if name and name not in (*_COLUMNS, _folded(stratum))]
    if unused:
        notes.append(f"columns not used: {one_line(', '.join(unused), 200)}")
    notes.extend(mask_note((*parts["train"], *test)))
    return Dataset("table", table, tuple(parts["train"]), tuple(test), "split" in columns, tuple(notes))


def _check_normal(table: Path, row: _Row) -> None:
    """Refuse a row without a label in a folder named for anomalous images."""
    folder = row.sample.path.parent
    below = folder.relative_to(table.parent).parts if folder.is_relative_to(table.parent) else (folder.name,)
    bad = [part for part in below if class_of(part) == ANOMALOUS or mentions_defect(part)]
    if bad:
        raise InputError(
            f"{row.where}: {row.sample.path} lies in {bad[-1]}/, anomalous by its name; add the column 'label'"
        )


def read_labels(table: str | Path) -> tuple[Sample, ...]:
    """Read labelled images, as for ``--labels``.

    Parameters
    ----------
    table : str or Path
        CSV or Parquet with the columns ``path`` and ``label``, optionally ``mask``, ``type`` and
        ``group``; see `read_table` for the words and paths.

    Returns
    -------
    tuple of Sample
        Labelled images in the order of the table.

    Raises
    ------
    InputError
        As for `read_table`, and for a missing column ``label``.
    MissingExtraError
        Parquet without pyarrow.
    """
    table = Path(table)
    columns, rows = _read(table)
    if "label" not in columns:
        raise InputError(f"{table}: no column 'label' (found: {one_line(', '.join(columns), 200)}); add it")
    return tuple(row.sample for row in rows)


def _read(table: Path, stratum: str = COLUMN) -> tuple[list[str], list[_Row]]:
    if in_zip(table):
        raise InputError(f"{table}: a table inside a zip; unpack the zip and give the table, or give the zip of images")
    if not is_file(table):
        raise InputError(f"{table}: no such table; give a CSV or Parquet file")
    if table.suffix.lower() in EXPORT_SUFFIXES:
        return _exported(read_export(table))
    parquet = table.suffix.lower() in {".parquet", ".pq"}
    columns, cells = _parquet_rows(table, _folded(stratum)) if parquet else _csv_rows(table)
    if label_studio.is_csv(columns):
        return _exported(labelled_by(table, label_studio.read_csv(table)))
    _check_columns(table, columns)
    rows: dict[Path, _Row] = {}
    for where, cell in cells:
        row = _row(table, where, cell, _folded(stratum))
        earlier = rows.setdefault(row.sample.path, row)
        if (earlier.sample, earlier.part) != (row.sample, row.part):
            raise InputError(f"{where}: {row.sample.path} contradicts {earlier.where}; keep one of the two rows")
    if not rows:
        raise InputError(f"{table}: 0 images: the table has a header and no rows")
    return columns, list(rows.values())


def _exported(images: list[Labelled]) -> tuple[list[str], list[_Row]]:
    """Return the images of an annotation tool's export as rows of a table; those that nobody annotated are unknown."""
    rows: dict[Path, _Row] = {}
    for image in images:
        row = _Row(image.where, Sample(image.path, image.label, image.mask, image.type), "train")
        earlier = rows.setdefault(image.path, row)
        if row.sample != earlier.sample:
            raise InputError(
                f"{row.where}: {image.path} stands in {earlier.where} too, annotated otherwise; keep one of the two"
            )
    return ["path", "label", "mask", "type"], list(rows.values())


def _check_columns(table: Path, columns: list[str]) -> None:
    missing = [name for name in _COLUMNS if name not in columns]
    for name in columns:
        close = nearest(name, missing, cutoff=0.75)
        if name not in _COLUMNS and close:
            raise InputError(f"{table}: column {name!r}: did you mean {close!r}?")
    if "path" not in columns:
        found = one_line(", ".join(name for name in columns if name), 200) or "none"
        raise InputError(f"{table}: no column 'path' (columns found: {found}); add it as header")
    twice = [name for name in _COLUMNS if columns.count(name) > 1]
    if twice:
        raise InputError(f"{table}: column {twice[0]!r} occurs twice; remove one")


def _row(table: Path, where: str, cell: Mapping[str, str], stratum: str) -> _Row:
    if not cell["path"]:
        raise InputError(f"{where}: empty path; fill it in or remove the row")
    label = LABEL_WORDS.get(cell.get("label", "").casefold())
    if label is None:
        raise InputError(
            f"{where}: label {cell['label']!r} is not understood; write 0, good, normal or ok; "
            f"1, anomalous, defect, bad or ng; the kind of defect goes into the column 'type'"
        )
    part = _SPLITS.get(cell.get("split", "").casefold())
    if part is None:
        raise InputError(f"{where}: split {cell['split']!r} is not understood; write train or test")
    mask = cell.get("mask")
    path = _file(table, where, cell["path"])
    return _Row(
        where,
        Sample(
            path=path,
            label=label,
            mask=_file(table, where, mask) if mask else None,
            type=(cell.get("type") or type_by_place(path)) if label == ANOMALOUS else None,
            group=cell.get("group") or None,
            stratum=cell.get(stratum) or None,
        ),
        part,
    )


def _file(table: Path, where: str, written: str) -> Path:
    candidates = [table.parent / written]
    if "\\" in written:  # written on Windows
        candidates.append(table.parent / written.replace("\\", "/"))
    for path in candidates:
        if is_file(path) or in_zip(path):
            return path
    wrong = "is a folder" if is_folder(candidates[0]) else "no such file"
    hint = f"absolute or relative to {table.parent}"
    raise InputError(f"{where}: {written}: {wrong}; give the path of an image, {hint}")


def _csv_rows(table: Path) -> tuple[list[str], list[tuple[str, dict[str, str]]]]:
    text = _decode(table)
    declared = _SEPARATOR.match(text)  # Excel's own first line
    text = text[declared.end() :] if declared else text
    header = text.lstrip().splitlines()[0] if text.strip() else ""
    delimiter = declared[1] if declared else max(",;\t", key=header.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        lines = [(reader.line_num + bool(declared), fields) for fields in reader if any(map(str.strip, fields))]
    except csv.Error as error:
        raise InputError(f"{table}:{reader.line_num}: not a CSV line ({error})") from error
    if not lines:
        raise InputError(f"{table}: empty; expected a header with the column 'path'")
    columns = [name.strip().casefold() for name in lines[0][1]]
    rows = []
    for number, fields in lines[1:]:
        where = f"{table}:{number}"
        if any(map(str.strip, fields[len(columns) :])):
            raise InputError(
                f"{where}: {len(fields)} fields under {len(columns)} columns; quote fields that contain {delimiter!r}"
            )
        values = (field.strip() for field in (*fields, *[""] * len(columns)))
        rows.append((where, dict(zip(columns, values, strict=False))))
    return columns, rows


def _decode(table: Path) -> str:
    if table.stat().st_size > MAX_TABLE_BYTES:
        raise _too_large(table, f"{MAX_TABLE_BYTES >> 20} MiB")
    raw = table.read_bytes()
    wide = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = raw.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise InputError(f"{table}:{line}: not UTF-8; save the table as 'CSV UTF-8'") from error
    if "\0" in text:
        raise InputError(f"{table}: holds zero bytes: not a CSV table; save it as 'CSV UTF-8'")
    return text


def _parquet_rows(table: Path, stratum: str) -> tuple[list[str], list[tuple[str, dict[str, str]]]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError("pyarrow", "tables") from error
    try:
        with pyarrow.parquet.ParquetFile(table) as file:
            names = file.schema_arrow.names
        columns = [str(name).strip().casefold() for name in names]
        wanted = [place for place, name in enumerate(columns) if name in (*_COLUMNS, stratum)]
        # Dictionary encoding keeps repeated texts as single objects.
        with pyarrow.parquet.ParquetFile(table, read_dictionary=[names[place] for place in wanted]) as file:
            rows = file.metadata.num_rows
            if rows > MAX_TABLE_ROWS:
                raise _too_large(table, f"{MAX_TABLE_ROWS:,} rows")
            # Of all columns together: pyarrow ends the process where facts of one column are damaged. Columns that are
            # not read may be large, but no honest one shrinks as much as a bomb.
            groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
            if sum(group.total_byte_size for group in groups) > max(MAX_TABLE_BYTES, _SHRINKS * table.stat().st_size):
                raise _too_large(
                    table, f"{MAX_TABLE_BYTES >> 20} MiB in all columns", "leave out other columns, or split"
                )
            return columns, list(_cells(table, [columns[place] for place in wanted], _records(table, file, wanted)))
    except InputError:
        raise
    except Exception as error:  # the parser raises nearly everything on damaged files
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"{table}: not a readable Parquet file ({reason})") from error


def _records(table: Path, file: Any, wanted: list[int]) -> Iterator[tuple[str, ...]]:
    """Yield the rows of some columns as texts in batches, up to the limit on all texts."""
    columns, size = [file.schema_arrow.names[place] for place in wanted], 0
    for batch in file.iter_batches(_ROWS_AT_ONCE, columns=columns):
        for row in zip(*((_text(value.as_py()) for value in column) for column in batch.columns), strict=True):
            size += sum(map(len, row))
            if size > MAX_TABLE_BYTES:
                raise _too_large(table, f"{MAX_TABLE_BYTES >> 20} MiB of text")
            yield row


def _cells(table: Path, names: list[str], rows: Iterator[tuple[str, ...]]) -> Iterator[tuple[str, dict[str, str]]]:
    for number, values in enumerate(rows, start=1):
        yield f"{table}, row {number}", dict(zip(names, values, strict=True))


def _too_large(table: Path, limit: str, fix: str = "split") -> InputError:
    return InputError(f"{table}: more than the limit of {limit}; {fix} the table")


def _folded(column: str | None) -> str:
    return (column or COLUMN).strip().casefold()


def _text(value: object) -> str:
    # Tables written by pandas hold missing text as NaN, which alone differs from itself.
    return "" if value is None or value != value else str(value).strip()
