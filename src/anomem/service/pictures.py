"""Pictures of inspections: the image at any size, and heatmaps."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from typing import Literal

import numpy as np
from PIL import Image

from anomem.errors import InputError
from anomem.runtime.images import decode, resize, resize_map
from anomem.runtime.model import Model
from anomem.runtime.overlay import colourise, overlay
from anomem.runtime.recalibration import SCALE_RANGES
from anomem.service.images import Images
from anomem.service.scoring.serving import Serving
from anomem.service.scoring.strata import strata_for
from anomem.service.store.database import Database
from anomem.service.store.inspections import get_inspection
from anomem.service.store.models import get_model, get_version
from anomem.service.store.tables import Inspection
from anomem.types import BoolArray, FloatArray, UInt8Image

__all__ = ["Layer", "Pictures"]

Layer = Literal["image", "overlay", "map", "contour"]
"""Image alone, image with its heatmap, or the heatmap or its contour alone with transparency."""

_KEPT_BYTES = 64 << 20
_KEPT_MAPS = 8
_PER_LINE = 350
"""Pixels of width per pixel of a contour."""


class Pictures:
    """Maker of PNG pictures, the latest of them kept.

    Parameters
    ----------
    database : Database
    images : Images
    serving : Serving
    max_pixels : int
        Size limit per image.
    """

    def __init__(self, database: Database, images: Images, serving: Serving, max_pixels: int) -> None:
        self._database, self._images, self._serving, self._max_pixels = database, images, serving, max_pixels
        self._kept: OrderedDict[tuple[int, Layer, int | None, float], bytes] = OrderedDict()
        self._maps: OrderedDict[int, tuple[Model, FloatArray]] = OrderedDict()
        self._lock, self._one = threading.Lock(), threading.Semaphore(1)

    def png(self, inspection_id: int, layer: Layer, width: int | None = None, opacity: float = 0.5) -> bytes:
        """Return a picture of an inspection as PNG.

        Parameters
        ----------
        inspection_id : int
        layer : {"image", "overlay", "map", "contour"}
            The contour surrounds pixels above the level that 99.9 % of the pixels of calibration normals stay below.
        width : int, optional
            Pixels; never above the image's own.
        opacity : float
            Of an overlay, 0 to 1.

        Raises
        ------
        MissingError
            No such inspection, or retention has removed its image.
        InputError
            Heatmap of a method that draws none.
        """
        key = (inspection_id, layer, width, opacity)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        with self._one:  # a map is a forward pass, and scoring needs the cores
            content = self._drawn(inspection_id, layer, width, opacity)
        with self._lock:
            self._kept[key] = content
            while sum(map(len, self._kept.values())) > _KEPT_BYTES:
                self._kept.popitem(last=False)
        return content

    def of_image(self, sha256: str, name: str, width: int | None) -> bytes:
        """Return a stored image as PNG, at most `width` pixels wide; MissingError if it is not there."""
        return _png(_fitted(decode(self._images.path(sha256), name=name, max_pixels=self._max_pixels), width))

    def _drawn(self, inspection_id: int, layer: Layer, width: int | None, opacity: float) -> bytes:
        with self._database.reading() as session:
            inspection = get_inspection(session, inspection_id)
        if layer == "image":
            return self.of_image(inspection.image_sha256, inspection.name, width)
        model, values = self._map(inspection)
        path = self._images.path(inspection.image_sha256)
        image = _fitted(decode(path, name=inspection.name, max_pixels=self._max_pixels, bits=model.bits_), width)
        values = resize_map(values, image.shape[:2])
        if layer == "overlay":
            return _png(overlay(image, values, *model.map_scale_, opacity=opacity))
        return _png(_transparent(values, model) if layer == "map" else _contour(values, model))

    def _map(self, inspection: Inspection) -> tuple[Model, FloatArray]:
        """Return the model of an inspection and its map, which is kept: heatmap and contour are both shown."""
        if inspection.id in self._maps:
            self._maps.move_to_end(inspection.id)
            return self._maps[inspection.id]
        with self._database.reading() as session:
            version = get_version(session, inspection.version_id)
            alpha = get_model(session, inspection.model_id).alpha
        path = self._images.path(inspection.image_sha256)
        model = self._serving.model(version, alpha)
        if not model.localizes:
            raise InputError(f"{model.name}: scores whole images and draws no maps; see the image alone")
        strata = strata_for(model, [inspection.stratum])
        (found,) = model.score([path], maps=True, strata=strata, max_pixels=self._max_pixels)
        if found.map is None:
            raise InputError(f"{inspection.name}: has no map; see the image alone")
        self._maps[inspection.id] = model, found.map
        while len(self._maps) > _KEPT_MAPS:
            self._maps.popitem(last=False)
        return model, found.map


def _fitted(image: UInt8Image, width: int | None) -> UInt8Image:
    height, own = image.shape[:2]
    if width is None or width >= own:
        return image
    return resize(image, (max(1, round(height * width / own)), width))


def _transparent(values: FloatArray, model: Model) -> UInt8Image:
    """Return colours with an alpha channel that grows over the first quarter of the scale."""
    low, high = model.map_scale_
    scaled = np.clip((values - low) / max(high - low, 1e-12), 0, 1)
    opacity = np.rint(255 * np.clip(4 * scaled, 0, 1)).astype(np.uint8)
    return np.dstack([colourise(scaled), opacity])


def _contour(values: FloatArray, model: Model) -> UInt8Image:
    """Return a white line with a black border around what exceeds almost all pixels of normals, transparent else."""
    low, high = model.map_scale_
    inside = values > low + (high - low) / SCALE_RANGES
    width = max(1, round(values.shape[1] / _PER_LINE))
    line = inside & ~_shrunk(inside, width)
    border = ~inside & ~_shrunk(~inside, width)
    drawn = np.zeros((*values.shape, 4), np.uint8)
    drawn[border] = (0, 0, 0, 200)
    drawn[line] = 255
    return drawn


def _shrunk(mask: BoolArray, width: int) -> BoolArray:
    """Return a mask without `width` pixels at its borders; beyond the image it goes on."""
    for _ in range(width):
        padded = np.pad(mask, 1, mode="edge")
        mask = mask & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask


def _png(image: UInt8Image) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, format="PNG", compress_level=1)
    return stream.getvalue()
