"""Files that appear whole or not at all, and the removal of whatever a killed run left unfinished."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from anomem.errors import InputError, OutputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["NAME_BYTES", "atomic_files", "atomic_path", "check_target", "put", "scratch", "shortened", "stage"]

NAME_BYTES = 255
"""Longest file name that common file systems take, bytes."""

_UNFINISHED = re.compile(r"\..*-anomem-[0-9a-f]{12}", re.DOTALL)
_PREFIX_BYTES = 40
_ABANDONED_S = 24 * 3600
"""Age at which an unfinished folder counts as abandoned where locks do not exist."""

_cleaned: set[str] = set()


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Write a file beside its place and move it there when it is complete.

    Readers see the old file or the new one, never a part. After an error or an interrupt inside the
    block the old file is untouched and nothing is left beside it. A file that is replaced keeps its permissions.

    Parameters
    ----------
    path : str or Path
        Where the file is to end up. A symbolic link is followed: the file it points to is replaced.

    Yields
    ------
    Path
        A path that does not exist yet, of the same name in a hidden folder beside it. Write there.

    Raises
    ------
    InputError
        The folder is missing or not writable, or ``path`` is read-only or something other than a regular file.
    OutputError
        The file cannot be written: no space is left, for example.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with atomic_path(folder / "scores.csv") as part:
    ...     _ = part.write_text("path,score")
    >>> [file.name for file in folder.iterdir()]
    ['scores.csv']
    """
    with atomic_files(path) as (part,):
        yield part
        part.stat()  # nothing written is an error


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
    InputError, OutputError
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
    for path in paths:
        check_target(path)
    with _naming(str(paths[-1]), targets[0].parent), stage(targets[0].parent, targets[0].stem) as room:
        parts = [room / target.name for target in targets]
        yield parts
        written = [(part, target) for part, target in zip(parts, targets, strict=True) if part.exists()]
        for part, target in written:
            _finish(part, target)
        for part, target in written:
            part.replace(target)


@contextmanager
def stage(folder: Path, name: str, *, private: bool = True) -> Iterator[Path]:
    """Make a hidden folder for unfinished files, and remove it afterwards unless it was moved.

    The folder is locked while it is in use. Folders of this kind whose lock is free were left by killed processes; the
    first call for a folder removes them.

    Parameters
    ----------
    folder : Path
        Where it is made.
    name : str
        Its name begins with this, shortened.
    private : bool
        Readable by its owner only.

    Yields
    ------
    Path
        An empty folder.
    """
    _remove_abandoned(folder)
    room = folder / f".{shortened(name, _PREFIX_BYTES)}-anomem-{secrets.token_hex(6)}"
    with ExitStack() as held:
        with _locked(folder, shared=True):  # nobody takes the folder for abandoned before it is locked
            room.mkdir(0o700 if private else 0o777)
            held.enter_context(_locked(room, shared=True))
        try:
            yield room
        finally:
            shutil.rmtree(room, ignore_errors=True)


@contextmanager
def scratch(name: str) -> Iterator[Path]:
    """Make a temporary folder as `stage` does, in the folder for temporary files."""
    with stage(Path(tempfile.gettempdir()), name) as room:
        yield room


def put(part: Path, target: Path) -> None:
    """Move a finished file to its place; a file that is replaced keeps its permissions."""
    _finish(part, target)
    part.replace(target)


def check_target(path: str | Path, *, what: str = "file") -> None:
    """Refuse a file that cannot be written.

    Raises
    ------
    InputError
        Its folder is missing or not writable, or it is read-only or something other than a regular file.
    """
    target = Path(os.path.realpath(path))
    if not target.parent.is_dir():
        raise InputError(f"{path}: the folder {target.parent} does not exist: create it first")
    if target.is_dir():
        raise InputError(f"{path}: is a folder: name the {what} inside it")
    if target.exists() and not target.is_file():
        raise InputError(f"{path}: is not a regular file: name another {what}")
    # Replacing a file takes no permission of the file itself, and root has every permission: its mode is the request.
    if target.exists() and not target.stat().st_mode & 0o222:
        raise InputError(f"{path}: is read-only: make it writable, or name another {what}")
    if not os.access(target.parent, os.W_OK):
        raise InputError(f"{path}: the folder {target.parent} may not be written: choose another")


def shortened(name: str, most: int = NAME_BYTES) -> str:
    """Cut a file name to at most `most` bytes, between two characters.

    Examples
    --------
    >>> shortened("scores.csv", 6), shortened("検査", 4)
    ('scores', '検')
    """
    while len(os.fsencode(name)) > most:
        name = name[:-1]
    return name


@contextmanager
def _naming(path: str, folder: Path) -> Iterator[None]:
    """Name the file that could not be written: errors of a full disk name none, or one that is hidden."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        if isinstance(error, OutputError) or not _is_unfinished(error.filename, folder):
            raise
        raise OutputError(path, error) from error


def _is_unfinished(filename: object, folder: Path) -> bool:
    """Whether an error is about an unfinished file, or names none as those of a full disk do."""
    if not isinstance(filename, (str, bytes)):
        return True
    place = Path(os.fsdecode(filename))
    return place.is_relative_to(folder) and bool(_UNFINISHED.fullmatch(place.relative_to(folder).parts[0]))


def _finish(part: Path, target: Path) -> None:
    """Give a file the permissions that its place has or would have, and flush it to the disk."""
    try:
        old = target.stat()
    except FileNotFoundError:
        part.chmod(_usual_mode(part))
    else:
        with suppress(OSError):  # only root may give files away
            if (old.st_uid, old.st_gid) != (part.stat().st_uid, part.stat().st_gid):
                os.chown(part, old.st_uid, old.st_gid)
        part.chmod(stat.S_IMODE(old.st_mode))
    # Without this, a power cut after the rename can leave an empty file under the final name.
    with part.open("rb") as stream:
        os.fsync(stream.fileno())


def _usual_mode(part: Path) -> int:
    """Permissions of a new file; some writers hide theirs."""
    probe = part.with_name(f".mode-{secrets.token_hex(6)}")
    probe.touch()
    try:
        return stat.S_IMODE(probe.stat().st_mode)
    finally:
        probe.unlink()


def _remove_abandoned(folder: Path) -> None:
    place = os.path.realpath(folder)
    if place in _cleaned:
        return
    _cleaned.add(place)
    with suppress(OSError), os.scandir(place) as entries:
        rooms = [
            Path(entry.path)
            for entry in entries
            if _UNFINISHED.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False)
        ]
        if rooms:
            with _locked(Path(place), shared=False) as alone:
                for room in rooms if alone else ():
                    _remove_if_abandoned(room)


def _remove_if_abandoned(room: Path) -> None:
    if fcntl is None:
        abandoned = time.time() - room.stat().st_mtime > _ABANDONED_S
    else:
        with _locked(room, shared=False) as alone:
            abandoned = alone
    if abandoned:
        shutil.rmtree(room, ignore_errors=True)


@contextmanager
def _locked(folder: Path, *, shared: bool) -> Iterator[bool]:
    """Lock a folder until the block ends or the process does; an exclusive lock is not waited for.

    Yields
    ------
    bool
        Whether it is locked. Some file systems have no locks; then nothing on them is taken for abandoned.
    """
    if fcntl is None:
        yield False
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        yield False
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX | fcntl.LOCK_NB)
            locked = True
        except OSError:
            locked = False
        yield locked
    finally:
        os.close(descriptor)
