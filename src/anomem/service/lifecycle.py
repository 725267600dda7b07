"""Life of versions: import, candidate, promotion, roll back, alpha."""

from __future__ import annotations

import secrets
import shutil
from pathlib import Path
from typing import Any

from sqlalchemy import select

from anomem.loading import load
from anomem.runtime.metadata import is_exported, weights_of
from anomem.runtime.model import Model
from anomem.service.errors import ConflictError
from anomem.service.events import Events
from anomem.service.folder import StationFolder
from anomem.service.scoring.serving import Serving
from anomem.service.store import tables
from anomem.service.store.audit import record
from anomem.service.store.database import Database
from anomem.service.store.models import add_version, current_version, get_model, get_version, make_current

__all__ = ["Lifecycle", "facts_of"]


def facts_of(model: Model) -> dict[str, Any]:
    """Return a loaded model's figures for its version: method, counts, calibration."""
    calibration = model.calibration_
    return {
        "method": model.name,
        "localizes": model.localizes,
        **model.counts_,
        "alpha": calibration.alpha,
        "alpha_min": calibration.alpha_min,
        "threshold": calibration.threshold if calibration.strata is None else None,
        "kind": calibration.kind,
        "strata": [] if calibration.strata is None else list(calibration.strata.names),
        "rate_limit_95": calibration.rate_limit_95,
        "precision": calibration.precision,
    }


class Lifecycle:
    """Changes of the version that scores; each is one transaction with its audit entry.

    Parameters
    ----------
    database : Database
    folder : StationFolder
    serving : Serving
    events : Events
    """

    def __init__(self, database: Database, folder: StationFolder, serving: Serving, events: Events) -> None:
        self._database, self._folder, self._serving, self._events = database, folder, serving, events

    def import_file(self, model_id: int, file: Path, author: str) -> tables.Version:
        """Add a model file, or an exported one with its weights, as a candidate.

        Raises
        ------
        ModelFileError
            The file is not a model.
        """
        facts = facts_of(load(file))
        room = self.new_folder()
        for part in (file, weights_of(file) if is_exported(file) else None):
            if part is not None:
                shutil.copyfile(part, room / part.name)
        files = {"exported" if is_exported(file) else "detector": file.name}
        return self.add(model_id, "import", room, files=files, figures=facts, author=author)

    def new_folder(self) -> Path:
        """Create the folder of a new version."""
        room = self._folder.versions / secrets.token_hex(8)
        room.mkdir()
        return room

    def add(self, model_id: int, kind: str, room: Path, **facts: Any) -> tables.Version:
        """Add the files in a folder of the station as a candidate."""
        place = room.relative_to(self._folder.root).as_posix()
        with self._database.writing() as session:
            model = get_model(session, model_id)
            facts.setdefault("parent_id", model.current_id)
            version = add_version(session, model, kind, place, **facts)
            record(session, version.author, "version.add", f"model {model.name} version {version.number}", kind=kind)
        self._events.publish("version", {"model": model_id, "version": version.id, "state": version.state})
        return version

    def add_from_job(
        self, job: tables.Job, kind: str, out: Path, files: dict[str, Any], figures: dict[str, Any]
    ) -> tables.Version | None:
        """Add the files that a job has made as a candidate; None if the job was cancelled."""
        room = self.new_folder()
        for file in out.iterdir():
            shutil.move(file, room / file.name)
        place = room.relative_to(self._folder.root).as_posix()
        with self._database.writing() as session:
            row = session.get_one(tables.Job, job.id, with_for_update=True)
            if row.state != "running":
                shutil.rmtree(room)
                return None
            model = get_model(session, job.model_id)
            facts: dict[str, Any] = {"files": files, "figures": figures, "author": job.author, "job_id": job.id}
            version = add_version(session, model, kind, place, parent_id=model.current_id, **facts)
            record(session, job.author, "version.add", f"model {model.name} version {version.number}", kind=kind)
        self._events.publish("version", {"model": model.id, "version": version.id, "state": version.state})
        return version

    def promote(self, version_id: int, author: str, *, reason: str = "") -> tables.Version:
        """Make a version the one that scores, without a pause.

        Raises
        ------
        ConflictError
            It is current already.
        """
        with self._database.reading() as session:
            version = get_version(session, version_id)
            model = get_model(session, version.model_id)
        if version.state == "current":
            raise ConflictError(f"version {version.number}: is current already; choose another")
        return self._switch(model, version, author, "version.promote", reason=reason)

    def roll_back(self, model_id: int, author: str) -> tables.Version:
        """Return to the version before the current one.

        Raises
        ------
        ConflictError
            There is none.
        """
        with self._database.reading() as session:
            model = get_model(session, model_id)
            current = current_version(session, model)
            if current.previous_id is None:
                raise ConflictError(f"model {model.name}: has no earlier version; promote another one")
            earlier = get_version(session, current.previous_id)
        return self._switch(model, earlier, author, "version.roll_back", back=True)

    def set_alpha(self, model_id: int, alpha: float, author: str) -> tables.Model:
        """Change the promised false-alarm rate of a model.

        Raises
        ------
        CalibrationError
            Alpha too small for the current calibration.
        """
        with self._database.writing() as session:
            model = get_model(session, model_id)
            before = model.alpha
            if model.current_id is not None:
                batcher = self._serving.batcher(model_id)
                batcher.served.model.calibration_.with_alpha(alpha)
            model.alpha = alpha
            record(session, author, "model.alpha", f"model {model.name}", before=before, after=alpha)
        if model.current_id is not None:
            self._serving.batcher(model_id).served.model.set_alpha(alpha)
        self._events.publish("model", {"model": model_id, "alpha": alpha})
        return model

    def remove_orphans(self) -> None:
        """Delete folders of versions whose registration was cut off."""
        with self._database.reading() as session:
            known = {Path(folder).name for folder in session.scalars(select(tables.Version.folder))}
        for room in self._folder.versions.iterdir():
            if room.name not in known:
                shutil.rmtree(room, ignore_errors=True)

    def _switch(
        self,
        model: tables.Model,
        version: tables.Version,
        author: str,
        action: str,
        *,
        back: bool = False,
        **facts: Any,
    ) -> tables.Version:
        loaded = self._serving.load(version, model.alpha)  # what cannot be loaded is not promoted
        with self._database.writing() as session:
            model, version = get_model(session, model.id), get_version(session, version.id)
            if model.current_id is not None and model.current_id == version.id:
                raise ConflictError(f"version {version.number}: is current already; choose another")
            make_current(session, model, version, back=back)
            subject = f"model {model.name} version {version.number}"
            record(session, author, action, subject, **{key: fact for key, fact in facts.items() if fact})
        self._serving.serve(model.id, version, loaded)
        self._events.publish("version", {"model": model.id, "version": version.id, "state": "current"})
        return version
