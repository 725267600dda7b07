"""Export of a fitted model: graph, check, calibration, and cost of a lower precision."""

from __future__ import annotations

import warnings
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from anomem.data.imageset import ImageSet
from anomem.data.samples import Dataset
from anomem.data.sources import ImageSource, PathSource, open_source, read_dataset
from anomem.data.synthetic import DEFECTS, plant
from anomem.errors import AnomemWarning, ExportError, ImageError, InputError, ParameterError
from anomem.export.graph import Graph, write_onnx
from anomem.export.ir import QUANTISE_IMAGES, check_openvino, write_ir
from anomem.export.parity import BATCH, Difference, compare, example_files, native_results, on_cpu, require_parity
from anomem.fitting import Fitted
from anomem.metrics import auroc
from anomem.modelfile import manifest_of
from anomem.nn.fold_scorer import FoldScorer
from anomem.runtime.atomic import atomic_files, scratch
from anomem.runtime.exported import ExportedFacts, write_facts
from anomem.runtime.images import write_png
from anomem.runtime.manifest import Manifest
from anomem.runtime.metadata import weights_of
from anomem.runtime.precision import PRECISIONS
from anomem.runtime.session import Session
from anomem.types import ANOMALOUS, NORMAL, ImagesLike, Record, UInt8Image

FORMATS = {"onnx": ".onnx", "openvino": ".xml"}
MAX_DROP = 0.01
"""Default limit on the AUROC lost by a lower precision: one point."""

PLANTED = 48
"""Maximum number of images with planted defects, to measure the cost of a precision."""

CHECKED = 64
"""Maximum number of the caller's images on which scores are compared."""


@dataclass(frozen=True)
class Exported:
    """Files of an export, and the findings of its check.

    Parameters
    ----------
    file : Path
        Path of the .onnx file, or of the .xml of an IR, whose .bin is beside it.
    format : {"onnx", "openvino"}
    precision : {"fp32", "bf16", "int8"}
    max_abs_diff : float
        Largest difference of two scores, file against model, on the same image files; of an int8 file against the
        model's own scores.
    auroc_drop : float or None
        AUROC of the model minus AUROC of the file, from -1 to 1; None where it was not measured.
    auroc_drop_on : str or None
        Source of the drop: the evaluation data, or "planted defects".
    calibrated : bool
        True where the file's calibration scores were computed in its own precision.
    n_calibration : int
        Number of calibration scores in the file.
    """

    file: Path
    format: str
    precision: str
    max_abs_diff: float
    auroc_drop: float | None
    auroc_drop_on: str | None
    calibrated: bool
    n_calibration: int


@dataclass(frozen=True)
class Wish:
    """Arguments of an export, validated.

    Parameters
    ----------
    path : Path
    format : {"onnx", "openvino"}
    precision : {"fp32", "bf16", "int8"}
    normals, check, eval_data
        As for :func:`export_steps`.
    max_drop : float
    max_pixels : int or None
    skip_bad : bool
    """

    path: Path
    format: str
    precision: str
    normals: ImageSource | None
    check: ImageSource | None
    eval_data: Dataset | None
    max_drop: float
    max_pixels: int | None = None
    skip_bad: bool = False

    @property
    def arithmetic(self) -> str:
        """Arithmetic of the exported file: "float32", "bfloat16" or "int8"."""
        return PRECISIONS[self.precision]


def make_wish(
    method: str,
    path: str | Path,
    *,
    format: str | None = None,
    precision: str = "fp32",
    normals: ImagesLike = None,
    check: ImagesLike = None,
    eval_data: ImagesLike = None,
    max_drop: float | None = None,
    max_pixels: int | None = None,
    skip_bad: bool = False,
) -> Wish:
    """Validate the arguments of an export, and refuse impossible ones before any work is done.

    Raises
    ------
    ParameterError
        For an unknown format, precision or limit, or one that the method does not support.
    InputError
        For an unknown suffix, or unreadable images.
    MissingExtraError
        If a package is missing.
    """
    place = Path(path)
    suffix = place.suffix.lower()
    if format is None:
        format = next((name for name, own in FORMATS.items() if own == suffix), None)
    if format not in FORMATS and format is not None:
        raise ParameterError(f"format={format!r} is not allowed; expected {' or '.join(FORMATS)}")
    if format is None or FORMATS[format] != suffix:
        raise InputError(f"{place}: not the suffix of an exported file; expected .onnx (ONNX) or .xml (OpenVINO)")
    if precision not in PRECISIONS:
        raise ParameterError(f"precision={precision!r} is not allowed; expected {', '.join(PRECISIONS)}")
    if format == "onnx" and precision != "fp32":
        raise ParameterError(f"precision={precision!r}: ONNX files are fp32; for {precision} name a .xml file")
    if max_drop is not None and not 0 <= max_drop <= 1:
        raise ParameterError(f"max_drop={max_drop!r} is not allowed; expected a share of AUROC from 0 to 1")
    if precision == "int8" and normals is None:
        raise ParameterError("int8: no normals to fit it to; give some by normals (--normals)")
    if format == "openvino":
        check_openvino(method, precision)
    files = None if check is None else open_source(check, max_pixels=max_pixels)
    if not isinstance(files, PathSource | None):
        raise InputError("check: not image files, which the comparison decodes; give paths")
    data = read_dataset(eval_data) if isinstance(eval_data, (str, Path)) else eval_data
    if not isinstance(data, Dataset | None):
        raise InputError("eval_data: no data set; give a folder, a table or a Dataset")
    source = None if normals is None else open_source(normals, max_pixels=max_pixels)
    checked = None if files is None else _readable(files.subset(range(min(CHECKED, len(files)))), skip_bad)
    limit = MAX_DROP if max_drop is None else max_drop
    return Wish(place, format, precision, _readable(source, skip_bad), checked, data, limit, max_pixels, skip_bad)


def _readable(source: ImageSource | None, skip_bad: bool) -> ImageSource | None:
    """Leave out unreadable images, with a warning each, if asked to."""
    if source is None or not skip_bad:
        return source
    kept = []
    for i in range(len(source)):
        try:
            source.load(i)
        except ImageError as error:
            warnings.warn(f"left out {error}", AnomemWarning, stacklevel=3)
        else:
            kept.append(i)
    return source.subset(kept)


def export_steps(
    method: str, paper: str, params: Mapping[str, Any], state: Fitted, path: str | Path, **options: Any
) -> Generator[Record, None, Exported]:
    """Write a model for another runtime, whole and checked or not at all; yield its steps.

    Parameters
    ----------
    method, paper : str
        Name of the method, and its publication.
    params : mapping
        Hyperparameters as given.
    state : Fitted
        Fitted state; not changed.
    path : str or Path
        Path of the .onnx file, or of the .xml of an OpenVINO IR, whose weights are stored in a .bin beside it.
    format : {"onnx", "openvino"}, optional
        Format of the file; by default decided by the suffix.
    precision : {"fp32", "bf16", "int8"}
        Arithmetic of the file; ONNX: fp32.
    normals : images, optional
        Normals: int8 is fitted to those in the training data (to a third, where none is), and a file that
        scores in another precision than it was calibrated in is calibrated on those outside it.
    check : images, optional
        Files on which scores are compared; by default textures with and without planted defects.
    eval_data : folder, table or Dataset, optional
        Labelled images on which the cost in AUROC is measured; by default it is measured for int8 alone, on defects
        planted in `normals`.
    max_drop : float, optional
        Largest accepted cost, by default 0.01.
    max_pixels : int, optional
        Maximum number of pixels per image; by default `anomem.runtime.limits.MAX_PIXELS`.
    skip_bad : bool
        Leave out unreadable images, with a warning each.

    Raises
    ------
    ExportError
        If the file does not score as the model, or costs more AUROC than `max_drop`; nothing is written.
    ParameterError, InputError, MissingExtraError
        See :func:`make_wish`.
    """
    wish = make_wish(method, path, **options)
    if state.calibration.kind == "cross-exact" or isinstance(state.scorer, FoldScorer):
        raise ExportError("calibration='cross-exact': scores by all folds' memories; fit with calibration='cross'")
    state = on_cpu(state)
    weights = weights_of(wish.path)
    with atomic_files(*([] if weights is None else [weights]), wish.path) as parts:
        file = parts[-1]
        yield Record("graph", 0, 1)
        fitted_to, fresh = _roles(state, wish)
        with scratch("export") as folder:
            onnx = file if wish.format == "onnx" else folder / "network.onnx"
            graph = write_onnx(state.scorer, state.preprocessing.hw, onnx)
            yield Record("graph", 1, 1)
            if wish.format == "openvino":
                yield Record("convert", 0, 1)
                write_ir(onnx, file, graph, _tiles(state, wish, fitted_to) if wish.precision == "int8" else None)
                yield Record("convert", 1, 1)
        write_facts(file, _facts(manifest_of(method, params, state), paper, state, wish, graph))
        session = Session.open(file, engine={"onnx": "onnxruntime", "openvino": "openvino"}[wish.format])
        yield Record("check", 0, 1)
        difference = _checked(state, session, wish)
        yield Record("check", 1, 1)
        calibrated = _calibrate(state, session, wish, fresh)
        drop, on = yield from _cost(state, session, wish, fresh or fitted_to)
        session.save()
    n_calibration = session.calibration_.n
    return Exported(wish.path, wish.format, wish.precision, difference.score, drop, on, calibrated, n_calibration)


def _facts(manifest: Manifest, paper: str, state: Fitted, wish: Wish, graph: Graph) -> ExportedFacts:
    """Return the facts of an exported file, without those that name files of this machine."""
    how = {"format": wish.format, "opset": graph.opset, "outputs": list(graph.outputs), "paper": paper}
    # Without paths of another machine.
    kept = {key: fact for key, fact in manifest.facts.items() if key not in ("labels", "groups", "suspects")}
    if state.grouping:
        kept["groups"] = {key: fact for key, fact in state.grouping.items() if key != "examples"}
    manifest = replace(manifest, precision=wish.arithmetic, facts={**kept, "export": how})
    return ExportedFacts(manifest, state.preprocessing, state.calibration, state.digests)


def _checked(state: Fitted, session: Session, wish: Wish) -> Difference:
    with scratch("export") as folder:
        files = wish.check or open_source(example_files(folder, state.preprocessing))
        like = "float32" if wish.precision == "int8" else wish.arithmetic
        difference = compare(state, session, files, like)
    if not np.isfinite(difference.score):
        raise ExportError(f"{wish.path}: the exported file gives scores that are not finite; nothing was written")
    if wish.precision != "int8":  # Its difference is the cost of its precision, which is measured in AUROC.
        require_parity(difference, like)
    return difference


def _roles(state: Fitted, wish: Wish) -> tuple[list[int], list[int]]:
    """Split the given normals into those that fit int8 and those that calibrate, without overlap."""
    if wish.normals is None:
        return [], []
    seen, fresh = state.digests["learn"] | state.digests["tune"], dict[int, int]()
    known = []
    for i in range(len(wish.normals)):
        digest = wish.normals.digest(i)
        if digest in seen:
            known.append(i)
        elif digest not in state.digests["labelled"]:
            fresh.setdefault(digest, i)
    others = sorted(fresh.values())
    if wish.precision == "int8" and not known:
        known = others[::3]
        others = [i for i in others if i not in known]
    return known, others


def _tiles(state: Fitted, wish: Wish, indices: Sequence[int]) -> list[UInt8Image]:
    """Return tiles of normals, evenly drawn from the images, and from each image's tiles where there are many."""
    if wish.normals is None or not indices:
        raise InputError("int8: none of the normals can be used to fit it; give the images of the fit")
    chosen = [indices[k] for k in np.unique(np.linspace(0, len(indices) - 1, QUANTISE_IMAGES).astype(int))]
    each = max(1, QUANTISE_IMAGES // len(chosen))
    tiles: list[UInt8Image] = []
    for images in ImageSet(wish.normals, state.preprocessing, chosen).prepared(BATCH):
        for image in images:
            step = max(1, len(image.tiles) // each)
            tiles += list(image.tiles[::step][:each])
    return tiles


def _calibrate(state: Fitted, session: Session, wish: Wish, fresh: Sequence[int]) -> bool:
    """Compute the calibration scores by the exported file; report where that is impossible."""
    if wish.arithmetic == state.calibration.precision:
        return True
    if wish.normals is None or not fresh:
        warnings.warn(
            f"{wish.path}: scores in {wish.arithmetic}, calibrated in {state.calibration.precision}; "
            f"give normals outside the training data (--normals) to calibrate it in {wish.arithmetic}",
            AnomemWarning,
            stacklevel=3,
        )
        return False
    session.calibrate(wish.normals.subset(fresh))
    return True


def _cost(
    state: Fitted, session: Session, wish: Wish, candidates: Sequence[int]
) -> Generator[Record, None, tuple[float | None, str | None]]:
    """Return the cost of the export in AUROC, and the images it was measured on."""
    if wish.eval_data is None and wish.precision != "int8":
        return None, None
    with scratch("export") as folder:
        if wish.eval_data is not None:
            files, labels = _evaluation(state, wish, wish.eval_data)
            on = str(wish.eval_data.root)
        else:
            files, labels = _planted(wish, candidates, folder)
            on = "planted defects"
        yield Record("evaluate", 0, 2)
        precision = state.calibration.precision
        native = [r.score for r in native_results(state, files, precision=precision, maps=False)]
        yield Record("evaluate", 1, 2)
        found = [r.score for r in session.raw_results(files, batch_size=BATCH)]
        yield Record("evaluate", 2, 2)
    drop = auroc(native, labels) - auroc(found, labels)
    if drop > wish.max_drop:
        raise ExportError(
            f"{wish.precision}: costs {100 * drop:.2f} points of AUROC on {on}, more than max_drop = "
            f"{100 * wish.max_drop:.2f}; nothing was written"
        )
    return drop, on


def _evaluation(state: Fitted, wish: Wish, data: Dataset) -> tuple[ImageSource, list[int]]:
    """Return labelled images outside the model's training data."""
    label_of = {str(s.path): s.label for s in data.for_evaluation() if s.label in (NORMAL, ANOMALOUS)}
    source = _readable(open_source(list(map(Path, label_of)), max_pixels=wish.max_pixels), wish.skip_bad)
    used = frozenset().union(*state.digests.values())
    source = source and source.subset(i for i in range(len(source)) if source.digest(i) not in used)
    labels = [] if source is None else [int(label_of[source.name(i)]) for i in range(len(source))]
    if source is None or len(set(labels)) < 2:
        raise InputError(f"{data.root}: too few unused images; give normal and anomalous ones outside the fit")
    return source, labels


def _planted(wish: Wish, candidates: Sequence[int], folder: Path) -> tuple[ImageSource, list[int]]:
    """Write normals unchanged, and with a defect planted in each."""
    if wish.normals is None or not candidates:
        raise InputError("planted defects: no normals to plant them in; give normals (--normals)")
    rng, files, labels = np.random.default_rng(0), [], []
    for k in np.unique(np.linspace(0, len(candidates) - 1, PLANTED).astype(int)):
        image = wish.normals.load(candidates[k])
        planted, _ = plant(image, DEFECTS[k % len(DEFECTS)], rng)
        for label, shown in enumerate((image, planted)):
            files.append(folder / f"{k}_{label}.png")
            write_png(files[-1], shown)
            labels.append(label)
    return open_source(files), labels
