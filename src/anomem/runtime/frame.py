"""Frame of a model: the rectangle that images are seen at, and the smallest defect that it shows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np

__all__ = ["MAX_SQUEEZE", "Frame", "choose_input_hw"]

NEARLY_SQUARE = 1.05
"""Factor between the sides of typical images up to which inputs are square."""

MAX_SQUEEZE = 1.1
"""Largest factor between the aspects of an image and of the input at which the image is stretched, not padded."""

_ASPECT_WEIGHT = 12.0
"""Cost of a wrong aspect relative to that of another number of pixels, both as squared logarithms."""


def choose_input_hw(height_widths: Sequence[tuple[int, int]], size: int, strides: tuple[int, int]) -> tuple[int, int]:
    """Choose the input rectangle for images: about size x size pixels, with the median of their log-aspects.

    Parameters
    ----------
    height_widths : sequence of (int, int)
        Sizes of the images (or tiles), pixels.
    size : int
        Side of the square of as many pixels.
    strides : (int, int)
        Height and width become multiples of these, at least one, so that positions of the coarsest map tile the input.

    Returns
    -------
    (int, int)
        Height and width; (size, size) for images that are square within 5 %.

    Examples
    --------
    >>> choose_input_hw([(1000, 1500)], 224, (32, 32)), choose_input_hw([(100, 300)] * 3, 224, (32, 32))
    ((192, 288), (128, 384))
    >>> choose_input_hw([(480, 500)], 224, (32, 32))
    (224, 224)
    """
    tall = float(np.median([math.log(height / width) for height, width in height_widths]))
    if abs(tall) <= math.log(NEARLY_SQUARE):
        return size, size
    longest = 2 * size * math.exp(abs(tall) / 2)
    heights, widths = (range(step, max(step, math.ceil(longest)) + step, step) for step in strides)

    def cost(height: int, width: int) -> float:
        aspect, area = math.log(height / width) - tall, math.log(height * width / size**2)
        too_far = abs(aspect) > math.log(MAX_SQUEEZE)  # The typical image would be padded.
        return _ASPECT_WEIGHT * aspect**2 + area**2 + 100 * too_far

    # Per height only the widths around the best one are compared, which keeps the search short for long strips.
    pairs = [(h, w) for h in heights for w in _nearest(widths, _best_width(h, tall, size))]
    height, width = min(pairs, key=lambda hw: cost(*hw))
    return (size, size) if height == width else (height, width)


def _best_width(height: int, tall: float, size: int) -> float:
    """Return the width of least cost beside a height."""
    by_aspect, by_area = math.log(height) - tall, math.log(size**2 / height)
    return math.exp((_ASPECT_WEIGHT * by_aspect + by_area) / (_ASPECT_WEIGHT + 1))


def _nearest(multiples: range, value: float) -> range:
    """Return the two multiples around a value."""
    below = max(0, min(len(multiples) - 2, int(value / multiples.step) - 1))
    return multiples[below : below + 2]


@dataclass(frozen=True)
class Frame:
    """Facts of a fit about the size at which its images are seen.

    Parameters
    ----------
    image_hw : (int, int)
        Median height and width of the normal images, pixels.
    size : int
        Side of the square of about as many pixels as an input has.
    input_hw : (int, int)
        Height and width of the network's inputs, pixels.
    tile : int or None
        Side of the tiles that images are cut into, pixels.
    grid_hw : (int, int) or None
        Positions of the finest map; None for a method that draws none.
    n_images, n_letterboxed : int
        Normal images, and those of another aspect, which are padded.
    """

    image_hw: tuple[int, int]
    size: int
    input_hw: tuple[int, int]
    tile: int | None
    grid_hw: tuple[int, int] | None
    n_images: int
    n_letterboxed: int

    @property
    def position_px(self) -> int | None:
        """Side of one position of the finest map, in pixels of the image; None for a method that draws none."""
        if self.grid_hw is None:
            return None
        seen = [min(side, self.tile or side) for side in self.image_hw]
        return round(max(side / positions for side, positions in zip(seen, self.grid_hw, strict=True)))

    def sentences(self) -> list[str]:
        """Return the frame in words: the size seen, too small defects with settings that show them, padded images."""
        (height, width), (rows, columns) = self.image_hw, self.input_hw
        tiles = "" if self.tile is None else f", in tiles of {self.tile} px"
        seen = f"{width} x {height} px images are seen at {columns} x {rows}{tiles}"
        position = self.position_px
        if position is not None and position > 1:
            seen += f"; a defect under ~{position} px is smaller than one position{self._remedy()}"
        lines = [seen]
        if self.n_letterboxed:
            lines.append(
                f"{self.n_letterboxed:,} of {self.n_images:,} normal images differ by more than 10 % from this aspect "
                "and are padded: aspect=square stretches all alike"
            )
        return lines

    def _remedy(self) -> str:
        """Return the settings that show smaller defects, where images have more pixels than the model sees."""
        reduced = math.prod(min(side, self.tile or side) for side in self.image_hw) / math.prod(self.input_hw)
        if reduced < 2:
            return ""
        settings, tile = [f"size={2 * self.size}"], 1 << (2 * self.size - 1).bit_length()
        if tile < (self.tile or max(self.image_hw)):
            settings.append(f"tile={tile}")
        return f": {' or '.join(settings)}"

    def to_dict(self) -> dict[str, Any]:
        """Return all facts, with `position_px`."""
        return {**asdict(self), "position_px": self.position_px}

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> Self:
        """Build from the output of `to_dict`."""
        image_hw, input_hw, grid_hw = (
            facts[name] and tuple(map(int, facts[name])) for name in ("image_hw", "input_hw", "grid_hw")
        )
        plain: dict[str, Any] = {name: facts[name] for name in ("size", "tile", "n_images", "n_letterboxed")}
        return cls(image_hw=image_hw, input_hw=input_hw, grid_hw=grid_hw, **plain)
