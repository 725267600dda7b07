"""Captions of protocols and settings, and formats of figures, in reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from anomem.data.official.entries import CATALOG
from anomem.report.benchmark.figures import METRICS
from anomem.report.benchmark.runs import Run, finite
from anomem.runtime.text import percent_digits

__all__ = [
    "METRIC_WORDS",
    "PROTOCOLS",
    "ProtocolWords",
    "change",
    "figure",
    "set_title",
    "setting_words",
    "shortened",
    "trial_words",
]


METRIC_WORDS = {name: metric for name, metric in METRICS.items() if metric.tabled}
"""Metrics that have tables."""


@dataclass(frozen=True)
class ProtocolWords:
    """Heading and introduction of a section."""

    title: str
    text: str


PROTOCOLS: dict[str, ProtocolWords] = {
    "few-labels": ProtocolWords(
        "Few labels",
        "k labelled defects join the normal images. Every k of a draw is judged on the same remaining images.",
    ),
    "localisation": ProtocolWords(
        "Defects without labels", "Detection and localisation by methods fitted to normal images alone."
    ),
    "one-vs-rest": ProtocolWords(
        "One class against the rest",
        "Each class in turn is normal, all others are not. γ is the share of labelled anomalies among training images.",
    ),
    "cross-type": ProtocolWords("Unseen defect types", "A column is a judged type; no labelled image is of this type."),
    "out-of-distribution": ProtocolWords(
        "Out of distribution", "Fitted to one whole set; a column is another set, whose images are anomalous."
    ),
    "disturbed": ProtocolWords(
        "Disturbed images", "Every training and test image is disturbed once, in pose or in colour."
    ),
    "linear-evaluation": ProtocolWords(
        "Linear evaluation", "Accuracy of a linear classifier on the frozen features of the encoder."
    ),
    "distance-variance": ProtocolWords(
        "Compactness of normals",
        "Variance of the distances of normal images to their centre at each position; smaller is more compact.",
    ),
    "promise": ProtocolWords(
        "Promised false-alarm rate",
        "Calibration and fresh normals of one pool are re-split repeatedly. The rate then holds by construction for "
        "any model; false alarms on the sets' test normals show the rate on separate images.",
    ),
}
"""Sections in a report's order; sweeps and other protocols follow."""

_HIDDEN = ("maps", "redraws", "most")


def figure(value: float, *, fraction: bool = True) -> str:
    """Format a figure: fractions in percent without the sign, never rounded to 0 or 100.

    Examples
    --------
    >>> figure(0.9312), figure(1.0), figure(0.99996), figure(0.0123456, fraction=False)
    ('93.1', '100', '>99.9', '0.0123')
    """
    if not fraction:
        return f"{value:.3g}"
    return percent_digits(value)


def change(value: float, *, fraction: bool = True) -> str:
    """Format a difference with its sign; of fractions in percentage points.

    Examples
    --------
    >>> change(0.0123), change(-0.00001), change(-0.25, fraction=False)
    ('+1.23', '0.00', '−0.25')
    """
    shown = f"{100 * value:+.2f}" if fraction else f"{value:+.3g}"
    return shown.lstrip("+-") if not float(shown) else shown.replace("-", "−")


def setting_words(protocol: str, facts: Mapping[str, Any]) -> str:
    """Describe a task's setting in words, without facts that never vary.

    Examples
    --------
    >>> setting_words("one-vs-rest", {"gamma": 0.05, "anomalies": "all", "labels": "refit"})
    'γ = 5 %, second stage refitted'
    >>> setting_words("few-labels", {"k": 3, "most": 30, "maps": False, "masks": True})
    'k = 3, with masks'
    """
    if protocol == "one-vs-rest" and finite(facts.get("gamma")) is not None:
        words = [f"γ = {100 * facts['gamma']:g} %"]
        words += ["labels of the next class alone"] if facts.get("anomalies") == "one" else []
        return ", ".join(
            words
            + {"refit": ["second stage refitted"], "anew": ["all stages refitted"]}.get(str(facts.get("labels")), [])
        )
    if protocol == "few-labels" and "k" in facts:
        words = [f"k = {facts['k']}"]
        return ", ".join(words + ["with masks"] * bool(facts.get("masks")) + ["maps judged"] * bool(facts.get("maps")))
    if protocol == "cross-type" and "k" in facts:
        of = {"others": "of all other types", "one": "of one type, judged on the others"}.get(
            str(facts.get("labelled")), ""
        )
        return f"k = {facts['k']} {of if facts['k'] else ''}".strip()
    if protocol == "disturbed" and "disturbed" in facts:
        return f"in {'pose' if facts['disturbed'] == 'spatial' else facts['disturbed']}"
    shown = [f"{name} {value}" for name, value in facts.items() if name not in _HIDDEN]
    return ", ".join(shown)


def set_title(family: str) -> str:
    """Return a set's name as its provider writes it, where the catalogue has it.

    Examples
    --------
    >>> set_title("mvtec_ad"), set_title("cifar100:coarse"), set_title("my parts")
    ('MVTec AD', 'CIFAR-100 (coarse)', 'my parts')
    """
    name, _, variant = family.partition(":")
    if name not in CATALOG:
        return family
    return CATALOG[name].title + (f" ({variant.replace('_', ' ')})" if variant else "")


def shortened(text: str, longest: int) -> str:
    """Shorten text to at most `longest` characters.

    Examples
    --------
    >>> shortened("a long name", 7), shortened("short", 7)
    ('a long…', 'short')
    """
    return text if len(text) <= longest else text[: longest - 1] + "…"


def trial_words(run: Run) -> str:
    """Describe the limits that make a line a trial; empty for a result."""
    limit, steps = run.trial
    words = [f"{limit} images of each kind" if limit is not None else "", f"{steps} steps" if steps is not None else ""]
    return " and ".join(filter(None, words))
