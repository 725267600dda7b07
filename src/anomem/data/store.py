"""Store of the normals of a fit: paths and content hashes in a table beside the model, for refitting with more."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anomem.data.samples import Sample
from anomem.data.sources import PathSource
from anomem.errors import ImageError, InputError
from anomem.runtime.atomic import atomic_path
from anomem.types import NORMAL, Record

if TYPE_CHECKING:
    from anomem.data.corpus import Corpus

__all__ = ["Stored", "call_facts", "read_store", "store_of", "stored_normals", "with_earlier", "write_store"]

_COLUMNS = ("path", "digest", "group", "stratum")
_REMEDY = "fit again on all images"
_TEXT: Any = {"encoding": "utf-8", "errors": "surrogateescape"}


@dataclass(frozen=True)
class Stored:
    """One normal image of a fit.

    Parameters
    ----------
    path : Path
        Its absolute path.
    digest : int
        Its content hash, 8 bytes.
    group : str or None
        The group that it is in.
    stratum : str or None
        Its stratum.
    """

    path: Path
    digest: int
    group: str | None = None
    stratum: str | None = None


def store_of(model: str | Path) -> Path:
    """Return the path of a model file's store: its name with ``.store.csv``."""
    return Path(f"{model}.store.csv")


def stored_normals(corpus: Corpus) -> tuple[Stored, ...]:
    """Return the found normals of a corpus for its store; none if they are arrays."""
    if not isinstance(corpus.source, PathSource):
        return ()
    return tuple(
        Stored(
            Path(os.path.abspath(corpus.source.name(int(i)))),  # noqa: PTH100 - links stay
            corpus.digests[i],
            None if corpus.groups[i] is None else str(corpus.groups[i]),
            corpus.strata[i] if corpus.strata else None,
        )
        for i in corpus.found_normals()
    )


def write_store(model: str | Path, normals: Sequence[Stored]) -> None:
    """Write the store of a model beside it atomically.

    Raises
    ------
    InputError
        The normals are not known: they were arrays, or the model was loaded from a file.
    OutputError
        The file cannot be written.
    """
    if not normals:
        raise InputError(
            f"{store_of(model)}: the image files of the fit are not known; fit on files, and keep the store then"
        )
    with atomic_path(store_of(model)) as part, part.open("w", newline="", **_TEXT) as stream:
        table = csv.writer(stream)
        table.writerow(_COLUMNS)
        table.writerows((n.path, f"{n.digest:016x}", _quoted(n.group), _quoted(n.stratum)) for n in normals)


def _quoted(name: str | None) -> str:
    """Return a name as JSON, which no spreadsheet reads as a formula."""
    return "" if name is None else json.dumps(name)


def read_store(model: str | Path, learnt: frozenset[int]) -> tuple[Stored, ...]:
    """Read the store of a model.

    Parameters
    ----------
    model : str or Path
        The model file.
    learnt : frozenset of int
        Content hashes of the images that the model has learnt from: all must be in its store.

    Raises
    ------
    InputError
        The store is missing, damaged, or that of another model.
    """
    place = store_of(model)
    if not place.is_file():
        raise InputError(
            f"{place}: no such store, which `fit --keep-store` (save(keep_store=True)) writes beside {model}: "
            f"put it there, or {_REMEDY}"
        )
    try:
        with place.open(newline="", **_TEXT) as stream:
            normals = tuple(map(_stored, csv.DictReader(stream)))
    except (KeyError, TypeError, ValueError, RecursionError, csv.Error, OSError) as error:
        raise InputError(f"{place}: no store of normals, or damaged; {_REMEDY}") from error
    if not learnt <= {normal.digest for normal in normals}:
        raise InputError(f"{place}: the store of another model than {model}; put its own there, or {_REMEDY}")
    return normals


def _stored(row: Mapping[str, str]) -> Stored:
    # Stores of earlier versions have no strata.
    group, stratum = (json.loads(row[name]) if row.get(name) else None for name in ("group", "stratum"))
    return Stored(Path(row["path"]), int(row["digest"], 16), group, stratum)


def call_facts(call: Mapping[str, object]) -> dict[str, Any]:
    """Return the arguments of a fit that a later one with ``extend`` repeats, without those left at their defaults.

    They are the rules of ``groups`` and ``strata`` ("near", "folder", an expression), ``fit_precision`` and
    ``max_pixels``.
    """
    kinds = {"groups": str, "strata": str, "fit_precision": str, "max_pixels": int}
    return {n: call[n] for n, kind in kinds.items() if isinstance(call.get(n), kind) and call[n] != "auto"}


def with_earlier(earlier: Sequence[Stored], samples: Sequence[Sample]) -> Generator[Record, None, list[Sample]]:
    """Return earlier normals, then new samples, without duplicates; yields progress.

    Raises
    ------
    InputError
        An earlier image is gone or has changed.
    """
    source = PathSource(normal.path for normal in earlier)
    for i, normal in enumerate(earlier):
        try:
            digest = source.digest(i)
        except ImageError as error:
            raise InputError(f"{error}; the earlier fit learnt from it; put it back, or {_REMEDY}") from error
        if digest != normal.digest:
            raise InputError(f"{normal.path}: has changed since the earlier fit; put it back, or {_REMEDY}")
        yield Record("earlier files", i + 1, len(earlier))
    known = {normal.digest for normal in earlier}
    return [
        *(Sample(normal.path, NORMAL, group=normal.group, stratum=normal.stratum) for normal in earlier),
        *(sample for sample in samples if not _is_known(sample, known)),
    ]


def _is_known(sample: Sample, known: set[int]) -> bool:
    """Return True for a known normal image; unreadable images are left for the fit to report."""
    try:
        return sample.label == NORMAL and PathSource([sample.path]).digest(0) in known
    except ImageError:
        return False
