"""Cutting a traced model behind the wanted layers."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from timm.models import create_feature_extractor, get_graph_node_names
from torch import fx, nn
from torchvision.models.feature_extraction import DualGraphModule

from anomem.nn.tracing import private_tracing

__all__ = ["UntraceableError", "cut_model", "output_node"]

Graphs = tuple[fx.Graph, fx.Graph]
"""Computation in training, and in evaluation."""

# Tracing takes longer than all else of building a model, and gives the same graph for each of one architecture.
_graphs: dict[Hashable, Graphs] = {}
_output_nodes: dict[Hashable, str] = {}


class UntraceableError(Exception):
    """A model's path depends on its input."""


def cut_model(model: nn.Module, outputs: Mapping[str, str], architecture: Hashable) -> nn.Module:
    """Keep what leads to the wanted layers; later layers are neither computed nor stored.

    Parameters
    ----------
    model : Module
        Whole model; the result shares its layers.
    outputs : mapping of str to str
        Name of a layer, or of a node of the trace -> key in the result's output.
    architecture : hashable
        Anything equal for models of one architecture only.

    Raises
    ------
    UntraceableError
        If the model cannot be traced.
    """
    key = (architecture, tuple(outputs.items()))
    with _tracing():
        if key not in _graphs:
            own = {name for name, _ in (*model.named_parameters(), *model.named_buffers())}
            traced: nn.Module = create_feature_extractor(model, dict(outputs))
            graphs = _copied((traced.train_graph, traced.eval_graph))
            if any(node.op == "get_attr" and node.target not in own for graph in graphs for node in graph.nodes):
                return traced  # Its trace holds constants of this model alone.
            _graphs[key] = graphs
        cut: nn.Module = DualGraphModule(model, *_copied(_graphs[key]), type(model).__name__)
        return cut.train(model.training)


def output_node(model: nn.Module, architecture: Hashable) -> str:
    """Return the tracer's name of a model's pooled output.

    Raises
    ------
    UntraceableError
        If the model cannot be traced.
    """
    if architecture not in _output_nodes:
        with _tracing():
            _output_nodes[architecture] = str(get_graph_node_names(model)[1][-1])
    return _output_nodes[architecture]


def _copied(graphs: Any) -> Graphs:
    """Copy both graphs: one that belongs to a module keeps it alive."""
    train, evaluation = graphs
    return copy.deepcopy(train), copy.deepcopy(evaluation)


@contextmanager
def _tracing() -> Iterator[None]:
    """Trace in this thread alone, without the warning of layers that exist in training only; none of them is wanted."""
    with private_tracing(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*nodes obtained by tracing", category=UserWarning)
        try:
            yield
        except (fx.proxy.TraceError, TypeError, ValueError) as error:
            raise UntraceableError(str(error)) from error
