"""Workspace: shared results equal separate ones, and figures equal those of an evaluation."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anomem.benchmark.environment import Meter, metered
from anomem.benchmark.fits import Fit, Settings, fit_params, score
from anomem.benchmark.judging import findings
from anomem.benchmark.protocols.base import attainable, judged
from anomem.benchmark.unit import Task, Unit, Variant, images_digest, scores_digest
from anomem.benchmark.workspace import Workspace
from anomem.data.labelled_images import Images
from anomem.data.sources import PathSource
from anomem.errors import InputError
from anomem.evaluation.confounds import GreyRecorder
from anomem.evaluation.evaluate import evaluate
from tests.benchmark.sets import defects
from tests.benchmark.spots import SpotDetector, spotted_set

SETTINGS = Settings(workers=0)
ANOMEM = Variant("anomem", {"preset": "object", "size": 64, "memory_size": (8,)})


def unit(variant: Variant = ANOMEM, *, seed: int = 0, labelled: bool = False, dry_steps: int | None = None) -> Unit:
    return Unit(Task("localisation", "defects", "defects", labelled=labelled), variant, seed, dry_steps=dry_steps)


def spotted(root: Path) -> tuple[SpotDetector, Images, list[Any]]:
    """A detector of spots, and test images of which two belong to its own normals."""
    made_from, samples = spotted_set(root)
    samples = [*samples, type(samples[0])(made_from[0], 0), type(samples[0])(made_from[3], 0)]
    images = Images(
        "spots",
        PathSource(sample.path for sample in samples),
        np.asarray([sample.label for sample in samples], dtype=np.intp),
        tuple(sample.type or "" for sample in samples),
        tuple(sample.mask for sample in samples),
        (),
        tuple(sample.path for sample in samples),
    )
    return SpotDetector(made_from), images, samples


def test_figures_are_those_of_an_evaluation(tmp_path: Path) -> None:
    detector, images, samples = spotted(tmp_path)
    fit = Fit(detector, Meter())  # type: ignore[arg-type]
    expected = evaluate(detector, samples)  # type: ignore[arg-type]
    work = Workspace(SETTINGS)
    found = judged(work, fit, images, maps=True)
    figures = found.figures
    assert figures["n_test"] == {"normal": 12, "anomalous": 10, "left_out": 2}
    assert {k: v for k, v in figures["image"].items() if k != "draws"} == asdict(expected.image)
    assert figures["pixel"] == asdict(expected.pixel)
    assert figures["types"] == {name: asdict(of_type) for name, of_type in expected.types.items()}
    assert figures["at_alpha"] == asdict(expected.at_alpha)
    assert figures["promise"] == asdict(expected.promise)
    assert figures["trivial"] == asdict(expected.trivial)
    assert figures["roc"] == asdict(expected.roc)
    assert found.scores.tolist() == [row.score for row in expected.results]


def test_only_what_is_asked_for_is_judged(tmp_path: Path) -> None:
    detector, images, samples = spotted(tmp_path)
    fit, work = Fit(detector, Meter()), Workspace(SETTINGS)  # type: ignore[arg-type]
    seen = work.see(fit, images, maps=True)
    assert work.see(fit, images) is seen, "maps or none, scores are the same"
    assert detector.asked_for_maps == [True]
    some = [i for i, sample in enumerate(samples) if sample.type != "clear"]
    found = judged(work, fit, images, maps=False, among=some)
    assert found.figures["pixel"] is None
    assert list(found.figures["types"]) == ["faint"]
    expected = evaluate(detector, [samples[i] for i in some])  # type: ignore[arg-type]
    assert found.figures["image"]["auroc"] == expected.image.auroc
    assert found.figures["trivial"] == asdict(expected.trivial)
    unseen = frozenset(seen.digests[:3])
    fewer = judged(work, fit, images, maps=False, among=some, unseen=unseen)
    assert fewer.figures["n_test"] == {"normal": 9, "anomalous": 5, "left_out": 5}
    with pytest.raises(InputError, match="needs normal and anomalous images"):
        findings(fit, seen, images, work.trivial(images), among=some[:5])
    with pytest.raises(InputError, match="besides 24 that the model was fitted with"):
        findings(fit, seen, images, work.trivial(images), unseen=frozenset(seen.digests))


def test_trivial_features_are_noted_on_the_way_or_read(tmp_path: Path) -> None:
    detector, images, _ = spotted(tmp_path)
    noted, read = Workspace(SETTINGS), Workspace(SETTINGS)
    noted.see(Fit(detector, Meter()), images)  # type: ignore[arg-type]
    assert noted.trivial(images) == read.trivial(images)
    assert [size for *_, size in noted.trivial(images)] == [path.stat().st_size for path in images.paths]


@pytest.fixture(scope="module")
def data() -> Any:
    return defects({"crack": 8, "hole": 8}, n_train=24, n_good=16, side=40)


@pytest.fixture(scope="module")
def refitted(data: Any) -> tuple[Workspace, Fit, Fit, Images]:
    """A tiny one-class fit, and one whose second stage has learnt three defects."""
    work = Workspace(SETTINGS)
    first = work.one_class(unit(), data.train)
    labelled = data.test.subset(data.test.positions(1)[:3], "labelled")
    return work, first, work.with_labels(unit(), data.train, labelled), labelled


def test_a_second_stage_concludes_what_scoring_gives(data: Any, refitted: tuple[Workspace, Fit, Fit, Images]) -> None:
    work, first, fit, _ = refitted
    seen = work.see(fit, data.test)
    assert seen.concluded
    scored = score(fit, data.test, GreyRecorder(data.test.source), SETTINGS, maps=False)
    assert not scored.concluded
    assert np.array_equal(seen.scores, scored.scores), "bit for bit"
    assert seen.digests == scored.digests
    assert not np.array_equal(seen.scores, work.see(first, data.test).scores)


def test_conclusions_that_differ_from_scoring_are_not_used(
    data: Any, refitted: tuple[Workspace, Fit, Fit, Images]
) -> None:
    """An observation by another first stage is found out on the first batch."""
    work, _, fit, _ = refitted
    other = Workspace(SETTINGS).one_class(unit(seed=1), data.train)
    swapped = Fit(fit.detector, fit.meter, (), other)
    seen = Workspace(SETTINGS).see(swapped, data.test)
    assert not seen.concluded
    assert np.array_equal(seen.scores, work.see(fit, data.test).scores)


def test_a_refit_leaves_the_shared_fit_alone(data: Any, refitted: tuple[Workspace, Fit, Fit, Images]) -> None:
    work, first, fit, _ = refitted
    assert fit.first is first
    assert (first.detector.counts_["n_labelled"], fit.detector.counts_["n_labelled"]) == (0, 3)
    before = work.see(first, data.test).scores
    assert np.array_equal(before, first.detector.anomaly_score(data.test.source, batch_size=16))
    found = judged(work, fit, data.test, maps=False)
    assert found.figures["n_test"] == {"normal": 16, "anomalous": 13, "left_out": 3}


def test_units_share_a_fit_where_they_agree(data: Any) -> None:
    work, knn = Workspace(SETTINGS), Variant("knn", {"size": 32})
    first = work.one_class(unit(knn), data.train)
    assert not first.shared
    assert work.one_class(unit(Variant("knn", {"size": 32}, "another label")), data.train) is first
    assert first.shared
    assert work.one_class(unit(knn, seed=1), data.train) is not first
    assert first.detector.resolve()["seed"] == 0


def test_methods_take_part_in_what_they_can_do() -> None:
    with_labels, without = (Task("few-labels", "d", "d", labelled=labelled) for labelled in (True, False))
    assert [attainable("knn", task) for task in (with_labels, without)] == [False, True]
    assert [attainable("anomem", task) for task in (with_labels, without)] == [True, True]
    assert [attainable("supervised", task) for task in (with_labels, without)] == [True, False]


def test_dry_runs_cut_optimiser_steps_down() -> None:
    trained = Variant("anomem", {"stage_one.steps": 500, "retrieval_steps": 3})
    pinned = {"aspect": "square", "seed": 0}
    assert fit_params(unit(trained, dry_steps=2)) == {"stage_one.steps": 2, "retrieval_steps": 3, **pinned}
    assert fit_params(unit(trained)) == {"stage_one.steps": 500, "retrieval_steps": 3, **pinned}
    assert fit_params(unit(Variant("anomem"), dry_steps=2)) == pinned, "nothing is trained that was not"
    assert fit_params(unit(Variant("anomem", {"aspect": "auto"})))["aspect"] == "auto"
    few = Variant("supervised", {"train_steps": 1})
    assert fit_params(unit(few, dry_steps=2))["train_steps"] == 1
    # Weights that would have to be fetched are random ones then.
    assert fit_params(unit(Variant("padim", {"backbone": "resnet18"}), dry_steps=2))["weights"] is None
    assert "weights" not in fit_params(unit(Variant("padim"), dry_steps=2))


def test_digests_of_scores_and_images() -> None:
    import hashlib

    scores = np.asarray([1.5, -0.25], np.float32)
    assert scores_digest(scores) == hashlib.sha256(bytes.fromhex("0000c03f000080be")).hexdigest()
    assert scores_digest(scores) != scores_digest(scores[::-1])
    assert images_digest([1, 2**64 - 1]) == hashlib.sha256(b"\1" + bytes(7) + b"\xff" * 8).hexdigest()


def test_meters_forget_what_was_before() -> None:
    with metered() as large:
        block = np.ones(30_000_000)
    del block
    with metered() as small:
        pass
    assert large.seconds > small.seconds >= 0
    assert 0 < small.peak_mb < large.peak_mb - 150
    both = Meter()
    both.add(large)
    both.add(small)
    assert (both.seconds, both.peak_mb) == (large.seconds + small.seconds, large.peak_mb)
