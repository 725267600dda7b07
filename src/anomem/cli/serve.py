"""Command `serve`: the inspection station."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from anomem.cli import options
from anomem.cli.output import Output
from anomem.cli.session import Session, pass_session
from anomem.errors import InputError, MissingExtraError

ROLES = ("viewer", "operator", "engineer")


@click.command(short_help="Inspection station: a page where labels improve the model.")
@click.argument("station", type=options.PATH)
@click.option("--model", type=options.PATH, metavar="MODEL", help="Model file for the first start.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address; others than this machine need users.")
@click.option("--port", type=click.IntRange(0, 65535), default=8765, show_default=True, help="Port; 0: any free one.")
@click.option("--db", metavar="URL", envvar="ANOMEM_DB", help="Database.  [default: SQLite in STATION]")
@click.option("--token", envvar="ANOMEM_TOKEN", help="Token of an engineer, for a station without users.")
@click.option("--certificate", type=options.PATH, metavar="FILE", help="TLS certificate, PEM; with --key.")
@click.option("--key", type=options.PATH, metavar="FILE", help="TLS key, PEM.")
@click.option(
    "--folders",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    metavar="DIR",
    multiple=True,
    help="Folder that fits, watches and folder sinks may name, with all below it; repeatable.",
)
@click.option(
    "--rate",
    type=click.FloatRange(0),
    default=200.0,
    show_default=True,
    help="Requests per second and address.",
)
@click.option("--add-user", metavar="NAME", help="Add a user and end; the password is asked for, or read from stdin.")
@click.option("--role", type=click.Choice(ROLES), default="operator", show_default=True, help="Role of --add-user.")
@click.option("--reset-password", metavar="NAME", help="Set a new password and end.")
@click.option("--backup", type=options.PATH, metavar="FILE", help="Write STATION into one .tar file and end.")
@click.option("--restore", type=options.PATH, metavar="FILE", help="Make STATION from a backup and end.")
@options.as_json
@pass_session
def serve(
    session: Session,
    /,
    station: Path,
    model: Path | None,
    add_user: str | None,
    role: str,
    reset_password: str | None,
    backup: Path | None,
    restore: Path | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Serve the inspection station in the folder STATION, created on first use.

    A browser shows what the models reject, takes labels, refits and promotes; everything is kept in STATION.
    """
    if find_spec("fastapi") is None or find_spec("sqlalchemy") is None:
        raise MissingExtraError("fastapi", "serve")
    from anomem.service.settings import Settings

    output, settings = Output(as_json), Settings(**given)
    chosen = [option for option in (add_user, reset_password, backup, restore) if option is not None]
    if len(chosen) > 1:
        raise InputError("--add-user, --reset-password, --backup, --restore: one at a time; run the command twice")
    if add_user is not None or reset_password is not None:
        _manage(station, settings, output, add_user, role, reset_password)
        return
    if backup is not None or restore is not None:
        _copy(station, settings, output, backup, restore)
        return
    from anomem.service.running import serve as serve_station

    def ready(url: str) -> None:
        output.line(f"station {station}: {url}  (Ctrl-C ends it)")
        output.result({"station": station, "url": url})
        sys.stdout.flush()

    session.written.append(str(station))
    serve_station(station, settings, model=model, ready=ready)


def _manage(
    station: Path, settings: Any, output: Output, add_user: str | None, role: str, reset_password: str | None
) -> None:
    """Add a user, or set a password, on the machine itself."""
    from anomem.service.manage import new_password, new_user

    name = add_user or reset_password or ""
    password = _password(name)
    if add_user is not None:
        new_user(station, settings, name, role, password)
        output.line(f"user {name}: added as {role}")
    else:
        new_password(station, settings, name, password)
        output.line(f"user {name}: has a new password; open sessions have ended")
    output.result({"station": station, "user": name})


def _copy(station: Path, settings: Any, output: Output, backup: Path | None, restore: Path | None) -> None:
    """Write a backup, or make a station from one."""
    from anomem.service import manage

    if backup is not None:
        manage.back_up(station, settings, backup)
        output.line(f"station {station}: written to {backup}")
    elif restore is not None:
        manage.restore(station, settings, restore)
        output.line(f"station {station}: made from {restore}; next: anomem serve {station}")
    output.result({"station": station, "file": backup or restore})


def _password(name: str) -> str:
    """Ask for a password twice, or read one line of stdin where it is no terminal."""
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    return str(click.prompt(f"Password of {name}", hide_input=True, confirmation_prompt=True, err=True))
