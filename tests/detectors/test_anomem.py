"""AnoMem beyond the contract: presets, ablations, first and second stage."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import anomem
from anomem.data.corpus import read_corpus
from anomem.data.imageset import to_tensor
from anomem.data.synthetic import DEFECTS, crops, plant
from anomem.detectors.anomem import AnoMem, Contrast, StageTwo, Views
from anomem.detectors.anomem.presets import PRESETS
from anomem.detectors.anomem.scorer import MultiScaleScorer
from anomem.detectors.anomem.stage_two import _tile_masks
from anomem.errors import InputError, ParameterError
from anomem.fitting import gather_labelled, make_run
from anomem.params import BY_PRESET, parse_assignments
from anomem.runtime.preprocess import Preprocessing
from anomem.runtime.progress import run_to_end
from anomem.types import ANOMALOUS, BoolArray, UInt8Image

TINY: dict[str, Any] = {"size": 64, "memory_size": (32,)}
SCRATCH: dict[str, Any] = {
    "backbone": "resnet18",
    "weights": None,
    "width": 0.25,
    "size": 32,
    "stages": (3, 4),
    "neighbourhood": (1,),
    "scale_weights": (1.0, 2.0),
    "memory_size": (16,),
    "normalise": "unit",
    "beta": 8.0,
}


@pytest.fixture(scope="module")
def images() -> UInt8Image:
    return crops("brick", 40, size=64, half="train", rng=np.random.default_rng(0))


@pytest.fixture(scope="module")
def planted() -> tuple[UInt8Image, BoolArray]:
    rng = np.random.default_rng(1)
    pairs = [
        plant(image, DEFECTS[i % len(DEFECTS)], rng, 0.35)
        for i, image in enumerate(crops("brick", 24, size=64, half="test", rng=rng))
    ]
    return np.stack([image for image, _ in pairs]), np.stack([mask for _, mask in pairs])


@pytest.fixture(scope="module")
def normal() -> UInt8Image:
    return crops("brick", 24, size=64, half="test", rng=np.random.default_rng(2))


@pytest.fixture(scope="module")
def fitted(images: UInt8Image) -> AnoMem:
    return AnoMem(**TINY).fit(images, calibration="split", alpha=0.2)


def _again(fitted: AnoMem) -> AnoMem:
    return copy.copy(fitted)


def _scorer(detector: AnoMem) -> MultiScaleScorer:
    assert isinstance(detector.scorer_, MultiScaleScorer)
    return detector.scorer_


# ------------------------------------------------------------- presets


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_fills_in_every_open_parameter(preset: str) -> None:
    detector = AnoMem(preset=preset)
    resolved = detector.resolve()
    governed = {name: field for name, field in AnoMem.declared_deep() if field.metadata["preset"]}
    assert set(PRESETS[preset]) <= set(governed)
    without_usual = {
        name
        for name, field in governed.items()
        if field.metadata["usual"] is None and not field.metadata["optional"] and name != "stage_one"
    }
    assert without_usual <= set(PRESETS[preset])
    for name, value in PRESETS[preset].items():
        assert resolved[name] == (resolved.stage_one if name == "stage_one" else value)
    assert (resolved.stage_one is not None) == ("stage_one" in PRESETS[preset])
    assert all(getattr(detector, name) in (None, BY_PRESET) for name in governed if "." not in name)


def test_presets_reach_the_scorer(fitted: AnoMem, images: UInt8Image) -> None:
    """Published figures hold for these values: maps come from early layers, scores from all; objects recall softly."""
    surface = _scorer(fitted)
    assert surface.fusion.weights.tolist() == [1.0, 0.0, 1.0, 0.0, 0.75, 0.75, 0.5, 0.5]
    assert surface.fusion.map_weights.tolist() == [0.0, 0.5, 0.0, 1.0, 0.0, 0.75, 0.0, 0.0]
    unit = [memory.normaliser.unit for memory in surface.memories()]
    assert unit == [False, False, False, False, True, False, True, True]
    assert [memory.dim - memory.channels for memory in surface.memories()] == [2, 0, 2, 0, 2, 2, 2, 2]
    assert (surface.fusion.reduction, surface.fusion.standardise) == ("top", "position")
    assert {m.retrieval["hard"] for m in surface.memories()} == {True}
    object_ = _scorer(AnoMem(preset="object", **TINY).fit(images, calibration="split", alpha=0.2))
    assert object_.fusion.weights.tolist() == [1.0, 1.0, 1.0]
    assert (object_.fusion.reduction, object_.fusion.standardise) == ("l2", "scale")
    assert {(m.retrieval["hard"], m.retrieval["beta"]) for m in object_.memories()} == {(False, 16.0)}


def test_scores_without_maps_leave_out_the_memories_of_maps(fitted: AnoMem, images: UInt8Image) -> None:
    scorer, batch = copy.deepcopy(_scorer(fitted)), to_tensor(images[:4])
    with torch.inference_mode():
        whole = scorer(batch)
        assert torch.equal(whole.score, scorer.judge(batch).score)
        for scale in (1, 3):
            scorer.memories()[scale].norms = None  # type: ignore[method-assign,assignment]
        assert torch.equal(scorer.judge(batch).score, whole.score)
        with pytest.raises(TypeError):
            scorer(batch)


def test_other_stages_take_the_usual_settings_unless_given(images: UInt8Image) -> None:
    """A preset's settings per scale belong to its own stages: recipes that name theirs stay as they were."""
    stages = {**TINY, "stages": (2, 3), "neighbourhood": (1,), "scale_weights": (1.0,)}
    plain = _scorer(AnoMem(**stages).fit(images, calibration="split", alpha=0.2))
    assert [(m.normaliser.unit, m.dim - m.channels) for m in plain.memories()] == [(True, 0)] * 2
    assert plain.fusion.shown is None
    given = {"unit_norm": (False, True), "place_weight": (0.0, 2.0), "fusion.map_weights": (1.0, 0.0)}
    own = _scorer(AnoMem(**stages, **given).fit(images, calibration="split", alpha=0.2))
    assert [(m.normaliser.unit, m.dim - m.channels) for m in own.memories()] == [(False, 0), (True, 2)]
    assert own.fusion.shown == [0]


def test_an_explicit_value_wins_over_the_preset(images: UInt8Image) -> None:
    detector = AnoMem(preset="object", beta=3.5, size=32, memory_size=(8,)).fit(images, calibration="split", alpha=0.2)
    scorer = _scorer(detector)
    assert scorer.config["size"] == 32
    assert {m.retrieval["beta"] for m in scorer.memories()} == {3.5}
    assert (detector.preset, detector.beta, detector.reduction) == ("object", 3.5, None)
    assert scorer.config["fusion"]["reduction"] == "l2"


def test_a_file_keeps_what_was_given_and_what_it_became(tmp_path: Path, fitted: AnoMem) -> None:
    from anomem.modelfile import read_manifest

    fitted.save(tmp_path / "model")
    manifest = read_manifest(tmp_path / "model")
    assert manifest.params["reduction"] is None
    assert manifest.resolved["reduction"] == PRESETS["surface"]["reduction"]
    assert anomem.load(tmp_path / "model").get_params() == fitted.get_params()


def test_values_that_do_not_fit_the_scales_are_named(images: UInt8Image) -> None:
    with pytest.raises(ParameterError, match="neighbourhood has 2 values, scale_weights has 8 values for 3 scales"):
        AnoMem(size=64, stages=(2, 3, 4), neighbourhood=(1, 1)).fit(images, calibration="split", alpha=0.2)


def test_all_values_that_do_not_fit_are_named_at_once_with_some_that_do(images: UInt8Image) -> None:
    with pytest.raises(ParameterError, match="neighbourhood has 8 values, scale_weights has 8 values for 2") as error:
        AnoMem(size=64, stages=(3, 4)).fit(images, calibration="split", alpha=0.2)
    example = str(error.value).split("for example ")[1].split(" ")
    fitting = parse_assignments(AnoMem, example)
    AnoMem(size=64, stages=(3, 4), memory_size=(8,), **fitting).fit(images, calibration="split", alpha=0.2)


# ------------------------------------------------------------- ablations and settings


@pytest.mark.parametrize(
    "params",
    [
        {"memory": "none", "memory_size": None},
        {"memory": "kmeans"},
        {"seeding": "random", "normalise": "raw", "beta": 2.0, "retrieval_steps": None, "association": "dot"},
        {"seeding": "kmeans", "beta": 16.0, "normalise": "unit"},
        {"normalise": "layernorm", "beta": 2.0},
        {"standardise": "none", "reduction": "l2"},
        {"standardise": "scale", "reduction": "max"},
        {"stages": (3,), "neighbourhood": (1,), "scale_weights": (1.0,)},
        {"aspect": "letterbox"},
        {"preset": "object"},
        {"max_grid": (2,)},
        {"place_weight": (1.0,), "normalise": "layernorm", "beta": 8.0, "stage_two": StageTwo(heads=("pooled", "top"))},
        {"unit_norm": (False,), "position_mean": False, "fusion.map_weights": None},
    ],
    ids=str,
)
def test_every_setting_fits_and_scores(
    images: UInt8Image, normal: UInt8Image, params: dict[str, Any], tmp_path: Path
) -> None:
    sizes = {"size": 64} if params.get("memory") == "none" else TINY
    detector = AnoMem(**{**sizes, **params}).fit(images, calibration="split", alpha=0.2)
    scores = detector.anomaly_score(normal)
    assert np.isfinite(scores).all()
    assert np.ptp(scores) > 0
    detector.save(tmp_path / "model")
    assert np.array_equal(anomem.load(tmp_path / "model").anomaly_score(normal), scores)


def test_memory_size_is_a_limit_and_share_keeps_it_from_remembering_all(images: UInt8Image) -> None:
    sizes = {}
    for share in (1, 8):
        options = {"stages": (3, 4), "neighbourhood": (1,), "scale_weights": (1.0,)}
        scorer = _scorer(
            AnoMem(size=64, memory_size=(40,), memory_share=share, **options).fit(
                images, calibration="split", alpha=0.2
            )
        )
        sizes[share] = [m.memory.n_items for m in scorer.memories() if m.memory is not None]
    learnt = 22
    assert sizes[1] == [40, 40]
    assert sizes[8] == [40, learnt * 4 // 8]


def test_prototypes_are_pictures_of_learnt_surroundings(fitted: AnoMem) -> None:
    prototypes = fitted.prototypes()
    assert len(prototypes) >= len(_scorer(fitted).memories())
    for caption, picture in prototypes:
        assert caption.startswith("scale ")
        assert (picture.shape, picture.dtype) == ((48, 48, 3), np.uint8)
        assert picture.std() > 0


# ------------------------------------------------------------- first stage


def _trained(images: UInt8Image, labels: list[int] | None = None, **params: Any) -> AnoMem:
    return AnoMem(**{"stage_one.steps": 3, "stage_one.batch": 8, **params}).fit(
        images, labels, calibration="split", alpha=0.2
    )


def _changed(before: AnoMem, after: AnoMem, part: str) -> set[str]:
    old, new = before.scorer_.state_dict(), after.scorer_.state_dict()
    return {k for k, v in old.items() if part in k and v.shape == new[k].shape and not torch.equal(v, new[k])}


@pytest.mark.parametrize("contrast", ["simclr", "barlow"])
def test_frozen_backbone_memories_alone_learn(images: UInt8Image, contrast: str) -> None:
    seeded = AnoMem(**TINY).fit(images, calibration="split", alpha=0.2)
    trained = _trained(images, **TINY, stage_one__contrast__base=contrast)
    assert not _changed(seeded, trained, "backbone.")
    assert len(_changed(seeded, trained, "memory.items")) == len(_scorer(trained).memories())
    assert [r.stage for r in trained.history_].count("stage 1") >= 1
    (record,) = [r for r in trained.history_ if r.stage == "stage 1"][-1:]
    assert np.isfinite(record.facts["loss"])
    assert record.facts["lr"] > 0 or record.step == record.total
    assert {"effective_items_1", "seconds"} <= set(record.facts)


def test_last_stages_are_trained_alone(images: UInt8Image) -> None:
    options = {**TINY, "stages": (2, 3, 4), "neighbourhood": (1,), "scale_weights": (1.0,)}
    seeded = AnoMem(**options).fit(images, calibration="split", alpha=0.2)
    changed = _changed(seeded, _trained(images, **options, stage_one__train_backbone="last"), "backbone.")
    assert changed
    assert all("blocks.5" in name or "blocks.6" in name for name in changed), sorted(changed)[:5]
    assert not any("running_" in name for name in changed), "statistics of the weights stay"


def test_all_of_a_pretrained_backbone_is_trained(images: UInt8Image) -> None:
    options = {**TINY, "stages": (2, 3), "neighbourhood": (1,), "scale_weights": (1.0,)}
    seeded = AnoMem(**options).fit(images, calibration="split", alpha=0.2)
    trained = _trained(images, **options, stage_one__train_backbone="all")
    weights = {n for n, _ in _scorer(trained).backbone.named_parameters()}
    changed = {n.removeprefix("backbone.") for n in _changed(seeded, trained, "backbone.")}
    assert weights <= changed


@pytest.mark.parametrize("projection_dim", [None, 16])
def test_from_scratch_every_parameter_learns(
    images: UInt8Image, normal: UInt8Image, projection_dim: int | None
) -> None:
    untrained = AnoMem(**SCRATCH).fit(images, calibration="split", alpha=0.2)
    trained = _trained(images, **SCRATCH, stage_one__projection_dim=projection_dim)
    scorer = _scorer(trained)
    assert [m.hw for m in scorer.memories()] == [(8, 8), (4, 4)]
    learnt = {f"backbone.{n}" for n, _ in scorer.backbone.named_parameters()}
    learnt |= {f"backbone.{n}" for n, _ in scorer.backbone.named_buffers() if "running_" in n}
    learnt |= {f"scales.{s}.memory.items" for s in range(2)}
    assert learnt <= _changed(untrained, trained, "")
    assert not any(p.requires_grad for p in scorer.parameters())
    assert np.isfinite(trained.anomaly_score(normal)).all()


@pytest.mark.parametrize(
    "params",
    [
        {"stage_one.contrast": Contrast(variance="sample")},
        {"stage_one.contrast.hinge": True},
        {"stage_one.geometry": "shared"},
        {"stage_one.contrast.base": "barlow"},
        {"stage_one.contrast.ratios": (1.0,)},
        {"stage_one.views": Views(hue=0.1, grey=0.2, blur=1.0)},
    ],
    ids=str,
)
def test_every_recipe_of_the_first_stage_runs(images: UInt8Image, params: dict[str, Any]) -> None:
    detector = _trained(images, **{**SCRATCH, **params})
    losses = [r.facts["loss"] for r in detector.history_ if r.stage == "stage 1"]
    assert losses
    assert np.isfinite(losses).all()


def test_labelled_anomalies_take_part_in_the_first_stage(
    images: UInt8Image, planted: tuple[UInt8Image, BoolArray]
) -> None:
    both = np.concatenate([images, planted[0][:8]])
    without = _trained(images, **SCRATCH)
    with_labels = _trained(both, [0] * len(images) + [1] * 8, **SCRATCH)
    assert _changed(without, with_labels, "memory.items")
    assert with_labels.counts_["n_labelled"] == 8


def test_training_is_reproducible(images: UInt8Image, normal: UInt8Image) -> None:
    scores = []
    for seed in (5, 6):
        torch.manual_seed(seed)
        scores.append(_trained(images, **SCRATCH).anomaly_score(normal))
    assert np.array_equal(*scores)


def test_training_nothing_is_refused(images: UInt8Image) -> None:
    with pytest.raises(ParameterError, match="train"):
        _trained(images, size=64, memory="none")


def test_a_rate_that_explodes_is_a_one_line_error(images: UInt8Image) -> None:
    with pytest.raises(ParameterError, match="lr"):
        _trained(images, **{**SCRATCH, "stage_one.lr": 1e30, "stage_one.steps": 8})


# ------------------------------------------------------------- second stage


def test_labelled_normals_may_stand_among_defects(
    fitted: AnoMem, normal: UInt8Image, planted: tuple[UInt8Image, BoolArray]
) -> None:
    both = np.concatenate([planted[0][:6], normal[:4]])
    detector = _again(fitted).label(both, [1] * 6 + [0] * 4)
    assert detector.counts_["n_labelled"] == 10
    with pytest.raises(InputError, match="labelled both normal and anomalous"):
        _again(fitted).label(np.concatenate([planted[0][:6], planted[0][:1]]), [1] * 6 + [0])


def test_one_defect_is_enough(fitted: AnoMem, planted: tuple[UInt8Image, BoolArray], normal: UInt8Image) -> None:
    detector = _again(fitted).label(planted[0][:1])
    assert np.isfinite(detector.anomaly_score(normal)).all()


def test_an_explicit_layer_of_another_backbone_is_taken(images: UInt8Image) -> None:
    detector = AnoMem(**{**SCRATCH, "stages": ("layer1", "layer3")}).fit(images, calibration="split", alpha=0.2)
    assert _scorer(detector).config["backbone"]["stages"] == ["layer1", "layer3"]


def test_few_normals_among_many_labels_still_train_the_memory(
    images: UInt8Image, planted: tuple[UInt8Image, BoolArray]
) -> None:
    defects = np.concatenate([planted[0], planted[0][:, ::-1]])  # more than three for each of 12 learnt normals
    both = np.concatenate([images[:30], defects])
    detector = _trained(both, [0] * 30 + [1] * len(defects), **{**SCRATCH, "stage_one.batch": 2})
    assert detector.counts_["n_labelled"] == len(defects)


def test_heads_look_at_features_of_the_trained_backbone(images: UInt8Image) -> None:
    """Pooled features of learnt normals that stage 2 is fitted to are those that the trained backbone gives."""
    detector = _trained(images, **SCRATCH, stage_two__heads=("pooled",))
    scorer = _scorer(detector)
    stage = scorer.second_stage
    with torch.inference_mode():
        prepared = np.stack([detector.preprocessing_.cut(image)[0] for image in images])
        seen = stage.pooled(scorer.features(torch.from_numpy(prepared).permute(0, 3, 1, 2)))
    assert float(torch.cdist(stage.learnt.float(), seen).amin(dim=1).max()) < 1e-2


def test_maps_of_single_positions_stay_finite(
    images: UInt8Image, planted: tuple[UInt8Image, BoolArray], normal: UInt8Image
) -> None:
    detector = AnoMem(preset="object", size=64, memory_size=(8,), max_grid=(1,)).fit(
        images, calibration="split", alpha=0.2
    )
    detector.label(planted[0][:6])
    assert np.isfinite(np.asarray(detector.anomaly_map(normal[:3]))).all()


def test_a_defect_too_small_to_survive_resizing_is_not_taken_for_clean(fitted: AnoMem) -> None:
    image = crops("brick", 1, size=512, half="test", rng=np.random.default_rng(5))
    mask = np.zeros((1, 512, 512), dtype=bool)
    mask[0, 100:102, 300:302] = True
    corpus = run_to_end(read_corpus(image, masks=list(mask), default_label=ANOMALOUS))
    run = make_run(fitted.resolve(), device="cpu", fit_precision="float32", batch_size=4, workers=0)
    nothing = dict.fromkeys(("learn", "tune", "calibration"), frozenset[int]())
    labelled, _ = gather_labelled(corpus, np.arange(1), Preprocessing(64), nothing, run)
    (prepared,) = next(labelled.images.prepared(1))
    assert _tile_masks(labelled, 0, prepared)(slice(None))[0, 0, 12, 37] == 1
    letterboxed, _ = gather_labelled(corpus, np.arange(1), Preprocessing(64, letterbox=True), nothing, run)
    assert 0 < float(_tile_masks(letterboxed, 0, prepared)(slice(None)).mean()) < 0.01
