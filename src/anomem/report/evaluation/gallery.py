"""Pictures of a report: thumbnails with overlays and outlines, as data URIs."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from anomem.data.labelled_images import Images
from anomem.data.sources import open_source
from anomem.errors import ImageError, InputError
from anomem.evaluation.figures import Evaluation, ImageRow
from anomem.runtime.images import resize, resize_mask
from anomem.runtime.overlay import colourise, overlay
from anomem.runtime.text import number
from anomem.types import ANOMALOUS, NORMAL, BoolArray, UInt8Image

if TYPE_CHECKING:
    from anomem.loading import Model

_SIDE = 360
"""Longest side of a picture, pixels."""
_LOSSLESS_UP_TO = 128
_OUTLINE = np.array([0, 229, 255], np.uint8)


@dataclass(frozen=True)
class Picture:
    """Picture of a gallery: data URIs of the image and its overlay (None without maps)."""

    row: ImageRow
    image: str
    overlay: str | None
    pixelated: bool


@dataclass(frozen=True)
class Gallery:
    """Gallery of pictures under one heading."""

    title: str
    note: str
    pictures: tuple[Picture, ...]


def choose(evaluation: Evaluation, count: int) -> list[tuple[str, str, list[ImageRow]]]:
    """Choose informative images: title, note and rows of each gallery.

    Parameters
    ----------
    evaluation : Evaluation
    count : int
        Maximum number of images per gallery.
    """
    by_score = sorted(evaluation.results, key=lambda row: row.score)
    normals = [row for row in reversed(by_score) if row.label == NORMAL]
    anomalies = [row for row in by_score if row.label == ANOMALOUS]
    return [
        (
            "Highest-scoring normal images",
            "False alarms, or the nearest to one. Check for defects that were labelled normal.",
            normals[:count],
        ),
        (
            "Lowest-scoring anomalous images",
            "Missed defects, or the nearest to one. Labelling some of these helps most.",
            anomalies[:count],
        ),
        (
            "Typical detections",
            "Detected images with median scores of their defect type.",
            _typical([row for row in anomalies[count:] if row.anomalous], count),
        ),
    ]


def galleries(
    evaluation: Evaluation, detector: Model, *, count: int, batch_size: int, workers: int | None
) -> list[Gallery]:
    """Draw the chosen images; maps come from the detector's scoring path.

    Images that have been removed or become unreadable are left out; an evaluation without images has no pictures.
    """
    if evaluation.images is None:
        return []
    places = {row: place for place, row in enumerate(evaluation.results)}
    found = []
    for title, note, rows in choose(evaluation, count):
        if rows:
            images = evaluation.images.subset([places[row] for row in rows], title)
            found.append(Gallery(title, note, _draw(rows, images, detector, batch_size, workers)))
    return found


def suspect_pictures(detector: Model, count: int) -> list[tuple[str, str | None]]:
    """Return caption and data URI of the worst suspects of a fit; None for a file that is gone."""
    pictures: list[tuple[str, str | None]] = []
    for suspect in list(getattr(detector, "suspects_", ()))[:count]:
        caption = f"{PurePath(suspect['path']).name}, score {number(suspect['score'])}"
        try:
            image = open_source([suspect["path"]]).with_bits(detector.bits_).load(0)
        except (ImageError, InputError):
            pictures.append((caption, None))
            continue
        pictures.append((caption, data_uri(thumbnail(image))))
    return pictures


def colour_bar() -> str:
    """Return the colour scale from low to high as a data URI, 256 x 1 pixels."""
    return data_uri(colourise(np.linspace(0.0, 1.0, 256, dtype=np.float32)[None, :]))


def data_uri(image: UInt8Image) -> str:
    """Encode an image for a ``src`` attribute: small ones as PNG, others as JPEG."""
    buffer = io.BytesIO()
    if max(image.shape[:2]) <= _LOSSLESS_UP_TO or image.shape[0] == 1:
        kind = "png"
        Image.fromarray(image).save(buffer, format="PNG", optimize=True)
    else:
        kind = "jpeg"
        Image.fromarray(image).save(buffer, format="JPEG", quality=86, optimize=True)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def thumbnail(image: UInt8Image, side: int = _SIDE) -> UInt8Image:
    """Shrink an image (H, W, 3) to at most ``side`` pixels; smaller ones are unchanged."""
    return resize(image, _fitting(image.shape[:2], side)) if max(image.shape[:2]) > side else image


def outlined(image: UInt8Image, mask: BoolArray, width: int = 2) -> UInt8Image:
    """Draw the border of a mask (H, W) around its regions, ``width`` pixels, on a copy."""
    grown = mask
    for _ in range(width):
        grown = _grow(grown)
    drawn = image.copy()
    drawn[grown & ~mask] = _OUTLINE
    return drawn


def _typical(rows: list[ImageRow], count: int) -> list[ImageRow]:
    """Take the median of every type first, then images spread evenly over the scores."""
    chosen: list[ImageRow] = []
    for name in sorted({row.type or "" for row in rows}):
        of_type = [row for row in rows if (row.type or "") == name]
        chosen.append(of_type[len(of_type) // 2])
    rest = [row for row in rows if row not in chosen]
    missing = min(count - len(chosen), len(rest))
    if missing > 0:
        spread = np.linspace(0, len(rest) - 1, missing).round().astype(int)
        chosen += [rest[i] for i in spread]
    return sorted(chosen[:count], key=lambda row: row.score)


def _draw(
    rows: Sequence[ImageRow], images: Images, detector: Model, batch_size: int, workers: int | None
) -> tuple[Picture, ...]:
    source = images.source.with_bits(detector.bits_)
    options: dict[str, Any] = {"batch_size": batch_size, "workers": workers, "skip_bad": True}
    if detector.calibration_.strata is not None:
        options["strata"] = [row.stratum for row in rows]
    scored = detector.score(source, maps=detector.localizes, **options)
    pictures = []
    for place, (row, result) in enumerate(zip(rows, scored, strict=True)):
        if result.error is not None:
            continue
        try:
            image = source.load(place)
        except ImageError:
            continue
        heat = None
        if result.map is not None:
            low, high = detector.map_scale_
            heat = data_uri(thumbnail(overlay(image, result.map, low, high)))
        pixelated = max(image.shape[:2]) <= _LOSSLESS_UP_TO
        pictures.append(Picture(row, data_uri(_with_truth(image, images, place)), heat, pixelated))
    return tuple(pictures)


def _with_truth(image: UInt8Image, images: Images, place: int) -> UInt8Image:
    small = thumbnail(image)
    if images.labels[place] == NORMAL:
        return small
    try:
        mask = images.mask(place, (small.shape[0], small.shape[1]))
    except ImageError:
        return small
    if mask is None:
        return small
    mask = resize_mask(mask, small.shape[:2])  # one in memory has the image's own size
    return outlined(small, mask, width=1 if max(small.shape[:2]) <= _LOSSLESS_UP_TO else 2)


def _fitting(height_width: tuple[int, ...], side: int) -> tuple[int, int]:
    height, width = height_width
    scale = side / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def _grow(mask: BoolArray) -> BoolArray:
    grown = mask.copy()
    grown[1:] |= mask[:-1]
    grown[:-1] |= mask[1:]
    grown[:, 1:] |= mask[:, :-1]
    grown[:, :-1] |= mask[:, 1:]
    return grown
