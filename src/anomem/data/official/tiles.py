"""Sets of dependent images in MVTec's layout: tiles of one photograph, or altered copies of it, form a group."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from anomem.data.official.mvtec import Layout, category_of, read_category
from anomem.data.official.sets import Listing, Wanted
from anomem.data.official.tree import Tree

__all__ = ["read_aitex", "read_fabric_stain"]

_TILE = re.compile(r"(.+)_t\d+")
_COPY = re.compile(r"(.+)_[0-4]")


def read_aitex(tree: Tree, _: Wanted) -> Listing:
    """Read tiles ``<photograph>_t<number>``; the photograph is the group, the last part of its name the fabric."""
    return _grouped(_read(tree), _TILE)


def read_fabric_stain(tree: Tree, _: Wanted) -> Listing:
    """Read photographs and altered copies ``<photograph>_0`` to ``_4``; the photograph's name is the group."""
    return _grouped(_read(tree), _COPY)


def _read(tree: Tree) -> Listing:
    return read_category(category_of(tree, None, "train/good"), Layout())


def _grouped(listing: Listing, versions: re.Pattern[str]) -> Listing:
    """Add the group that an image's name gives; an image without a version's suffix is the group's own photograph."""

    def group(path: Path) -> str:
        match = versions.fullmatch(path.stem)
        return match[1] if match else path.stem

    return replace(listing, items=tuple(replace(item, group=group(item.path)) for item in listing.items))
