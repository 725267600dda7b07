"""Watched folders: each file is inspected once, also after a kill, and not before it is complete."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select

from anomem.errors import AnomemError, ImageError, one_line
from anomem.runtime.files import read_regular
from anomem.runtime.images import IMAGE_SUFFIXES, decode
from anomem.runtime.neutral import printable
from anomem.service.images import Images
from anomem.service.scoring.parts import Part
from anomem.service.scoring.serving import Serving
from anomem.service.store.database import Database
from anomem.service.store.tables import Inspection, Watch

__all__ = ["Watching"]

_log = logging.getLogger(__name__)

_POLL_S = 1.0
_YOUNG_S = 30.0
_CHUNK = 64
_SUBMIT_S = 120.0


@dataclass(frozen=True)
class _File:
    """File as found: a change of size or time makes it another one."""

    name: str
    size: int
    mtime_ns: int

    def key(self, watch_id: int) -> str:
        digest = hashlib.sha256(f"{self.name}\0{self.size}\0{self.mtime_ns}".encode("utf-8", "surrogateescape"))
        return f"watch:{watch_id}:{digest.hexdigest()}"


class Watching:
    """Thread that scans all watched folders.

    Parameters
    ----------
    database : Database
    images : Images
    serving : Serving
    max_pixels : int
        Size limit per image.
    poll : float
        Seconds between two scans; a file counts as complete if it has not changed between two of them.

    Attributes
    ----------
    scans : int
        Number of finished scans of all folders.
    """

    def __init__(
        self, database: Database, images: Images, serving: Serving, max_pixels: int, poll: float = _POLL_S
    ) -> None:
        self._database, self._images, self._serving = database, images, serving
        self._max_pixels, self.poll, self.scans = max_pixels, poll, 0
        self._seen: dict[int, dict[str, _File]] = {}
        self._done: dict[int, dict[str, _File]] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(self.poll):
            try:
                with self._database.reading() as session:
                    watches = session.scalars(select(Watch).where(Watch.active)).all()
                for watch in watches:
                    self._note(watch, self._scan(watch))
            except Exception:  # noqa: BLE001 - logged
                _log.exception("watched folders")  # the database is away, the disk is full: the thread goes on
            self.scans += 1

    def _note(self, watch: Watch, error: str | None) -> None:
        if error != watch.error:
            with self._database.writing() as session:
                session.get_one(Watch, watch.id).error = error

    def _scan(self, watch: Watch) -> str | None:
        """Inspect the complete new files of a folder, and return an error."""
        seen, done = self._seen.setdefault(watch.id, {}), self._done.setdefault(watch.id, {})
        try:
            found = {file.name: file for file in _listed(Path(watch.folder))}
        except OSError as error:
            return f"{watch.folder}: {error.strerror}; check the folder"
        steady = [file for name, file in found.items() if seen.get(name) == file and done.get(name) != file]
        self._seen[watch.id] = found
        self._done[watch.id] = {name: file for name, file in done.items() if name in found}
        problem = None
        for start in range(0, len(steady), _CHUNK):
            if self._stopped.is_set():
                break
            try:
                problem = self._inspect(watch, steady[start : start + _CHUNK]) or problem
            except (AnomemError, TimeoutError) as error:  # a full queue: tried again at the next scan
                return one_line(error)
        return problem

    def _inspect(self, watch: Watch, files: Sequence[_File]) -> str | None:
        done, problem = self._done[watch.id], None
        keys = {file.key(watch.id): file for file in files}
        with self._database.reading() as session:
            query = select(Inspection.key).where(Inspection.model_id == watch.model_id, Inspection.key.in_(keys))
            known = set(session.scalars(query))
        parts = []
        for key, file in keys.items():
            if key in known:
                done[file.name] = file
                continue
            try:
                part = self._part(watch, file, key)
            except ImageError as error:
                done[file.name], problem = file, one_line(error)
                continue
            if part is not None:
                parts.append((file, part))
        if parts:
            self._serving.batcher(watch.model_id).submit([part for _, part in parts])
        for file, part in parts:
            part.done.result(_SUBMIT_S)
            done[file.name] = file
        return problem

    def _part(self, watch: Watch, file: _File, key: str) -> Part | None:
        """Keep the image of a file; None for one that is gone, or still being written."""
        path, name = Path(watch.folder) / file.name, printable(file.name)
        try:
            content = read_regular(path, name, self._images.max_bytes)
        except FileNotFoundError:
            return None
        if abs(time.time() - file.mtime_ns / 1e9) < _YOUNG_S:
            try:
                decode(content, name=name, max_pixels=self._max_pixels)
            except ImageError:
                return None
        stored = self._images.put(content, name)
        return Part(stored, self._images.path(stored.sha256), name, "watch", key, watch.stratum)


def _listed(folder: Path) -> Iterator[_File]:
    """Yield the image files of a folder, without those below it and hidden ones."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") or Path(entry.name).suffix.lower() not in IMAGE_SUFFIXES:
                continue
            with suppress(FileNotFoundError):
                facts = entry.stat(follow_symlinks=False)
                if entry.is_file(follow_symlinks=False) and facts.st_size:
                    yield _File(entry.name, facts.st_size, facts.st_mtime_ns)
