"""PostgreSQL server of a test: Debian's binaries, a cluster in a temporary folder."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cli.process import completed


def binaries() -> Path:
    """Folder of the newest server's programs, or a skip."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        pytest.skip("no PostgreSQL server here: apt-get install postgresql")
    return found[-1].parent


@contextmanager
def postgres() -> Iterator[str]:
    """Run a server on a free port of this machine, and yield the URL of its database."""
    programs, root = binaries(), Path(tempfile.mkdtemp(prefix="anomem-pg-"))
    prefix: list[str] = []
    if os.getuid() == 0:  # it refuses to run as root
        try:
            user = pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip("no user postgres to run the server as")
        os.chown(root, user.pw_uid, user.pw_gid)
        prefix = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    data = root / "data"

    def run(*arguments: object) -> None:
        ran = completed([*prefix, *map(str, arguments)], cwd=root)
        assert ran.returncode == 0, ran.stdout + ran.stderr

    run(programs / "initdb", "-D", data, "-U", "anomem", "-A", "trust", "--no-sync")
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={root} -c fsync=off"
    try:
        run(programs / "pg_ctl", "-D", data, "-w", "-l", root / "log", "-o", options, "start")
        yield f"postgresql://anomem@127.0.0.1:{port}/postgres"
    finally:
        completed([*prefix, programs / "pg_ctl", "-D", data, "-m", "immediate", "stop"])
        shutil.rmtree(root, ignore_errors=True)
