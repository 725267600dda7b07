"""Commands on video files."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pytest

import anomem as library
from tests.cli.process import KNN, Run, Shop


def film(place: Path, seed: int, n: int = 12) -> Path:
    rng = np.random.default_rng(seed)
    place.parent.mkdir(exist_ok=True)
    with av.open(str(place), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(n):
            pixels = rng.integers(0, 255, (48, 64, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return place


def test_a_clip_is_scored_frame_by_frame(shop: Shop, here: Run, tmp_path: Path) -> None:
    film(tmp_path / "clip.mp4", 0)
    code, out, err = here("score", shop.anomem, "clip.mp4", "--every", "4", "--heatmaps", "maps", "--json")
    assert code == 0, err
    rows = json.loads(out)["results"]
    assert [row["path"] for row in rows] == ["clip.mp4#000000", "clip.mp4#000004", "clip.mp4#000008"]
    assert sorted(path.name for path in (tmp_path / "maps").iterdir()) == [
        "clip-000000.png",
        "clip-000004.png",
        "clip-000008.png",
    ]
    model = library.load(shop.anomem)
    assert [row["score"] for row in rows] == pytest.approx(list(model.anomaly_score([row["path"] for row in rows])))


def test_clips_are_learnt_as_groups(here: Run, tmp_path: Path) -> None:
    for i in range(4):
        film(tmp_path / "clips" / f"{i}.mp4", i)
    code, out, err = here("fit", "clips", "--out", "m", *KNN, "--every", "4", "--keep-store")
    assert code == 0, err
    assert "one of 4 frames of 4 videos (12; every=, --every); a video counts as one group" in out
    assert library.load("m").calibration_.n_groups == 1
    for i in range(3):
        film(tmp_path / "more" / f"{i}.mp4", i + 10)
    code, out, err = here("calibrate", "m", "more", "--alpha", "0.25", "--every", "6", "--out", "m2", "--json")
    assert code == 0, err
    assert {key: json.loads(out)[key] for key in ("n", "n_groups", "alpha_min")} == {
        "n": 6,
        "n_groups": 3,
        "alpha_min": 0.25,
    }
    code, _, err = here("fit", "more", "--out", "m3", "--extend", "m", "--every", "6")
    assert code == 0, err
    assert len(library.load("m3").digests_) == 18


def test_one_clip_is_one_group_and_too_few(here: Run, tmp_path: Path) -> None:
    film(tmp_path / "clip.mp4", 0)
    code, _, err = here("fit", "clip.mp4", "--out", "m", *KNN, "--every", "2")
    assert code == 2
    assert "only 1 that may be separated" in err
    code, _, err = here("fit", "clip.mp4", "--out", "m", *KNN, "--every", "2", "--group-by", r"#(\d{5})")
    assert code == 2
    code, _, err = here("fit", "clip.mp4", "--out", "m", *KNN, "--every", "2", "--group-by", r"#(\d+)")
    assert code == 0, err
