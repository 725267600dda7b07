"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from anomem.errors import InputError

__all__ = ["atomic_path"]


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
