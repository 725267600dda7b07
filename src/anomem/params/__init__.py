"""Hyperparameters that are declared once and validated; see :mod:`anomem.params.declared`."""

from anomem.params.allowed import FLAG, Allowed, Each, Either, FileOrArray, OneOf, Range, Text
from anomem.params.assignments import parse_assignments
from anomem.params.declared import BY_PRESET, Parameters, group, param, parameter_group, parameters
from anomem.params.describe import Description, describe, table

__all__ = [
    "BY_PRESET",
    "FLAG",
    "Allowed",
    "Description",
    "Each",
    "Either",
    "FileOrArray",
    "OneOf",
    "Parameters",
    "Range",
    "Text",
    "describe",
    "group",
    "param",
    "parameter_group",
    "parameters",
    "parse_assignments",
    "table",
]
