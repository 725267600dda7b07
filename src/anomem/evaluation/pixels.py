"""Pixel-level figures of labelled images, accumulated map by map."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field

import numpy as np

from anomem.data.labelled_images import Images
from anomem.errors import AnomemWarning, InputError
from anomem.evaluation.figures import PixelFigures
from anomem.metrics import PixelScores
from anomem.types import ANOMALOUS, NORMAL, FloatArray

__all__ = ["PixelTally"]

_HALF = 0.5


@dataclass
class PixelTally:
    """Accumulated pixel scores of images, and the number of images left out.

    Every pixel of a normal image counts as defect-free. An anomalous image without a mask, or with an empty
    one, is left out: the labels of its pixels are unknown.

    Parameters
    ----------
    images : Images
        Masks and labels.
    """

    images: Images
    scores: PixelScores = field(default_factory=PixelScores)
    n_without_mask: int = 0
    _covered: list[str] = field(default_factory=list)

    def add(self, position: int, anomaly_map: FloatArray) -> None:
        """Add the pixels of one image's map, (H, W) in the image's own frame.

        Raises
        ------
        ImageError
            The mask cannot be read.
        InputError
            The mask has another size than the image, or the map is not finite.
        """
        if self.images.labels[position] == NORMAL:
            self.scores.add(anomaly_map)
            return
        height_width = (anomaly_map.shape[0], anomaly_map.shape[1])
        found = self.images.mask(position, height_width)
        mask = None if found is None else np.asarray(found, dtype=bool)
        if mask is not None and mask.shape != height_width:
            raise InputError(
                f"{self.images.source.name(position)}: its mask is {mask.shape}, the image {height_width}; "
                "masks have their image's size"
            )
        if mask is None or not mask.any():
            self.n_without_mask += 1
            return
        self.scores.add(anomaly_map, mask)
        if mask.mean() > _HALF:
            self._covered.append(self.images.source.name(position))

    def figures(self) -> PixelFigures | None:
        """Return the figures; None where no mask has a defect."""
        if not self.scores.n_regions:
            return None
        if len(self._covered) > _HALF * (len(self.images.positions(ANOMALOUS)) - self.n_without_mask):
            warnings.warn(
                f"{len(self._covered):,} masks mark more than half of their image, such as that of {self._covered[0]}; "
                "defects must be white in a mask: invert them if they are black",
                AnomemWarning,
                stacklevel=4,
            )
        return PixelFigures(
            auroc=self.scores.auroc(),
            auroc_ci=self.scores.interval("auroc"),
            aupro=self.scores.aupro(),
            aupro_ci=self.scores.interval("aupro"),
            n_images=self.scores.n_images,
            n_regions=self.scores.n_regions,
            n_without_mask=self.n_without_mask,
        )
