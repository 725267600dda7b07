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
        A model file; a .onnx file; or the .xml of an OpenVINO IR, its .bin beside it.
    engine : {"auto", "onnxruntime", "openvino"}
        What computes an exported model.
    precision : {"auto", "fp32", "bf16", "int8"}
        In which it is to score. auto: in the one that its calibration was made in, since a p-value says nothing about
        a score of another one. Anything else is a demand, which is refused where the file cannot keep it.

    Raises
    ------
    ModelFileError
        When the file is missing, is a pickle, is damaged, or is of an unknown version or method; for what is not
        exported, where anomem-runtime alone is installed.
    MissingExtraError
        The engine is not installed.
    ParameterError
        An engine that does not read this file, or a precision that it is not calibrated in.
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
            f"{path}: precision={precision!r}: it is calibrated in {found}: leave the choice to auto, or export it in "
            f"{precision} with normals, which calibrates it as it scores"
        )


def _open(path: str | Path, engine: str) -> Model:
    from anomem.errors import ModelFileError, ParameterError
    from anomem.runtime.metadata import is_exported

    if is_exported(path):
        from anomem.runtime.session import Session

        return Session.open(path, engine=engine)
    if engine != "auto":
        raise ParameterError(f"engine={engine!r} is for exported models (.onnx, .xml); {path} runs in torch")
    try:
        from anomem.detectors import load as load_detector
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("anomem."):
            raise
        line = f"{path}: anomem-runtime scores exported models only: export it, or pip install anomem"
        raise ModelFileError(line) from error

    return load_detector(path)
