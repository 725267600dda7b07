"""Sets with masks beside their images: KolektorSDD2, and the magnetic tiles in their original layout."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from anomem.data.official.inside import read_mask
from anomem.data.official.mvtec import Layout, read_category
from anomem.data.official.sets import Item, Listing, Part, Wanted
from anomem.data.official.tree import Tree

__all__ = ["read_ksdd2", "read_magnetic_tile"]

TILE_KINDS = ("Free", "Blowhole", "Break", "Crack", "Fray", "Uneven")


def read_ksdd2(tree: Tree, _: Wanted) -> Listing:
    """Read KolektorSDD2: ``<number>.png`` with ``<number>_GT.png`` in ``train`` and ``test``.

    Images are labelled by their masks, so every mask is read once. Stray copies such as ``10301 (copy).png`` are left
    out.
    """
    items, strays = [], []
    parts: tuple[Part, ...] = ("train", "test")
    for part in parts:
        images = {PurePosixPath(place).stem: place for place in tree.need_images(part)}
        strays += [place for stem, place in images.items() if "(" in stem]
        for stem, place in images.items():
            if stem.endswith("_GT") or place in strays:
                continue
            if f"{stem}_GT" not in images:
                raise tree.absent(f"{tree.path(part)}/{stem}_GT.png: absent, the mask of {place}")
            mask = tree.path(images[f"{stem}_GT"])
            items.append(Item(part, tree.path(place), "bad" if read_mask(mask).any() else "good", mask))
    notes = (f"{len(strays)} stray copies left out",) if strays else ()
    return Listing(tuple(items), ("good", "bad"), notes)


def read_magnetic_tile(tree: Tree, _: Wanted) -> Listing:
    """Read the magnetic tiles: ``MT_<kind>/Imgs`` with ``<image>.jpg`` and mask ``<image>.png``; or MVTec's layout.

    The provider gives no split, so all tiles without defects are for training.
    """
    if not tree.has("MT_Free"):
        tree.need("MT_Free", "train")
        return read_category(tree, Layout())
    items: list[Item] = []
    for kind in TILE_KINDS:
        places = tree.need_images(f"MT_{kind}/Imgs")
        masks = {PurePosixPath(place).stem: tree.path(place) for place in places if place.endswith(".png")}
        items += [_tile(tree, place, kind.lower(), masks) for place in places if not place.endswith(".png")]
    kinds = ("good", *(kind.lower() for kind in TILE_KINDS[1:]))
    return Listing(tuple(items), kinds, ("no split of the provider's own",), split=False)


def _tile(tree: Tree, place: str, kind: str, masks: dict[str, Path]) -> Item:
    if kind == "free":
        return Item("train", tree.path(place), "good")
    stem = PurePosixPath(place).stem
    if stem not in masks:
        raise tree.absent(f"{tree.path(place).with_suffix('.png')}: absent, the mask of {place}")
    return Item("train", tree.path(place), kind, masks[stem])
