"""What computes an exported network: ONNX Runtime or OpenVINO, on this machine's processor."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Any

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
    """A network that is ready to compute, in memory of its own: its file may be replaced.

    Parameters
    ----------
    threads : int or None
        Threads of arithmetic; None: one per core.

    Attributes
    ----------
    name : str
        "onnxruntime" or "openvino".
    size : int or None
        Side of its square inputs in pixels, where the file fixes it.
    localizes : bool
        Whether it gives maps.
    arithmetic : str
        "f32" or "bf16": what this processor computes in, where int8 does not.
    """

    name: str
    arithmetic: str = "f32"
    size: int | None
    localizes: bool

    def __init__(self, threads: int | None) -> None:
        self.threads = threads

    @abstractmethod
    def __call__(self, tiles: UInt8Image, *, maps: bool = True) -> TileOutput:
        """Compute: (T, S, S, 3) uint8 to what the network says of each tile, safe to call from several threads."""


class _OnnxRuntime(Engine):
    name = "onnxruntime"

    def __init__(self, path: Path, threads: int | None) -> None:
        super().__init__(threads)
        _refuse_in_fork(self.name, path)
        onnxruntime = import_quietly(self.name, self.name)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors, which are raised anyway
        # Threads that wait for work in a loop take the processor from those that decode.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if threads is not None:
            options.intra_op_num_threads = threads
        try:
            content = path.read_bytes()
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its own kinds, which all mean the same to a user
            raise ModelFileError(f"{path}: not an ONNX model that can be run ({one_line(error, 200)})") from error
        self._path, self._outputs = path, [o.name for o in self._session.get_outputs()]
        inputs = [(i.name, i.type == "tensor(uint8)", len(i.shape)) for i in self._session.get_inputs()]
        _check_network(path, inputs, {o.name: len(o.shape) for o in self._session.get_outputs()})
        side = self._session.get_inputs()[0].shape[2]
        self.size = side if isinstance(side, int) else None
        self.localizes = "map" in self._outputs

    def __call__(self, tiles: UInt8Image, *, maps: bool = True) -> TileOutput:
        _check_tiles(tiles)
        wanted = [name for name in self._outputs if maps or name != "map"]
        # One by one: what is computed of a tile stays in a core's cache.
        try:
            runs = [self._session.run(wanted, {"image": _channels_first(tiles[i : i + 1])}) for i in range(len(tiles))]
        except Exception as error:  # its own kinds, which all mean the same to a user
            raise ModelFileError(
                f"{self._path}: its network fails ({one_line(error, 180)}): export it again"
            ) from error
        found = dict(zip(wanted, map(np.concatenate, zip(*runs, strict=True)), strict=True))
        return TileOutput(found["score"], found.get("map"), found.get("one_class"))


class _OpenVino(Engine):
    name = "openvino"

    def __init__(self, path: Path, threads: int | None, precision: str) -> None:
        super().__init__(threads)
        # Unless it is told, a processor with bfloat16 computes in it, whatever the file holds.
        self._options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": OPENVINO_HINTS[precision]}
        if threads is not None:
            self._options["INFERENCE_NUM_THREADS"] = threads
        self._streams = threads or cores()
        self._path, self._lock = path, Lock()
        self._side_by_side: Any = None
        _refuse_in_fork(self.name, path)
        self._core = import_openvino().Core()
        try:
            self._network = _read_network(self._core, path)
            self._model = self._compiled(PERFORMANCE_HINT="LATENCY")
        except Exception as error:  # RuntimeError of many kinds
            raise ModelFileError(f"{path}: not a model that OpenVINO can run ({one_line(error, 200)})") from error
        self._ports = {name: i for i, port in enumerate(self._model.outputs) for name in port.get_names()}
        inputs = [(*_named(port, "image"), _rank(port)) for port in self._model.inputs]
        _check_network(path, inputs, {name: _rank(self._model.outputs[i]) for name, i in self._ports.items()})
        side = self._model.inputs[0].get_partial_shape()[2]
        self.size = side.get_length() if side.is_static else None
        self.localizes = "map" in self._ports
        # A processor without bfloat16 takes float32 instead.
        self.arithmetic = str(self._model.get_property("INFERENCE_PRECISION_HINT").get_type_name())

    def __call__(self, tiles: UInt8Image, *, maps: bool = True) -> TileOutput:
        _check_tiles(tiles)
        _refuse_in_fork(self.name, self._path)  # its threads are the parent's: it would wait for ever
        wanted = [name for name in ("score", "map", "one_class") if name in self._ports and (maps or name != "map")]
        alone = len(tiles) == 1 or self._streams == 1
        try:
            model = self._model if alone else self._beside()
            found = self._found(model, tiles, wanted, 1 if alone else 2 * self._streams)
        except RuntimeError as error:
            raise ModelFileError(
                f"{self._path}: its network fails ({one_line(error, 180)}): export it again"
            ) from error
        parts = {name: np.concatenate([one[name] for one in found]) for name in wanted}
        return TileOutput(parts["score"], parts.get("map"), parts.get("one_class"))

    def _found(self, model: Any, tiles: UInt8Image, wanted: Sequence[str], count: int) -> list[dict[str, Any]]:
        """Compute tile by tile, `count` of them under way: what is computed of one stays in a core's cache."""
        requests = [model.create_infer_request() for _ in range(min(count, len(tiles)))]
        given: list[Any] = [None] * len(requests)  # shared with the requests, so kept until they are done
        found: list[dict[str, Any]] = []

        def take() -> None:
            request = requests[len(found) % len(requests)]
            request.wait()
            outputs = {name: request.get_output_tensor(self._ports[name]).data for name in wanted}
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

    def _beside(self) -> Any:
        """The network for many tiles: one a core, instead of all cores on one, who wait for one another."""
        with self._lock:
            if self._side_by_side is None:
                self._side_by_side = self._compiled(NUM_STREAMS=self._streams)
        return self._side_by_side

    def _compiled(self, **options: Any) -> Any:
        return self._core.compile_model(self._network, "CPU", {**self._options, **options})


_process: dict[str, int] = {}
"""The process in which each engine was first used."""


def _refuse_in_fork(engine: str, path: Path) -> None:
    """Refuse to start an engine for the second time, in a forked process: it would wait for its parent's threads.

    Raises
    ------
    InputError
        Saying what to do instead.
    """
    if _process.setdefault(engine, os.getpid()) != os.getpid():
        raise InputError(
            f"{path}: {engine} was started before this process was forked, and cannot start again: start workers by "
            "spawn (multiprocessing.get_context('spawn')), or load models in the workers only"
            + (", or before the fork" if engine == "onnxruntime" else "")
        )


def _read_network(core: Any, path: Path) -> Any:
    """Read a network into memory; OpenVINO would map its weights from the file."""
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
        In which it was calibrated, and is computed.
    threads : int, optional
        Threads of arithmetic; by default one a core.
    engine : {"auto", "onnxruntime", "openvino"}
        auto: OpenVINO for an IR; for ONNX what is installed, ONNX Runtime first.

    Raises
    ------
    ParameterError
        An unknown engine, or one that does not read this file; fewer than 1 thread.
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
            raise ParameterError(f"{place}: onnxruntime reads no OpenVINO IR: take engine='openvino'")
        return "openvino"
    if engine != "auto":
        return engine
    return "onnxruntime" if installed("onnxruntime") or not installed("openvino") else "openvino"


def _check_network(path: Path, inputs: list[tuple[str, bool, int]], outputs: dict[str, int]) -> None:
    """Refuse a network that is not from images (T, 3, S, S) uint8 to scores and maps; axes by number, -1 unknown."""
    wanted = {"score": 1, "one_class": 1, "map": 3}
    wrong = [name for name, axes in outputs.items() if name in wanted and axes not in (wanted[name], -1)]
    if inputs != [("image", True, 4)] or "score" not in outputs or wrong:
        raise ModelFileError(f"{path}: its network does not go from images to scores: export it again")


def _named(port: Any, name: str) -> tuple[str, bool]:
    """Name of an OpenVINO input, and whether it takes uint8."""
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
