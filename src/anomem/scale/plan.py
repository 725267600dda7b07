"""Plan of shards: image names in a Parquet file with a row group per shard, written as the sources are read."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from anomem.data.sources import list_images
from anomem.errors import InputError, one_line
from anomem.runtime.atomic import atomic_path
from anomem.runtime.files import is_folder
from anomem.runtime.images import IMAGE_SUFFIXES
from anomem.scale.remote import is_url, list_url, open_url
from anomem.scale.sources import is_tar

__all__ = ["Plan", "read_shard", "write_plan"]

_LISTS = frozenset({".parquet", ".pq"})
_COLUMN = "name"


@dataclass(frozen=True)
class Plan:
    """Facts of a plan.

    Parameters
    ----------
    digest : str
        SHA-256 of all names and of the bounds of the shards.
    shards : int
        Number of shards.
    names : int
        Number of names: of images and of tar files.
    """

    digest: str
    shards: int
    names: int


def write_plan(sources: Sequence[str], path: Path, shard_images: int, every: int) -> Plan:
    """Write the plan of `sources`; the same sources give the same plan.

    Names are read from Parquet lists as they are written, so that memory does not grow with the number of images. The
    names of a folder, zip or other table are in memory once, as in other commands.

    Parameters
    ----------
    sources : sequence of str
        Folders, zips, images, videos and tables as for `anomem score`, Parquet lists with a column ``path``, tar
        files, and URLs of folders, lists, tar files and images. Each tar file is a shard.
    path : Path
        Parquet file to write.
    shard_images : int
        Images per shard.
    every : int
        Interval of the frames used of a video.

    Returns
    -------
    Plan

    Raises
    ------
    InputError
        A source that cannot be read, or no images.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([(_COLUMN, pa.binary())])
    digest, shards, names = hashlib.sha256(), 0, 0
    with atomic_path(path) as part, pq.ParquetWriter(part, schema) as file:
        for shard in _shards(sources, shard_images, every):
            content = [os.fsencode(name) for name in shard]
            file.write_table(pa.table({_COLUMN: content}, schema=schema), row_group_size=len(content))
            digest.update(b"\0".join(content) + b"\0\0")
            shards, names = shards + 1, names + len(content)
        if not names:
            raise InputError(f"{', '.join(sources)}: no images")
    return Plan(digest.hexdigest(), shards, names)


def read_shard(path: Path, shard: int) -> list[str]:
    """Return the names of a shard."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        return [os.fsdecode(name) for name in file.read_row_group(shard)[_COLUMN].to_pylist()]


def _shards(sources: Sequence[str], shard_images: int, every: int) -> Iterator[list[str]]:
    """Yield shards: a tar file each, or as many images."""
    images: list[str] = []
    for name in (name for source in sources for name in _names(source, every)):
        if images and (is_tar(name) or len(images) == shard_images):
            yield images
            images = []
        if is_tar(name):
            yield [name]
        else:
            images.append(name)
    if images:
        yield images


def _names(source: str, every: int) -> Iterator[str]:
    """Yield the images and tar files of a source, in order; local paths are absolute, for workers elsewhere."""
    if PurePath(source).suffix.lower() in _LISTS:
        yield from _listed(source)
    elif is_url(source):
        for url in list_url(source):
            if is_tar(url) or PurePath(url).suffix.lower() in IMAGE_SUFFIXES:
                yield url
    elif is_tar(source):
        if not Path(source).is_file():
            raise InputError(f"{source}: no such file; check the path")
        yield str(Path(source).absolute())
    else:
        yield from _local(Path(source), every)


def _local(source: Path, every: int) -> Iterator[str]:
    tars = [path for path in sorted(source.rglob("*")) if is_tar(path.name)] if is_folder(source) else []
    try:
        found: Sequence[str | Path] = list_images(source, among=False, every=every)
    except InputError:
        if not tars:
            raise
        found = ()
    yield from (str(Path(path).absolute()) for path in (*tars, *found))


def _listed(table: str) -> Iterator[str]:
    """Yield the column ``path`` of a Parquet list; relative paths begin in its folder."""
    import pyarrow.parquet as pq

    base = table.rpartition("/")[0] if is_url(table) else str(Path(table).absolute().parent)
    with _opened(table) as stream:
        try:
            file = pq.ParquetFile(stream)
            if "path" not in file.schema_arrow.names:
                raise InputError(f"{table}: no column 'path' (found: {', '.join(file.schema_arrow.names)}); add it")
            batches = file.iter_batches(batch_size=65536, columns=["path"])
            while batch := next(batches, None):
                yield from (_joined(base, name, table) for name in batch["path"].to_pylist())
        except InputError:
            raise
        except Exception as error:  # pyarrow raises nearly everything on damaged files
            raise InputError(f"{table}: not a readable Parquet file ({one_line(error, 200)})") from error


def _opened(table: str) -> Any:
    if is_url(table):
        return open_url(table)
    try:
        return Path(table).open("rb")
    except OSError as error:
        raise InputError(f"{table}: {error.strerror}; check the path") from error


def _joined(base: str, name: object, table: str) -> str:
    if not isinstance(name, str) or not name:
        raise InputError(f"{table}: a row without a path; fill it in or remove it")
    return name if is_url(name) or (not is_url(base) and Path(name).is_absolute()) else f"{base}/{name}"
