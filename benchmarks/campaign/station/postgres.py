"""PostgreSQL server of a run: Debian's programs, a cluster in a temporary folder."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["Postgres", "missing", "postgres"]

_LONGEST_S = 120


def missing() -> str | None:
    """Return the reason why no server can run here; None if one can."""
    if not _programs():
        return "no PostgreSQL server here: apt-get install postgresql"
    try:
        pwd.getpwnam("postgres")
    except KeyError:
        return "no user postgres to run the server as" if os.getuid() == 0 else None
    return None


class Postgres:
    """Server in a folder.

    Parameters
    ----------
    root : Path
        Folder of the cluster.
    """

    def __init__(self, root: Path) -> None:
        self._root, self._data = root, root / "data"
        self._prefix: list[str] = []
        if os.getuid() == 0:  # it refuses to run as root
            user = pwd.getpwnam("postgres")
            os.chown(root, user.pw_uid, user.pw_gid)
            self._prefix = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self._run("initdb", "-D", self._data, "-U", "anomem", "-A", "trust", "--no-sync")

    @property
    def url(self) -> str:
        """URL of its database."""
        return f"postgresql://anomem@127.0.0.1:{self._port}/postgres"

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        options = f"-p {self._port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self._root} -c fsync=off"
        self._run("pg_ctl", "-D", self._data, "-w", "-l", self._root / "log", "-o", options, "start")

    def stop(self) -> None:
        """Stop the server and cut all connections."""
        self._run("pg_ctl", "-D", self._data, "-w", "-m", "fast", "stop")

    def _run(self, program: str, *arguments: object) -> None:
        command = [*self._prefix, str(_programs()[-1] / program), *map(str, arguments)]
        ran = subprocess.run(command, cwd=self._root, capture_output=True, text=True, check=False, timeout=_LONGEST_S)
        if ran.returncode:
            raise RuntimeError(f"{program}: {ran.stdout}{ran.stderr}")


@contextmanager
def postgres() -> Iterator[Postgres]:
    """Run a server on a free port until the end of the block."""
    root = Path(tempfile.mkdtemp(prefix="anomem-pg-"))
    server = Postgres(root)
    try:
        server.start()
        yield server
    finally:
        with suppress(RuntimeError):  # stopped already
            server.stop()
        shutil.rmtree(root, ignore_errors=True)


def _programs() -> list[Path]:
    return sorted(path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb"))
