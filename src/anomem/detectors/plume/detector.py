"""PLUME: a classifier of normal features against their own learnt linear perturbations."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from anomem.data.imageset import ImageSet
from anomem.detector import Supervision
from anomem.detectors.baselines._pooled import (
    MODEL,
    PRESET_DOC,
    WEIGHTS,
    Pretrained,
    load_pooled,
)
from anomem.detectors.plume.loss import (
    PRINTED,
    REVERSED,
    Contrast,
    Weights,
    classification_loss,
    contrast,
    kl_divergence,
    noise_constraint,
    total_loss,
)
from anomem.detectors.plume.perturbator import (
    Perturbation,
    Perturbator,
    add_mult,
    draw_likelihood,
    gaussian,
    linear_map,
    relative_size,
)
from anomem.detectors.plume.presets import MOVED, PRESETS, Training
from anomem.detectors.plume.scorer import PlumeScorer
from anomem.fitting import Labelled, Run
from anomem.nn.backbones import DEFAULT_BACKBONE
from anomem.nn.endless import Mapped
from anomem.nn.feature_store import FeatureStore, store_features
from anomem.nn.normalise import FeatureMoments, Whitening
from anomem.nn.scorer import Scorer
from anomem.params import FLAG, Each, OneOf, Range, group, param, parameters
from anomem.training import Recipe, range_test, train
from anomem.types import Record

POSITIVE = Range(0.0, low_open=True)
RANGE_TEST_STEPS = 100
HIGHEST_RATE = 1.0
"""Highest learning rate of a range test."""
ADAPTIVITY_ROWS = 512
"""Number of normals used to measure the perturbator's dependence on its input."""
VARIANCE_FLOOR = 0.01
"""Ridge added to every dimension's variance before whitening, in shares of the mean variance: a
dimension that hardly varies among normals would otherwise decide alone."""
SHRINKAGE = 0.1
"""Shrinkage of the covariance for whitening: with fewer images than dimensions some directions have no variance."""


class PerturbedNormals(nn.Module):
    """Trained modules of PLUME: normalisation, perturbator and classifier, with the loss of Eq. 8.

    Parameters
    ----------
    scorer : PlumeScorer
        Its normalisation and classifier are trained in place.
    p : Plume
        Hyperparameters of :class:`Plume`.
    rng : torch.Generator
        Generator of latent draws and noise.
    """

    def __init__(self, scorer: PlumeScorer, p: Plume, rng: torch.Generator) -> None:
        super().__init__()
        self.norm, self.classifier = scorer.norm, scorer.classifier
        self.norm.train(p.normalise == "batch")
        dim = scorer.config["dim"]
        self.p, self.rng = p, rng
        self.scale = 1.0 if p.map_scale is None else p.map_scale / dim
        # A factor and a shift leave a sample where it is at 1 and 0, whatever the reading of Eq. 1 for linear maps.
        self.target = REVERSED if p.perturbation == "linear" and p.constraint == "code" else PRINTED
        self.weights = Weights(p.constraint_weight, p.divergence_weight, p.contrast_weight)
        self.perturbator = None
        if p.perturbation != "gaussian":
            self.perturbator = Perturbator(dim, p.perturbator_width, self.target if p.identity_start else None)

    def perturb(self, x: Tensor) -> tuple[Tensor, Perturbation | None]:
        """Return pseudo-anomalies (N, D) of normalised features (N, D), and the parameters that made them."""
        if self.perturbator is None:
            return gaussian(x, self.p.noise, self.rng), None
        drawn: Perturbation = self.perturbator(x, self.rng)
        alpha, beta = drawn.alpha, drawn.beta
        if not self.p.cooperative:
            alpha, beta = alpha.detach(), beta.detach()
        if self.p.likelihood:
            alpha, beta = draw_likelihood(alpha, beta, self.p.constraint_weight, self.rng)
        if self.p.perturbation == "addmult":
            return add_mult(x, alpha, beta), drawn
        return linear_map(x, self.scale * alpha, beta), drawn

    def classify(self, x: Tensor, pseudo: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return embeddings of normals and of pseudo-anomalies, then their logits."""
        if self.p.joint:
            embedded, logits = self.classifier(torch.cat([x, pseudo]))
            return *embedded.chunk(2), *logits.chunk(2)
        z, logit = self.classifier(x)
        z_pseudo, logit_pseudo = self.classifier(pseudo)
        return z, z_pseudo, logit, logit_pseudo

    def loss(self, features: Tensor) -> tuple[Tensor, Mapping[str, float]]:
        """Return Eq. 8 of a batch of features (N, D), with its terms and statistics of the perturbation."""
        x = self.norm(features)
        pseudo, drawn = self.perturb(x)
        z, z_pseudo, logit, logit_pseudo = self.classify(x, pseudo)
        constraint, divergence = x.new_zeros(()), x.new_zeros(1)
        if drawn is not None:
            constraint = noise_constraint(drawn.alpha, drawn.beta, self.target, summed=self.p.constraint_sum)
            divergence = kl_divergence(drawn.mu, drawn.log_variance)
        terms = {
            "classification": classification_loss(logit, logit_pseudo),
            "constraint": constraint,
            "divergence": divergence.mean(),
            "contrast": contrast(self.p.contrast, z, z_pseudo, self.p.temperature),
        }
        with torch.no_grad():
            size = relative_size(x, pseudo)
            figures = {name: float(term) for name, term in terms.items()}
            figures["divergence_sd"] = float(divergence.std(correction=0))
            figures |= {"relative_size": float(size.mean()), "relative_size_sd": float(size.std(correction=0))}
        return total_loss(**terms, weights=self.weights), figures

    def adaptivity(self, features: Tensor) -> float | None:
        """Return how far alpha depends on the sample (0: not at all, 1: wholly), from features of normals (N, D)."""
        if self.perturbator is None or len(features) < 2:
            return None
        with torch.no_grad():
            return self.perturbator.adaptivity(self.norm.eval()(features), self.rng)


@parameters
class Plume(Pretrained):
    """Perturbation learning on frozen features: a classifier of normals against their own linear perturbations.

    A variational auto-encoder, the perturbator, draws for every normal feature x a map A = I + alpha beta^T (Eq. 2);
    A x is a pseudo-anomaly. A small classifier learns to separate both while a contrastive loss draws normal
    embeddings together (Eq. 7); then the perturbator is discarded. The score is the classifier's negative logit: for
    whole images, without maps.

    References
    ----------
    Hermary, Gaudilliere, Shabayek and Aouada, "Removing Geometric Bias in One-Class Anomaly Detection with Adaptive
    Feature Perturbation", 2025.

    Examples
    --------
    >>> Plume(preset="object", perturbation="gaussian")
    Plume(preset='object', perturbation='gaussian')
    """

    name: ClassVar[str] = "plume"
    supervision: ClassVar[Supervision] = "none"
    localizes: ClassVar[bool] = False
    paper: ClassVar[str] = "Hermary et al., Removing Geometric Bias with Adaptive Feature Perturbation, 2025"
    test_params: ClassVar[dict[str, Any]] = {
        "size": 64,
        "hidden": (64, 32),
        "perturbator_width": 32,
        "training.steps": 200,
        "training.lr": 0.003,
    }

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = PRESETS
    moved: ClassVar[Mapping[str, str]] = MOVED

    preset: str = param(
        "surface",
        OneOf(tuple(PRESETS)),
        doc=f"{PRESET_DOC}; paper: the publication as printed; code: the authors' code, where it differs.",
    )
    backbone: str = param(DEFAULT_BACKBONE, MODEL, doc="Backbone, a timm model.", preset=True)
    weights: str | None = param(
        "default", WEIGHTS, doc="Weights of the backbone; none: random ones.", optional=True, preset=True
    )
    output_dim: int | None = param(
        None,
        Range(1, 65536, integer=True),
        doc="Length D that features are brought to by adaptive average pooling; none: the backbone's.",
        optional=True,
        preset=True,
    )
    normalise: str = param(
        "whiten",
        OneOf(("whiten", "scale", "standard", "batch")),
        doc="Normalisation of the features: whitened, divided by the deviation per dimension, also centred, or per "
        "batch (BatchNorm1d).",
        preset=True,
    )
    perturbation: str = param(
        "linear",
        OneOf(("linear", "addmult", "gaussian")),
        doc="Perturbation of normals: A x (Eq. 3); alpha * x + beta, as PLAD; or Gaussian noise, not learnt.",
    )
    map_scale: float | None = param(
        3.0,
        POSITIVE,
        doc="Scale of perturbation=linear, A = I + (map_scale / D) alpha beta^T; none: Eq. 2.",
        optional=True,
        preset=True,
        when="perturbation=linear",
    )
    noise: float = param(
        1.0,
        POSITIVE,
        doc="Standard deviation of perturbation=gaussian, in units of the normalised features.",
        when="perturbation=gaussian",
    )
    cooperative: bool = param(
        False,
        FLAG,
        doc="Train the perturbator on the classifier's losses too, as in Eq. 8.",
        preset=True,
        when="perturbation=linear|addmult",
    )
    identity_start: bool = param(
        True,
        FLAG,
        doc="Initialise the perturbator at the targets of Eq. 1 instead of at random.",
        preset=True,
        when="perturbation=linear|addmult",
    )
    likelihood: bool = param(
        True,
        FLAG,
        doc="Draw alpha and beta from the decoder's likelihood, of variance 1 / (2 lambda), instead of its mean.",
        preset=True,
        when="perturbation=linear|addmult",
    )
    constraint: str = param(
        "code",
        OneOf(("code", "paper")),
        doc="Target of alpha and beta in Eq. 1: 0 and 1, as in the authors' code, or 1 and 0, as printed.",
        preset=True,
        when="perturbation=linear",
    )
    constraint_sum: bool = param(
        False,
        FLAG,
        doc="Sum Eq. 1 over D, as printed, instead of taking the mean.",
        preset=True,
        when="perturbation=linear|addmult",
    )
    constraint_weight: float = param(
        5.0, POSITIVE, doc="Weight lambda of the constraint (Eq. 8).", when="perturbation=linear|addmult"
    )
    divergence_weight: float = param(
        1.0, Range(0.0), doc="Weight nu of the divergence (Eq. 8).", when="perturbation=linear|addmult"
    )
    contrast_weight: float = param(
        1.0, Range(0.0), doc="Weight gamma of the contrastive term (Eq. 8).", when="contrast=full|mean"
    )
    contrast: Contrast = param(
        "full", OneOf(("full", "mean", "none")), doc="Contrastive term: Eq. 7, against the two means, or none."
    )
    temperature: float = param(0.5, POSITIVE, doc="Temperature tau of Eq. 6.", when="contrast=full|mean")
    joint: bool = param(
        True,
        FLAG,
        doc="Pass normals and pseudo-anomalies through the classifier in one batch, with shared statistics.",
        preset=True,
    )
    hidden: tuple[int, ...] = param((1024, 512), Each(Range(1, 65536, integer=True)), doc="Widths of the classifier.")
    perturbator_width: int | None = param(
        256,
        Range(1, 65536, integer=True),
        doc="Hidden and latent width of the perturbator; none: D.",
        optional=True,
        preset=True,
        when="perturbation=linear|addmult",
    )
    training: Training = group(Training, doc="Training of classifier and perturbator.")

    def _fit(
        self, learn: ImageSet, tune: ImageSet, labelled: Labelled | None, run: Run[Self]
    ) -> Generator[Record, None, Scorer]:
        p = run.params
        backbone = load_pooled(run)
        dim = p.output_dim or backbone.describe(p.size)[-1].channels
        config = {"backbone": p.backbone, "dim": dim, "normalise": p.normalise, "hidden": list(p.hidden)}
        scorer = PlumeScorer(config, backbone).to(run.device)
        # The classifier looks for small deviations: it must not learn from features rounded otherwise than it scores.
        options: dict[str, Any] = {"precision": p.precision, "batch_size": run.batch_size}
        with FeatureStore(p.training.cache_mb) as store:
            # Nothing is tuned, so tune normals join the training.
            yield from store_features(store, backbone, learn.joined(tune), scorer.embed, **options)
            learn_norm(scorer.norm, store, p.normalise)
            yield from train_on(store, scorer, run)
        return scorer

    @classmethod
    def _build(cls, config: dict[str, Any]) -> Scorer:
        return PlumeScorer(config)


@torch.no_grad()
def learn_norm(norm: nn.Module, store: FeatureStore, normalise: str) -> None:
    """Learn the normalisation from all features; "batch" learns along with the classifier."""
    if isinstance(norm, Whitening):
        moments = FeatureMoments(store.dim)
        for block in store.blocks():
            moments.update(block[:, :, None, None])
        norm.fit(moments, SHRINKAGE)
    elif isinstance(norm, nn.BatchNorm1d) and normalise != "batch":
        assert norm.running_mean is not None
        assert norm.running_var is not None
        mean, variance = store.moments()
        norm.running_mean.copy_(mean if normalise == "standard" else torch.zeros_like(mean))
        norm.running_var.copy_(variance + VARIANCE_FLOOR * variance.mean())


def train_on(store: FeatureStore, scorer: PlumeScorer, run: Run[Plume]) -> Generator[Record, None, None]:
    """Train the scorer's classifier, in place, on stored features and their perturbations."""
    p = run.params.training
    model = PerturbedNormals(scorer, run.params, run.rng).to(run.device)
    model.classifier.train()
    batches = Mapped(lambda features: features.to(run.device), store.batches(p.batch, run.rng))
    passes = p.epochs * -(-len(store) // p.batch)
    steps = passes if p.steps is None else min(p.steps, passes)
    lr = p.lr
    if lr is None:
        trial = Recipe(RANGE_TEST_STEPS, HIGHEST_RATE, "adamw", weight_decay=p.weight_decay)
        lr = yield from range_test(model, model.loss, batches, trial, device=run.device, rng=run.rng)
    recipe = Recipe(steps, lr, "adamw", weight_decay=p.weight_decay, warmup=0.3, schedule="one_cycle")
    yield from train(model, model.loss, batches, recipe, device=run.device, rng=run.rng)
    share = model.adaptivity(store.rows(slice(0, ADAPTIVITY_ROWS)).to(run.device))
    if share is not None:
        yield Record("perturbator", 1, 1, {"adaptivity": share})
