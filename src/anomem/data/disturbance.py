"""Disturbances of pose and colour, as on a line with less control of position and light.

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

__all__ = ["COLOUR", "SHIFTS", "SPATIAL", "Disturbance", "Drawn", "disturbance_for", "draw", "equalise"]

NO_COLOUR = ("tile", "wood", "capsule")
"""Categories of MVTec AD with colour anomalies, whose colours the paper does not disturb."""

NO_TURN = ("transistor",)
"""Categories with a required orientation, which the paper neither flips nor rotates."""

_LUMA = np.array([0.299, 0.587, 0.114])

_LIMITS = {"rotation": 180.0, "mirror": 1.0, "upside_down": 1.0, "brightness": 1.0, "contrast": 1.0, "clahe": 1.0}


@dataclass(frozen=True)
class Disturbance:
    """Strengths of a disturbance; zeros (and a zoom of 1) leave images unchanged.

    Parameters
    ----------
    zoom : tuple of float
        Minimum and maximum magnification about the image's centre, above 0; drawn uniformly on a logarithmic scale.
    rotation : float
        Maximum angle in either direction, degrees, in [0, 180].
    mirror, upside_down : float
        Probability of a left-right and of a top-bottom flip, in [0, 1].
    brightness : float
        Maximum shift in either direction, relative to white, in [0, 1].
    contrast : float
        Factors are drawn from 1 - contrast to 1 + contrast, in [0, 1].
    clahe : float
        Probability of an adaptive equalisation, in [0, 1].
    clip_limit : float
        Maximum slope of the equalisation, drawn from 1 to this; at least 1.
    fixed : Drawn, optional
        Disturbance of every image, in place of a drawn one.

    Raises
    ------
    ParameterError
        Value outside its range.
    """

    zoom: tuple[float, float] = (1.0, 1.0)
    rotation: float = 0.0
    mirror: float = 0.0
    upside_down: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    clahe: float = 0.0
    clip_limit: float = 4.0
    fixed: Drawn | None = None

    def __post_init__(self) -> None:
        low, high = self.zoom
        if not 0 < low <= high:
            raise ParameterError(f"zoom {self.zoom}; give 0 < least <= largest")
        if self.clip_limit < 1:
            raise ParameterError(f"clip_limit {self.clip_limit}; give at least 1")
        for name in (field.name for field in fields(self) if field.name in _LIMITS):
            if not 0 <= getattr(self, name) <= _LIMITS[name]:
                raise ParameterError(f"{name} {getattr(self, name)}; give 0 to {_LIMITS[name]:g}")


SPATIAL = Disturbance(zoom=(0.8, 1.25), rotation=45.0, mirror=0.5, upside_down=0.5)
"""Zoom in and out, rotation, flips."""

COLOUR = Disturbance(brightness=0.2, contrast=0.2, clahe=0.5)
"""Brightness and contrast, adaptive equalisation."""


def disturbance_for(kind: str, category: str) -> Disturbance:
    """Return the paper's disturbance of a category of MVTec AD.

    Parameters
    ----------
    kind : {"spatial", "colour"}
    category : str
        Name of the category, such as ``"bottle"``; unknown names get all disturbances.

    Raises
    ------
    InputError
        Unknown kind, or colour on tile, wood and capsule, which have colour defects.
    """
    if kind not in ("spatial", "colour"):
        raise InputError(f"no disturbance {kind!r}; choose spatial or colour")
    if kind == "colour":
        if category in NO_COLOUR:
            raise InputError(f"{category}: another colour is a defect there; disturb it in space only")
        return COLOUR
    return Disturbance(zoom=SPATIAL.zoom) if category in NO_TURN else SPATIAL


@dataclass(frozen=True)
class Drawn:
    """Drawn disturbance, applied alike to an image and its mask.

    Parameters
    ----------
    zoom : float
        Magnification about the centre.
    angle : float
        Rotation about the centre as seen on the image, degrees, counter-clockwise; applied after the flips.
    mirrored, upside_down : bool
        Flips.
    shift : float
        Brightness added, relative to white.
    gain : float
        Contrast about the image's mean grey.
    clip_limit : float
        Maximum slope of the adaptive equalisation; 0 for none.
    blur : float
        Standard deviation of a Gaussian blur, relative to the longer side.
    moved : tuple of float
        Translation down and to the right, relative to height and width; border pixels are replicated.
    """

    zoom: float = 1.0
    angle: float = 0.0
    mirrored: bool = False
    upside_down: bool = False
    shift: float = 0.0
    gain: float = 1.0
    clip_limit: float = 0.0
    blur: float = 0.0
    moved: tuple[float, float] = (0.0, 0.0)

    def image(self, image: UInt8Image) -> UInt8Image:
        """Disturb an image (H, W, 3) uint8, with bilinear interpolation and replicated border pixels."""
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise InputError(f"an image of shape {image.shape}, {image.dtype}; give (H, W, 3) uint8")
        return self._recoloured(self._moved(image, order=1))

    def mask(self, mask: BoolArray) -> BoolArray:
        """Disturb a mask (H, W) bool like its image, with nearest-neighbour interpolation."""
        if mask.dtype != np.bool_ or mask.ndim != 2:
            raise InputError(f"a mask of shape {mask.shape}, {mask.dtype}; give (H, W) bool")
        return self._moved(mask[..., None].astype(np.uint8), order=0)[..., 0].astype(bool)

    def matrix(self) -> npt.NDArray[np.float64]:
        """Return the (2, 2) matrix from (row, column) about the centre of the result to that of the original."""
        turn = np.deg2rad(self.angle)
        # Rows run downwards: a visibly counter-clockwise rotation samples its source clockwise.
        turned = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
        flips = np.diag([-1.0 if self.upside_down else 1.0, -1.0 if self.mirrored else 1.0])
        return np.asarray(flips @ turned / self.zoom)

    def _moved(self, image: UInt8Image, *, order: int) -> UInt8Image:
        from scipy.ndimage import affine_transform

        matrix, moved = self.matrix(), np.asarray(self.moved) * image.shape[:2]
        if np.array_equal(matrix, np.eye(2)) and not moved.any():
            return image.copy()
        centre = (np.asarray(image.shape[:2]) - 1) / 2
        options = {"offset": centre - matrix @ (centre + moved), "order": order, "mode": "nearest", "prefilter": False}
        planes = [affine_transform(plane.astype(np.float32), matrix, **options) for plane in np.moveaxis(image, 2, 0)]
        shaped: UInt8Image = np.clip(np.rint(np.stack(planes, axis=2)), 0, 255).astype(np.uint8)
        return shaped

    def _recoloured(self, image: UInt8Image) -> UInt8Image:
        if (self.gain, self.shift) != (1.0, 0.0):
            mean = float(image.mean())
            changed = (image.astype(np.float32) - mean) * self.gain + mean + 255 * self.shift
            image = np.clip(np.rint(changed), 0, 255).astype(np.uint8)
        if self.blur:
            image = self._blurred(image)
        return equalise(image, self.clip_limit) if self.clip_limit else image

    def _blurred(self, image: UInt8Image) -> UInt8Image:
        from scipy.ndimage import gaussian_filter

        sigma = self.blur * max(image.shape[:2])
        smooth = gaussian_filter(image.astype(np.float32), (sigma, sigma, 0), mode="nearest")
        blurred: UInt8Image = np.clip(np.rint(smooth), 0, 255).astype(np.uint8)
        return blurred


SHIFTS = {
    "brighter": Disturbance(fixed=Drawn(shift=0.05)),
    "blurred": Disturbance(fixed=Drawn(blur=1 / 256)),
    "moved": Disturbance(fixed=Drawn(moved=(0.05, 0.05))),
}
"""Shifts of a whole capture: 5 % of white brighter; blurred by 1 pixel of 256; moved by 5 % of height and width."""


def draw(disturbance: Disturbance, rng: np.random.Generator) -> Drawn:
    """Draw a disturbance, or return the fixed one; the number of draws does not depend on the strengths."""
    if disturbance.fixed is not None:
        return disturbance.fixed
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
        RGB image; the chroma is unchanged.
    clip_limit : float
        Maximum frequency of a grey level in a tile, relative to the average; the excess is spread over all levels. It
        bounds the slope of the mapping.
    tiles : int
        Tiles per side; fewer if the image has fewer pixels.

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
    # Red, green and blue shift together, so that their differences, the chroma, are unchanged.
    equalised: UInt8Image = np.clip(np.rint(image + (blended - luminance)[..., None]), 0, 255).astype(np.uint8)
    return equalised


def _mappings(grey: npt.NDArray[np.uint8], rows: int, columns: int, clip_limit: float) -> npt.NDArray[np.float64]:
    """Return the grey level mapping of each tile: (rows, columns, 256), values 0 to 255."""
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
    """Return, per pixel along a side, the two tiles with centres around it and the weight of the second."""
    place = (np.arange(side) + 0.5) * count / side - 0.5
    first = np.clip(np.floor(place).astype(np.intp), 0, count - 1)
    second = np.minimum(first + 1, count - 1)
    return first, second, np.clip(place - first, 0.0, 1.0)
