"""Run of a station: socket, server, end."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import uvicorn
from sqlalchemy import select

from anomem.errors import InputError
from anomem.runtime.calibration import DEFAULT_ALPHA
from anomem.service.access.users import any_user
from anomem.service.api.app import create_app
from anomem.service.settings import LOOPBACK, Settings
from anomem.service.station import Station
from anomem.service.store.models import add_model, add_product, get_model
from anomem.service.store.tables import Model

__all__ = ["add_first_model", "serve"]

_GRACE_S = 5


class _Server(uvicorn.Server):
    """Server that reports when it serves, and ends open event streams at once."""

    def __init__(self, config: uvicorn.Config, station: Station, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._station, self._ready = station, ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._station.events.close()
        super().handle_exit(sig, frame)


def serve(root: Path, settings: Settings, *, model: Path | None, ready: Callable[[str], None]) -> None:
    """Serve a station until a signal ends the process.

    Parameters
    ----------
    root : Path
        Folder of the station.
    settings : Settings
    model : Path or None
        Model file for the first start; see `add_first_model`.
    ready : callable
        Called with the URL once requests are answered.

    Raises
    ------
    InputError
        The folder, database or address cannot be used, or others could use the station without credentials.
    """
    if (settings.certificate is None) != (settings.key is None):
        raise InputError("--certificate: needs --key, and --key needs --certificate; give both files")
    with _bound(settings) as listening:
        station = Station(root, settings)
        with station.folder.locked():
            check_exposure(station)
            if model is not None:
                add_first_model(station, model)
            _run(station, listening, ready)


def check_exposure(station: Station) -> None:
    """Refuse other hosts than this machine without users or token.

    Raises
    ------
    InputError
        With the commands that help.
    """
    settings = station.settings
    if settings.host in LOOPBACK or settings.token is not None:
        return
    with station.database.reading() as session:
        known = any_user(session)
    if not known:
        fix = "add one with --add-user NAME --role engineer, or give --token"
        raise InputError(f"--host {settings.host}: others could use the station without a user; {fix}")


def add_first_model(station: Station, file: Path) -> None:
    """Add a product and a model named like a file, with the file as its version; a known name stays as it is."""
    name = file.stem
    with station.database.writing() as session:
        model = session.scalar(select(Model).where(Model.name == name))
        if model is None:
            model = add_model(session, add_product(session, name).id, name, DEFAULT_ALPHA, {})
        if model.current_id is not None:
            return
    version = station.lifecycle.import_file(model.id, file, "command line")
    with station.database.writing() as session:
        get_model(session, model.id).alpha = version.figures["alpha"]
    station.lifecycle.promote(version.id, "command line")


def _bound(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listening = socket.socket(family)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((settings.host, settings.port))
    except OSError as error:
        listening.close()
        problem = f"{settings.host}:{settings.port}: cannot be used ({error.strerror or error})"
        raise InputError(f"{problem}; choose another --port or --host") from error
    return listening


def _run(station: Station, listening: socket.socket, ready: Callable[[str], None]) -> None:
    settings = station.settings
    config = uvicorn.Config(
        create_app(station),
        log_level="warning",
        access_log=False,
        proxy_headers=False,  # no header may change who calls
        server_header=False,
        timeout_graceful_shutdown=_GRACE_S,
        ssl_certfile=settings.certificate,
        ssl_keyfile=settings.key,
        limit_concurrency=1024,
    )
    host, port = listening.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    url = f"{'https' if settings.secure else 'http'}://{shown}:{port}"
    _Server(config, station, lambda: ready(url)).run(sockets=[listening])
