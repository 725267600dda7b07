"""Command group: find the subcommand, and turn its outcome into an exit code and one line.

=====  ==================================================================
code   meaning
=====  ==================================================================
0      done
1      a check failed (doctor's problems, an export's scores), or a bug
2      bad usage or input
128+n  ended by signal n: 130 after Ctrl-C, 143 after SIGTERM
=====  ==================================================================
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module

import click

from anomem.cli.session import Session, catch_signals, show_notes
from anomem.cli.streams import open_streams, silence_unread_streams
from anomem.errors import AnomemError, ExportError, ImageError, InputError, one_line
from anomem.runtime.neutral import printable
from anomem.version import __version__

COMMANDS = {
    "demo": "anomem.cli.demo:demo",
    "fit": "anomem.cli.fitting:fit",
    "score": "anomem.cli.scoring:score",
    "evaluate": "anomem.cli.evaluating:evaluate",
    "label": "anomem.cli.fitting:label",
    "calibrate": "anomem.cli.fitting:calibrate",
    "export": "anomem.cli.exporting:export",
    "bench": "anomem.cli.bench:bench",
    "report": "anomem.cli.reporting:report",
    "serve": "anomem.cli.serve:serve",
    "methods": "anomem.cli.info:methods",
    "doctor": "anomem.cli.info:doctor",
}
DEBUG = "ANOMEM_DEBUG"
_LONGEST = 4000
"""Maximum number of characters of an error's line."""
COMPLETION = "_ANOMEM_COMPLETE"


class LazyGroup(click.Group):
    """Command group that imports a command's module on first use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the command names in the order of use."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command, or return None for an unknown name."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="anomem")
def cli() -> None:
    """Visual anomaly detection: learn from normal images, score new ones and show where they deviate.

    Start with `anomem demo`, or with a folder of normal images: `anomem fit FOLDER --out MODEL`.
    """


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code."""
    session = Session()
    open_streams()
    try:
        with catch_signals(session), show_notes():
            code = _invoke(arguments, session)
            sys.stdout.flush()
        return code
    except BaseException as error:  # also interrupts and exits: each has its code and its line
        if os.environ.get(DEBUG) and not isinstance(error, (click.ClickException, KeyboardInterrupt)):
            raise
        return _report(error, session)


def _invoke(arguments: Sequence[str], session: Session) -> int:
    """Run a command like click, but pass interrupts and closed pipes to the caller."""
    instruction = os.environ.get(COMPLETION)
    if instruction:
        from click.shell_completion import shell_complete

        return shell_complete(cli, {}, "anomem", COMPLETION, instruction)
    _check_ranks(arguments)
    try:
        with cli.make_context("anomem", list(arguments), obj=session) as context:
            cli.invoke(context)
    except click.exceptions.Exit as end:
        return end.exit_code
    return 0


def _check_ranks(arguments: Sequence[str]) -> None:
    """Refuse other commands than `fit` on several ranks, and let only the first one print.

    Raises
    ------
    InputError
        Another command: every rank would do all of it, and write the same files.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or "RANK" not in os.environ or not arguments:
        return
    if arguments[0] != "fit":
        raise InputError(
            f"torchrun: {arguments[0]} runs in one process; only fit is divided (score: --engine processes)"
        )
    if os.environ["RANK"] != "0":
        sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115


def _report(error: BaseException, session: Session) -> int:
    """Print an error on one line and return the exit code."""
    if session.signal or isinstance(error, (KeyboardInterrupt, click.Abort)):
        _say(session.farewell())
        return 128 + (session.signal or signal.SIGINT)
    if isinstance(error, BrokenPipeError) and silence_unread_streams():
        return 128 + getattr(signal, "SIGPIPE", 13)
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 1
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        click.echo(error.format_message(), err=True)
        return 2
    if isinstance(error, click.ClickException):
        _say(f"error: {_usage(error)}")
        return 2
    if isinstance(error, AnomemError):
        can_skip = isinstance(error, ImageError) and session.can_skip
        _say(f"error: {error}" + ("; --skip-bad leaves such images out" if can_skip else ""))
        return 1 if isinstance(error, ExportError) else 2
    if isinstance(error, OSError) and error.strerror and not isinstance(error, ConnectionError):
        name = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, (str, bytes)) else ""
        _say(f"error: {name}{error.strerror}")
        return 2
    _say(f"error: unexpected {type(error).__name__}: {error} ({DEBUG}=1 shows where; please report it)")
    return 1


def _usage(error: click.ClickException) -> str:
    """Return click's message with a reference to the help page."""
    context = getattr(error, "ctx", None)
    where = f" (see {context.command_path} --help)" if context is not None else ""
    return error.format_message().rstrip(".") + where


def _say(text: str) -> None:
    line = printable(one_line(text))
    if len(line) > _LONGEST:  # a name or a list of an input; the end holds the fix
        line = f"{line[: _LONGEST // 2]} ... {line[-_LONGEST // 2 :]}"
    try:
        click.echo("anomem: " + line, err=True)
    except BrokenPipeError:  # nobody reads the line; the exit code stays
        silence_unread_streams()
