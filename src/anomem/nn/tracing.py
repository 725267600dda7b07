"""Whether a graph is being written down instead of computed."""

from __future__ import annotations

import torch


def exporting() -> bool:
    """Whether torch traces or compiles: then a loop, a size or a branch of now would be fixed for ever."""
    return bool(torch.compiler.is_compiling() or torch._C._get_tracing_state())
