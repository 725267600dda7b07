"""Disk cache of the maps of frozen backbones: the same images are not computed again.

Off unless a `map_cache` is entered. An entry belongs to one whole batch, its arithmetic and its layout, so results
are bit for bit those without it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from anomem.nn.tracing import exporting
from anomem.runtime.atomic import stage

__all__ = ["MapCache", "active", "map_cache"]

KEPT = 0.75
"""Share of the budget that stays filled when room is made."""

_OURS = re.compile("[0-9a-f]{40}")
"""Pattern of cached files' names, hashes of 20 bytes."""

_active: list[MapCache] = []


class MapCache:
    """Feature maps by the content of their batch, least recently used ones removed first.

    Parameters
    ----------
    folder : str or Path
        Folder, made where it is missing; several processes may share it.
    budget_mb : int
        Maximum size, megabytes (10**6 bytes).
    after_s : float
        Time from which maps are written, seconds: short work leaves nothing.
    """

    def __init__(self, folder: str | Path, budget_mb: int, after_s: float = 0) -> None:
        self.folder, self._budget = Path(folder), budget_mb * 10**6
        self._from = time.monotonic() + after_s
        if not after_s:
            self.folder.mkdir(parents=True, exist_ok=True)
        self._filled = sum(size for _, size, _ in self._files())
        self._known: WeakKeyDictionary[nn.Module, tuple[list[Tensor], list[int], str]] = WeakKeyDictionary()
        self.hits = self.misses = 0
        self._lock = Lock()

    def applies(self, backbone: nn.Module, images: Tensor) -> bool:
        """Return whether maps may be cached: decoded images, and a backbone that is neither trained nor traced."""
        watched = backbone.training or torch.is_grad_enabled() or exporting()
        return not watched and images.dtype == torch.uint8

    def maps(self, backbone: nn.Module, images: Tensor, compute: Callable[[Tensor], list[Tensor]]) -> list[Tensor]:
        """Return the maps of a batch, computed now or earlier.

        Parameters
        ----------
        backbone : Module
            Frozen, in evaluation mode.
        images : Tensor
            (B, 3, S, S) uint8.
        compute : callable
            Function from images to maps.
        """
        try:
            name = self._name(backbone, images)
        except RuntimeError:  # Tensors made in inference mode do not record changes.
            return compute(images)
        path = self.folder / f"{name}.safetensors"
        found = self._read(path, images.device)
        with self._lock:
            self.hits += found is not None
            self.misses += found is None
        if found is not None:
            return found
        maps = compute(images)
        self._write(path, maps)
        return maps

    def _name(self, backbone: nn.Module, images: Tensor) -> str:
        pixels = images.permute(0, 2, 3, 1).contiguous().cpu().numpy()
        device = images.device.type
        arithmetic = (
            *(torch.__version__, torch.get_num_threads(), torch.backends.cpu.get_cpu_capability(), str(images.device)),
            *(torch.is_autocast_enabled(device), str(torch.get_autocast_dtype(device))),
        )
        facts = [tuple(images.shape), images.stride(), arithmetic, self._fingerprint(backbone)]
        digest = hashlib.blake2b(repr(facts).encode(), digest_size=20)
        digest.update(pixels.data)
        return digest.hexdigest()

    def _fingerprint(self, backbone: nn.Module) -> str:
        """Return the hash of structure and weights, computed again when a tensor was replaced or written to."""
        tensors = [*backbone.parameters(), *backbone.buffers()]
        versions = [tensor._version for tensor in tensors]
        if backbone in self._known:
            known, before, fingerprint = self._known[backbone]
            same = len(known) == len(tensors) and all(a is b for a, b in zip(known, tensors, strict=True))
            if same and before == versions:
                return fingerprint
        digest = hashlib.blake2b(f"{backbone!r} {vars(backbone).get('layers')}".encode(), digest_size=20)
        for name, tensor in backbone.state_dict().items():
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(tensor.detach().contiguous().cpu().flatten().view(torch.uint8).numpy().data)
        self._known[backbone] = (tensors, versions, digest.hexdigest())
        return digest.hexdigest()

    def _read(self, path: Path, device: torch.device) -> list[Tensor] | None:
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="pt") as stored:
                layouts = json.loads(stored.metadata()["layouts"])
                flat = [stored.get_tensor(str(i)) for i in range(len(layouts))]
        except (OSError, SafetensorError):
            return None
        with suppress(OSError):  # Another process may have made room meanwhile.
            os.utime(path)
        return [_laid_out(tensor, *layout).to(device) for tensor, layout in zip(flat, layouts, strict=True)]

    def _write(self, path: Path, maps: Sequence[Tensor]) -> None:
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        if time.monotonic() < self._from:
            return
        layouts = [(list(m.shape), list(m.stride())) for m in maps]
        if not all(m.untyped_storage().nbytes() == m.nbytes for m in maps):
            return  # Parts of larger tensors, or repeated values: not a backbone's maps.
        tensors = {str(i): m.detach().cpu().contiguous().clone() for i, m in enumerate(maps)}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with stage(self.folder, path.stem) as room:
                save_file(tensors, room / path.name, metadata={"layouts": json.dumps(layouts)})
                size = (room / path.name).stat().st_size
                (room / path.name).replace(path)
        except (OSError, SafetensorError):  # Without room the maps are computed again.
            return
        with self._lock:
            self._filled += size
            if self._filled > self._budget:
                self._make_room()

    def _make_room(self) -> None:
        files = sorted(self._files())
        self._filled = sum(size for _, size, _ in files)
        for _, size, path in files:
            if self._filled <= KEPT * self._budget:
                break
            path.unlink(missing_ok=True)
            self._filled -= size

    def _files(self) -> list[tuple[float, int, Path]]:
        """Return time of the last use, size and path of every cached file."""
        found = []
        for path in self.folder.glob("*.safetensors"):
            if not _OURS.fullmatch(path.stem):  # Other files, such as a user's models, are never removed.
                continue
            with suppress(OSError):
                facts = path.stat()
                found.append((facts.st_mtime, facts.st_size, path))
        return found


def active() -> MapCache | None:
    """Return the active cache, or None."""
    return _active[-1] if _active else None


@contextmanager
def map_cache(folder: str | Path | None, budget_mb: int = 4096, *, after_s: float = 0) -> Iterator[MapCache | None]:
    """Cache maps of frozen backbones in a folder while inside; without a folder nothing is cached."""
    if folder is None:
        yield None
        return
    cache = MapCache(folder, budget_mb, after_s)
    _active.append(cache)
    try:
        yield cache
    finally:
        _active.remove(cache)


def _laid_out(tensor: Tensor, shape: Sequence[int], stride: Sequence[int]) -> Tensor:
    """Return a tensor's values in a given memory layout, so that sums run over them in the same order."""
    return torch.empty_strided(shape, stride, dtype=tensor.dtype).copy_(tensor.view(shape))
