"""Checks of fitting."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from functools import partial

import numpy as np

from anomem.data.sources import ArraySource, open_source
from anomem.errors import AnomemWarning, NotFittedError
from anomem.testing.example import Example, StopAfter, StoppedError, digests, random_state, refused, require
from anomem.types import UInt8Image


def fit_returns_self_and_spares_the_global_random_state(example: Example) -> None:
    """Check that ``fit`` returns self, and neither fitting, at any step, nor scoring touches a global random state."""
    found, detector, changed = example.again
    require(found is detector, "fit returns self")
    require(not changed, f"the global random state is unchanged ({', '.join(changed)})")
    state = random_state()
    example.score(detector)
    require(random_state() == state, "the global random state is unchanged (score)")


def same_seed_same_scores(example: Example) -> None:
    """Check that equal seed, threads and batch size give bit-identical scores, whatever the global random state."""
    again = example.again[1]
    require(np.array_equal(example.score(again), example.scores), "scores are equal to the last bit")
    if example.cls.localizes:
        maps = [np.asarray(d.anomaly_map(example.mixed[:4], device="cpu")) for d in (again, example.fitted)]
        require(np.array_equal(maps[0], maps[1]), "maps are equal to the last bit")
    require(digests(example.reduced)["learn"] != digests(again)["learn"], "another seed draws another split")


def refit_equals_a_fresh_fit(example: Example) -> None:
    """Check that a second fit equals a fresh one."""
    detector = example.fit(copy.copy(example.smaller))
    require(np.array_equal(example.score(detector), example.scores), "scores are those of a fresh fit")


def fewer_images_than_a_batch(example: Example) -> None:
    """Check that five images are enough, with warnings that name the cost."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        detector = example.fit(images=example.train[:5], alpha=None, batch_size=16)
    require(any(issubclass(w.category, AnomemWarning) for w in caught), "few images are warned of")
    require(np.isfinite(example.score(detector)).all(), "scores are finite")


class _Breaking(ArraySource):
    """Images that fail to load after `left` loads."""

    left = 0

    def load_with_digest(self, i: int) -> tuple[UInt8Image, int]:
        self.left -= 1
        if self.left < 0:
            raise InterruptedError("the disk failed")
        return super().load_with_digest(i)


def an_interrupted_fit_leaves_no_model(example: Example) -> None:
    """Check that a fit that is abandoned or fails midway leaves the detector unfitted, even one fitted before."""
    images, y = example.given(example.train)
    for detector, n_steps in ((example.new(), 1), (copy.copy(example.fitted), 2)):
        fit = partial(detector.fit, images, y, device="cpu", progress=StopAfter(n_steps))
        refused(StoppedError, fit, "a stopped fit")
        refused(NotFittedError, lambda d=detector: example.score(d), "an abandoned fit")  # type: ignore[misc]
    for left in (0, 10, 38):
        source, detector = _Breaking(images), example.new()
        source.left = left
        refused(InterruptedError, lambda d=detector, s=source: example.fit(d, s, y), "a failing disk")  # type: ignore[misc]
        refused(NotFittedError, lambda d=detector: example.score(d), "a failed fit")  # type: ignore[misc]
    require(np.array_equal(example.score(example.fitted), example.scores), "copies share no changing state")


def unfitted_is_said(example: Example) -> None:
    """Check that methods that need a fitted detector raise an error that says so."""
    detector = example.new()
    calls: tuple[Callable[[], object], ...] = (
        lambda: example.score(detector),
        lambda: detector.save("model"),
        lambda: detector.set_alpha(0.5),
        lambda: detector.label(example.labelled),
        lambda: detector.scorer_,
    )
    for call in calls:
        require("fit" in refused(NotFittedError, call, "an unfitted detector"), "the error says what to do")


def groups_stay_together(example: Example) -> None:
    """Check that images of one group stay on one side of the split, and the parts share no content."""
    images, y = example.given(example.train)
    groups = [i // 4 if i < len(example.train) else None for i in range(len(images))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AnomemWarning)  # twelve groups are few
        parts = digests(example.fit(images=images, y=y, groups=groups))
    source = open_source(example.train)
    for group in range(12):
        members = {source.digest(i) for i in range(4 * group, 4 * group + 4)}
        require(any(members <= part for part in parts.values()), f"group {group} stays together")
