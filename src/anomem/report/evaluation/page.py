"""Evaluation as one self-contained HTML file, without scripts, fonts or network access."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import numpy as np

from anomem.errors import InputError
from anomem.evaluation.figures import Evaluation, ImageRow
from anomem.params import BY_PRESET
from anomem.report.evaluation import text as words
from anomem.report.evaluation.gallery import colour_bar, data_uri, galleries, suspect_pictures, thumbnail
from anomem.report.evaluation.plots import roc_plot, score_histogram
from anomem.runtime.atomic import atomic_path
from anomem.runtime.groups import group_line
from anomem.runtime.neutral import plain_only
from anomem.runtime.text import number
from anomem.types import ANOMALOUS, NORMAL, UInt8Image

if TYPE_CHECKING:
    from jinja2 import Template

    from anomem.loading import Model
    from anomem.runtime.calibration import Calibration

DEFAULT_NAME = "report.html"
_PROTOTYPE_SIDE = 128
_SKIPPED_SHOWN = 200


def write_evaluation_page(
    evaluation: Evaluation,
    detector: Model,
    path: str | Path,
    *,
    title: str = "",
    facts: Mapping[str, str] | None = None,
    prototypes: Sequence[tuple[str, UInt8Image]] | None = None,
    n_pictures: int = 6,
    batch_size: int = 16,
    workers: int | None = None,
) -> Path:
    """Write an evaluation as one self-contained HTML file.

    Parameters
    ----------
    evaluation : Evaluation
        From `anomem.evaluation.evaluate.evaluate`.
    detector : Detector or Session
        The evaluated detector; shown pictures are scored again for their maps.
    path : str or Path
        A file ending in ``.html`` or ``.htm``, or a folder, which is created where missing and
        gets a file ``report.html``.
    title : str
        Title, such as the data set's name.
    facts : mapping of str to str, optional
        Further lines of the model's table, such as the names of its file and the data.
    prototypes : sequence of (caption, image), optional
        Pictures, (H, W, 3) uint8, of memory items; by default from
        ``detector.prototypes()``, where the detector has this method.
    n_pictures : int
        Maximum number of images per gallery.
    batch_size, workers
        For scoring the pictures.

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    InputError
        The path cannot be written, or is a file with another suffix.
    """
    target = _target(Path(path))
    html = evaluation_page(
        evaluation,
        detector,
        title=title,
        facts=facts,
        prototypes=prototypes,
        n_pictures=n_pictures,
        batch_size=batch_size,
        workers=workers,
    )
    with atomic_path(target) as part:
        # A file name that is not text (lone surrogates) must not prevent the report.
        part.write_text(html, encoding="utf-8", errors="backslashreplace")
    return target


def evaluation_page(
    evaluation: Evaluation,
    detector: Model,
    *,
    title: str = "",
    facts: Mapping[str, str] | None = None,
    prototypes: Sequence[tuple[str, UInt8Image]] | None = None,
    n_pictures: int = 6,
    batch_size: int = 16,
    workers: int | None = None,
) -> str:
    """Render the page that `write_evaluation_page` writes; parameters as there."""
    if prototypes is None:
        prototypes = detector.prototypes() if hasattr(detector, "prototypes") else ()
    scores = {
        label: [_shown_score(row, detector) for row in evaluation.results if row.label == label]
        for label in (NORMAL, ANOMALOUS)
    }
    decided = evaluation.at_alpha
    low, high = detector.map_scale_
    return _template().render(
        title=title,
        evaluation=evaluation,
        headline=words.headline(evaluation),
        promise=words.promise(evaluation),
        shift=words.shift(evaluation),
        together=words.together(evaluation),
        strata=detector.calibration_.parts,
        crossed=detector.calibration_.kind != "split",
        bound=detector.calibration_.bound,
        confound=words.confound(evaluation),
        set_lines=words.set_lines(evaluation),
        histogram=safe(score_histogram(scores[NORMAL], scores[ANOMALOUS], *_shown_threshold(evaluation))),
        roc=safe(roc_plot(evaluation.roc, (decided.false_alarm_rate, decided.detection_rate))),
        galleries=galleries(evaluation, detector, count=n_pictures, batch_size=batch_size, workers=workers),
        scale=(colour_bar(), low, high) if detector.localizes else None,
        prototypes=[
            (caption, data_uri(thumbnail(np.asarray(image), _PROTOTYPE_SIDE))) for caption, image in prototypes or ()
        ],
        suspects=suspect_pictures(detector, n_pictures),
        model=_model_lines(detector, facts or {}),
        parameters=_parameter_lines(detector),
        skipped=evaluation.skipped[:_SKIPPED_SHOWN],
        short=words.shortener([row.path for row in evaluation.results]),
        style=safe(read_resource("style.css")),
    )


def _shown_score(row: ImageRow, detector: Model) -> float:
    """Return a score; with strata its distance from the stratum's threshold."""
    return row.score if row.stratum is None else row.score - detector.calibration_.of(row.stratum).threshold


def _shown_threshold(evaluation: Evaluation) -> tuple[float, str]:
    threshold = evaluation.promise.threshold
    return (0.0, "anomaly score - threshold") if np.isnan(threshold) else (threshold, "anomaly score")


def _target(path: Path) -> Path:
    named = path.suffix.lower() in (".html", ".htm") and not path.is_dir()
    if not named and path.exists() and not path.is_dir():
        raise InputError(f"{path}: is a file; name a folder, or a file ending in .html")
    folder = path.parent if named else path
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: {error.strerror}; name a writable folder") from error
    return path if named else path / DEFAULT_NAME


def _model_lines(detector: Model, facts: Mapping[str, str]) -> list[tuple[str, str]]:
    counts = detector.counts_
    calibration = detector.calibration_
    return [
        *((name, str(value)) for name, value in facts.items()),
        ("Method", f"{detector.name} ({detector.paper})" if detector.paper else detector.name),
        ("Normals learnt from", f"{counts['n_train']:,}"),
        ("Normals tuned on", f"{counts['n_tune']:,}"),
        ("Normals calibrated on", f"{calibration.n:,}"),
        ("Calibration", _calibration_line(calibration)),
        ("Groups", group_line(detector.groups_, _file_name)),
        ("Labelled images", f"{counts['n_labelled']:,}"),
        ("Scored in", calibration.precision),
    ]


def _calibration_line(calibration: Calibration) -> str:
    bound = "no proven bound" if calibration.bound is None else f"mean rate at most {number(calibration.bound)}, proven"
    folds = f", {calibration.folds} folds" if calibration.folds else ""
    return f"{calibration.kind}{folds}: {bound}"


def _parameter_lines(detector: Model) -> list[tuple[str, str, bool]]:
    """Return name, value and preset flag of each parameter."""
    given, resolved = _flat(detector.get_params()), _flat(detector.resolved_)
    return [(name, _shown(value), value is not None and given.get(name) is None) for name, value in resolved.items()]


def _flat(values: Any) -> dict[str, Any]:
    """Return parameters by name, members of nested objects by dotted name."""
    found: dict[str, Any] = {}
    for name in values.keys():  # noqa: SIM118 - resolved parameters are no mapping
        if values[name] is BY_PRESET:
            continue
        if hasattr(values[name], "keys"):
            found |= {f"{name}.{member}": value for member, value in _flat(values[name]).items()}
        else:
            found[name] = values[name]
    return found


def _shown(value: Any) -> str:
    if value is None:
        return "off"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, np.ndarray):
        return "array of " + " × ".join(map(str, value.shape))
    if isinstance(value, (tuple, list)):
        return ", ".join(_shown(item) for item in value)
    return str(value) if isinstance(value, (str, int, PurePath)) else f"{value:g}"


def safe(markup: str) -> Any:
    """Mark our own text as markup; never use it on external text."""
    from markupsafe import Markup

    return Markup(markup)


def read_resource(name: str) -> str:
    """Read one of the report's templates or style sheets."""
    return (resources.files("anomem.report") / "templates" / name).read_text(encoding="utf-8")


@cache
def _template() -> Template:
    from jinja2 import Environment, StrictUndefined

    options: dict[str, Any] = {"undefined": StrictUndefined, "trim_blocks": True, "lstrip_blocks": True}
    environment = Environment(autoescape=True, finalize=plain_only, **options)
    environment.filters["percent"] = words.percent
    environment.filters["rate"] = words.rate
    environment.filters["number"] = number
    return environment.from_string(read_resource("evaluation.html.j2"))


def _file_name(path: str) -> str:
    return PurePath(path).name
