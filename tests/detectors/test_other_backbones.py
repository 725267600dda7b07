"""Methods on backbones of other families than the default's, with random weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import anomem
from anomem.detectors import DETECTORS, get
from anomem.detectors.anomem.presets import PRESETS
from anomem.detectors.anomem.scorer import empty_scorer
from anomem.detectors.fyd.aligned_backbone import AlignedBackbone
from anomem.detectors.fyd.alignment import warp
from anomem.nn.backbones import Backbone
from anomem.params import describe
from tests.exports import bricks, fitted, pictures

METHODS = [method for method in DETECTORS if "backbone" in {p["name"] for p in describe(get(method))}]
QUICK = ("anomem", "fyd", "padim", "simclr")
"""Methods that read maps, warp them, stack them, and train the backbone."""


def _cases() -> list[object]:
    slow = pytest.mark.slow
    tiny = [pytest.param("test_vit", method, marks=[] if method in QUICK else [slow]) for method in METHODS]
    real = ("resnet18", "swin_tiny", "dinov2_reg_small")
    return [*tiny, *(pytest.param(name, method, marks=[slow]) for name in real for method in METHODS)]


@pytest.mark.parametrize(("backbone", "method"), _cases())
def test_every_method_fits_scores_saves_and_loads(backbone: str, method: str, tmp_path: Path) -> None:
    detector = get(method)(**{**get(method).test_params, "backbone": backbone, "weights": None})
    images, labels = sorted((bricks() / "train").rglob("*.png")), None
    if detector.supervision == "required":
        defective = [path for path in pictures() if "good" not in path.parts]
        images, labels = [*images, *defective], [0] * len(images) + [1] * len(defective)
    detector.fit(images, labels, alpha=0.2, calibration="split", device="cpu")
    results = list(detector.score(pictures(), maps=detector.localizes))
    scores = np.array([result.score for result in results])
    assert np.isfinite(scores).all()
    assert len(np.unique(scores)) > len(scores) // 2
    detector.save(tmp_path / "model.anomem")
    again = [result.score for result in anomem.load(tmp_path / "model.anomem").score(pictures())]
    np.testing.assert_allclose(again, scores, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("suffix", [pytest.param(".onnx", marks=pytest.mark.ci_sample), ".xml"])
@pytest.mark.slow
def test_exported_scores_of_a_transformer_are_the_models(suffix: str, tmp_path: Path) -> None:
    compare_exported("padim", "test_vit", tmp_path / f"model{suffix}")


@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
@pytest.mark.parametrize("backbone", ["resnet18", "convnext_tiny", "swin_tiny", "dinov2_reg_small", "dinov3_small"])
@pytest.mark.parametrize("method", ["anomem", "padim"])
@pytest.mark.slow
def test_exported_scores_are_the_models(method: str, backbone: str, suffix: str, tmp_path: Path) -> None:
    compare_exported(method, backbone, tmp_path / f"model{suffix}")


def compare_exported(method: str, backbone: str, file: Path) -> None:
    """The grid of positions is resampled before the export: runtimes do it each in their own way."""
    detector = fitted(method, backbone=backbone, weights=None)
    wanted = np.array([result.score for result in detector.score(pictures())])
    detector.export(file)
    found = np.array([result.score for result in anomem.load(file).score(pictures())])
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-3 * np.ptp(wanted))


@pytest.mark.parametrize(
    ("backbone", "preset", "layers"),
    [
        ("swin_tiny", "surface", ["layers.0", "layers.1", "layers.2", "layers.3"]),
        ("test_vit", "surface", ["blocks.1", "blocks.2", "blocks.4", "blocks.5"]),
        ("resnet18", "surface", ["layer1", "layer2", "layer3", "layer4"]),
        ("test_vit", "object", ["blocks.5"]),
    ],
)
def test_presets_take_the_stages_of_the_family(backbone: str, preset: str, layers: list[str]) -> None:
    p = get("anomem")(preset=preset, backbone=backbone, weights=None, size=64).resolve()
    scorer = empty_scorer(p)
    assert scorer.backbone.layers == layers
    assert len(scorer.memories()) == len(PRESETS[preset]["stages"]) + PRESETS[preset]["embedding"]


def test_aligners_beside_a_transformer_warp_as_within_one() -> None:
    backbone = Backbone("test_vit", ("blocks.1", "blocks.2", "blocks.3")).eval()
    options = {"hidden": 8, "centred": False}
    model = AlignedBackbone(backbone, 64, image=None, feature=options, common_frame=False).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("localiser.last.bias"):
            parameter.data.copy_(0.1 * torch.randn(len(parameter), generator=torch.Generator().manual_seed(0)))
    images = torch.randint(0, 256, (2, 3, 64, 64), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    with torch.inference_mode():
        plain, found = backbone(images), model(images)
        first, second = found.thetas[1], found.thetas[2]
        torch.testing.assert_close(found.maps[0], warp(plain[0], first))
        torch.testing.assert_close(found.maps[1], warp(warp(plain[1], first), second))
    assert float((first - torch.eye(2, 3)).abs().max()) > 0.02
