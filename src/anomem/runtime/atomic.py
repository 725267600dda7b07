"""Atomic file writes, and removal of unfinished files of killed processes."""

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
"""Maximum length of a file name on common file systems, bytes."""

_UNFINISHED = re.compile(r"\..*-anomem-[0-9a-f]{12}", re.DOTALL)
_PREFIX_BYTES = 40
_ABANDONED_S = 24 * 3600
"""Age from which an unfinished folder counts as abandoned on file systems without locks, seconds."""

_cleaned: set[str] = set()


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Write a file in a hidden folder beside its place and move it there once complete.

    Readers see the old file or the new one, never a part. After an error or an interrupt inside the
    block the old file is unchanged and no temporary file remains. A replaced file keeps its permissions.

    Parameters
    ----------
    path : str or Path
        Final path. A symbolic link is followed: the file it points to is replaced.

    Yields
    ------
    Path
        Path to write to, of the same name in a hidden folder.

    Raises
    ------
    InputError
        The folder is missing or not writable, or ``path`` is read-only or something other than a regular file.
    OutputError
        The file cannot be written, for example on a full disk.

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
    """Write several files in a hidden folder and move them to their places once all are complete.

    Each move is atomic, the sequence of moves is not: put the file that validates the others last.

    Parameters
    ----------
    *paths : str or Path
        Final paths, all in one folder, in the order of the moves.

    Yields
    ------
    list of Path
        Paths to write to, with the final names, in a hidden folder. Files that are not written are not moved. After an
        error or an interrupt no temporary file remains.

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
    """Create a hidden folder for unfinished files, and remove it at the end unless it was moved.

    The folder is locked while in use. Unlocked folders of this kind were left by killed processes and are removed by
    the first call in the same parent.

    Parameters
    ----------
    folder : Path
        Parent folder.
    name : str
        Start of the folder's name, shortened.
    private : bool
        Make the folder readable by its owner only.

    Yields
    ------
    Path
        Empty folder.
    """
    _remove_abandoned(folder)
    room = folder / f".{shortened(name, _PREFIX_BYTES)}-anomem-{secrets.token_hex(6)}"
    with ExitStack() as held:
        held.callback(shutil.rmtree, room, ignore_errors=True)  # also where a signal comes before the lock
        with _locked(folder, shared=True):  # no process may remove the folder before it is locked
            room.mkdir(0o700 if private else 0o777)
            held.enter_context(_locked(room, shared=True))
        yield room


@contextmanager
def scratch(name: str) -> Iterator[Path]:
    """Create a temporary folder like `stage`, in the system's temporary folder."""
    with stage(Path(tempfile.gettempdir()), name) as room:
        yield room


def put(part: Path, target: Path) -> None:
    """Move a finished file to its place; a replaced file keeps its permissions."""
    _finish(part, target)
    part.replace(target)


def check_target(path: str | Path, *, what: str = "file") -> None:
    """Check that a file can be written.

    Raises
    ------
    InputError
        The folder is missing or not writable, or the file is read-only or not a regular file.
    """
    target = Path(os.path.realpath(path))
    if not target.parent.is_dir():
        raise InputError(f"{path}: the folder {target.parent} does not exist; create it first")
    if target.is_dir():
        raise InputError(f"{path}: is a folder; name the {what} inside it")
    if target.exists() and not target.is_file():
        raise InputError(f"{path}: is not a regular file; name another {what}")
    # Replacing a file needs no permission of the file, and root has all of them: respect its mode instead.
    if target.exists() and not target.stat().st_mode & 0o222:
        raise InputError(f"{path}: is read-only; make it writable, or name another {what}")
    if not os.access(target.parent, os.W_OK):
        raise InputError(f"{path}: the folder {target.parent} cannot be written; choose another")


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
    """Raise write errors with the final path; errors of a full disk name no file or a hidden one."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        if isinstance(error, OutputError) or not _is_unfinished(error.filename, folder):
            raise
        raise OutputError(path, error) from error


def _is_unfinished(filename: object, folder: Path) -> bool:
    """Return True for an error about an unfinished file, or without a file as on a full disk."""
    if not isinstance(filename, (str, bytes)):
        return True
    place = Path(os.fsdecode(filename))
    return place.is_relative_to(folder) and bool(_UNFINISHED.fullmatch(place.relative_to(folder).parts[0]))


def _finish(part: Path, target: Path) -> None:
    """Set the permissions of the existing or a new file at the final path, and flush to disk."""
    try:
        old = target.stat()
    except FileNotFoundError:
        part.chmod(_usual_mode(part))
    else:
        with suppress(OSError):  # only root may change the owner
            if (old.st_uid, old.st_gid) != (part.stat().st_uid, part.stat().st_gid):
                os.chown(part, old.st_uid, old.st_gid)
        part.chmod(stat.S_IMODE(old.st_mode))
    # Without this, a power cut after the rename can leave an empty file under the final name.
    with part.open("rb") as stream:
        os.fsync(stream.fileno())


def _usual_mode(part: Path) -> int:
    """Return the permissions of a new file, since some writers restrict theirs."""
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
    """Lock a folder until the end of the block or process, without waiting for an exclusive lock.

    Yields
    ------
    bool
        True if locked. On file systems without locks, no folder counts as abandoned.
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
