"""Preprocessing: from an image to network inputs, and from maps back to the image's frame."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from anomem.errors import InputError, ModelFileError, ParameterError
from anomem.runtime.frame import MAX_SQUEEZE
from anomem.runtime.images import resize, resize_map, resize_mask
from anomem.runtime.limits import MAX_SIDE, MAX_TILES, TILES_AT_ONCE_BYTES
from anomem.runtime.mask_pixels import same_aspect
from anomem.runtime.pixels import BITS, GREY
from anomem.runtime.stitching import Stitching, shares
from anomem.types import BoolArray, Box, FloatArray, UInt8Image

__all__ = ["GREY", "MAX_OVERLAP", "Preprocessing", "Tiles"]

MAX_OVERLAP = 0.9
"""Maximum share of a tile that overlaps with the next."""

_KEYS = ("size", "letterbox", "tile", "overlap", "roi")
_LATER_KEYS = {"bits", "input_hw"}
"""Written only if they differ from the default, so that older versions refuse only files they would misread."""


@dataclass(frozen=True, eq=False)
class Preprocessing:
    """Cutting and resizing of images before scoring, and assembly of maps after it.

    Parameters
    ----------
    size : int
        Side of square inputs in pixels; of rectangular ones the root of about as many pixels.
    letterbox : bool
        Keep the aspect of every image and pad with grey, instead of stretching it to the input.
    tile : int, optional
        Cut images larger than this into overlapping tiles of ``tile`` x ``tile`` pixels.
    overlap : float
        Share of a tile that overlaps with the next, from 0 to 0.9. With 0, tiles are not blended
        and seams may show.
    roi : ndarray of bool, shape (h, w), optional
        Region of interest, True inside, in the frame of the images; scaled (nearest pixel) to images
        of another size, but not of another orientation. Pixels outside do not affect any result, to
        the bit.
    bits : {8, 10, 12, 14, 16}
        Bits used by 16-bit samples; see :class:`~anomem.runtime.pixels.Reading`.
    input_hw : (int, int), optional
        Height and width of the inputs, chosen for images of this aspect: those whose aspect differs by more than 10 %
        are padded, not stretched. By default inputs are square and all images are stretched.

    Raises
    ------
    ParameterError
        Value outside its range.
    """

    size: int
    letterbox: bool = False
    tile: int | None = None
    overlap: float = 0.25
    roi: BoolArray | None = None
    bits: int = 16
    input_hw: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        """Check the ranges and store a read-only copy of ``roi``."""
        for name in ("size", "tile"):
            value = getattr(self, name)
            if not (value is None and name == "tile") and not _is_positive_integer(value):
                raise ParameterError(f"{name} must be a whole number of at least 1, not {value!r}")
        if self.size > MAX_SIDE:
            raise ParameterError(f"size must be at most {MAX_SIDE}, not {self.size}")
        if isinstance(self.bits, bool) or self.bits not in BITS:
            raise ParameterError(f"bits must be one of {', '.join(map(str, BITS))}, not {self.bits!r}")
        if not isinstance(self.letterbox, bool):
            raise ParameterError(f"letterbox must be true or false, not {self.letterbox!r}")
        if isinstance(self.overlap, bool) or not isinstance(self.overlap, int | float):
            raise ParameterError(f"overlap must be a number, not {self.overlap!r}")
        if not 0 <= self.overlap <= MAX_OVERLAP:
            raise ParameterError(f"overlap must be from 0 to {MAX_OVERLAP}, not {self.overlap!r}")
        if self.roi is not None:
            object.__setattr__(self, "roi", _checked_roi(self.roi))
        if self.input_hw is not None:
            object.__setattr__(self, "input_hw", _checked_hw(self.input_hw))

    def __eq__(self, other: object) -> bool:
        """Return True if both treat every image alike."""
        if not isinstance(other, Preprocessing):
            return NotImplemented
        if self.to_dict() != other.to_dict():
            return False
        return self.roi is None or other.roi is None or np.array_equal(self.roi, other.roi)

    def __hash__(self) -> int:
        """Return a hash consistent with equality."""
        return hash((self.input_hw, *(v for v in self.to_dict().values() if not isinstance(v, list))))

    @property
    def hw(self) -> tuple[int, int]:
        """Height and width of the inputs, pixels."""
        return self.input_hw or (self.size, self.size)

    def view_hw(self, height_width: tuple[int, int]) -> tuple[int, int]:
        """Return height and width of the parts of an image that become inputs: those of a tile, or of the image."""
        height, width = height_width
        return (height, width) if self.tile is None else (min(height, self.tile), min(width, self.tile))

    def pads(self, height_width: tuple[int, int]) -> bool:
        """Return True if an image (or tile) of this size is padded to the inputs' aspect, False if it is stretched.

        Examples
        --------
        >>> frame = Preprocessing(64, input_hw=(32, 96))
        >>> frame.pads((100, 310)), frame.pads((100, 200))
        (False, True)
        """
        if self.input_hw is None:
            return self.letterbox
        (height, width), (rows, columns) = height_width, self.input_hw
        factor = (height * columns) / (width * rows)
        return self.letterbox or max(factor, 1 / factor) > MAX_SQUEEZE

    def boxes(self, height_width: tuple[int, int]) -> list[Box]:
        """Return the parts of an image that become inputs.

        Parameters
        ----------
        height_width : (int, int)
            The image's size.

        Returns
        -------
        list of Box
            Boxes, row by row. Without ``tile`` the whole image; otherwise tiles that cover it, the
            last of a row or column shifted inwards, a side shorter than the tile taken whole. Boxes
            outside the region of interest are left out.

        Raises
        ------
        InputError
            The image has no pixels or too many tiles; the region of interest has another
            orientation, or is empty at the image's size.
        """
        height, width = height_width
        if height < 1 or width < 1:
            raise InputError(f"an image of {height} x {width} has no pixels")
        count = len(self._spans(height)) * len(self._spans(width))
        if count > MAX_TILES:
            problem = f"an image of {height} x {width} pixels is {count:,} tiles, more than the limit of {MAX_TILES:,}"
            raise InputError(f"{problem}; take larger tiles, or less overlap")
        boxes = [
            Box(top, left, box_height, box_width)
            for top, box_height in self._spans(height)
            for left, box_width in self._spans(width)
        ]
        roi = self._roi_at(height_width)
        if roi is None:
            return boxes
        kept = [box for box in boxes if _crop(roi, box).any()]
        if not kept:
            found = f"the region of interest is empty at {height} x {width} pixels"
            raise InputError(f"{found}; mark with white where to look")
        return kept

    def cut(self, image: UInt8Image) -> npt.NDArray[np.uint8] | Tiles:
        """Cut an image into network inputs.

        Parameters
        ----------
        image : ndarray of uint8, shape (H, W, 3)

        Returns
        -------
        ndarray of uint8, shape (T, h, w, 3) of `hw`, or Tiles
            One input per box of `boxes`, in order; many inputs are cut on access.

        Raises
        ------
        InputError
            ``image`` has another shape or dtype, or as for `boxes`.
        """
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise InputError(f"cut takes (H, W, 3) uint8, not {image.shape} {image.dtype}")
        boxes = self.boxes((image.shape[0], image.shape[1]))
        roi = self._roi_at((image.shape[0], image.shape[1]))
        if roi is not None:
            # Before any resize, so that pixels outside cannot leak in.
            image = np.where(roi[:, :, None], image, np.uint8(GREY))
        tiles = Tiles(image, boxes, self)
        return tiles if math.prod(tiles.shape) > TILES_AT_ONCE_BYTES else tiles[:]

    def assemble(self, maps: FloatArray, height_width: tuple[int, int]) -> FloatArray:
        """Assemble the maps of an image's inputs in the image's frame.

        Overlapping tiles are averaged with weights that fall smoothly towards the inner edges of a
        tile (not at the image's border), which hides the seams.

        Parameters
        ----------
        maps : ndarray of float32, shape (T, h, w)
            One map per input of `cut`, at any resolution.
        height_width : (int, int)
            The image's size.

        Returns
        -------
        ndarray of float32, shape (H, W)
            Assembled map; outside the region of interest, the smallest value inside it.

        Raises
        ------
        InputError
            Wrong number of maps for the image, or as for `boxes`.
        """
        stitching = self.stitching(height_width)
        if maps.ndim != 3 or len(maps) != stitching.missing:
            raise InputError(f"{stitching.missing} maps (T, h, w) belong to this image, not {maps.shape}")
        stitching.add(maps)
        return stitching.result()

    def stitching(self, height_width: tuple[int, int]) -> Stitching:
        """Return the empty map of an image, to which the maps of its inputs are added; see `assemble`."""
        spans = self._spans(height_width[0]), self._spans(height_width[1])
        boxes, roi = self.boxes(height_width), self._roi_at(height_width)
        return Stitching(height_width, boxes, shares(spans, height_width, self._shared()), self._to_box, roi)

    def to_dict(self) -> dict[str, Any]:
        """Return all settings, with a flag in place of the pixels of ``roi``."""
        return {
            "size": int(self.size),
            "letterbox": self.letterbox,
            "tile": None if self.tile is None else int(self.tile),
            "overlap": float(self.overlap),
            "roi": self.roi is not None,
            **({} if self.bits == 16 else {"bits": int(self.bits)}),
            **({} if self.input_hw is None else {"input_hw": list(self.input_hw)}),
        }

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any], roi: BoolArray | None = None) -> Preprocessing:
        """Build from the output of `to_dict` and the region of interest, which is stored separately.

        Raises
        ------
        ModelFileError
            Unknown or missing keys, values out of range, or ``roi`` missing or not expected.
        """
        if set(facts) - _LATER_KEYS != set(_KEYS):
            keys = ", ".join(map(str, facts))
            raise ModelFileError(f"preprocessing has the keys {keys} instead of {', '.join(_KEYS)}")
        if facts["roi"] is not (roi is not None):
            raise ModelFileError("preprocessing and region of interest do not belong together")
        try:
            return cls(**{**facts, "roi": roi})
        except ParameterError as error:
            raise ModelFileError(f"preprocessing: {error}") from error

    def _spans(self, length: int) -> list[tuple[int, int]]:
        if self.tile is None or length <= self.tile:
            return [(0, length)]
        step = self.tile - self._shared()
        starts = [*range(0, length - self.tile, step), length - self.tile]
        return [(start, self.tile) for start in starts]

    def _shared(self) -> int:
        """Overlap of neighbouring tiles in pixels, less than a tile."""
        return 0 if self.tile is None else min(round(self.tile * self.overlap), self.tile - 1)

    def _roi_at(self, height_width: tuple[int, int]) -> BoolArray | None:
        if self.roi is None:
            return None
        if same_aspect(self.roi.shape[::-1], height_width) and not same_aspect(self.roi.shape, height_width):
            sizes = [f"{width} x {height}" for height, width in (self.roi.shape, height_width)]
            problem = f"the region of interest, {sizes[0]} pixels, lies the other way round than the image, {sizes[1]}"
            raise InputError(f"{problem}; turn the image, or fit for it separately")
        return resize_mask(self.roi, height_width)

    def _inner(self, box: Box) -> Box:
        """Return the area of the box's pixels in its input."""
        height, width = self.hw
        if not self.pads((box.height, box.width)):
            return Box(0, 0, height, width)
        if box.height * width >= box.width * height:
            inner = (height, max(1, round(height * box.width / box.height)))
        else:
            inner = (max(1, round(width * box.height / box.width)), width)
        return Box((height - inner[0]) // 2, (width - inner[1]) // 2, *inner)

    def _to_box(self, values: FloatArray, box: Box) -> FloatArray:
        if not self.pads((box.height, box.width)):
            return resize_map(values, (box.height, box.width))
        top, left, height, width = self._inner(box)
        down, across = values.shape[0] / self.hw[0], values.shape[1] / self.hw[1]
        region = (top * down, left * across, height * down, width * across)
        return resize_map(values, (box.height, box.width), region=region)


class Tiles:
    """Inputs of one image, cut on access.

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W, 3)
        Image, grey outside the region of interest.
    boxes : list of Box
        Parts of the image that become inputs.
    preprocessing : Preprocessing
        Steps from a part to an input.
    """

    def __init__(self, image: UInt8Image, boxes: list[Box], preprocessing: Preprocessing) -> None:
        self._image, self._boxes, self._preprocessing = image, boxes, preprocessing

    def __len__(self) -> int:
        """Return the number of inputs."""
        return len(self._boxes)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape of all inputs, (T, h, w, 3)."""
        return len(self), *self._preprocessing.hw, 3

    def __getitem__(self, part: slice) -> npt.NDArray[np.uint8]:
        """Return some inputs, (T, h, w, 3) uint8."""
        boxes, hw = self._boxes[part], self._preprocessing.hw
        if len(boxes) == 1 and not self._preprocessing.pads(boxes[0][2:]):
            return resize(_crop(self._image, boxes[0]), hw)[None]
        inputs = np.full((len(boxes), *hw, 3), GREY, np.uint8)
        for index, box in enumerate(boxes):
            top, left, height, width = self._preprocessing._inner(box)
            inputs[index, top : top + height, left : left + width] = resize(_crop(self._image, box), (height, width))
        return inputs


def _crop(array: npt.NDArray[Any], box: Box) -> npt.NDArray[Any]:
    return array[box.top : box.top + box.height, box.left : box.left + box.width]


def _checked_roi(roi: BoolArray) -> BoolArray:
    if getattr(roi, "dtype", None) != np.bool_ or roi.ndim != 2 or 0 in roi.shape:
        raise ParameterError("roi must be a bool array of shape (h, w); read it with read_mask")
    copy = np.array(roi)
    copy.flags.writeable = False
    return copy


def _checked_hw(value: Any) -> tuple[int, int]:
    sides = tuple(value) if isinstance(value, list | tuple) else ()
    if len(sides) != 2 or not all(_is_positive_integer(side) and side <= MAX_SIDE for side in sides):
        raise ParameterError(f"input_hw must be two whole numbers from 1 to {MAX_SIDE}, not {value!r}")
    return int(sides[0]), int(sides[1])


def _is_positive_integer(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and bool(value >= 1)
