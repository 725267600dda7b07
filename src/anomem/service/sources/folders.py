"""Folder on this machine, inspected once by request."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from anomem.errors import ImageError, one_line
from anomem.runtime.files import read_regular
from anomem.runtime.listing import image_files
from anomem.runtime.neutral import printable
from anomem.service.errors import TooLargeError
from anomem.service.images import Images
from anomem.service.scoring.batcher import Batcher
from anomem.service.scoring.parts import Part
from anomem.service.store.tables import Inspection

__all__ = ["FolderResult", "inspect_folder"]

MOST = 2000
"""Images of a folder per request."""

_CHUNK = 32
_WAIT_S = 300.0


@dataclass
class FolderResult:
    """Inspections of a folder's images, and the reasons why others are left out.

    Parameters
    ----------
    inspections : list of Inspection
    refused : list of str
        At most one hundred lines, "name: problem".
    """

    inspections: list[Inspection] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


def inspect_folder(batcher: Batcher, images: Images, folder: Path, stratum: str | None = None) -> FolderResult:
    """Inspect all images of a folder and below it; the same files again are the same inspections.

    Raises
    ------
    TooLargeError
        More images than a request may name.
    BusyError
        The queue is full; what is inspected stays, and the request can be repeated.
    """
    found = (Path(path) for path in image_files(folder, among=False))
    paths = [path for path in found if path.resolve().is_relative_to(folder)]  # no link leads outside
    if len(paths) > MOST:
        raise TooLargeError(f"{folder}: {len(paths)} images are more than {MOST}; watch the folder instead")
    result = FolderResult()
    for start in range(0, len(paths), _CHUNK):
        parts = list(_parts(images, folder, paths[start : start + _CHUNK], stratum, result))
        if parts:
            batcher.submit(parts)
        result.inspections += [part.done.result(_WAIT_S) for part in parts]
    return result


def _parts(
    images: Images, folder: Path, paths: list[Path], stratum: str | None, result: FolderResult
) -> Iterator[Part]:
    for path in paths:
        name = printable(str(path.relative_to(folder)))
        try:
            facts = path.stat()
            stored = images.put(read_regular(path, name, images.max_bytes), name)
        except (ImageError, OSError) as error:
            if len(result.refused) < 100:
                result.refused.append(one_line(error))
            continue
        told = f"{path}\0{facts.st_size}\0{facts.st_mtime_ns}".encode("utf-8", "surrogateescape")
        key = f"folder:{hashlib.sha256(told).hexdigest()}"
        yield Part(stored, images.path(stored.sha256), name, "folder", key, stratum)
