"""What baselines on a pretrained backbone share: parameters, a scorer's backbone, a bounded sample of embeddings."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from anomem.data.imageset import ImageSet
from anomem.detector import Detector
from anomem.detectors.baselines._shallow import Normalise
from anomem.fitting import Labelled, Run
from anomem.nn.backbones import DEFAULT_BACKBONE, Backbone, load_backbone
from anomem.nn.inference import feature_batches
from anomem.nn.sampling import VectorSample
from anomem.nn.scorer import Scorer
from anomem.params import OneOf, Range, Text, param
from anomem.types import Record


@dataclass(kw_only=True, repr=False, eq=False)
class Pretrained(Detector):
    """A detector on a pretrained backbone.

    Parameters
    ----------
    preset : {"surface", "object"}
        Input size: 224 or 160 pixels.
    backbone, weights
        As for :func:`~anomem.nn.backbones.load_backbone`.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"surface": {"size": 224}, "object": {"size": 160}}

    size: int | None = param(None, Range(16, 4096, integer=True), doc="Input side, pixels.", preset=True)
    preset: str = param("surface", OneOf(("surface", "object")), doc="Named set of parameters.")
    backbone: str = param(DEFAULT_BACKBONE, Text("a timm model's name"), doc="A timm model.")
    weights: str | None = param("default", Text("default, a file, a timm tag"), doc="Its weights.", optional=True)


@dataclass(kw_only=True, repr=False, eq=False)
class PooledFeatures(Pretrained):
    """A detector on one pooled embedding an image: it scores whole images.

    Parameters
    ----------
    max_items : int, default 16384
        Embeddings of normals that are learnt from at most, drawn uniformly, so that memory and file stay bounded.
    """

    localizes: ClassVar[bool] = False

    max_items: int = param(16384, Range(1, integer=True), doc="Embeddings learnt from at most.")


class PooledScorer(Scorer):
    """A scorer that looks at a backbone's pooled embedding.

    Parameters
    ----------
    config : dict
        ``backbone`` (a timm model's name) and what the subclass needs.
    backbone : Backbone or None
        Ready-made, its embedding last; None: an empty one, frozen and folded.
    """

    def __init__(self, config: dict[str, Any], backbone: Backbone | None = None) -> None:
        super().__init__(config)
        self.backbone = backbone or Backbone(config["backbone"], stages=(-1,), embedding=True, folded=True)

    def embed(self, features: list[Tensor]) -> Tensor:
        """Pooled embeddings (B, D) float32 from the backbone's maps."""
        return features[-1].float().flatten(1)


NORMALISERS = {
    "raw": {"unit": False, "standard": False},
    "unit": {"unit": True, "standard": False},
    "standard": {"unit": False, "standard": True},
    "both": {"unit": True, "standard": True},
}
"""Spaces that pooled embeddings can be brought to."""


@dataclass(kw_only=True, repr=False, eq=False)
class NormalisedFeatures(PooledFeatures):
    """A detector on one normalised pooled embedding an image.

    Parameters
    ----------
    normalise : {"both", "unit", "standard", "raw"}
        Space of the embeddings: scaled to unit length; each dimension standardised on normals; both in this order;
        or as the backbone gives them.
    """

    normalise: str = param("both", OneOf(tuple(NORMALISERS)), doc="Unit length, standardised, both, or raw embeddings.")


class NormalisedScorer(PooledScorer):
    """A scorer that looks at a normalised pooled embedding.

    Parameters
    ----------
    config : dict
        ``backbone``, ``normalise``, ``dim``, and what the subclass needs.
    backbone : Backbone or None
        As for :class:`PooledScorer`.
    """

    def __init__(self, config: dict[str, Any], backbone: Backbone | None = None) -> None:
        super().__init__(config, backbone)
        self.normalise = Normalise(config["dim"], **NORMALISERS[config["normalise"]])

    def vectors(self, images: Tensor) -> Tensor:
        """Normalised embeddings (B, D) float32 of prepared images."""
        embedded = self.embed(self.backbone(images))
        with torch.autocast(embedded.device.type, enabled=False):
            normalised: Tensor = self.normalise(embedded)
        return normalised


def load_pooled(run: Run) -> Backbone:
    """Load the backbone that the hyperparameters name: frozen, folded, embedding last, on the run's device."""
    p = run.params
    backbone = load_backbone(p.backbone, (-1,), weights=p.weights, embedding=True, folded=True)
    return backbone.eval().requires_grad_(False).to(run.device)


def sample_embeddings(
    scorer: PooledScorer, images: ImageSet, run: Run, *, limit: int, stage: str = "features"
) -> Generator[Record, None, Tensor]:
    """Embed images, and return at most `limit` of their embeddings, drawn uniformly: (M, D) float32 on the CPU."""
    sample, done = VectorSample(limit, run.rng), 0
    for maps in feature_batches(scorer.backbone, images, precision=run.fit_precision, batch_size=run.batch_size):
        sample.add(scorer.embed(maps)[:, :, None, None])
        done += len(maps[-1])
        yield Record(stage, done, max(done, len(images)))
    return sample.result()[0]


def learn_vectors(scorer: NormalisedScorer, learn: ImageSet, run: Run) -> Generator[Record, None, Tensor]:
    """Fit the scorer's normaliser to embeddings of normals; return these, normalised: (M, D) float32 on the CPU."""
    embedded = yield from sample_embeddings(scorer, learn, run, limit=run.params.max_items)
    normalised: Tensor = scorer.normalise.fit(embedded)(embedded)
    return normalised


def anomalous_vectors(scorer: NormalisedScorer, labelled: Labelled, run: Run) -> Generator[Record, None, Tensor]:
    """Return normalised embeddings of labelled anomalies: (M, D) float32 on the CPU."""
    limit = run.params.max_items
    embedded = yield from sample_embeddings(scorer, labelled.anomalies(), run, limit=limit, stage="labelled")
    normalised: Tensor = scorer.normalise(embedded)
    return normalised


def empty_config(backbone: Backbone, run: Run) -> dict[str, Any]:
    """Return what every :class:`NormalisedScorer` is configured by."""
    p = run.params
    return {"backbone": p.backbone, "normalise": p.normalise, "dim": backbone.describe(p.size)[-1].channels}
