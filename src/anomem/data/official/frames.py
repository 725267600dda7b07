"""ShanghaiTech Campus: frames of surveillance videos with masks of frames and pixels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from anomem.data.official.inside import read_array
from anomem.data.official.sets import Item, Listing, Wanted
from anomem.data.official.tree import Tree
from anomem.errors import InputError

__all__ = ["read_shanghaitech"]

KINDS = ("normal", "anomalous")


def read_shanghaitech(tree: Tree, wanted: Wanted) -> Listing:
    """Read the frames of all scenes, or of one scene for a category "01" to "13".

    Expected are ``training/frames/<video>/*.jpg`` (extracted from the provider's videos),
    ``testing/frames/<video>/*.jpg``, ``testing/test_frame_mask/<video>.npy`` (frames) and
    ``testing/test_pixel_mask/<video>.npy`` (frames, rows, columns). A video is the group. The variant "every_fifth"
    takes every fifth frame of each video, as the FYD paper does.
    """
    step = 5 if wanted.variant == "every_fifth" else 1
    if not tree.has("training/frames") and tree.has("training/videos"):
        raise tree.absent(
            f"{tree.path('training/frames')}: absent: anomem does not read videos; extract each of training/videos to "
            f"training/frames/<video>/000.jpg, 001.jpg, ..."
        )
    items = [
        Item("train", tree.path(place), "normal", group=video)
        for video in _videos(tree, "training/frames", wanted.category)
        for place in _frames(tree, f"training/frames/{video}")[::step]
    ]
    for video in _videos(tree, "testing/frames", wanted.category):
        items += list(_test_frames(tree, video))[::step]
    return Listing(tuple(items), KINDS)


def _videos(tree: Tree, folder: str, scene: str | None) -> list[str]:
    videos = [v for v in tree.folders(tree.need(folder)) if scene is None or v.partition("_")[0] == scene]
    if not videos:
        raise tree.absent(f"{tree.path(folder)}: no videos{f' of scene {scene}' if scene else ''}")
    return videos


def _frames(tree: Tree, folder: str) -> list[str]:
    # Numeric order: 1000.jpg comes after 999.jpg.
    return sorted(tree.need_images(folder), key=lambda place: (len(place), place))


def _test_frames(tree: Tree, video: str) -> Iterator[Item]:
    places = _frames(tree, f"testing/frames/{video}")
    flags = _array(tree, f"testing/test_frame_mask/{video}.npy", len(places)).reshape(-1)
    pixels = f"testing/test_pixel_mask/{video}.npy"
    if flags.any():
        _array(tree, pixels, len(places))
    for i, (place, flag) in enumerate(zip(places, flags, strict=True)):
        mask: Path | None = tree.path(f"{pixels}/{i:05d}.pgm") if flag else None
        yield Item("test", tree.path(place), KINDS[int(bool(flag))], mask, group=video)


def _array(tree: Tree, place: str, count: int) -> npt.NDArray[np.uint8]:
    array = read_array(tree.path(tree.need(place)))
    if len(array) != count:
        raise InputError(f"{tree.path(place)}: {len(array):,} entries for {count:,} frames; copy both again")
    return array
