"""Tables of results as Parquet files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["write_parquet"]


def write_parquet(
    path: Path,
    rows: Sequence[Mapping[str, object]],
    columns: Mapping[str, type],
    facts: Mapping[str, str] | None = None,
) -> None:
    """Write rows as a Parquet file.

    Parameters
    ----------
    path : Path
        File to write, in place.
    rows : sequence of mappings
        Plain values of `columns`; None for a missing one. Undecodable bytes of a file name become escapes.
    columns : mapping of str to type
        Names and types (str, float, bool), in order.
    facts : mapping of str to str, optional
        Texts kept in the file's footer.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {str: pa.string(), float: pa.float64(), bool: pa.bool_()}
    schema = pa.schema([(name, kinds[kind]) for name, kind in columns.items()], metadata=facts)
    safe = [{name: _unicode(value) if isinstance(value, str) else value for name, value in row.items()} for row in rows]
    with path.open("wb") as stream:
        pq.write_table(pa.Table.from_pylist(safe, schema=schema), stream)


def _unicode(text: str) -> str:
    """Return valid Unicode, as Parquet requires; undecodable bytes of a file name become escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
