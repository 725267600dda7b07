"""What the benchmark of FYD measures, each in a process of its own: fits, judged; angles; seconds."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from typing import Any

from common import SETS, percent

TEXTURES = ("textures/brick", "textures/grass", "textures/gravel")
RIDGE, FEW_CHANNELS, MOST = 0.01, 24, 256
"""Of the distance variance: the ridge; channels, so that there are more normals than channels; normals at most."""


def opened(name: str, limit: int | None) -> Any:
    """A set of :data:`common.SETS` or a shipped texture, as protocols open it."""
    from anomem.benchmark.image_sets import open_bench_set

    return open_bench_set(name if name in TEXTURES else str(SETS[name].path)).thinned(limit)


def parts_of(name: str, disturbed: bool, draw: int, limit: int | None) -> tuple[Any, Any]:
    """Training and test images; disturbed in space as the paper does with this category, each once."""
    from anomem.data.disturbance import disturbance_for

    data = opened(name, limit)
    if not disturbed:
        return data.train, data.test
    how = disturbance_for("spatial", data.category)
    train, test = (part.disturbed(how, draw, f"{part.name} disturbed {draw}") for part in (data.train, data.test))
    return train, test


def fitted(images: Any, settings: Mapping[str, Any]) -> tuple[Any, float]:
    """A fitted detector, and seconds."""
    from anomem.detectors.fyd.detector import FYD

    started = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        detector = FYD(**settings).fit(images)
    return detector, round(time.perf_counter() - started, 1)


def measure(
    name: str, disturbed: bool, settings: dict[str, Any], compact: bool, limit: int | None, threads: int
) -> dict[str, Any]:
    """Fit and judge one set; the seed also draws what the images are disturbed by. For a process of its own."""
    import torch

    torch.set_num_threads(threads)
    train, test = parts_of(name, disturbed, settings["seed"], limit)
    detector, seconds = fitted(train.source, settings)
    stages = {record.stage for record in detector.history_}
    found = {"seconds": seconds, "ica_left_out": "image alignment left out" in stages, **judged(detector, test)}
    return {**found, **(compactness(detector, train.source) if compact else {})}


def judged(detector: Any, images: Any) -> dict[str, Any]:
    """Image AUROC; pixel AUROC and AUPRO where there are masks; defects whose mask is empty count for the image."""
    from anomem.metrics import PixelScores, auroc
    from anomem.types import ANOMALOUS

    pixels, scores, masked = PixelScores(), [], any(mask is not None for mask in images.masks)
    for place, result in enumerate(detector.score(images.source, maps=masked)):
        scores.append(result.score)
        if not masked:
            continue
        anomalous = images.labels[place] == ANOMALOUS
        mask = images.mask(place, result.map.shape) if anomalous else None
        if not anomalous or (mask is not None and mask.any()):
            pixels.add(result.map, mask)
    found = {"image": percent(auroc(scores, images.labels))}
    level = (pixels.auroc(), pixels.aupro()) if pixels.n_regions else (None, None)
    return {**found, "pixel": percent(level[0]), "aupro": percent(level[1])}


def compactness(detector: Any, source: Any) -> dict[str, float | None]:
    """Distance variance (Eq. 10) of normals under a fit: with the ridge, with a relative one, without one.

    None where there are no more normals than channels: their distances would all be the same.
    """
    import numpy as np
    import torch

    from anomem.data.imageset import ImageSet
    from anomem.detectors.fyd.loss import distance_variance

    scorer = detector.scorer_
    chosen = np.unique(np.linspace(0, len(source) - 1, MOST).round().astype(int))
    batches = ImageSet(source, detector.preprocessing_, chosen).batches(16)
    with torch.inference_mode():
        features = torch.cat([scorer.embed(scorer.backbone(batch.images)) for batch in batches]).flatten(2)
    few = features[:, np.linspace(0, features.shape[1] - 1, FEW_CHANNELS).round().astype(int)]

    def mean(of: torch.Tensor, **how: Any) -> float | None:
        if len(of) <= of.shape[1] + 1:
            return None
        pieces = of.split(64, dim=2)
        values = [distance_variance(piece[..., None], **how) for piece in pieces]
        return float(np.average(values, weights=[piece.shape[2] for piece in pieces]))

    return {
        "all, ridge": mean(features, ridge=RIDGE),
        "ridge": mean(few, ridge=RIDGE),
        "relative ridge": mean(few, ridge=RIDGE, scale_free=True),
        "no ridge": mean(few),
    }


def measure_angles(
    name: str, turn: int, settings: dict[str, Any], repeats: int, limit: int | None, threads: int
) -> dict[str, Any]:
    """Fit ICA alone to turned normals; how far it brings fresh ones back. For a process of its own."""
    import numpy as np
    import torch

    from anomem.data.disturbance import Disturbance, Drawn
    from anomem.data.imageset import ImageSet
    from anomem.data.sources import ArraySource
    from anomem.types import NORMAL

    torch.set_num_threads(threads)
    data, seed = opened(name, limit), settings["seed"]
    train = data.train.disturbed(Disturbance(rotation=turn), seed, "turned")
    detector, seconds = fitted(train.source, settings)
    fresh = data.test.source.subset(data.test.positions(NORMAL))
    angles = np.random.default_rng(seed).uniform(-turn, turn, (len(fresh), repeats))
    turned = [
        Drawn(angle=float(angle)).image(image)
        for image, own in zip((fresh.load(i) for i in range(len(fresh))), angles, strict=True)
        for angle in own
    ]
    images = ImageSet(ArraySource(turned), detector.preprocessing_)
    with torch.inference_mode():
        aligner = detector.scorer_.backbone.image_aligner
        found = torch.cat([aligner.angle(batch.images) for batch in images.batches(16)])
    left = torch.rad2deg(found).double().numpy().reshape(angles.shape) + angles
    return {
        "seconds": seconds,
        **{
            f"{who} {period}": errors(v, period)
            for period in (360, 180)
            for who, v in (("ICA", left), ("none", angles))
        },
        **{f"{who} each": errors(v, 360, each=True) for who, v in (("ICA", left), ("none", angles))},
    }


def errors(left: Any, period: float, *, each: bool = False) -> dict[str, float]:
    """Median and 90 % of what is left of rotations, (objects, turns) degrees.

    A common offset, the one that leaves the least sum of errors, is taken out. With `each` objects may be brought to
    different directions: errors are those of the angle between two turns of one object.
    """
    import numpy as np

    def apart(a: Any, b: Any) -> Any:
        return np.abs((a - b + period / 2) % period - period / 2)

    if each:
        first, second = np.triu_indices(left.shape[1], 1)
        found = apart(left[:, first], left[:, second])
    else:
        gaps = apart(left.reshape(-1, 1), left.reshape(1, -1))
        found = gaps[gaps.sum(axis=1).argmin()]
    return {"median": float(np.median(found)), "90 %": float(np.quantile(found, 0.9))}


def measure_speed(name: str, settings: dict[str, Any], limit: int | None, threads: int) -> dict[str, Any]:
    """Seconds of a fit from files; for a process of its own."""
    import torch

    torch.set_num_threads(threads)
    train = opened(name, limit).train
    return {"seconds": fitted(train.source, settings)[1], "images": len(train)}
