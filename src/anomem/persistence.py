"""One file a model: tensors in safetensors, facts in a JSON manifest in its header. No pickle, ever."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from anomem.errors import ModelFileError
from anomem.runtime.atomic import atomic_path
from anomem.runtime.files import is_file
from anomem.runtime.manifest import Manifest
from anomem.runtime.seal import BLANK, SEAL, check_seal, seal

MANIFEST_KEY = "anomem"


def write_model(path: str | Path, tensors: dict[str, Tensor], manifest: Manifest) -> None:
    """Write tensors and manifest beside `path`, then rename: a file is whole or not there.

    Raises
    ------
    ModelFileError
        When the folder does not exist or cannot be written.
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise ModelFileError(f"{target}: its folder does not exist; create {target.parent} first")
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        with atomic_path(target) as beside:
            # A model is as readable as any other new file, though safetensors hides its own.
            beside.touch()
            mode = beside.stat().st_mode
            sealed = replace(manifest, facts={**manifest.facts, SEAL: BLANK})
            save_file(plain, str(beside), metadata={MANIFEST_KEY: sealed.to_json()})
            seal(beside)
            beside.chmod(mode)
    except OSError as error:
        raise ModelFileError(f"{target}: cannot be written ({error.strerror})") from error


def read_manifest(path: str | Path) -> Manifest:
    """Read only the facts of a model file."""
    with _opened(path) as file:
        return _manifest(path, file)[0]


def read_model(path: str | Path) -> tuple[dict[str, Tensor], Manifest]:
    """Read tensors and facts of a model file.

    Raises
    ------
    ModelFileError
        When the file is missing, is a pickle, is damaged, is not anomem's or of an unknown version.
    """
    with _opened(path) as file:
        manifest, sealed = _manifest(path, file)
        check_seal(path, expected=sealed)
        try:
            return {name: file.get_tensor(name) for name in file.keys()}, manifest  # noqa: SIM118
        except Exception as error:  # tensors of kinds that torch does not have, and whatever else a file may hold
            raise ModelFileError(f"{path}: damaged: a tensor cannot be read ({_one_line(error)})") from error


def _opened(path: str | Path) -> safe_open:
    source = Path(path)
    if not is_file(source):
        raise ModelFileError(f"{source}: no such model file")
    try:
        return safe_open(str(source), framework="pt")
    except Exception as error:  # SafetensorError, OSError, and what its parser raises on hostile headers
        raise ModelFileError(f"{source}: {_what_it_is(source, error)}") from error


def _what_it_is(source: Path, error: Exception) -> str:
    """Say why a file is no model. A model may begin like a pickle, so this is asked only of what cannot be opened."""
    with source.open("rb") as raw:
        head = raw.read(4)
    if head[:1] == b"\x80" or head == b"PK\x03\x04":
        return "is a pickle, which could run code; anomem reads only its own safetensors files"
    return f"not a model file, or damaged ({_one_line(error)})"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _manifest(path: str | Path, file: safe_open) -> tuple[Manifest, bool]:
    """Facts of a model, and whether its file holds a digest."""
    text = (file.metadata() or {}).get(MANIFEST_KEY)
    if text is None:
        raise ModelFileError(f"{path}: a safetensors file, but not one that anomem wrote")
    try:
        manifest = Manifest.from_json(text)
    except ModelFileError as error:
        raise ModelFileError(f"{path}: {error}") from error
    facts = {name: value for name, value in manifest.facts.items() if name != SEAL}
    return replace(manifest, facts=facts), SEAL in manifest.facts
