"""Devices: selection, bfloat16 support, moving of scorers."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TypeVar

import torch

from anomem.errors import ParameterError
from anomem.nn.scorer import Scorer


def find_device(device: str) -> torch.device:
    """Return the device of a name that exists here; "auto" selects one."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
        torch.empty(1, device=found)
    except (RuntimeError, AssertionError) as error:
        raise ParameterError(f"device={device!r} is not available here; try device='cpu'") from error
    return found


def has_native_bfloat16(device: torch.device) -> bool:
    """Return whether bfloat16 products run natively (on other processors they are emulated, and slower)."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    facts = Path("/proc/cpuinfo")
    if not facts.exists():
        return False
    text = facts.read_text(encoding="ascii", errors="replace")
    return "amx_bf16" in text or "avx512_bf16" in text


S = TypeVar("S", bound=Scorer)


def copy_scorer(scorer: S, device: torch.device) -> S:
    """Copy a scorer, so that the fitted state it belongs to never changes; a traced backbone forgets its mode."""
    return copy.deepcopy(scorer).to(device).eval()


def moved(scorer: Scorer, device: str) -> Scorer:
    """Return the scorer on a device; a copy where it moves, so that a fitted state never changes."""
    target, here = find_device(device), next(scorer.buffers()).device
    same = here.type == target.type and target.index in (None, here.index)
    return scorer if same else copy_scorer(scorer, target)
