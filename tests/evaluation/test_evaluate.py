"""Evaluation against counts made by hand, on real files scored by a small real detector."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import average_precision_score, roc_auc_score

from anomem import metrics
from anomem.data.sources import Sample
from anomem.errors import ImageError, InputError
from anomem.evaluation.chance import false_alarm_chance
from anomem.evaluation.evaluate import evaluate
from anomem.evaluation.figures import (
    Evaluation,
    ImageRow,
    roc_points,
    scores_and_labels,
)
from anomem.runtime.calibration import rejected_ranks
from anomem.runtime.images import decode, read_mask
from anomem.testing.example import StopAfter, StoppedError
from anomem.types import Record
from tests.benchmark.spots import SpotDetector, save, spotted_set, texture


@pytest.fixture
def scene(tmp_path: Path) -> tuple[SpotDetector, list[Sample]]:
    made_from, samples = spotted_set(tmp_path)
    return SpotDetector(made_from), samples


def test_figures_are_those_of_the_scores(scene: tuple[SpotDetector, list[Sample]]) -> None:
    detector, samples = scene
    found = evaluate(detector, samples)
    results = list(detector.score([s.path for s in samples]))
    scores, labels = np.array([r.score for r in results]), np.array([s.label for s in samples])

    assert (found.n_normal, found.n_anomalous, found.n_left_out, found.n_unlabelled) == (12, 10, 0, 0)
    assert found.image.auroc == pytest.approx(roc_auc_score(labels, scores), abs=1e-9)
    assert found.image.ap == pytest.approx(average_precision_score(labels, scores), abs=1e-9)
    assert found.image.auroc_ci[0] <= found.image.auroc <= found.image.auroc_ci[1]
    assert found.image.f1_max == metrics.f1_max(scores, labels)[0]
    assert found.image.fpr95 == metrics.fpr_at_tpr(scores, labels)
    assert found.image.ap_ci == metrics.bootstrap_interval(metrics.average_precision, scores, labels)
    assert found.image.fpr95_ci == metrics.bootstrap_interval(metrics.fpr_at_tpr, scores, labels)
    low, high = found.image.f1_max_ci
    assert low <= found.image.f1_max <= high

    rejected = np.array([r.p_value <= 0.1 for r in results])
    assert found.at_alpha.alpha == 0.1
    assert found.at_alpha.n_false == (rejected & (labels == 0)).sum()
    assert found.at_alpha.n_missed == (~rejected & (labels == 1)).sum() > 0
    assert found.at_alpha.false_alarm_rate == found.at_alpha.n_false / 12
    assert found.at_alpha.detection_rate == 1 - found.at_alpha.n_missed / 10
    assert found.promise.threshold == detector.calibration_.threshold
    assert found.promise.n_calibration == 19

    assert list(found.types) == ["clear", "faint"]
    clear = np.array([s.type in ("good", "clear") for s in samples])
    assert found.types["clear"].n == 5
    assert found.types["clear"].auroc == roc_auc_score(labels[clear], scores[clear]) == 1.0
    assert found.types["clear"].n_missed == 0
    assert found.types["faint"].n_missed == found.at_alpha.n_missed
    assert [row.path for row in found.results] == [str(s.path) for s in samples]
    assert [row.score for row in found.results] == scores.tolist()


def test_pixels_are_judged_on_normals_and_masked_anomalies_only(
    scene: tuple[SpotDetector, list[Sample]],
) -> None:
    detector, samples = scene
    found = evaluate(detector, samples).pixel
    judged = [s for s in samples if s.label == 0 or s.mask is not None]
    maps = [detector._map(decode(s.path)) for s in judged]
    masks = [
        np.zeros(m.shape, bool) if s.mask is None else read_mask(s.mask) for s, m in zip(judged, maps, strict=True)
    ]
    assert found.auroc == metrics.pixel_auroc(maps, masks)
    assert found.aupro == metrics.aupro(maps, masks)
    assert (found.n_images, found.n_regions, found.n_without_mask) == (17, 5, 5)


def test_an_empty_mask_leaves_its_image_out_of_the_pixel_figures(tmp_path: Path) -> None:
    made_from, samples = spotted_set(tmp_path)
    detector = SpotDetector(made_from)
    first = next(i for i, s in enumerate(samples) if s.mask is not None)
    save(Path(samples[first].mask), np.zeros(decode(samples[first].path).shape[:2], np.uint8))
    found = evaluate(detector, samples)
    assert (found.pixel.n_images, found.pixel.n_without_mask) == (16, 6)
    assert found.n_anomalous == 10  # it still counts as an image
    without = [s for i, s in enumerate(samples) if i != first]
    assert found.pixel.auroc == evaluate(detector, without).pixel.auroc

    all_empty = [replace(s, mask=samples[first].mask if s.mask else None) for s in samples]
    assert evaluate(detector, all_empty).pixel is None


def test_masks_of_normal_images_are_not_read(scene: tuple[SpotDetector, list[Sample]]) -> None:
    detector, samples = scene
    odd = [replace(s, mask=Path("nowhere.png")) if s.label == 0 else s for s in samples]
    assert evaluate(detector, odd).pixel == evaluate(detector, samples).pixel


@pytest.mark.parametrize("reason", ["no masks", "maps not wanted", "method draws none"])
def test_pixel_is_null_and_no_map_is_asked_for(tmp_path: Path, reason: str) -> None:
    made_from, samples = spotted_set(tmp_path, masks=reason != "no masks")
    detector = SpotDetector(made_from, localizes=reason != "method draws none")
    found = evaluate(detector, samples, maps=reason != "maps not wanted")
    assert found.pixel is None
    assert found.to_dict()["pixel"] is None
    assert detector.asked_for_maps == [False]


def test_images_that_made_the_model_are_left_out_whatever_their_name(
    scene: tuple[SpotDetector, list[Sample]], tmp_path: Path
) -> None:
    detector, samples = scene
    copies = []
    for i in range(3):
        target = tmp_path / "test" / "good" / f"renamed{i}.png"
        shutil.copy(tmp_path / "train" / f"{i:02}.png", target)
        copies.append(Sample(target, 0))
    found = evaluate(detector, [*copies, *samples])
    assert found.n_left_out == 3
    assert replace(found, n_left_out=0) == evaluate(detector, samples)


def test_unlabelled_images_are_counted_and_not_scored(
    scene: tuple[SpotDetector, list[Sample]],
) -> None:
    detector, samples = scene
    found = evaluate(detector, [Sample(Path("missing.png")), *samples])
    assert found.n_unlabelled == 1
    assert len(found.results) == len(samples)


def test_progress_counts_every_image_and_stops_when_abandoned(
    scene: tuple[SpotDetector, list[Sample]],
) -> None:
    detector, samples = scene
    records: list[Record] = []
    evaluate(detector, samples, progress=records.append)
    assert [(r.stage, r.step, r.total) for r in records] == [("evaluate", i, 22) for i in range(1, 23)]
    with pytest.raises(StoppedError):
        evaluate(detector, samples, progress=StopAfter(1))


def test_bad_files_fail_or_are_listed(scene: tuple[SpotDetector, list[Sample]], tmp_path: Path) -> None:
    detector, samples = scene
    broken = tmp_path / "test" / "good" / "broken.png"
    broken.write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"broken\.png"):
        evaluate(detector, [*samples, Sample(broken, 0)])
    found = evaluate(detector, [*samples, Sample(broken, 0)], skip_bad=True)
    assert [skipped.path for skipped in found.skipped] == [str(broken)]
    assert "broken.png" in found.skipped[0].error
    assert found.to_dict()["n_skipped"] == 1
    assert replace(found, skipped=()) == evaluate(detector, samples)


def test_a_bad_mask_fails_or_is_listed(scene: tuple[SpotDetector, list[Sample]], tmp_path: Path) -> None:
    detector, samples = scene
    Path(samples[12].mask).write_bytes(b"no image")
    with pytest.raises(ImageError, match="00_mask"):
        evaluate(detector, samples)
    found = evaluate(detector, samples, skip_bad=True)
    assert [skipped.path for skipped in found.skipped] == [str(samples[12].path)]
    assert found.n_anomalous == 9


def test_a_set_without_both_labels_is_refused_before_scoring(
    scene: tuple[SpotDetector, list[Sample]], tmp_path: Path
) -> None:
    detector, samples = scene
    for label, words in ((0, "12 normal and 0 anomalous"), (1, "0 normal and 10 anomalous")):
        with pytest.raises(InputError, match=words):
            evaluate(detector, [s for s in samples if s.label == label])
    assert detector.asked_for_maps == []
    trained = [Sample(path, 0) for path in sorted((tmp_path / "train").glob("*.png"))]
    with pytest.raises(InputError, match="besides 19 that the model was fitted with"):
        evaluate(detector, trained + [s for s in samples if s.label == 1])


def test_scores_that_are_no_numbers_are_refused(scene: tuple[SpotDetector, list[Sample]]) -> None:
    class Broken(SpotDetector):
        def score(self, images, **options):
            for result in super().score(images, **options):
                yield replace(result, score=float("nan"))

    detector, samples = scene
    detector.__class__ = Broken
    with pytest.raises(InputError, match=r"00\.png: score is nan"):
        evaluate(detector, samples)


def test_trivial_features_give_a_confounded_set_away(tmp_path: Path) -> None:
    made_from, samples = spotted_set(tmp_path)
    for sample in samples:
        if sample.label == 1:
            # Darker throughout: the mean tells all, in the direction below the normals'.
            save(sample.path, (decode(sample.path) * 0.8).astype(np.uint8))
    trivial = evaluate(SpotDetector(made_from), samples).trivial
    assert trivial.mean_grey == 1.0

    sizes = [sample.path.stat().st_size for sample in samples]
    area = roc_auc_score([s.label for s in samples], sizes)
    assert trivial.file_size == max(area, 1 - area)
    area = roc_auc_score([s.label for s in samples], [decode(s.path)[..., 0].size for s in samples])
    assert trivial.image_size == max(area, 1 - area) < 1.0
    deviations = [decode(s.path).mean(axis=2).std() for s in samples]
    area = roc_auc_score([s.label for s in samples], deviations)
    assert trivial.std_grey == pytest.approx(max(area, 1 - area))


def test_the_size_of_images_gives_a_confounded_set_away(tmp_path: Path) -> None:
    made_from, samples = spotted_set(tmp_path)
    for sample in samples:
        if sample.label == 1:
            save(sample.path, decode(sample.path)[:-4])
    assert evaluate(SpotDetector(made_from), samples, maps=False).trivial.image_size == 1.0


def test_to_dict_has_the_promised_keys_and_is_plain_json(
    scene: tuple[SpotDetector, list[Sample]],
) -> None:
    detector, samples = scene
    found = evaluate(detector, samples).to_dict()
    again = json.loads(json.dumps(found, allow_nan=False))
    assert again == found
    assert {"n_normal", "n_anomalous", "n_left_out"} <= found.keys()
    assert {"auroc", "auroc_ci", "ap", "f1_max", "fpr95"} <= found["image"].keys()
    assert all(len(found["image"][f"{name}_ci"]) == 2 for name in ("auroc", "ap", "f1_max", "fpr95"))
    assert found["image"]["f1_max_is_oracle"] is True
    assert found["at_alpha"].keys() == {
        "alpha",
        "false_alarm_rate",
        "detection_rate",
        "n_false",
        "n_missed",
    }
    assert {"auroc", "aupro"} <= found["pixel"].keys()
    assert {"n", "auroc"} <= found["types"]["clear"].keys()
    assert {"path", "label", "type", "score", "p_value", "anomalous"} <= found["results"][0].keys()
    assert found["trivial"].keys() == {"mean_grey", "std_grey", "image_size", "file_size"}
    assert found["promise"]["rate_limit_95"] == detector.calibration_.rate_limit_95


def test_images_without_a_type_have_no_table(tmp_path: Path) -> None:
    made_from, samples = spotted_set(tmp_path)
    found = evaluate(SpotDetector(made_from), [replace(s, type=None) for s in samples])
    assert found.types == {}


def _rows(scores: list[float], labels: list[int]) -> list[ImageRow]:
    return [
        ImageRow(f"{i}.png", label, None, score, 0.5, False)
        for i, (score, label) in enumerate(zip(scores, labels, strict=True))
    ]


def test_roc_corners_hold_the_whole_area() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random(700) < 0.3).astype(int)
    rows = _rows(np.round(rng.normal(size=700) + labels, 2).tolist(), labels.tolist())
    roc = roc_points(rows)
    assert np.trapezoid(roc.tpr, roc.fpr) == pytest.approx(metrics.auroc(*scores_and_labels(rows)))
    full, _, _ = metrics.roc_curve(*scores_and_labels(rows))
    assert len(roc.fpr) < len(full)
    assert (roc.fpr[0], roc.tpr[0], roc.fpr[-1], roc.tpr[-1]) == (0, 0, 1, 1)
    perfect = roc_points(_rows([1.0, 2.0, 3.0, 4.0], [0, 0, 1, 1]))
    assert (perfect.fpr, perfect.tpr) == ((0, 0, 1), (0, 1, 1))


@pytest.mark.parametrize(("n", "alpha"), [(19, 0.05), (99, 0.05), (152, 0.01), (60, 0.3)])
def test_chance_of_false_alarms_is_beta_binomial(n: int, alpha: float) -> None:
    k = rejected_ranks(alpha, n)
    for m in (1, 20, 400):
        for false in {0, 1, min(m, 7), m}:
            expected = stats.betabinom.sf(false - 1, m, k, n + 1 - k)
            assert false_alarm_chance(false, m, n, alpha) == pytest.approx(expected, abs=1e-9)


def test_chance_is_what_exchangeable_scores_show() -> None:
    rng = np.random.default_rng(1)
    scores = rng.normal(size=(4000, 39 + 20))
    threshold = np.sort(scores[:, :39], axis=1)[:, -4]  # k = 4 of alpha = 0.1
    false = (scores[:, 39:] > threshold[:, None]).sum(axis=1)
    for count in (1, 3, 6):
        shown = (false >= count).mean()
        assert false_alarm_chance(count, 20, 39, 0.1) == pytest.approx(shown, abs=0.025)


def test_one_image_of_each_label_is_enough(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    made_from = [save(tmp_path / f"{i}.png", texture(rng)) for i in range(12)]
    flat = np.full((20, 20, 3), 120, np.uint8)
    bright = flat.copy()
    bright[3:6, 3:6] = 250
    samples = [
        Sample(save(tmp_path / "a.png", flat), 0),
        Sample(save(tmp_path / "b.png", bright), 1),
    ]
    found: Evaluation = evaluate(SpotDetector(made_from), samples)
    assert found.image.auroc == 1.0
    assert found.image.auroc_ci == (1.0, 1.0)
    assert (found.at_alpha.n_false, found.at_alpha.n_missed) == (0, 0)
