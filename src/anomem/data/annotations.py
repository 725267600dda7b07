"""Exports of annotation tools (Label Studio, CVAT) as labelled images; their polygons are masks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np

from anomem.data import cvat, label_studio
from anomem.data.regions import Annotated, Region, drawn
from anomem.errors import ImageError, InputError
from anomem.runtime.words import class_of, mentions_defect
from anomem.types import ANOMALOUS, NORMAL, UNKNOWN, BoolArray

__all__ = ["EXPORT_SUFFIXES", "LABEL_WORDS", "Labelled", "labelled_by", "read_export", "read_regions"]

EXPORT_SUFFIXES = frozenset({".json", ".xml"})

MASK_SUFFIX = ".regions"
"""Suffix of a path into an export, for the regions of its n-th image: ``labels.json/12.regions``."""

LABEL_WORDS = {
    **dict.fromkeys(("0", "0.0", "good", "normal", "ok"), NORMAL),
    **dict.fromkeys(("1", "1.0", "anomalous", "anomaly", "abnormal"), ANOMALOUS),
    **dict.fromkeys(("defect", "defective", "bad", "ng"), ANOMALOUS),
    **dict.fromkeys(("", "-1", "-1.0", "unknown"), UNKNOWN),
}
"""Label words of tables, none of which is a type of defect."""

_UPLOADED = re.compile(r"[0-9a-f]{8}-(?=.)")
_LARGEST = 64 << 20


@dataclass(frozen=True)
class Labelled:
    """Facts of an image of an export: position, file, label, mask and type of defect."""

    where: str
    path: Path
    label: int
    mask: Path | None
    type: str | None


def read_export(export: Path) -> list[Labelled]:
    """Read an export of Label Studio (JSON, JSON-MIN) or CVAT (for images 1.1, XML).

    Parameters
    ----------
    export : Path
        Its images lie in its folder or below, under the path that the export names or the end of it; the number that
        Label Studio puts before the name of an uploaded file may be missing.

    Returns
    -------
    list of Labelled
        One per image. Without annotation its label is unknown. An image with a region is anomalous, and its mask is
        made of the regions where all of them are polygons (or CVAT's masks).

    Raises
    ------
    InputError
        Naming the place: a file that is no such export or too large, a label that is not understood, a missing image,
        annotations that contradict each other.
    """
    return labelled_by(export, _annotated(export))


def labelled_by(export: Path, images: Sequence[Annotated]) -> list[Labelled]:
    """Label the images of an export; see `read_export`."""
    if not images:
        raise InputError(f"{export}: 0 images: the export is empty; export the annotated tasks")
    beside_normal = any(_meaning(word) == NORMAL for image in images for word in image.words)
    found: dict[Path, str] = {}
    rows = []
    for number, image in enumerate(images):
        path = _file(export, image)
        earlier = found.setdefault(path, image.written)
        if earlier != image.written:
            raise InputError(
                f"{image.where}: {image.written} and {earlier} are both found at {path}; keep the images' folders"
            )
        label = _label(image, beside_normal)
        masked = label == ANOMALOUS and bool(image.regions) and all(region.has_area for region in image.regions)
        mask = export / f"{number}{MASK_SUFFIX}" if masked else None
        rows.append(Labelled(image.where, path, label, mask, _kind(image) if label == ANOMALOUS else None))
    return rows


def read_regions(place: Path, height_width: tuple[int, int] | None = None) -> BoolArray:
    """Draw the regions of an image of an export as its mask.

    Parameters
    ----------
    place : Path
        As `read_export` names masks.
    height_width : (int, int), optional
        Size of the mask; by default the image's, as the export says.

    Returns
    -------
    ndarray of bool, shape (H, W)

    Raises
    ------
    ImageError
        The export has changed, or does not say the image's size.
    """
    export = place.parent
    try:
        facts = export.stat()
        images = _cached(export, (facts.st_size, facts.st_mtime_ns))
        image = images[int(place.stem)]
    except (OSError, ValueError, IndexError, InputError) as error:
        raise ImageError(str(place), "no regions there: the export has changed; read its labels again") from error
    size = height_width or image.height_width
    if size is None:
        raise ImageError(str(place), "the export does not say the image's size; export it again")
    mask = np.zeros(size, dtype=bool)
    for region in _defects(image.regions):
        mask |= drawn(region, size)
    return mask


@lru_cache(maxsize=4)
def _cached(export: Path, _state: tuple[int, int]) -> list[Annotated]:
    return _annotated(export)


def _annotated(export: Path) -> list[Annotated]:
    if not export.is_file():
        raise InputError(f"{export}: no such file; check the path")
    size = export.stat().st_size
    if size > _LARGEST:
        raise InputError(
            f"{export}: {size >> 20} MB of annotations, at most {_LARGEST >> 20} are read; export in parts"
        )
    if export.suffix.lower() == ".xml":
        return cvat.read(export)
    if export.suffix.lower() == ".json":
        return label_studio.read(export)
    return label_studio.read_csv(export)


def _defects(regions: Iterable[Region]) -> list[Region]:
    return [region for region in regions if _meaning(region.word) != NORMAL]


def _meaning(word: str) -> int | None:
    known = LABEL_WORDS.get(word.strip().casefold())
    if known is None and mentions_defect(word):
        return ANOMALOUS
    return class_of(word) if known is None else known


def _label(image: Annotated, beside_normal: bool) -> int:
    labels = set()
    for word in image.words:
        label = _meaning(word)
        if label is None and not beside_normal:
            raise InputError(
                f"{image.where}: label {word!r} is not understood; name it normal or defect; beside images labelled "
                "normal, any other label is a kind of defect"
            )
        labels.add(ANOMALOUS if label is None else label)
    if _defects(image.regions):
        labels.add(ANOMALOUS)
    if len(labels - {UNKNOWN}) > 1:
        raise InputError(f"{image.where}: {image.written} is annotated as normal and as a defect: mend one of the two")
    return max(labels, default=UNKNOWN)


def _kind(image: Annotated) -> str | None:
    words = [*(region.word for region in _defects(image.regions)), *image.words]
    kinds = (word.strip() for word in words if word.strip().casefold() not in LABEL_WORDS)
    return next((kind for kind in kinds if _meaning(kind) != NORMAL), None)


def _file(export: Path, image: Annotated) -> Path:
    """Find the file of an image: at the path of the export, or at the end of that path below the export's folder."""
    parts = _parts(image.written)
    direct = [Path(image.written)] if "://" not in image.written else []
    ends = [Path(*parts[i:]) for i in range(len(parts))]
    bare = [end.with_name(_UPLOADED.sub("", end.name, count=1)) for end in ends]
    folders = (export.parent, export.parent / "images")
    for path in (*direct, *(folder / end for end in dict.fromkeys((*ends, *bare)) for folder in folders)):
        try:
            if path.is_file():
                return path
        except (OSError, ValueError):
            continue
    raise InputError(f"{image.where}: {image.written}: no such file; put the images beside {export}")


def _parts(written: str) -> list[str]:
    """Split a path or address into its parts; Label Studio's local files follow ``?d=``."""
    split = urlsplit(written) if "://" in written or written.startswith("/data/") else None
    if split is None:
        path = written
    else:
        path = split.query.removeprefix("d=") if split.query.startswith("d=") else split.path
        path = unquote(path.partition("&")[0])
    return [part for part in path.replace("\\", "/").split("/") if part not in ("", ".", "..")]
