"""Atomic writing of files."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest

from anomem.errors import InputError, OutputError
from anomem.runtime.atomic import atomic_files, atomic_path, shortened, stage
from tests.cli.process import completed


def test_success_replaces_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "model.safetensors"
    target.write_text("old")
    with atomic_path(target) as part:
        assert part.parent.parent == tmp_path
        assert part.name == target.name
        assert not part.exists()
        part.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


def test_readers_of_the_old_file_never_see_the_new_one(tmp_path: Path) -> None:
    """Files are replaced, not overwritten: what is open stays whole, as a power cut leaves the old file or the new."""
    targets = [tmp_path / "model.bin", tmp_path / "model.xml"]
    for target in targets:
        target.write_text("old")
    with targets[0].open() as first, targets[1].open() as second:
        with atomic_path(targets[0]) as part:
            part.write_text("new, and longer")
        with atomic_files(targets[1]) as (part,):
            part.write_text("new, and longer")
        assert (first.read(), second.read()) == ("old", "old")
    assert [target.read_text() for target in targets] == ["new, and longer"] * 2


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_error_or_interrupt_leaves_the_old_file_alone(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "a.csv"
    target.write_text("old")

    def fail() -> None:
        with atomic_path(target) as part:
            part.write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_nothing_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "a"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_new_file_has_the_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "usual").touch()
    with atomic_path(tmp_path / "a") as part:
        part.touch()
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_a_link_stays_and_its_target_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    real, link = tmp_path / "folder" / "real.txt", tmp_path / "link.txt"
    real.write_text("old")
    link.symlink_to(real)
    with atomic_path(link) as part:
        part.write_text("new")
    assert link.is_symlink()
    assert real.read_text() == "new"


def test_very_long_names(tmp_path: Path) -> None:
    target = tmp_path / ("n" * 251 + ".csv")
    with atomic_path(target) as part:
        part.write_text("x")
    assert target.read_text() == "x"


def test_targets_that_cannot_be(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    cases = {
        tmp_path: "is a folder",
        tmp_path / "no" / "a.csv": "does not exist; create it",
        tmp_path / "pipe": "not a regular file",
    }
    for path, message in cases.items():
        with pytest.raises(InputError, match=message), atomic_path(path):
            pytest.fail("the block must not run")


def test_a_replaced_file_keeps_its_permissions(tmp_path: Path) -> None:
    target = tmp_path / "model"
    target.write_text("old")
    target.chmod(0o640)
    with atomic_path(target) as part:
        part.write_text("new")
        part.chmod(0o600)  # as some writers do
    assert target.read_text() == "new"
    assert stat.S_IMODE(target.stat().st_mode) == 0o640


def test_a_read_only_file_stays(tmp_path: Path) -> None:
    target = tmp_path / "model"
    target.write_text("old")
    target.chmod(0o400)
    with pytest.raises(InputError, match="is read-only; make it writable"), atomic_path(target):
        pytest.fail("the block must not run")
    assert target.read_text() == "old"


def test_names_are_cut_by_bytes(tmp_path: Path) -> None:
    target = tmp_path / ("検" * 83 + ".csv")
    with atomic_path(target) as part:
        part.write_text("x")
    assert target.read_text() == "x"
    assert shortened("検" * 100, 250) == "検" * 83
    assert shortened(os.fsdecode(b"\xff" * 9), 4) == os.fsdecode(b"\xff" * 4)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), OSError(None, "I/O error of a library")])
def test_a_full_disk_names_the_file(tmp_path: Path, error: OSError) -> None:
    target = tmp_path / "scores.csv"
    target.write_text("old")

    def fill() -> None:
        with atomic_path(target) as part:
            part.write_text("half")
            raise error

    with pytest.raises(OutputError, match=r"scores\.csv: cannot be written \(.*\); free space there"):
        fill()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_errors_of_other_files_pass_through(tmp_path: Path) -> None:
    def read() -> None:
        with atomic_path(tmp_path / "a"):
            raise PermissionError(13, "Permission denied", str(tmp_path / "input.png"))

    with pytest.raises(PermissionError, match=r"input\.png"):
        read()


def test_what_a_killed_process_leaves_is_removed(tmp_path: Path) -> None:
    killed = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom anomem.runtime.atomic import atomic_path\n"
        "with atomic_path(sys.argv[1]) as part:\n"
        "    part.write_text('half')\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    completed([sys.executable, "-c", killed, str(tmp_path / "a")])
    (left,) = tmp_path.iterdir()
    mine = tmp_path / ".mine-anomem-notes"
    mine.mkdir()
    with stage(tmp_path, "b") as room:
        assert not left.exists()
        assert set(tmp_path.iterdir()) == {room, mine}


def test_what_is_in_use_stays(tmp_path: Path) -> None:
    look = (
        "import sys\nfrom pathlib import Path\nfrom anomem.runtime.atomic import stage\n"
        "with stage(Path(sys.argv[1]), 'b'):\n    pass\n"
    )
    with stage(tmp_path, "a") as room:
        completed([sys.executable, "-c", look, str(tmp_path)], check=True)
        assert list(tmp_path.iterdir()) == [room]
    assert list(tmp_path.iterdir()) == []
