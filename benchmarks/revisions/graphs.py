"""Facts of exported graphs, without node names, which follow the package's modules."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

Facts = dict[str, str]


def onnx_facts(path: Path) -> tuple[Facts, Any]:
    """Return the computation of an .onnx file, part by part, and its manifest."""
    import onnx

    model = onnx.load(path)
    numbers: dict[str, str] = {}

    def number(name: str) -> str:
        return numbers.setdefault(name, f"v{len(numbers)}") if name else ""

    graph = model.graph
    facts = {
        "inputs": " ".join(f"{number(v.name)}:{_type(v)}" for v in graph.input),
        "opset": " ".join(f"{o.domain}:{o.version}" for o in model.opset_import),
    }
    constants = {tensor.name: tensor for tensor in graph.initializer}
    used: list[str] = []
    for i, node in enumerate(graph.node):
        used += [name for name in node.input if name in constants and name not in used]
        attributes = sorted(_digest(a.SerializeToString()) for a in node.attribute)
        inputs, outputs = [number(n) for n in node.input], [number(n) for n in node.output]
        facts[f"node {i}"] = f"{node.op_type}({','.join(inputs)})->{','.join(outputs)} {' '.join(attributes)}"
    for i, name in enumerate(used):
        tensor = onnx.numpy_helper.to_array(constants[name])
        facts[f"constant {i}"] = f"{tensor.dtype}{list(tensor.shape)} {_digest(tensor.tobytes())}"
    facts["outputs"] = " ".join(f"{number(v.name)}:{_type(v)}" for v in graph.output)
    return facts, _metadata({entry.key: entry.value for entry in model.metadata_props})


def ir_facts(path: Path) -> tuple[Facts, Any]:
    """Return the computation of an OpenVINO IR, part by part, and its manifest."""
    root = ElementTree.parse(path).getroot()
    facts = {"constants": _digest(path.with_suffix(".bin").read_bytes())}
    for i, layer in enumerate(root.iterfind("layers/layer")):
        data = layer.find("data")
        settings = {} if data is None else dict(sorted(data.attrib.items()))
        facts[f"layer {i}"] = f"{layer.get('type')} {settings}"
    edges = root.iterfind("edges/edge")
    facts["edges"] = _digest(" ".join(str(sorted(edge.attrib.items())) for edge in edges).encode())
    return facts, _metadata({entry.tag: entry.get("value", "") for entry in root.iterfind("rt_info/anomem/*")})


def _metadata(entries: dict[str, str]) -> Any:
    return {key: _parsed(value) for key, value in entries.items()}


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _type(value: Any) -> str:
    return _digest(value.type.SerializeToString())


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
