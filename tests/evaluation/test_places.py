"""Evaluation of images in folders, in zips, in memory."""

from __future__ import annotations

import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from anomem.data.catalog import open_set
from anomem.data.sources import Sample
from anomem.errors import AnomemWarning, InputError
from anomem.evaluation.evaluate import evaluate
from anomem.evaluation.figures import Evaluation
from anomem.report.evaluation.page import evaluation_page
from anomem.runtime.images import decode, read_mask
from tests.benchmark.spots import SpotDetector, save, spotted_set


@pytest.fixture
def scene(tmp_path: Path) -> tuple[SpotDetector, list[Sample]]:
    made_from, samples = spotted_set(tmp_path)
    return SpotDetector(made_from), samples


def without_files(found: Evaluation) -> dict[str, object]:
    """The figures; names and sizes of files, which images in memory lack, left out."""
    content = found.to_dict()
    content["trivial"].pop("file_size")
    for row in content["results"]:
        row.pop("path"), row.pop("mask")
    return content


def test_arrays_are_judged_as_files_are(scene: tuple[SpotDetector, list[Sample]]) -> None:
    detector, samples = scene
    arrays = [decode(s.path) for s in samples]
    labels, types = [s.label for s in samples], [s.type for s in samples]
    masks = [None if s.mask is None else read_mask(s.mask) for s in samples]
    from_files = evaluate(detector, samples)
    found = evaluate(detector, arrays, labels, masks=masks, types=types)
    assert without_files(found) == without_files(from_files)
    assert found.results[3].path == "image 3"
    assert found.trivial.file_size is None

    paths = [s.path for s in samples]
    from_paths = evaluate(detector, paths, labels, masks=[s.mask for s in samples], types=types)
    assert from_paths == from_files
    as_numbers = [None if mask is None else (255 * mask).astype(np.uint8) for mask in masks]
    assert evaluate(detector, arrays, labels, masks=as_numbers).pixel == found.pixel
    cut = [None if mask is None else mask[:-1] for mask in masks]
    with pytest.raises(InputError, match=r"image 12: its mask is \(39, 44\), the image \(40, 44\)"):
        evaluate(detector, arrays, labels, masks=cut)
    unknown = evaluate(detector, arrays, [-1, *labels[1:]], types=types)
    assert (unknown.n_unlabelled, unknown.n_normal, unknown.pixel) == (1, 11, None)


def test_masks_that_mark_the_background_are_noted(scene: tuple[SpotDetector, list[Sample]]) -> None:
    detector, samples = scene
    arrays, labels = [decode(s.path) for s in samples], [s.label for s in samples]
    inverse = [None if s.mask is None else ~read_mask(s.mask) for s in samples]
    with pytest.warns(
        AnomemWarning, match="mark more than half of their image, such as that of image 1[0-9]; .* invert"
    ):
        evaluate(detector, arrays, labels, masks=inverse)


def test_a_folder_is_judged_by_its_layout(scene: tuple[SpotDetector, list[Sample]], tmp_path: Path) -> None:
    detector, samples = scene
    for path in (tmp_path / "train").glob("*.png"):
        (tmp_path / "train" / "good").mkdir(exist_ok=True)
        path.rename(tmp_path / "train" / "good" / path.name)
    found = evaluate(detector, tmp_path)
    assert (found.n_normal, found.n_anomalous, found.n_left_out) == (12, 10, 0)
    assert found.pixel == evaluate(detector, samples).pixel
    relabelled = evaluate(detector, tmp_path, maps=False)
    assert relabelled.image == found.image


def test_entries_of_a_zip_are_judged_where_they_lie(scene: tuple[SpotDetector, list[Sample]], tmp_path: Path) -> None:
    detector, samples = scene
    archive = tmp_path / "set.zip"
    with zipfile.ZipFile(archive, "w") as stream:
        for file in (path for s in samples for path in (s.path, s.mask) if path is not None):
            stream.write(file, Path(file).relative_to(tmp_path))

    def inside(path: Path | None) -> Path | None:
        return None if path is None else archive / Path(path).relative_to(tmp_path)

    packed = [replace(s, path=inside(s.path), mask=inside(s.mask)) for s in samples]
    found, from_files = evaluate(detector, packed), evaluate(detector, samples)
    assert without_files(found) == without_files(from_files)
    assert found.trivial == from_files.trivial
    assert found.results[0].path == str(archive / "test" / "good" / "00.png")


def test_images_without_labels_are_refused(scene: tuple[SpotDetector, list[Sample]]) -> None:
    detector, samples = scene
    arrays = [decode(s.path) for s in samples]
    with pytest.raises(InputError, match="the images have no labels; give y"):
        evaluate(detector, arrays)
    with pytest.raises(InputError, match="y has 2 labels for 22 images"):
        evaluate(detector, arrays, [0, 1])
    with pytest.raises(InputError, match="no such file or folder"):
        evaluate(detector, "nowhere")


def stripe(path: Path) -> Path:
    """A mask of an image: its upper rows."""
    mask = np.zeros(decode(path).shape[:2], np.uint8)
    mask[:5] = 255
    return save(path.parents[2] / "ground_truth" / path.parent.name / f"{path.stem}_mask.png", mask)


def test_a_catalogue_set_is_judged_in_its_zip(scene: tuple[SpotDetector, list[Sample]], tmp_path: Path) -> None:
    detector, some = scene
    samples = [replace(s, mask=s.mask or stripe(s.path)) if s.label else s for s in some]
    archive = tmp_path / "mvtec_ad.zip"
    with zipfile.ZipFile(archive, "w") as stream:
        for path in sorted((tmp_path / "train").glob("*.png")):
            stream.write(path, f"bottle/train/good/{path.name}")
        for file in (path for s in samples for path in (s.path, s.mask) if path is not None):
            stream.write(file, f"bottle/{Path(file).relative_to(tmp_path)}")
    data = open_set("mvtec_ad", archive, category="bottle")
    found, from_files = evaluate(detector, data), evaluate(detector, samples)
    assert (found.image, found.pixel, found.types) == (from_files.image, from_files.pixel, from_files.types)
    assert (found.trivial, found.n_left_out) == (from_files.trivial, 0)
    assert evaluate(detector, (*data.train, *data.test)).n_left_out == 19
    page = evaluation_page(found, detector)
    assert page.count("<figure") == evaluation_page(from_files, detector).count("<figure") > 0
