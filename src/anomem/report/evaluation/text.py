"""The report's sentences: what the figures of an evaluation say, in words."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from anomem.evaluation.confounds import looks_confounded, luck_limit
from anomem.evaluation.figures import Evaluation

_CHANCE_DOUBT, _CHANCE_BROKEN = 0.05, 0.001


@dataclass(frozen=True)
class Card:
    """One headline figure: a fraction, its name and what to know about it."""

    name: str
    value: float
    note: str
    interval: tuple[float, float] | None = None
    lower_is_better: bool = False


@dataclass(frozen=True)
class Verdict:
    """A judgement: `tone` is "good", "doubt" or "bad"."""

    tone: str
    short: str
    text: str


def percent(fraction: float, digits: int = 1) -> str:
    r"""Show a fraction in percent, never rounding what is not all, or not none, to all or none.

    Examples
    --------
    >>> percent(0.9312), percent(0.99996), percent(1.0), percent(0.0002)
    ('93.1\xa0%', '>\xa099.9\xa0%', '100\xa0%', '<\xa00.1\xa0%')
    """
    if fraction in (0.0, 1.0):
        return f"{100 * fraction:.0f}\xa0%"
    shown = f"{100 * fraction:.{digits}f}"
    step = 10.0**-digits
    if float(shown) >= 100.0:
        return f">\xa0{100 - step:.{digits}f}\xa0%"
    if float(shown) <= 0.0:
        return f"<\xa0{step:.{digits}f}\xa0%"
    return f"{shown}\xa0%"


def rate(fraction: float) -> str:
    r"""Show a chosen rate in percent, without digits that were not chosen.

    Examples
    --------
    >>> rate(0.05), rate(0.0025), rate(1 / 31)
    ('5\xa0%', '0.25\xa0%', '3.23\xa0%')
    """
    return f"{100 * fraction:.3g}\xa0%"


def number(value: float) -> str:
    """Show a raw score with four significant digits."""
    return f"{value:.4g}"


def headline(evaluation: Evaluation) -> list[Card]:
    """Give the figures at the top of the page."""
    image, pixel = evaluation.image, evaluation.pixel
    cards = [
        Card("Image AUROC", image.auroc, "95\xa0% bootstrap interval", image.auroc_ci),
        Card("Average precision", image.ap, "by chance: the share of anomalous images", image.ap_ci),
        Card("F1 max", image.f1_max, "an oracle: threshold chosen on these labels", image.f1_max_ci),
        Card(
            "FPR at 95\xa0% TPR",
            image.fpr95,
            "lower is better: false alarms when 95\xa0% are found",
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


def promise(evaluation: Evaluation) -> Verdict:
    """Judge whether the false alarms on this set fit the promised rate."""
    made, decided = evaluation.promise, evaluation.at_alpha
    if not decided.n_false:
        return Verdict("good", "in keeping with the promise", "No false alarms: nothing speaks against it.")
    event = f"{decided.n_false:,} or more false alarms in {evaluation.n_normal:,}"
    likely = percent(made.chance, 1 if made.chance >= _CHANCE_DOUBT else 2)
    if made.chance >= _CHANCE_DOUBT:
        return Verdict(
            "good",
            "in keeping with the promise",
            f"If these normals are like those of the calibration, {event} have a probability of {likely}.",
        )
    rare = f"If these normals were like those of the calibration, {event} would have a probability of only {likely}. "
    if made.chance >= _CHANCE_BROKEN:
        return Verdict(
            "doubt",
            "more false alarms than expected",
            rare + "Bad luck, or these normals differ: look at the highest-scoring ones below.",
        )
    return Verdict(
        "bad",
        "these normals differ",
        rare + "They differ from the calibration's (lighting, camera, lot, or defects labelled "
        "normal); calibrate on normals like these before relying on the rate.",
    )


def confound(evaluation: Evaluation) -> tuple[list[tuple[str, float]], Verdict]:
    """Give AUROC by trivial features beside the detector's, and what that says."""
    trivial = evaluation.trivial
    lines = [
        ("This detector", evaluation.image.auroc),
        ("Mean grey level alone", trivial.mean_grey),
        ("Standard deviation of grey alone", trivial.std_grey),
        ("Image size alone", trivial.image_size),
        ("File size alone", trivial.file_size),
    ]
    name, best = max(lines[1:], key=lambda line: line[1])
    feature = name.removesuffix(" alone").lower()
    luck = luck_limit(evaluation.n_normal, evaluation.n_anomalous)
    if looks_confounded(best, evaluation.image.auroc, evaluation.n_normal, evaluation.n_anomalous):
        return lines, Verdict(
            "doubt",
            "possibly confounded",
            f"The {feature} alone reaches {percent(best)}. Normal and anomalous images of this set "
            "may differ in more than their defects, so that image-level figures say less than they "
            "seem to.",
        )
    return lines, Verdict(
        "good",
        "no shortcut found",
        f"The best of them, the {feature}, reaches {percent(best)}. Each counts in its better "
        f"direction; on a set of this size the best of four reaches up to {percent(luck)} by luck.",
    )


def set_lines(evaluation: Evaluation) -> list[str]:
    """Say which images were judged, and which were not."""
    lines = []
    if evaluation.n_left_out:
        lines.append(
            f"{_images(evaluation.n_left_out)} left out: the model learnt from, was tuned, calibrated "
            "or labelled with the same content."
        )
    else:
        lines.append("None of these images had a part in making the model.")
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
    """Return what cuts the folder that all paths share off a path, and makes it printable."""
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
