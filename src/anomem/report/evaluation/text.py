"""Sentences of an evaluation page: its figures in words."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import PurePath

from anomem.evaluation.confounds import check_confound
from anomem.evaluation.figures import Evaluation, NormalsEvaluation
from anomem.runtime import text as runtime_text

_CHANCE_DOUBT, _CHANCE_BROKEN = 0.05, 0.001

_FEATURES = {
    "mean_grey": "Mean grey level",
    "std_grey": "Standard deviation of grey",
    "image_size": "Image size",
    "file_size": "File size",
}


@dataclass(frozen=True)
class Card:
    """Headline figure: a fraction, its name and a note."""

    name: str
    value: float
    note: str
    interval: tuple[float, float] | None = None
    lower_is_better: bool = False


@dataclass(frozen=True)
class Verdict:
    """Verdict with a tone: "good", "doubt" or "bad"."""

    tone: str
    short: str
    text: str


NO_BREAK = "\xa0"
percent = partial(runtime_text.percent, space=NO_BREAK)
rate = partial(runtime_text.rate, space=NO_BREAK)


def headline(evaluation: Evaluation) -> list[Card]:
    """Return the figures at the top of the page."""
    image, pixel = evaluation.image, evaluation.pixel
    cards = [
        Card("Image AUROC", image.auroc, "95\xa0% bootstrap interval", image.auroc_ci),
        Card("Average precision", image.ap, "chance level: the share of anomalous images", image.ap_ci),
        Card("F1 max", image.f1_max, "oracle: threshold chosen on these labels", image.f1_max_ci),
        Card(
            "FPR at 95\xa0% TPR",
            image.fpr95,
            "lower is better: false-alarm rate at 95\xa0% detection",
            image.fpr95_ci,
            lower_is_better=True,
        ),
    ]
    if pixel is not None:
        beside = f"{pixel.n_images:,} images, {pixel.n_regions:,} defect regions"
        cards.append(Card("Pixel AUROC", pixel.auroc, beside, pixel.auroc_ci))
        note = "per-region overlap, up to 30\xa0% false positives"
        cards.append(Card("AUPRO", pixel.aupro, note, pixel.aupro_ci))
    return cards


def promise(evaluation: Evaluation | NormalsEvaluation) -> Verdict:
    """Compare the false alarms on this set with the promised rate."""
    made, decided = evaluation.promise, evaluation.at_alpha
    if not decided.n_false:
        return Verdict("good", "consistent with the promised rate", "No false alarms.")
    event = f"{decided.n_false:,} or more false alarms in {evaluation.n_normal:,}"
    likely = percent(made.chance, 1 if made.chance >= _CHANCE_DOUBT else 2)
    if made.chance >= _CHANCE_DOUBT:
        return Verdict(
            "good",
            "consistent with the promised rate",
            f"If these normals are like those of the calibration, {event} have a probability of {likely}.",
        )
    rare = f"If these normals were like those of the calibration, {event} would have a probability of only {likely}. "
    if made.chance >= _CHANCE_BROKEN:
        return Verdict(
            "doubt",
            "more false alarms than expected",
            rare + "Chance, or these normals differ: check the highest-scoring ones below.",
        )
    return Verdict(
        "bad",
        "these normals differ",
        rare + "They differ from the calibration's (lighting, camera, lot, or defects labelled "
        "normal); calibrate on normals like these before relying on the rate.",
    )


def shift(evaluation: Evaluation | NormalsEvaluation) -> Verdict | None:
    """Compare the accepted normals with the calibration; None where there is nothing to compare."""
    found = evaluation.shift
    if found is None:
        return None
    beside = f"{found.n_accepted:,} accepted normals, {found.n_calibration:,} calibration scores, p {found.p_value:.3g}"
    if not found.shifted:
        return Verdict("good", "no shift found", f"{beside}.")
    higher = "higher" if found.higher else "lower"
    return Verdict(
        "doubt",
        "shifted",
        f"Accepted normals score {higher} than those of the calibration ({beside}): calibrate on fresh normals.",
    )


def together(evaluation: Evaluation) -> str | None:
    """Describe the verdicts about all images together; None unless requested."""
    found = evaluation.at_fdr
    if found is None:
        return None
    return (
        f"At fdr {rate(found.fdr)}: {_images(found.n_rejected)} rejected, {found.n_false:,} of them normal "
        f"({percent(found.false_discovery_share)}); {found.n_missed:,} anomalous missed. On average over batches of "
        "independent images at most this share of the rejected is normal."
    )


def confound(evaluation: Evaluation) -> tuple[list[tuple[str, float]], Verdict]:
    """Return AUROC of trivial features beside the detector's, and the verdict."""
    areas = asdict(evaluation.trivial)
    lines = [("This detector", evaluation.image.auroc)]
    lines += [(f"{_FEATURES[name]} alone", area) for name, area in areas.items() if area is not None]
    found = check_confound(areas, evaluation.image.auroc, evaluation.n_normal, evaluation.n_anomalous)
    if found.best is None:
        return lines, Verdict("doubt", "not measured", "No trivial feature is known for every image.")
    feature, best = _FEATURES[found.feature].lower(), found.best
    if found.confounded:
        return lines, Verdict(
            "doubt",
            "possibly confounded",
            f"The {feature} alone reaches {percent(best)}. Normal and anomalous images of this set "
            "may differ in more than their defects, so that image-level figures may overstate "
            "detection.",
        )
    return lines, Verdict(
        "good",
        "no shortcut found",
        f"The best of them, the {feature}, reaches {percent(best)}. Each counts in its better "
        f"direction; on a set of this size the best of four reaches up to {percent(found.luck)} by chance.",
    )


def set_lines(evaluation: Evaluation) -> list[str]:
    """Describe the images that were judged and left out."""
    lines = []
    if evaluation.n_left_out:
        lines.append(
            f"{_images(evaluation.n_left_out)} left out: the model was fitted, tuned, calibrated or "
            "labelled with the same content."
        )
    else:
        lines.append("The model was made without these images.")
    if evaluation.n_unlabelled:
        lines.append(f"{_images(evaluation.n_unlabelled)} without a label not judged.")
    if evaluation.pixel is not None and evaluation.pixel.n_without_mask:
        lines.append(
            f"{_images(evaluation.pixel.n_without_mask, 'anomalous image')} without a mask, or with an "
            "empty one, not part of the pixel figures."
        )
    if evaluation.skipped:
        lines.append(f"{_images(len(evaluation.skipped))} skipped as unreadable, listed at the end.")
    return lines


def shortener(paths: Sequence[str]) -> Callable[[str], str]:
    """Return a function that removes the common folder from a path and makes it printable."""
    parents = [str(PurePath(path).parent) for path in paths]
    try:
        shared = os.path.commonpath(parents) if parents else ""
    except ValueError:  # absolute and relative paths, or two drives
        shared = ""

    def short(path: str) -> str:
        inside = PurePath(path).is_relative_to(shared) if shared else False
        shown = str(PurePath(path).relative_to(shared)) if inside else path
        return shown.encode("utf-8", "backslashreplace").decode("utf-8")

    return short


def _images(count: int, noun: str = "image") -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
