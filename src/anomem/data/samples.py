"""Samples (image files with labels and facts) and datasets of samples."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from anomem.types import ANOMALOUS, NORMAL, UNKNOWN

__all__ = ["Dataset", "Layout", "Sample"]

Layout = Literal["mvtec", "imagefolder", "flat", "table", "video"]

_WORDS = {NORMAL: "normal", ANOMALOUS: "anomalous", UNKNOWN: "unknown"}
_FOLDERS_NAMED = 3


@dataclass(frozen=True)
class Sample:
    """Image file with label and further facts.

    Parameters
    ----------
    path : Path
        Image file.
    label : int
        0 normal, 1 anomalous, -1 unknown.
    mask : Path, optional
        Mask image of the defect; pixels that are not black are defective.
    type : str, optional
        Type of defect; for anomalous images only.
    group : str, optional
        Part, lot or burst shared with other images; groups are never split.
    stratum : str, optional
        Camera, product or shift with a calibration of its own.
    """

    path: Path
    label: int = UNKNOWN
    mask: Path | None = None
    type: str | None = None
    group: str | None = None
    stratum: str | None = None


@dataclass(frozen=True)
class Dataset:
    """Training and test images of a folder or table.

    No file is in both parts.

    Parameters
    ----------
    layout : {"mvtec", "imagefolder", "flat", "table", "video"}
        Recognised layout.
    root : Path
        Folder or table.
    train, test : tuple of Sample
        Training and test images; at most one part is empty.
    split : bool
        True if the source separates training from test images (``train`` and ``test`` folders, a
        column ``split``).
    notes : tuple of str
        Notes for the user: files left out, missing masks.
    """

    layout: Layout
    root: Path
    train: tuple[Sample, ...]
    test: tuple[Sample, ...]
    split: bool = True
    notes: tuple[str, ...] = ()

    def for_evaluation(self) -> tuple[Sample, ...]:
        """Return the images for evaluating a model.

        Returns
        -------
        tuple of Sample
            ``test`` if the source separates training from test images, otherwise all images. The
            evaluation leaves out images used in fitting, by content hash.
        """
        return self.test if self.split else (*self.train, *self.test)

    def counts(self) -> dict[str, int]:
        """Return the number of images per part and label, of masks and of types of defects.

        Returns
        -------
        dict
            ``train_normal``, ``train_anomalous``, ``train_unknown``, the same three of ``test``,
            ``masks`` and ``types``.
        """
        counts = {f"{part}_{word}": 0 for part in ("train", "test") for word in _WORDS.values()}
        for part, samples in (("train", self.train), ("test", self.test)):
            for sample in samples:
                counts[f"{part}_{_WORDS[sample.label]}"] += 1
        everything = (*self.train, *self.test)
        counts["masks"] = sum(sample.mask is not None for sample in everything)
        counts["types"] = len({sample.type for sample in everything if sample.type is not None})
        return counts

    def describe(self) -> str:
        """Return a one-line summary of the data set."""
        counts = self.counts()
        kinds = f" of {counts['types']} types" if counts["types"] else ""
        parts = [
            f"train {_tally(counts, 'train')}",
            f"test {_tally(counts, 'test')}{kinds if self.test else ''}",
            f"{counts['masks']} masks",
            *self.notes,
        ]
        return f"{self.root} ({self.layout} layout): {'; '.join(parts)}"

    def parts(self) -> tuple[str, ...]:
        """Return a description per part: images by label, and their folders."""
        lines = []
        for part, samples in (("train", self.train), ("test", self.test)):
            for label, word in _WORDS.items():
                chosen = [sample.path for sample in samples if sample.label == label]
                if chosen:
                    lines.append(f"{part}: {len(chosen):,} {word} in {_places(chosen, self.root)}")
        return tuple(lines)

    def report(self) -> dict[str, Any]:
        """Return JSON-ready facts: layout, root, counts, parts and notes."""
        return {
            "layout": self.layout,
            "root": str(self.root),
            **self.counts(),
            "parts": list(self.parts()),
            "notes": list(self.notes),
        }


def _places(paths: Iterable[Path], root: Path) -> str:
    """Return the folders of files relative to a root, or their common folder if there are many."""
    folders = sorted({path.parent for path in paths})
    if len(folders) > _FOLDERS_NAMED:
        common = Path(os.path.commonpath(folders))
        return f"{len(folders):,} folders below {_below(common, root)}"
    return ", ".join(_below(folder, root) for folder in folders)


def _below(folder: Path, root: Path) -> str:
    return folder.relative_to(root).as_posix() if folder.is_relative_to(root) else str(folder)


def _tally(counts: dict[str, int], part: str) -> str:
    named = [
        f"{counts[f'{part}_{word}']:,} {word}"
        for word in ("normal", "anomalous", "unknown")
        if counts[f"{part}_{word}"]
    ]
    return " + ".join(named) or "0 images"


def mask_note(samples: Iterable[Sample]) -> tuple[str, ...]:
    """Return notes on anomalous images without a mask, if other images of the set have one."""
    anomalous = [sample for sample in samples if sample.label == ANOMALOUS]
    bare = sum(sample.mask is None for sample in anomalous)
    if bare in (0, len(anomalous)):
        return ()
    return (f"{bare} of {len(anomalous)} anomalous images have no mask",)
