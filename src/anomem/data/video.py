"""Frames of video files as images: ``clip.mp4#000123``, decoded on access; a clip is one group.

Needs PyAV: ``pip install 'anomem[video]'``.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from anomem.data.classes import classify, match_class
from anomem.data.samples import Dataset, Sample
from anomem.errors import ImageError, InputError, MissingExtraError, one_line
from anomem.runtime.files import in_zip, is_file
from anomem.runtime.limits import MAX_PIXELS, check_pixels
from anomem.runtime.listing import list_folder
from anomem.runtime.text import count
from anomem.runtime.words import class_of, is_enumerated, split_of
from anomem.types import ANOMALOUS, NORMAL, UInt8Image

if TYPE_CHECKING:
    from av import VideoFrame

__all__ = ["EVERY", "frame_hw", "frames", "is_frame", "is_video", "read_frame", "read_videos", "videos_in"]

EVERY = 10
"""Default interval of the frames used of a video: 3 of 30 frames per second."""

_SUFFIXES = frozenset({".mp4", ".m4v", ".avi", ".mov", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv"})
_KEPT_BYTES = 128 << 20
"""Decoded frames cached per video, since threads request frames out of order."""

_SOUGHT = 300
"""Maximum number of frames decoded ahead instead of seeking."""


def is_video(path: object) -> bool:
    """Return True for the suffix of a video file."""
    return isinstance(path, (str, Path)) and Path(path).suffix.lower() in _SUFFIXES


def is_frame(path: str | Path) -> bool:
    """Return True for the path of a video frame."""
    clip, mark, number = Path(path).name.rpartition("#")
    return bool(mark) and number.isdecimal() and is_video(clip)


def videos_in(folder: Path) -> list[Path]:
    """List the video files of a folder; none if it contains images."""
    if not any(is_video(name) for _, _, names in os.walk(folder) for name in names):  # far quicker than a listing
        return []
    listing = list_folder(folder)
    return [] if listing.images else [path for path, _ in listing.unread if is_video(path)]


def frames(video: str | Path, every: int = EVERY) -> list[Path]:
    """List the frames of a video file, from the first.

    Parameters
    ----------
    video : str or Path
        MP4, AVI, MOV, MKV, WebM, ...: whatever FFmpeg decodes.
    every : int
        Take one of so many frames.

    Returns
    -------
    list of Path
        ``clip.mp4#000000``, ``clip.mp4#000010``, ...: paths that every call takes as images.

    Raises
    ------
    ImageError
        The video cannot be decoded.
    MissingExtraError
        PyAV is not installed.
    """
    place = Path(video)
    if every < 1:
        raise InputError(f"every={every}: takes no frame; give 1 or more")
    return [place.with_name(f"{place.name}#{number:06d}") for number in range(0, len(_opened(place).times), every)]


def read_videos(videos: Sequence[Path], root: Path, every: int = EVERY, normal: str | None = None) -> Dataset:
    """Return the frames of video files as a dataset, each clip a group.

    Parameters
    ----------
    videos : sequence of Path
    root : Path
        The folder of the videos, or the one video. Folders below it label and split the clips as they do images.
    every : int
        As for `frames`.
    normal : str, optional
        Class folder of normal videos.

    Raises
    ------
    InputError
        Several classes without `normal`, or a clip named for anomalous images that no folder labels.
    """
    train: list[Sample] = []
    test: list[Sample] = []
    below = [video.relative_to(root).parts[:-1] for video in videos]
    labels = _labels(videos, below, root, normal)
    notes = []
    for video, parts, label in zip(videos, below, labels, strict=True):
        tested = any(split_of(part) in ("test", "val") for part in parts)
        if label != NORMAL and any(split_of(part) == "train" for part in parts):
            notes.append(f"{video.relative_to(root).as_posix()} not used")
            continue
        chosen = test if tested or label != NORMAL else train
        chosen += [Sample(path, label, group=str(video)) for path in frames(video, every)]
    n = len(train) + len(test)
    note = (
        f"one of {every} frames of {count(len(videos), 'video')} ({n:,}; every=, --every); a video counts as one group"
    )
    split = any(split_of(part) for parts in below for part in parts)
    return Dataset("video", root, tuple(train), tuple(test), split, (note, *notes))


def _labels(videos: Sequence[Path], below: Sequence[tuple[str, ...]], root: Path, normal: str | None) -> list[int]:
    """Label clips by the folders around them; those that none labels are normal."""
    classes = [tuple(part for part in parts if split_of(part) is None or class_of(part) is not None) for parts in below]
    if normal is not None:
        normal = match_class(root, classes, normal)
    placed = classify(classes, normal, root)
    free = {parts[0]: None for parts, place in zip(classes, placed, strict=True) if parts and place.label is None}
    labelled = any(place.label is not None for place in placed)
    if free and normal is None and (labelled or (len(free) > 1 and not all(map(is_enumerated, free)))):
        raise InputError(
            f"{root}: several classes of videos, {', '.join(free)}{' and others' if labelled else ''}; say which one "
            f"is normal, such as --normal {next(iter(free))} (normal=), or move all normal ones below good/"
        )
    unnamed = [video for video, place in zip(videos, placed, strict=True) if place.label is None]
    bad = [video.name for video in unnamed if class_of(video.stem) == ANOMALOUS]
    if bad:
        raise InputError(
            f"{root}: {bad[0]} is anomalous by its name; move such videos into bad/, the others into good/"
        )
    return [NORMAL if place.label is None else place.label for place in placed]


def read_frame(path: Path, max_pixels: int = MAX_PIXELS) -> UInt8Image:
    """Decode a frame to RGB, (H, W, 3) uint8, turned upright; ImageError if it cannot be decoded or is too large."""
    clip, _, number = path.name.rpartition("#")
    return _opened(path.with_name(clip)).image(int(number), str(path), max_pixels)


def frame_hw(path: Path, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Return height and width of a frame, upright; equal for all frames of a video, so that one is decoded."""
    clip = _opened(path.with_name(path.name.rpartition("#")[0]))
    if clip.hw is None:
        height, width = clip.image(0, str(path), max_pixels).shape[:2]
        clip.hw = height, width
    return clip.hw


def _opened(video: Path) -> _Clip:
    try:
        facts = video.stat()
    except OSError as error:
        problem = "lies in a zip; unpack the zip" if in_zip(video) else "there is no such file; check the path"
        raise ImageError(str(video), problem) from error
    if not is_file(video):  # a pipe would block
        raise ImageError(str(video), "is a pipe, device or socket, not a file; name a video file, or leave it out")
    return _cached(video, (facts.st_size, facts.st_mtime_ns), os.getpid())


@lru_cache(maxsize=2)
def _cached(video: Path, _state: tuple[int, int], _process: int) -> _Clip:
    return _Clip(video)


class _Clip:
    """Open video with thread-safe access to frames by number, fastest in order.

    Parameters
    ----------
    path : Path
    """

    def __init__(self, path: Path) -> None:
        try:
            import av
        except ImportError as error:
            raise MissingExtraError("av", "video") from error
        self._path, self._av, self._lock = path, av, threading.Lock()
        self._frames: Iterator[VideoFrame] = iter(())
        self._at = 0
        self.hw: tuple[int, int] | None = None
        self._kept: OrderedDict[int, VideoFrame] = OrderedDict()
        self._open()
        try:
            packets = self._container.demux(self._stream)
            self.times = sorted(packet.pts for packet in packets if packet.pts is not None)
        except av.FFmpegError as error:
            raise self._damaged(error) from error
        if not self.times or len(set(self.times)) < len(self.times):
            raise ImageError(str(path), "a video whose frames have no times of their own; convert it to MP4")
        self._open()

    def image(self, number: int, name: str, max_pixels: int) -> UInt8Image:
        """Return a frame as RGB."""
        check_pixels(self._stream.codec_context.width, self._stream.codec_context.height, name, max_pixels)
        if number >= len(self.times):
            raise ImageError(name, f"the video has {len(self.times):,} frames; check the number")
        with self._lock:
            try:
                frame = self._found(number)
                if frame is None:
                    raise ImageError(name, "this frame cannot be decoded; convert the video again")
                image = frame.to_ndarray(format="rgb24")
            except self._av.FFmpegError as error:
                raise self._damaged(error) from error
        return np.ascontiguousarray(np.rot90(image, round(frame.rotation / 90)))

    def _found(self, number: int) -> VideoFrame | None:
        time = self.times[number]
        if time in self._kept:
            return self._kept[time]
        if not self._at <= number <= self._at + _SOUGHT:
            self._container.seek(time, stream=self._stream)
            self._frames = self._container.decode(self._stream)
        found = self._forward(time)
        if found is None:  # sought to where this frame is never shown: from the start it is
            self._open()
            found = self._forward(time)
        self._at = number
        return found

    def _forward(self, time: int) -> VideoFrame | None:
        """Decode up to a time and cache the last frames."""
        for frame in self._frames:
            if frame.pts is None:
                continue
            self._kept[frame.pts] = frame
            while len(self._kept) > max(_KEPT_BYTES // (2 * frame.width * frame.height), 1):
                self._kept.popitem(last=False)
            if frame.pts >= time:
                return self._kept.get(time)
        return None

    def _open(self) -> None:
        try:
            self._container: Any = self._av.open(str(self._path))
            streams = self._container.streams.video
        except (self._av.FFmpegError, OSError, ValueError) as error:
            raise self._damaged(error) from error
        if not streams:
            raise ImageError(str(self._path), "holds no video; name a video file")
        self._stream = streams[0]
        if self._stream.codec_context is None:
            raise ImageError(str(self._path), "a video in a format that cannot be decoded; convert it to MP4")
        self._frames = self._container.decode(self._stream)
        self._at = 0

    def _damaged(self, error: Exception) -> ImageError:
        return ImageError(str(self._path), f"not a readable video ({one_line(error, 100)}); copy or convert it again")
