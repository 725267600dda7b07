"""Scorer as an ONNX graph: uint8 images in; score, and where the method localises map, out."""

from __future__ import annotations

import ast
import gc
import importlib.util
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from anomem.errors import ExportError, MissingExtraError, ParameterError
from anomem.export.quiet import hushed
from anomem.nn.devices import copy_scorer
from anomem.nn.scorer import Scorer
from anomem.nn.token_maps import TokenMaps
from anomem.nn.tracing import exporting_here, private_tracing

LARGEST = 2_000_000_000
"""Maximum bytes of tensors in one ONNX file, whose format ends at 2 GiB."""

_BATCH = "batch"
_BACKBONES = ("scorer.backbone.model", "scorer.backbone.segments")
"""Attributes of scorers that hold pretrained convolutional networks."""


@dataclass(frozen=True)
class Graph:
    """Facts of an exported network.

    Parameters
    ----------
    outputs : tuple of str
        Names: "score", then "map" where the method localizes, then "one_class" where labels weigh.
    backbone : frozenset of str
        Names of the nodes that belong to the backbone.
    opset : int
        Version of ONNX's operators.
    """

    outputs: tuple[str, ...]
    backbone: frozenset[str]
    opset: int


class _Network(nn.Module):
    """Scorer with a plain tuple as output."""

    def __init__(self, scorer: Scorer) -> None:
        super().__init__()
        self.scorer = scorer

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        output = self.scorer(image)
        found = (output.score, output.map, output.one_class)
        return tuple(tensor.float() for tensor in found if tensor is not None)


def write_onnx(scorer: Scorer, hw: tuple[int, int], path: Path) -> Graph:
    """Write a scorer's network, without facts about the model.

    Parameters
    ----------
    scorer : Scorer
        Fitted scorer; it is copied, and not changed.
    hw : (int, int)
        Height and width of the inputs, pixels.
    path : Path
        Path of the .onnx file.

    Notes
    -----
    The input ``image`` is (B, 3, H, W) uint8, RGB, B any number. Bytes are the result of decoding and resizing: they
    take a quarter of the memory of floats, and cannot be scaled wrongly, since the backbone's normalisation is part
    of the graph.

    Raises
    ------
    MissingExtraError
        Without onnx or onnxscript.
    ParameterError
        If the model is larger than an ONNX file can be.
    ExportError
        If the scorer has an operation that ONNX lacks.
    """
    for package in ("onnx", "onnxscript"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(package, "export")
    n_bytes = sum(tensor.numel() * tensor.element_size() for tensor in (*scorer.parameters(), *scorer.buffers()))
    if n_bytes > LARGEST:
        raise ParameterError(
            f"model: {n_bytes / 1e9:.1f} GB, and an ONNX file holds at most 2; "
            "fit it with fewer n_channels, fewer max_items or a smaller size"
        )
    network = _Network(copy_scorer(scorer, torch.device("cpu"))).eval()
    for module in network.modules():
        if hasattr(module, "inplace"):  # A graph has no devices, and removing them again takes long.
            setattr(module, "inplace", False)  # noqa: B010
        if isinstance(module, TokenMaps):
            module.fix_positions(hw)
    image = torch.zeros(2, 3, *hw, dtype=torch.uint8)
    with torch.no_grad():
        output = network.scorer(image)
        outputs = tuple(n for n in ("score", "map", "one_class") if getattr(output, n) is not None)
        with (
            private_tracing(),
            _uncollected(),
            hushed("onnxscript", "onnx_ir", "torch.onnx"),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            program = _traced(network, image, outputs)
    backbone = _tidied(program.model)
    program.save(str(path), external_data=False)
    return Graph(outputs, backbone, int(program.model.opset_imports[""]))


@contextmanager
def _uncollected() -> Iterator[None]:
    """Keep the garbage collector from walking over a growing graph again and again: a seventh of an export's time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _traced(network: _Network, image: Tensor, outputs: tuple[str, ...]) -> Any:
    shapes = {"image": {0: torch.export.Dim(_BATCH, min=1)}}
    try:
        with exporting_here():
            exported = torch.export.export(network, (image,), dynamic_shapes=shapes, strict=False)
        options: dict[str, Any] = {"dynamo": True, "optimize": False, "verbose": False, "external_data": False}
        names: dict[str, Any] = {"input_names": ["image"], "output_names": list(outputs)}
        program: Any = torch.onnx.export(exported, (image,), None, **options, **names)
        _simplify(program.model)
        return program
    except Exception as error:  # A tracer, a decomposer and a translator, each with its own errors.
        what = str(error).strip().splitlines()
        raise ExportError(f"the network cannot be written as ONNX ({what[0] if what else type(error).__name__})") from (
            error
        )


def _simplify(model: Any) -> None:
    """Fold constants, and drop unused nodes.

    The exporter's own optimisation also looks for patterns to fuse, which takes minutes on long graphs; runtimes do
    that when they load a file.
    """
    import onnx_ir.passes.common
    from onnxscript.optimizer import fold_constants

    common: Any = onnx_ir.passes.common
    common.InlinePass()(model)
    fold_constants(model)
    for tidy in (
        common.RemoveUnusedNodesPass(),
        common.RemoveUnusedFunctionsPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.DeduplicateInitializersPass(),
        common.CommonSubexpressionEliminationPass(),
        common.RemoveUnusedOpsetsPass(),
        common.OutputFixPass(),
        common.NameFixPass(),
    ):
        tidy(model)


def _tidied(model: Any) -> frozenset[str]:
    """Name the batch dimension, and drop per-node source notes, which name files of this machine.

    Returns
    -------
    frozenset of str
        Names of the backbone's nodes.
    """
    backbone = set()
    free = str(model.graph.inputs[0].shape[0])
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    for node in model.graph:
        scopes = ast.literal_eval(node.metadata_props.get("pkg.torch.onnx.name_scopes", "[]"))
        if any(scope.startswith(_BACKBONES) for scope in scopes):
            backbone.add(node.name)
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            _tidy_value(value, free)
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        _tidy_value(value, free)
    return frozenset(backbone)


def _tidy_value(value: Any, free: str) -> None:
    value.metadata_props.clear()
    value.doc_string = None
    for axis, side in enumerate(value.shape or ()):
        if str(side) == free:
            value.shape[axis] = _BATCH
