"""Micro-batcher: one thread per model scores whatever has arrived, in batches over requests."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from anomem.errors import one_line
from anomem.runtime.model import Model
from anomem.runtime.scored import Scored
from anomem.service.errors import BusyError, ServiceError
from anomem.service.scoring.parts import Part, ScoredPart
from anomem.service.scoring.strata import check_stratum, strata_for

__all__ = ["Batcher", "Served"]


_AHEAD = 2
"""Batches scored in one go: images of the second are decoded while the first is scored."""


@dataclass(frozen=True)
class Served:
    """Loaded version.

    Parameters
    ----------
    version_id : int
    model : Model
        Detector or exported session, with the alpha of its model.
    """

    version_id: int
    model: Model


class Batcher:
    """Bounded queue and scoring thread of one model.

    Parameters
    ----------
    model_id : int
    served : Served
        Version that scores.
    record : callable
        Called with the scored parts of a batch, in the order of arrival.
    limit, batch : int
        Images that wait at most; images per batch.
    max_pixels : int
        Size limit per image.
    """

    def __init__(
        self,
        model_id: int,
        served: Served,
        record: Callable[[Sequence[ScoredPart]], None],
        *,
        limit: int,
        batch: int,
        max_pixels: int,
    ) -> None:
        self.model_id, self.served = model_id, served
        self._record, self._limit, self._batch, self._max_pixels = record, limit, batch, max_pixels
        self._parts: deque[Part] = deque()
        self._changed = threading.Condition()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name=f"score-{model_id}", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Number of images that wait."""
        return len(self._parts)

    def swap(self, served: Served) -> None:
        """Score with another version from the next batch on."""
        self.served = served

    def check_room(self, count: int) -> None:
        """Refuse images before they are read, if the queue has no room; see `submit`."""
        if len(self._parts) + count > self._limit:
            raise BusyError(f"queue: {len(self._parts)} images wait; send the image again soon")

    def submit(self, parts: Sequence[Part]) -> None:
        """Queue all parts, or none.

        Raises
        ------
        BusyError
            The queue has no room for them.
        InputError
            A stratum that the model has no calibration for.
        """
        for stratum in {part.stratum for part in parts}:
            check_stratum(self.served.model, stratum)
        with self._changed:
            if self._stopped:
                raise BusyError("station: is stopping; send the image again soon", retry_after=5)
            self.check_room(len(parts))
            for part in parts:
                part.done.set_running_or_notify_cancel()  # a sender that leaves cancels nothing
            self._parts.extend(parts)
            self._changed.notify()

    def stop(self) -> None:
        """Score what waits, then end the thread."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while parts := self._next():
            served = self.served
            try:
                scored = self._score(served, parts)
            except Exception as error:  # noqa: BLE001 - one batch must not end the thread
                failure = ServiceError(f"model {self.model_id}: cannot score ({one_line(error)}); check the model")
                failure.status = 500
                for part in parts:
                    part.done.set_exception(failure)
            else:
                self._record(scored)

    def _next(self) -> list[Part]:
        with self._changed:
            while not self._parts and not self._stopped:
                self._changed.wait()
            count = min(_AHEAD * self._batch, len(self._parts))
            return [self._parts.popleft() for _ in range(count)]

    def _score(self, served: Served, parts: Sequence[Part]) -> list[ScoredPart]:
        alpha = served.model.calibration_.alpha
        results = served.model.score(
            [part.path for part in parts],
            strata=strata_for(served.model, [part.stratum for part in parts]),
            batch_size=self._batch,
            skip_bad=True,
            max_pixels=self._max_pixels,
        )
        return [self._described(part, result, served, alpha) for part, result in zip(parts, results, strict=True)]

    def _described(self, part: Part, result: Scored, served: Served, alpha: float) -> ScoredPart:
        if result.error is not None:
            error = result.error.replace(str(part.path), part.name)
            return ScoredPart(part, self.model_id, served.version_id, None, None, False, alpha, error)
        return ScoredPart(part, self.model_id, served.version_id, result.score, result.p_value, result.anomalous, alpha)
