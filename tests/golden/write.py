"""Write golden files (``scores``) or model files (``models``): ``python -m tests.golden.write PART``.

Golden scores are written again only where a change of scores is meant, with the reason in the commit. Model files stay
as revision ded235d wrote them: put its sources first on PYTHONPATH (``git archive ded235d src``) to add one.
"""

from __future__ import annotations

import lzma
import os
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from safetensors.torch import save_file

from tests.golden import names
from tests.golden.cases import FOLDER, Arrays, fit, measure, textures

MODELS = FOLDER / "models"
BACKBONE = {"backbone": "test_efficientnet", "weights": "sparse.safetensors", "size": 32}
DENSITY = 0.1
"""Share of a convolution's weights that is not zero: such a file shrinks to a few kilobytes."""

_FYD = {"n_channels": 6, "stages": (1,), "train_backbone": "none", "hidden": 2, "width": 4}

SHAPES: dict[str, dict[str, Any]] = {
    "anomem": {"stages": (2, 3), "neighbourhood": (3,), "scale_weights": (1.0,), "memory_size": (3,)},
    "kmeans": {"n_prototypes": 8},
    "padim": {"n_channels": 8, "stages": (2, 3)},
    "plume": {"hidden": (8,), "perturbator_width": 4, "output_dim": 16},
    "fyd": {**_FYD, "feature_alignment": False, "train_steps": 0},
    "fyd-features": {**_FYD, "image_alignment": "off"},
    "deepsad": {"hidden": (8,), "rep_dim": 4},
    "simclr": {"projection_dim": 4, "train_backbone": "none"},
    "plad": {"perturbator_width": 4, "channels": 2},
}
"""Model file -> hyperparameters of ded235d that keep it small; a method may have several, METHOD-PART."""


STEADY: dict[str, dict[str, Any]] = {
    "deepsad": {"pretrain_steps": 3, "train_steps": 3},
    "fyd": {"optimiser": "sgd"},
    "memae": {"train_steps": 3},
    "plad": {"steps": 3},
    "plume": {"steps": 20, "normalise": "scale"},
    "pmb": {"train_steps": 3},
}
"""Method -> hyperparameters of ded235d with which processors agree within 1e-4 of the range of scores.

Longer training, Adam's first steps on gradients near zero, and whitening of fewer images than directions amplify the
last digit: with the tiny parameters alone two instruction sets differ by 2 % (fyd) to 64 % (plume) of the range.
"""


def golden(method: str) -> Arrays:
    """Fit a method with tiny parameters and measure it, without and with labels."""
    images, params = textures(), STEADY.get(method)
    detector = fit(names.unfitted(method, params), images)
    found = measure(detector, images.test)
    if detector.supervision == "optional":
        found["labelled_scores"] = fit(names.unfitted(method, params), images, labels=True).anomaly_score(images.test)
    return found


def write_scores() -> None:
    """Write one golden file per method."""
    for method in names.methods():
        found = golden(method)
        found.pop("map_digests", None)  # bit for bit on one processor only
        np.savez_compressed(FOLDER / f"{method}.npz", **found)


def write_models() -> None:
    """Write one model file per method, a labelled and an exported one, with what each measures."""
    MODELS.mkdir(exist_ok=True)
    images = textures()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        save_file(sparse_weights(), BACKBONE["weights"])
        for name in sorted({*names.methods(), *SHAPES}):
            method = name.partition("-")[0]
            shape = {"size": 16, **(BACKBONE if names.has_parameter(method, "backbone") else {})}
            detector = fit(names.unfitted(method, {**shape, **SHAPES.get(name, {})}), images)
            _pack(detector, f"{name}.safetensors", images.test)
            if name == "padim":
                detector.export("padim.onnx")
                _keep("padim.onnx", measure(detector, images.test))
            if name == "anomem":
                names.label(detector, images.labelled, device="cpu")
                _pack(detector, "anomem-labelled.safetensors", images.test)


def _pack(detector: Any, name: str, images: Any) -> None:
    detector.save(name)
    _keep(name, measure(detector, images))


def _keep(name: str, measured: Arrays) -> None:
    (MODELS / f"{name}.xz").write_bytes(lzma.compress(Path(name).read_bytes(), preset=9))
    measured.pop("map_digests", None)
    np.savez_compressed(MODELS / f"{name}.npz", **measured)


def sparse_weights() -> dict[str, torch.Tensor]:
    """Return weights of a small backbone that compress well: a tenth of them plus or minus one power of two."""
    generator = torch.Generator().manual_seed(0)
    model = timm.create_model(str(BACKBONE["backbone"]), pretrained=False, num_classes=0)
    return {name: _sparse(name, value, generator) for name, value in model.state_dict().items()}


def _sparse(name: str, value: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    if value.ndim == 4:
        scale = 2.0 ** round(float(np.log2(2 / (value[0].numel() * DENSITY)) / 2))
        drawn = torch.rand(value.shape, generator=generator)
        return scale * ((drawn < DENSITY / 2).float() - (drawn > 1 - DENSITY / 2).float())
    if value.dtype.is_floating_point:
        return torch.full_like(value, float(name.endswith(("weight", "var"))))
    return value


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    {"scores": write_scores, "models": write_models}[sys.argv[1]]()
