"""PostgreSQL server of a test, or a skip."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from benchmarks.campaign.station import postgres as servers


@contextmanager
def postgres() -> Iterator[str]:
    """Run a server on a free port of this machine, and yield the URL of its database."""
    reason = servers.missing()
    if reason is not None:
        pytest.skip(reason)
    with servers.postgres() as server:
        yield server.url
