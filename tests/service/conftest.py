"""Models and images made once, and a station per test."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import anomem
from anomem.data.synthetic import write_textures
from anomem.service.running import add_first_model
from anomem.service.settings import Settings
from anomem.service.station import Station
from tests.service.served import Served, served


@dataclass(frozen=True)
class Shop:
    """Normal images to learn from, test images, and a model that has learnt: nobody writes here."""

    normals: list[Path]
    good: list[Path]
    defects: list[Path]
    model: Path

    def mask(self, defect: Path) -> Path:
        """Mask of a defect."""
        return defect.parents[2] / "ground_truth" / defect.parent.name / f"{defect.stem}_mask.png"


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """Thirty brick images, five good and five defective ones, and the smallest model with maps and second stage."""
    root = tmp_path_factory.mktemp("parts")
    (data,) = write_textures(root, n_train=30, n_test=5, size=72, seed=0, textures=["brick"])
    normals = sorted((data / "train" / "good").glob("*.png"))
    detector = anomem.AnoMem(size=64, memory_size=(16,), memory_share=1).fit(normals, alpha=0.1)
    detector.save(root / "brick.safetensors")
    test = sorted((data / "test").rglob("*.png"))
    good = [path for path in test if path.parent.name == "good"]
    return Shop(normals, good, [path for path in test if path not in good], root / "brick.safetensors")


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory, shop: Shop) -> Path:
    """Folder of a station with one model, to copy."""
    root = tmp_path_factory.mktemp("prepared") / "station"
    station = Station(root, Settings())
    add_first_model(station, shop.model)
    station.recorder.stop()
    station.serving.stop()
    station.database.close()
    return root


@pytest.fixture
def brick(tmp_path: Path, prepared: Path) -> Iterator[Served]:
    """Station with one model."""
    shutil.copytree(prepared, tmp_path / "station")
    with served(tmp_path / "station") as found:
        yield found


@pytest.fixture(scope="session")
def still(tmp_path_factory: pytest.TempPathFactory, prepared: Path) -> Iterator[Served]:
    """Station with one model that all tests share which leave nothing in it."""
    root = tmp_path_factory.mktemp("still") / "station"
    shutil.copytree(prepared, root)
    with served(root) as found:
        yield found


@pytest.fixture(scope="session")
def blank(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Station without a model that all tests share which leave nothing in it."""
    with served(tmp_path_factory.mktemp("blank") / "station") as found:
        yield found


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Served]:
    """Station without a model."""
    with served(tmp_path / "station") as found:
        yield found
