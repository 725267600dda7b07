"""Rate limit of logins: after several failures a pause that doubles."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from anomem.service.errors import BusyError

__all__ = ["LoginLimit"]

_FREE = 5
_FIRST_S, _LONGEST_S = 2.0, 900.0
_KEPT = 10_000


class LoginLimit:
    """Failures per user name and per address.

    Parameters
    ----------
    clock : callable
        Seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._failures: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def check(self, *keys: str) -> None:
        """Refuse a try during a pause.

        Raises
        ------
        BusyError
            With the seconds left.
        """
        with self._lock:
            left = max((self._failures.get(key, (0, 0.0))[1] for key in keys), default=0.0) - self._clock()
        if left > 0:
            seconds = int(left) + 1
            raise BusyError(f"login: too many failures; wait {seconds} s", retry_after=seconds)

    def failed(self, *keys: str) -> None:
        """Count a failure."""
        with self._lock:
            for key in keys:
                count = self._failures.pop(key, (0, 0.0))[0] + 1
                pause = min(_LONGEST_S, _FIRST_S * 2 ** (count - _FREE)) if count >= _FREE else 0.0
                self._failures[key] = count, self._clock() + pause
            while len(self._failures) > _KEPT:
                self._failures.popitem(last=False)

    def succeeded(self, *keys: str) -> None:
        """Forget the failures."""
        with self._lock:
            for key in keys:
                self._failures.pop(key, None)
