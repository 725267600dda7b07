"""All methods by name; a class is imported on first use."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anomem.errors import AnomemError, ModelFileError, ParameterError, suggestion

if TYPE_CHECKING:
    from anomem.detector import Detector
    from anomem.nn.scorer import Scorer

DETECTORS: dict[str, str] = {
    "anomem": "anomem.detectors.anomem.detector:AnoMem",
    "knn": "anomem.detectors.baselines.knn:KNN",
    "kmeans": "anomem.detectors.baselines.kmeans:KMeans",
    "ocsvm": "anomem.detectors.baselines.ocsvm:OCSVM",
    "iforest": "anomem.detectors.baselines.iforest:IForest",
    "supervised": "anomem.detectors.baselines.supervised:Supervised",
    "deepsad": "anomem.detectors.baselines.deepsad:DeepSAD",
    "padim": "anomem.detectors.baselines.padim:PaDiM",
    "plume": "anomem.detectors.plume.detector:Plume",
    "fyd": "anomem.detectors.fyd.detector:FYD",
    "pmb": "anomem.detectors.reconstruction.pmb:PMB",
    "memae": "anomem.detectors.reconstruction.memae:MemAE",
    "simclr": "anomem.detectors.baselines.simclr:SimCLR",
    "plad": "anomem.detectors.baselines.plad:PLAD",
}


def get(name: str) -> type[Detector]:
    """Return the detector class of this name.

    Raises
    ------
    ParameterError
        For an unknown name; the nearest known one is suggested.
    """
    if name not in DETECTORS:
        raise ParameterError(f"there is no method {name!r}; {suggestion(name, DETECTORS)}")
    module, _, attribute = DETECTORS[name].partition(":")
    found: type[Detector] = getattr(import_module(module), attribute)
    return found


def load(path: str | Path) -> Detector:
    """Load a fitted detector from the one file that ``save`` wrote.

    Raises
    ------
    ModelFileError
        If the file is missing, is a pickle, is damaged, or is of an unknown version or method.
    """
    from anomem.runtime.metadata import is_exported

    if is_exported(path) and Path(path).is_file():
        raise ModelFileError(f"{path}: an exported model cannot be loaded as a detector; give its source model")
    from anomem.framing import read_preprocessing
    from anomem.modelfile import check_architecture, check_resolved, load_model

    def builder(method: str):  # type: ignore[no-untyped-def]
        if method not in DETECTORS:
            raise ModelFileError(f"{path}: method {method!r} is unknown to this version; update anomem")
        kind = get(method)

        def build(config: dict[str, Any]) -> Scorer:
            check_architecture(kind, config)
            return kind._build(config)

        return build

    method, params, state = load_model(path, builder)
    kind = get(method)
    try:
        check_resolved(kind, state.resolved)
        detector = kind.from_state(kind.from_dict(params).get_params(), state)
        if detector.bits == "auto":  # observed in the fit
            described = read_preprocessing(detector.replaced(bits=state.preprocessing.bits).resolve(strict=False))
        else:
            described = read_preprocessing(detector.resolve(strict=False))
        described = replace(described, input_hw=state.preprocessing.input_hw)  # likewise
    except AnomemError as error:
        raise ModelFileError(f"{path}: {error}") from error
    if described != state.preprocessing:
        raise ModelFileError(f"{path}: damaged, preprocessing and parameters disagree; save the model again")
    return detector
