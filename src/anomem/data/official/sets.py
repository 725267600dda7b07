"""Image sets with their provider's split: classes, one-vs-rest labels, images inside files."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from anomem.data.official.inside import entries, read_file, read_mask
from anomem.data.samples import Dataset, Sample, mask_note
from anomem.data.sources import PathSource
from anomem.errors import InputError
from anomem.runtime.images import write_png
from anomem.types import ANOMALOUS, NORMAL, UNKNOWN

__all__ = ["Item", "Listing", "OfficialSet", "Part", "Wanted", "label"]

Part = Literal["train", "validation", "test"]


@dataclass(frozen=True, slots=True)
class Item:
    """Image as listed by its provider.

    Parameters
    ----------
    part : {"train", "validation", "test"}
    path : Path
        Path, possibly into a file; see `anomem.data.official.inside`.
    kind : str
        Class or type of defect; empty if not published.
    mask : Path, optional
        Mask, as for ``path``; a folder is the union of its masks.
    group : str, optional
        Group that must not be split: a video, a patient, a person.
    """

    part: Part
    path: Path
    kind: str
    mask: Path | None = None
    group: str | None = None


class Wanted(NamedTuple):
    """Request to a reader: the set's name, a category or None, and a variant."""

    name: str
    category: str | None
    variant: str


@dataclass(frozen=True)
class Listing:
    """Result of a reader.

    Parameters
    ----------
    items : tuple of Item
    classes : tuple of str
        Classes in the provider's order.
    notes : tuple of str
    split : bool
        True if the provider separates training from test images.
    """

    items: tuple[Item, ...]
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()
    split: bool = True


@dataclass(frozen=True)
class OfficialSet(Dataset):
    """Image set with the split of its provider.

    ``train`` has the normal training images and ``test`` the test images. Training images of other classes, and
    labelled defects among the training images, are in ``spare``, so that a fit does not use them by default; protocols
    with labelled anomalies draw from it. Before normal classes are chosen, ``train`` has all training images and all
    labels are -1.

    Parameters
    ----------
    name : str
        Name in the catalogue.
    category : str, optional
        Opened part of the set.
    listing : Listing
        Result of the reader.
    validation, spare : tuple of Sample
        Validation images; labelled anomalies among the training images.
    """

    name: str = ""
    category: str | None = None
    listing: Listing = Listing((), ())
    validation: tuple[Sample, ...] = ()
    spare: tuple[Sample, ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        """Classes and types of defects, normal ones too, in the provider's order."""
        return self.listing.classes

    @property
    def on_disk(self) -> bool:
        """True if every image and mask is a file of its own."""
        samples = (*self.train, *self.validation, *self.spare, *self.test)
        return all(s.path.is_file() and (s.mask is None or s.mask.is_file()) for s in samples)

    def class_of(self, sample: Sample) -> str:
        """Return the class or type of defect of an image; empty if not published."""
        return self._kinds[sample.path]

    def one_vs_rest(self, normal: str | Collection[str]) -> OfficialSet:
        """Return the set with one class, or several, as normal and all others as anomalous.

        Raises
        ------
        InputError
            Unknown class, or class without training images.
        """
        return label(self, (normal,) if isinstance(normal, str) else tuple(normal))

    def with_spare(self) -> OfficialSet:
        """Return the set with the labelled anomalies of ``spare`` in ``train``, for a fit with labels."""
        return replace(self, train=(*self.train, *self.spare), spare=())

    def source(self, samples: Iterable[Sample]) -> PathSource:
        """Open images of this set, also inside files, for ``fit`` and ``score``.

        Examples
        --------
        ``detector.fit(data.source(data.train))``
        """
        return PathSource(sample.path for sample in samples)

    def unpack(self, folder: str | Path) -> OfficialSet:
        """Write images and masks inside files to a folder, as separate files.

        Content hashes are unchanged. Existing files are not written again.

        Parameters
        ----------
        folder : str or Path
            Folder outside the set, created if missing.

        Returns
        -------
        OfficialSet
            The same set with paths in ``folder``.

        Raises
        ------
        InputError
            The folder lies inside the set.
        """
        target = Path(folder)
        if target.resolve().is_relative_to(self.root.resolve()):
            raise InputError(f"{target}: lies inside {self.root}; name another folder")
        items = tuple(
            replace(
                item,
                path=_write(item.path, target / item.path.relative_to(self.root)),
                mask=item.mask and _write_mask(item.mask, target / item.mask.relative_to(self.root)),
            )
            for item in self.listing.items
        )
        places = {old.path: new for old, new in zip(self.listing.items, items, strict=True)}

        def moved(samples: tuple[Sample, ...]) -> tuple[Sample, ...]:
            return tuple(replace(s, path=places[s.path].path, mask=s.mask and places[s.path].mask) for s in samples)

        return replace(
            self,
            root=target,
            listing=replace(self.listing, items=items),
            train=moved(self.train),
            validation=moved(self.validation),
            spare=moved(self.spare),
            test=moved(self.test),
        )

    @cached_property
    def _kinds(self) -> dict[Path, str]:
        return {item.path: item.kind for item in self.listing.items}


def label(data: OfficialSet, normal: tuple[str, ...]) -> OfficialSet:
    """Label a set by its normal classes; with none, all labels are -1.

    Raises
    ------
    InputError
        Unknown class, or class without training images.
    """
    listing = data.listing
    unknown = [name for name in normal if name not in listing.classes]
    if unknown:
        raise InputError(f"{data.root}: no class {unknown[0]!r}; the classes are {', '.join(listing.classes)}")
    by_part: dict[str, list[Sample]] = {"train": [], "validation": [], "test": [], "spare": []}
    for item in listing.items:
        known = bool(normal) and bool(item.kind)
        sample_label = (NORMAL if item.kind in normal else ANOMALOUS) if known else UNKNOWN
        kind = item.kind if sample_label == ANOMALOUS else None
        mask = item.mask if sample_label == ANOMALOUS else None
        aside = item.part == "train" and sample_label == ANOMALOUS and listing.split
        # Without a provider's split, normal images train and all others test, as for class folders.
        part = "test" if not listing.split and sample_label == ANOMALOUS else item.part
        by_part["spare" if aside else part].append(Sample(item.path, sample_label, mask, kind, item.group))
    if normal and not by_part["train"]:
        raise InputError(f"{data.root}: 0 training images of {', '.join(normal)}; choose another class")
    train, validation, test, spare = (tuple(samples) for samples in by_part.values())
    notes = [*listing.notes, *mask_note(test)]
    if spare:
        notes.append(f"{len(spare):,} training images of other kinds set aside")
    return replace(
        data,
        train=train,
        validation=validation,
        test=test,
        spare=spare,
        split=listing.split,
        notes=tuple(notes),
    )


def _write(path: Path, target: Path) -> Path:
    _store(target, read_file(path))
    return target


def _write_mask(path: Path, target: Path) -> Path:
    if not path.is_dir() and not entries(path):
        return _write(path, target)
    target = target.with_name(f"{target.name}.png")
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        write_png(target, read_mask(path).astype(np.uint8) * np.uint8(255))
    return target


def _store(target: Path, content: bytes) -> None:
    if target.is_file() and target.read_bytes() == content:
        return
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    except OSError as error:
        raise InputError(f"{target}: {error.strerror}; name a writable folder with room") from error
