"""Hyperparameters of the way from an image to the network's input, and the preprocessing that a fit makes of them."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Protocol

import numpy as np

from anomem.errors import AnomemWarning, ImageError, InputError
from anomem.params import FileOrArray, OneOf, Parameters, Range, param, parameters
from anomem.runtime.frame import Frame, choose_input_hw
from anomem.runtime.images import read_mask
from anomem.runtime.pixels import BITS, fitting_bits
from anomem.runtime.preprocess import Preprocessing
from anomem.runtime.scoring import PreparedImages
from anomem.runtime.sources import ImageSource, highest_level
from anomem.types import BoolArray

SIZE_DOC = "Side of the input, pixels; of a rectangular input, that of the square of about as many pixels."


class Framed(Protocol):
    """Resolved hyperparameters of :class:`FrameParameters`."""

    @property
    def size(self) -> int:
        """Input side, pixels."""

    @property
    def aspect(self) -> str:
        """Shape of the input: auto, square or letterbox."""

    @property
    def tile(self) -> int | None:
        """Side of tiles, pixels."""

    @property
    def tile_overlap(self) -> float:
        """Share of a tile's side by which neighbours overlap."""

    @property
    def roi(self) -> Any:
        """Region of interest: a path, an array or None."""

    @property
    def bits(self) -> int | str:
        """Bits that 16-bit samples use, or "auto"."""

    def input_strides(self) -> tuple[int, int] | None:
        """Return the pixels that height and width of a rectangular input are multiples of; None: inputs are square."""


@parameters
class FrameParameters(Parameters):
    """Hyperparameters that decide what of an image reaches the network."""

    moved: ClassVar[Mapping[str, str]] = {"letterbox": "aspect"}

    size: int = param(224, Range(16, 4096, integer=True), doc=SIZE_DOC, preset=True)
    aspect: str = param(
        "auto",
        OneOf(("auto", "square", "letterbox")),
        doc="Shape of the input: auto, a rectangle of the median aspect of the normals, in which images off by more "
        "than 10 % are padded (square, where those are most); square, to which all images are stretched; letterbox, a "
        "square in which all are padded.",
        preset=True,
        former={False: "square", True: "letterbox"},
    )
    tile: int | None = param(
        None,
        Range(32, 8192, integer=True),
        doc="Side of overlapping tiles that images are cut into, pixels, so that small defects stay visible.",
        optional=True,
    )
    tile_overlap: float = param(
        0.25, Range(0.0, 0.75), doc="Share of a tile's side by which neighbours overlap.", when="tile"
    )
    roi: Any = param(
        None,
        FileOrArray("a mask image's path, or an (H, W) array"),
        doc="Region of interest: black parts of this mask are left out of fitting, scores and maps.",
        optional=True,
    )
    bits: int | str = param(
        "auto", OneOf(("auto", *BITS)), doc="Bits that 16-bit samples use; auto: those of the normals."
    )

    def input_strides(self) -> tuple[int, int] | None:
        """Return the pixels that height and width of a rectangular input are multiples of; None: inputs are square."""
        return None


def read_preprocessing(params: Framed, normals: ImageSource | None = None) -> Preprocessing:
    """Build the preprocessing that the hyperparameters describe, and read a mask for `roi`.

    With ``bits="auto"`` as many bits as the 16-bit samples of `normals` use, 16 without any; with ``aspect="auto"``
    inputs of the median aspect of `normals`; square without any, and where more than half of them have another aspect.
    """
    bits = params.bits
    if isinstance(bits, str):
        bits = 16 if normals is None else _observed_bits(normals)
    preprocessing = Preprocessing(
        size=params.size,
        letterbox=params.aspect == "letterbox",
        tile=params.tile,
        overlap=params.tile_overlap,
        roi=_read_roi(params.roi),
        bits=bits,
    )
    strides = params.input_strides() if params.aspect == "auto" else None
    if strides is None or normals is None:
        return preprocessing
    views = [preprocessing.view_hw(normals.height_width(i)) for i in range(len(normals))]
    framed = replace(preprocessing, input_hw=choose_input_hw(views, params.size, strides))
    # Where most images differ from the typical one, padding costs more than stretching.
    return framed if sum(map(framed.pads, views)) <= len(views) / 2 else preprocessing


def frame_of(sets: Iterable[PreparedImages], grid_hw: tuple[int, int] | None) -> Frame:
    """Return the facts of a fit about the size at which its normal images are seen, read from their headers.

    Parameters
    ----------
    sets : iterable of PreparedImages
        Normal images of the fit, of one preprocessing.
    grid_hw : (int, int) or None
        Positions of the scorer's finest map.
    """
    prepared = list(sets)
    preprocessing = prepared[0].preprocessing
    sizes = [images.source.height_width(int(i)) for images in prepared for i in images.indices]
    height, width = (round(float(np.median(sides))) for sides in zip(*sizes, strict=True))
    padded = sum(preprocessing.pads(preprocessing.view_hw(hw)) for hw in sizes)
    seen = (preprocessing.size, preprocessing.hw, preprocessing.tile)
    return Frame((height, width), *seen, grid_hw=grid_hw, n_images=len(sizes), n_letterboxed=padded)


def _observed_bits(normals: ImageSource) -> int:
    """Find the number of bits that the 16-bit samples of some images use, and warn where it is below 16."""
    highest = highest_level(normals)
    bits = fitting_bits(highest) if highest else 16
    if bits < 16:
        found = f"16-bit values of the normal images end at {highest}: read as {bits} bits, in scoring too"
        warnings.warn(f"{found} (bits=16 keeps the whole range)", AnomemWarning, stacklevel=2)
    return bits


def _read_roi(roi: Any) -> BoolArray | None:
    if roi is None:
        return None
    if isinstance(roi, np.ndarray):
        mask, name = roi > 0, "roi"
    else:
        try:
            mask, name = read_mask(roi), str(roi)
        except ImageError as error:  # No image of a source: nothing can be left out instead.
            raise InputError(f"roi: {error}") from error
    if not mask.any():
        raise InputError(f"{name}: the region of interest is empty (all black); paint it white")
    return np.asarray(mask)
