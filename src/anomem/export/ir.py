"""Conversion of an ONNX graph to an OpenVINO IR: float32, bfloat16, or int8 fitted to images of normals."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from anomem.errors import MissingExtraError, ParameterError, one_line
from anomem.export.graph import Graph
from anomem.export.quiet import hushed
from anomem.runtime.dependencies import import_openvino, import_quietly, installed, without_telemetry
from anomem.types import UInt8Image

METHODS = ("anomem", "fyd", "padim", "plume")
"""Methods that are exported to OpenVINO: those whose scores were measured there."""

QUANTISE_IMAGES = 128
"""Maximum number of tiles of normals that int8 is fitted to."""


def check_openvino(method: str, precision: str) -> None:
    """Refuse an export to OpenVINO that cannot succeed, before any work is done.

    Raises
    ------
    ParameterError
        For a method that is not exported to OpenVINO.
    MissingExtraError
        Without openvino, or for int8 without nncf.
    """
    if method not in METHODS:
        raise ParameterError(
            f"{method}: not exported to OpenVINO's own format; export ONNX, which OpenVINO reads, or one of: "
            f"{', '.join(METHODS)}"
        )
    for package in ("openvino", *(["nncf"] if precision == "int8" else [])):
        if not installed(package):
            raise MissingExtraError(package, "openvino")


def write_ir(onnx: Path, path: Path, graph: Graph, tiles: Iterable[UInt8Image] | None) -> None:
    """Write a graph as an IR: `path` (.xml) and its weights (.bin) beside it, in float32.

    Parameters
    ----------
    onnx : Path
        Graph file.
    path : Path
        A .xml file.
    graph : Graph
        Facts of the graph.
    tiles : iterable of ndarray, optional
        Tiles (S, S, 3) uint8 of normals: the backbone's convolutions over all channels become int8, their ranges fitted
        to these. Unchanged are: depthwise convolutions, whose channels' ranges differ by orders (they cost most
        of what int8 costs, and are no faster in it); those on the finest maps, whose noise reaches every scale;
        residual sums; and everything behind the backbone, where distances are differences of nearly equal numbers.
        Without tiles nothing is quantised; bfloat16 is a precision of computing, not of storing, an IR.
    """
    openvino = import_openvino()
    model = openvino.Core().read_model(str(onnx))
    if tiles is not None:
        model = _quantised(model, graph, list(tiles))
    try:
        openvino.save_model(model, str(path), compress_to_fp16=False)
    except RuntimeError as error:  # A full disk, among others.
        raise OSError(None, one_line(error)) from error


def _quantised(model: Any, graph: Graph, tiles: list[UInt8Image]) -> Any:
    if not tiles:
        raise ParameterError("int8: no normals to fit it to; give some by normals (--normals)")
    with hushed("torch.utils.cpp_extension"):
        nncf = import_quietly("nncf", "openvino", "anomem")

    with without_telemetry(), hushed("nncf", "openvino", "torch.utils.cpp_extension"):
        mixing = _mixing(model, graph.backbone)
        outside = [op.get_friendly_name() for op in model.get_ops() if _base(op) not in mixing]
        kept = nncf.IgnoredScope(names=outside, validate=False)
        batches = [np.ascontiguousarray(tile.transpose(2, 0, 1)[None]) for tile in tiles]
        return nncf.quantize(
            model,
            nncf.Dataset(batches),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(batches),
            ignored_scope=kept,
        )


def _mixing(model: Any, backbone: frozenset[str]) -> frozenset[str]:
    """Return names of the backbone's convolutions over all channels of a map, behind those on the finest maps.

    Convolutions up to the first that ends on maps of a quarter of the image's side are left out.
    """
    side = model.inputs[0].get_partial_shape()[2].get_length()
    found, fine = set(), True
    for op in model.get_ordered_ops():
        if op.get_type_name() != "Convolution" or _base(op) not in backbone:
            continue
        if not fine:
            found.add(_base(op))
        fine = fine and 4 * op.output(0).get_partial_shape()[2].get_length() > side
    return frozenset(found)


def _base(op: Any) -> str:
    """Return an operation's name in the graph: a convolution with a bias has become two, the first with a suffix."""
    name: str = op.get_friendly_name()
    return name.partition("/")[0]
