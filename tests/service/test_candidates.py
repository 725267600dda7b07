"""Judgement of candidates."""

from __future__ import annotations

from anomem.service.jobs.candidates import on_sample
from anomem.service.jobs.spec import ImageRow


def drawn(label: str | None, *, anomalous: bool) -> ImageRow:
    return ImageRow("a.png", "a.png", 1, "0" * 64, anomalous=anomalous, label=label)


def test_only_rejected_parts_that_are_confirmed_normal_are_false_alarms() -> None:
    rows = [
        drawn("normal", anomalous=True),
        drawn("normal", anomalous=False),
        drawn("normal", anomalous=True),
        drawn("defect", anomalous=True),
        drawn("unsure", anomalous=True),
        drawn(None, anomalous=True),
        drawn(None, anomalous=False),
    ]
    assert on_sample(rows, [True, False, False, True, True, True, False]) == {
        "confirmed": 3,
        "false_alarms_before": 2,
        "false_alarms": 1,
        "rejected_unlabelled": 1,
    }
    assert set(on_sample([], []).values()) == {0}
