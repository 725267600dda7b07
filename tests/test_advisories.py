"""Advisory check: a version inside a range is found, one outside is not, and an unknown package is named."""

from __future__ import annotations

import json
import re

from benchmarks.campaign.advisories import SNAPSHOT, check
from benchmarks.campaign.lowest import lowest


def test_versions_are_compared_with_ranges() -> None:
    snapshot = {"packages": {"a": [{"id": "X-1", "versions": ">=1.2,<1.4", "note": "n"}], "b": []}}
    found = check({"a": "1.3.9", "b": "1", "c": "1"}, snapshot)
    assert found["findings"] == [{"package": "a", "version": "1.3.9", "id": "X-1", "note": "n"}]
    assert found["not_reviewed"] == ["c"]
    assert check({"a": "1.4"}, snapshot)["findings"] == []


def test_lower_bounds_have_no_known_weakness() -> None:
    snapshot = json.loads(SNAPSHOT.read_text(encoding="utf-8"))
    bounds = dict(re.sub(r"\[.*\]", "", line).split("==") for line in lowest())
    assert bounds["torch"] == "2.14.1"
    assert check(bounds, snapshot)["findings"] == []
    assert "CVE-2024-34064" in [entry["id"] for entry in check({"jinja2": "3.1"}, snapshot)["findings"]]
