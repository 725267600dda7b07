"""Parts shared by baselines on a pretrained backbone: parameters, scorer base, bounded sample of embeddings."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

from torch import Tensor

from anomem.data.imageset import ImageSet
from anomem.detector import Detector
from anomem.detectors.baselines._shallow import Normalise
from anomem.fitting import Labelled, Run, Shared
from anomem.framing import SIZE_DOC
from anomem.nn.backbones import DEFAULT_BACKBONE, Backbone, load_backbone
from anomem.nn.families import stride_of
from anomem.nn.inference import feature_batches
from anomem.nn.precision import without_autocast
from anomem.nn.sampling import VectorSample
from anomem.nn.scorer import MapScorer, Output, Scorer
from anomem.params import Each, Either, OneOf, Range, Text, param, parameters
from anomem.types import Record

S = TypeVar("S", bound=Scorer)
MODEL = Text("a timm model's name", like="resnet18")
STAGE = Each(Either((Range(-99, 99, integer=True), Text("a layer, stride4 to stride32"))))
WEIGHTS = Text("default, a file, a timm tag", like="default")
PRESET_DOC = "Named set of parameters: surface for a 224 px input, object for 160 px"


@parameters
class Pretrained(Detector):
    """A detector on a pretrained backbone."""

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"surface": {"size": 224}, "object": {"size": 160}}

    size: int = param(None, Range(16, 4096, integer=True), doc=SIZE_DOC, preset=True)
    preset: str = param("surface", OneOf(("surface", "object")), doc=f"{PRESET_DOC}.")
    backbone: str = param(DEFAULT_BACKBONE, MODEL, doc="Backbone, a timm model.")
    weights: str | None = param("default", WEIGHTS, doc="Weights of the backbone; none: random ones.", optional=True)

    def input_strides(self) -> tuple[int, int] | None:
        """Return the stride of the backbone's coarsest map, twice."""
        return (stride_of(self.backbone),) * 2


@parameters
class PooledFeatures(Pretrained):
    """A detector on one pooled embedding per image: it scores whole images."""

    localizes: ClassVar[bool] = False

    max_items: int = param(
        16384, Range(1, integer=True), doc="Maximum number of embeddings used for fitting, drawn uniformly."
    )


class PooledScorer(MapScorer):
    """Scorer of a backbone's pooled embedding.

    Parameters
    ----------
    config : dict
        ``backbone`` (a timm model's name) and what the subclass needs.
    backbone : Backbone or None
        Backbone ready-made, its embedding last; None: an empty one, frozen and folded.
    """

    def __init__(self, config: dict[str, Any], backbone: Backbone | None = None) -> None:
        super().__init__(config)
        self.backbone = backbone or Backbone(config["backbone"], stages=(-1,), embedding=True, folded=True)

    def embed(self, features: list[Tensor]) -> Tensor:
        """Return pooled embeddings (B, D) float32 of the backbone's maps."""
        return features[-1].float().flatten(1)

    def fuse(self, norms: Sequence[Tensor]) -> Output:
        """Return a deviation of one value per image as the score."""
        return Output(norms[0])


NORMALISERS = {
    "raw": {"unit": False, "standard": False},
    "unit": {"unit": True, "standard": False},
    "standard": {"unit": False, "standard": True},
    "both": {"unit": True, "standard": True},
}
"""Normalisations of pooled embeddings."""


@parameters
class NormalisedFeatures(PooledFeatures):
    """A detector on one normalised pooled embedding per image."""

    normalise: str = param(
        "both",
        OneOf(tuple(NORMALISERS)),
        doc="Space of the embeddings: scaled to unit length, each dimension standardised on normals, both in this "
        "order, or raw.",
    )


class NormalisedScorer(PooledScorer):
    """Scorer of a normalised pooled embedding.

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
        """Return normalised embeddings (B, D) float32 of prepared images."""
        return self.vectors_of(self.backbone(images))

    def vectors_of(self, maps: list[Tensor]) -> Tensor:
        """Return normalised embeddings (B, D) float32 from the backbone's maps."""
        embedded = self.embed(maps)
        with without_autocast(embedded.device):
            normalised: Tensor = self.normalise(embedded)
        return normalised


def load_pooled(run: Run[Pretrained]) -> Backbone:
    """Load the backbone that the hyperparameters name: frozen, folded, embedding last, on the run's device."""
    p = run.params
    backbone = load_backbone(p.backbone, (-1,), weights=p.weights, embedding=True, folded=True)
    return backbone.eval().requires_grad_(False).to(run.device)


def sample_embeddings(
    scorer: PooledScorer, images: ImageSet, run: Run[Shared], *, limit: int, stage: str = "features"
) -> Generator[Record, None, Tensor]:
    """Embed images, and return at most `limit` of the embeddings, drawn uniformly: (M, D) float32 on the CPU."""
    sample, done = VectorSample(limit, run.rng), 0
    for maps in feature_batches(scorer.backbone, images, precision=run.fit_precision, batch_size=run.batch_size):
        sample.add(scorer.embed(maps)[:, :, None, None])
        done += len(maps[-1])
        yield Record(stage, done, max(done, len(images)))
    return sample.result()[0]


def learn_vectors(
    scorer: NormalisedScorer, learn: ImageSet, run: Run[NormalisedFeatures]
) -> Generator[Record, None, Tensor]:
    """Fit the scorer's normaliser to embeddings of normals; return these, normalised: (M, D) float32 on the CPU."""
    embedded = yield from sample_embeddings(scorer, learn, run, limit=run.params.max_items)
    normalised: Tensor = scorer.normalise.fit(embedded)(embedded)
    return normalised


def anomalous_vectors(
    scorer: NormalisedScorer, labelled: Labelled, run: Run[NormalisedFeatures]
) -> Generator[Record, None, Tensor]:
    """Return normalised embeddings of labelled anomalies: (M, D) float32 on the CPU."""
    limit = run.params.max_items
    embedded = yield from sample_embeddings(scorer, labelled.anomalies(), run, limit=limit, stage="labelled")
    normalised: Tensor = scorer.normalise(embedded)
    return normalised


def own(scorer: Scorer, kind: type[S]) -> S:
    """Return a scorer as its class; TypeError for another one."""
    if not isinstance(scorer, kind):
        raise TypeError(f"scorer: a {type(scorer).__name__}, not a {kind.__name__}; use the detector that made it")
    return scorer


def empty_config(backbone: Backbone, run: Run[NormalisedFeatures]) -> dict[str, Any]:
    """Return the configuration entries that every :class:`NormalisedScorer` needs."""
    p = run.params
    return {"backbone": p.backbone, "normalise": p.normalise, "dim": backbone.describe(p.size)[-1].channels}
