"""Rate limit of requests per address."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

__all__ = ["RateLimit"]

_BURST_S = 10.0
_KEPT = 10_000
_ROUNDING_S = 1e-6
"""More than what differences of large times round by: a request that is due by then is due."""


class RateLimit:
    """Requests per address: a steady rate, and a burst of what ten seconds of it allow.

    Parameters
    ----------
    per_second : float
        Steady rate; 0: no limit.
    clock : callable
        Seconds that never go back.

    Examples
    --------
    >>> limit = RateLimit(0.1, clock=lambda: 0.0)
    >>> limit.wait_s("10.0.0.7"), limit.wait_s("10.0.0.7"), limit.wait_s("10.0.0.8")
    (0.0, 10.0, 0.0)
    """

    def __init__(self, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._every_s, self._clock = 1 / per_second if per_second else 0.0, clock
        self._free_from: OrderedDict[str, float] = OrderedDict()

    def wait_s(self, address: str) -> float:
        """Count a request, and return 0; or count none, and return the seconds until the next one is allowed."""
        now = self._clock()
        # The time at which the bucket of an address is full again says how much is left in it.
        full = max(self._free_from.pop(address, now), now)
        left = (full - now) + self._every_s - max(_BURST_S, self._every_s)
        allowed = left < _ROUNDING_S
        self._free_from[address] = full + self._every_s if allowed else full
        if len(self._free_from) > _KEPT:
            self._free_from.popitem(last=False)
        return 0.0 if allowed else left
