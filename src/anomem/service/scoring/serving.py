"""Loaded versions and batchers of all models."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path

from sqlalchemy import select

from anomem.errors import AnomemError
from anomem.loading import load
from anomem.runtime.model import Model
from anomem.service.errors import ConflictError, MissingError
from anomem.service.scoring.batcher import Batcher, Served
from anomem.service.scoring.parts import ScoredPart
from anomem.service.settings import Settings
from anomem.service.store import tables
from anomem.service.store.database import Database

__all__ = ["Serving", "load_version", "model_file"]

_log = logging.getLogger(__name__)

_KEPT = 2
"""Versions kept loaded beside the current ones, for heatmaps of history."""


def model_file(root: Path, version: tables.Version) -> Path:
    """Return the file that scores: the exported one where there is one, else the detector's."""
    name = version.files.get("exported") or version.files["detector"]
    return root / version.folder / str(name)


def load_version(root: Path, version: tables.Version, alpha: float) -> Model:
    """Load a version at a false-alarm rate, or at the smallest that its calibration allows.

    Raises
    ------
    MissingError
        The file is gone.
    """
    file = model_file(root, version)
    if not file.is_file():
        raise MissingError(f"version {version.number}: {file.name} is gone; restore the station's folder")
    model = load(file)
    model.set_alpha(max(alpha, model.calibration_.alpha_min))
    return model


class Serving:
    """Batchers by model, and further versions loaded on demand.

    Parameters
    ----------
    database : Database
    root : Path
        Folder of the station.
    settings : Settings
    record : callable
        Receiver of scored parts.
    """

    def __init__(
        self, database: Database, root: Path, settings: Settings, record: Callable[[Sequence[ScoredPart]], None]
    ) -> None:
        self._database, self._root, self._settings, self._record = database, root, settings, record
        self._batchers: dict[int, Batcher] = {}
        self._others: OrderedDict[int, Model] = OrderedDict()
        self._broken: dict[int, str] = {}
        self._lock = threading.Lock()

    def start(self) -> None:
        """Load the current version of every model."""
        with self._database.reading() as session:
            rows = session.execute(
                select(tables.Model, tables.Version).join(tables.Version, tables.Version.id == tables.Model.current_id)
            ).all()
        for model, version in rows:
            try:
                self.serve(model.id, version, load_version(self._root, version, model.alpha))
            except AnomemError as error:  # the other models are served
                _log.error("model %s: %s", model.name, error)
                self._broken[model.id] = f"model {model.name}: {error}"

    def stop(self) -> None:
        """Score what waits, and end all threads."""
        for batcher in list(self._batchers.values()):
            batcher.stop()

    def load(self, version: tables.Version, alpha: float) -> Model:
        """Load a version without serving it; see `load_version`."""
        return load_version(self._root, version, alpha)

    def serve(self, model_id: int, version: tables.Version, loaded: Model) -> None:
        """Score with a loaded version from the next batch on."""
        served = Served(version.id, loaded)
        with self._lock:
            self._broken.pop(model_id, None)
            batcher = self._batchers.get(model_id)
            if batcher is not None:
                batcher.swap(served)
                return
            limits = self._settings
            self._batchers[model_id] = Batcher(
                model_id,
                served,
                self._record,
                limit=limits.queue,
                batch=limits.batch,
                max_pixels=limits.max_pixels,
            )

    def batcher(self, model_id: int) -> Batcher:
        """Return the batcher of a model; ConflictError if no version is current, or it cannot be loaded."""
        try:
            return self._batchers[model_id]
        except KeyError:
            missing = f"model {model_id}: has no version yet; fit it, or import a model file"
            raise ConflictError(self._broken.get(model_id, missing)) from None

    def waiting(self) -> dict[int, int]:
        """Return the number of images that wait, by model."""
        return {model_id: batcher.waiting for model_id, batcher in list(self._batchers.items())}

    def model(self, version: tables.Version, alpha: float) -> Model:
        """Return a loaded version, current or not."""
        batcher = self._batchers.get(version.model_id)
        if batcher is not None and batcher.served.version_id == version.id:
            return batcher.served.model
        with self._lock:
            if version.id not in self._others:
                self._others[version.id] = load_version(self._root, version, alpha)
                while len(self._others) > _KEPT:
                    self._others.popitem(last=False)
            self._others.move_to_end(version.id)
            return self._others[version.id]
