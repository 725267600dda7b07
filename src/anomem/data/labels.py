"""Labels stored in a model: paths and labels of labelled image files."""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

from anomem.data.corpus import Corpus, read_corpus
from anomem.data.samples import Sample
from anomem.data.sources import PathSource
from anomem.errors import ImageError, InputError
from anomem.types import IntArray, Record

__all__ = ["extended", "label_rows"]

LabelRow = Mapping[str, Any]
"""Path, label, mask and type of a labelled image, JSON-ready."""

_REMEDY = "give all labels at once, without add"


def label_rows(corpus: Corpus, chosen: IntArray | Sequence[int]) -> tuple[LabelRow, ...]:
    """Return one row per labelled image file, with absolute paths; none if an image or a mask is an array."""
    masks = [corpus.masks[i] for i in chosen]
    if not isinstance(corpus.source, PathSource) or not all(isinstance(m, (str, Path, type(None))) for m in masks):
        return ()
    return tuple(
        {
            "path": os.path.abspath(corpus.source.name(int(i))),  # noqa: PTH100 - links stay
            "label": int(corpus.labels[i]),
            "mask": None if mask is None else os.path.abspath(mask),  # type: ignore[arg-type] # noqa: PTH100
            "type": corpus.types[i],
        }
        for i, mask in zip(chosen, masks, strict=True)
    )


def extended(corpus: Corpus, earlier: Sequence[LabelRow], known: frozenset[int]) -> Generator[Record, None, Corpus]:
    """Add earlier labels to new ones; for an image labelled again, the new label counts.

    Parameters
    ----------
    corpus : Corpus
        New labels.
    earlier : sequence of rows
        Rows of :func:`label_rows` stored in the model.
    known : frozenset of int
        Content hashes of the images of earlier labels.

    Raises
    ------
    InputError
        Earlier images are missing, have changed or were given as arrays; new ones are given as arrays.
    """
    new = label_rows(corpus, range(len(corpus.labels)))
    if known and not earlier:
        raise InputError(f"the model does not know the files of its earlier labels; {_REMEDY}")
    if not new:
        raise InputError(f"labels are added to earlier ones as image files, not as arrays; {_REMEDY}")
    old, limit = [_sample(row) for row in earlier], corpus.source.reading.max_pixels
    try:
        found = (yield from read_corpus(old, max_pixels=limit)) if old else None
    except ImageError as error:
        raise InputError(f"{error}; it was labelled earlier; put it back, or {_REMEDY}") from error
    digests = () if found is None else found.digests
    for sample, digest in zip(old, digests, strict=True):
        if digest not in known:
            raise InputError(f"{sample.path}: has changed since it was labelled; put it back, or {_REMEDY}")
    kept = [sample for sample, digest in zip(old, digests, strict=True) if digest not in corpus.digests]
    fresh = [_sample(row) for row, digest in zip(new, corpus.digests, strict=True) if digest]
    return (yield from read_corpus([*kept, *fresh], max_pixels=limit))


def _sample(row: LabelRow) -> Sample:
    mask, kind = row.get("mask"), row.get("type")
    return Sample(
        Path(str(row["path"])),
        int(row["label"]),
        None if mask is None else Path(str(mask)),
        None if kind is None else str(kind),
    )
