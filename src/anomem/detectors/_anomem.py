"""What AnoMem's hyperparameters stand for: presets, the scorer they describe, and the training of its first stage."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from types import SimpleNamespace
from typing import Any

from torch import Tensor

from anomem.data.augment import Augmentation
from anomem.data.imageset import ImageSet
from anomem.errors import ParameterError
from anomem.fitting import Labelled, Run
from anomem.nn.backbones import DEFAULT_BACKBONE, SMALL_STEM_BELOW, load_backbone
from anomem.nn.contrastive import CachedViews, Contrast, ContrastedMemory, Feed, ViewsOf, unfreeze
from anomem.nn.multiscale import MultiScaleScorer
from anomem.training import Recipe, train
from anomem.types import Record

PRESETS: dict[str, dict[str, Any]] = {
    "surface": {
        "size": 224,
        "stages": (1, 2, 3, 3, "blocks.5", "blocks.5"),
        "embedding": False,
        "neighbourhood": (3, 3, 3, 1, 3, 1),
        "memory_size": (2048,),
        "memory_share": 8,
        "seeding": "farthest",
        "normalise": "whiten",
        "whitening": 1.0,
        "shrinkage": 0.03,
        "position_mean": True,
        "max_grid": (28,),
        "beta": "hard",
        "scale_weights": (1.0, 1.0, 0.5, 0.5, 0.25, 0.25),
        "reduction": "top",
        "standardise": "position",
        "heads": ("spread", "signed", "top", "peak"),
        "label_cap": 0.8,
    },
    "object": {
        "size": 160,
        "stages": (4, 4),
        "embedding": True,
        "neighbourhood": (1,),
        "memory_size": (256,),
        "memory_share": 1,
        "seeding": "kmeans",
        "normalise": "whiten",
        "whitening": 0.5,
        "shrinkage": 0.3,
        "position_mean": False,
        "max_grid": (28, 1, 1),
        "beta": 16.0,
        "scale_weights": (1.0,),
        "reduction": "l2",
        "standardise": "scale",
        "heads": ("pooled",),
        "label_cap": 0.4,
    },
}


def empty_scorer(p: SimpleNamespace) -> MultiScaleScorer:
    """Build the scorer that the hyperparameters describe, its backbone loaded, its memories still to be seeded."""
    from_scratch = p.weights is None
    stages = list(p.stages)
    if p.backbone != DEFAULT_BACKBONE and tuple(stages) == PRESETS[p.preset]["stages"]:
        # A preset names layers of the default backbone; of another one, its last map stands for them.
        stages = [s if isinstance(s, int) else -1 for s in stages]
    residual = p.backbone.startswith(("resnet", "wide_resnet"))
    options = {
        "name": p.backbone,
        "stages": list(dict.fromkeys(stages)),
        "embedding": p.embedding,
        "width": p.width,
        "small_stem": from_scratch and p.size <= SMALL_STEM_BELOW and residual,
        "folded": not from_scratch,
    }
    backbone = load_backbone(**options, weights=p.weights).eval()
    maps = backbone.describe(p.size)
    sources = [options["stages"].index(stage) for stage in stages] + ([len(maps) - 1] if p.embedding else [])
    around, grids = each(p.neighbourhood, len(sources)), each(p.max_grid, len(sources))
    scales = [
        {
            "channels": maps[m].channels,
            "hw": list(maps[m].hw),
            "n_items": 0,
            "neighbourhood": n,
            "max_grid": g,
            "source": m,
        }
        for m, n, g in zip(sources, around, grids, strict=True)
    ]
    config = {
        "backbone": options,
        "size": p.size,
        "scales": scales,
        "memory": {
            "normalise": p.normalise,
            "position_mean": p.position_mean,
            **_retrieval(p),
        },
        "fusion": {
            "weights": each(p.scale_weights, len(scales)),
            "reduction": p.reduction,
            "top": p.top,
            "smoothing": p.smoothing,
            "standardise": p.standardise,
        },
        "second_stage": {"blocks": list(p.heads), "distance": p.label_head == "distance"},
        "n_prototypes": 0,
    }
    return MultiScaleScorer(config, backbone)


def _retrieval(p: SimpleNamespace) -> dict[str, Any]:
    hard = p.beta == "hard" or p.memory == "kmeans"
    return {
        "beta": 1.0 if hard else float(p.beta),
        "hard": hard,
        "steps": p.retrieval_steps,
        "association": p.association,
    }


def each(values: tuple[Any, ...], count: int) -> list[Any]:
    """One value a scale: a single one is for all."""
    if len(values) not in (1, count):
        raise ParameterError(f"AnoMem: {len(values)} values {values} for {count} scales; give one, or one a scale")
    return list(values) * count if len(values) == 1 else list(values)


def train_stage_one(
    scorer: MultiScaleScorer, learn: ImageSet, labelled: Labelled | None, run: Run
) -> Generator[Record, None, None]:
    """Train memories, and what `train_backbone` names of the backbone, by the contrasted memory loss (Algorithm 1)."""
    p = run.params
    from_scratch = p.weights is None
    trained = "all" if from_scratch else p.train_backbone
    scorer.requires_grad_(False)
    unfreeze(scorer.backbone, trained)
    for scale in scorer.memories():
        if scale.memory is not None:
            scale.memory.requires_grad_(True)
    model = ContrastedMemory(
        scorer,
        Contrast(
            base=p.contrast,
            temperature=p.temperature,
            variance=p.variance,
            hinge=p.variance_hinge,
            variance_weight=p.variance_weight,
            ratios=p.sampling_ratio,
            scale_weights=tuple(each(p.scale_weights, len(scorer.memories()))),
        ),
        projection_dim=p.projection_dim,
        rng=run.rng,
    ).to(run.device)
    # Pretrained batch statistics stand for far more images than a fit has; only a backbone from scratch learns its own.
    scorer.backbone.train(from_scratch)
    shared = p.geometry == "shared" or (p.geometry == "auto" and not from_scratch)
    views_of = ViewsOf(model, run.device, _augmentation(p), shared, run.fit_precision)
    anomalies = None if labelled is None else labelled.anomalies()
    feed = Feed(learn, anomalies, p.train_batch, p.cache_mb, run.rng)

    def loss(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Mapping[str, float]]:
        first, second = views_of(batch[0])
        return model.loss(first, second, batch[1].to(run.device))

    def cached_loss(batch: tuple[list[Tensor], list[Tensor], Tensor]) -> tuple[Tensor, Mapping[str, float]]:
        first, second = ([m.to(run.device).float() for m in view] for view in batch[:2])
        return model.loss(first, second, batch[2].to(run.device))

    options: dict[str, Any] = {"device": run.device, "precision": run.fit_precision, "stage": "stage 1"}
    recipe = Recipe(p.train_steps, p.lr, weight_decay=p.weight_decay)
    if trained == "none":
        yield from train(model, cached_loss, CachedViews(views_of, feed), recipe, **options)
    else:
        yield from train(model, loss, feed, recipe, **options)
    scorer.backbone.eval()


def _augmentation(p: SimpleNamespace) -> Augmentation:
    return Augmentation(
        crop_scale=(p.crop, 1.0),
        flip=p.flip,
        brightness=p.brightness,
        contrast=p.contrast_jitter,
        saturation=p.saturation,
        hue=p.hue,
        grey=p.grey,
        blur=p.blur,
        noise=p.noise,
    )
