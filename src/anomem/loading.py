"""Loading of every kind of model file."""

from __future__ import annotations

from pathlib import Path

from anomem.runtime.model import Model

__all__ = ["Model", "load"]


def load(path: str | Path, *, engine: str = "auto", precision: str = "auto") -> Model:
    """Load a model: what ``save`` wrote as a Detector, what ``export`` wrote as a Session.

    Parameters
    ----------
    path : str or Path
        Path of a model file; of a .onnx file; or of the .xml of an OpenVINO IR, its .bin beside it.
    engine : {"auto", "onnxruntime", "openvino"}
        Runtime that computes an exported model.
    precision : {"auto", "fp32", "bf16", "int8"}
        Arithmetic used for scoring. auto: the arithmetic of its calibration, since a p-value is invalid for
        scores of another one. Any other value is refused where the file does not support it.

    Raises
    ------
    ModelFileError
        If the file is missing, a pickle, damaged, or of an unknown version or method; for a file that is not
        exported, where anomem-runtime alone is installed.
    MissingExtraError
        If the engine is not installed.
    ParameterError
        For an engine that does not read this file, or a precision that it is not calibrated in.
    """
    model = _open(path, engine)
    if precision != "auto":
        _check_precision(model, path, precision)
    return model


def _check_precision(model: Model, path: str | Path, precision: str) -> None:
    from anomem.errors import ParameterError
    from anomem.runtime.precision import PRECISIONS

    if precision not in PRECISIONS:
        raise ParameterError(f"precision={precision!r} is not allowed; expected auto, {', '.join(PRECISIONS)}")
    found = model.calibration_.precision
    if found != PRECISIONS[precision]:
        raise ParameterError(
            f"{path}: precision={precision!r}, but calibrated in {found}; leave the choice to auto, or export it in "
            f"{precision} with normals to calibrate it"
        )


def _open(path: str | Path, engine: str) -> Model:
    from anomem.errors import ModelFileError, ParameterError
    from anomem.runtime.metadata import is_exported

    if is_exported(path):
        from anomem.runtime.session import Session

        return Session.open(path, engine=engine)
    if engine != "auto":
        raise ParameterError(f"{path}: runs in torch; engine={engine!r} is for exported models (.onnx, .xml)")
    try:
        from anomem.detectors import load as load_detector
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("anomem."):
            raise
        line = f"{path}: anomem-runtime scores exported models only; export it, or pip install anomem"
        raise ModelFileError(line) from error

    return load_detector(path)
