"""Evaluate a fitted detector on labelled images that it has never seen."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from anomem.data.official.inside import file_size, read_mask
from anomem.data.sources import PathSource, Sample
from anomem.errors import ImageError, InputError
from anomem.metrics import PixelScores
from anomem.protocols.evaluation import (
    Evaluation,
    ImageRow,
    PixelFigures,
    Promise,
    SkippedImage,
    TrivialFigures,
    at_alpha,
    direction_free_auroc,
    false_alarm_chance,
    image_figures,
    require_both_classes,
    roc_points,
    type_figures,
)
from anomem.protocols.trivial import GreyWatch
from anomem.runtime.limits import MAX_PIXELS
from anomem.runtime.pixels import Reading
from anomem.types import ANOMALOUS, NORMAL, BoolArray

if TYPE_CHECKING:
    from anomem.loading import Model
    from anomem.runtime.judge import Scored


def evaluate(
    detector: Model,
    samples: Sequence[Sample],
    *,
    maps: bool = True,
    batch_size: int = 16,
    workers: int | None = None,
    skip_bad: bool = False,
    device: str = "auto",
    max_pixels: int | None = None,
) -> Evaluation:
    """Evaluate in one go; see `evaluate_steps`, which it exhausts, for the parameters.

    Returns
    -------
    Evaluation
    """
    steps = evaluate_steps(
        detector,
        samples,
        maps=maps,
        batch_size=batch_size,
        workers=workers,
        skip_bad=skip_bad,
        device=device,
        max_pixels=max_pixels,
    )
    while True:
        try:
            next(steps)
        except StopIteration as end:
            evaluation: Evaluation = end.value
            return evaluation


def evaluate_steps(
    detector: Model,
    samples: Sequence[Sample],
    *,
    maps: bool = True,
    batch_size: int = 16,
    workers: int | None = None,
    skip_bad: bool = False,
    device: str = "auto",
    max_pixels: int | None = None,
) -> Generator[tuple[int, int], None, Evaluation]:
    """Evaluate image by image: yields progress, returns the evaluation.

    Images that trained, tuned, calibrated or labelled the model are recognised by their content and
    left out. Images of unknown label are not looked at.

    Parameters
    ----------
    detector : Detector or Session
        Fitted.
    samples : sequence of Sample
        Labelled images; masks and types where they are known.
    maps : bool
        Whether to judge the maps too. It takes a mask of at least one anomalous image and a method
        that localizes; else pixel figures are None. Every pixel of a normal image counts as
        defect-free. Anomalous images without a mask take no part in the pixel figures. Pixel scores
        are kept until the end, 4 bytes for each pixel (8 for a defective one), maps are not.
    batch_size : int
        Images a forward pass.
    workers : int or None
        Decoding threads.
    skip_bad : bool
        Leave unreadable images and masks out, and list them, instead of failing.
    device : str
        "auto", or a torch device.
    max_pixels : int, optional
        Images and masks with more pixels are refused before they are decoded; by default 120 million.

    Yields
    ------
    done, total : int
        Images scored so far, and in all.

    Returns
    -------
    Evaluation

    Raises
    ------
    InputError
        Normal or anomalous images are missing, to begin with or after leaving some out.
    ImageError
        An image or mask cannot be read, and `skip_bad` is off.
    """
    labelled = [sample for sample in samples if sample.label in (NORMAL, ANOMALOUS)]
    n_normal = sum(sample.label == NORMAL for sample in labelled)
    require_both_classes(n_normal, len(labelled) - n_normal)
    masked = any(sample.label == ANOMALOUS and sample.mask is not None for sample in labelled)
    pixels = PixelScores() if maps and masked and detector.localizes else None
    tally = _Tally(labelled, detector.digests_, pixels, MAX_PIXELS if max_pixels is None else max_pixels)
    watch = GreyWatch(PathSource((sample.path for sample in labelled), Reading(tally.max_pixels)))
    scored = detector.score(
        watch,
        maps=tally.pixels is not None,
        batch_size=batch_size,
        workers=workers,
        skip_bad=skip_bad,
        device=device,
    )
    for done, result in enumerate(scored, start=1):
        tally.add(result, watch.take(result.index), skip_bad=skip_bad)
        yield done, len(labelled)
    return tally.conclude(detector, n_unlabelled=len(samples) - len(labelled))


@dataclass
class _Tally:
    """What is known so far; images come in one after the other."""

    samples: Sequence[Sample]
    used: frozenset[int]
    pixels: PixelScores | None
    max_pixels: int = MAX_PIXELS
    rows: list[ImageRow] = field(default_factory=list)
    skipped: list[SkippedImage] = field(default_factory=list)
    trivial: list[tuple[float, float, float, float]] = field(default_factory=list)
    n_left_out: int = 0
    n_without_mask: int = 0

    def add(self, result: Scored, seen: tuple[float, float, float], *, skip_bad: bool) -> None:
        sample = self.samples[result.index]
        if result.error is not None:
            self.skipped.append(SkippedImage(str(sample.path), result.error))
            return
        if result.digest in self.used:
            self.n_left_out += 1
            return
        if not np.isfinite(result.score):
            raise InputError(f"{sample.path}: its score is {result.score}: fit the model again")
        try:
            self._add_pixels(sample, result)
        except ImageError as error:
            if not skip_bad:
                raise
            self.skipped.append(SkippedImage(str(sample.path), str(error)))
            return
        self.rows.append(_row(sample, result))
        self.trivial.append((*seen, float(file_size(sample.path))))

    def _add_pixels(self, sample: Sample, result: Scored) -> None:
        if self.pixels is None or result.map is None:
            return
        mask: BoolArray | None = None
        height, width = result.map.shape
        if sample.label == ANOMALOUS:
            if sample.mask is not None:
                mask = read_mask(sample.mask, (height, width), image=sample.path, max_pixels=self.max_pixels)
            if mask is None or not mask.any():
                self.n_without_mask += 1
                return
        self.pixels.add(result.map, mask)

    def conclude(self, detector: Model, *, n_unlabelled: int) -> Evaluation:
        labels = [row.label for row in self.rows]
        n_normal, n_anomalous = labels.count(NORMAL), labels.count(ANOMALOUS)
        out = f", beside {self.n_left_out} that the model was made from"
        require_both_classes(n_normal, n_anomalous, f"{out} and {len(self.skipped)} that cannot be read")
        calibration = detector.calibration_
        decided = at_alpha(self.rows, calibration.alpha)
        features = list(zip(*self.trivial, strict=True))
        return Evaluation(
            method=detector.name,
            n_normal=n_normal,
            n_anomalous=n_anomalous,
            n_left_out=self.n_left_out,
            n_unlabelled=n_unlabelled,
            image=image_figures(self.rows),
            at_alpha=decided,
            promise=Promise(
                n_calibration=calibration.n,
                threshold=calibration.threshold,
                rate_limit_95=calibration.rate_limit_95,
                chance=false_alarm_chance(decided.n_false, n_normal, calibration.n, calibration.alpha),
            ),
            pixel=self._pixel_figures(),
            types=type_figures(self.rows),
            trivial=TrivialFigures(*(direction_free_auroc(f, labels) for f in features)),
            roc=roc_points(self.rows),
            results=tuple(self.rows),
            skipped=tuple(self.skipped),
        )

    def _pixel_figures(self) -> PixelFigures | None:
        # Masks may all have turned out empty, or their images left out.
        if self.pixels is None or not self.pixels.n_regions:
            return None
        return PixelFigures(
            auroc=self.pixels.auroc(),
            auroc_ci=self.pixels.interval("auroc"),
            aupro=self.pixels.aupro(),
            aupro_ci=self.pixels.interval("aupro"),
            n_images=self.pixels.n_images,
            n_regions=self.pixels.n_regions,
            n_without_mask=self.n_without_mask,
        )


def _row(sample: Sample, result: Scored) -> ImageRow:
    return ImageRow(
        path=str(sample.path),
        label=int(sample.label),
        type=sample.type,
        score=float(result.score),
        p_value=float(result.p_value),
        anomalous=bool(result.anomalous),
        mask=None if sample.mask is None else str(sample.mask),
    )
