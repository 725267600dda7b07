"""Distribution of tests over workers: one group per worker, and no wait for workers that are gone."""

from __future__ import annotations

import contextlib
import re
from typing import Any

from xdist.scheduler import LoadScopeScheduling

_ENOUGH = 2
"""Pending tests up to which a worker gets another group: it holds the last one back until it knows of a next."""


def group_of(nodeid: str) -> str:
    """Return the group of tests that share fits: those of a file, of the contract those of a method."""
    file, _, name = nodeid.partition("::")
    method = re.match(r"\w+\[(\w+)", name)
    return f"{file}:{method[1]}" if method and file.endswith("test_contract.py") else file


class Groups(LoadScopeScheduling):
    """Send each group to one worker: marks of groups do nothing, as xdist 3.8 cannot set node ids of pytest 9.2.

    Of a worker that died, xdist gives finished groups away again, waits for them for ever, and runs the test that
    killed it once more. Here the rest of its groups goes to others, and that test has failed.
    """

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)

    def remove_node(self, node: Any) -> str | None:
        """Return the test that a worker died in, if any, and queue the tests it had left."""
        groups = self.assigned_work.pop(node)
        left = [nodeid for group in groups.values() for nodeid, done in group.items() if not done]
        for nodeid in left[1:]:
            self.workqueue.setdefault(group_of(nodeid), {})[nodeid] = False
        # A worker that replaces an earlier one has no work before it has collected the tests.
        for other in self.assigned_work.keys() & self.registered_collections.keys():
            self._reschedule(other)
        return left[0] if left else None

    def _assign_work_unit(self, node: Any) -> None:
        """Send a group to a worker; one that died unnoticed keeps it until it is removed."""
        with contextlib.suppress(OSError):
            super()._assign_work_unit(node)

    def _reschedule(self, node: Any) -> None:
        """Fill a worker up, or end it once nothing is left."""
        while self.workqueue and not node.shutting_down and self._pending_of(self.assigned_work[node]) <= _ENOUGH:
            self._assign_work_unit(node)
        if not self.workqueue and not node.shutting_down:
            node.shutdown()
