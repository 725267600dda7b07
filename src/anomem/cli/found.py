"""Summary of a command's input images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from anomem.cli.output import Output
from anomem.cli.session import note

if TYPE_CHECKING:
    from anomem.data.samples import Dataset


def show_found(dataset: Dataset, output: Output) -> dict[str, Any]:
    """Print the parts of a data set and the files left out; return both for ``--json``."""
    for text in (dataset.describe(), *dataset.parts()):
        output.line(text)
    if output.as_json:
        for text in dataset.notes:
            note(text)
    return dataset.report()
