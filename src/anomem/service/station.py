"""Station: everything that one process of `anomem serve` holds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from anomem.service.access.gate import Gate
from anomem.service.access.login_limit import LoginLimit
from anomem.service.access.sessions import Sessions
from anomem.service.alike import Alike
from anomem.service.drifting import Drifting
from anomem.service.events import Events
from anomem.service.folder import StationFolder
from anomem.service.images import Images
from anomem.service.jobs.runner import Runner
from anomem.service.jobs.tasks import Tasks
from anomem.service.lifecycle import Lifecycle
from anomem.service.metrics import Metrics
from anomem.service.pictures import Pictures
from anomem.service.retention import Retention
from anomem.service.scoring.recorder import Recorder
from anomem.service.scoring.serving import Serving
from anomem.service.settings import Settings
from anomem.service.sinks import outbox
from anomem.service.sinks.delivery import Delivery
from anomem.service.sources.watching import Watching
from anomem.service.store.database import Database, database_url
from anomem.service.store.inspections import summary
from anomem.service.store.migrating import upgrade
from anomem.service.store.tables import Inspection

__all__ = ["Station"]


class Station:
    """Store, loaded versions, threads and settings of one station.

    Parameters
    ----------
    root : Path
        Folder of the station; created if missing.
    settings : Settings

    Raises
    ------
    InputError
        The folder or database cannot be used.
    """

    def __init__(self, root: Path, settings: Settings) -> None:
        self.settings = settings
        self.folder = StationFolder.open(root)
        self.database = Database(database_url(self.folder.root, settings.db))
        self.images = Images(self.folder.images, settings.max_image_bytes)
        self.events = Events()
        self.metrics = Metrics()
        self.sessions = Sessions(self.folder.secret())
        self.logins = LoginLimit()
        self.gate = Gate(self.database, self.sessions, settings)
        upgrade(self.database, self.folder.backups)
        self.recorder = Recorder(self.database, [outbox.fill], self._recorded)
        self.serving = Serving(self.database, self.folder.root, settings, self.recorder.add)
        self.pictures = Pictures(self.database, self.images, self.serving, settings.max_pixels)
        self.alike = Alike(self.database, self.images, self.serving, settings.max_pixels)
        self.lifecycle = Lifecycle(self.database, self.folder, self.serving, self.events)
        self.drifting = Drifting(self.database, self.serving, self.events)
        self.delivery = Delivery(self.database, self.events)
        self.watching = Watching(self.database, self.images, self.serving, settings.max_pixels)
        self.retention = Retention(self.database, self.images)
        tasks = Tasks(self.folder.root, self.images, settings.max_pixels)
        self.jobs = Runner(self.database, self.folder, tasks, self.lifecycle, self.events)

    def start(self) -> None:
        """Load the current versions and start all threads."""
        self.lifecycle.remove_orphans()
        self.serving.start()
        self.jobs.start()
        self.delivery.start()
        self.watching.start()
        self.retention.start()

    def stop(self) -> None:
        """Finish what is accepted, and end all threads."""
        self.events.close()
        self.watching.stop()
        self.retention.stop()
        self.jobs.stop()
        self.serving.stop()
        self.recorder.stop()
        self.delivery.stop()
        self.database.close()

    def _recorded(self, new: Sequence[Inspection]) -> None:
        for inspection in new:
            self.metrics.inspected(inspection)
            self.events.publish("inspection", summary(inspection))
        self.delivery.wake()
        self.drifting.observe(new)
