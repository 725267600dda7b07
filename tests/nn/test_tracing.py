"""Loading, fitting and exporting in one thread while others compute."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import anomem
from anomem.data.synthetic import crops
from anomem.detectors.baselines.knn import KNN
from anomem.nn.backbones import Backbone
from anomem.nn.tracing import exporting, exporting_here, private_tracing
from anomem.types import UInt8Image


@pytest.fixture(scope="module")
def images() -> UInt8Image:
    return crops("brick", 36, size=32, half="train", rng=np.random.default_rng(0))


def together(*tasks: Callable[[], object]) -> None:
    """Run tasks in threads of their own; raise what the first failing one raised."""
    with ThreadPoolExecutor(len(tasks)) as pool:
        for future in [pool.submit(task) for task in tasks]:
            future.result()


def test_other_threads_do_not_see_a_trace() -> None:
    seen: list[torch.Tensor] = []
    alien = nn.Sequential(nn.Linear(2, 2), nn.ReLU())

    class Slow(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            thread = threading.Thread(target=lambda: seen.append(alien(torch.ones(1, 2))))
            thread.start()
            thread.join()
            return x + 1

    with private_tracing():
        graph = torch.fx.symbolic_trace(Slow())
    assert torch.equal(seen[0], alien(torch.ones(1, 2)))
    assert [node.op for node in graph.graph.nodes] == ["placeholder", "call_function", "output"]


def test_models_load_side_by_side_while_another_scores(images: UInt8Image, tmp_path: Path) -> None:
    KNN(size=32, max_items=8).fit(images, calibration="split", alpha=0.2).save(tmp_path / "m")
    model = anomem.load(tmp_path / "m")
    expected = model.anomaly_score(images[:2], workers=0)
    found: list[object] = []
    stop = threading.Event()

    def score() -> None:
        while not stop.is_set():
            found.append(model.anomaly_score(images[:2], workers=0))

    scoring = threading.Thread(target=score)
    scoring.start()
    try:
        together(*[lambda: anomem.load(tmp_path / "m")] * 3)
    finally:
        stop.set()
        scoring.join()
    assert len(found) > 0
    assert all(np.array_equal(scores, expected) for scores in found)  # type: ignore[arg-type]
    assert np.array_equal(model.anomaly_score(images[:2], workers=0), expected)


def test_fits_in_threads_are_as_alone(images: UInt8Image) -> None:
    def fit(seed: int) -> anomem.Detector:
        return KNN(size=32, max_items=8, weights=None, seed=seed).fit(images, calibration="split", alpha=0.2, workers=0)

    alone = [fit(seed).calibration_.scores for seed in (1, 2)]
    fitted: dict[int, anomem.Detector] = {}
    together(*(lambda seed=seed: fitted.update({seed: fit(seed)}) for seed in (1, 2)))  # type: ignore[misc]
    for seed, scores in zip((1, 2), alone, strict=True):
        assert np.array_equal(fitted[seed].calibration_.scores, scores)


def test_only_the_exporting_thread_exports() -> None:
    seen: list[bool] = []
    with exporting_here():
        together(lambda: seen.append(exporting()))
        assert exporting()
    assert seen == [False]
    assert not exporting()


def test_warnings_of_the_tracer_stay_inside() -> None:
    before = list(warnings.filters)
    together(*[lambda: Backbone("resnet10t", (1, 2))] * 2)
    assert list(warnings.filters) == before
