"""Tensor modules against scikit-learn."""

from __future__ import annotations

import math
import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from anomem.detectors.baselines._shallow import (
    IsolationForest,
    Normalise,
    OneClassSVM,
    _sklearn,
    fit_isolation_forest,
    fit_one_class_svm,
    mean_path_length,
    rounded_down,
)


def _cloud(n: int, dim: int, *, seed: int = 0, shift: float = 0.0) -> Tensor:
    """Skewed clusters: embeddings are neither centred nor of one spread."""
    rng = torch.Generator().manual_seed(seed)
    spread = torch.rand(dim, generator=torch.Generator().manual_seed(99)) + 0.05
    return torch.randn(n, dim, generator=rng).abs() * spread + shift


def _apart(found: Tensor, wanted: np.ndarray) -> float:
    """Largest difference, as a share of the range of what is wanted."""
    return float(np.abs(found.double().numpy() - wanted).max() / np.ptp(wanted))


# --- one-class SVM ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "dim", "nu", "gamma", "shift"),
    [
        (200, 24, 0.1, "scale", 0.0),
        (200, 24, 0.5, "auto", 0.0),
        (60, 300, 0.1, 0.02, 0.0),
        (150, 24, 0.99, "scale", 0.0),
        (200, 24, 0.1, "auto", 1000.0),  # far from 0, where float32 would lose the distances
        (3, 300, 0.1, "scale", 0.0),
        (1, 8, 0.1, "scale", 0.0),
    ],
)
def test_svm_equals_scikit_learn(n: int, dim: int, nu: float, gamma: float | str, shift: float) -> None:
    from sklearn.svm import OneClassSVM as Reference

    learnt, fresh = _cloud(n, dim, shift=shift), _cloud(100, dim, seed=1, shift=shift) * 1.001
    module = fit_one_class_svm(learnt, nu=nu, gamma=gamma)
    reference = Reference(nu=nu, gamma=gamma).fit(learnt.double().numpy())
    both = torch.cat([learnt, fresh])
    found = module(both)
    assert found.dtype == torch.float32
    assert _apart(found, -reference.decision_function(both.double().numpy())) < 1e-5


def test_svm_lets_at_most_nu_of_what_it_learnt_outside() -> None:
    learnt = _cloud(400, 6)
    for nu in (0.05, 0.2):
        module = fit_one_class_svm(learnt, nu=nu)
        assert float((module(learnt) > 1e-3).float().mean()) <= nu
        assert int((module.weights > 0).sum()) >= nu * len(learnt)
    assert (module(learnt + 5) > 0).all()


def test_svm_of_equal_vectors_is_lowest_there() -> None:
    module = fit_one_class_svm(torch.full((5, 4), 2.0), gamma="scale")
    assert module.gamma.item() == 1  # as scikit-learn has it where nothing varies
    here, there = module(torch.tensor([[2.0, 2, 2, 2], [2.0, 2, 2, 3]]))
    assert float(here) == pytest.approx(0, abs=1e-6)
    assert there > here


def test_svm_is_filled_up_without_weight() -> None:
    module = fit_one_class_svm(_cloud(30, 40))
    assert module.vectors.shape == (32, 40)
    assert (module.weights > 0).sum() < 32
    longer = OneClassSVM(64, 40)
    longer.vectors[:32], longer.weights[:32] = module.vectors, module.weights
    longer.vectors[32:] = 7.0
    longer.offset, longer.gamma = module.offset, module.gamma
    fresh = _cloud(9, 40, seed=2)
    torch.testing.assert_close(longer(fresh), module(fresh))


# --- isolation forest -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "dim", "n_samples", "n_trees"),
    [(300, 12, 256, 100), (300, 12, 20, 30), (40, 200, 256, 50), (3, 50, 256, 50), (2, 5, 256, 10)],
)
def test_forest_equals_scikit_learn(n: int, dim: int, n_samples: int, n_trees: int) -> None:
    from sklearn.ensemble import IsolationForest as Reference

    learnt = _cloud(n, dim)
    learnt[: n // 3] = learnt[0]  # copies end up in one leaf, whose path is corrected
    both = torch.cat([learnt, _cloud(100, dim, seed=1) * 1.5])
    module = fit_isolation_forest(learnt, n_trees=n_trees, n_samples=n_samples, seed=5)
    reference = Reference(n_estimators=n_trees, max_samples=min(n, n_samples), random_state=5).fit(learnt.numpy())
    wanted = -reference.score_samples(both.numpy())
    np.testing.assert_allclose(module(both).numpy(), wanted, rtol=0, atol=1e-5 * max(float(np.ptp(wanted)), 1e-2))


def test_forest_of_one_vector_is_undecided() -> None:
    torch.testing.assert_close(fit_isolation_forest(_cloud(1, 6))(_cloud(4, 6, seed=1)), torch.full((4,), 0.5))


def test_forest_equals_scikit_learn_where_values_meet_thresholds() -> None:
    from sklearn.ensemble import IsolationForest as Reference

    learnt = _cloud(64, 1)
    reference = Reference(n_estimators=20, max_samples=64, random_state=0).fit(learnt.numpy())
    cuts = np.concatenate([tree.tree_.threshold[tree.tree_.feature >= 0] for tree in reference.estimators_])
    at = cuts.astype(np.float32)
    values = np.concatenate([np.nextafter(at, -np.inf), at, np.nextafter(at, np.inf)]).astype(np.float32)[:, None]
    found = fit_isolation_forest(learnt, n_trees=20, n_samples=64, seed=0)(torch.from_numpy(values)).numpy()
    # One value on the wrong side of one cut would shift its score by more than a thousandth.
    np.testing.assert_allclose(found, -reference.score_samples(values), rtol=0, atol=1e-6)


def test_forest_equals_a_walk_through_every_tree() -> None:
    module = fit_isolation_forest(_cloud(50, 5), n_trees=7, n_samples=30, seed=1)
    assert (module.rows, module.steps) == (59, 5)
    for row in _cloud(20, 5, seed=3):
        lengths = []
        for tree in range(7):
            node = tree * module.rows
            while int(module.left[node]) != node:
                side = module.left if row[module.feature[node]] <= module.threshold[node] else module.right
                node = int(side[node])
            lengths.append(float(module.length[node]))
        assert float(module(row[None])) == pytest.approx(2 ** -np.mean(lengths), rel=1e-6)


def test_mean_path_length_is_that_of_unsuccessful_searches() -> None:
    """c(n) by its recurrence: of a random binary search tree, averaged over the first cut; H by its logarithm."""
    for n in (3, 4, 10, 256):
        harmonic = math.log(n - 1) + float(np.euler_gamma)
        assert float(mean_path_length(torch.tensor([n]).double())) == pytest.approx(2 * harmonic - 2 * (n - 1) / n)
    assert mean_path_length(torch.tensor([0.0, 1, 2])).tolist() == [0, 0, 1]
    exact = [0.0, 0.0]  # an external node lies 1 deeper than in the part of the tree that it falls into
    for n in range(2, 257):
        exact.append(1 + sum((k * exact[k] + (n - k) * exact[n - k]) / n for k in range(1, n)) / (n - 1))
    assert float(mean_path_length(torch.tensor([256.0]).double())) == pytest.approx(exact[256], rel=1e-3)


def test_thresholds_rounded_down_decide_as_before() -> None:
    rng = np.random.default_rng(0)
    exact = np.concatenate([rng.normal(size=2000), rng.normal(size=2000) * 1e-3, [0.0, -0.0, 1.0, -1.0]])
    kept = rounded_down(torch.from_numpy(exact)).numpy()
    near = exact.astype(np.float32)
    for x in (np.nextafter(near, np.float32(-np.inf)), near, np.nextafter(near, np.float32(np.inf))):
        np.testing.assert_array_equal(x <= kept, x.astype(np.float64) <= exact)


def test_more_isolated_is_more_anomalous() -> None:
    learnt = _cloud(256, 8)
    for module in (fit_isolation_forest(learnt), fit_one_class_svm(learnt)):
        assert module(learnt + 3).min() > module(learnt).max()


# --- both -------------------------------------------------------------------------------------


@pytest.mark.parametrize("fit", [fit_one_class_svm, fit_isolation_forest])
def test_fitting_leaves_global_generators_alone(fit) -> None:  # type: ignore[no-untyped-def]
    def states() -> tuple[object, ...]:
        return torch.get_rng_state().tolist(), repr(np.random.get_state(legacy=False)), random.getstate()  # noqa: NPY002

    before = states()
    fit(_cloud(20, 4))
    assert states() == before


def test_importing_scikit_learn_gives_back_what_it_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sklearn

    (tmp_path / "drawing.py").write_text("import random\n\nVALUE = random.random()\n", encoding="utf-8")
    monkeypatch.setattr(sklearn, "__path__", [*sklearn.__path__, str(tmp_path)])
    monkeypatch.delitem(sys.modules, "sklearn.drawing", raising=False)
    before = random.getstate()
    assert 0 <= _sklearn("drawing").VALUE < 1
    assert random.getstate() == before


def _fitted() -> list[tuple[nn.Module, nn.Module]]:
    """Each fitted module, and an empty one of its shape."""
    svm, forest = fit_one_class_svm(_cloud(50, 6)), fit_isolation_forest(_cloud(50, 6), n_trees=9)
    both = Normalise(6, unit=True, standard=True).fit(_cloud(50, 6))
    return [
        (svm, OneClassSVM(len(svm.weights), 6)),
        (forest, IsolationForest(9, 50)),
        (both, Normalise(6, unit=True, standard=True)),
    ]


def test_the_state_is_the_whole_model() -> None:
    fresh = _cloud(30, 6, seed=4)
    for module, empty in _fitted():
        assert not torch.equal(empty(fresh), module(fresh))
        empty.load_state_dict(module.state_dict())
        assert torch.equal(empty(fresh), module(fresh))


def test_modules_export_for_any_batch() -> None:
    batch = torch.export.Dim("batch", min=1, max=64)
    fresh = _cloud(13, 6, seed=4)
    for module, _ in _fitted():
        exported = torch.export.export(module, (_cloud(5, 6),), dynamic_shapes=({0: batch},))
        torch.testing.assert_close(exported.module()(fresh), module(fresh))


# --- normalisation ----------------------------------------------------------------------------


@pytest.mark.parametrize("unit", [False, True])
@pytest.mark.parametrize("standard", [False, True])
def test_normalise_equals_a_loop(unit: bool, standard: bool) -> None:
    learnt, fresh = _cloud(40, 5, shift=1.0), _cloud(7, 5, seed=1, shift=1.0)
    found = Normalise(5, unit=unit, standard=standard).fit(learnt)(fresh)
    rows = [[v / math.sqrt(sum(w * w for w in row)) if unit else v for v in row] for row in learnt.tolist()]
    columns = list(zip(*rows, strict=True))
    deviations = [float(np.std(column)) for column in columns]
    floor = 0.1 * math.sqrt(float(np.mean(np.square(deviations))))
    for row, vector in zip(found.tolist(), fresh.tolist(), strict=True):
        length = math.sqrt(sum(w * w for w in vector)) if unit else 1.0
        wanted = [v / length for v in vector]
        if standard:
            moments = zip(wanted, columns, deviations, strict=True)
            wanted = [(v - float(np.mean(c))) / max(d, floor) for v, c, d in moments]
        assert row == pytest.approx(wanted, rel=1e-4, abs=1e-5)


def test_a_dimension_that_hardly_moved_does_not_drown_the_others() -> None:
    learnt = _cloud(40, 5)
    learnt[:, 0] = 3.0
    module = Normalise(5, unit=False, standard=True).fit(learnt)
    moved = torch.tensor([[0.1, 0.1, 0, 0, 0]]) + module.mean
    still, moving = module(moved)[0, :2].tolist()
    assert 0 < still < 30 * moving


def test_one_vector_normalises_to_zero() -> None:
    vector = _cloud(1, 5)
    torch.testing.assert_close(Normalise(5, unit=True, standard=True).fit(vector)(vector), torch.zeros(1, 5))
