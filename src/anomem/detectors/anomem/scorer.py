"""AnoMem's scorer: backbone, one memory per scale, fusion, and a second stage that labels can refit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from anomem.detectors.anomem.heads import SecondStage
from anomem.detectors.anomem.presets import PRESETS
from anomem.errors import ParameterError
from anomem.nn.backbones import DEFAULT_BACKBONE, SMALL_STEM_BELOW, Backbone, load_backbone
from anomem.nn.deviation import MapFusion, ScaleMemory
from anomem.nn.scorer import Output, TwoStageScorer

if TYPE_CHECKING:
    from anomem.detectors.anomem.detector import AnoMem

T = TypeVar("T")

PROTOTYPE_SIDE = 48
"""Side of the prototype pictures that a model carries, pixels."""


class MultiScaleScorer(TwoStageScorer):
    """Scorer of AnoMem: prepared images to score and map.

    Parameters
    ----------
    config : dict
        ``backbone`` (keyword arguments of :class:`~anomem.nn.backbones.Backbone`), ``size``; ``scales``: a list of
        keyword arguments of one :class:`~anomem.nn.deviation.ScaleMemory` each, and ``source`` (which of the
        backbone's maps); ``memory``: those that all scales share; ``fusion``: keyword arguments of
        :class:`~anomem.nn.deviation.MapFusion`; ``second_stage``: of
        :class:`~anomem.detectors.anomem.heads.SecondStage`; ``n_prototypes``; ``n_tune`` and ``n_calibration``.
    backbone : Backbone or None
        Backbone with its weights; None: an empty one is built.
    """

    prototype_pictures: Tensor
    prototype_usage: Tensor

    def __init__(self, config: dict[str, Any], backbone: Backbone | None = None) -> None:
        scales = config["scales"]
        channels = [scale["channels"] for scale in scales]
        sources = {scale["source"] for scale in scales}
        n_maps = len(config["backbone"]["stages"]) + bool(config["backbone"].get("embedding"))
        if not sources <= set(range(n_maps)):
            raise ParameterError("scales: a source is none of the backbone's maps; give an existing one")
        super().__init__(config, SecondStage.evidence_dim(channels, config["second_stage"]["blocks"]))
        self.backbone = backbone or Backbone(**config["backbone"])
        self.scales = torch.nn.ModuleList(
            ScaleMemory(**config["memory"], **{name: value for name, value in scale.items() if name != "source"})
            for scale in scales
        )
        self.fusion = MapFusion([memory.hw for memory in self.memories()], size=config["size"], **config["fusion"])
        weights, shown = config["fusion"]["weights"], config["fusion"].get("map_weights")
        self.second_stage = SecondStage(channels, weights=weights, map_weights=shown, **config["second_stage"])
        pictures = (config["n_prototypes"], PROTOTYPE_SIDE, PROTOTYPE_SIDE, 3)
        self.register_buffer("prototype_pictures", torch.zeros(pictures, dtype=torch.uint8))
        self.register_buffer("prototype_usage", torch.zeros(config["n_prototypes"], 2))

    def memories(self) -> list[ScaleMemory]:
        """Return the scales' memories, early scales first."""
        return [scale for scale in self.scales if isinstance(scale, ScaleMemory)]

    def features(self, images: Tensor) -> list[Tensor]:
        """Return the backbone's map per scale, (B, C_s, h_s, w_s)."""
        maps = self.backbone(images)
        return [maps[scale["source"]] for scale in self.config["scales"]]

    def deviations(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Return Delta per scale (Eq. 8), float32 whatever the features' precision."""
        with torch.autocast(features[0].device.type, enabled=False):
            return [scale(f) for scale, f in zip(self.scales, features, strict=True)]

    def forward(self, images: Tensor) -> Output:
        """Score prepared images (B, 3, S, S)."""
        return self._output(self.features(images), evidence=self.second_stage.active)

    def observe(self, images: Tensor) -> Output:
        """Score prepared images, and return the one-class score and the evidence as well."""
        return self._output(self.features(images), evidence=True)

    def score_features(self, features: Sequence[Tensor]) -> Output:
        """Score the maps that :meth:`features` returned, to measure many settings on one frozen backbone."""
        return self._output(features, evidence=True)

    def conclude(self, one_class: Tensor, evidence: Tensor) -> Tensor:
        """Return final scores of the second stage: the one-class score mixed with the heads' predictions."""
        score: Tensor = self.second_stage(one_class, evidence, self.tune_evidence)
        return score

    def _output(self, features: Sequence[Tensor], *, evidence: bool) -> Output:
        with torch.autocast(features[0].device.type, enabled=False):
            if not evidence:
                return Output(
                    *self.fusion([scale.norms(f) for scale, f in zip(self.memories(), features, strict=True)])
                )
            deviations = [scale.deviation(f) for scale, f in zip(self.memories(), features, strict=True)]
            deltas, norms = (list(part) for part in zip(*deviations, strict=True))
            one_class, map_ = self.fusion(norms)
            seen = self.second_stage.evidence([f.float() for f in features], deltas)
            if not self.second_stage.active:
                return Output(one_class, map_, one_class, seen)
            fused = self.second_stage.fuse_map(map_, deltas)
            return Output(self.conclude(one_class, seen), fused, one_class, seen)


def crop_around(image: Tensor, position: int, hw: tuple[int, int], side: int = PROTOTYPE_SIDE) -> Tensor:
    """Cut the surroundings of one position out of a prepared image (3, S, S) uint8: (side, side, 3) uint8."""
    size = image.shape[-1]
    stride = size / hw[0]
    reach = min(size, max(16, round(3 * stride)))
    row, column = divmod(position, hw[1])
    top = int(min(max(0, (row + 0.5) * stride - reach / 2), size - reach))
    left = int(min(max(0, (column + 0.5) * stride - reach / 2), size - reach))
    patch = image[:, top : top + reach, left : left + reach].float()[None]
    resized = F.interpolate(patch, size=(side, side), mode="bilinear", align_corners=False, antialias=True)
    return resized[0].clamp(0, 255).to(torch.uint8).permute(1, 2, 0)


def empty_scorer(p: AnoMem) -> MultiScaleScorer:
    """Build the scorer that the hyperparameters describe, with its backbone loaded and its memories unseeded."""
    from_scratch = p.weights is None
    stages = list(p.stages)
    if p.backbone != DEFAULT_BACKBONE and tuple(stages) == PRESETS[p.preset]["stages"]:
        # A preset names layers of the default backbone; another backbone uses its last map instead.
        stages = [s if isinstance(s, int) else -1 for s in stages]
    residual = p.backbone.startswith(("resnet", "wide_resnet"))
    options: dict[str, Any] = {
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
    # Their values in a preset belong to its stages; other stages are as without a preset.
    same_stages = tuple(p.stages) == PRESETS[p.preset]["stages"]
    unit_norm, map_weights = (p.unit_norm, p.map_weights) if same_stages else _unless_preset(p)
    own = {
        "neighbourhood": each("neighbourhood", p.neighbourhood, len(sources)),
        "max_grid": each("max_grid", p.max_grid, len(sources)),
        "unit_norm": each("unit_norm", unit_norm, len(sources)),
    }
    scales = [
        {"channels": maps[m].channels, "hw": list(maps[m].hw), "n_items": 0, "source": m}
        | {name: values[s] for name, values in own.items()}
        for s, m in enumerate(sources)
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
            "weights": each("scale_weights", p.scale_weights, len(scales)),
            "map_weights": None if map_weights is None else each("map_weights", map_weights, len(scales)),
            "reduction": p.reduction,
            "top": p.top,
            "smoothing": p.smoothing,
            "standardise": p.standardise,
        },
        "second_stage": {"blocks": list(p.stage_two.heads), "distance": p.stage_two.learner == "distance"},
        "n_prototypes": 0,
    }
    return MultiScaleScorer(config, backbone)


def _unless_preset(p: AnoMem) -> tuple[tuple[bool, ...], tuple[float, ...] | None]:
    """Return `unit_norm` and `map_weights` where they were given, else their values without a preset."""
    preset = PRESETS[p.preset]
    unit_norm = (True,) if p.unit_norm == preset.get("unit_norm") else p.unit_norm
    return unit_norm, None if p.map_weights == preset.get("map_weights") else p.map_weights


def _retrieval(p: AnoMem) -> dict[str, Any]:
    hard = p.beta == "hard" or p.memory == "kmeans"
    return {
        "beta": 1.0 if hard else float(p.beta),
        "hard": hard,
        "steps": p.retrieval_steps,
        "association": p.association,
    }


def each(name: str, values: Sequence[T], count: int) -> list[T]:
    """Return one value of a parameter per scale; a single value serves all scales."""
    if len(values) not in (1, count):
        shown = f"{name}={tuple(values)!r}"
        raise ParameterError(f"AnoMem: {shown} has {len(values)} values for {count} scales; give one, or one per scale")
    return list(values) * count if len(values) == 1 else list(values)
