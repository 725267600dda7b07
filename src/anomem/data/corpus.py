"""Training corpus of a fit: images with labels, types, masks, groups and content hashes."""

from __future__ import annotations

import warnings
from collections.abc import Generator, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from anomem.data.label_tables import merge_labels
from anomem.data.official.inside import read_mask
from anomem.data.sources import ImageSource, Sample, folder_samples, open_source, training_samples
from anomem.data.store import Stored, with_earlier
from anomem.data.video import is_video
from anomem.errors import AnomemWarning, ImageError, InputError
from anomem.runtime.alike import find_alike
from anomem.runtime.files import is_folder
from anomem.runtime.groups import Groups, group_facts, resolve_groups, resolve_strata
from anomem.runtime.pixels import fitting_bits
from anomem.runtime.preprocess import Preprocessing
from anomem.runtime.sources import FileSource, highest_level
from anomem.runtime.strata import COLUMN
from anomem.runtime.text import count
from anomem.types import ANOMALOUS, NORMAL, UNKNOWN, BoolArray, ImagesLike, IntArray, LabelsLike, Record

_LOOKED_AT = 1000
"""Maximum number of normals in the default search for near-duplicates."""

_REPEATS_NOTED = 0.1
"""Minimum share of near-duplicates, beyond one per group, for a warning."""

Mask = BoolArray | Path | str | None


@dataclass(frozen=True)
class Corpus:
    """Images with labels and further facts.

    Parameters
    ----------
    source : ImageSource
        The images.
    labels : ndarray
        (N,) 0 normal, 1 anomalous, -1 unknown.
    digests : tuple of int
        Content hashes, 8 bytes each; 0 for an unreadable image that was left out.
    masks : tuple
        Mask, path to a mask, or None per image.
    types, groups : tuple
        Defect type, and group that must not be split, per image; None if unknown.
    skipped : tuple of str
        One line per unreadable image.
    picked : frozenset of int
        Positions of individually labelled normals, which are never used for calibration.
    strata : tuple
        Stratum of each image, None for other images than the normals that are split; empty for no strata.
    strata_by : str
        Rule that names the strata.
    grouping : mapping
        Groups among the normals; see `anomem.runtime.groups.group_facts`.
    """

    source: ImageSource
    labels: IntArray
    digests: tuple[int, ...]
    masks: tuple[Mask, ...]
    types: tuple[str | None, ...]
    groups: tuple[Hashable | None, ...]
    skipped: tuple[str, ...] = ()
    picked: frozenset[int] = frozenset()
    strata: tuple[str | None, ...] = ()
    strata_by: str = ""
    grouping: Mapping[str, Any] = field(default_factory=dict)

    def positions(self, label: int) -> IntArray:
        """Return the positions of the images with a label, without unreadable ones."""
        readable = np.asarray([d != 0 for d in self.digests], dtype=bool)
        return np.flatnonzero((self.labels == label) & readable)

    def found_normals(self) -> IntArray:
        """Positions of the normals that are split into learn, tune and calibration, without picked ones."""
        return np.asarray([i for i in self.positions(NORMAL) if i not in self.picked], dtype=np.intp)

    def picked_normals(self, *, seen: frozenset[int]) -> IntArray:
        """Return the positions of the picked normals, without those with content in `seen`."""
        fresh = [i for i in self.positions(NORMAL) if i in self.picked and self.digests[i] not in seen]
        return np.asarray(fresh, dtype=np.intp)

    def mask_of(self, index: int, height_width: tuple[int, int]) -> BoolArray | None:
        """Return the mask of one image in the image's own size, or None."""
        mask = self.masks[index]
        if mask is None:
            return None
        if isinstance(mask, (str, Path)):
            image = self.source.name(index) if isinstance(self.source, FileSource) else None
            return read_mask(mask, height_width, image=image, max_pixels=self.source.reading.max_pixels)
        if mask.shape != height_width:
            raise InputError(
                f"{self.source.name(index)}: its mask is {mask.shape}, the image {height_width}; "
                "masks have their image's size"
            )
        return np.asarray(mask, dtype=bool)


def read_corpus(
    images: ImagesLike,
    y: Sequence[int] | None = None,
    *,
    labels: LabelsLike = None,
    masks: Sequence[Mask] | None = None,
    groups: Groups = None,
    types: Sequence[str | None] | None = None,
    strata: Groups = None,
    default_label: int = NORMAL,
    skip_bad: bool = False,
    max_pixels: int | None = None,
    preprocessing: Preprocessing | None = None,
    earlier: Sequence[Stored] = (),
) -> Generator[Record, None, Corpus]:
    """Build a corpus from the arguments of ``fit``; yields progress per file.

    Parameters
    ----------
    images : folder, list of paths, arrays, tensors, list of Sample, or ImageSource
        For a fit (`default_label` 0), the training part of a folder or table, by its layout; for labels, all images of
        a folder, labelled by the names of its subfolders.
    y : sequence of int, optional
        0 normal, 1 anomalous, -1 unknown; by default the labels of samples, else `default_label`.
    labels : table of labels or list of Sample, optional
        Individually labelled images, merged with `images`, which must be files then.
    masks, groups, types : sequences, optional
        One entry per image; for groups also "near", "folder" or a regular expression.
    strata : sequence, column of a table, "folder" or regular expression, optional
        Strata of the normals; by default those of samples, if any.
    skip_bad : bool
        Decode every image and mask once and leave out unreadable ones, and those that `preprocessing` cannot cut,
        instead of failing at the first.
    max_pixels : int, optional
        Maximum number of pixels per image.
    preprocessing : Preprocessing, optional
        Steps from an image to the network's input.
    earlier : sequence of Stored
        Normals of an earlier fit, to stand before `images`, which are files then.

    Raises
    ------
    InputError
        For earlier images that are gone or have changed; lengths that differ; labels other than 0, 1, -1; no images.
    """
    fitting = default_label == NORMAL
    paths = isinstance(images, (str, Path)) or (isinstance(images, (list, tuple)) and any(map(is_video, images)))
    rule = strata if isinstance(strata, str) else None
    samples = None if paths and not fitting else training_samples(images, rule)
    picked: frozenset[int] = frozenset()
    if earlier:
        if any(isinstance(column, (list, tuple, np.ndarray)) for column in (y, masks, groups, types)):
            raise InputError("extend: y, masks, types and groups of the new images cannot be columns; give Samples")
        samples = yield from with_earlier(earlier, _files(images, samples))
    if labels is not None:
        samples, picked = merge_labels(_files(images, samples), labels)
    if samples is None and isinstance(images, (str, Path)) and is_folder(images):
        samples = folder_samples(images, default_label)
    source = open_source(images if samples is None else samples, max_pixels=max_pixels)
    known: Sequence[Sample | None] = samples or [None] * len(source)
    labelled = labels_of(y, known, default_label, len(source))
    named = groups if isinstance(groups, str) else None
    given = {"mask": masks, "type": types, "group": groups if named is None else None}
    columns: dict[str, Any] = {
        f"{name}s": column_of(values, known, name, len(source)) for name, values in given.items()
    }
    corpus = Corpus(source, labelled, (), **columns, picked=picked)
    digests, skipped = yield from _digests(corpus, skip_bad, preprocessing)
    corpus = replace(corpus, digests=digests, skipped=skipped)
    if not fitting:
        return corpus
    carried = column_of(None, known, "stratum", len(source))
    corpus = _stratified(corpus, carried if any(carried) and (rule or strata is None) else strata, rule)
    return (yield from _grouped(corpus, named))


def _files(images: ImagesLike, samples: Sequence[Sample] | None) -> Sequence[Sample]:
    if samples is not None:
        return samples
    if isinstance(images, (list, tuple)) and all(isinstance(image, (str, Path)) for image in images):
        return [Sample(Path(image), NORMAL) for image in images]
    raise InputError("images in memory cannot be merged with labelled or earlier files; give files, or y")


def _grouped(corpus: Corpus, groups: str | None) -> Generator[Record, None, Corpus]:
    """Return a corpus with grouped normals; see `anomem.runtime.groups.resolve_groups`.

    Without groups from `groups` or the images, near-duplicates are searched among at most 1,000 normals, and a warning
    names the setting that groups them.
    """
    normals = corpus.found_normals()
    if groups is None:
        if len(normals) and all(corpus.groups[i] is None for i in normals):
            return replace(corpus, grouping=(yield from _look_for_alike(corpus, normals)))
        return replace(corpus, grouping=_facts(corpus, normals, [corpus.groups[i] for i in normals], "given"))
    found = yield from resolve_groups(groups, _visible(corpus, normals))
    column: list[Hashable | None] = [None] * len(corpus.groups)
    for i, group in zip(normals, found or (), strict=True):
        column[i] = group
    return replace(corpus, groups=tuple(column), grouping=_facts(corpus, normals, found or (), groups))


def _facts(
    corpus: Corpus, positions: Sequence[int] | IntArray, groups: Sequence[Hashable | None], rule: str
) -> dict[str, Any]:
    return group_facts([corpus.source.name(int(i)) for i in positions], groups, rule)


def _stratified(corpus: Corpus, strata: Groups, rule: str | None) -> Corpus:
    """Return a corpus with the stratum of each normal, if any is given."""
    if strata is None:
        return corpus
    normals = corpus.found_normals()
    if not isinstance(strata, str):
        if len(strata) != len(corpus.labels):
            raise InputError(f"strata has {len(strata)} entries for {len(corpus.labels)} images; give one per image")
        strata = [strata[i] for i in normals]
    column: list[str | None] = [None] * len(corpus.labels)
    for i, stratum in zip(normals, resolve_strata(strata, corpus.source.subset(normals)), strict=True):
        column[i] = stratum
    return replace(corpus, strata=tuple(column), strata_by=rule or COLUMN)


def _visible(corpus: Corpus, positions: Sequence[int] | IntArray) -> ImageSource:
    """Return the images of a corpus, read with the bits used by their samples."""
    source = corpus.source.subset(positions)
    highest = highest_level(source)
    return source.with_bits(fitting_bits(highest)) if highest else source


def _look_for_alike(corpus: Corpus, normals: IntArray) -> Generator[Record, None, dict[str, Any]]:
    once = {corpus.digests[i]: int(i) for i in reversed(normals)}  # equal files are one image anyway
    chosen = sorted(once[digest] for digest in sorted(once)[:_LOOKED_AT])
    found = yield from find_alike(_visible(corpus, chosen))
    facts = _facts(corpus, chosen, found, "near-duplicates, counted one by one")
    if len(set(found)) <= (1 - _REPEATS_NOTED) * len(chosen):
        one, other = facts["examples"][0]
        warnings.warn(
            f"{facts['in_groups']:,} of {len(chosen):,} normal images are near-duplicates, in "
            f"{count(facts['groups'], 'group')} (such as {one} and {other}); "
            "the promised false-alarm rate does not hold for new parts; "
            "set groups='near' (--group-by near), or name the groups",
            AnomemWarning,
            stacklevel=5,
        )
    return facts


def labels_of(y: Sequence[int] | None, known: Sequence[Sample | None], default: int, n: int) -> IntArray:
    """Return the given labels, or else those of samples; `default` for images without a label.

    Raises
    ------
    InputError
        Length other than `n`, or labels other than 0, 1, -1.
    """
    given = [s.label if s else default for s in known] if y is None else _listed(y, "y")
    if len(given) != n:
        raise InputError(f"y has {len(given)} labels for {n} images; give one per image")
    if not all(np.ndim(label) == 0 and label in (NORMAL, ANOMALOUS, UNKNOWN) for label in given):
        raise InputError("y holds other labels than 0 (normal), 1 (anomalous) and -1 (unknown)")
    return np.asarray([int(label) for label in given], dtype=np.intp)


def _listed(values: Sequence[Any], name: str) -> list[Any]:
    if isinstance(values, str) or not hasattr(values, "__len__") or getattr(values, "ndim", 1) == 0:
        raise InputError(f"{name} is {values!r}; give one entry per image")
    return list(values)


def column_of(given: Sequence[Any] | None, known: Sequence[Any], name: str, n: int) -> tuple[Any, ...]:
    """Return the given entries, or else the samples' entries `name`; InputError for a length other than `n`."""
    values = [getattr(s, name, None) for s in known] if given is None else _listed(given, f"{name}s")
    if len(values) != n:
        raise InputError(f"{name}s has {len(values)} entries for {n} images; give one per image")
    return tuple(values)


def _digests(
    corpus: Corpus, skip_bad: bool, preprocessing: Preprocessing | None
) -> Generator[Record, None, tuple[tuple[int, ...], tuple[str, ...]]]:
    source = corpus.source
    if not len(source):
        raise InputError("there are no images to learn from")
    digests, skipped = [], []
    for i in range(len(source)):
        try:
            digests.append(_usable(corpus, i, preprocessing) if skip_bad else source.digest(i))
        except ImageError as error:
            if not skip_bad:
                raise
            digests.append(0)
            skipped.append(str(error))
        yield Record("files", i + 1, len(source))
    if skipped:
        warnings.warn(f"left out {len(skipped)} unreadable images", AnomemWarning, stacklevel=4)
    return tuple(digests), tuple(skipped)


def _usable(corpus: Corpus, i: int, preprocessing: Preprocessing | None) -> int:
    """Hash image `i`; ImageError if the image, its mask or its inputs cannot be used."""
    image, digest = corpus.source.load_with_digest(i)
    height_width = (image.shape[0], image.shape[1])
    try:
        if isinstance(corpus.masks[i], (str, Path)):
            corpus.mask_of(i, height_width)
        if preprocessing is not None:
            preprocessing.boxes(height_width)
    except InputError as error:
        raise ImageError(corpus.source.name(i), str(error)) from error
    return digest
