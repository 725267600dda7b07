"""What commands say about the images they were given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from anomem.cli.output import Output
from anomem.cli.session import note

if TYPE_CHECKING:
    from anomem.data.samples import Dataset


def show_found(dataset: Dataset, output: Output) -> dict[str, Any]:
    """Print how each part of a data set was read and what was left out; return it for ``--json``."""
    for text in (dataset.describe(), *dataset.parts()):
        output.line(text)
    if output.as_json:
        for text in dataset.notes:
            note(text)
    return dataset.report()
