"""The whole loop in Chromium, on photographs of magnetic tiles: from an empty station to a better model and back."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
from playwright.sync_api import Page, expect

from anomem.metrics import auroc
from tests.service.browser import browser_page
from tests.service.served import Served, served

pytestmark = [pytest.mark.slow, pytest.mark.realdata]

_FOLDER = "[data-upload] input[webkitdirectory]"
_LONG_MS = 600_000
_LABELS = 10


def spread(files: Sequence[Path], count: int) -> list[Path]:
    """Return so many files, evenly spread."""
    return [files[i * len(files) // count] for i in range(count)]


def copied(folder: Path, good: Sequence[Path], defects: Sequence[Path] = ()) -> Path:
    """Copy images into a folder, under names that say what they are."""
    folder.mkdir()
    for kind, files in (("good", good), ("defect", defects)):
        for i, file in enumerate(files):
            shutil.copyfile(file, folder / f"{kind}-{i:02d}{file.suffix}")
    return folder


@pytest.fixture
def folders(tmp_path: Path, anomem_data: Path) -> tuple[Path, Path, Path]:
    """Sixty good parts, forty parts to inspect, and forty hidden ones; half of either are defective."""
    root = anomem_data / "magnetic_tile" / "magnetic_tile"
    normals, good = (sorted((root / part / "good").iterdir()) for part in ("train", "test"))
    kinds = sorted(path for path in (root / "test").iterdir() if path.name != "good")
    good, defects = spread(good, 40), spread([file for kind in kinds for file in sorted(kind.iterdir())], 40)
    return (
        copied(tmp_path / "normals", spread(normals, 60)),
        copied(tmp_path / "parts", good[::2], defects[::2]),
        copied(tmp_path / "hidden", good[1::2], defects[1::2]),
    )


def test_labels_make_the_model_better_on_parts_that_no_one_labelled(
    tmp_path: Path, folders: tuple[Path, Path, Path]
) -> None:
    expect.set_options(timeout=_LONG_MS)
    normals, parts, hidden = folders
    with served(tmp_path / "station") as station, browser_page(station.url) as page:
        page.set_default_timeout(_LONG_MS)
        fit(page, normals)
        page.goto("/models/1")
        page.set_input_files(_FOLDER, parts)
        page.wait_for_selector("text=of the latest 40 rejected")
        label(page, station)
        page.goto("/models/1/versions")
        page.click("#refit button")
        page.click("#promote button")
        page.wait_for_selector("tr.current th:text-is('2')")
        after = judged(station, hidden)  # only now, so that the review shows none of them
        page.click("#rollback button")
        page.wait_for_selector("tr.current th:text-is('1')")
        before = judged(station, hidden)
        kept = history(page, tmp_path / "before.csv")
        labels = station.get("/models/1/labels")
    assert after > before
    assert len(kept) == 120
    with served(tmp_path / "station") as station, browser_page(station.url) as page:
        assert history(page, tmp_path / "after.csv") == kept
        assert station.get("/models/1/labels") == labels
        assert [version["state"] for version in station.get("/models/1/versions")] == ["retired", "current"]
        page.goto("/models/1/versions")
        page.wait_for_selector("tr.current th:text-is('1')")
        assert judged(station, hidden) == pytest.approx(before)


def fit(page: Page, normals: Path) -> None:
    """Make a model from a dropped folder."""
    page.goto("/")
    page.fill("#create [name=name]", "tiles")
    page.click("#create button")
    page.wait_for_url("**/models/1/parts")
    page.set_input_files(_FOLDER, normals)
    page.wait_for_selector("#fit")
    page.select_option("#fit [name=set]", "size=128")
    page.click("#fit button")
    page.wait_for_selector("text=Findings of the fit")


def label(page: Page, station: Served) -> None:
    """Label the first of the review queue by keyboard."""
    page.goto("/models/1/review")
    for done in range(_LABELS):
        number = page.get_attribute(".film [aria-current]", "data-id")
        name = station.get(f"/inspections/{number}")["name"]
        page.keyboard.press("d" if "defect" in name else "n")
        expect(page.locator(".film .label")).to_have_count(done + 1)


def judged(station: Served, folder: Path) -> float:
    """Return the AUROC of the current version on parts that no one labels."""
    files = sorted(folder.iterdir())
    scores = [row["score"] for row in station.inspect(*files)]
    return float(auroc(scores, np.asarray(["defect" in file.name for file in files], dtype=int)))


def history(page: Page, file: Path) -> list[dict[str, str]]:
    """Return the rows of the exported history."""
    page.goto("/models/1/history")
    with page.expect_download() as download:
        page.click("#csv")
    download.value.save_as(file)
    with file.open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))
