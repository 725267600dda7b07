"""Summary of a command's input images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from anomem.cli.output import Output, files_of
from anomem.cli.session import Session, note
from anomem.errors import InputError
from anomem.types import NORMAL

if TYPE_CHECKING:
    from pathlib import Path

    from anomem.data.samples import Dataset, Sample


def show_found(dataset: Dataset, output: Output) -> dict[str, Any]:
    """Print the parts of a data set and the files left out; return both for ``--json``."""
    for text in (dataset.describe(), *dataset.parts()):
        output.line(text)
    if output.as_json:
        for text in dataset.notes:
            note(text)
    return dataset.report()


def read_inputs(
    session: Session, output: Output, data: Path, labels: Path | None, **reading: Any
) -> tuple[Dataset, tuple[Sample, ...] | None, dict[str, Any]]:
    """Read what a fit learns from: a data set, labels that somebody picked, and what was found, which is printed."""
    from anomem.data.sources import read_dataset, read_labels

    dataset = read_dataset(data, **reading)
    found = show_found(dataset, output)
    picked = read_labels(labels) if labels else None
    session.check_inputs(*files_of((*dataset.train, *(picked or ()), *dataset.test)))
    if not any(sample.label == NORMAL for sample in dataset.train):
        raise InputError(f"{data}: has no normal images to learn from; put them into train/good, or label them 0")
    return dataset, picked, found
