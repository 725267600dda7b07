"""Groups by name, folder and expression, and near-duplicates among images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from anomem.errors import InputError
from anomem.runtime.alike import find_alike
from anomem.runtime.groups import Groups, group_facts, group_line, resolve_groups
from anomem.runtime.progress import run_to_end
from anomem.runtime.sources import ArraySource, FileSource

PATHS = FileSource(["lot1/a_0.png", "lot1/a_1.png", "lot2/b_0.png", "lot2/c.png"])


def groups_of(groups: Groups, source: FileSource | ArraySource = PATHS) -> object:
    return run_to_end(resolve_groups(groups, source))


def scene(rng: np.random.Generator) -> np.ndarray:
    return np.kron(rng.normal(120, 25, (12, 12, 3)), np.ones((8, 8, 1)))


def frame(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return (image * rng.normal(1, 0.03) + rng.normal(0, 2, image.shape)).clip(0, 255).astype(np.uint8)


def test_groups_by_folder_expression_and_list() -> None:
    assert groups_of(None) is None
    assert groups_of([1, None, "b", 1]) == (1, None, "b", 1)
    assert groups_of("folder") == ("lot1", "lot1", "lot2", "lot2")
    assert groups_of(r"([^/]+)_\d\.png$") == ("a", "a", "b", None)
    assert groups_of("lot.") == ("lot1", "lot1", "lot2", "lot2")
    assert groups_of(r"(?:lot[(+*)]?\+*)([12]+)/(?:[^/]+)?_") == ("1", "1", "2", None)  # no repeat inside a repeat


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        ([1, 2], "has 2 entries for 4 images"),
        (3, "has no entries for 4 images"),
        ("(", "not a regular expression .*; an example"),
        ("xyz", "matches none of 4 paths, such as lot1/a_0.png"),
        ("((a|b+)x)*_", "could take for ever: a repeat or choice inside a repeat"),
        ("(.{1,9}){9}_", "could take for ever"),
        (".*" * 9, "more than 8 repeats"),
    ],
)
def test_groups_that_cannot_be(groups: Groups, words: str) -> None:
    with pytest.raises(InputError, match=words):
        groups_of(groups)


def test_groups_by_path_need_paths() -> None:
    with pytest.raises(InputError, match="these images have no paths"):
        groups_of("folder", ArraySource(np.zeros((2, 4, 4), np.uint8)))
    with pytest.raises(InputError, match="all images lie in lot1"):
        groups_of("folder", FileSource(["lot1/a.png", "lot1/b.png"]))


def test_near_duplicates_are_grouped_and_others_are_not() -> None:
    rng = np.random.default_rng(0)
    scenes = [scene(rng) for _ in range(8)]
    images = [frame(scenes[i % 8], rng) for i in range(24)]
    assert groups_of("near", ArraySource(images)) == tuple(i % 8 for i in range(24))


@pytest.mark.parametrize(
    "change",
    [
        lambda image: image[:, ::-1],
        np.rot90,
        lambda image: np.rot90(image, 3)[::-1],
        lambda image: np.roll(image, 1, axis=1),
        lambda image: (0.7 * image + 20).astype(np.uint8),
    ],
    ids=["flip", "turn", "both", "shift", "shade"],
)
def test_augmented_copies_are_near_duplicates(change: object) -> None:
    rng = np.random.default_rng(1)
    images = [scene(rng).clip(0, 255).astype(np.uint8) for _ in range(6)]
    copies = [np.ascontiguousarray(change(image)) for image in images]  # type: ignore[operator]
    assert run_to_end(find_alike(ArraySource([*images, *copies]))) == [*range(6), *range(6)]


def test_parts_of_one_kind_in_one_place_are_no_duplicates() -> None:
    rng = np.random.default_rng(2)
    product = scene(rng)
    images = [frame(product + 0.1 * (scene(rng) - 120), rng) for _ in range(12)]
    assert run_to_end(find_alike(ArraySource(images))) == list(range(12))


def test_blank_and_unreadable_images_are_alone(tmp_path: Path) -> None:
    assert run_to_end(find_alike(ArraySource(np.zeros((5, 8, 8), np.uint8)))) == [0, 1, 2, 3, 4]
    (tmp_path / "a.png").write_bytes(b"no image")
    assert run_to_end(find_alike(FileSource([tmp_path / "a.png", tmp_path / "b.png"]))) == [0, 1]


@pytest.mark.parametrize("quarters", [1, 2])
def test_turned_copies_of_parts_in_one_place_are_found(quarters: int) -> None:
    """Half of the set is turned: the mean is neither that of the parts nor that of their copies."""
    rng = np.random.default_rng(5)
    part = scene(rng)
    parts = [frame(part + np.kron(rng.normal(0, 9, (24, 24, 1)), np.ones((4, 4, 1))), rng) for _ in range(12)]
    copies = [np.ascontiguousarray(np.rot90(image, quarters)) for image in parts]
    assert groups_of("near", ArraySource([*parts, *copies])) == (*range(12), *range(12))


def test_groups_of_a_changed_manifest_are_text_all_the_same() -> None:
    facts = group_facts(["a", "b", "c"], ["x", "x", None], "given")
    assert group_line(facts) == "2 of 3 normal images in 1 group (given), the largest of 2, such as a and b"
    assert group_line({**facts, "examples": 3}) == "2 of 3 normal images in 1 group (given), the largest of 2"
    assert group_line({**facts, "largest": "many"}) == group_line({}) == "none found"
