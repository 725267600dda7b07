"""Image sets by name: find and read a local copy in its provider's layout.

>>> sorted(CATALOG)[:3]
['aitex_tiles', 'btad', 'cifar10']
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import TypeAlias

from anomem.data.official.entries import CATALOG, Catalogued
from anomem.data.official.sets import Listing, OfficialSet, Wanted, label
from anomem.data.official.tree import Tree, open_tree
from anomem.data.samples import Layout
from anomem.errors import InputError, one_line, suggestion

__all__ = ["CATALOG", "NATIVE", "Catalogued", "OfficialSet", "known", "open_set"]

NATIVE = "native"
"""Variant of copies at the original size, beside reduced ones."""

Reader: TypeAlias = Callable[[Tree, Wanted], Listing]


def open_set(
    name: str,
    root: str | Path | None = None,
    *,
    category: str | None = None,
    normal: str | Collection[str] | None = None,
    variant: str | None = None,
    download: bool = False,
) -> OfficialSet:
    """Open a local copy of an image set in its provider's layout.

    Images are decoded on access. Nothing is downloaded without ``download``.

    Parameters
    ----------
    name : str
        A key of `CATALOG`.
    root : str or Path, optional
        The copy, a folder or a zip read in place; or a folder with the copy under one of its usual names
        (``CATALOG[name].folders``). By default the folder ``$ANOMEM_DATA``.
    category : str, optional
        Part of the set; required if the copy has several.
    normal : str or collection of str, optional
        The normal classes of a set of classes; all others are anomalous. Without it the labels of such a set are -1
        until `OfficialSet.one_vs_rest` names them. Sets of defects, attacks or diseases have their own.
    variant : str, optional
        One of ``CATALOG[name].variants``, a split or a labelling; the first by default.
    download : bool
        Download CIFAR, MNIST, Fashion-MNIST or SVHN with torchvision into ``root`` first.

    Returns
    -------
    OfficialSet
        A `Dataset` with classes of every image, validation images and spare labelled anomalies.

    Raises
    ------
    InputError
        Unknown name, category, variant or class; missing files, with the place to request them; damaged files.

    Examples
    --------
    ``open_set("mvtec_ad", "/data/mvtec_ad", category="screw")``,
    ``open_set("cifar10", "cifar10.zip", normal="cat")``
    """
    info = known(name)
    chosen = _choice(name, "variant", variant, info.variants) or info.variants[0]
    category = _choice(name, "category", category, info.categories)
    if download:
        _download(info, root)
    tree = _find(info, root, category, chosen)
    module, _, function = info.reader.partition(":")
    read: Reader = getattr(import_module(f"anomem.data.official.{module}"), function)
    listing = read(tree, Wanted(name, category, chosen))
    layout: Layout = "mvtec" if info.tasks == ("defects",) else "imagefolder"
    data = OfficialSet(layout, tree.root, (), (), name=name, category=category, listing=listing)
    return label(data, _normal(info, listing, normal))


def known(name: str) -> Catalogued:
    """Return the catalogue entry of a set; InputError with the nearest name for an unknown set."""
    if name in CATALOG:
        return CATALOG[name]
    raise InputError(f"no image set {name!r}; {suggestion(name, CATALOG)}")


def _choice(name: str, what: str, value: str | None, choices: tuple[str, ...]) -> str | None:
    if value is None or value in choices:
        return value
    if not any(choices):
        raise InputError(f"{name}: {what}={value!r}: the set has none; leave it out")
    raise InputError(f"{name}: {what}={value!r}; choose one of {_list(choices)}")


def _normal(info: Catalogued, listing: Listing, given: str | Collection[str] | None) -> tuple[str, ...]:
    if given is not None and (info.normal or info.anomalous):
        own = f"are {_list(info.normal)}" if info.normal else f"are all but {info.anomalous[0]}"
        raise InputError(f"{info.title}: normal={given!r}: its normal images {own}; leave it out")
    if given is not None:
        return (given,) if isinstance(given, str) else tuple(given)
    if info.anomalous:
        return tuple(kind for kind in listing.classes if kind not in info.anomalous)
    return info.normal


def _find(info: Catalogued, root: str | Path | None, category: str | None, variant: str) -> Tree:
    """Find the copy: under one of its names in the folder, or else the folder itself if it was given."""
    place = Path(root) if root is not None else _data_folder(info)
    candidates = list(_candidates(info, place, category, variant))
    found = next((path for path in candidates if path.exists()), None)
    if found is None and root is None:
        raise InputError(f"{place / info.folders[0]}: absent, as a folder and as a zip; {info.ask}")
    tree = open_tree(found or place, info.ask)
    inside = next((folder for folder in info.folders if tree.has(folder)), None)
    return tree.at(inside) if inside else tree


def _candidates(info: Catalogued, place: Path, category: str | None, variant: str) -> Iterator[Path]:
    stems = [f"{folder}_{category}" for folder in info.folders if category is not None]
    if variant == NATIVE:
        stems = [f"{stem}_{NATIVE}" for stem in stems]
    for stem in (*stems, *info.folders):
        yield place / stem
        yield place / f"{stem}.zip"


def _data_folder(info: Catalogued) -> Path:
    value = os.environ.get("ANOMEM_DATA")
    if not value:
        raise InputError(
            f"{info.title}: no folder; give root=, or set ANOMEM_DATA to a folder of image sets; {info.ask}"
        )
    return Path(value)


def _download(info: Catalogued, root: str | Path | None) -> None:
    if not info.download:
        raise InputError(f"{info.title}: cannot be downloaded by anomem; {info.ask}")
    from torchvision import datasets

    folder = Path(root) if root is not None else _data_folder(info) / info.folders[0]
    fetch = getattr(datasets, info.download)
    try:
        for part in ({"split": "train"}, {"split": "test"}) if info.download == "SVHN" else ({},):
            fetch(folder, download=True, **part)
    except (RuntimeError, OSError) as error:
        raise InputError(f"{folder}: the download failed ({one_line(error)}); {info.ask}") from error


def _list(names: Iterable[str]) -> str:
    return ", ".join(names)
