"""PLAD: its loss, training of both networks, a saved classifier alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from anomem.data.synthetic import crops
from anomem.detectors.baselines.plad import PLAD, PerturbedImages, PLADScorer
from anomem.detectors.plume.loss import classification_loss, kl_divergence, noise_constraint
from anomem.errors import InputError
from anomem.types import UInt8Image

TINY: dict[str, Any] = {"size": 16, "channels": 2, "perturbator_width": 8, "steps": 6}


@pytest.fixture(scope="module")
def images() -> UInt8Image:
    return crops("gravel", 30, size=32, half="train", rng=np.random.default_rng(0))


def model(**settings: Any) -> PerturbedImages:
    torch.manual_seed(0)
    p = PLAD(**{**TINY, **settings}).resolve()
    scorer = PLADScorer({"size": p.size, "channels": p.channels})
    return PerturbedImages(scorer, p, torch.Generator().manual_seed(1)).train()


def pixels(n: int = 8) -> Tensor:
    return torch.rand(n, 3 * 16 * 16, generator=torch.Generator().manual_seed(0))


def test_loss_is_eq_8_without_contrast() -> None:
    built, x = model(constraint_weight=3.0), pixels()
    loss, figures = built.loss(x)
    drawn = built.perturbator(x, torch.Generator().manual_seed(1))
    pseudo = torch.stack([a * v + b for v, a, b in zip(x, drawn.alpha, drawn.beta, strict=True)])
    logits = built.scorer.classifier(torch.cat([x, pseudo]).view(-1, 3, 16, 16))[:, 0]
    wanted = {
        "classification": classification_loss(logits[:8], logits[8:]),
        "constraint": noise_constraint(drawn.alpha, drawn.beta, (1.0, 0.0)),
        "divergence": kl_divergence(drawn.mu, drawn.log_variance).mean(),
    }
    for name, value in wanted.items():
        assert figures[name] == pytest.approx(float(value.detach()), rel=1e-4), name
    total = wanted["classification"] + 3 * wanted["constraint"] + wanted["divergence"]
    torch.testing.assert_close(loss, total, rtol=1e-4, atol=1e-5)
    sizes = (pseudo - x).norm(dim=1) / x.norm(dim=1)
    assert figures["relative_size"] == pytest.approx(float(sizes.mean().detach()), rel=1e-4)


def test_every_parameter_has_a_gradient() -> None:
    built = model()
    built.loss(pixels())[0].backward()
    for name, parameter in built.named_parameters():
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize(("size", "channels"), [(16, 2), (32, 4), (50, 3), (64, 2)])
def test_shapes(size: int, channels: int) -> None:
    scorer = PLADScorer({"size": size, "channels": channels}).eval()
    images = torch.zeros(5, 3, size, size, dtype=torch.uint8)
    output = scorer(images)
    assert output.score.shape == (5,)
    assert output.map is None
    linears = [layer for layer in scorer.classifier if isinstance(layer, nn.Linear)]
    assert [layer.in_features for layer in linears] == [8 * channels * (size // 16) ** 2, 128, 64]
    assert [layer.bias for layer in linears] == [None] * 3


def test_the_score_is_the_negative_logit(images: UInt8Image) -> None:
    detector = PLAD(**{**TINY, "size": 32}).fit(images, alpha=0.2, device="cpu")
    scorer = detector.scorer_
    assert isinstance(scorer, PLADScorer)
    with torch.no_grad():
        x = torch.from_numpy(images[:6]).permute(0, 3, 1, 2).float() / 255
        logits = scorer.classifier(x)[:, 0]
    np.testing.assert_allclose(detector.anomaly_score(images[:6]), -logits.numpy(), rtol=1e-4, atol=1e-5)
    assert {name.split(".")[0] for name in scorer.state_dict()} == {"classifier"}


def test_images_in_a_file_give_the_same_model(images: UInt8Image) -> None:
    scores = [PLAD(**TINY, cache_mb=mb).fit(images, alpha=0.2).anomaly_score(images) for mb in (512, 0)]
    assert np.array_equal(*scores)


def test_steps_are_capped_by_epochs(images: UInt8Image) -> None:
    detector = PLAD(**{**TINY, "steps": 1000, "epochs": 2, "train_batch": 8}).fit(images, alpha=0.2)
    n = detector.counts_["n_train"]
    assert [r.total for r in detector.history_ if r.stage == "train"][-1] == 2 * -(-n // 8)


def test_it_draws_no_maps(images: UInt8Image) -> None:
    with pytest.raises(InputError, match="plad scores whole images and draws no maps"):
        PLAD(**TINY).fit(images, alpha=0.2).anomaly_map(images[:1])


def test_pseudo_anomalies_are_told_from_normals(images: UInt8Image) -> None:
    detector = PLAD(**{**TINY, "steps": 60, "lr": 5e-3}).fit(images, alpha=0.2)
    facts = [r.facts for r in detector.history_ if r.stage == "train"]
    assert facts[0]["classification"] > 0.5
    assert facts[-1]["classification"] < 0.2
    assert facts[-1]["divergence"] < facts[0]["divergence"]
