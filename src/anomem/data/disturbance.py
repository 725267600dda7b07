"""Disturbances of pose and colour: images as they would lie, and be lit, on a less orderly line.

The FYD paper ("Performance for Disturbed MVTec" and Table 3) disturbs every training and test image once, either in
space (zoom in, zoom out, rotation, flip) or in colour (brightness and contrast, contrast-limited adaptive histogram
equalisation). It states no strengths; those here are usual for such augmentations.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from anomem.errors import InputError, ParameterError
from anomem.types import BoolArray, UInt8Image

__all__ = ["COLOUR", "SPATIAL", "Disturbance", "Drawn", "disturbance_for", "draw", "equalise"]

NO_COLOUR = ("tile", "wood", "capsule")
"""Categories of MVTec AD where another colour is an anomaly: the paper does not disturb their colours."""

NO_TURN = ("transistor",)
"""Categories that lie in a demanded direction: the paper neither flips nor rotates them."""

_LUMA = np.array([0.299, 0.587, 0.114])

_LIMITS = {"rotation": 180.0, "mirror": 1.0, "upside_down": 1.0, "brightness": 1.0, "contrast": 1.0, "clahe": 1.0}


@dataclass(frozen=True)
class Disturbance:
    """How strongly images are disturbed; all zeros (and a zoom of 1) leave them as they are.

    Parameters
    ----------
    zoom : tuple of float
        Least and largest magnification about the image's centre, above 0; drawn evenly on a logarithmic scale.
    rotation : float
        Largest angle either way, degrees, in [0, 180].
    mirror, upside_down : float
        Probability of a left-right and of a top-bottom flip, in [0, 1].
    brightness : float
        Largest shift either way, relative to white, in [0, 1].
    contrast : float
        Factors are drawn from 1 - contrast to 1 + contrast, in [0, 1].
    clahe : float
        Probability of an adaptive equalisation, in [0, 1].
    clip_limit : float
        Its largest slope, drawn from 1 to this; at least 1.

    Raises
    ------
    ParameterError
        A value outside its range.
    """

    zoom: tuple[float, float] = (1.0, 1.0)
    rotation: float = 0.0
    mirror: float = 0.0
    upside_down: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    clahe: float = 0.0
    clip_limit: float = 4.0

    def __post_init__(self) -> None:
        low, high = self.zoom
        if not 0 < low <= high:
            raise ParameterError(f"zoom {self.zoom}: give 0 < least <= largest")
        if self.clip_limit < 1:
            raise ParameterError(f"clip_limit {self.clip_limit}: give at least 1")
        for name in (field.name for field in fields(self) if field.name in _LIMITS):
            if not 0 <= getattr(self, name) <= _LIMITS[name]:
                raise ParameterError(f"{name} {getattr(self, name)}: give 0 to {_LIMITS[name]:g}")


SPATIAL = Disturbance(zoom=(0.8, 1.25), rotation=45.0, mirror=0.5, upside_down=0.5)
"""Zoom in and out, rotation, flips."""

COLOUR = Disturbance(brightness=0.2, contrast=0.2, clahe=0.5)
"""Brightness and contrast, adaptive equalisation."""


def disturbance_for(kind: str, category: str) -> Disturbance:
    """Return what the paper applies to a category of MVTec AD.

    Parameters
    ----------
    kind : {"spatial", "colour"}
    category : str
        Name of the set, such as ``"bottle"``; unknown names get everything.

    Raises
    ------
    InputError
        Another kind, or colour on tile, wood and capsule, where another colour is a defect.
    """
    if kind not in ("spatial", "colour"):
        raise InputError(f"no disturbance {kind!r}: choose spatial or colour")
    if kind == "colour":
        if category in NO_COLOUR:
            raise InputError(f"{category}: another colour is a defect there; disturb it in space only")
        return COLOUR
    return Disturbance(zoom=SPATIAL.zoom) if category in NO_TURN else SPATIAL


@dataclass(frozen=True)
class Drawn:
    """One disturbance as drawn, to be applied to an image and to its mask alike.

    Parameters
    ----------
    zoom : float
        Magnification about the centre.
    angle : float
        Rotation about the centre as seen on the image, degrees, counter-clockwise; applied after the flips.
    mirrored, upside_down : bool
        Flips.
    shift : float
        Added, relative to white.
    gain : float
        Contrast about the image's mean grey.
    clip_limit : float
        Largest slope of the adaptive equalisation; 0: none.
    """

    zoom: float = 1.0
    angle: float = 0.0
    mirrored: bool = False
    upside_down: bool = False
    shift: float = 0.0
    gain: float = 1.0
    clip_limit: float = 0.0

    def image(self, image: UInt8Image) -> UInt8Image:
        """Disturb an image (H, W, 3) uint8; bilinear; beyond the border its pixels go on."""
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise InputError(f"an image of shape {image.shape}, {image.dtype}: give (H, W, 3) uint8")
        return self._recoloured(self._moved(image, order=1))

    def mask(self, mask: BoolArray) -> BoolArray:
        """Move a mask (H, W) bool as the image was moved; the nearest pixel counts."""
        if mask.dtype != np.bool_ or mask.ndim != 2:
            raise InputError(f"a mask of shape {mask.shape}, {mask.dtype}: give (H, W) bool")
        return self._moved(mask[..., None].astype(np.uint8), order=0)[..., 0].astype(bool)

    def matrix(self) -> npt.NDArray[np.float64]:
        """Where a pixel comes from: (2, 2), from (row, column) about the centre of the result to the original's."""
        turn = np.deg2rad(self.angle)
        # Rows run downwards: a counter-clockwise turn as seen takes its source clockwise.
        turned = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
        flips = np.diag([-1.0 if self.upside_down else 1.0, -1.0 if self.mirrored else 1.0])
        return np.asarray(flips @ turned / self.zoom)

    def _moved(self, image: UInt8Image, *, order: int) -> UInt8Image:
        from scipy.ndimage import affine_transform

        matrix = self.matrix()
        if np.array_equal(matrix, np.eye(2)):
            return image.copy()
        centre = (np.asarray(image.shape[:2]) - 1) / 2
        options = {"offset": centre - matrix @ centre, "order": order, "mode": "nearest", "prefilter": False}
        planes = [affine_transform(plane.astype(np.float32), matrix, **options) for plane in np.moveaxis(image, 2, 0)]
        shaped: UInt8Image = np.clip(np.rint(np.stack(planes, axis=2)), 0, 255).astype(np.uint8)
        return shaped

    def _recoloured(self, image: UInt8Image) -> UInt8Image:
        if (self.gain, self.shift) != (1.0, 0.0):
            mean = float(image.mean())
            changed = (image.astype(np.float32) - mean) * self.gain + mean + 255 * self.shift
            image = np.clip(np.rint(changed), 0, 255).astype(np.uint8)
        return equalise(image, self.clip_limit) if self.clip_limit else image


def draw(disturbance: Disturbance, rng: np.random.Generator) -> Drawn:
    """Draw one disturbance; the number of draws does not depend on the strengths."""
    zoom, angle, mirrored, upside_down, shift, gain, equalised, slope = rng.random(8)
    low, high = disturbance.zoom
    return Drawn(
        zoom=float(low * (high / low) ** zoom),
        angle=float(disturbance.rotation * (2 * angle - 1)),
        mirrored=bool(mirrored < disturbance.mirror),
        upside_down=bool(upside_down < disturbance.upside_down),
        shift=float(disturbance.brightness * (2 * shift - 1)),
        gain=float(1 + disturbance.contrast * (2 * gain - 1)),
        clip_limit=float(1 + (disturbance.clip_limit - 1) * slope) if equalised < disturbance.clahe else 0.0,
    )


def equalise(image: UInt8Image, clip_limit: float, tiles: int = 8) -> UInt8Image:
    """Equalise the luminance locally, with limited contrast (CLAHE).

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W, 3)
        RGB; the chroma stays.
    clip_limit : float
        No grey level may be more frequent in a tile than this many times the average; what exceeds it is spread over
        all levels. It bounds the slope of the mapping.
    tiles : int
        Tiles a side; fewer where the image has fewer pixels.

    References
    ----------
    Zuiderveld, "Contrast Limited Adaptive Histogram Equalization", Graphics Gems IV, 1994.
    """
    luminance = image @ _LUMA
    grey = np.rint(luminance).astype(np.uint8)
    rows, columns = (min(tiles, side) for side in grey.shape)
    mappings = _mappings(grey, rows, columns, clip_limit)
    (above, below, down), (left, right, across) = (
        _neighbours(side, count) for side, count in zip(grey.shape, (rows, columns), strict=True)
    )

    def mapped(row: npt.NDArray[np.intp], column: npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
        return np.asarray(mappings[row[:, None], column[None, :], grey])

    top = mapped(above, left) * (1 - across) + mapped(above, right) * across
    bottom = mapped(below, left) * (1 - across) + mapped(below, right) * across
    blended = top * (1 - down[:, None]) + bottom * down[:, None]
    # Red, green and blue move together: the differences between them, the chroma, stay.
    equalised: UInt8Image = np.clip(np.rint(image + (blended - luminance)[..., None]), 0, 255).astype(np.uint8)
    return equalised


def _mappings(grey: npt.NDArray[np.uint8], rows: int, columns: int, clip_limit: float) -> npt.NDArray[np.float64]:
    """Each tile's mapping of grey levels: (rows, columns, 256), values 0 to 255."""
    mappings = np.empty((rows, columns, 256))
    for r, strip in enumerate(np.array_split(grey, rows, axis=0)):
        for c, tile in enumerate(np.array_split(strip, columns, axis=1)):
            counts = np.bincount(tile.ravel(), minlength=256).astype(float)
            most = clip_limit * tile.size / 256
            clipped = np.minimum(counts, most)
            clipped += (tile.size - clipped.sum()) / 256
            mappings[r, c] = 255 * np.cumsum(clipped) / tile.size
    return mappings


def _neighbours(side: int, count: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.float64]]:
    """For each pixel of a side the two tiles whose centres enclose it, and how far it is towards the second."""
    place = (np.arange(side) + 0.5) * count / side - 0.5
    first = np.clip(np.floor(place).astype(np.intp), 0, count - 1)
    second = np.minimum(first + 1, count - 1)
    return first, second, np.clip(place - first, 0.0, 1.0)
