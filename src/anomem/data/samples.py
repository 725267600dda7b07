"""One image with what is known about it, and a dataset of them."""

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
    """One image file with what is known about it.

    Parameters
    ----------
    path : Path
        The image.
    label : int
        0 normal, 1 anomalous, -1 unknown.
    mask : Path, optional
        Mask image of the defect: whatever is not black is defect.
    type : str, optional
        Kind of defect, of anomalous images only.
    group : str, optional
        What the image shares with others (part, lot, burst): such images are never split apart.
    """

    path: Path
    label: int = UNKNOWN
    mask: Path | None = None
    type: str | None = None
    group: str | None = None


@dataclass(frozen=True)
class Dataset:
    """Images to train on and images to test on, as a folder or a table gives them.

    No file is in both parts.

    Parameters
    ----------
    layout : {"mvtec", "imagefolder", "flat", "table", "video"}
        What was recognised.
    root : Path
        The folder or the table.
    train, test : tuple of Sample
        Either may be empty, never both.
    split : bool
        Whether the source itself tells training from test images (``train`` and ``test`` folders,
        a column ``split``).
    notes : tuple of str
        What a user should know: what was left out, which masks are missing.
    """

    layout: Layout
    root: Path
    train: tuple[Sample, ...]
    test: tuple[Sample, ...]
    split: bool = True
    notes: tuple[str, ...] = ()

    def for_evaluation(self) -> tuple[Sample, ...]:
        """Images to evaluate a model on.

        Returns
        -------
        tuple of Sample
            ``test`` where the source tells training from test images, else every image. Whoever
            evaluates leaves out, by content hash, what the model has seen in fitting.
        """
        return self.test if self.split else (*self.train, *self.test)

    def counts(self) -> dict[str, int]:
        """Numbers of images per part and label, of masks and of types of defects.

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
        """Say in one line what was found."""
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
        """Describe each part: its images by label, and the folders that they lie in."""
        lines = []
        for part, samples in (("train", self.train), ("test", self.test)):
            for label, word in _WORDS.items():
                chosen = [sample.path for sample in samples if sample.label == label]
                if chosen:
                    lines.append(f"{part}: {len(chosen):,} {word} in {_places(chosen, self.root)}")
        return tuple(lines)

    def report(self) -> dict[str, Any]:
        """Return what was found as JSON-ready facts: layout, root, counts, parts and notes."""
        return {
            "layout": self.layout,
            "root": str(self.root),
            **self.counts(),
            "parts": list(self.parts()),
            "notes": list(self.notes),
        }


def _places(paths: Iterable[Path], root: Path) -> str:
    """Name the folders of files relative to a root; their common folder where they are many."""
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
    """Remark on anomalous images without a mask, where others of the set have one."""
    anomalous = [sample for sample in samples if sample.label == ANOMALOUS]
    bare = sum(sample.mask is None for sample in anomalous)
    if bare in (0, len(anomalous)):
        return ()
    return (f"{bare} of {len(anomalous)} anomalous images have no mask",)
