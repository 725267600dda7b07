"""Standard streams that are closed or lack characters; file names with control codes."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.cli.process import COMMAND, Command, Ran, Run, Shop, completed, environment

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="descriptors are closed otherwise there")


def closing(descriptors: tuple[int, ...], command: Sequence[str]) -> list[str]:
    """Return the command that runs another without some of its descriptors."""
    return ["sh", "-c", 'exec "$@" ' + " ".join(f"{descriptor}>&-" for descriptor in descriptors), "sh", *command]


@pytest.mark.parametrize("closed", [*(pytest.param(c, marks=pytest.mark.slow) for c in [(1,), (2,)]), (0, 1, 2)])
def test_closed_streams_change_nothing(shop: Shop, tmp_path: Path, closed: tuple[int, ...]) -> None:
    arguments = ["score", shop.knn, shop.data / "test" / "good", "--out", "r.csv"]
    command = closing(closed, [*COMMAND, *map(str, arguments)])
    ran = completed(command, cwd=tmp_path, env=environment())
    assert ran.returncode == 0
    assert len((tmp_path / "r.csv").read_text().splitlines()) == 6


def test_closed_descriptors_are_taken(tmp_path: Path) -> None:
    """Else the next file that is opened is what libraries write their errors to."""
    probe = (
        "from anomem.cli.streams import open_streams\nopen_streams()\n"
        "import os\nos.write(2, b'of a library')\nopen('numbers', 'w').write(str(open('other', 'w').fileno()))"
    )
    command = closing((0, 1, 2), [sys.executable, "-c", probe])
    completed(command, cwd=tmp_path, env=environment(), check=True)
    assert int((tmp_path / "numbers").read_text()) > 2


def test_names_forge_no_lines_and_no_codes(
    shop: Shop, tmp_path: Path, anomem: Command, here: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor do characters that the terminal's code page lacks end the command."""
    (tmp_path / "in").mkdir()
    for name in ("=1+1.png", "a\rb.png", "c\n.\t-9\t1\tnormal.png", "e\x1b]0;title\x07.png", "検査.png"):
        shutil.copy(shop.images[0], tmp_path / "in" / name)
    ran = anomem("score", shop.knn, ".", cwd=tmp_path / "in", PYTHONIOENCODING="cp1252")
    assert ran.code == 0
    assert len(ran.out.splitlines()) == 5
    assert all(line.count("\t") == 3 for line in ran.out.splitlines())
    assert ran.out.splitlines()[-1].startswith("\\u691c\\u67fb.png\t")
    assert "\x1b" not in ran.out + ran.err
    (tmp_path / "in" / "e\x1b]0;title\x07.png").write_text("no image")
    monkeypatch.chdir(tmp_path / "in")
    assert "\x1b" not in Ran(*here("score", shop.knn, ".")).error


def test_long_names_do_not_bury_the_fix(shop: Shop, tmp_path: Path, here: Run) -> None:
    (tmp_path / "t.csv").write_text("path\n" + "a" * 100_000 + "\n")
    ran = Ran(*here("score", shop.knn, tmp_path / "t.csv"))
    assert ran.code == 2
    assert len(ran.error) < 4100
    assert ran.error.startswith(f"{tmp_path / 't.csv'}:2: aaa")
    assert ran.error.endswith(f"give the path of an image, absolute or relative to {tmp_path}")
