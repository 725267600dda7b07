"""Annotations of Label Studio: JSON, JSON-MIN and CSV."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from anomem.data.regions import Annotated, Region, finite, image_size, merged
from anomem.errors import InputError, one_line
from anomem.runtime.images import IMAGE_SUFFIXES
from anomem.runtime.words import class_of

__all__ = ["is_csv", "read", "read_csv"]

_FORMAT = "export as JSON from Label Studio"
_KNOWN = frozenset(
    {"id", "annotation_id", "annotator", "created_at", "updated_at", "lead_time", "agreement", "predictions"}
)
"""Columns of a flat export without annotations."""


def is_csv(columns: Sequence[str]) -> bool:
    """Return True for the columns of a Label Studio export."""
    return "path" not in columns and "image" in columns and bool({"choice", "annotation_id", "annotator"} & {*columns})


def read(export: Path) -> list[Annotated]:
    """Read the images of an export with their choices and regions.

    Raises
    ------
    InputError
        It is no such export, or damaged.
    """
    try:
        tasks = json.loads(export.read_bytes())
    except (ValueError, RecursionError, OSError) as error:
        raise InputError(f"{export}: not readable as JSON ({one_line(error)}); {_FORMAT}") from error
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        raise InputError(f"{export}: a JSON file, but no list of tasks; {_FORMAT}")
    return merged(_checked(task, f"{export}, task {task.get('id', n)}") for n, task in enumerate(tasks, start=1))


def read_csv(export: Path) -> list[Annotated]:
    """Read the images of an export as CSV; see `read`."""
    try:
        with export.open(encoding="utf-8-sig", newline="") as stream:
            table = csv.DictReader(stream)
            return merged(_checked(row, f"{export}:{table.line_num}") for row in table)
    except (csv.Error, UnicodeDecodeError, OSError) as error:
        raise InputError(f"{export}: not readable as CSV ({one_line(error)}); {_FORMAT}") from error


def _checked(task: Mapping[str, Any], where: str) -> Annotated:
    try:
        return _task(task, where) if isinstance(task.get("data"), Mapping) else _flat(task, where)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{where}: damaged ({one_line(error)}); {_FORMAT}") from error


def _task(task: Mapping[str, Any], where: str) -> Annotated:
    given = [a for a in task.get("annotations") or task.get("completions") or () if not a.get("was_cancelled")]
    results = [result for annotation in given for result in annotation.get("result") or ()]
    words: list[str] = []
    regions: list[Region] = []
    for result in results:
        value = result.get("value") or {}
        words += _texts(value.get("choices", ()))
        regions += _regions([value])
    sizes = [(r["original_height"], r["original_width"]) for r in results if "original_height" in r]
    size = image_size(*sizes[0]) if sizes else None
    return Annotated(where, _image(task["data"], where), tuple(dict.fromkeys(words)), tuple(regions), size)


def _flat(row: Mapping[str, Any], where: str) -> Annotated:
    """Read a task of JSON-MIN or CSV: one entry per control, texts, lists of regions or of choices."""
    words: list[str] = []
    regions: list[Region] = []
    written = _image(row, where)
    for name, entry in row.items():
        if name in _KNOWN or entry == written or name is None:
            continue
        value = _parsed(entry)
        found = _regions(value) if isinstance(value, list) else []
        regions += found
        if isinstance(value, dict):
            words += _texts(value.get("choices", ()))
        elif not found and (name.startswith("choice") or (isinstance(value, str) and class_of(value) is not None)):
            words += _texts(value)
    return Annotated(where, written, tuple(dict.fromkeys(words)), tuple(regions))


def _parsed(entry: Any) -> Any:
    """Parse a cell as JSON; other cells are returned unchanged."""
    if isinstance(entry, str) and entry.lstrip()[:1] in ("[", "{"):
        return json.loads(entry)
    return entry


def _texts(value: Any) -> list[str]:
    if value is None or value == "":
        return []
    return [value] if isinstance(value, str) else [str(text) for text in value]


def _regions(values: Iterable[Any]) -> list[Region]:
    """Read regions by their key ``...labels``: polygons with corners, others without."""
    regions = []
    for value in values:
        if not isinstance(value, Mapping):
            continue
        kinds = [name for name in value if name.endswith("labels") and value[name]]
        for kind in kinds:
            corners = value.get("points", ()) if kind == "polygonlabels" else ()
            polygon = tuple((finite(x) / 100, finite(y) / 100) for x, y in corners)
            regions.append(Region(_texts(value[kind])[0], polygon))
    return regions


def _image(data: Mapping[str, Any], where: str) -> str:
    """Find the image in the data of a task: under "image", or the one entry with an image file."""
    texts = {name: text for name, text in data.items() if isinstance(text, str)}
    named = [text for text in texts.values() if Path(text.partition("&")[0]).suffix.lower() in IMAGE_SUFFIXES]
    if "image" in texts:
        return texts["image"]
    if len(named) != 1:
        raise InputError(f"{where}: {len(named)} entries name an image file; name the data's image 'image'")
    return named[0]
