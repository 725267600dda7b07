"""Cases of the comparison of revisions: methods, parameters, image sets, commands, journal."""

from __future__ import annotations

import fnmatch
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.golden.cases import Images, textures

TEXTURES, TILES, BRUSHES = "textures", "magnetic_tile", "toothbrush"
REAL = {TILES: "magnetic_tile/magnetic_tile", BRUSHES: "mvtec_ad_toothbrush/toothbrush"}
"""Image set -> its folder under ``$ANOMEM_DATA``, in MVTec layout."""

DEFAULTS = ("anomem", "padim", "knn")
EXPORTED = {"anomem": ("onnx", "xml"), "padim": ("onnx", "xml"), "pmb": ("onnx",)}
"""Method -> export formats."""

ENGINES = {"onnx": "onnxruntime", "xml": "openvino"}
"""Format -> package that it requires."""

ROI = (4, 44, 8, 40)
"""Rows and columns of the region of interest, of 48 x 48 pixels."""

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "anomem-object": ("anomem", {"preset": "object"}),
    "anomem-tiles": ("anomem", {"tile": 32}),
    "anomem-letterbox": ("anomem", {"letterbox": True}),
    "anomem-roi": ("anomem", {"roi": ROI}),
    "anomem-bfloat16": ("anomem", {"precision": "bfloat16"}),
    "anomem-kmeans": ("anomem", {"memory": "kmeans"}),
    "anomem-soft": ("anomem", {"beta": 8.0, "retrieval_steps": 3, "normalise": "unit", "reduction": "l2"}),
    "anomem-dot": ("anomem", {"association": "dot", "beta": 4.0, "seeding": "random", "reduction": "max"}),
    "anomem-trained": ("anomem", {"train_steps": 3, "train_backbone": "last", "train_batch": 8}),
    "anomem-barlow": ("anomem", {"train_steps": 3, "contrast": "barlow", "train_batch": 8, "projection_dim": 16}),
    "anomem-distance": ("anomem", {"label_head": "distance"}),
    "anomem-scratch": (
        "anomem",
        {
            "backbone": "resnet18",
            "weights": None,
            "width": 0.125,
            "stages": (3, 4),
            "neighbourhood": (1,),
            "max_grid": (4,),
            "scale_weights": (1.0,),
            "train_steps": 3,
            "train_backbone": "all",
            "train_batch": 8,
        },
    ),
    "knn-tiles": ("knn", {"tile": 32}),
    "padim-bfloat16": ("padim", {"precision": "bfloat16"}),
    "plume-gaussian": ("plume", {"perturbation": "gaussian"}),
    "plume-paper-constraint": ("plume", {"constraint": "paper", "normalise": "standard"}),
    "fyd-joint": ("fyd", {"joint": True, "angle": "number"}),
    "pmb-blocks": ("pmb", {"memory": "block"}),
    "deepsad-lenet": ("deepsad", {"encoder": "lenet"}),
    "supervised-mlp": ("supervised", {"head": "mlp"}),
    "simclr-mahalanobis": ("simclr", {"one_class": "mahalanobis"}),
}
"""Case -> method and hyperparameters of ded235d, added to the tiny ones; on textures."""

JOURNAL = ("localisation", "one-vs-rest", "few-labels", "promise")
"""Protocols of the benchmark journal, by their names at ded235d; --quick takes the first."""

JOURNAL_ARGUMENTS = [
    *("--methods", "knn,padim,anomem", "--data", "textures/brick", "--limit", "12"),
    *("--set", "knn.size=32", "--set", "padim.size=32", "--set", "anomem.size=32", "--seeds", "0"),
]


@dataclass(frozen=True)
class Case:
    """Fit that both revisions run and measure.

    Parameters
    ----------
    name : str
        ``METHOD-tiny``, ``METHOD-default`` or a variant's name.
    method : str
    data : str
        An image set.
    params : dict
        Hyperparameters of ded235d, changed.
    tiny : bool
        Start from the method's tiny parameters instead of its defaults.
    """

    name: str
    method: str
    data: str
    params: dict[str, Any] = field(default_factory=dict)
    tiny: bool = True

    @property
    def saved(self) -> bool:
        """True where the case writes a model file."""
        return self.tiny and self.data == TEXTURES and not self.params

    def __str__(self) -> str:
        return f"{self.name}/{self.data}"


def cases(methods: list[str], *, only: tuple[str, ...] = (), quick: bool = False) -> list[Case]:
    """Return the cases of these methods, filtered by patterns of names or methods (`only`)."""
    found = [Case(f"{method}-tiny", method, TEXTURES) for method in methods]
    if not quick:
        found += [Case(name, method, TEXTURES, params) for name, (method, params) in VARIANTS.items()]
        found += [Case(f"{m}-default", m, data, tiny=False) for m in DEFAULTS for data in (TEXTURES, *REAL)]
        found += [Case(f"{method}-tiny", method, data) for method in methods for data in REAL]
    return [case for case in found if chosen(case.method, only) or chosen(case.name, only)]


def chosen(name: str, only: tuple[str, ...]) -> bool:
    """Return True where no pattern is given, or one matches."""
    return not only or any(fnmatch.fnmatch(name, pattern) for pattern in only)


def images_of(data: str) -> Images:
    """Return the images of a set: the shipped textures, or a small part of a real one, always the same.

    Raises
    ------
    SystemExit
        ``$ANOMEM_DATA`` is not set, or the set is missing.
    """
    if data == TEXTURES:
        return textures()
    root = Path(os.environ.get("ANOMEM_DATA", "")) / REAL[data]
    if not os.environ.get("ANOMEM_DATA") or not root.is_dir():
        raise SystemExit(f"{data}: no such image set; unpack it under $ANOMEM_DATA, or use --quick")
    train, good = _files(root / "train" / "good"), _files(root / "test" / "good")
    defects = [path for kind in sorted((root / "test").iterdir()) if kind.name != "good" for path in _files(kind)]
    spread = defects[:: max(1, len(defects) // 25)][:25]
    return Images(train[:38], [*good[:20], *spread[5:]], spread[:5], train[38:48])


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.png")) + sorted(folder.glob("*.jpg"))
