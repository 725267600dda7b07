"""Reading and writing of fitted detectors as files."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save_file
from torch import Tensor, fx

from anomem.calibration_file import calibration_tensors, read_calibration, remembered
from anomem.data.store import call_facts
from anomem.errors import ModelFileError, one_line
from anomem.fitting import Fitted
from anomem.nn.deviation import ScaleMemory
from anomem.nn.fold_scorer import MEMBERS, FoldScorer
from anomem.nn.scorer import Scorer, input_hw
from anomem.params import Parameters
from anomem.runtime.atomic import atomic_path
from anomem.runtime.files import is_file
from anomem.runtime.manifest import Manifest
from anomem.runtime.preprocess import Preprocessing
from anomem.runtime.seal import BLANK, SEAL, check_seal, seal
from anomem.runtime.suspects import Suspect
from anomem.training import own_rng
from anomem.types import BoolArray, Record
from anomem.version import __version__

_MOST = 2**31
"""Largest number in an architecture."""

_OTHERWISE_NAMED = ("hidden", "weights")
"""Entries of architectures that share the name of a hyperparameter without being it."""

_PARTS = ("backbone", "memory")
"""Hyperparameters that are objects in an architecture."""


def save_model(path: str | Path, method: str, params: Mapping[str, object], state: Fitted) -> None:
    """Write one file: the scorer's tensors, calibration scores, content hashes, region of interest; facts as JSON."""
    tensors = {f"scorer.{name}": tensor for name, tensor in state.scorer.state_dict().items()}
    tensors |= calibration_tensors(state)
    for role, hashes in state.digests.items():
        tensors[f"digests.{role}"] = digest_tensor(hashes)
    if state.preprocessing.roi is not None:
        tensors["roi"] = torch.from_numpy(state.preprocessing.roi.astype(np.uint8))
    write_model(path, tensors, manifest_of(method, params, state))


def manifest_of(method: str, params: Mapping[str, object], state: Fitted) -> Manifest:
    """Return all facts of a model except its tensors."""
    return Manifest(
        method=method,
        version=__version__,
        params=_jsonable(params),
        resolved=_jsonable(state.resolved),
        architecture=state.scorer.config,
        preprocessing=state.preprocessing.to_dict(),
        calibration=state.calibration.facts(),
        counts=state.counts,
        precision=state.calibration.precision,
        map_scale=dict(zip(("low", "high"), state.map_scale, strict=True)),
        facts={
            "skipped": list(state.skipped),
            "history": [dataclasses.asdict(record) for record in state.history],
            "labels": [dict(row) for row in state.labels],
            **_added(state),
        },
    )


def _added(state: Fitted) -> dict[str, Any]:
    """Return facts that files of version 0.1 have not, where they differ from what these say by leaving them out."""
    facts = {"calibration": state.wanted, "suspects": [dict(row) for row in state.suspects], "excluded": state.excluded}
    facts |= {"frame": state.frame and state.frame.to_dict(), "call": dict(state.call), "groups": dict(state.grouping)}
    return {name: value for name, value in facts.items() if value not in ("split", [], {}, 0, None)}


def _suspect(row: Mapping[str, Any]) -> Suspect:
    return Suspect(path=str(row["path"]), score=float(row["score"]), p_value=float(row["p_value"]))


def load_model(
    path: str | Path, builder: Callable[[str], Callable[[dict[str, Any]], Scorer]]
) -> tuple[str, dict[str, Any], Fitted]:
    """Read a file that :func:`save_model` wrote.

    Parameters
    ----------
    path : path
        Model file.
    builder : callable
        Function from a method's name to the function that builds its empty scorer from a config.

    Returns
    -------
    tuple
        Method name, hyperparameters as given, and the fitted state on the CPU.

    Raises
    ------
    ModelFileError
        If the file is missing, a pickle, damaged, of another version, or its parts do not fit together.
    """
    tensors, manifest = read_model(path)
    build = builder(manifest.method)
    try:
        if manifest.precision == "int8" or manifest.precision != manifest.calibration["precision"]:
            raise ModelFileError("precision: not one that models of this kind score in")
        scorer = _filled(build, dict(manifest.architecture), tensors)
        roi = _roi(tensors)
        preprocessing = Preprocessing.from_dict(manifest.preprocessing, roi)
        if "size" in manifest.architecture and input_hw(manifest.architecture) != preprocessing.hw:
            raise ModelFileError("architecture and preprocessing differ in size")
        state = Fitted(
            scorer,
            {**manifest.resolved, "roi": roi},
            preprocessing,
            read_calibration(tensors, manifest),
            _scale(manifest.map_scale),
            {role: digest_set(tensors[f"digests.{role}"]) for role in ("learn", "tune", "calibration", "labelled")},
            tuple(manifest.facts.get("skipped", ())),
            tuple(Record(**record) for record in manifest.facts.get("history", ())),
            tuple(dict(row) for row in manifest.facts.get("labels", ())),
            **remembered(tensors, manifest),
            wanted=str(manifest.facts.get("calibration", "split")),
            suspects=tuple(_suspect(row) for row in manifest.facts.get("suspects", ())),
            excluded=int(manifest.facts.get("excluded", 0)),
            frame=manifest.frame,
            grouping=dict(manifest.facts.get("groups", {})),
            call=call_facts(manifest.facts.get("call", {})),
        )
    except (ImportError, MemoryError, OSError):  # An error of this machine, not of the file.
        raise
    except Exception as error:  # Manipulated facts can fail in any way.
        raise ModelFileError(f"{path}: damaged, its parts do not fit together ({_first_line(error)})") from error
    return manifest.method, {**manifest.params, "roi": roi}, state


def check_architecture(kind: type[Parameters], architecture: Mapping[str, object]) -> None:
    """Refuse facts that no fit of a method writes, before anything is built by them.

    An entry with the name of a hyperparameter must be a value that it may take; any number must be one that a network
    can have.

    Raises
    ------
    ModelFileError
        Naming the entry.
    """
    declared = {name: field for name, field in kind.declared().items() if field.metadata["group"] is None}
    for name, value in architecture.items():
        if isinstance(value, Mapping) and (name in _PARTS or name not in declared):
            check_architecture(kind, value)
            continue
        entries = value if isinstance(value, list | tuple) else [value]
        for entry in entries:
            if isinstance(entry, Mapping):
                check_architecture(kind, entry)
            elif isinstance(entry, int | float) and not -(name == "stages") * _MOST <= entry <= _MOST:
                raise ModelFileError(f"architecture: {name}={entry!r} is out of range")
        if name not in declared or name in _OTHERWISE_NAMED:
            continue
        facts = declared[name].metadata
        off, allowed = value is None and (facts["optional"] or facts["preset"]), facts["allowed"]
        if not off and not any(allowed.accepts(form) for form in (value, (value,))):
            raise ModelFileError(f"architecture: {name}={value!r} is not allowed; expected {allowed}")


def check_resolved(kind: type[Parameters], resolved: Mapping[str, object]) -> None:
    """Refuse hyperparameters of a fit that are missing, unknown or outside their range.

    Raises
    ------
    ModelFileError, ParameterError
        Naming the hyperparameter.
    """
    missing = sorted({"size", "precision", "seed"} - set(resolved))
    if missing:
        raise ModelFileError(f"hyperparameters of the fit: {missing[0]!r} is missing")
    kind.from_dict(resolved).resolve(strict=False)


def _filled(build: Callable[[dict[str, Any]], Scorer], config: dict[str, Any], tensors: dict[str, Tensor]) -> Scorer:
    """Build on the meta device, where a hostile config costs nothing, and assign the file's tensors."""
    if MEMBERS in config:
        build = partial(FoldScorer.built, build)
    own = {name.removeprefix("scorer."): value for name, value in tensors.items() if name.startswith("scorer.")}
    with torch.device("meta"):
        scorer = build(config)
    expected = {name: tensor.dtype for name, tensor in scorer.state_dict().items()}
    scorer.load_state_dict(own, strict=True, assign=True)
    wrong = [name for name, dtype in expected.items() if own[name].dtype != dtype]
    if wrong:
        raise ModelFileError(f"{wrong[0]} is {own[wrong[0]].dtype} instead of {expected[wrong[0]]}")
    for module in scorer.modules():
        if isinstance(module, ScaleMemory):
            module.compute_places()  # Only now, when all shapes fit: a hostile config could ask for any size.
    if any(tensor.is_meta for tensor in (*scorer.parameters(), *scorer.buffers())):
        # Some timm models hold constants outside their state; now that all shapes fit, build it for real.
        with own_rng():  # First weights are drawn, then overwritten.
            scorer = build(config)
        scorer.load_state_dict(own, strict=True, assign=True)
    for module in scorer.modules():
        if isinstance(module, fx.GraphModule):  # as at the fit, whole or cut: layouts change last bits
            module.to(memory_format=torch.channels_last)
    return scorer.eval().requires_grad_(False)


def _roi(tensors: dict[str, Tensor]) -> BoolArray | None:
    return tensors["roi"].numpy().astype(bool) if "roi" in tensors else None


def _scale(facts: Mapping[str, float] | None) -> tuple[float, float]:
    return (facts["low"], facts["high"]) if facts else (0.0, 1.0)


def _jsonable(params: Mapping[str, object]) -> dict[str, Any]:
    """Return hyperparameters without the region of interest, which is stored as a tensor."""
    return {k: v for k, v in params.items() if k != "roi"}


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def digest_tensor(hashes: Iterable[int]) -> Tensor:
    """Pack 8-byte content hashes into an int64 tensor, sorted."""
    unsigned = np.asarray(sorted(hashes), dtype=np.uint64)
    return torch.from_numpy(unsigned.view(np.int64).copy())


def digest_set(tensor: Tensor) -> frozenset[int]:
    """Return the set of hashes packed by :func:`digest_tensor`."""
    return frozenset(int(v) for v in tensor.numpy().view(np.uint64))


MANIFEST_KEY = "anomem"


def write_model(path: str | Path, tensors: dict[str, Tensor], manifest: Manifest) -> None:
    """Write tensors and manifest beside `path`, then rename: a file is whole or absent.

    Raises
    ------
    InputError
        If the folder does not exist or is not writable.
    OutputError
        If the file cannot be written, for example on a full disk.
    """
    sealed = dataclasses.replace(manifest, facts={**manifest.facts, SEAL: BLANK})
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic_path(path) as beside:
        try:
            save_file(plain, str(beside), metadata={MANIFEST_KEY: sealed.to_json()})
            seal(beside)
        except SafetensorError as error:  # a full disk, among others
            raise OSError(None, one_line(error)) from error


def read_manifest(path: str | Path) -> Manifest:
    """Read only the facts of a model file."""
    source = _existing(path)
    try:
        with safe_open(str(source), framework="pt") as file:
            return _manifest(path, file.metadata())[0]
    except ModelFileError:
        raise
    except Exception as error:  # SafetensorError, OSError, and what its parser raises on hostile headers
        raise ModelFileError(f"{source}: {_what_it_is(source, error)}") from error


def read_model(path: str | Path) -> tuple[dict[str, Tensor], Manifest]:
    """Read tensors and facts of a model file into memory of their own: the file may be replaced afterwards.

    Raises
    ------
    ModelFileError
        If the file is missing, is a pickle, is damaged, is not anomem's or of an unknown version.
    """
    source = _existing(path)
    try:
        content = source.read_bytes()  # Read once: the file may be replaced meanwhile.
        # Copies: torch's own memory starts at a multiple of 64 bytes, a file's tensors wherever its header ends, and
        # products round differently there.
        tensors = {name: tensor.clone() for name, tensor in load(content).items()}
        texts = _metadata(content)
    except MemoryError:  # an error of this machine, not of the file
        raise
    except Exception as error:  # SafetensorError, OSError, kinds of tensors that torch does not have
        raise ModelFileError(f"{source}: {_what_it_is(source, error)}") from error
    manifest, sealed = _manifest(path, texts)
    check_seal(path, expected=sealed, content=content)
    return tensors, manifest


def _metadata(content: bytes) -> dict[str, str] | None:
    """Return the texts in the header of a safetensors file: its length in 8 bytes, then JSON."""
    length = int.from_bytes(content[:8], "little")
    found: dict[str, str] | None = json.loads(content[8 : 8 + length]).get("__metadata__")
    return found


def _existing(path: str | Path) -> Path:
    source = Path(path)
    if not is_file(source):
        raise ModelFileError(f"{source}: no such model file; check the path")
    return source


def _what_it_is(source: Path, error: Exception) -> str:
    """Return why a file is no model; asked only of unreadable files, as a model may begin like a pickle."""
    with source.open("rb") as raw:
        head = raw.read(4)
    if head[:1] == b"\x80" or head == b"PK\x03\x04":
        return "is a pickle, which could run code; anomem reads only its own safetensors files"
    return f"not a model file, or damaged ({one_line(error)}); give a file written by save"


def _manifest(path: str | Path, texts: dict[str, str] | None) -> tuple[Manifest, bool]:
    """Return the facts of a model, and whether its file holds a digest."""
    text = (texts or {}).get(MANIFEST_KEY)
    if text is None:
        raise ModelFileError(f"{path}: a safetensors file, but not an anomem model; give a file written by save")
    try:
        manifest = Manifest.from_json(text)
    except ModelFileError as error:
        raise ModelFileError(f"{path}: {error}") from error
    facts = {name: value for name, value in manifest.facts.items() if name != SEAL}
    return dataclasses.replace(manifest, facts=facts), SEAL in manifest.facts
