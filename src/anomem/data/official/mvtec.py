"""Sets in the layout of MVTec AD: categories, normal training images, a test folder per type, masks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from anomem.data.official.sets import Item, Listing, Part, Wanted
from anomem.data.official.tree import Tree
from anomem.errors import InputError

__all__ = ["LAYOUTS", "Layout", "category_of", "read"]


@dataclass(frozen=True)
class Layout:
    """Folders of a category.

    Parameters
    ----------
    normal : str
        Folder of normal images, in ``train`` and in the test folder.
    test : str
        Folder of the test images: one folder per type, or loose images of unpublished type.
    inner : str
        Folder of the photographs below a type's folder.
    truth : str
        Folder of a type's masks. A mask has its image's name, or with ``_mask`` added; it may be a folder.
    validation : bool
        True if there are normal validation images.
    """

    normal: str = "good"
    test: str = "test"
    inner: str = ""
    truth: str = "ground_truth/{kind}"
    validation: bool = False


LAYOUTS: dict[tuple[str, str], Layout] = {
    ("mvtec_ad", ""): Layout(),
    ("mvtec_ad", "native"): Layout(),
    ("mvtec_ad_2", "public"): Layout(test="test_public", truth="test_public/ground_truth/{kind}", validation=True),
    ("mvtec_ad_2", "private"): Layout(test="test_private", validation=True),
    ("mvtec_ad_2", "private_mixed"): Layout(test="test_private_mixed", validation=True),
    ("mvtec_loco", ""): Layout(validation=True),
    ("mvtec_3d", ""): Layout(inner="rgb", truth="test/{kind}/gt", validation=True),
    ("btad", ""): Layout(normal="ok"),
}


def read(tree: Tree, wanted: Wanted) -> Listing:
    """Read one category.

    Raises
    ------
    InputError
        Missing files, or several categories and none named.
    """
    layout = LAYOUTS[wanted.name, wanted.variant]
    return read_category(category_of(tree, wanted.category, f"train/{layout.normal}"), layout)


def category_of(tree: Tree, category: str | None, inside: str) -> Tree:
    """Find the folder of a category: the copy itself, or a folder in it that contains ``inside``."""
    if tree.has(inside):
        if category is not None and tree.root.name != category and not tree.root.name.endswith(f"_{category}"):
            raise tree.absent(f"{tree.path(category)}: absent")
        return tree
    there = [name for name in tree.folders() if tree.has(f"{name}/{inside}")]
    if category is None and len(there) == 1:
        return tree.at(there[0])
    if category and len(there) == 1 and category in there[0].split("_"):
        return tree.at(there[0])
    if category is None and there:
        raise InputError(f"{tree.root}: holds {len(there)} categories ({', '.join(there)}); name one of them")
    chosen = tree.at(tree.need(category)) if category else tree
    chosen.need(inside)
    return chosen


def read_category(tree: Tree, layout: Layout) -> Listing:
    """Read a category from its folder."""
    items = list(_normal(tree, "train", "train", layout))
    if layout.validation:
        items += _normal(tree, "validation", "validation", layout)
    notes = []
    kinds = [kind for kind in tree.folders(tree.need(layout.test)) if tree.has(_join(layout.test, kind, layout.inner))]
    if not kinds:  # labels of these images are not published
        items += [Item("test", tree.path(place), "") for place in tree.need_images(layout.test)]
        notes.append(f"{layout.test}/: labels and masks are kept by the provider")
    masked = any(tree.has(layout.truth.format(kind=kind)) for kind in kinds if kind != layout.normal)
    for kind in kinds:
        places = tree.need_images(_join(layout.test, kind, layout.inner))
        masks = _masks(tree, layout.truth.format(kind=kind), places) if masked and kind != layout.normal else {}
        items += [Item("test", tree.path(place), kind, masks.get(place)) for place in places]
    if len(kinds) > 1 and not masked:
        notes.append(f"no masks in this copy: {layout.truth.partition('/')[0]}/ is absent")
    notes += _saturation(tree)
    return Listing(tuple(items), (layout.normal, *(kind for kind in kinds if kind != layout.normal)), tuple(notes))


def _normal(tree: Tree, part: Part, folder: str, layout: Layout) -> Iterator[Item]:
    for place in tree.need_images(_join(folder, layout.normal, layout.inner)):
        yield Item(part, tree.path(place), layout.normal)


def _masks(tree: Tree, folder: str, places: list[str]) -> dict[str, Path]:
    """Match the masks of a type to its images; InputError for the first unmatched image or mask."""
    found = {PurePosixPath(place).stem: place for place in tree.images(tree.need(folder))}
    found |= {name: _join(folder, name) for name in tree.folders(folder)}
    matched = {}
    for place in places:
        stem = PurePosixPath(place).stem
        mask = found.pop(f"{stem}_mask", None) or found.pop(stem, None)
        if mask is None:
            raise tree.absent(f"{tree.path(folder)}/{stem}_mask: absent (nor {stem}), the mask of {place}")
        matched[place] = tree.path(mask)
    if found:
        raise tree.absent(f"{tree.path(next(iter(found.values())))}: a mask whose image is absent")
    return matched


def _saturation(tree: Tree) -> list[str]:
    """Return a note on MVTec LOCO's saturation thresholds, needed for sPRO and lost in united masks."""
    if not tree.has("defects_config.json"):
        return []
    try:
        config = json.loads(tree.text("defects_config.json"))
        absolute = sum(not entry["relative_saturation"] for entry in config)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{tree.path('defects_config.json')}: damaged ({error}); copy it again") from error
    note = f"saturation thresholds of {len(config)} kinds of defects, {absolute} in pixels"
    return [f"masks are unions of their parts; defects_config.json holds {note}"]


def _join(*parts: str) -> str:
    return "/".join(part for part in parts if part)
