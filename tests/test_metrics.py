"""Metrics against scikit-learn, against slow definitions, and as properties."""

from __future__ import annotations

from collections import deque

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from anomem import metrics
from anomem.errors import InputError, ParameterError

EXACT = 1e-9


def _case(kind: str) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(sum(kind.encode()))
    labels = (rng.random(400) < 0.3).astype(int)
    scores = rng.normal(size=400) + labels
    match kind:
        case "ties":
            scores = np.round(scores)
        case "constant":
            scores = np.full(400, 3.0)
        case "times a million":
            scores = scores * 1e6
        case "tiny steps at a large offset":
            scores = 1e9 + np.round(scores * 1e3) * 1e-6
        case "single precision":
            scores = scores.astype(np.float32)
        case "whole numbers":
            scores = np.round(scores * 5).astype(np.int64)
        case "beyond a sigmoid's reach":
            # In float32 a sigmoid is exactly 1 above 17: every anomaly would tie with every normal.
            scores = (20 + scores).astype(np.float32)
        case "inverted":
            scores = -scores
        case "extremes":
            scores = np.where(scores > 0, 1e300, -1e300)
        case "signed zeros":
            scores = np.where(rng.random(400) < 0.5, 0.0, -0.0)
        case "one anomaly":
            labels = np.zeros(400, int)
            labels[7] = 1
        case "perfect":
            scores = labels.astype(float)
    return scores, labels


CASES = [
    "plain",
    "ties",
    "constant",
    "times a million",
    "tiny steps at a large offset",
    "single precision",
    "whole numbers",
    "beyond a sigmoid's reach",
    "inverted",
    "extremes",
    "signed zeros",
    "one anomaly",
    "perfect",
]


@pytest.mark.parametrize("kind", CASES)
def test_image_metrics_equal_scikit_learn(kind: str) -> None:
    scores, labels = _case(kind)
    assert abs(metrics.auroc(scores, labels) - reference.roc_auc_score(labels, scores)) < EXACT
    ap = reference.average_precision_score(labels, scores)
    assert abs(metrics.average_precision(scores, labels) - ap) < EXACT

    precision, recall, _ = reference.precision_recall_curve(labels, scores)
    both = np.maximum(precision + recall, 1e-300)
    f1, threshold = metrics.f1_max(scores, labels)
    assert abs(f1 - np.max(2 * precision * recall / both)) < EXACT
    assert abs(f1 - reference.f1_score(labels, scores >= threshold)) < EXACT

    fpr, tpr, _ = reference.roc_curve(labels, scores, drop_intermediate=False)
    assert abs(metrics.fpr_at_tpr(scores, labels) - fpr[np.argmax(tpr >= 0.95)]) < EXACT
    ours = metrics.roc_curve(scores, labels)
    np.testing.assert_allclose(ours[0], fpr, atol=EXACT)
    np.testing.assert_allclose(ours[1], tpr, atol=EXACT)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(-3, 3) | st.floats(-1e300, 1e300), st.integers(0, 1)),
        min_size=2,
        max_size=40,
    ).filter(lambda rows: len({label for _, label in rows}) == 2)
)
def test_image_metrics_equal_scikit_learn_on_anything(rows: list[tuple[float, int]]) -> None:
    scores, labels = np.array([float(s) for s, _ in rows]), np.array([label for _, label in rows])
    assert abs(metrics.auroc(scores, labels) - reference.roc_auc_score(labels, scores)) < EXACT
    ap = reference.average_precision_score(labels, scores)
    assert abs(metrics.average_precision(scores, labels) - ap) < EXACT
    assert 0.0 <= metrics.fpr_at_tpr(scores, labels) <= 1.0


def test_twenty_anomalies_allow_one_miss_at_95_percent() -> None:
    scores = np.concatenate([np.arange(20.0), np.arange(1.0, 20.0), [-5.0]])
    labels = np.repeat([1, 0], 20)
    assert metrics.fpr_at_tpr(scores, labels) == 19 / 20
    assert metrics.fpr_at_tpr(scores, labels, tpr=1.0) == 19 / 20
    assert metrics.fpr_at_tpr(scores, labels, tpr=0.05) == 1 / 20


@pytest.mark.parametrize(
    ("scores", "labels", "words"),
    [
        ([1.0, 2.0], [1, 1], "0 normal and 2 anomalous"),
        ([1.0, 2.0], [0, 0], "2 normal and 0 anomalous"),
        ([], [], "0 normal and 0 anomalous"),
        ([1.0, np.nan], [0, 1], "score 1 is nan"),
        ([np.inf, 1.0], [0, 1], "score 0 is inf"),
        ([1.0, 2.0], [0, -1], "leave unknown ones out"),
        ([1.0, 2.0], [0, 1, 1], r"\(2,\) and labels \(3,\)"),
    ],
)
def test_scores_that_cannot_be_judged_are_refused(scores: list, labels: list, words: str) -> None:
    for metric in (
        metrics.auroc,
        metrics.average_precision,
        metrics.f1_max,
        metrics.fpr_at_tpr,
        metrics.roc_curve,
        lambda s, y: metrics.bootstrap_interval(metrics.auroc, s, y),
    ):
        with pytest.raises(InputError, match=words):
            metric(scores, labels)


def test_arguments_out_of_range_are_refused() -> None:
    with pytest.raises(ParameterError, match="tpr=0"):
        metrics.fpr_at_tpr([1.0, 2.0], [0, 1], tpr=0)
    with pytest.raises(ParameterError, match="fpr_limit=2"):
        metrics.aupro([np.eye(2)], [np.eye(2) > 0], fpr_limit=2)
    with pytest.raises(ParameterError, match="level=1"):
        metrics.bootstrap_interval(metrics.auroc, [1.0, 2.0], [0, 1], level=1)
    with pytest.raises(ParameterError, match="draws=0"):
        metrics.bootstrap_interval(metrics.auroc, [1.0, 2.0], [0, 1], draws=0)


def test_bootstrap_interval_covers_as_often_as_it_says() -> None:
    # Two unit normals one apart: AUROC is Phi(1 / sqrt 2).
    truth, hits = 0.7602499389065233, 0
    rng = np.random.default_rng(5)
    labels = np.repeat([0, 1], 60)
    for seed in range(100):
        scores = rng.normal(size=120) + labels
        low, high = metrics.bootstrap_interval(metrics.auroc, scores, labels, draws=200, seed=seed)
        hits += low <= truth <= high
    assert 87 <= hits <= 99


def test_bootstrap_interval_is_seeded_and_stratified() -> None:
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    scores, labels = _case("one anomaly")  # an unstratified draw would often miss the one anomaly
    first = metrics.bootstrap_interval(metrics.auroc, scores, labels, draws=100, seed=3)
    assert first == metrics.bootstrap_interval(metrics.auroc, scores, labels, draws=100, seed=3)
    assert first != metrics.bootstrap_interval(metrics.auroc, scores, labels, draws=100, seed=4)
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002

    wide = metrics.bootstrap_interval(metrics.auroc, *_case("plain"), level=0.99)
    narrow = metrics.bootstrap_interval(metrics.auroc, *_case("plain"), level=0.5)
    assert wide[0] < narrow[0] < metrics.auroc(*_case("plain")) < narrow[1] < wide[1]


# ------------------------------------------------------------------------------------------ pixels


def _regions(mask: np.ndarray) -> list[np.ndarray]:
    """8-connected regions by flooding, one boolean picture each."""
    left, found = mask.copy(), []
    while left.any():
        region = np.zeros_like(mask)
        queue = deque([tuple(np.argwhere(left)[0])])
        while queue:
            y, x = queue.popleft()
            if 0 <= y < mask.shape[0] and 0 <= x < mask.shape[1] and left[y, x]:
                left[y, x], region[y, x] = False, True
                queue.extend((y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1))
        found.append(region)
    return found


def _slow_aupro(maps: list[np.ndarray], masks: list[np.ndarray], limit: float) -> float:
    """The definition, word by word: one threshold after the other."""
    fpr, pro = [0.0], [0.0]
    for threshold in np.unique(np.concatenate([m.ravel() for m in maps]))[::-1]:
        overlaps, false, clean = [], 0, 0
        for anomaly_map, mask in zip(maps, masks, strict=True):
            hit = anomaly_map >= threshold
            overlaps += [hit[region].mean() for region in _regions(mask)]
            false += (hit & ~mask).sum()
            clean += (~mask).sum()
        fpr.append(false / clean)
        pro.append(np.mean(overlaps))
    area = 0.0
    for x0, x1, y0, y1 in zip(fpr[:-1], fpr[1:], pro[:-1], pro[1:], strict=True):
        end = min(x1, limit)
        if end > x0:
            area += (end - x0) * (y0 + y0 + (y1 - y0) * (end - x0) / (x1 - x0)) / 2
    return area / limit


def _planted(seed: int, *, ties: bool, n: int = 3) -> tuple[list[np.ndarray], list[np.ndarray]]:
    rng = np.random.default_rng(seed)
    maps, masks = [], []
    for i in range(n):
        height, width = rng.integers(5, 14, size=2)
        mask = rng.random((height, width)) < (0.25 if i else 0.0)  # the first image is normal
        values = rng.normal(size=(height, width)) + 1.2 * mask
        maps.append((np.round(values) if ties else values).astype(np.float32))
        masks.append(mask)
    masks[-1][0, 0] = True
    return maps, masks


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("limit", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("seed", range(4))
def test_aupro_equals_the_slow_reference(seed: int, limit: float, ties: bool) -> None:
    maps, masks = _planted(seed, ties=ties)
    assert abs(metrics.aupro(maps, masks, limit) - _slow_aupro(maps, masks, limit)) < EXACT


@pytest.mark.parametrize("ties", [False, True])
def test_pixel_auroc_equals_scikit_learn_over_maps_of_different_sizes(ties: bool) -> None:
    maps, masks = _planted(11, ties=ties)
    expected = reference.roc_auc_score(
        np.concatenate([m.ravel() for m in masks]), np.concatenate([m.ravel() for m in maps])
    )
    assert abs(metrics.pixel_auroc(maps, masks) - expected) < EXACT
    assert abs(metrics.pixel_auroc(iter(maps), iter(masks)) - expected) < EXACT
    assert abs(metrics.pixel_auroc([m * 1e6 for m in maps], masks) - expected) < EXACT
    none_for_normal = [mask if mask.any() else None for mask in masks]
    assert metrics.pixel_auroc(maps, none_for_normal) == metrics.pixel_auroc(maps, masks)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.booleans(), st.floats(0.01, 1.0))
def test_pixel_metrics_lie_between_0_and_1(seed: int, ties: bool, limit: float) -> None:
    maps, masks = _planted(seed, ties=ties)
    assert 0.0 <= metrics.aupro(maps, masks, limit) <= 1.0
    assert 0.0 <= metrics.pixel_auroc(maps, masks) <= 1.0
    perfect = [mask.astype(np.float32) for mask in masks]
    assert metrics.aupro(perfect, masks, limit) == 1.0
    assert metrics.pixel_auroc(perfect, masks) == 1.0
    assert metrics.aupro([-m for m in perfect], masks, limit) == 0.0


@pytest.mark.parametrize("count", [3, 7, 49])
def test_many_equal_regions_still_sum_to_exactly_one(count: int) -> None:
    # 1/3 + 1/3 + ... falls beside 1 in floating point; AUPRO must not.
    mask = np.zeros((2, 4 * count), bool)
    for i in range(count):
        mask[0, 4 * i : 4 * i + 3] = True
    assert metrics.aupro([mask.astype(np.float32)], [mask]) == 1.0


def test_constant_maps_reach_half_the_limit() -> None:
    mask = np.eye(6, dtype=bool)
    assert metrics.aupro([np.zeros((6, 6))], [mask]) == pytest.approx(0.15)
    assert metrics.pixel_auroc([np.zeros((6, 6))], [mask]) == 0.5


def test_diagonal_neighbours_are_one_region_and_small_regions_weigh_as_much() -> None:
    pixels = metrics.PixelScores()
    mask = np.zeros((8, 8), bool)
    mask[0, 0] = mask[1, 1] = True  # one region by 8-connectivity
    mask[4:8, 4:8] = True
    found = np.zeros((8, 8))
    found[:2, :2] = mask[:2, :2]  # finds the small one only
    pixels.add(found, mask)
    assert pixels.n_regions == 2
    # From half the overlap at no false positive straight to (1, 1): 0.5 + 0.5 * 0.3 / 2.
    assert pixels.aupro() == pytest.approx(0.575)


def test_pixel_scores_may_grow_after_a_metric_was_taken() -> None:
    maps, masks = _planted(3, ties=True, n=5)
    pixels = metrics.PixelScores()
    for anomaly_map, mask in zip(maps[:3], masks[:3], strict=True):
        pixels.add(anomaly_map, mask)
    pixels.aupro()
    for anomaly_map, mask in zip(maps[3:], masks[3:], strict=True):
        pixels.add(anomaly_map.astype(np.float64), mask)
    assert pixels.n_images == 5
    assert pixels.aupro() == metrics.aupro(maps, masks)
    assert pixels.auroc() == metrics.pixel_auroc(maps, masks)


def test_maps_are_left_as_they_were() -> None:
    maps, masks = _planted(2, ties=False)
    copies = [m.copy() for m in maps]
    metrics.aupro(maps, masks)
    metrics.pixel_auroc([maps[0], maps[-1]], [None, masks[-1]])
    for before, after in zip(copies, maps, strict=True):
        np.testing.assert_array_equal(before, after)


def test_pixels_that_cannot_be_judged_are_refused() -> None:
    ok, mask = np.zeros((2, 2)), np.eye(2, dtype=bool)
    with pytest.raises(InputError, match="no defective pixel"):
        metrics.pixel_auroc([ok], [None])
    with pytest.raises(InputError, match="no defective pixel"):
        metrics.aupro([], [])
    with pytest.raises(InputError, match="no defect-free pixel"):
        metrics.aupro([ok], [np.ones((2, 2), bool)])
    with pytest.raises(InputError, match="map 1: NaN"):
        metrics.aupro([ok, np.full((2, 2), np.nan)], [mask, None])
    with pytest.raises(InputError, match=r"map 0 has shape \(2, 2\) and its mask \(3, 3\)"):
        metrics.aupro([ok], [np.eye(3, dtype=bool)])
    with pytest.raises(ValueError, match="shorter"):
        metrics.aupro([ok, ok], [mask])


@pytest.mark.parametrize("metric", ["auroc", "aupro"])
@pytest.mark.parametrize("ties", [False, True])
def test_pixel_intervals_equal_resampling_the_images(metric: str, ties: bool) -> None:
    """As many bins as values: the counted way must give what the metric gives on every resampled set of images."""
    maps, masks = _planted(3, ties=ties, n=7)
    maps.append(np.random.default_rng(9).normal(size=(6, 7)).astype(np.float32))
    masks.append(np.zeros((6, 7), dtype=bool))
    pixels = metrics.PixelScores()
    for anomaly_map, mask in zip(maps, masks, strict=True):
        pixels.add(anomaly_map, mask)
    found = pixels.interval(metric, draws=200, seed=5)

    defective = np.asarray([mask.any() for mask in masks])
    rng, times = np.random.default_rng(5), np.zeros((200, len(maps)), dtype=int)
    for group in (np.flatnonzero(~defective), np.flatnonzero(defective)):
        times[:, group] = rng.multinomial(group.size, np.full(group.size, 1 / group.size), size=200)
    drawn = []
    for row in times:
        chosen = np.repeat(np.arange(len(maps)), row)
        pair = [maps[i] for i in chosen], [masks[i] for i in chosen]
        drawn.append(metrics.pixel_auroc(*pair) if metric == "auroc" else metrics.aupro(*pair))
    assert found == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])), abs=1e-9)


def test_pixel_intervals_hold_with_images_added_later() -> None:
    rng = np.random.default_rng(0)
    pixels, means = metrics.PixelScores(), []
    for _ in range(2):
        for i in range(20):
            mask = np.zeros((40, 40), dtype=bool)
            mask[5:12, 5:12] = i % 2
            pixels.add((rng.normal(size=mask.shape) + rng.uniform(0.5, 1.5) * mask).astype(np.float32), mask)
        low, high = pixels.interval("auroc")
        assert low < pixels.auroc() < high
        means.append(high - low)
    assert means[1] < 0.9 * means[0], "twice the images, a narrower interval"


@pytest.mark.parametrize(("options", "named"), [({"level": 1.0}, "level"), ({"draws": 0}, "draws")])
def test_pixel_intervals_name_a_wrong_option(options: dict[str, float], named: str) -> None:
    pixels = metrics.PixelScores()
    pixels.add(np.array([[0.0, 1.0]]), np.array([[False, True]]))
    with pytest.raises(ParameterError, match=named):
        pixels.interval("auroc", **options)
