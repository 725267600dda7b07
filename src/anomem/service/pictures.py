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
from anomem.service.images import Images
from anomem.service.scoring.serving import Serving
from anomem.service.scoring.strata import strata_for
from anomem.service.store.database import Database
from anomem.service.store.inspections import get_inspection
from anomem.service.store.models import get_model, get_version
from anomem.types import FloatArray, UInt8Image

__all__ = ["Layer", "Pictures"]

Layer = Literal["image", "overlay", "map"]
"""Image alone, image with its heatmap, or the heatmap alone with transparency."""

_KEPT_BYTES = 64 << 20


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
        self._lock, self._one = threading.Lock(), threading.Semaphore(1)

    def png(self, inspection_id: int, layer: Layer, width: int | None = None, opacity: float = 0.5) -> bytes:
        """Return a picture of an inspection as PNG.

        Parameters
        ----------
        inspection_id : int
        layer : {"image", "overlay", "map"}
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
            version = get_version(session, inspection.version_id)
            alpha = get_model(session, inspection.model_id).alpha
        if layer == "image":
            return self.of_image(inspection.image_sha256, inspection.name, width)
        path = self._images.path(inspection.image_sha256)
        model = self._serving.model(version, alpha)
        if not model.localizes:
            raise InputError(f"{model.name}: scores whole images and draws no maps; see the image alone")
        (found,) = model.score(
            [path], maps=True, strata=strata_for(model, [inspection.stratum]), max_pixels=self._max_pixels
        )
        if found.map is None:
            raise InputError(f"{inspection.name}: has no map; see the image alone")
        image = _fitted(decode(path, name=inspection.name, max_pixels=self._max_pixels, bits=model.bits_), width)
        values = resize_map(found.map, image.shape[:2])
        if layer == "overlay":
            return _png(overlay(image, values, *model.map_scale_, opacity=opacity))
        return _png(_transparent(values, model))


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


def _png(image: UInt8Image) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, format="PNG", compress_level=1)
    return stream.getvalue()
