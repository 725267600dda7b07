"""Shared fixtures: offline libraries, hypothesis settings, small folders, real images."""

from __future__ import annotations

import os
import random
import sys
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Before anything imports these libraries: no test may reach a network or open a window.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from PIL import Image

# Times vary on shared machines, so no deadline; in CI the same examples every time.
settings.register_profile(
    "anomem",
    deadline=None,
    derandomize="CI" in os.environ,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("anomem")


def seed_generators(name: str) -> None:
    """Seed the global generators by name: neither order, nor worker, nor selection of tests changes what one draws.

    Another ``ANOMEM_TEST_SEED`` gives other draws; no test may depend on which.
    """
    seed = zlib.crc32(name.encode()) ^ int(os.environ.get("ANOMEM_TEST_SEED", "0"))
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    if "torch" in sys.modules:  # else it is imported in the test, with the seed that it always starts with
        sys.modules["torch"].manual_seed(seed)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put files with long tests first, then those of many tests, so that no worker ends long after the others.

    With ``ANOMEM_TEST_ORDER`` files, and the tests of a file, come in a random order: no test may depend on those
    before it.
    """
    seed = os.environ.get("ANOMEM_TEST_ORDER")
    if seed is not None:
        items.sort(key=lambda item: [zlib.crc32(f"{seed} {part}".encode()) for part in (item.path, item.nodeid)])
        return
    counts = Counter(item.path for item in items)
    long = {item.path for item in items if item.get_closest_marker("ci_sample")}
    items.sort(key=lambda item: (item.path not in long, -counts[item.path]))


def pytest_collectstart(collector: pytest.Collector) -> None:
    """What a module draws when it is imported."""
    seed_generators(collector.nodeid)


def pytest_fixture_setup(fixturedef: pytest.FixtureDef[object], request: pytest.FixtureRequest) -> None:
    """What a fixture draws, whichever of its tests comes first."""
    seed_generators(f"{request.node.nodeid}::{fixturedef.argname}")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    """What a test draws."""
    seed_generators(item.nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Send each group of tests to one worker."""
    if config.getvalue("dist") != "loadgroup":
        return None
    from tests.scheduling import Groups

    config.option.loadscopereorder = False
    return Groups(config, log)


@pytest.fixture(scope="session")
def anomem_data() -> Path:
    """The folder that holds one folder per real image set, or a skip."""
    value = os.environ.get("ANOMEM_DATA")
    if not value:
        pytest.skip("ANOMEM_DATA is not set: no real images here")
    folder = Path(value)
    if not folder.is_dir():
        pytest.fail(f"ANOMEM_DATA={value} is not a folder")
    return folder


@pytest.fixture
def results_dir(tmp_path: Path) -> Path:
    """Where a long test writes its result file: kept under `make campaign`, else temporary."""
    value = os.environ.get("ANOMEM_RESULTS")
    return Path(value) if value else tmp_path


WriteImages = Callable[..., list[Path]]


@pytest.fixture
def write_images() -> WriteImages:
    """A function that fills a folder with small distinct RGB images.

    ``write_images(folder, count, size=(24, 32), seed=0, spot=False)`` writes ``00.png`` and so on,
    of size (height, width): a smooth gradient with seeded noise, with ``spot`` a bright square.
    """

    def write(
        folder: Path,
        count: int,
        size: tuple[int, int] = (24, 32),
        *,
        seed: int = 0,
        spot: bool = False,
    ) -> list[Path]:
        folder.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(seed)
        height, width = size
        ramp = np.linspace(60, 140, width)[None, :, None]
        paths = []
        for index in range(count):
            pixels = ramp + rng.normal(0, 6, (height, width, 3))
            if spot:
                top, left = rng.integers(0, height - 4), rng.integers(0, width - 4)
                pixels[top : top + 4, left : left + 4] = 250
            path = folder / f"{index:02d}.png"
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
            paths.append(path)
        return paths

    return write


@pytest.fixture
def flat_folder(tmp_path: Path, write_images: WriteImages) -> Path:
    """A flat folder of 12 normal images."""
    folder = tmp_path / "flat"
    write_images(folder, 12)
    return folder


@pytest.fixture
def mvtec_folder(tmp_path: Path, write_images: WriteImages) -> Path:
    """An MVTec-style folder: 12 train, 4 + 3 test images and masks of the defect type ``spot``."""
    root = tmp_path / "part"
    write_images(root / "train" / "good", 12)
    write_images(root / "test" / "good", 4, seed=1)
    masks = root / "ground_truth" / "spot"
    masks.mkdir(parents=True)
    for path in write_images(root / "test" / "spot", 3, seed=2, spot=True):
        bright = np.asarray(Image.open(path)).min(axis=2) == 250
        Image.fromarray(bright.astype(np.uint8) * 255).save(masks / f"{path.stem}_mask.png")
    return root


@pytest.fixture
def class_folder(tmp_path: Path, write_images: WriteImages) -> Path:
    """An ImageFolder-style folder with the classes ``plain`` and ``spotted``."""
    root = tmp_path / "classes"
    for seed, (part, count) in enumerate([("train", 12), ("test", 4)]):
        write_images(root / part / "plain", count, seed=seed)
        write_images(root / part / "spotted", count, seed=seed + 10, spot=True)
    return root
