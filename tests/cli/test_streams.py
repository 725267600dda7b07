"""Standard streams that are closed or lack characters; file names with control codes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.process import COMMAND, Command, Ran, Run, Shop, environment

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="descriptors are closed otherwise there")


def _closing(*descriptors: int) -> Callable[[], None]:
    def close() -> None:
        for descriptor in descriptors:
            os.close(descriptor)

    return close


@pytest.mark.parametrize("closed", [(1,), (2,), (0, 1, 2)])
def test_closed_streams_change_nothing(shop: Shop, tmp_path: Path, closed: tuple[int, ...]) -> None:
    arguments = ["score", shop.knn, shop.data / "test" / "good", "--out", "r.csv"]
    ran = subprocess.run(
        [*COMMAND, *map(str, arguments)],
        cwd=tmp_path,
        env=environment(),
        preexec_fn=_closing(*closed),
        check=False,
    )
    assert ran.returncode == 0
    assert len((tmp_path / "r.csv").read_text().splitlines()) == 6


def test_closed_descriptors_are_taken(tmp_path: Path) -> None:
    """Else the next file that is opened is what libraries write their errors to."""
    probe = (
        "from anomem.cli.streams import open_streams\nopen_streams()\n"
        "import os\nos.write(2, b'of a library')\nopen('numbers', 'w').write(str(open('other', 'w').fileno()))"
    )
    subprocess.run(
        [sys.executable, "-c", probe],
        cwd=tmp_path,
        env=environment(),
        preexec_fn=_closing(0, 1, 2),
        check=True,
    )
    assert int((tmp_path / "numbers").read_text()) > 2


def test_a_code_page_without_the_characters(shop: Shop, tmp_path: Path, anomem: Command) -> None:
    (tmp_path / "in").mkdir()
    shutil.copy(shop.images[0], tmp_path / "in" / "検査.png")
    ran = anomem("score", shop.knn, "in", PYTHONIOENCODING="cp1252")
    assert ran.code == 0
    assert ran.out.startswith("in/\\u691c\\u67fb.png\t")


def test_names_forge_no_lines_and_no_codes(
    shop: Shop, tmp_path: Path, anomem: Command, here: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    for name in ("=1+1.png", "a\rb.png", "c\n.\t-9\t1\tnormal.png", "e\x1b]0;title\x07.png"):
        shutil.copy(shop.images[0], tmp_path / "in" / name)
    ran = anomem("score", shop.knn, ".", cwd=tmp_path / "in")
    assert ran.code == 0
    assert len(ran.out.splitlines()) == 4
    assert all(line.count("\t") == 3 for line in ran.out.splitlines())
    assert "\x1b" not in ran.out + ran.err
    (tmp_path / "in" / "e\x1b]0;title\x07.png").write_text("no image")
    monkeypatch.chdir(tmp_path / "in")
    assert "\x1b" not in Ran(*here("score", shop.knn, ".")).error
