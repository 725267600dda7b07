"""Detectors configured from command line options."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from anomem.cli.output import Output
from anomem.cli.session import note
from anomem.errors import InputError
from anomem.runtime.precision import PRECISIONS
from anomem.runtime.text import count

if TYPE_CHECKING:
    from anomem.detector import Detector


def configured(
    method: str, assignments: Sequence[str], precision: str | None, bits: str | None, seed: int | None
) -> Detector:
    """Build a detector from ``--set`` and the options for hyperparameters, and check the values."""
    from anomem.detectors import get
    from anomem.params import parse_assignments

    kind = get(method)
    values = parse_assignments(kind, assignments)
    if precision is not None:
        values["precision"] = PRECISIONS[precision]
    if bits is not None:
        values["bits"] = bits if bits == "auto" else int(bits)
    if seed is not None:
        values["seed"] = seed
    detector = kind(**values)
    detector.resolve()
    return detector


def extended(model: Path, output: Output) -> Detector:
    """Load a detector to refit with more images, and print the facts that will change."""
    from anomem.data.store import store_of
    from anomem.detectors import load
    from anomem.extending import extended_call

    context = click.get_current_context()
    options = {
        "method": "--method",
        "assignments": "--set",
        "precision": "--precision",
        "bits": "--bits",
        "seed": "--seed",
    }
    given = [o for name, o in options.items() if context.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    if given:
        named = ", ".join(given)
        raise InputError(f"{named}: --extend fits as {model} was fitted; leave it out, or fit again on all images")
    detector = load(model)
    output.line(f"{model}: its normals ({store_of(model)}) are learnt together with these, all anew")
    given_call = {name: context.params[name] for name in ("alpha", "fit_precision", "max_pixels")}
    given_call["groups"] = context.params["group_by"]
    call = extended_call(model, given_call)
    kept = [f"{name} {value}" for name, value in call.items() if value != given_call[name]]
    if kept:
        output.line(f"as {model} was fitted, unless given anew: {', '.join(kept)}")
    labelled = detector.counts_["n_labelled"]
    if labelled:
        note(f"the {count(labelled, 'earlier label')} of {model} will not be kept; --labels gives them again")
    return detector
