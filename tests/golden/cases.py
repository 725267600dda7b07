"""Images, tiny fits and measured arrays for golden files and the comparison of revisions."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.golden import names

Arrays = dict[str, npt.NDArray[Any]]

FOLDER = Path(__file__).parent
ALPHA = 0.2
SIDE = 48
MAP_STRIDE = 6
"""Every sixth pixel of a map is kept."""


@dataclass(frozen=True)
class Images:
    """Normal images to fit to, images to score, labelled defects, and fresh normals to calibrate on."""

    train: Any
    test: Any
    labelled: Any
    fresh: Any

    def given(self, *, labels: bool) -> tuple[Any, list[int] | None]:
        """Return images and labels as ``fit`` takes them."""
        if not labels:
            return self.train, None
        joined = [*self.train, *self.labelled]
        images = joined if isinstance(joined[0], str | Path) else np.stack(joined)
        return images, [0] * len(self.train) + [1] * len(self.labelled)


@functools.cache
def textures(texture: str = "brick", n_train: int = 36, n_test: int = 8) -> Images:
    """Cut small images from a shipped photograph; half of the test images carry a planted defect."""
    crops, rng = names.public("crops"), np.random.default_rng(7)
    train = crops(texture, n_train, size=SIDE, half="train", rng=rng)
    test = crops(texture, 2 * n_test, size=SIDE, half="test", rng=rng)
    fresh = crops(texture, 10, size=SIDE, half="test", rng=rng)
    test[n_test:] = _planted(test[n_test:], rng)
    return Images(train, test, _planted(train[:5], rng), fresh)


def _planted(images: Any, rng: np.random.Generator) -> Any:
    plant, kinds = names.public("plant"), names.public("DEFECTS")
    return np.stack([plant(image, kinds[i % len(kinds)], rng, 0.4)[0] for i, image in enumerate(images)])


def fit(detector: Any, images: Images, *, labels: bool = False, fit_precision: str = "float32") -> Any:
    """Fit on the processor; labelled defects are given where wanted or required."""
    given, y = images.given(labels=labels or detector.supervision == "required")
    pinned = names.options(detector.fit, {"calibration": "split"})
    return detector.fit(given, y, alpha=ALPHA, device="cpu", fit_precision=fit_precision, **pinned)


def measure(model: Any, images: Any, *, stride: int = MAP_STRIDE) -> Arrays:
    """Return scores, p-values, verdicts, calibration and (strided) maps of a fitted or exported model.

    ``map_digests`` covers every pixel of every map; ``maps`` is all maps, strided, one after the other.
    """
    calibration = model.calibration_
    found: Arrays = {
        "scores": model.anomaly_score(images, device="cpu"),
        "p_values": model.p_value(images, device="cpu"),
        "verdicts": np.asarray(model.predict(images, device="cpu"), dtype=np.int8),
        "calibration": calibration.scores,
        "threshold": np.asarray([calibration.alpha, calibration.threshold]),
    }
    if not model.localizes:
        return found
    maps = [np.asarray(one) for one in model.anomaly_map(images, device="cpu")]
    found["maps"] = np.concatenate([one[::stride, ::stride].ravel() for one in maps])
    found["map_digests"] = digests(maps)
    return found


def digests(arrays: Iterable[npt.NDArray[Any]]) -> npt.NDArray[np.uint64]:
    """Return 64 bits of the SHA-256 of each array's content."""
    found = [hashlib.sha256(np.ascontiguousarray(one).tobytes()).digest()[:8] for one in arrays]
    return np.asarray([int.from_bytes(one, "little") for one in found], dtype=np.uint64)
