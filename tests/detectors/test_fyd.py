"""FYD: PaDiM when frozen, Gaussians in the aligned frame, maps in the image's own frame."""

from __future__ import annotations

import math
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, rotate

from anomem.data.defects import DEFECTS, plant
from anomem.data.imageset import ImageSet
from anomem.data.sources import open_source
from anomem.data.synthetic import crops
from anomem.detectors import load
from anomem.detectors.baselines.padim import PaDiM
from anomem.detectors.fyd.alignment import ImageAligner
from anomem.detectors.fyd.detector import FROZEN, FYD, FeatureAlignment, ImageAlignment, Training
from anomem.detectors.fyd.loss import distance_variance
from anomem.detectors.fyd.scorer import FYDScorer
from anomem.detectors.fyd.training import DEFECT_SIZE, _pictures, _separation, gate, learn_gaussians
from anomem.errors import AnomemWarning, ParameterError
from anomem.fitting import make_run, read_preprocessing
from anomem.metrics import auroc
from anomem.types import UInt8Image

TINY: dict[str, Any] = {"size": 64, "n_channels": 24, "hidden": 16, "train_batch": 8}
QUARTER, EIGHTH = (0.0, 1.0), (math.sqrt(0.5), math.sqrt(0.5))
"""Directions that turn by 90 and by 45 degrees."""

# A few photographs in many poses: near-duplicates on purpose.
pytestmark = pytest.mark.filterwarnings("ignore:.*near-duplicates:anomem.errors.AnomemWarning")


@pytest.fixture(scope="module")
def images() -> UInt8Image:
    return crops("gravel", 36, size=64, half="train", rng=np.random.default_rng(0))


@pytest.fixture(scope="module")
def fresh() -> UInt8Image:
    return crops("gravel", 6, size=64, half="test", rng=np.random.default_rng(1))


def tools(count: int, seed: int, turn: float = 180.0) -> tuple[UInt8Image, NDArray[np.float64]]:
    """Pictures of one lopsided tool in random directions, (N, 64, 64, 3), and the directions in degrees."""
    rng = np.random.default_rng(seed)
    tool = np.full((64, 64), 40.0)
    tool[29:35, 10:54] = 150
    tool[23:41, 42:54] = 220
    angles = rng.uniform(-turn, turn, count)
    pictures = []
    for angle in angles:
        turned = rotate(tool, angle, reshape=False, order=1, mode="nearest")
        shade = gaussian_filter(rng.normal(0, 1, (64, 64)), 1.5)
        pictures.append(turned + 6 * shade / shade.std())
    grey = np.clip(np.stack(pictures), 0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=3), angles


def fit(images: UInt8Image, **params: Any) -> FYD:
    narrow = {} if "training" in params else {"training.width": 16}
    given = {**TINY, **narrow, **params}
    if given.get("image_aligner", True) is None and given.get("feature_aligner", True) is None:
        del given["hidden"]
    return FYD(**given).fit(images, alpha=0.2, fit_precision="float32")


def scorer_of(detector: FYD) -> FYDScorer:
    scorer = detector.scorer_
    assert isinstance(scorer, FYDScorer)
    return scorer


def batch(images: UInt8Image) -> torch.Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2)


def learnt(detector: FYD, images: UInt8Image) -> UInt8Image:
    """All normals but those that were kept back to calibrate on."""
    source = open_source(images)
    kept_back = detector.digests_by_role_["calibration"]
    return images[[source.digest(i) not in kept_back for i in range(len(source))]]


# --- what it is without its parts -------------------------------------------------------------


def test_frozen_it_is_padim(images: UInt8Image, fresh: UInt8Image) -> None:
    frozen = fit(images, **FROZEN)
    padim = PaDiM(size=64, n_channels=24).fit(images, calibration="split", alpha=0.2, fit_precision="float32")
    assert frozen.anomaly_score(fresh) == pytest.approx(padim.anomaly_score(fresh), rel=1e-5)
    np.testing.assert_allclose(frozen.anomaly_map(fresh), padim.anomaly_map(fresh), rtol=1e-4)


def test_aligners_that_have_learnt_nothing_change_nothing(images: UInt8Image, fresh: UInt8Image) -> None:
    frozen = fit(images, **FROZEN)
    idle = fit(images, image_aligner=ImageAlignment(keep="on", steps=0), training=None)
    assert isinstance(scorer_of(idle).backbone.image_aligner, ImageAligner)
    assert idle.anomaly_score(fresh) == pytest.approx(frozen.anomaly_score(fresh), rel=1e-3)
    np.testing.assert_allclose(idle.anomaly_map(fresh), frozen.anomaly_map(fresh), rtol=1e-2)


@pytest.mark.parametrize(
    ("train_backbone", "learns"), [("none", [False] * 3), ("late", [False, True, True]), ("all", [True] * 3)]
)
def test_what_learns_of_the_backbone(images: UInt8Image, train_backbone: str, learns: list[bool]) -> None:
    options = {
        "image_aligner": None,
        "training.steps": 1,
        "training.train_backbone": train_backbone,
        **({} if train_backbone == "none" else {"training.lr": 0.1}),
    }
    before = scorer_of(fit(images[:30], **FROZEN)).backbone.segments
    after = scorer_of(fit(images[:30], **options)).backbone.segments
    changed = [
        any(not torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
        for one, other in zip(before, after, strict=True)
    ]
    assert changed == learns


def test_statistics_of_the_batch_are_learnt_and_folded(images: UInt8Image, fresh: UInt8Image, tmp_path: Path) -> None:
    options = {
        "image_aligner": None,
        "training.steps": 2,
        "training.train_backbone": "all",
        "training.lr": 1e-12,
    }
    own = fit(images[:30], training__batch_norm="batch", **options)
    kept = fit(images[:30], training__batch_norm="pretrained", **options)
    assert own.anomaly_score(fresh) != pytest.approx(kept.anomaly_score(fresh), rel=1e-2)
    for detector in (own, kept):
        names = [type(module).__name__ for module in scorer_of(detector).backbone.segments.modules()]
        assert not [name for name in names if "BatchNorm" in name]
    own.save(tmp_path / "model")
    assert np.array_equal(load(tmp_path / "model").anomaly_score(fresh), own.anomaly_score(fresh))
    one_by_one = own.anomaly_score(fresh, batch_size=1)
    assert own.anomaly_score(fresh) == pytest.approx(one_by_one, rel=1e-4)


def test_the_papers_literal_form_fits(images: UInt8Image, fresh: UInt8Image) -> None:
    detector = fit(images[:30], preset="paper", size=64, train_batch=8, weights=None, training__steps=2)
    config = scorer_of(detector).config
    assert config["aligned"]["image"] == {"max_angle": math.pi, "vector": False, "hidden": 16}
    assert config["aligned"]["feature"] == {"centred": False, "hidden": 16, "bounds": None}
    assert np.isfinite(detector.anomaly_score(fresh)).all()
    stages = {record.stage for record in detector.history_}
    assert "feature alignment" in stages
    assert "image alignment" not in stages


# --- alignment --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def aligned() -> FYD:
    pictures, _ = tools(30, seed=0)
    options = {"train_batch": 16, "training": None, "hidden": 32}
    return fit(pictures, **options, image_aligner=ImageAlignment(steps=80, lr=0.01))


def test_tools_that_lie_anyhow_are_aligned(aligned: FYD) -> None:
    verdicts = [r for r in aligned.history_ if r.stage.startswith("image alignment ")]
    assert [r.stage for r in verdicts] == ["image alignment kept"]
    assert verdicts[0].facts["after"] > 1.2 * verdicts[0].facts["before"]
    pictures, angles = tools(40, seed=1)
    aligner = scorer_of(aligned).backbone.image_aligner
    with torch.inference_mode():
        left = torch.deg2rad(torch.from_numpy(angles)) + aligner.angle(batch(pictures))

    def concentration(values: torch.Tensor) -> float:  # up to half a turn
        return float(torch.stack([(2 * values).cos().mean(), (2 * values).sin().mean()]).norm())

    assert concentration(torch.deg2rad(torch.from_numpy(angles))) < 0.3
    assert concentration(left) > 0.8


def spoilt_tools(count: int, seed: int) -> tuple[UInt8Image, list[tuple[float, float]]]:
    """Tools whose shaft is interrupted, and where (row, column)."""
    pictures, angles = tools(count, seed)
    spots = []
    for picture, angle in zip(pictures, np.deg2rad(angles), strict=True):
        spots.append((31.5 + 14 * math.sin(angle), 31.5 - 14 * math.cos(angle)))
        row, column = map(round, spots[-1])
        picture[row - 3 : row + 4, column - 3 : column + 4] = 40
    return pictures, spots


def test_alignment_finds_what_poses_hide(aligned: FYD) -> None:
    normal, _ = tools(20, seed=2)
    broken, _ = spoilt_tools(20, seed=3)
    both, labels = np.concatenate([normal, broken]), [0] * 20 + [1] * 20
    frozen = fit(tools(30, seed=0)[0], **FROZEN)
    assert auroc(aligned.anomaly_score(both), labels) > auroc(frozen.anomaly_score(both), labels) + 0.1


def test_pictures_that_lie_alike_are_left_as_they_are() -> None:
    pictures, _ = tools(30, seed=0, turn=0.0)
    detector = fit(pictures, image_aligner=ImageAlignment(steps=10), training=None)
    assert scorer_of(detector).backbone.image_aligner is None
    assert scorer_of(detector).config["aligned"]["image"] is None
    assert "image alignment left out" in {record.stage for record in detector.history_}
    assert scorer_of(
        fit(pictures, image_aligner=ImageAlignment(keep="on", steps=2), training=None)
    ).backbone.image_aligner


@pytest.mark.parametrize("scale", [0.0, 3.0])
def test_feature_aligners_that_do_not_help_are_left_out(images: UInt8Image, scale: float) -> None:
    """Aligners that change nothing, or warp at random."""
    brief = {"image_aligner": None, "training": Training(steps=1, width=16)}
    detector = fit(images, **brief, feature_aligner=FeatureAlignment(keep="on"))
    scorer, resolved = scorer_of(detector), FYD(**TINY, **brief).resolve()
    run = make_run(resolved, device="cpu", fit_precision="float32", batch_size=16, workers=1)
    for name, parameter in scorer.backbone.feature_aligners.named_parameters():  # type: ignore[union-attr]
        if "localiser.last" in name:
            torch.nn.init.normal_(parameter, std=scale, generator=torch.Generator().manual_seed(0))
    learn = ImageSet(open_source(images), detector.preprocessing_)
    *_, last = gate(scorer, "feature", learn, learn.subset(range(8)), run)
    assert last.stage == "feature alignment left out"
    assert last.facts["after"] < 1.05 * last.facts["before"]
    assert scorer.backbone.feature_aligners is scorer.config["aligned"]["feature"] is None
    assert (last.facts["after"] == pytest.approx(last.facts["before"], rel=1e-3)) == (scale == 0)


def test_defects_stand_out_as_a_loop_says(images: UInt8Image) -> None:
    detector = fit(images, **FROZEN)
    run = make_run(detector.resolve(), device="cpu", fit_precision="float32", batch_size=4, workers=1)
    tune = ImageSet(open_source(images[:4]), detector.preprocessing_)
    rng = np.random.default_rng(0)
    normal = [math.log(detector.anomaly_score(image).item()) for image in images[:4]]
    spoilt = [plant(image, kind, rng, DEFECT_SIZE)[0] for kind in DEFECTS for image in images[:4]]
    anomalous = [math.log(detector.anomaly_score(image).item()) for image in spoilt]
    deviation = math.sqrt((np.var(normal) + np.var(anomalous)) / 2)
    expected = (np.mean(anomalous) - np.mean(normal)) / deviation
    assert expected > 0.5
    assert _separation(scorer_of(detector), tune, run) == pytest.approx(expected, rel=1e-3)


def test_aligners_behind_stages_that_are_not_there_are_refused(images: UInt8Image) -> None:
    with pytest.raises(ParameterError, match=r"feature_aligner\.behind: 4 is none of the stages \(1, 2, 3\)"):
        fit(images, image_aligner=None, feature_aligner=FeatureAlignment(behind=(4,)))


def aligned_by(direction: tuple[float, float], images: UInt8Image, batch_size: int = 16) -> FYD:
    """A detector whose aligner turns every image by the angle of `direction`, with Gaussians of that frame."""
    detector = fit(images, image_aligner=ImageAlignment(keep="on", steps=0), training=None)
    state = {"localiser.last.bias": torch.tensor([direction[0] - 1, direction[1]])}
    scorer_of(detector).backbone.image_aligner.load_state_dict(state, strict=False)  # type: ignore[union-attr]
    relearn(detector, learnt(detector, images), batch_size)
    return detector


def relearn(detector: FYD, images: UInt8Image, batch_size: int = 16) -> dict[str, Any]:
    run = make_run(detector.resolve(), device="cpu", fit_precision="float32", batch_size=batch_size, workers=1)
    learn = ImageSet(open_source(images), detector.preprocessing_)
    *_, last = learn_gaussians(scorer_of(detector), [learn], run)
    return dict(last.facts)


def test_maps_come_back_to_the_images_own_frame(images: UInt8Image, fresh: UInt8Image) -> None:
    turned = aligned_by(QUARTER, images)
    frozen = fit(images, **FROZEN)
    relearn(frozen, np.ascontiguousarray(np.rot90(learnt(turned, images), 1, (1, 2))))
    expected = np.asarray(frozen.anomaly_map(np.ascontiguousarray(np.rot90(fresh, 1, (1, 2)))))
    found = np.asarray(turned.anomaly_map(fresh))
    np.testing.assert_allclose(found, np.rot90(expected, -1, (1, 2)), rtol=0.01)
    assert np.abs(found - expected).max() > 5
    assert turned.anomaly_score(fresh) == pytest.approx(expected.max(axis=(1, 2)), rel=0.05)


def test_maps_of_turned_images_peak_at_the_defect(aligned: FYD) -> None:
    broken, spots = spoilt_tools(20, seed=4)
    peaks = [np.unravel_index(m.argmax(), m.shape) for m in aligned.anomaly_map(broken)]
    hits = [math.dist(map(int, peak), spot) < 8 for peak, spot in zip(peaks, spots, strict=True)]
    assert np.mean(hits) >= 0.6  # by chance: 0.05


def test_gaussians_are_those_of_the_aligned_frame(images: UInt8Image) -> None:
    """Eq. 6 by NumPy."""
    detector = aligned_by(EIGHTH, images)
    scorer = scorer_of(detector)
    with torch.inference_mode():
        found = scorer.backbone(batch(learnt(detector, images)))
        vectors = scorer.embed(found).double().numpy()
    for row, column in [(8, 8), (0, 0), (12, 4)]:
        position = row * scorer.hw[1] + column
        mean, covariance = vectors[:, :, row, column].mean(axis=0), np.cov(vectors[:, :, row, column].T)
        np.testing.assert_allclose(scorer.gaussian.mean[position], mean, rtol=1e-3, atol=1e-3)
        precision = np.linalg.inv(covariance + 0.01 * np.eye(len(mean)))
        whitening = scorer.gaussian.whitening[position].double().numpy()
        np.testing.assert_allclose(whitening @ whitening.T, precision, rtol=1e-2, atol=1e-2)


def test_what_lies_outside_the_common_frame_is_marked(images: UInt8Image, fresh: UInt8Image) -> None:
    assert bool(scorer_of(aligned_by(QUARTER, images)).covered(batch(fresh)).all())
    detector = aligned_by(EIGHTH, images)
    scorer = scorer_of(detector)
    with torch.inference_mode():
        covered, maps = scorer.covered(batch(fresh)), scorer(batch(fresh)).map
    assert 0.7 < float(covered.float().mean()) < 0.95
    assert torch.equal(maps == 0, ~covered)
    spoilt = fresh.copy()
    spoilt[:, :6, :6] = 255  # a corner that turns out of the frame
    assert np.array_equal(detector.anomaly_score(spoilt), detector.anomaly_score(fresh))


def test_maps_fade_towards_the_edge_of_the_common_frame_or_are_even(images: UInt8Image, fresh: UInt8Image) -> None:
    scorer = scorer_of(aligned_by(EIGHTH, images))
    with torch.inference_mode():
        cover = scorer._cover(scorer.backbone(batch(fresh)))[:, 0].numpy()
        faded = scorer(batch(fresh)).map.numpy()
        scorer.edges = "even"
        even = scorer(batch(fresh)).map.numpy()
    deviation = 4.0 * cover.shape[1] / fresh.shape[1]
    share = np.stack([gaussian_filter(one, deviation, mode="nearest", truncate=8) for one in cover])
    seen = cover > 0.5
    np.testing.assert_allclose(faded[seen], (even * share)[seen], rtol=0.02)
    assert share[seen].min() < 0.7  # so that both kinds differ


def test_batches_do_not_matter_to_the_gaussians(images: UInt8Image, fresh: UInt8Image) -> None:
    scores = [aligned_by(QUARTER, images, batch_size).anomaly_score(fresh) for batch_size in (3, 40)]
    assert scores[0] == pytest.approx(scores[1], rel=1e-4)


def test_tiles_are_learnt_from_in_full_batches(images: UInt8Image) -> None:
    run = make_run(FYD(**TINY, tile=48).resolve(), device="cpu", fit_precision="float32", batch_size=16, workers=1)
    learn = ImageSet(open_source(images[:6]), read_preprocessing(run.params))
    each = [len(next(learn.batches(64, order=np.array([i]))).images) for i in range(6)]
    assert set(each) == {4}
    assert [len(batch) for batch in islice(_pictures(learn, run), 7)] == [8] * 7


# --- reports and refusals ---------------------------------------------------------------------


def test_what_is_worth_watching_is_recorded(images: UInt8Image) -> None:
    detector = fit(images, image_aligner=ImageAlignment(keep="on", steps=2, joint=True), training__steps=2)
    facts = {record.stage: record.facts for record in detector.history_}
    assert {"loss", "angle_spread"} <= set(facts["image alignment"])
    assert {"feature_loss", "image_loss", "angle_spread", "scale_spread", "shift_spread"} <= set(
        facts["feature alignment"]
    )
    assert facts["feature alignment"]["z_deviation"] == pytest.approx(1, abs=0.5)
    assert facts["covariances"]["distance_variance"] > 0
    assert 0 < facts["covariances"]["relative_distance_variance"] < 1


def test_distance_variance_is_that_of_the_equations(images: UInt8Image) -> None:
    detector = fit(images, **FROZEN)
    facts = relearn(detector, learnt(detector, images), batch_size=8)
    scorer = scorer_of(detector)
    with torch.inference_mode():
        features = scorer.embed(scorer.backbone(batch(learnt(detector, images))))
    assert facts["distance_variance"] == pytest.approx(distance_variance(features, ridge=0.01), rel=1e-3)


def test_one_image_cannot_be_aligned(images: UInt8Image) -> None:
    with pytest.warns(AnomemWarning) as caught:
        detector = FYD(**TINY).fit(images[:3])
    assert any("a single one cannot be aligned" in str(w.message) for w in caught)
    assert not scorer_of(detector).backbone.aligns


def test_training_nothing_is_refused(images: UInt8Image) -> None:
    with pytest.raises(ParameterError, match="training: nothing to train"):
        fit(images, image_aligner=None, feature_aligner=None, training=Training(train_backbone="none", steps=3))
    with pytest.raises(ParameterError, match="the stages have 176 channels"):
        fit(images, n_channels=177)
