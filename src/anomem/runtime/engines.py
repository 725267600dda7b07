"""Inference engines for exported networks: ONNX Runtime and OpenVINO, on the CPU."""

from __future__ import annotations

import ctypes
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Any
from weakref import WeakSet

import numpy as np

from anomem.errors import InputError, MissingExtraError, ModelFileError, ParameterError, one_line
from anomem.runtime.dependencies import import_openvino, import_quietly, installed
from anomem.runtime.machine import cores
from anomem.runtime.metadata import weights_of
from anomem.runtime.precision import OPENVINO_HINTS
from anomem.runtime.scoring import TileOutput
from anomem.types import UInt8Image

__all__ = ["ENGINES", "Engine", "open_engine"]

ENGINES = ("auto", "onnxruntime", "openvino")


class Engine(ABC):
    """Network loaded into memory, independent of its file.

    Parameters
    ----------
    threads : int or None
        Number of inference threads; None for one per core.

    Attributes
    ----------
    name : str
        "onnxruntime" or "openvino".
    hw : (int, int) or None
        Height and width of the inputs in pixels; None if the file does not fix them.
    localizes : bool
        True if the network returns maps.
    arithmetic : str
        Arithmetic of the non-int8 operations on this processor, "f32" or "bf16".
    """

    name: str
    arithmetic: str = "f32"
    hw: tuple[int, int] | None
    localizes: bool

    def __init__(self, threads: int | None) -> None:
        self.threads = threads

    @abstractmethod
    def __call__(self, tiles: UInt8Image, *, maps: bool = True) -> TileOutput:
        """Run the network on tiles, (T, S, S, 3) uint8; thread-safe."""


class _OnnxRuntime(Engine):
    name = "onnxruntime"

    def __init__(self, path: Path, threads: int | None) -> None:
        super().__init__(threads)
        _refuse_in_fork(path)
        onnxruntime = import_quietly(self.name, self.name)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors, which are raised anyway
        # Spinning inference threads slow down the decoding threads.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if threads is not None:
            options.intra_op_num_threads = threads
        try:
            content = path.read_bytes()
            # Without the fallback, which prints to stdout and tries the same again.
            how: dict[str, Any] = {"providers": ["CPUExecutionProvider"], "enable_fallback": 0}
            self._session = onnxruntime.InferenceSession(content, options, **how)
        except Exception as error:  # engine-specific classes
            raise ModelFileError(f"{path}: not an ONNX model that can be run ({one_line(error, 200)})") from error
        self._path, self._outputs = path, [o.name for o in self._session.get_outputs()]
        inputs = [(i.name, i.type == "tensor(uint8)", len(i.shape)) for i in self._session.get_inputs()]
        _check_network(path, inputs, {o.name: len(o.shape) for o in self._session.get_outputs()})
        height, width = self._session.get_inputs()[0].shape[2:]
        self.hw = (height, width) if isinstance(height, int) and isinstance(width, int) else None
        self.localizes = "map" in self._outputs

    def __call__(self, tiles: UInt8Image, *, maps: bool = True) -> TileOutput:
        _check_tiles(tiles)
        wanted = [name for name in self._outputs if maps or name != "map"]
        # Single tiles keep their activations in a core's cache.
        try:
            runs = [self._session.run(wanted, {"image": _channels_first(tiles[i : i + 1])}) for i in range(len(tiles))]
        except Exception as error:  # engine-specific classes
            raise ModelFileError(
                f"{self._path}: its network fails ({one_line(error, 180)}); export it again"
            ) from error
        found = dict(zip(wanted, map(np.concatenate, zip(*runs, strict=True)), strict=True))
        return TileOutput(found["score"], found.get("map"), found.get("one_class"))


class _OpenVino(Engine):
    name = "openvino"

    def __init__(self, path: Path, threads: int | None, precision: str) -> None:
        super().__init__(threads)
        # By default, OpenVINO uses bfloat16 on processors that support it, regardless of the file.
        self._options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": OPENVINO_HINTS[precision]}
        if threads is not None:
            self._options["INFERENCE_NUM_THREADS"] = threads
        self._streams = threads or cores()
        self._path, self._lock = path, Lock()
        self._core: Any = import_openvino().Core()
        self._models: dict[tuple[bool, bool], Any] = {}
        _openvino_engines.add(self)
        try:
            self._network = _read_network(self._core, path)
            model = self._model(alone=True, maps=False)
        except Exception as error:  # RuntimeError of many kinds
            raise ModelFileError(f"{path}: not a model that OpenVINO can run ({one_line(error, 200)})") from error
        ports = {name: port for port in self._network.outputs for name in port.get_names()}
        inputs = [(*_named(port, "image"), _rank(port)) for port in model.inputs]
        _check_network(path, inputs, {name: _rank(port) for name, port in ports.items()})
        height, width = list(model.inputs[0].get_partial_shape())[2:]
        self.hw = (height.get_length(), width.get_length()) if height.is_static and width.is_static else None
        self._outputs = tuple(name for name in ("score", "map", "one_class") if name in ports)
        self.localizes = "map" in self._outputs
        # Processors without bfloat16 fall back to float32.
        self.arithmetic = str(model.get_property("INFERENCE_PRECISION_HINT").get_type_name())

    def __call__(self, tiles: UInt8Image, *, maps: bool = True) -> TileOutput:
        _check_tiles(tiles)
        wanted = [name for name in self._outputs if maps or name != "map"]
        alone = len(tiles) == 1 or self._streams == 1
        try:
            model = self._model(alone=alone, maps=maps and self.localizes)
            found = self._found(model, tiles, wanted, 1 if alone else 2 * self._streams)
        except RuntimeError as error:
            raise ModelFileError(
                f"{self._path}: its network fails ({one_line(error, 180)}); export it again"
            ) from error
        parts = {name: np.concatenate([one[name] for one in found]) for name in wanted}
        return TileOutput(parts["score"], parts.get("map"), parts.get("one_class"))

    def _found(self, model: Any, tiles: UInt8Image, wanted: Sequence[str], count: int) -> list[dict[str, Any]]:
        """Run single tiles, `count` at a time, so that activations stay in a core's cache."""
        requests = [model.create_infer_request() for _ in range(min(count, len(tiles)))]
        given: list[Any] = [None] * len(requests)  # shared with the requests, so kept until they finish
        found: list[dict[str, Any]] = []

        def take() -> None:
            request = requests[len(found) % len(requests)]
            request.wait()
            outputs = {name: request.get_tensor(name).data for name in wanted}
            found.append({name: np.array(values, np.float32) for name, values in outputs.items()})

        for i in range(len(tiles)):
            if i >= len(requests):
                take()
            place = i % len(requests)
            given[place] = _channels_first(tiles[i : i + 1])
            requests[place].start_async({"image": given[place]}, share_inputs=True)
        while len(found) < len(tiles):
            take()
        return found

    def _model(self, *, alone: bool, maps: bool) -> Any:
        """Return the network compiled for single tiles, or for throughput: one tile per core instead of all cores.

        Without the map, the memories that only maps are made of are not compiled.
        """
        with self._lock:
            if (alone, maps) not in self._models:
                how: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"} if alone else {"NUM_STREAMS": self._streams}
                self._core = self._core or import_openvino().Core()
                network = self._network if maps else _without_map(self._network)
                self._models[alone, maps] = self._core.compile_model(network, "CPU", {**self._options, **how})
        return self._models[alone, maps]

    def _renew(self) -> None:
        """Forget all that has threads; they are missing in a forked process, which compiles the network anew."""
        for lost in (self._core, *self._models.values()):
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(lost))  # never deleted: that would wait for the threads
        self._core, self._models, self._lock = None, {}, Lock()


_openvino_engines: WeakSet[_OpenVino] = WeakSet()


def _renew_all() -> None:
    for engine in list(_openvino_engines):
        engine._renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_all)

_started_in: list[int] = []
"""Process id of the first use of ONNX Runtime."""


def _refuse_in_fork(path: Path) -> None:
    """Refuse to start ONNX Runtime again in a forked process, where it would deadlock.

    Raises
    ------
    InputError
        It was started before the fork.
    """
    if not _started_in:
        _started_in.append(os.getpid())
    if _started_in[0] != os.getpid():
        raise InputError(
            f"{path}: onnxruntime was started before this process was forked, and cannot start again; start workers by "
            "spawn (multiprocessing.get_context('spawn')), or load models in the workers only, or before the fork"
        )


def _without_map(network: Any) -> Any:
    """Return a copy of a network that has no map; what leads to it alone is left out when it is compiled."""
    copied = network.clone()
    for result in copied.get_results():
        if "map" in result.output(0).get_names():
            copied.remove_result(result)
    return copied


def _read_network(core: Any, path: Path) -> Any:
    """Read a network into memory without mapping the weights file."""
    core.set_property({"ENABLE_MMAP": False})
    weights = weights_of(path)
    if weights is None:
        return core.read_model(str(path))
    return core.read_model(path.read_bytes(), weights.read_bytes())


def open_engine(path: str | Path, *, precision: str, threads: int | None = None, engine: str = "auto") -> Engine:
    """Load an exported network.

    Parameters
    ----------
    path : str or Path
        A .onnx file, or the .xml of an OpenVINO IR.
    precision : {"float32", "bfloat16", "int8"}
        Arithmetic used for calibration and scoring.
    threads : int, optional
        Number of inference threads; one per core by default.
    engine : {"auto", "onnxruntime", "openvino"}
        auto: OpenVINO for an IR; for ONNX the first installed of ONNX Runtime and OpenVINO.

    Raises
    ------
    ParameterError
        Unknown engine, engine that does not read this file, or fewer than 1 thread.
    MissingExtraError
        The engine is not installed.
    ModelFileError
        The file cannot be run.
    """
    place = Path(path)
    if threads is not None and threads < 1:
        raise ParameterError(f"threads must be at least 1, not {threads}")
    if precision not in OPENVINO_HINTS:
        raise ModelFileError(f"{path}: scores in {precision!r}, which this version does not know")
    chosen = _choose(place, engine)
    if not installed(chosen):
        raise MissingExtraError(chosen, chosen, "anomem-runtime")
    return _OnnxRuntime(place, threads) if chosen == "onnxruntime" else _OpenVino(place, threads, precision)


def _choose(place: Path, engine: str) -> str:
    if engine not in ENGINES:
        raise ParameterError(f"engine={engine!r} is not allowed; expected {', '.join(ENGINES)}")
    if place.suffix.lower() == ".xml":
        if engine == "onnxruntime":
            raise ParameterError(f"{place}: onnxruntime reads no OpenVINO IR; take engine='openvino'")
        return "openvino"
    if engine != "auto":
        return engine
    return "onnxruntime" if installed("onnxruntime") or not installed("openvino") else "openvino"


def _check_network(path: Path, inputs: list[tuple[str, bool, int]], outputs: dict[str, int]) -> None:
    """Check that a network maps images (T, 3, S, S) uint8 to scores and maps; -1 is an unknown axis."""
    wanted = {"score": 1, "one_class": 1, "map": 3}
    wrong = [name for name, axes in outputs.items() if name in wanted and axes not in (wanted[name], -1)]
    if inputs != [("image", True, 4)] or "score" not in outputs or wrong:
        raise ModelFileError(f"{path}: its network does not go from images to scores; export it again")


def _named(port: Any, name: str) -> tuple[str, bool]:
    """Return the name of an OpenVINO input, and True if it accepts uint8."""
    found = name if name in port.get_names() else ", ".join(sorted(port.get_names()))
    return found, port.get_element_type().get_type_name() == "u8"


def _rank(port: Any) -> int:
    rank = port.get_partial_shape().rank
    return int(rank.get_length()) if rank.is_static else -1


def _check_tiles(tiles: UInt8Image) -> None:
    if tiles.ndim != 4 or tiles.dtype != np.uint8 or len(tiles) < 1:
        raise InputError(f"a network takes (T, S, S, 3) uint8, T at least 1, not {tiles.shape} {tiles.dtype}")


def _channels_first(tiles: UInt8Image) -> UInt8Image:
    return np.ascontiguousarray(tiles.transpose(0, 3, 1, 2))
