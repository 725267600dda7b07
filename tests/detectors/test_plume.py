"""PLUME: its loss, the trained parameters, the saved ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import anomem
from anomem.data.synthetic import crops
from anomem.detectors.plume.detector import PerturbedNormals, Plume, learn_norm
from anomem.detectors.plume.loss import (
    classification_loss,
    contrastive_loss,
    kl_divergence,
    mean_contrastive_loss,
    noise_constraint,
)
from anomem.detectors.plume.scorer import PlumeScorer
from anomem.errors import InputError
from anomem.nn.feature_store import FeatureStore
from anomem.testing.example import StoppedError
from anomem.types import Record, UInt8Image

TINY: dict[str, Any] = {
    "size": 64,
    "hidden": (16, 8),
    "perturbator_width": 8,
    "training.steps": 12,
    "training.epochs": 1000,
}
LITERAL: dict[str, Any] = {
    "normalise": "batch",
    "map_scale": None,
    "cooperative": True,
    "identity_start": False,
    "likelihood": False,
}
PRINTED = {**LITERAL, "constraint": "paper", "constraint_sum": True}
AUTHORS = {**LITERAL, "joint": False}


@pytest.fixture(scope="module")
def images() -> UInt8Image:
    return crops("gravel", 40, size=64, half="train", rng=np.random.default_rng(0))


def features(n: int = 16, dim: int = 12) -> Tensor:
    return torch.rand(n, dim, generator=torch.Generator().manual_seed(0)) * torch.arange(1, dim + 1)


def model(seed: int = 0, **settings: Any) -> PerturbedNormals:
    """What is trained, on features of 12 values."""
    torch.manual_seed(seed)
    p = Plume(hidden=(10, 6), **settings).resolve(strict=False)
    scorer = PlumeScorer({"backbone": "", "dim": 12, "normalise": p.normalise, "hidden": p.hidden}, nn.Identity())  # type: ignore[arg-type]
    with FeatureStore(1) as store:
        store.add(features(200))
        learn_norm(scorer.norm, store, p.normalise)
    built = PerturbedNormals(scorer, p, torch.Generator().manual_seed(seed + 1))
    built.classifier.train()
    return built


def train(built: PerturbedNormals, steps: int, lr: float = 3e-3) -> None:
    optimiser = torch.optim.AdamW(built.parameters(), lr=lr, fused=True)
    draw = torch.Generator().manual_seed(5)
    for _ in range(steps):
        batch = features(200)[torch.randperm(200, generator=draw)[:32]]
        optimiser.zero_grad()
        built.loss(batch)[0].backward()
        optimiser.step()


# --- the loss ---------------------------------------------------------------------------------


def manual_classifier(built: PerturbedNormals, x: Tensor) -> tuple[Tensor, Tensor]:
    """Linear, normalisation by the batch and LeakyReLU, twice; then one logit."""
    linears = [layer for layer in built.classifier.embed if isinstance(layer, nn.Linear)]
    assert [layer.bias for layer in linears] == [None, None]
    for layer in linears:
        x = x @ layer.weight.T
        x = (x - x.mean(dim=0)) / (x.var(dim=0, correction=0) + 1e-4).sqrt()
        x = torch.where(x > 0, x, 0.01 * x)
    return x, (x @ built.classifier.decide.weight.T)[:, 0]


def whitened(x: Tensor, every: Tensor) -> Tensor:
    """Unit vectors along the axes of the covariance of all, shrunk by a tenth, by NumPy; of variance and mean 1."""
    x, every = (v / v.norm(dim=1, keepdim=True) for v in (x, every))
    covariance = np.cov(every.double().numpy().T, bias=True)
    shrunk = 0.9 * covariance + 0.1 * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    variances, axes = np.linalg.eigh(shrunk)
    found = (x - every.mean(dim=0)).double().numpy() @ axes / np.sqrt(variances)
    signs = np.sign((model().norm.forward(x[:1]) - 1).detach().numpy()[0] * found[0, ::-1])
    return torch.from_numpy(found[:, ::-1] * signs + 1).float()


@pytest.mark.parametrize("joint", [True, False])
@pytest.mark.parametrize("kind", ["full", "mean", "none"])
def test_loss_is_eq_8(kind: str, joint: bool) -> None:
    built = model(contrast=kind, joint=joint, constraint_weight=3.0, divergence_weight=0.5, contrast_weight=2.0)
    loss, figures = built.loss(features())
    x = whitened(features(), features(200))
    draw = torch.Generator().manual_seed(1)
    drawn = built.perturbator(x, draw)
    alpha, beta = (m.detach() + torch.randn(16, 12, generator=draw) / (2 * 3) ** 0.5 for m in (drawn.alpha, drawn.beta))
    maps = [torch.eye(12) + torch.outer(3 / 12 * a, b) for a, b in zip(alpha, beta, strict=True)]
    pseudo = torch.stack([matrix @ v for matrix, v in zip(maps, x, strict=True)])
    if joint:
        embedded, logits = manual_classifier(built, torch.cat([x, pseudo]))
        (z, z_pseudo), (logit, logit_pseudo) = embedded.chunk(2), logits.chunk(2)
    else:
        (z, logit), (z_pseudo, logit_pseudo) = manual_classifier(built, x), manual_classifier(built, pseudo)
    contrast = {"full": contrastive_loss, "mean": mean_contrastive_loss, "none": lambda a, b, tau: a.sum() * 0}[kind]
    wanted = {
        "classification": classification_loss(logit, logit_pseudo),
        "constraint": noise_constraint(drawn.alpha, drawn.beta),
        "divergence": kl_divergence(drawn.mu, drawn.log_variance).mean(),
        "contrast": contrast(z, z_pseudo, 0.5),
    }
    for name, value in wanted.items():
        assert figures[name] == pytest.approx(float(value.detach()), rel=1e-4, abs=1e-6), name
    weighted = zip((1.0, 3.0, 0.5, 2.0), wanted.values(), strict=True)
    torch.testing.assert_close(loss, torch.stack([w * v for w, v in weighted]).sum(), rtol=1e-4, atol=1e-5)
    sizes = (pseudo - x).norm(dim=1) / x.norm(dim=1)
    assert figures["relative_size"] == pytest.approx(float(sizes.mean().detach()), rel=1e-4)
    assert figures["relative_size_sd"] == pytest.approx(float(sizes.std(correction=0).detach()), rel=1e-3)


def test_eq_2_is_taken_literally_without_a_scale() -> None:
    built, x = model(map_scale=None, likelihood=False), features()
    pseudo, drawn = built.perturb(x)
    torch.testing.assert_close(pseudo, x + drawn.alpha * (drawn.beta * x).sum(dim=1, keepdim=True))


def test_add_mult_always_stays_near_its_sample() -> None:
    """Whatever the reading of Eq. 1 for linear maps, alpha * x + beta is near x at 1 and 0."""
    for constraint in ("code", "paper"):
        built, x = model(perturbation="addmult", constraint=constraint, likelihood=False), features()
        pseudo, drawn = built.perturb(x)
        assert built.target == (1.0, 0.0)
        torch.testing.assert_close(pseudo, drawn.alpha * x + drawn.beta)


def test_gaussian_noise_has_no_perturbator() -> None:
    built = model(perturbation="gaussian", noise=0.5)
    pseudo, drawn = built.perturb(torch.zeros(2000, 12))
    assert drawn is None
    assert float(pseudo.std()) == pytest.approx(0.5, rel=0.02)
    _, figures = built.loss(features())
    assert figures["constraint"] == figures["divergence"] == 0
    assert not [name for name, _ in built.named_parameters() if "perturbator" in name]
    assert built.adaptivity(features()) is None


# --- gradients --------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{}, {"perturbation": "addmult"}, PRINTED, AUTHORS, {"contrast": "none"}])
def test_every_parameter_has_a_gradient(settings: dict[str, Any]) -> None:
    built = model(**settings)
    built.loss(features())[0].backward()
    for name, parameter in built.named_parameters():
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("cooperative", [False, True])
def test_what_trains_the_perturbator(cooperative: bool) -> None:
    """By default Eq. 1 and Eq. 4 alone; the classifier's losses too, where Eq. 8 is taken literally."""
    built = model(cooperative=cooperative)
    built.loss(features())[0].backward()
    found = [p.grad.clone() for p in built.perturbator.parameters() if p.grad is not None]
    built.zero_grad()
    drawn = built.perturbator(built.norm(features()), torch.Generator().manual_seed(1))
    own = 5 * noise_constraint(drawn.alpha, drawn.beta) + kl_divergence(drawn.mu, drawn.log_variance).mean()
    own.backward()
    alone = [p.grad for p in built.perturbator.parameters() if p.grad is not None]
    same = all(torch.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in zip(found, alone, strict=True))
    assert same != cooperative


def spread_of_directions(built: PerturbedNormals) -> float:
    """Mean |cosine| between perturbations of different samples: 1 where all lie in one direction."""
    x = built.norm(features(64))
    with torch.no_grad():
        directions = F.normalize(built.perturb(x)[0] - x, dim=1)
    return float((directions @ directions.T).abs()[~torch.eye(64, dtype=torch.bool)].mean())


def test_a_cooperative_perturbator_finds_one_direction() -> None:
    cosines = {}
    for cooperative in (False, True):
        built = model(cooperative=cooperative, likelihood=False)
        train(built, 250)
        cosines[cooperative] = spread_of_directions(built)
    assert cosines[True] > cosines[False] + 0.15


def test_as_printed_all_directions_are_the_vector_of_ones() -> None:
    settings = {**LITERAL, "cooperative": False}
    printed, code = (model(**settings, constraint=constraint) for constraint in ("paper", "code"))
    along = []
    for built in (printed, code):
        train(built, 250)
        x = built.norm(features(64))
        with torch.no_grad():
            directions = F.normalize(built.perturb(x)[0] - x, dim=1)
        along.append(float((directions @ torch.ones(12) / 12**0.5).abs().mean()))
    assert along[0] > 0.99
    assert along[1] < 0.5


# --- normalisation ----------------------------------------------------------------------------


def test_normalisations() -> None:
    every = features(200)
    for normalise in ("scale", "standard"):
        built = model(normalise=normalise)
        found = built.norm(every)
        assert float(found.std(dim=0, correction=0).sub(1).abs().max()) < 0.6
        centred = found.mean(dim=0).abs().max() < 1e-4
        assert bool(centred) == (normalise == "standard")
        assert not built.norm.training
    assert model(normalise="batch").norm.training
    found = model(normalise="whiten").norm(every)
    torch.testing.assert_close(found.mean(dim=0), torch.ones(12), atol=1e-3, rtol=0)
    assert float(np.abs(np.cov(found.T) - np.diag(np.diag(np.cov(found.T)))).max()) < 1e-3
    assert 0.02 < float(found.var(dim=0).min()) < float(found.var(dim=0).max()) < 1.12  # shrinkage holds the least back


def test_dimensions_that_hardly_vary_do_not_decide_alone() -> None:
    dead = features(200)
    dead[:, 0] = 3 + 1e-6 * dead[:, 0]
    scorer = PlumeScorer({"backbone": "", "dim": 12, "normalise": "scale", "hidden": (4,)}, nn.Identity())  # type: ignore[arg-type]
    with FeatureStore(1) as store:
        store.add(dead)
        learn_norm(scorer.norm, store, "standard")
    moved = dead[:1].clone()
    moved[:, 0] += 1e-3
    change = (scorer.norm.eval()(moved) - scorer.norm(dead[:1])).abs().max()
    assert float(change) < 0.01


# --- the fitted model -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fitted(images: UInt8Image) -> Plume:
    return Plume(**TINY).fit(images, alpha=0.2, fit_precision="float32", device="cpu")


def test_the_score_is_the_negative_logit(fitted: Plume, images: UInt8Image) -> None:
    scorer = fitted.scorer_
    assert isinstance(scorer, PlumeScorer)
    with torch.no_grad():
        pooled = scorer.backbone(torch.from_numpy(images[:6]).permute(0, 3, 1, 2))[-1].flatten(1)
        state = scorer.state_dict()
        x = (F.normalize(pooled, dim=1) - state["norm.mean"]) @ state["norm.axes"] + 1
        for layer, norm in ((0, 1), (3, 4)):
            x = x @ state[f"classifier.embed.{layer}.weight"].T
            x = x - state[f"classifier.embed.{norm}.running_mean"]
            x = x / (state[f"classifier.embed.{norm}.running_var"] + 1e-4).sqrt()
            x = torch.where(x > 0, x, 0.01 * x)
        logit = (x @ state["classifier.decide.weight"].T)[:, 0]
    np.testing.assert_allclose(fitted.anomaly_score(images[:6]), -logit.numpy(), rtol=1e-3, atol=1e-4)


def test_the_perturbator_is_thrown_away(fitted: Plume) -> None:
    assert {name.split(".")[0] for name in fitted.scorer_.state_dict()} == {"backbone", "norm", "classifier"}


def test_scoring_is_the_same_twice(fitted: Plume, images: UInt8Image) -> None:
    first = fitted.anomaly_score(images[:8])
    fitted.anomaly_score(images[8:20])
    assert np.array_equal(fitted.anomaly_score(images[:8]), first)


def test_history_tells_what_the_perturbation_is_like(fitted: Plume) -> None:
    last = [r for r in fitted.history_ if r.stage == "train"][-1]
    assert (last.step, last.total) == (12, 12)
    wanted = {"classification", "constraint", "divergence", "divergence_sd", "contrast"}
    assert wanted | {"relative_size", "relative_size_sd", "loss", "lr", "seconds"} == set(last.facts)
    (told,) = [r for r in fitted.history_ if r.stage == "perturbator"]
    assert 0 <= told.facts["adaptivity"] <= 1


def test_features_in_a_file_give_the_same_model(fitted: Plume, images: UInt8Image) -> None:
    again = Plume(**TINY, training__cache_mb=0).fit(images, alpha=0.2, fit_precision="float32", device="cpu")
    assert np.array_equal(again.anomaly_score(images), fitted.anomaly_score(images))


def test_an_abandoned_fit_leaves_no_file(images: UInt8Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def stop_in_training(record: Record) -> None:
        if record.stage == "train":
            assert len(list(tmp_path.iterdir())) == 1
            raise StoppedError

    with pytest.raises(StoppedError):
        Plume(**TINY, training__cache_mb=0).fit(images, alpha=0.2, device="cpu", progress=stop_in_training)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("form", [PRINTED, AUTHORS], ids=["printed", "authors"])
def test_literal_forms_fit(images: UInt8Image, form: dict[str, Any]) -> None:
    settings = {**TINY, **form, "output_dim": 96, "training.lr": 1e-3, "training.steps": 3}
    detector = Plume(**settings).fit(images, alpha=0.2, device="cpu")
    assert detector.scorer_.state_dict()["norm.running_mean"].shape == (96,)
    assert np.isfinite(detector.anomaly_score(images)).all()


def test_other_sizes_by_adaptive_pooling() -> None:
    pooled = torch.rand(2, 20, 1, 1, generator=torch.Generator().manual_seed(0))
    for dim in (7, 20, 32):
        scorer = PlumeScorer({"backbone": "", "dim": dim, "normalise": "whiten", "hidden": (4,)}, nn.Identity())  # type: ignore[arg-type]
        found = scorer.embed([pooled])
        for j in range(dim):
            window = pooled[:, (j * 20) // dim : -((-(j + 1) * 20) // dim), 0, 0]
            torch.testing.assert_close(found[:, j], window.mean(dim=1))


def test_steps_are_capped_by_epochs(images: UInt8Image) -> None:
    """26 images learnt from are two batches of 16: three epochs are six steps."""
    settings = {**TINY, "training.epochs": 3, "training.batch": 16, "training.steps": None}
    detector = Plume(**settings).fit(images, alpha=0.2, device="cpu")
    assert detector.counts_["n_train"] in range(17, 33)
    assert [r.total for r in detector.history_ if r.stage == "train"][-1] == 6


def test_a_rate_is_found_on_the_training_images(images: UInt8Image) -> None:
    detector = Plume(**TINY, training__lr=None).fit(images, alpha=0.2, device="cpu")
    found = [r.facts["lr"] for r in detector.history_ if r.stage == "range test" and r.facts]
    assert len(found) == 1
    assert 1e-6 <= found[0] <= 1


def test_it_draws_no_maps(fitted: Plume, images: UInt8Image) -> None:
    with pytest.raises(InputError, match="plume scores whole images and draws no maps"):
        fitted.anomaly_map(images[:1])


def test_it_loads_again(fitted: Plume, images: UInt8Image, tmp_path: Path) -> None:
    fitted.save(tmp_path / "model")
    again = anomem.load(tmp_path / "model")
    assert np.array_equal(again.anomaly_score(images), fitted.anomaly_score(images))
