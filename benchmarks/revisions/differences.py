"""Differences between the results of two revisions, bit for bit."""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.revisions.graphs import ir_facts, onnx_facts

VOLATILE = {
    *("seconds", "images_per_second", "peak_mb", "started", "measured", "made_by", "version"),
    *("max_abs_diff",),
}
"""Keys of journals, manifests and JSON output for times, memory and software versions."""

SUFFIXES = (".npz", ".json", ".jsonl", ".safetensors", ".onnx", ".xml")


@dataclass(frozen=True)
class Difference:
    """Difference of one item.

    Parameters
    ----------
    item : str
        ``FILE:PART``, with FILE relative to the folder of results.
    said : str
        Description in one line.
    max_abs : float or None
        Largest absolute difference of numbers.
    ranks : int or None
        Images whose rank by score changed.
    """

    item: str
    said: str
    max_abs: float | None = None
    ranks: int | None = None


@dataclass(frozen=True)
class Comparison:
    """Comparison of all items: the number of equal ones, and the differences."""

    n_equal: int
    differences: list[Difference]

    def unexpected(self, expected: Mapping[str, str]) -> list[Difference]:
        """Return the differences that match no expected pattern."""
        return [d for d in self.differences if not any(fnmatch.fnmatchcase(d.item, name) for name in expected)]


def compare(old: Path, new: Path) -> Comparison:
    """Compare every file of results; cross-loaded models with the old revision's own results."""
    n_equal, found = 0, []
    for name, old_file, new_file in _pairs(old, new):
        if name.endswith(".error.json"):
            found.append(_failed(name, old_file, new_file))
            continue
        if old_file is None or new_file is None:
            found.append(Difference(f"{name}:", f"missing in the {'old' if old_file is None else 'new'} revision"))
            continue
        old_parts, new_parts = _parts(old_file), _parts(new_file)
        for part in sorted({**old_parts, **new_parts}):
            difference = _difference(f"{name}:{part}", old_parts.get(part), new_parts.get(part))
            n_equal += difference is None
            found += [difference] if difference else []
    return Comparison(n_equal, found)


def _failed(name: str, old_file: Path | None, new_file: Path | None) -> Difference:
    """Return the difference of a failed case; failing on both sides is not equality."""
    sides = {"old": old_file, "new": new_file}
    said = [f"{side}: {_read_json(path)['error']}" for side, path in sides.items() if path is not None]
    return Difference(f"{name.removesuffix('.error.json')}:", "; ".join(said))


def _pairs(old: Path, new: Path) -> Iterator[tuple[str, Path | None, Path | None]]:
    old_files, new_files = _files(old), _files(new)
    for name in sorted({*old_files, *new_files}):
        partner = name.removeprefix("cross/")
        yield name, old_files.get(partner), new_files.get(name)


def _files(folder: Path) -> dict[str, Path]:
    found = sorted(path for path in folder.rglob("*") if path.suffix in SUFFIXES)
    kept = [path for path in found if not path.relative_to(folder).as_posix().startswith("commands/data/")]
    return {path.relative_to(folder).as_posix(): path for path in kept}


def _parts(path: Path) -> dict[str, Any]:
    """Split a file of results into named parts, each an array or a list of plain values."""
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    if path.suffix == ".safetensors":
        return _model_parts(path)
    if path.suffix in (".onnx", ".xml"):
        facts, manifest = (onnx_facts if path.suffix == ".onnx" else ir_facts)(path)
        return {**{name: [fact] for name, fact in facts.items()}, **_leaves(manifest)}
    if path.suffix == ".jsonl":
        return _leaves([json.loads(line) for line in path.read_text().splitlines()])
    return _leaves(_read_json(path))


def _model_parts(path: Path) -> dict[str, Any]:
    from safetensors import safe_open

    with safe_open(str(path), framework="np") as file:
        tensors = {f"tensor {name}": file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        facts = {key: json.loads(text) for key, text in (file.metadata() or {}).items()}
    return {**tensors, **_leaves(facts)}


def _leaves(content: Any) -> dict[str, list[Any]]:
    """Return dotted path -> its plain values in order, without list positions."""
    found: dict[str, list[Any]] = {}
    for path, value in _walk(content, ""):
        found.setdefault(re.sub(r"\[\d+\]", "", path).lstrip("."), []).append(value)
    return found


def _walk(content: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(content, dict) and content:
        for key, value in content.items():
            if key not in VOLATILE:
                yield from _walk(value, f"{path}.{key}")
    elif isinstance(content, list) and content:
        for i, value in enumerate(content):
            yield from _walk(value, f"{path}[{i}]")
    else:
        yield path, content


def _difference(item: str, old: Any, new: Any) -> Difference | None:
    if old is None or new is None:
        return Difference(item, "new" if old is None else "gone")
    if isinstance(old, list) or isinstance(new, list):
        return _of_values(item, list(old), list(new))
    if old.dtype != new.dtype or old.shape != new.shape:
        return Difference(item, f"{old.dtype}{list(old.shape)} -> {new.dtype}{list(new.shape)}")
    if old.tobytes() == new.tobytes():
        return None
    return _of_arrays(item, old, new)


def _of_arrays(item: str, old: npt.NDArray[Any], new: npt.NDArray[Any]) -> Difference:
    n_changed = int((old != new).sum())
    said = f"{n_changed} of {old.size} values"
    if old.dtype.kind not in "fiu" or item.endswith("digests"):
        return Difference(item, said)
    apart = float(np.nanmax(np.abs(old.astype(np.float64) - new.astype(np.float64)), initial=0.0))
    return Difference(item, said, apart, _ranks_changed(old, new) if item.endswith(":scores") else None)


def _ranks_changed(old: npt.NDArray[Any], new: npt.NDArray[Any]) -> int:
    return int((np.argsort(np.argsort(old, kind="stable")) != np.argsort(np.argsort(new, kind="stable"))).sum())


def _of_values(item: str, old: list[Any], new: list[Any]) -> Difference | None:
    if len(old) != len(new):
        return Difference(item, f"{len(old)} -> {len(new)} values")
    changed = [(a, b) for a, b in zip(old, new, strict=True) if json.dumps(a) != json.dumps(b)]
    if not changed:
        return None
    first, second = changed[0]
    numbers = [(a, b) for a, b in changed if isinstance(a, int | float) and isinstance(b, int | float)]
    apart = max((abs(a - b) for a, b in numbers), default=None)
    return Difference(item, f"{len(changed)} of {len(old)}: {_short(first)} -> {_short(second)}", apart)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text())
