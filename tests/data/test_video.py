"""Frames of video files as images."""

from __future__ import annotations

import os
import random
import sys
import threading
from pathlib import Path

import av
import numpy as np
import pytest

from anomem.cli import options
from anomem.data import video
from anomem.data.corpus import read_corpus
from anomem.data.official.inside import read_file
from anomem.data.sources import PathSource, list_images, normal_samples, open_source, read_dataset
from anomem.errors import AnomemWarning, ImageError, InputError, MissingExtraError
from anomem.runtime.progress import run_to_end
from anomem.types import ANOMALOUS, NORMAL

STEP = 5
"""By so much each frame is brighter than the one before."""


def film(place: Path, n: int = 50, *, codec: str = "mpeg4", gap: int = 12, first: int = 0) -> Path:
    """Write a video of grey frames of rising brightness; a frame of its own every `gap`."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(place), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.bit_rate = 4_000_000
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 64, 48, "yuv420p", gap
        for i in range(n):
            pixels = np.full((48, 64, 3), first + STEP * i, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return place


def number_of(image: np.ndarray) -> int:
    return round(float(image.mean()) / STEP)


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "mpeg4"), ("a.avi", "mpeg4"), ("a.mkv", "mpeg2video")])
def test_frames_are_images_by_number(tmp_path: Path, name: str, codec: str) -> None:
    clip = film(tmp_path / name, codec=codec)
    paths = video.frames(clip, 5)
    assert [path.name for path in paths[:3]] == [f"{name}#000000", f"{name}#000005", f"{name}#000010"]
    assert len(paths) == 10
    source = PathSource(paths)
    shapes = {source.load(i).shape for i in range(10)}
    assert shapes == {(48, 64, 3)}
    assert [number_of(source.load(i)) for i in range(10)] == list(range(0, 50, 5))


def test_any_order_gives_the_same_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "_KEPT_BYTES", 3 * 2 * 64 * 48)
    monkeypatch.setattr(video, "_SOUGHT", 7)
    source = PathSource(video.frames(film(tmp_path / "a.mp4"), 1))
    inorder = [source.digest(i) for i in range(50)]
    mixed = random.Random(0).sample(range(50), 50)
    assert [source.digest(i) for i in mixed] == [inorder[i] for i in mixed]
    found: dict[int, int] = {}
    threads = [
        threading.Thread(target=lambda part: found.update({i: source.digest(i) for i in part}), args=(mixed[k::3],))
        for k in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[i] for i in range(50)] == inorder
    (clip,) = {video._opened(tmp_path / "a.mp4")}
    assert len(clip._kept) <= 3


def test_frames_of_a_clip_are_one_group(tmp_path: Path) -> None:
    for i in range(3):
        film(tmp_path / "clips" / f"{i}.mp4", 20, first=i)
    film(tmp_path / "clips" / "ng" / "x.mp4", 20)
    dataset = read_dataset(tmp_path / "clips", every=4)
    assert [sample.label for sample in dataset.test] == [ANOMALOUS] * 5
    assert len(dataset.train) == 15
    assert len({sample.group for sample in dataset.train}) == 3
    assert "one of 4 frames of 4 videos (20; every=, --every); a video counts as one group" in dataset.describe()
    with pytest.warns(AnomemWarning, match="one of 10 frames"):
        _, described = normal_samples(tmp_path / "clips")
    assert len(set(described["groups"])) == 3
    corpus = run_to_end(read_corpus([tmp_path / "clips" / f"{i}.mp4" for i in range(3)]), None)
    assert len(set(corpus.groups)) == 3
    assert [int(label) for label in corpus.labels] == [NORMAL] * 6


def test_clips_are_labelled_and_split_by_their_folders(tmp_path: Path) -> None:
    for name in ("train/good/a", "test/good/b", "test/hole/c", "train/ng_cam1/d"):
        film(tmp_path / "split" / f"{name}.mp4", 2)
    dataset = read_dataset(tmp_path / "split")
    assert [sample.path.parent.parent.name for sample in dataset.train] == ["train"]
    assert {(sample.path.parent.name, sample.label) for sample in dataset.test} == {("good", 0), ("hole", 1)}
    assert "train/ng_cam1/d.mp4 not used" in dataset.notes
    for name in ("cats/a", "dogs/b"):
        film(tmp_path / "classes" / f"{name}.mp4", 2)
    with pytest.raises(InputError, match="several classes of videos, cats, dogs; .* --normal cats"):
        read_dataset(tmp_path / "classes")
    assert [s.label for s in read_dataset(tmp_path / "classes", normal="dogs").train] == [NORMAL]
    film(tmp_path / "flat" / "ng_1.mp4", 2)
    with pytest.raises(InputError, match=r"ng_1\.mp4 is anomalous by its name"):
        read_dataset(tmp_path / "flat")


def test_videos_stand_for_their_frames(tmp_path: Path) -> None:
    clip = film(tmp_path / "clips" / "a.mp4", 20)
    assert list_images(clip, among=False, every=10) == [Path(f"{clip}#000000"), Path(f"{clip}#000010")]
    assert len(open_source(tmp_path / "clips")) == 2
    assert len(open_source([clip, clip])) == 4
    assert read_file(f"{clip}#000003").startswith(b"P6 64 48 255\n")
    assert {parameter.default for parameter in options.every(lambda: None).__click_params__} == {video.EVERY}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes in folders there")
def test_a_pipe_is_no_video(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "v.mp4")
    for read in (lambda: read_dataset(tmp_path), lambda: video.frames(tmp_path / "v.mp4")):
        with pytest.raises(ImageError, match=r"v\.mp4: is a pipe, device or socket, not a file"):
            read()


def test_a_format_that_is_unknown_is_named(tmp_path: Path) -> None:
    clip = film(tmp_path / "a.avi", 3)
    clip.write_bytes(clip.read_bytes().replace(b"FMP4", b"zzzz"))
    with pytest.raises(ImageError, match=r"a\.avi: a video in a format that cannot be decoded"):
        video.frames(clip)


def test_the_limit_on_pixels_holds_for_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = video.frames(film(tmp_path / "a.mp4", 3))
    assert open_source(frames, max_pixels=64 * 48).load(0).shape == (48, 64, 3)
    decoded: list[int] = []
    monkeypatch.setattr(video._Clip, "_found", lambda _, number: decoded.append(number))
    with pytest.raises(
        ImageError, match=r"a\.mp4#000000: 64 x 48 pixels are more than the limit of 3071; .*max_pixels"
    ):
        open_source(frames, max_pixels=64 * 48 - 1).load(0)
    assert decoded == []


def test_what_is_no_video_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = film(tmp_path / "a.mp4", 20)
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(clip.read_bytes()[:500])
    for broken in (cut, tmp_path / "text.avi"):
        broken.touch()
        with pytest.raises(ImageError, match="not a readable video") as error:
            list_images(broken, among=False)
        assert "\n" not in str(error.value)
    with pytest.raises(ImageError, match=r"a\.mp4#000020: the video has 20 frames"):
        read_file(f"{clip}#000020")
    with pytest.raises(ImageError, match=r"no\.mp4: there is no such file"):
        read_file(tmp_path / "no.mp4#000020")
    with pytest.raises(InputError, match="every=0: takes no frame"):
        video.frames(clip, 0)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingExtraError, match=r"av is not installed: pip install 'anomem\[video\]'"):
        video.frames(film_free(tmp_path / "b.mp4", clip))


def film_free(place: Path, clip: Path) -> Path:
    place.write_bytes(clip.read_bytes())
    return place
