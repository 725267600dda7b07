"""Sets of class folders, mostly one folder per class below one folder per part."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath

from anomem.data.official.coarse import COARSE_OF
from anomem.data.official.sets import Item, Listing, Part, Wanted
from anomem.data.official.tree import Tree

__all__ = ["class_folders", "read_kermany", "read_lsun", "read_octid"]

LSUN_SCENES = (
    *("bedroom", "bridge", "church_outdoor", "classroom", "conference_room"),
    *("dining_room", "kitchen", "living_room", "restaurant", "tower"),
)
KERMANY = ("CNV", "DME", "DRUSEN", "NORMAL")
OCTID: Mapping[str, tuple[str, ...]] = {
    "NORMAL": ("NORMAL", "ANormal", "Normal"),
    "AMRD": ("AMRD", "ARMD", "AMD"),
    "CSR": ("CSR",),
    "DR": ("DR", "Diabetic_retinopathy"),
    "MH": ("MH", "Macular_Hole"),
}
"""OCTID's five classes, with the folder names of its releases."""


def class_folders(tree: Tree, *, coarse: bool = False) -> Listing | None:
    """Read ``train/<class>``, ``test/<class>`` and ``val/<class>`` if present.

    Parameters
    ----------
    tree : Tree
    coarse : bool
        Classes are CIFAR-100's 20 coarse ones, folders its fine ones.

    Returns
    -------
    Listing or None
        None if there is no folder ``train`` with class folders.
    """
    classes = tree.folders("train")
    if not classes:
        return None
    parts: list[tuple[Part, str]] = [("train", "train"), ("test", tree.need("test"))]
    parts += [("validation", "val")] if tree.has("val") else []
    items = [
        Item(part, tree.path(place), COARSE_OF.get(name, name) if coarse else name)
        for part, folder in parts
        for name in classes
        for place in tree.need_images(f"{folder}/{name}")
    ]
    return Listing(tuple(items), tuple(dict.fromkeys(item.kind for item in items)))


def read_kermany(tree: Tree, _: Wanted) -> Listing:
    """Read the retinal OCT images of Kermany et al.: ``train``, ``test`` and, in the first release, ``val``.

    The patient's number in the file name (``CNV-1016042-1.jpeg``) is the group.
    """
    parts: list[tuple[Part, str]] = [("train", "train"), ("test", "test")]
    parts += [("validation", "val")] if tree.has("val") else []
    items = []
    for part, folder in parts:
        for kind in KERMANY:
            for place in tree.need_images(f"{folder}/{kind}"):
                tokens = PurePosixPath(place).stem.split("-")
                items.append(Item(part, tree.path(place), kind, group=tokens[1] if len(tokens) == 3 else None))
    return Listing(tuple(items), KERMANY)


def read_octid(tree: Tree, _: Wanted) -> Listing:
    """Read OCTID, five class folders without a split by the provider."""
    items = [
        Item("train", tree.path(place), kind)
        for kind, names in OCTID.items()
        for place in tree.need_images(tree.need(*names), deep=True)
    ]
    return Listing(tuple(items), tuple(OCTID), ("no split of the provider's own",), split=False)


def read_lsun(tree: Tree, _: Wanted) -> Listing:
    """Read LSUN as exported by its own tool: ``<scene>_train`` and ``<scene>_val`` with JPEG or WebP files.

    One scene is enough; the databases themselves (LMDB) are not read.
    """
    scenes = [scene for scene in LSUN_SCENES if tree.has(f"{scene}_train") or tree.has(f"{scene}_val")]
    databases = [folder for folder in tree.folders() if folder.endswith("_lmdb")]
    if not scenes and databases:
        raise tree.absent(
            f"{tree.path(databases[0])}: an LMDB database, which anomem does not read; export it with LSUN's own "
            f"data.py (it needs the package lmdb): data.py export {databases[0]} "
            f"--out_dir {databases[0].removesuffix('_lmdb')}"
        )
    if not scenes:
        tree.need(f"{LSUN_SCENES[0]}_train", f"{LSUN_SCENES[0]}_val")
    parts: tuple[tuple[Part, str], ...] = (("train", "train"), ("test", "val"))
    items = [
        Item(part, tree.path(place), scene)
        for scene in scenes
        for part, suffix in parts
        if tree.has(f"{scene}_{suffix}")
        for place in tree.need_images(f"{scene}_{suffix}", deep=True)
    ]
    missing = [f"{scene}_{suffix}" for scene in scenes for _, suffix in parts if not tree.has(f"{scene}_{suffix}")]
    return Listing(tuple(items), tuple(scenes), (f"absent: {', '.join(missing)}",) if missing else ())
