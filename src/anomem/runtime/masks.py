"""Recognition of defect masks by folder, file name and content."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from anomem.errors import ImageError
from anomem.runtime._pillow import load
from anomem.runtime.limits import MAX_PIXELS

__all__ = ["is_mask_folder", "mask_bases", "masks_beside", "word_set", "words_of"]


def word_set(text: str) -> frozenset[str]:
    """Return the words of a text, separated by blanks."""
    return frozenset(text.split())


_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^\W\d_]+|\d+")
_MASK_WORDS = frozenset({"mask", "masks", "gt", "gts", "groundtruth", "groundtruths"})
_MASK_FOLDERS = _MASK_WORDS | word_set(
    "label labels labelmap labelmaps annotation annotations annot seg segs segmentation segmentations "
    "segmentationclass segmentationobject "  # Pascal VOC's
    "anno annos annots matte mattes bitmask bitmasks maske masken masque masques maschera maschere mascara mascaras "
    "máscara máscaras maska maski masker maskers маска маски 掩膜 掩码 掩模 蒙版 マスク 마스크"
)
_QUALIFIERS = word_set(
    "image images img imgs png bmp tif tiff jpg binary pixel pixels pixelwise level defect defects anomaly "
    "anomalies bad ng seg segmentation label labels class classes map maps file files data test testing train "
    "training val all"
)
_AFFIX = r"(ground[ _.-]?truths?|gts?|(?:defect|binary|pixel|anomaly|seg|gt)?[ _.-]?masks?)"
_WEAK = (
    r"(labels?|labelmap|lbl|seg|segmentation|segm|annotations?|anno?t?|m|defects?|anomaly|binary|bin|bw|target|"
    r"regions?|truth)"
)
_STRONG_NAMES = (
    re.compile(rf"(?P<base>.+?)[ _.-]+{_AFFIX}(?:[ _.-]?\d{{1,2}})?"),
    re.compile(rf"{_AFFIX}[ _.-]+(?P<base>.+)"),
)
_WEAK_NAMES = (
    re.compile(rf"(?P<base>.+?)[ _.-]+{_WEAK}"),
    re.compile(rf"{_WEAK}[ _.-]+(?P<base>.+)"),
    re.compile(r"(?P<base>.+?)(gt|mask)"),
)
_LOSSY = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".webp"})
_LOOKED_AT = 8
_LEVELS = 8
_TWO_LEVELS_SHARE = 0.9


def words_of(name: str) -> list[str]:
    """Split a folder's name into words in lower case: at capitals, digits and separators.

    Examples
    --------
    >>> words_of("NODefect_images"), words_of("defect-free"), words_of("OK2")
    (['no', 'defect', 'images'], ['defect', 'free'], ['ok', '2'])
    """
    # Of several capitals before a small letter, the last begins the next word.
    spaced = re.sub(r"(?<=[A-Z])(?=[A-Z][a-z])", " ", name)
    return [word.casefold() for word in _WORDS.findall(spaced)]


def is_mask_folder(name: str, beside: Iterable[str] = ()) -> bool:
    """Return True for the name of a folder that holds masks, alone or with the name of a folder `beside` it.

    Examples
    --------
    >>> [is_mask_folder(name) for name in ("ground_truth", "Mask_images", "GT", "with_mask", "missing_label")]
    [True, True, True, False, False]
    >>> is_mask_folder("hole_masks", ["good", "hole"])
    True
    """
    if set(mask_bases(name)) & {other.casefold() for other in beside}:
        return True
    words = words_of(name)
    joined = "".join(words)
    if joined in _MASK_FOLDERS:
        return True
    rest = joined.replace("groundtruth", "") if "groundtruth" in joined else None
    if rest is not None:
        words = ["gt", *(word for word in words if word not in ("ground", "truth", "groundtruth"))]
    return bool(_MASK_WORDS & set(words)) and all(
        word in _MASK_WORDS or word in _QUALIFIERS or word.isdecimal() for word in words
    )


def mask_bases(stem: str, *, weak: bool = False) -> list[str]:
    """Return possible image stems of a mask's name, in lower case; empty for other names.

    Parameters
    ----------
    stem : str
        File name without suffix.
    weak : bool
        Also accept words that occur in names of photographs (``_label``, ``_seg``, ``_m``).

    Examples
    --------
    >>> mask_bases("001_GT"), mask_bases("mask-7"), mask_bases("001_label"), mask_bases("001_label", weak=True)
    (['001'], ['7'], [], ['001'])
    """
    patterns = _STRONG_NAMES + (_WEAK_NAMES if weak else ())
    matches = (pattern.fullmatch(stem.casefold()) for pattern in patterns)
    return [match["base"] for match in matches if match]


def masks_beside(images: Sequence[Path]) -> set[Path]:
    """Find the masks among image files: by name, or as a twin of an image with another suffix.

    Parameters
    ----------
    images : sequence of Path
        All image files of a folder tree.

    Returns
    -------
    set of Path
        ``N_GT.png``, ``N_mask.png``, ``mask_N.png`` if there is an image ``N``; ``N_label.png`` beside ``N`` and
        ``N.png`` beside ``N.jpg`` if the content is that of a mask; all of a folder of black and white pictures named
        like the images of others.
    """
    here = {(path.parent, path.stem.casefold()) for path in images}
    anywhere = {path.stem.casefold() for path in images if not mask_bases(path.stem)}
    masks = set()
    for path in images:
        strong = mask_bases(path.stem)
        if any((path.parent, base) in here or base in anywhere for base in strong):
            masks.add(path)
            continue
        bases = mask_bases(path.stem, weak=True)
        if any((path.parent, base) in here for base in bases) and _looks_like_mask(path):
            masks.add(path)
    masks |= _twins([path for path in images if path not in masks])
    return masks | _binary_folders([path for path in images if path not in masks])


def _twins(images: Iterable[Path]) -> set[Path]:
    """Find masks that differ from their image only in the suffix."""
    by_stem: dict[tuple[Path, str], list[Path]] = defaultdict(list)
    for path in images:
        by_stem[path.parent, path.stem].append(path)
    candidates: dict[Path, list[Path]] = defaultdict(list)
    for (folder, _), paths in by_stem.items():
        lossless = [path for path in paths if path.suffix.lower() not in _LOSSY]
        if len(paths) == 2 and len(lossless) == 1:
            candidates[folder] += lossless
        elif len(paths) == 2 and len(lossless) == 2:
            alike = [path for path in lossless if _looks_like_mask(path)]
            candidates[folder] += alike if len(alike) == 1 else []
    found: set[Path] = set()
    for paths in candidates.values():
        # A few files represent the folder, so that large folders are listed quickly.
        looked_at = paths[:: max(len(paths) // _LOOKED_AT, 1)]
        alike = [path for path in looked_at if _looks_like_mask(path)]
        found |= set(paths if len(alike) == len(looked_at) else filter(_looks_like_mask, paths))
    return found


def _binary_folders(images: Sequence[Path]) -> set[Path]:
    """Find folders of black and white pictures, each named like a picture elsewhere that is not black and white."""
    by_folder: dict[Path, list[Path]] = defaultdict(list)
    by_stem: dict[str, list[Path]] = defaultdict(list)
    for path in images:
        by_folder[path.parent].append(path)
        by_stem[path.stem.casefold()].append(path)
    found: set[Path] = set()
    for folder, paths in by_folder.items():
        lossless = all(path.suffix.lower() not in _LOSSY for path in paths)
        if not lossless or not all(len(by_stem[path.stem.casefold()]) > 1 for path in paths):
            continue
        looked_at = paths[:: max(len(paths) // _LOOKED_AT, 1)]
        others = [other for other in by_stem[paths[0].stem.casefold()] if other.parent != folder]
        if _are_binary(looked_at) and not any(_looks_like_mask(other) for other in others[:1]):
            found |= set(paths)
    return found


def _are_binary(paths: Iterable[Path]) -> bool:
    """Return True if all pictures have black and one other level alone, and one has both."""
    several = False
    for path in paths:
        counts = _counts(path)
        levels = (counts > 0).sum()
        if levels > 2 or (levels == 2 and not counts[0]):
            return False
        several |= levels == 2
    return bool(several)


def _looks_like_mask(path: Path) -> bool:
    """Return True for a picture with few grey levels, or with nearly all pixels at one of two levels."""
    counts = np.sort(_counts(path))
    return bool(0 < (counts > 0).sum() <= _LEVELS or counts[-2:].sum() > _TWO_LEVELS_SHARE * counts.sum())


def _counts(path: Path) -> npt.NDArray[np.intp]:
    """Return the number of pixels per grey level, 0 to 255; zeros for an unreadable picture."""
    try:
        grey = np.asarray(load(path, str(path), MAX_PIXELS).image.convert("L"))
    except (ImageError, ValueError, MemoryError):
        return np.zeros(256, np.intp)
    return np.bincount(grey.ravel(), minlength=256)
