"""Pixel figures of more pixels than are kept, against the exact ones."""

from __future__ import annotations

import numpy as np
import pytest

from anomem import metrics
from anomem.metrics import pixel
from anomem.metrics.pixel_bins import PixelBins


def _beyond(exact: int, monkeypatch: pytest.MonkeyPatch, scale: float, offset: float) -> tuple:
    """The same pixels kept whole, and in bins from the third image on."""
    rng = np.random.default_rng(7)
    lots = []
    for i in range(12):
        mask = np.zeros((40, 50), bool)
        mask[5:9, 6 : 6 + 3 * (i % 4)] = mask[30:31, 44:46] = i % 4 > 0
        lots.append(((rng.gamma(2, 1, mask.shape) + mask * rng.normal(2, 2, mask.shape)) * scale + offset, mask))
    whole, binned = metrics.PixelScores(), metrics.PixelScores()
    for anomaly_map, mask in lots:
        whole.add(anomaly_map.astype(np.float32), mask)
    monkeypatch.setattr(pixel, "EXACT_PIXELS", exact)
    for anomaly_map, mask in lots:
        binned.add(anomaly_map.astype(np.float32), mask)
    return whole, binned


@pytest.mark.parametrize(("scale", "offset"), [(1.0, 0.0), (1e-3, 10.0), (1e6, -1e6), (1e-20, 0.0)])
def test_binned_pixel_figures_are_within_their_stated_error(
    scale: float, offset: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, binned = _beyond(5000, monkeypatch, scale, offset)
    assert whole.error == 0.0
    assert 0.0 < binned.error < 1e-3
    assert abs(binned.auroc() - whole.auroc()) <= binned.error
    assert binned.aupro() == pytest.approx(whole.aupro(), abs=1e-4)
    for metric in ("auroc", "aupro"):
        assert binned.interval(metric, draws=50) == pytest.approx(whole.interval(metric, draws=50), abs=2e-3)


def test_binned_pixel_figures_keep_no_pixel(monkeypatch: pytest.MonkeyPatch) -> None:
    _, binned = _beyond(5000, monkeypatch, 1.0, 0.0)
    assert not binned._normal
    assert not binned._defect
    assert not binned._uncounted


def test_bins_rise_with_scores_and_take_any_finite_one() -> None:
    scores = np.unique(np.r_[np.random.default_rng(0).normal(5, 1, 1000), -1e300, 1e300, 5.0, np.nextafter(5.0, 6.0)])
    bins = PixelBins(scores[10:-10]).of(scores)
    assert (np.diff(bins) >= 0).all()
    assert len(np.unique(bins)) > 900


def test_constant_maps_in_bins_are_worth_a_half(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixel, "EXACT_PIXELS", 10)
    pixels, mask = metrics.PixelScores(), np.eye(6, dtype=bool)
    pixels.add(np.full((6, 6), 3.0), mask)
    assert pixels.auroc() == 0.5
    assert pixels.error == 0.5
    assert pixels.aupro() == pytest.approx(0.15)
