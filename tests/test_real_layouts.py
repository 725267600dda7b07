"""Layouts and counts of the real image sets."""

from __future__ import annotations

from pathlib import Path

import pytest

from anomem.data.sources import read_dataset

pytestmark = [pytest.mark.realdata, pytest.mark.ci_sample]


@pytest.mark.parametrize(
    ("folder", "train", "good", "bad", "masks"),
    [
        ("magnetic_tile/magnetic_tile", 762, 190, 392, 392),
        ("mvtec_ad_bottle/bottle", 209, 20, 63, 0),
        ("mvtec_ad_screw/screw", 320, 41, 119, 119),
        ("mvtec_ad_toothbrush/toothbrush", 48, 12, 30, 30),
        ("visa_capsules/capsules", 542, 60, 100, 100),
    ],
)
def test_mvtec_style(anomem_data: Path, folder: str, train: int, good: int, bad: int, masks: int) -> None:
    data = read_dataset(anomem_data / folder)
    assert data.layout == "mvtec"
    assert len(data.train) == train
    assert sum(sample.label == 0 for sample in data.test) == good
    assert sum(sample.label == 1 for sample in data.test) == bad
    assert sum(sample.mask is not None for sample in data.test if sample.label == 1) == masks


@pytest.mark.parametrize(
    ("folder", "normal", "train", "good", "bad"),
    [
        ("cifar100_small", "apple", 40, 15, 99 * 15),
        ("mnist_small", "3", 1000, 500, 9 * 500),
    ],
)
def test_class_folders(anomem_data: Path, folder: str, normal: str, train: int, good: int, bad: int) -> None:
    data = read_dataset(anomem_data / folder, normal=normal)
    assert data.layout == "imagefolder"
    assert len(data.train) == train
    assert sum(sample.label == 0 for sample in data.test) == good
    assert sum(sample.label == 1 for sample in data.test) == bad
