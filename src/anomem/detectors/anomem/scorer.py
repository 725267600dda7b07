"""AnoMem's scorer: backbone, one memory per scale, fusion, and a second stage that labels can refit."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from anomem.detectors.anomem.heads import POSITION_LIMIT, SecondStage
from anomem.detectors.anomem.presets import PRESETS
from anomem.errors import ParameterError
from anomem.nn.backbones import DEFAULT_BACKBONE, SMALL_STEM_BELOW, Backbone, load_backbone
from anomem.nn.deviation import MapFusion, ScaleMemory, fitted_limit, spread
from anomem.nn.families import own_stages
from anomem.nn.precision import without_autocast
from anomem.nn.scorer import (
    Deviation,
    MapScorer,
    OutOfSample,
    Output,
    TwoStageScorer,
    frame_config,
    input_hw,
)

if TYPE_CHECKING:
    from anomem.detectors.anomem.detector import AnoMem

T = TypeVar("T")

PROTOTYPE_SIDE = 48
"""Side of the prototype pictures that a model carries, pixels."""


class MultiScaleScorer(TwoStageScorer, MapScorer):
    """Scorer of AnoMem: prepared images to score and map.

    Parameters
    ----------
    config : dict
        ``backbone`` (keyword arguments of :class:`~anomem.nn.backbones.Backbone`), ``size`` and ``input_hw``
        (see :func:`~anomem.nn.scorer.input_hw`); ``scales``: a list of keyword arguments of one
        :class:`~anomem.nn.deviation.ScaleMemory` each, and ``source`` (which of the backbone's maps); ``memory``:
        those that all scales share; ``fusion``: keyword arguments of
        :class:`~anomem.nn.deviation.MapFusion`; ``second_stage``: of
        :class:`~anomem.detectors.anomem.heads.SecondStage`; ``n_prototypes``; ``n_tune`` and ``n_calibration``.
    backbone : Backbone or None
        Backbone with its weights; None: an empty one is built.
    """

    sampled: ClassVar[int] = POSITION_LIMIT
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
        self.scales = _memories(config, [scale["n_items"] for scale in scales])
        hws = [memory.hw for memory in self.memories()]
        self.fusion = MapFusion(hws, input_hw=input_hw(config), **config["fusion"])
        weights, shown = config["fusion"]["weights"], config["fusion"].get("map_weights")
        self.second_stage = SecondStage(channels, weights=weights, map_weights=shown, **config["second_stage"])
        self.fold_scales = torch.nn.ModuleList(_memories(config, n_items) for n_items in config.get("fold_items", ()))
        pictures = (config["n_prototypes"], PROTOTYPE_SIDE, PROTOTYPE_SIDE, 3)
        self.register_buffer("prototype_pictures", torch.zeros(pictures, dtype=torch.uint8))
        self.register_buffer("prototype_usage", torch.zeros(config["n_prototypes"], 2))

    @property
    def grid_hw(self) -> tuple[int, int] | None:
        """Positions of the finest memory, height and width."""
        return self.fusion.grid_hw

    def memories(self) -> list[ScaleMemory]:
        """Return the scales' memories, early scales first."""
        return [scale for scale in self.scales if isinstance(scale, ScaleMemory)]

    def features(self, images: Tensor) -> list[Tensor]:
        """Return the backbone's map per scale, (B, C_s, h_s, w_s)."""
        return self.sources(self.backbone(images))

    def recalled(self, images: Tensor) -> Tensor:
        """Return how often an image recalls each item: (B, N), for every scale shares that sum to 1."""
        embedded = [
            (memory.memory, memory.embed(maps).flatten(2).transpose(1, 2))
            for memory, maps in zip(self.memories(), self.features(images), strict=True)
            if memory.memory is not None
        ]
        shares = [torch.stack([items.usage(image) for image in z]) for items, z in embedded]
        return torch.cat([images.new_zeros(len(images), 0, dtype=torch.float32), *shares], dim=1)

    def sources(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Return the map of each scale among the backbone's maps."""
        return [maps[scale["source"]] for scale in self.config["scales"]]

    def deviations(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Return Delta per scale (Eq. 8), float32 whatever the features' precision."""
        found = zip(self.memories(), self.differences(features), strict=True)
        return [difference[:, : scale.channels] for scale, difference in found]

    def differences(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Return z - HF(z) per scale in the space of the association, whose norms are the deviations."""
        with without_autocast(features[0].device):
            return [scale.difference(f) for scale, f in zip(self._witnesses(), features, strict=True)]

    def forward(self, images: Tensor) -> Output:
        """Score prepared images (B, 3, H, W)."""
        return self._output(self.features(images), evidence=self.second_stage.active)

    def judge(self, images: Tensor) -> Output:
        """Score prepared images without the memories that only the map is made of."""
        if self.second_stage.active:
            return super().judge(images)
        features = self.features(images)
        with without_autocast(features[0].device):
            memories = self.memories()
            return Output(self.fusion.score({s: memories[s].norms(features[s]) for s in self.fusion.judged}))

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
        with without_autocast(features[0].device):
            if not evidence:
                return Output(
                    *self.fusion([scale.norms(f) for scale, f in zip(self.memories(), features, strict=True)])
                )
            norms, seen, deltas = self._deviation(features)
            one_class, map_ = self.fusion(norms)
            if not self.second_stage.active:
                return Output(one_class, map_, one_class, seen)
            fused = self.second_stage.fuse_map(map_, deltas)
            return Output(self.conclude(one_class, seen), fused, one_class, seen)

    def _deviation(self, features: Sequence[Tensor]) -> tuple[list[Tensor], Tensor, list[Tensor]]:
        """Return norms, evidence and Delta."""
        deviations = [scale.deviation(f) for scale, f in zip(self._witnesses(), features, strict=True)]
        deltas, norms = (list(part) for part in zip(*deviations, strict=True))
        if len(self.fold_scales):
            norms = [scale.norms(f) for scale, f in zip(self.memories(), features, strict=True)]
        return norms, self.second_stage.evidence([f.float() for f in features], deltas), deltas

    def align(self) -> None:
        """Turn whitening and items along the channels: each whitening has axes of its own, in no common order."""
        for memory in self.memories():
            _turn(memory, memory.normaliser.to_channels())

    def keep_fold(self, fold: MapScorer) -> None:
        """Keep a fold's memories: they see labelled images as they saw the fold's normals."""
        if not isinstance(fold, MultiScaleScorer):
            raise TypeError("fold: not one of AnoMem's; give one that the same detector made")
        self.fold_scales.append(fold.scales)
        items = [scale["n_items"] for scale in fold.config["scales"]]
        self.config["fold_items"] = [*self.config.get("fold_items", ()), items]

    def fold(self, number: int) -> MultiScaleScorer:
        """Return a view of the scorer whose memories are those without a fold."""
        view = copy.copy(self)
        own = {"scales": self.fold_scales[number], "fold_scales": torch.nn.ModuleList()}
        view._modules = {**self._modules, **own}
        return view

    def relabelled(self) -> MultiScaleScorer:
        """Return a scorer with a second stage of its own to refit; the rest is shared."""
        other = copy.copy(self)
        other._modules = {**self._modules, "second_stage": copy.deepcopy(self.second_stage)}
        other._buffers = dict(self._buffers)
        other.config = copy.deepcopy(self.config)
        return other

    def _witnesses(self) -> list[ScaleMemory]:
        """Return the memories that give evidence: the scorer's own, with folds those without the first fold.

        Heads are fitted to evidence of normals by memories without them. The memory of all normals differs from these
        in size and items, which heads would take for a defect.
        """
        folds = [part for part in self.fold_scales if isinstance(part, torch.nn.ModuleList)]
        scales = folds[0] if folds else self.scales
        return [scale for scale in scales if isinstance(scale, ScaleMemory)]

    def deviation_of(self, maps: list[Tensor]) -> Deviation:
        """Return norms, evidence and Delta of tiles from the backbone's maps."""
        with without_autocast(maps[0].device):
            return Deviation(*self._deviation(self.sources(maps)))

    def fuse(self, norms: Sequence[Tensor]) -> Output:
        """Return one-class score and map."""
        return Output(*self.fusion(norms))

    def standardise_on(self, norms: Sequence[Tensor]) -> None:
        """Learn the distribution of the norms per scale or position."""
        self.fusion.standardise_on(norms, [n[:0] for n in norms])

    def adopt(self, normals: OutOfSample) -> None:
        """Keep normals as tune and calibration normals at once; none is a further one, as each has evidence."""
        if normals.evidence is None:
            raise TypeError("normals without evidence; give those that deviation_of returns")
        config = self.config["second_stage"]
        config["n_positions"] = self.second_stage.remember_positions(normals.deltas)
        config["n_learnt"] = self.second_stage.remember_learnt(self.second_stage.learnt[:0])
        self.adopt_tune(normals.norms, normals.one_class, normals.evidence)
        self.remember("calibration", normals.one_class.clone(), normals.evidence.clone())
        self.remember_folds(normals.folds)

    def adopt_tune(self, norms: Sequence[Tensor], one_class: Tensor, evidence: Tensor) -> None:
        """Keep the second stage's inputs of normals outside the memory, and standardise it on them."""
        self.remember("tune", one_class, evidence)
        device = self.fusion.weights.device
        with torch.inference_mode():
            pixels = self.fusion([n[:256].to(device) for n in norms])[1]
        scores, mix = self.tune_one_class, self.second_stage.mix
        mix[:4] = torch.stack([scores.mean(), spread(scores), pixels.mean(), spread(pixels)]).to(mix.device)
        self.second_stage.standardise_on(self.tune_evidence)


def _memories(config: dict[str, Any], n_items: Sequence[int]) -> torch.nn.ModuleList:
    """Build a memory of some items per scale."""
    own = [{name: value for name, value in scale.items() if name != "source"} for scale in config["scales"]]
    return torch.nn.ModuleList(
        ScaleMemory(**config["memory"], **scale | {"n_items": count}) for scale, count in zip(own, n_items, strict=True)
    )


@torch.no_grad()
def _turn(memory: ScaleMemory, rotation: Tensor | None) -> None:
    """Turn the axes of a whitened space with its items; distances are unchanged."""
    if rotation is None:
        return
    memory.normaliser.projection.copy_(rotation @ memory.normaliser.projection)
    if memory.memory is not None:
        items = memory.memory.items[:, : memory.channels]  # a place may follow
        items.copy_(items @ rotation.T)


def crop_around(image: Tensor, position: int, hw: tuple[int, int]) -> Tensor:
    """Copy the surroundings of one position of a prepared image (3, H, W) uint8: (3, side, side) uint8."""
    height, width = image.shape[-2:]
    down, across = height / hw[0], width / hw[1]
    reach = min(height, width, max(16, round(3 * max(down, across))))
    row, column = divmod(position, hw[1])
    top = int(min(max(0, (row + 0.5) * down - reach / 2), height - reach))
    left = int(min(max(0, (column + 0.5) * across - reach / 2), width - reach))
    return image[:, top : top + reach, left : left + reach].clone()


def picture(patch: Tensor, side: int = PROTOTYPE_SIDE) -> Tensor:
    """Resize a patch (3, h, w) uint8 to a picture (side, side, 3) uint8."""
    resized = F.interpolate(
        patch.float()[None], size=(side, side), mode="bilinear", align_corners=False, antialias=True
    )
    return resized[0].clamp(0, 255).to(torch.uint8).permute(1, 2, 0)


def empty_scorer(p: AnoMem, hw: tuple[int, int] | None = None, backbone: Backbone | None = None) -> MultiScaleScorer:
    """Build the scorer that the hyperparameters describe, its memories unseeded.

    Parameters
    ----------
    p : AnoMem
        Resolved hyperparameters.
    hw : (int, int), optional
        Height and width of the inputs, pixels; by default a square of ``p.size``.
    backbone : Backbone, optional
        Loaded backbone; by default it is loaded.
    """
    hw = hw or (p.size, p.size)
    preset = PRESETS[p.preset]
    stages = own_stages(p.backbone, p.stages, preset["stages"], preset.get("backbone", DEFAULT_BACKBONE))
    options = _backbone_options(p, stages)
    if backbone is None:
        backbone = load_backbone(**options, weights=p.weights).eval()
    maps = backbone.describe(hw)
    sources = [options["stages"].index(stage) for stage in stages] + ([len(maps) - 1] if p.embedding else [])
    shown = _for_stages(p, "fusion.map_weights")
    fusing = {"scale_weights": p.scale_weights, **({"map_weights": shown} if shown else {})}
    own = _each_of(_per_scale(p) | fusing, len(sources))
    weights = {name: own.pop(name) for name in fusing}
    if _normalises_items(p) and any(own["place_weight"]):
        raise ParameterError(f"AnoMem: normalise={p.normalise} leaves no room for places; set place_weight=0")
    scales = [
        {
            "channels": maps[m].channels,
            "hw": list(maps[m].hw),
            "n_items": 0,
            "source": m,
            **{name: values[s] for name, values in own.items()},
            "max_grid": fitted_limit(maps[m].hw, hw, p.size, own["max_grid"][s]),
        }
        for s, m in enumerate(sources)
    ]
    config = {
        "backbone": options,
        **frame_config(hw, p.size),
        "scales": scales,
        "memory": {
            "normalise": p.normalise.removesuffix("-both"),
            "position_mean": p.position_mean,
            **_retrieval(p),
        },
        "fusion": {
            "weights": weights["scale_weights"],
            "map_weights": weights.get("map_weights", shown),
            "reduction": p.reduction,
            "top": p.top,
            "smoothing": p.smoothing,
            "standardise": p.standardise,
            "map_standardise": p.fusion.map_standardise,
            "position_prior": p.fusion.position_prior,
        },
        "second_stage": {"blocks": list(p.stage_two.heads), "distance": p.stage_two.learner == "distance"},
        "n_prototypes": 0,
    }
    return MultiScaleScorer(config, backbone)


def _backbone_options(p: AnoMem, stages: Sequence[int | str]) -> dict[str, Any]:
    from_scratch = p.weights is None
    residual = p.backbone.startswith(("resnet", "wide_resnet"))
    return {
        "name": p.backbone,
        "stages": list(dict.fromkeys(stages)),
        "embedding": p.embedding,
        "width": p.width,
        "small_stem": from_scratch and p.size <= SMALL_STEM_BELOW and residual,
        "folded": not from_scratch,
    }


def _per_scale(p: AnoMem) -> dict[str, Sequence[Any]]:
    """Return the settings of the memories that may differ from scale to scale."""
    settled = {"neighbourhood": p.neighbourhood, "max_grid": p.max_grid}
    return settled | {name: _for_stages(p, name) for name in ("unit_norm", "place_weight")}


def _for_stages(p: AnoMem, name: str) -> Any:
    """Return a parameter's value; a preset's belongs to its own stages, and on others the usual one stands in."""
    *groups, member = name.split(".")
    owner, preset = reduce(getattr, groups, p), PRESETS[p.preset]
    value = getattr(owner, member)
    if tuple(p.stages) != preset["stages"] and value == preset.get(name):
        return owner.declared()[member].metadata["usual"]
    return value


def _retrieval(p: AnoMem) -> dict[str, Any]:
    hard = p.beta == "hard" or p.memory in ("kmeans", "identity")
    return {
        "item_norm": p.normalise.removesuffix("-both") if _normalises_items(p) else "none",
        "per_root_dim": p.association == "scaled",
        "beta": 1.0 if hard else float(p.beta),
        "hard": hard,
        "steps": p.retrieval_steps,
        "association": "euclidean" if p.association == "euclidean" else "dot",
    }


def _normalises_items(p: AnoMem) -> bool:
    return p.normalise.endswith("-both")


def _each_of(settings: Mapping[str, Sequence[Any]], count: int) -> dict[str, list[Any]]:
    """Return values per scale of several parameters; all that do not fit are named at once."""
    wrong = {name: values for name, values in settings.items() if len(values) not in (1, count)}
    if len(wrong) > 1:
        found = ", ".join(f"{name} has {len(values)} values" for name, values in wrong.items())
        example = " ".join(f"{name}={tuple(values[:1])!r}" for name, values in wrong.items())
        raise ParameterError(f"AnoMem: {found} for {count} scales; give one, or one per scale, for example {example}")
    return {name: each(name, values, count) for name, values in settings.items()}


def each(name: str, values: Sequence[T], count: int) -> list[T]:
    """Return one value of a parameter per scale; a single value serves all scales."""
    if len(values) not in (1, count):
        shown = f"{name}={tuple(values)!r}"
        raise ParameterError(
            f"AnoMem: {shown} has {len(values)} values for {count} scales; give one, or one per scale, "
            f"for example {name}={tuple(values[:1])!r}"
        )
    return list(values) * count if len(values) == 1 else list(values)
