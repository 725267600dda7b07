"""History as CSV or Parquet, written while it is read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

from anomem.errors import MissingExtraError
from anomem.runtime.dependencies import installed
from anomem.runtime.neutral import csv_text
from anomem.service.store.tables import Inspection

__all__ = ["COLUMNS", "MEDIA", "chunks"]

COLUMNS: dict[str, type] = {
    "id": int,
    "created": datetime,
    "name": str,
    "image_sha256": str,
    "version_id": int,
    "score": float,
    "p_value": float,
    "anomalous": bool,
    "alpha": float,
    "label": str,
    "stratum": str,
    "group": str,
    "source": str,
    "sampled": bool,
    "error": str,
}
"""Columns of an export, with their types."""

MEDIA = {"csv": "text/csv; charset=utf-8", "parquet": "application/vnd.apache.parquet"}
"""Media type by format."""


def chunks(rows: Iterable[Sequence[Inspection]], form: str) -> Iterator[bytes]:
    """Return the content of a file, in parts.

    Parameters
    ----------
    rows : iterable of sequences of Inspection
    form : {"csv", "parquet"}

    Raises
    ------
    MissingExtraError
        Parquet without pyarrow.
    """
    if form == "csv":
        return _csv(rows)
    if not installed("pyarrow"):
        raise MissingExtraError("pyarrow", "tables")
    return _parquet(rows)


def _csv(rows: Iterable[Sequence[Inspection]]) -> Iterator[bytes]:
    yield csv_text([list(COLUMNS)]).encode()
    for chunk in rows:
        yield csv_text([_cell(getattr(row, name)) for name in COLUMNS] for row in chunk).encode()


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    return value.isoformat() if isinstance(value, datetime) else value


class _Sink:
    """File object that keeps what is written until it is taken."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self.closed = False

    def write(self, content: Any) -> int:
        self._parts.append(bytes(content))
        return len(content)

    def flush(self) -> None:
        """Do nothing: `take` is the reader."""

    def close(self) -> None:
        self.closed = True

    def take(self) -> bytes:
        content = b"".join(self._parts)
        self._parts.clear()
        return content


def _parquet(rows: Iterable[Sequence[Inspection]]) -> Iterator[bytes]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {int: pa.int64(), str: pa.string(), float: pa.float64(), bool: pa.bool_()}
    schema = pa.schema([(name, kinds.get(kind, pa.timestamp("us", tz="UTC"))) for name, kind in COLUMNS.items()])
    sink = _Sink()
    with pq.ParquetWriter(sink, schema) as writer:
        for chunk in rows:
            content = [{name: getattr(row, name) for name in COLUMNS} for row in chunk]
            writer.write_table(pa.Table.from_pylist(content, schema=schema))
            yield sink.take()
    yield sink.take()
