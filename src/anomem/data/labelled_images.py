"""Labelled images from files, archives or memory, for evaluation and benchmark protocols."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from anomem.data.corpus import column_of, labels_of
from anomem.data.disturbance import Disturbance, Drawn, draw
from anomem.data.official.inside import file_size, read_mask
from anomem.data.samples import Dataset, Sample
from anomem.data.sources import ImageSource, PathSource, open_source, read_dataset
from anomem.errors import InputError
from anomem.runtime.groups import Groups
from anomem.runtime.pixels import Reading
from anomem.types import ANOMALOUS, NORMAL, UNKNOWN, BoolArray, ImagesLike, IntArray, UInt8Image

__all__ = ["DisturbedSource", "Images", "JoinedSource", "as_labelled"]


@dataclass(frozen=True, eq=False)
class Images:
    """Images with labels and further facts.

    Parameters
    ----------
    name : str
        Name unique within the process; key of cached results.
    source : ImageSource
        (N) images.
    labels : ndarray of intp, shape (N,)
        0 normal, 1 anomalous.
    kinds : tuple of str
        Class or type of defect per image; empty if unknown.
    masks : tuple
        Path (which may lead into a file), bool array (H, W), or None per image; empty for no masks.
    groups : tuple
        Groups that must not be split; empty for no groups.
    paths : tuple of Path
        Files, for their sizes; empty for images in memory.
    strata : tuple
        Strata with a calibration of their own; empty for no strata.
    """

    name: str
    source: ImageSource
    labels: IntArray
    kinds: tuple[str, ...]
    masks: tuple[Any, ...] = ()
    groups: tuple[str | None, ...] = ()
    paths: tuple[Path, ...] = field(default=(), repr=False)
    strata: tuple[str | None, ...] = ()

    @classmethod
    def of_samples(cls, name: str, samples: Sequence[Sample]) -> Images:
        """Open the images of samples in order; kinds are their types."""
        return cls(
            name,
            PathSource(sample.path for sample in samples),
            np.asarray([sample.label for sample in samples], dtype=np.intp),
            tuple(sample.type or "" for sample in samples),
            tuple(s.mask for s in samples) if any(s.mask for s in samples) else (),
            tuple(s.group for s in samples) if any(s.group for s in samples) else (),
            tuple(sample.path for sample in samples),
            tuple(s.stratum for s in samples) if any(s.stratum for s in samples) else (),
        )

    def __len__(self) -> int:
        return len(self.labels)

    def positions(self, label: int) -> IntArray:
        """Return the positions of the images with a label."""
        return np.flatnonzero(self.labels == label)

    def subset(self, positions: Iterable[int], name: str) -> Images:
        """Return the images at `positions`, in their order."""
        chosen = [int(i) for i in positions]

        def of(column: tuple[Any, ...]) -> tuple[Any, ...]:
            return tuple(column[i] for i in chosen) if column else ()

        return Images(
            name,
            self.source.subset(chosen),
            self.labels[chosen],
            of(self.kinds),
            of(self.masks),
            of(self.groups),
            of(self.paths),
            of(self.strata),
        )

    def relabelled(self, normal: Sequence[str], name: str) -> Images:
        """Return the same images with the kinds `normal` labelled normal and all others anomalous."""
        labels = np.asarray([NORMAL if kind in normal else ANOMALOUS for kind in self.kinds], dtype=np.intp)
        return replace(self, name=name, labels=labels)

    def mask(self, position: int, height_width: tuple[int, int]) -> BoolArray | None:
        """Return the mask of one image in the image's own size, or None."""
        found = self.masks[position] if self.masks else None
        if isinstance(found, (str, Path)):
            image = self.paths[position] if self.paths else None
            found = read_mask(found, height_width, image=image, max_pixels=self.source.reading.max_pixels)
        source, place = self.source, position
        while isinstance(source, JoinedSource):
            source, place = source.place(place)
        if found is None or not isinstance(source, DisturbedSource):
            return found
        return source.drawn(place).mask(found)

    def file_size(self, position: int) -> float:
        """Return the size of an image's file in bytes; NaN for an image in memory."""
        if not self.paths:
            return float("nan")
        return float(file_size(self.paths[position]))

    def joined(self, other: Images, name: str) -> Images:
        """Return these images followed by others."""

        def both(column: str, absent: Any) -> tuple[Any, ...]:
            parts = [getattr(part, column) or (absent,) * len(part) for part in (self, other)]
            return parts[0] + parts[1] if any(getattr(part, column) for part in (self, other)) else ()

        return Images(
            name,
            JoinedSource([self.source, other.source]),
            np.concatenate([self.labels, other.labels]),
            self.kinds + other.kinds,
            both("masks", None),
            both("groups", None),
            self.paths + other.paths if self.paths and other.paths else (),
            both("strata", None),
        )

    def disturbed(self, disturbance: Disturbance, number: int, name: str) -> Images:
        """Return the same images and their masks, each disturbed once."""
        return replace(self, name=name, source=DisturbedSource(self.source, disturbance, number))


def as_labelled(
    images: ImagesLike,
    y: Sequence[int] | None = None,
    *,
    masks: Sequence[Any] | None = None,
    types: Sequence[str | None] | None = None,
    strata: Groups = None,
    max_pixels: int | None = None,
) -> Images:
    """Open labelled images of any supported input.

    Parameters
    ----------
    images : Images, folder, table, Dataset, sequence of Sample, or anything that `open_source` takes
        Input. A folder or table is read by its layout; a Dataset gives its images for evaluation.
    y : sequence of int, length N, optional
        0 normal, 1 anomalous, -1 unknown; replaces the labels of the input.
    masks, types : sequence, length N, optional
        Masks and types; replace those of the input.
    strata : sequence, length N, or str, optional
        Strata; a text is the column of a table that holds them, if it is one.
    max_pixels : int, optional
        Maximum number of pixels of images and masks.

    Returns
    -------
    Images

    Raises
    ------
    InputError
        No labels, or different lengths.
    """
    found = _carried(images, y is None, strata if isinstance(strata, str) else None)
    if strata is not None and not isinstance(strata, str):
        found = replace(found, strata=tuple(map(str, column_of(strata, [None] * len(found), "stratum", len(found)))))
    if max_pixels is not None:
        found = replace(found, source=open_source(found.source, max_pixels=max_pixels))
    if y is None and masks is None and types is None:
        return found
    none = [None] * len(found)
    columns: dict[str, Any] = {
        "labels": found.labels if y is None else labels_of(y, none, UNKNOWN, len(found)),
        "masks": found.masks if masks is None else column_of(masks, none, "mask", len(found)),
        "kinds": found.kinds if types is None else tuple(t or "" for t in column_of(types, none, "type", len(found))),
    }
    return replace(found, **columns)


def _carried(images: ImagesLike, need_labels: bool, stratum: str | None) -> Images:
    """Return images with the labels and facts of the input."""
    if isinstance(images, Images):
        return images
    if isinstance(images, (str, Path)) and need_labels:
        images = read_dataset(images, stratum=stratum)
    if isinstance(images, Dataset):
        return Images.of_samples(str(images.root), images.for_evaluation())
    items = list(images) if isinstance(images, Iterator) else images
    if isinstance(items, Sequence) and items and all(isinstance(item, Sample) for item in items):
        return Images.of_samples("samples", items)
    if need_labels:
        raise InputError("the images have no labels; give y, one entry per image (0 normal, 1 anomalous, -1 unknown)")
    source = open_source(items)
    paths = tuple(Path(source.name(i)) for i in range(len(source))) if isinstance(source, PathSource) else ()
    return Images("images", source, np.full(len(source), UNKNOWN, dtype=np.intp), ("",) * len(source), paths=paths)


class JoinedSource(ImageSource):
    """Concatenated images of several sources."""

    def __init__(self, sources: Sequence[ImageSource]) -> None:
        self._places = [(source, i) for source in sources for i in range(len(source))]
        if sources:
            self.reading = sources[0].reading

    def __len__(self) -> int:
        """Count the images."""
        return len(self._places)

    def place(self, i: int) -> tuple[ImageSource, int]:
        """Return the source of image ``i`` and its position there."""
        return self._places[i]

    def load(self, i: int) -> UInt8Image:
        """Load image ``i``."""
        source, place = self._places[i]
        return source.load(place)

    def name(self, i: int) -> str:
        """Return the name of image ``i``."""
        source, place = self._places[i]
        return source.name(place)

    def digest(self, i: int) -> int:
        """Hash image ``i``."""
        source, place = self._places[i]
        return source.digest(place)

    def load_with_digest(self, i: int) -> tuple[UInt8Image, int]:
        """Load and hash image ``i``."""
        source, place = self._places[i]
        return source.load_with_digest(place)

    def peak(self, i: int) -> int | None:
        """Return the largest 16-bit sample of image ``i``."""
        source, place = self._places[i]
        return source.peak(place)

    def height_width(self, i: int) -> tuple[int, int]:
        """Return height and width of image ``i``."""
        source, place = self._places[i]
        return source.height_width(place)

    def with_reading(self, reading: Reading) -> Self:
        """Return the same images with other conversion settings."""
        changed = super().with_reading(reading)
        sources = {id(source): source for source, _ in self._places}
        read = {key: source.with_reading(reading) for key, source in sources.items()}
        changed._places = [(read[id(source)], i) for source, i in self._places]
        return changed

    def subset(self, indices: Iterable[int]) -> JoinedSource:
        """Select images."""
        chosen = copy.copy(self)
        chosen._places = [self._places[i] for i in indices]
        return chosen


class DisturbedSource(ImageSource):
    """Images of another source, each disturbed once, seeded by its content and a number.

    Parameters
    ----------
    source : ImageSource
    disturbance : Disturbance
        Strengths of the disturbance.
    number : int
        Seed of the disturbances.
    """

    def __init__(self, source: ImageSource, disturbance: Disturbance, number: int) -> None:
        self._source, self._disturbance, self._number = source, disturbance, number
        self.reading = source.reading

    def __len__(self) -> int:
        """Count the images."""
        return len(self._source)

    def drawn(self, i: int) -> Drawn:
        """Return the disturbance of image ``i``."""
        return self._drawn(self._source.digest(i))

    def load(self, i: int) -> UInt8Image:
        """Load and disturb image ``i``."""
        return self.load_with_digest(i)[0]

    def name(self, i: int) -> str:
        """Return the name of image ``i``."""
        return self._source.name(i)

    def digest(self, i: int) -> int:
        """Hash image ``i`` and its disturbance."""
        return self._disturbed_digest(self._source.digest(i))

    def load_with_digest(self, i: int) -> tuple[UInt8Image, int]:
        """Load, disturb and hash image ``i``."""
        image, digest = self._source.load_with_digest(i)
        return self._drawn(digest).image(image), self._disturbed_digest(digest)

    def peak(self, i: int) -> int | None:
        """Return the largest 16-bit sample of image ``i``, undisturbed."""
        return self._source.peak(i)

    def height_width(self, i: int) -> tuple[int, int]:
        """Return height and width of image ``i``, which disturbances keep."""
        return self._source.height_width(i)

    def with_reading(self, reading: Reading) -> Self:
        """Return the same disturbed images with other conversion settings."""
        changed = super().with_reading(reading)
        changed._source = self._source.with_reading(reading)
        return changed

    def subset(self, indices: Iterable[int]) -> DisturbedSource:
        """Select images; each is disturbed as before."""
        return DisturbedSource(self._source.subset(indices), self._disturbance, self._number)

    def _drawn(self, digest: int) -> Drawn:
        return draw(self._disturbance, np.random.default_rng([digest, self._number]))

    def _disturbed_digest(self, digest: int) -> int:
        facts = f"{digest} {self._disturbance} {self._number}".encode()
        return int.from_bytes(hashlib.sha256(facts).digest()[:8], "big")
