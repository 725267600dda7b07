"""One file a model: tensors in safetensors, facts in a JSON manifest in its header. No pickle, ever."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save_file
from torch import Tensor

from anomem.errors import ModelFileError
from anomem.runtime.atomic import atomic_path
from anomem.runtime.manifest import Manifest

MANIFEST_KEY = "anomem"


def write_model(path: str | Path, tensors: dict[str, Tensor], manifest: Manifest) -> None:
    """Write tensors and manifest beside `path`, then rename: a file is whole or not there.

    Raises
    ------
    InputError
        When the folder does not exist or may not be written.
    OutputError
        When the file cannot be written: no space is left, for example.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic_path(path) as beside:
        try:
            save_file(plain, str(beside), metadata={MANIFEST_KEY: manifest.to_json()})
        except SafetensorError as error:  # of a full disk, among others
            raise OSError(None, _one_line(error)) from error


def read_manifest(path: str | Path) -> Manifest:
    """Read only the facts of a model file."""
    source = _existing(path)
    try:
        with safe_open(str(source), framework="pt") as file:
            return _manifest(path, file.metadata())
    except (SafetensorError, OSError) as error:
        raise ModelFileError(f"{source}: {_what_it_is(source, error)}") from error


def read_model(path: str | Path) -> tuple[dict[str, Tensor], Manifest]:
    """Read tensors and facts of a model file into memory of their own: the file may be replaced afterwards.

    Raises
    ------
    ModelFileError
        When the file is missing, is a pickle, is damaged, is not anomem's or of an unknown version.
    """
    source = _existing(path)
    try:
        content = source.read_bytes()  # once: a file that is being replaced must not come apart
        tensors = load(content)
    except (SafetensorError, OSError) as error:
        raise ModelFileError(f"{source}: {_what_it_is(source, error)}") from error
    return tensors, _manifest(path, _metadata(content))


def _metadata(content: bytes) -> dict[str, str] | None:
    """Texts in the header of a safetensors file: its length in 8 bytes, then JSON."""
    length = int.from_bytes(content[:8], "little")
    found: dict[str, str] | None = json.loads(content[8 : 8 + length]).get("__metadata__")
    return found


def _existing(path: str | Path) -> Path:
    source = Path(path)
    if not source.is_file():
        raise ModelFileError(f"{source}: no such model file")
    return source


def _what_it_is(source: Path, error: Exception) -> str:
    """Say why a file is no model. A model may begin like a pickle, so this is asked only of what cannot be opened."""
    with source.open("rb") as raw:
        head = raw.read(4)
    if head[:1] == b"\x80" or head == b"PK\x03\x04":
        return "is a pickle, which could run code; anomem reads only its own safetensors files"
    return f"not a model file, or damaged ({_one_line(error)})"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _manifest(path: str | Path, texts: dict[str, str] | None) -> Manifest:
    text = (texts or {}).get(MANIFEST_KEY)
    if text is None:
        raise ModelFileError(f"{path}: a safetensors file, but not one that anomem wrote")
    try:
        return Manifest.from_json(text)
    except ModelFileError as error:
        raise ModelFileError(f"{path}: {error}") from error
