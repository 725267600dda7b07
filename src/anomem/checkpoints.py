"""Checkpoints of a fit: the state of its training on disk, so that an interrupted fit continues to equal results.

A fit is deterministic, and calls the training loop in a fixed order. A checkpoint holds the state of each finished call
and of the current one. Resumed, everything outside the loop is computed again, finished calls take their final state,
and the current one continues at its step. Frozen features are cached by content (:mod:`anomem.nn.map_cache`), so that
methods without training continue their extraction too.
"""

from __future__ import annotations

import json
import shutil
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from anomem.data.ranks import is_first
from anomem.errors import AnomemWarning, InputError, one_line
from anomem.nn.endless import restore, state_of
from anomem.nn.map_cache import map_cache
from anomem.runtime.atomic import atomic_path
from anomem.types import Record

__all__ = ["Checkpoints", "Training", "active", "checkpointing", "features_of", "remove_checkpoint"]

_KEY = "anomem.checkpoint"
_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")
_FEATURES_MB = 16384

_active: ContextVar[Checkpoints | None] = ContextVar("checkpoints", default=None)


@dataclass
class Training:
    """State of one call of the training loop; everything that its next step depends on.

    Parameters
    ----------
    stage : str
        Name of the stage.
    module : Module
        Trained module.
    optimiser : Optimizer or None
        Its optimiser; None for a trial that is stored finished only.
    batches : iterator
        Batches, with a position if it is :class:`~anomem.nn.endless.Endless`.
    rng : Generator or None
        Generator that batches and loss draw from.
    step : int
        Number of finished steps.
    losses : list of float
        Losses since the last record.
    records : list of Record
        Records so far.
    """

    stage: str
    module: nn.Module
    optimiser: Any
    batches: Iterator[Any]
    rng: torch.Generator | None = None
    step: int = 0
    losses: list[float] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)

    def tensors(self) -> dict[str, Tensor]:
        """Return copies of all tensors by name."""
        found = {f"module.{name}": value for name, value in self.module.state_dict().items()}
        found |= {f"batches.{name}": value for name, value in state_of(self.batches).items()}
        found["torch"] = torch.get_rng_state()
        if self.rng is not None:
            found["rng"] = self.rng.get_state()
        for number, parts in (self.optimiser.state_dict()["state"] if self.optimiser is not None else {}).items():
            found |= {f"optimiser.{number}.{name}": value for name, value in parts.items() if value is not None}
        return {name: value.detach().to("cpu", copy=True).contiguous() for name, value in found.items()}

    def facts(self, *, finished: bool) -> dict[str, object]:
        """Return everything else as JSON values."""
        records = [[r.stage, r.step, r.total, {k: float(v) for k, v in r.facts.items()}] for r in self.records]
        return {
            "stage": self.stage,
            "finished": finished,
            "step": self.step,
            "losses": self.losses,
            "records": records,
        }

    def restore(self, facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Take a stored state."""
        self.module.load_state_dict(_below("module.", tensors))
        restore(self.batches, _below("batches.", tensors))
        if self.optimiser is not None and not facts["finished"]:
            self._restore_optimiser(_below("optimiser.", tensors))
        if self.rng is not None:
            self.rng.set_state(tensors["rng"])
        torch.set_rng_state(tensors["torch"])
        self.step, self.losses = facts["step"], list(facts["losses"])
        self.records = [Record(stage, step, total, found) for stage, step, total, found in facts["records"]]

    def _restore_optimiser(self, tensors: Mapping[str, Tensor]) -> None:
        parameters = [p for group in self.optimiser.param_groups for p in group["params"]]
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            number, _, part = name.partition(".")
            like = parameters[int(number)]
            # Fused kernels expect a state in the memory layout of its parameter.
            laid_out = torch.empty_like(like).copy_(value) if value.shape == like.shape else value
            state.setdefault(int(number), {})[part] = laid_out
        self.optimiser.load_state_dict({"state": state, "param_groups": self.optimiser.state_dict()["param_groups"]})


@dataclass
class Checkpoints:
    """Checkpoint file of one fit.

    Parameters
    ----------
    path : Path
        Checkpoint file.
    every_s : float
        Time between two checkpoints, seconds; 0 for one after every step.
    resume : bool
        Continue from the file where it exists.
    facts : mapping
        Facts of the fit that a resumed one must share; set by :meth:`begin`.
    """

    path: Path
    every_s: float
    resume: bool
    facts: Mapping[str, Any] = field(default_factory=dict)
    _stored: list[tuple[dict[str, Any], dict[str, Tensor]]] = field(default_factory=list)
    _units: list[tuple[dict[str, Any], dict[str, Tensor]]] = field(default_factory=list)
    _written_s: float = field(default_factory=time.monotonic)
    _unwritten: bool = False

    def begin(self, facts: Mapping[str, object]) -> None:
        """Set the facts of the fit, and read the file to resume from, if there is one.

        Raises
        ------
        InputError
            The file is damaged, or belongs to another fit; the first difference is named.
        """
        self.facts = json.loads(json.dumps(facts))
        if self.resume and self.path.exists():
            found, self._stored = _read(self.path)
            _check_same(self.path, found, self.facts)

    def take(self, training: Training) -> bool:
        """Restore the state of the next call of the training loop where it is stored; return True if it had finished.

        Raises
        ------
        InputError
            The file belongs to another fit.
        """
        number = len(self._units)
        if number >= len(self._stored):
            return False
        facts, tensors = self._stored[number]
        if facts["stage"] != training.stage:
            raise InputError(
                f"{self.path}: holds {facts['stage']!r} where this fit trains {training.stage!r}; fit without --resume"
            )
        training.restore(facts, tensors)
        if facts["finished"]:
            self._units.append((facts, tensors))
        return bool(facts["finished"])

    @contextmanager
    def step(self, training: Training) -> Iterator[None]:
        """Run one step to its end before a signal is handled, and write a checkpoint if one is due."""
        with _deferred() as pending:
            yield
            if pending or time.monotonic() - self._written_s >= self.every_s:
                self._write(training)

    def finish(self, training: Training) -> None:
        """Keep the final state of a call of the training loop."""
        self._units.append((training.facts(finished=True), training.tensors()))
        self._unwritten = True

    def flush(self) -> None:
        """Write finished calls that the file does not hold yet."""
        if self._unwritten:
            self._write(None)

    def _write(self, training: Training | None) -> None:
        if not is_first():
            return
        units = list(self._units)
        if training is not None:
            units.append((training.facts(finished=False), training.tensors()))
        tensors = {f"{i}.{name}": value for i, (_, held) in enumerate(units) for name, value in held.items()}
        facts = {"fit": self.facts, "units": [facts for facts, _ in units]}
        try:
            with atomic_path(self.path) as part:
                save_file(tensors, part, metadata={_KEY: json.dumps(facts)})
        except (OSError, InputError, SafetensorError) as error:  # as on a full disk
            line = f"{self.path}: no checkpoint is written ({one_line(error)}); the fit continues"
            warnings.warn(line, AnomemWarning, stacklevel=2)
        self._written_s, self._unwritten = time.monotonic(), False


def active() -> Checkpoints | None:
    """Return the checkpoints of the current fit, or None."""
    return _active.get()


def remove_checkpoint(path: Path) -> None:
    """Remove a checkpoint file and its cached features: the model is written."""
    path.unlink(missing_ok=True)
    shutil.rmtree(features_of(path), ignore_errors=True)


def features_of(path: Path) -> Path:
    """Return the folder of cached features beside a checkpoint file."""
    return Path(f"{path}.features")


@contextmanager
def checkpointing(path: str | Path | None, every_minutes: float, *, resume: bool) -> Iterator[Checkpoints | None]:
    """Write checkpoints of the fit inside; without a path, none.

    Parameters
    ----------
    path : path or None
        Checkpoint file. Frozen features are cached in a folder beside it once a fit has lasted `every_minutes`.
    every_minutes : float
        Time between two checkpoints. Another is written on SIGINT and SIGTERM.
    resume : bool
        Continue from the file where it exists; otherwise it is replaced.

    Raises
    ------
    InputError
        `resume` without a path.
    """
    if path is None:
        if resume:
            raise InputError("resume: there is no checkpoint to resume from; give its path as checkpoint")
        yield None
        return
    checkpoints = Checkpoints(Path(path), 60 * every_minutes, resume)
    token = _active.set(checkpoints)
    with ExitStack() as ending:
        ending.callback(_active.reset, token)
        ending.push(lambda kind, *_: checkpoints.flush() if kind is not None else None)
        ending.enter_context(map_cache(features_of(checkpoints.path), _FEATURES_MB, after_s=checkpoints.every_s))
        yield checkpoints


@contextmanager
def _deferred() -> Iterator[list[int]]:
    """Defer the signals that end a process to the end of the block; a second one is handled at once."""
    pending: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield pending
        return
    before: dict[int, Any] = {}

    def receive(number: int, frame: FrameType | None) -> None:
        if pending:
            _handle(before[number], number, frame)
        pending.append(number)

    with ExitStack() as restored:
        for number in (getattr(signal, name) for name in _SIGNALS if hasattr(signal, name)):
            handler = signal.getsignal(number)
            if callable(handler) or handler is signal.SIG_DFL:
                before[number] = handler
                restored.callback(signal.signal, number, handler)
                signal.signal(number, receive)
        yield pending
    if pending:
        signal.raise_signal(pending[0])


def _handle(handler: Callable[[int, FrameType | None], object] | int, number: int, frame: FrameType | None) -> None:
    if callable(handler):
        handler(number, frame)
    else:
        signal.signal(number, handler)
        signal.raise_signal(number)


def _read(path: Path) -> tuple[dict[str, Any], list[tuple[dict[str, Any], dict[str, Tensor]]]]:
    """Read a checkpoint file: the facts of its fit, and its calls of the training loop."""
    try:
        with safe_open(path, framework="pt") as stored:
            facts = json.loads((stored.metadata() or {})[_KEY])
            tensors = {name: stored.get_tensor(name).clone() for name in stored.keys()}  # noqa: SIM118
        units = [(unit, _below(f"{i}.", tensors)) for i, unit in enumerate(facts["units"])]
        return facts["fit"], units
    except (KeyError, TypeError, ValueError, RecursionError, OSError, SafetensorError) as error:
        raise InputError(f"{path}: not a readable checkpoint ({one_line(error)}); fit without --resume") from error


def _check_same(path: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Refuse a checkpoint whose facts differ, and name the first difference."""
    for name in [*wanted, *(name for name in found if name not in wanted)]:
        before, now = found.get(name), wanted.get(name)
        if before == now:
            continue
        if isinstance(before, dict) and isinstance(now, dict):
            _check_same(path, before, now)
        shown = f": {before!r} in it, {now!r} now" if len(f"{before!r}{now!r}") < 200 else " is another now"
        raise InputError(f"{path}: {name}{shown}; restore it, or fit without --resume")


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
