"""MemAE: its loss, its score, its memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from anomem.data.synthetic import crops
from anomem.detectors.reconstruction.memae import MemAE, recall
from anomem.detectors.reconstruction.partition_memory import BlockMemory
from anomem.detectors.reconstruction.scorer import ReconstructionScorer
from anomem.errors import ParameterError
from anomem.metrics import auroc
from anomem.types import UInt8Image

TINY: dict[str, Any] = {"size": 16, "widths": (4, 8, 8), "items": 6, "train_steps": 30, "train_batch": 8, "lr": 0.01}


@pytest.fixture(scope="module")
def images() -> UInt8Image:
    return crops("gravel", 48, size=16, half="train", rng=np.random.default_rng(0))


def _scorer(detector: MemAE) -> ReconstructionScorer:
    scorer = detector.scorer_
    assert isinstance(scorer, ReconstructionScorer)
    return scorer


def _fitted(images: UInt8Image, **params: Any) -> MemAE:
    return MemAE(**{**TINY, **params}).fit(images, alpha=0.2, device="cpu", fit_precision="float32")


def test_the_score_is_the_squared_error_of_what_the_memory_gives(images: UInt8Image) -> None:
    detector = _fitted(images)
    batch = torch.from_numpy(images[:5]).permute(0, 3, 1, 2)
    with torch.inference_mode():
        found, weights = recall(_scorer(detector), batch.float() / 255)
        expected = (batch.float() / 255 - found).square().mean(dim=1)
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(1, 5 * 16))
    assert detector.anomaly_score(images[:5], device="cpu") == pytest.approx(expected.sum(dim=(1, 2)).numpy(), rel=1e-4)
    assert np.asarray(detector.anomaly_map(images[:5], device="cpu")) == pytest.approx(expected.numpy(), abs=1e-6)


def test_only_the_code_passes_and_only_through_the_memory(images: UInt8Image) -> None:
    model = _scorer(_fitted(images)).autoencoder
    assert list(model.links) == ["2"]
    memory = model.links["2"]
    assert isinstance(memory, BlockMemory)
    assert memory.items.shape == (1, 6, 8)
    assert (memory.addressing.shrink, memory.addressing.renormalise) == ("cut", True)


def test_the_papers_settings_are_the_defaults() -> None:
    resolved = MemAE().resolve()
    assert (resolved["items"], resolved["lr"], resolved["entropy_weight"]) == (2000, 1e-4, 2e-4)
    assert (resolved["shrinkage"], resolved["temperature"]) == (1.0, 1.0)


def test_a_high_entropy_weight_makes_addressing_sparse(images: UInt8Image) -> None:
    entropies = []
    for weight in (0.0, 1.0):
        records = [r for r in _fitted(images, entropy_weight=weight).history_ if r.stage == "train"]
        assert set(records[-1].facts) >= {"loss", "error", "entropy"}
        entropies.append(records[-1].facts["entropy"])
    assert entropies[1] < 0.8 * entropies[0]


def test_the_threshold_counts_in_shares_of_the_items(images: UInt8Image) -> None:
    used = []
    batch = torch.from_numpy(images[:5]).permute(0, 3, 1, 2).float() / 255
    for shrinkage in (0.0, 1.0):
        scorer = _scorer(_fitted(images, shrinkage=shrinkage))
        with torch.inference_mode():
            weights = recall(scorer, batch)[1]
        used.append(float((weights > 0).float().mean()))
    assert used[0] == 1
    assert used[1] < 0.9


def test_what_does_not_fit_together_is_named(images: UInt8Image) -> None:
    with pytest.raises(ParameterError, match="size=18"):
        _fitted(images, size=18)


def _parts(count: int, seed: int, *, marked: bool = False) -> UInt8Image:
    """Discs of one grey on a dark ground, some with a bright square."""
    rng, rows = np.random.default_rng(seed), np.mgrid[:32, :32]
    disc = np.hypot(rows[0] - 16, rows[1] - 16) < 12
    parts = np.where(disc, rng.uniform(90, 120, (count, 1, 1)), 30.0) + rng.normal(0, 3, (count, 32, 32))
    for part in parts if marked else ():
        top, left = rng.integers(9, 18, 2)
        part[top : top + 6, left : left + 6] = 230
    return np.repeat(parts[..., None].clip(0, 255).astype(np.uint8), 3, axis=3)


def test_marked_parts_rank_above_whole_ones() -> None:
    small = {"size": 32, "widths": (8, 16, 16), "items": 20, "train_steps": 150, "train_batch": 16, "lr": 0.01}
    detector = MemAE(**small).fit(_parts(48, seed=0), alpha=0.2, device="cpu")
    both = np.concatenate([_parts(20, seed=1), _parts(20, seed=2, marked=True)])
    assert auroc(detector.anomaly_score(both, device="cpu"), [0] * 20 + [1] * 20) > 0.95
