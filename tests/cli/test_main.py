"""Start-up, exit codes and one-line errors."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from pathlib import Path

import click
import pytest

from anomem.cli import group
from anomem.cli.group import COMMANDS, cli, run
from anomem.cli.session import show_notes
from anomem.errors import AnomemWarning, ImageError, InputError, MissingExtraError
from anomem.version import __version__
from tests.cli.process import COMMAND, Command, completed, environment

LIGHT = {"anomem", "click", "numpy"}
"""All that a command needs beside the standard library before it works: what keeps its start short on any machine."""


# --- start-up ---------------------------------------------------------------------------------


def test_help_imports_next_to_nothing() -> None:
    asked = [["--help"], ["--version"], *([name, "--help"] for name in COMMANDS)]
    probe = f"""
import sys
there = set(sys.modules)  # what site's own files bring along
from anomem.cli.main import run
for arguments in {asked!r}:
    code = run(arguments)
    new = set(sys.modules) - there
    there |= new
    print("PACKAGES", *arguments, code, *{{name.split(".")[0] for name in new}} - sys.stdlib_module_names)
"""
    ran = completed([sys.executable, "-c", probe], env=environment(), check=True)
    shown = [line.split()[1:] for line in ran.stdout.splitlines() if line.startswith("PACKAGES ")]
    found = {
        tuple(words[: len(arguments)]): words[len(arguments) :] for arguments, words in zip(asked, shown, strict=True)
    }
    assert list(found) == [tuple(arguments) for arguments in asked]
    assert {words[0] for words in found.values()} == {"0"}
    heavy = {arguments: set(packages) - LIGHT for arguments, (_, *packages) in found.items()}
    assert {arguments: packages for arguments, packages in heavy.items() if packages} == {}


def test_help_lists_every_command(anomem: Command) -> None:
    shown = anomem("--help").out
    for name in COMMANDS:
        assert f"\n  {name} " in shown


def test_every_command_has_json_and_help() -> None:
    context = click.Context(cli)
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command.name == name
        assert command.help
        assert command.short_help
        assert "--json" in {option for parameter in command.params for option in parameter.opts}


def test_module_runs_too() -> None:
    ran = completed([sys.executable, "-m", "anomem", "--version"], env=environment(), check=True)
    assert ran.stdout == f"anomem, version {__version__}\n"
    assert ran.stderr == ""


def test_shell_completion_knows_the_commands(anomem: Command) -> None:
    ran = anomem(_ANOMEM_COMPLETE="bash_complete", COMP_WORDS="anomem ev", COMP_CWORD="1")
    assert ran.out.split() == ["plain,evaluate"]


# --- usage errors -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["fot"], "No such command 'fot'"),
        (["fit"], "Missing argument 'DATA' (see anomem fit --help)"),
        (["fit", "x"], "Missing option '--out'"),
        (["fit", "x", "--out", "m", "--alpha", "1"], "'--alpha'"),
        (["fit", "x", "--out", "m", "--precision", "int8"], "'--precision'"),
        (["score", "m"], "Missing argument 'IMAGES...'"),
        (["score", "m", "x", "--batch-size", "0"], "'--batch-size'"),
        (["calibrate", "m", "x"], "Missing option '--alpha'"),
        (["label", "m", "--out", "n"], "Missing option '--labels'"),
    ],
)
def test_bad_usage_is_one_line_and_2(arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    (line,) = shown.err.splitlines()
    assert line.startswith("anomem: error: ")
    assert expected in line


@pytest.mark.parametrize(
    "arguments", [["fit", "", "--out", "m"], ["score", "m", ""], ["evaluate", "", "d"], ["fit", "d", "--out", ""]]
)
def test_an_empty_path_is_not_the_current_folder(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 2
    assert "is empty; name a file or folder" in capsys.readouterr().err


def test_no_command_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "Commands:" in shown.err


# --- what happens inside a command -------------------------------------------------------------


@pytest.fixture
def raising(monkeypatch: pytest.MonkeyPatch) -> list[BaseException]:
    """Let ``anomem doctor`` raise whatever is put into this list."""
    errors: list[BaseException] = []

    @click.command()
    def command() -> None:
        raise errors[0]

    monkeypatch.setattr(group.LazyGroup, "get_command", lambda *_: command)
    return errors


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (InputError("a.csv: empty"), 2, "error: a.csv: empty"),
        (InputError("two\n  lines"), 2, "error: two lines"),
        (ImageError("a.png", "the file is empty"), 2, "error: a.png: the file is empty"),
        (MissingExtraError("pyarrow", "tables"), 2, "error: pyarrow is not installed: pip install 'anomem[tables]'"),
        (PermissionError(13, "Permission denied", "/models/m"), 2, "error: /models/m: Permission denied"),
        (OSError(28, "No space left on device"), 2, "error: No space left on device"),
        (
            BrokenPipeError(32, "of a worker"),  # stdout is read
            1,
            "error: unexpected BrokenPipeError: [Errno 32] of a worker (ANOMEM_DEBUG=1 shows where; please report it)",
        ),
        (KeyboardInterrupt(), 130, "interrupted; nothing was written"),
        (
            RuntimeError("oops"),
            1,
            "error: unexpected RuntimeError: oops (ANOMEM_DEBUG=1 shows where; please report it)",
        ),
    ],
)
def test_an_error_is_one_line(
    raising: list[BaseException],
    error: BaseException,
    code: int,
    line: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("ANOMEM_DEBUG", raising=False)
    raising.append(error)
    assert run(["doctor"]) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == f"anomem: {line}\n"


def test_debug_shows_the_traceback(raising: list[BaseException], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANOMEM_DEBUG", "1")
    raising.append(RuntimeError("oops"))
    with pytest.raises(RuntimeError, match="oops"):
        run(["doctor"])


def test_signal_handlers_are_put_back(raising: list[BaseException]) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    raising.append(InputError("x"))
    run(["doctor"])
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_notes_are_one_line_and_libraries_are_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    with show_notes():
        for _ in range(2):
            warnings.warn(AnomemWarning("alpha is\n0.1"), stacklevel=1)
        warnings.warn("something of a library", DeprecationWarning, stacklevel=1)
    assert capsys.readouterr().err == "anomem: note: alpha is 0.1\n" * 2


@pytest.mark.skipif(os.name == "nt", reason="no SIGPIPE there")
@pytest.mark.parametrize(
    ("unread", "arguments", "code"), [("stdout", ["--help"], 141), ("stderr", ["no-such-command"], 2)]
)
def test_a_closed_pipe_is_quiet(unread: str, arguments: list[str], code: int) -> None:
    read, write = os.pipe()
    os.close(read)
    ran = completed([*COMMAND, *arguments], env=environment(), **{unread: write})
    os.close(write)
    assert ran.returncode == code
    assert not ran.stdout
    assert not ran.stderr


def test_names_that_are_no_text_pass_through(tmp_path: Path) -> None:
    name = b"caf\xe9"
    command = [*map(os.fsencode, COMMAND), b"fit", name, b"--out", b"m"]
    ran = completed(command, cwd=tmp_path, env=environment(), text=False)
    assert ran.returncode == 2
    assert ran.stderr.startswith(b"anomem: error: " + name + b": ")
    assert ran.stderr.count(b"\n") == 1
