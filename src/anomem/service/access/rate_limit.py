"""Rate limit of requests per address."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

__all__ = ["RateLimit"]

_BURST_S = 10.0
_KEPT = 10_000


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
        full = max(self._free_from.pop(address, now), now) + self._every_s
        left = full - now - max(_BURST_S, self._every_s)
        self._free_from[address] = full if left <= 0 else full - self._every_s
        if len(self._free_from) > _KEPT:
            self._free_from.popitem(last=False)
        return max(0.0, left)
