"""PMB: presets, ablations, scores, and the effect of its parts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from anomem.detectors import load
from anomem.detectors.reconstruction.partition_memory import BlockMemory, Memory, PartitionMemory
from anomem.detectors.reconstruction.pmb import PMB, PRESETS
from anomem.detectors.reconstruction.scorer import ReconstructionScorer
from anomem.errors import ParameterError
from anomem.metrics import auroc
from anomem.types import FloatArray, UInt8Image

TINY: dict[str, Any] = {
    "size": 16,
    "widths": (4, 6, 8),
    "levels": 3,
    "memory_levels": 2,
    "partitions": (4, 2),
    "items": (5,),
    "train_steps": 4,
    "train_batch": 8,
}


def _parts(count: int, *, seed: int, marked: bool = False, shape: str = "bars") -> UInt8Image:
    """Aligned parts of 32 px: two bars (or a frame) whose brightness varies, some with a dark mark."""
    rng = np.random.default_rng(seed)
    images = np.empty((count, 32, 32, 3), np.uint8)
    for image in images:
        canvas = np.full((32, 32), 40.0)
        level = rng.uniform(150, 230)
        if shape == "bars":
            canvas[6:11, 4:28] = level
            canvas[20:26, 4:28] = level
        else:
            canvas[4:28, 4:28] = level
            canvas[10:22, 10:22] = 40.0
        if marked:
            top, left = rng.integers(4, 22, 2)
            canvas[top : top + 6, left : left + 6] = 255 - canvas[top : top + 6, left : left + 6]
        image[...] = (canvas + rng.normal(0, 3, canvas.shape)).clip(0, 255)[..., None]
    return images


def _fitted(**params: Any) -> PMB:
    memory, given = params.get("memory", "partition"), {**TINY, **params}
    if memory != "partition":
        del given["partitions"]
    if memory in ("skip", "none"):
        del given["items"]
    return PMB(**given).fit(_parts(48, seed=0), alpha=0.2, device="cpu", fit_precision="float32")


def _memories(detector: PMB) -> dict[int, Memory]:
    scorer = detector.scorer_
    assert isinstance(scorer, ReconstructionScorer)
    return {int(level): link for level, link in scorer.autoencoder.links.items() if isinstance(link, Memory)}


@pytest.fixture(scope="module")
def detector() -> PMB:
    return _fitted()


def _by_hand(detector: PMB, images: UInt8Image, share: float) -> tuple[FloatArray, FloatArray]:
    """Eq. 1 and 6 from the reconstruction, pixel by pixel; images have the model's size."""
    scorer = detector.scorer_
    assert isinstance(scorer, ReconstructionScorer)
    with torch.inference_mode():
        found = scorer.reconstruct(torch.from_numpy(images).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).numpy()
    error = np.abs(images / 255.0 - found).mean(axis=3)
    count = round(share * error[0].size)
    mu = np.array([np.sort(e.ravel())[:count].mean() if count else 0.0 for e in error])
    corrected = np.maximum(error - mu[:, None, None], 0)
    return corrected.sum(axis=(1, 2)), corrected


@pytest.mark.parametrize("share", [0.0, 0.5, 0.9])
def test_the_score_is_the_sum_of_the_corrected_error(share: float) -> None:
    detector = _fitted(error_share=share)
    images = np.ascontiguousarray(_parts(6, seed=1, marked=True)[:, ::2, ::2])
    scores, maps = _by_hand(detector, images, share)
    assert detector.anomaly_score(images, device="cpu") == pytest.approx(scores, rel=1e-4)
    assert np.asarray(detector.anomaly_map(images, device="cpu")) == pytest.approx(maps, abs=1e-5)


def test_presets_are_the_papers_settings() -> None:
    surface, objects = (PMB(preset=name).resolve() for name in ("surface", "object"))
    assert (surface["levels"], surface["memory_levels"]) == (objects["levels"], objects["memory_levels"]) == (5, 4)
    assert surface["partitions"][:4] == (32, 16, 16, 8)
    assert objects["partitions"][:4] == (16, 16, 16, 8)
    assert surface["items"][:4] == objects["items"][:4] == (150, 200, 200, 200)
    digits, medical = (PMB(preset=name).resolve() for name in ("digits", "medical"))
    assert (digits["levels"], digits["memory_levels"], digits["train_batch"]) == (3, 3, 64)
    assert (digits["partitions"], digits["items"]) == ((1,), (10,))
    assert (medical["levels"], medical["memory_levels"], medical["train_batch"]) == (4, 3, 20)
    assert (medical["partitions"], medical["items"]) == ((2,), (10,))
    for preset in PRESETS:
        resolved = PMB(preset=preset).resolve()
        assert (resolved["error_share"], resolved["ssim_weight"], resolved["lr"]) == (0.5, 0.1, 0.002)
        assert (resolved["train_steps"] <= 3000) == (preset != "paper"), "only the paper's recipe takes longer"


def test_a_fifth_memory_has_8_strips_and_200_items() -> None:
    params = {"widths": (2, 2, 2, 2, 2), "memory_levels": 5, "train_steps": 1, "train_batch": 2}
    detector = PMB(**params).fit(_parts(30, seed=0), alpha=0.2, device="cpu")
    shapes = {level: tuple(memory.items.shape) for level, memory in _memories(detector).items()}
    assert shapes == {0: (32, 150, 512), 1: (16, 200, 256), 2: (16, 200, 64), 3: (8, 200, 32), 4: (8, 200, 8)}


@pytest.mark.parametrize(
    ("params", "links"),
    [
        ({}, ("PartitionMemory", "PartitionMemory", "Identity")),
        ({"memory_levels": 3, "partitions": (2,)}, ("PartitionMemory",) * 3),
        ({"memory_levels": 0}, ("Identity",) * 3),
        ({"memory": "skip"}, ("Identity",) * 3),
        ({"memory": "none"}, (None, None, "Identity")),
        ({"memory": "none", "memory_levels": 3}, (None, None, "Identity")),
        ({"memory": "none", "memory_levels": 1}, (None, "Identity", "Identity")),
        ({"memory": "position"}, ("BlockMemory", "BlockMemory", "Identity")),
        ({"memory": "block", "block": 2}, ("BlockMemory", "BlockMemory", "Identity")),
        ({"levels": 2, "memory_levels": 1}, ("PartitionMemory", "Identity")),
    ],
    ids=str,
)
def test_ablations_are_parameters(params: dict[str, Any], links: tuple[str | None, ...]) -> None:
    detector = _fitted(**params)
    found = detector.scorer_.autoencoder.links
    names = [type(found[str(i)]).__name__ if str(i) in found else None for i in range(len(links))]
    assert tuple(names) == links
    assert np.isfinite(detector.anomaly_score(_parts(3, seed=1), device="cpu")).all()


def test_sizes_of_queries_follow_k_m_and_block() -> None:
    partition = _memories(_fitted())
    assert {i: tuple(m.items.shape) for i, m in partition.items()} == {0: (4, 5, 4 * 16), 1: (2, 5, 4 * 8)}
    assert all(isinstance(m, PartitionMemory) for m in partition.values())
    position, block = _memories(_fitted(memory="position")), _memories(_fitted(memory="block", block=2))
    assert {i: tuple(m.items.shape) for i, m in position.items()} == {0: (1, 5, 4), 1: (1, 5, 6)}
    assert {i: tuple(m.items.shape) for i, m in block.items()} == {0: (1, 5, 4 * 4), 1: (1, 5, 6 * 4)}
    assert all(isinstance(m, BlockMemory) for m in block.values())


def test_parameters_reach_the_memories_and_the_loss() -> None:
    for memory in _memories(_fitted(renormalise=False, temperature=0.1)).values():
        assert not memory.addressing.renormalise
        assert memory.addressing.temperature == 0.1
        assert memory.addressing.shrink == "subtract"
    images = _parts(6, seed=1)
    scores = [_fitted(loss=kind).anomaly_score(images, device="cpu") for kind in ("mse+ssim", "mse", "ssim")]
    assert not np.allclose(scores[0], scores[1])
    assert not np.allclose(scores[0], scores[2])


def test_memories_are_narrower_than_encoder_and_decoder() -> None:
    detector = _fitted(memory_channels=(3,), activation="leaky")
    autoencoder = detector.scorer_.autoencoder
    for level, width in ((0, 4), (1, 6)):
        narrowing, memory = autoencoder.links[str(level)]
        assert (narrowing.in_channels, narrowing.out_channels) == (width, 3)
        queries = memory.gather(narrowing(torch.ones(2, width, 16 >> level, 16 >> level)))
        assert queries.shape[1] == 2 * 3, "a query per channel that reaches the memory"
        assert autoencoder.merge[level][0].in_channels == width + 3
    rectifiers = [m for m in autoencoder.modules() if isinstance(m, torch.nn.ReLU | torch.nn.LeakyReLU)]
    assert {type(m) for m in rectifiers} == {torch.nn.LeakyReLU}
    whole = _fitted(memory="position", memory_levels=3, memory_channels=(2, 3, 5))
    sizes = {int(i): tuple(link[1].items.shape) for i, link in whole.scorer_.autoencoder.links.items()}
    assert sizes == {0: (1, 5, 2), 1: (1, 5, 3), 2: (1, 5, 5)}


def test_items_start_as_features_of_normals() -> None:
    still: dict[str, Any] = {"train_steps": 1, "lr": 1e-12}
    for seeding, is_feature in (("features", True), ("random", False)):
        for memory in _memories(_fitted(seeding=seeding, **still)).values():
            items = memory.items.detach()
            assert bool((items >= -1e-6).all()) == is_feature, "what leaves a ReLU is not negative"
            assert bool((items.flatten(1).std(dim=1) > 0.1).all()) == is_feature


def test_squared_errors_are_summed_as_they_are() -> None:
    detector = _fitted(error="squared")
    images = np.ascontiguousarray(_parts(3, seed=1, marked=True)[:, ::2, ::2])
    with torch.inference_mode():
        found = detector.scorer_.reconstruct(torch.from_numpy(images).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).numpy()
    expected = np.square(images / 255.0 - found).mean(axis=3).sum(axis=(1, 2))
    assert detector.anomaly_score(images, device="cpu") == pytest.approx(expected, rel=1e-4)


def test_training_trains_every_part(detector: PMB) -> None:
    untrained = _fitted(train_steps=1, lr=1e-12).scorer_.state_dict()
    for name, tensor in detector.scorer_.state_dict().items():
        assert tensor.isfinite().all()
        assert not torch.equal(tensor, untrained[name]), name


def test_the_history_tells_of_the_loss() -> None:
    records = [r for r in _fitted(train_steps=40, lr=0.01).history_ if r.stage == "train"]
    assert [r.step for r in records] == [10, 20, 30, 40]
    assert records[-1].facts["loss"] < 0.5 * records[0].facts["loss"]


def test_constant_images_have_finite_maps(detector: PMB) -> None:
    images = np.stack([np.full((20, 30, 3), level, np.uint8) for level in (0, 127, 255)])
    maps = np.asarray(detector.anomaly_map(images, device="cpu"))
    assert np.isfinite(maps).all()
    assert (maps >= 0).all()


def test_what_does_not_fit_together_is_named() -> None:
    for params, words in (
        ({"partitions": (3,)}, "partitions=3"),
        ({"size": 18}, "size=18"),
        ({"widths": (4, 6)}, "widths"),
        ({"memory_levels": 4}, "memory_levels=4"),
        ({"memory_levels": 3}, r"partitions=\(4, 2\) has no value for level 3"),
        ({"memory_levels": 3, "partitions": (2,), "items": (5, 5)}, r"items=\(5, 5\) has no value for level 3"),
        ({"memory": "block", "block": 3}, "block=3"),
    ):
        with pytest.raises(ParameterError, match=words):
            _fitted(**params)


def test_a_file_brings_every_kind_of_link_back(tmp_path: Path) -> None:
    images = _parts(4, seed=1)
    more: dict[str, dict[str, Any]] = {"block": {"block": 2}, "position": {"memory_channels": (2,)}}
    for memory in ("partition", "position", "block", "skip", "none"):
        detector = _fitted(memory=memory, **more.get(memory, {}))
        detector.save(tmp_path / memory)
        json.dumps(detector.scorer_.config)
        found = load(tmp_path / memory).anomaly_score(images, device="cpu")
        assert np.array_equal(found, detector.anomaly_score(images, device="cpu"))


TRAINED: dict[str, Any] = {
    **TINY,
    "widths": (8, 16, 16),
    "memory_levels": 3,
    "partitions": (1,),
    "train_steps": 150,
    "train_batch": 16,
    "lr": 0.01,
}


def test_marked_parts_rank_above_whole_ones_and_maps_show_the_mark() -> None:
    detector = _fitted(**TRAINED)
    whole, marked = _parts(20, seed=1), _parts(20, seed=2, marked=True)
    scores = detector.anomaly_score(np.concatenate([whole, marked]), device="cpu")
    assert auroc(scores, [0] * 20 + [1] * 20) > 0.95
    maps = np.asarray(detector.anomaly_map(marked, device="cpu"))
    rng, hits = np.random.default_rng(2), 0
    for values in maps:
        rng.uniform(150, 230)
        top, left = rng.integers(4, 22, 2)
        rng.normal(0, 3, (32, 32))
        i, j = np.unravel_index(values.argmax(), values.shape)
        hits += top - 2 <= i < top + 8 and left - 2 <= j < left + 8
    assert hits >= 16


@pytest.mark.slow
def test_the_memory_reconstructs_another_shape_worse_than_skips_do() -> None:
    normal, other = _parts(20, seed=1), _parts(20, seed=2, shape="frame")
    ratios = {}
    for memory in ("partition", "skip"):
        scores = _fitted(**{**TRAINED, "memory": memory}).anomaly_score(np.concatenate([normal, other]), device="cpu")
        ratios[memory] = scores[20:].mean() / scores[:20].mean()
    assert ratios["partition"] > 2 * ratios["skip"]
