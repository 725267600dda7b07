"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from anomem.errors import InputError

__all__ = ["atomic_files", "atomic_path"]


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Write a file beside its place and move it there when it is complete.

    Readers see the old file or the new one, never a part. After an error or an interrupt inside the
    block the old file is untouched and nothing is left beside it.

    Parameters
    ----------
    path : str or Path
        Where the file is to end up. A symbolic link is followed: the file it points to is replaced.

    Yields
    ------
    Path
        A path that does not exist yet, in the same folder and with the same suffix. Write there.

    Raises
    ------
    InputError
        The folder is missing or not writable, or ``path`` is something other than a regular file.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with atomic_path(folder / "scores.csv") as part:
    ...     _ = part.write_text("path,score")
    >>> [file.name for file in folder.iterdir()]
    ['scores.csv']
    """
    target = Path(os.path.realpath(path))
    _check_target(target, str(path))
    # The suffix stays last, since some writers choose the format by it.
    part = target.with_name(f".{target.stem[:100]}-{secrets.token_hex(6)}{target.suffix}")
    try:
        yield part
        _flush_to_disk(part)
        part.replace(target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


@contextmanager
def atomic_files(*paths: str | Path) -> Iterator[list[Path]]:
    """Write files that belong together beside their places, and move them there when all are complete.

    Each is moved at once; between two moves a reader may see one that is new and one that is old, so the file that
    vouches for the others comes last.

    Parameters
    ----------
    *paths : str or Path
        Where the files are to end up, all in one folder, in the order in which they are moved.

    Yields
    ------
    list of Path
        As many paths in a folder of their own, with the names that they will have. Write there. What is not written is
        not moved. After an error or an interrupt nothing is left.

    Raises
    ------
    InputError
        As for `atomic_path`.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with atomic_files(folder / "model.bin", folder / "model.xml") as (weights, network):
    ...     _ = weights.write_bytes(b"12"), network.write_text("<net/>")
    >>> sorted(file.name for file in folder.iterdir())
    ['model.bin', 'model.xml']
    """
    targets = [Path(os.path.realpath(path)) for path in paths]
    for target, path in zip(targets, paths, strict=True):
        _check_target(target, str(path))
    room = targets[0].with_name(f".{targets[0].stem[:100]}-{secrets.token_hex(6)}")
    room.mkdir()
    try:
        parts = [room / target.name for target in targets]
        yield parts
        written = [(part, target) for part, target in zip(parts, targets, strict=True) if part.exists()]
        for part, _ in written:
            _flush_to_disk(part)
        for part, target in written:
            part.replace(target)
    finally:
        shutil.rmtree(room, ignore_errors=True)


def _check_target(target: Path, name: str) -> None:
    if not target.parent.is_dir():
        raise InputError(f"{name}: the folder {target.parent} does not exist: create it first")
    if target.is_dir():
        raise InputError(f"{name}: is a folder: name a file inside it")
    if target.exists() and not target.is_file():
        raise InputError(f"{name}: is not a regular file: name another one")
    if not os.access(target.parent, os.W_OK):
        raise InputError(f"{name}: the folder {target.parent} may not be written: choose another")


def _flush_to_disk(path: Path) -> None:
    # Without this, a power cut after the rename can leave an empty file under the final name.
    with path.open("rb+") as stream:
        os.fsync(stream.fileno())
