"""Image sets with a provider's own split: classes of every image, one-vs-rest labels, images inside files."""

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
    """One image as its provider lists it.

    Parameters
    ----------
    part : {"train", "validation", "test"}
    path : Path
        May go on inside a file; see `anomem.data.official.inside`.
    kind : str
        Class or type of defect; empty where the provider keeps it to itself.
    mask : Path, optional
        As for ``path``; a folder stands for the union of its masks.
    group : str, optional
        What must not be split apart: a video, a patient, a person.
    """

    part: Part
    path: Path
    kind: str
    mask: Path | None = None
    group: str | None = None


class Wanted(NamedTuple):
    """What a reader is asked for: the set's name, a category or None, and one of its variants."""

    name: str
    category: str | None
    variant: str


@dataclass(frozen=True)
class Listing:
    """What a reader found.

    Parameters
    ----------
    items : tuple of Item
    classes : tuple of str
        In the provider's order.
    notes : tuple of str
    split : bool
        Whether the provider tells training from test images.
    """

    items: tuple[Item, ...]
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()
    split: bool = True


@dataclass(frozen=True)
class OfficialSet(Dataset):
    """An image set with the split of its provider.

    ``train`` holds the normal training images and ``test`` the test images. Training images of other classes, and
    labelled defects among the training images, lie in ``spare``, so that a fit does not use them unasked; protocols
    with labelled anomalies draw from there. Where no class has been called normal yet, ``train`` holds all training
    images and all labels are -1.

    Parameters
    ----------
    name : str
        In the catalogue.
    category : str, optional
        The part of the set that was opened.
    listing : Listing
        What the reader found.
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
        """Whether every image and mask is a file of its own."""
        samples = (*self.train, *self.validation, *self.spare, *self.test)
        return all(s.path.is_file() and (s.mask is None or s.mask.is_file()) for s in samples)

    def class_of(self, sample: Sample) -> str:
        """Class or type of defect of one of the images; empty where the provider keeps it to itself."""
        return self._kinds[sample.path]

    def one_vs_rest(self, normal: str | Collection[str]) -> OfficialSet:
        """Call one class, or several, normal and all others anomalous.

        Raises
        ------
        InputError
            A class that the set does not have, or one without training images.
        """
        return label(self, (normal,) if isinstance(normal, str) else tuple(normal))

    def with_spare(self) -> OfficialSet:
        """Count the labelled anomalies among the training images to ``train``, for a fit with labels."""
        return replace(self, train=(*self.train, *self.spare), spare=())

    def source(self, samples: Iterable[Sample]) -> PathSource:
        """Open images of this set, wherever they lie: what ``fit`` and ``score`` take.

        Examples
        --------
        ``detector.fit(data.source(data.train))``
        """
        return PathSource(sample.path for sample in samples)

    def unpack(self, folder: str | Path) -> OfficialSet:
        """Write images and masks that lie inside files into a folder, as files of their own.

        Content hashes stay the same. Files that are there already are not written again.

        Parameters
        ----------
        folder : str or Path
            Made where it is missing; outside the set itself.

        Returns
        -------
        OfficialSet
            The same set with paths in ``folder``.

        Raises
        ------
        InputError
            The folder lies in the set.
        """
        target = Path(folder)
        if target.resolve().is_relative_to(self.root.resolve()):
            raise InputError(f"{target}: lies inside {self.root}: name another folder")
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
        A class that the set does not have, or one without training images.
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
        # Without a split of its own, a set trains on what is normal and tests on the rest, as class folders do.
        part = "test" if not listing.split and sample_label == ANOMALOUS else item.part
        by_part["spare" if aside else part].append(Sample(item.path, sample_label, mask, kind, item.group))
    if normal and not by_part["train"]:
        raise InputError(f"{data.root}: 0 training images of {', '.join(normal)}: choose another class")
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
        raise InputError(f"{target}: {error.strerror}: name a writable folder with room") from error
