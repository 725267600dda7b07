"""Data set of three photographed textures with planted defects, included in the package.

The photographs are stored beside this module; ``textures/SOURCE.md`` gives origin and licence (CC0).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Literal

import numpy as np

from anomem.data.defects import DEFECTS, VISIBLE, plant
from anomem.errors import InputError
from anomem.runtime.images import decode, resize, write_png
from anomem.runtime.listing import find_images
from anomem.types import Box, UInt8Image

__all__ = [
    "DEFECTS",
    "TEXTURES",
    "VISIBLE",
    "crops",
    "half_box",
    "plant",
    "texture",
    "write_textures",
]

TEXTURES = ("brick", "grass", "gravel")
"""Names of the photographs, 448 x 448 px each."""

Half = Literal["train", "test"]

_WINDOW = 160
"""Side of a crop's window, in pixels of the photograph."""


@functools.cache
def _photograph(name: str) -> UInt8Image:
    if name not in TEXTURES:
        raise InputError(f"no texture {name!r}; choose one of {', '.join(TEXTURES)}")
    file = resources.files("anomem.data") / "textures" / f"{name}.png"
    image = decode(file.read_bytes(), name=f"{name}.png")
    image.setflags(write=False)
    return image


def texture(name: str) -> UInt8Image:
    """Return a photograph.

    Parameters
    ----------
    name : {"brick", "grass", "gravel"}

    Returns
    -------
    ndarray of uint8, shape (448, 448, 3)
        A copy.

    Raises
    ------
    InputError
        Unknown name.
    """
    return _photograph(name).copy()


def half_box(name: str, half: Half) -> Box:
    """Return the half of a photograph for training (left) or testing (right)."""
    height, width, _ = _photograph(name).shape
    if half not in ("train", "test"):
        raise InputError(f"no half {half!r}; choose train or test")
    return Box(0, 0 if half == "train" else width // 2, height, width // 2)


def crops(name: str, count: int, *, size: int, half: Half, rng: np.random.Generator) -> UInt8Image:
    """Cut random squares out of one half of a photograph.

    Training and test crops share no pixel of the photograph. Place, scale (0.9 to 1.1), left-right
    flip and brightness (0.94 to 1.06) vary.

    Parameters
    ----------
    name : str
        One of `TEXTURES`.
    count : int
        Number of crops.
    size : int
        Side of each crop in pixels, at least 16.
    half : {"train", "test"}
        Half of the photograph.
    rng : numpy.random.Generator

    Returns
    -------
    ndarray of uint8, shape (count, size, size, 3)

    Raises
    ------
    InputError
        Unknown name or half, or size below 16.
    """
    if size < 16:
        raise InputError(f"size {size} is too small for a texture; give at least 16")
    top, left, height, width = half_box(name, half)
    part = _photograph(name)[top : top + height, left : left + width]
    images = np.empty((count, size, size, 3), np.uint8)
    for image in images:
        side = min(size, _WINDOW) * rng.uniform(0.9, 1.1)
        window = round(side)
        y, x = rng.integers(height - window + 1), rng.integers(width - window + 1)
        crop = resize(np.ascontiguousarray(part[y : y + window, x : x + window]), (size, size))
        if rng.random() < 0.5:  # the halves of the brick photograph lean to opposite sides
            crop = crop[:, ::-1]
        image[...] = np.clip(np.rint(crop * rng.uniform(0.94, 1.06)), 0, 255)
    return images


def write_textures(
    folder: str | Path,
    *,
    n_train: int,
    n_test: int,
    size: int,
    seed: int,
    textures: Sequence[str] = TEXTURES,
) -> tuple[Path, ...]:
    """Write each texture as a data set in MVTec layout, with masks.

    Parameters
    ----------
    folder : str or Path
        Folder, created if missing, with a subfolder per texture.
    n_train : int
        Number of normal training images per texture.
    n_test : int
        Number of normal, and of anomalous, test images per texture; defects are taken in turn from
        `DEFECTS`.
    size : int
        Side of the images in pixels.
    seed : int
        Random seed. Training images do not depend on ``n_test``, nor test images on ``n_train``.
    textures : sequence of str
        Names from `TEXTURES`.

    Returns
    -------
    tuple of Path
        Folders of the textures.

    Raises
    ------
    InputError
        Folder with other images, or arguments out of range.
    """
    if n_train < 1 or n_test < 1:
        raise InputError(f"n_train {n_train} and n_test {n_test}; give at least 1 each")
    roots = []
    for name in textures:
        root = Path(folder) / name
        images = _make(name, n_train, n_test, size, seed)
        _refuse_others(root, images)
        for place, image in images.items():
            path = root / place
            path.parent.mkdir(parents=True, exist_ok=True)
            write_png(path, image)
        roots.append(root)
    return tuple(roots)


def _make(name: str, n_train: int, n_test: int, size: int, seed: int) -> dict[str, UInt8Image]:
    """Return all images of a texture by their path in the data set."""
    _photograph(name)
    streams = [np.random.default_rng([seed, TEXTURES.index(name), part]) for part in range(3)]
    train = crops(name, n_train, size=size, half="train", rng=streams[0])
    good = crops(name, n_test, size=size, half="test", rng=streams[1])
    files = {f"train/good/{i:03d}.png": image for i, image in enumerate(train)}
    files |= {f"test/good/{i:03d}.png": image for i, image in enumerate(good)}
    for i in range(n_test):
        kind = DEFECTS[i % len(DEFECTS)]
        (image,) = crops(name, 1, size=size, half="test", rng=streams[2])
        planted, mask = plant(image, kind, streams[2])
        files[f"test/{kind}/{i:03d}.png"] = planted
        files[f"ground_truth/{kind}/{i:03d}_mask.png"] = mask.astype(np.uint8) * np.uint8(255)
    return files


def _refuse_others(root: Path, files: dict[str, UInt8Image]) -> None:
    """Refuse a folder with images of another run, which would mix into training or testing."""
    if not root.is_dir():
        return
    others = [path for path in find_images(root) if path.relative_to(root).as_posix() not in files]
    if others:
        raise InputError(f"{others[0]}: already exists; remove {root} or choose another folder")
