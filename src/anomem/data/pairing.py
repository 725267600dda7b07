"""Matching of masks to images."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from anomem.errors import InputError
from anomem.runtime.masks import is_mask_folder, mask_bases
from anomem.runtime.words import class_of, is_neutral, split_of
from anomem.types import NORMAL

__all__ = ["Pairs", "pair_masks"]


@dataclass(frozen=True)
class Pairs:
    """Masks by image, and unmatched masks.

    Parameters
    ----------
    masks : dict of Path to Path
        Mask per image: a file, or a folder of partial masks.
    unmatched : tuple of Path
        Masks without an image, or with several.
    """

    masks: dict[Path, Path]
    unmatched: tuple[Path, ...]

    def notes(self, root: Path) -> tuple[str, ...]:
        """Return notes on masks without an image."""
        if not self.unmatched:
            return ()
        named = ", ".join(path.relative_to(root).as_posix() for path in self.unmatched[:3])
        more = ", ..." if len(self.unmatched) > 3 else ""
        verb = "mask matches" if len(self.unmatched) == 1 else "masks match"
        return (
            f"{len(self.unmatched):,} {verb} no image and {'is' if verb[-1] == 's' else 'are'} not used: {named}{more}",
        )


@dataclass(frozen=True)
class _Image:
    path: Path
    folders: tuple[str, ...]
    split: str | None
    good: bool


def pair_masks(root: Path, images: Iterable[Path], masks: Sequence[Path]) -> Pairs:
    """Find the image of each mask by name and folder.

    A mask has the stem of its image, alone or with a word for masks (``_mask``, ``_GT``), or lies in a folder of that
    name. Its folders match those of the image, except folders of masks, images and parts of the data set; folders of
    the image may be missing.

    Parameters
    ----------
    root : Path
        Common folder of images and masks.
    images : iterable of Path
    masks : sequence of Path

    Returns
    -------
    Pairs

    Raises
    ------
    InputError
        An image has several masks.
    """
    by_stem: dict[str, list[_Image]] = defaultdict(list)
    if masks:
        for path in images:
            by_stem[path.stem.casefold()].append(_image(root, path))
    found: dict[Path, Path] = {}
    unmatched = []
    for mask in masks:
        image, target = _image_of(root, mask, by_stem)
        if image is None:
            unmatched.append(mask)
        elif found.setdefault(image, target) != target:
            raise InputError(
                f"{image}: has several masks, {found[image].relative_to(root)} and {target.relative_to(root)}; keep "
                f"one, or put all of them into a folder named {image.stem}, whose union is read"
            )
    return Pairs(found, tuple(unmatched))


def _image(root: Path, path: Path) -> _Image:
    parts = path.relative_to(root).parts[:-1]
    classes = [label for label in map(class_of, parts) if label is not None]
    return _Image(path, _folders(parts), _split(parts), bool(classes) and classes[-1] == NORMAL)


def _image_of(root: Path, mask: Path, by_stem: dict[str, list[_Image]]) -> tuple[Path | None, Path]:
    parts = mask.relative_to(root).parts[:-1]
    folders, split = _folders(parts), _split(parts)
    stem = mask.stem.casefold()
    of_folders = tuple(base for part in folders for base in (mask_bases(part) or [part])[:1])
    for place in dict.fromkeys((folders, of_folders)):  # hole_masks/ beside hole/
        for base in (*mask_bases(stem, weak=True), stem):
            image = _choose(by_stem.get(base, ()), place, split)
            if image is not None:
                return image, mask
    if folders:  # a folder of masks per image
        return _choose(by_stem.get(folders[-1], ()), folders[:-1], split), mask.parent
    return None, mask


def _choose(images: Iterable[_Image], folders: tuple[str, ...], split: str | None) -> Path | None:
    """Return the image with the best matching folders; None for no or several best matches."""
    fitting = [image for image in images if _is_within(folders, image.folders)]
    for better in (
        [image for image in fitting if split is None or image.split == split],
        [image for image in fitting if image.folders == folders],
        [image for image in fitting if image.split != "train"],
        [image for image in fitting if not image.good],
    ):
        kept = [image for image in fitting if image in better]
        fitting = kept or fitting
    return fitting[0].path if len(fitting) == 1 else None


def _folders(parts: Sequence[str]) -> tuple[str, ...]:
    kept = (part for part in parts if not is_neutral(part) and not is_mask_folder(part))
    return tuple(part.casefold() for part in kept if split_of(part) is None or class_of(part) is not None)


def _split(parts: Sequence[str]) -> str | None:
    return next((split for split in map(split_of, parts) if split is not None), None)


def _is_within(some: Sequence[str], all_: Sequence[str]) -> bool:
    """Return True if `some` is a subsequence of `all_`."""
    rest = iter(all_)
    return all(part in rest for part in some)
