"""Commands and snippets of the README run in an empty folder, on images in the places it names."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import numpy as np
import pytest

from anomem.cli.main import run
from anomem.data.synthetic import crops, plant
from anomem.detectors.anomem.detector import AnoMem
from anomem.params import parse_assignments
from anomem.runtime.images import write_png

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
ELSEWHERE = ("git clone", "make ", "anomem demo")
"""What other tests and CI itself run: the clone, make, and the demo."""


def blocks(language: str) -> list[str]:
    """Return the README's fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
def factory(tmp_path: Path) -> Path:
    """A folder with the parts that the README speaks of."""
    rng = np.random.default_rng(0)
    for folder, half, count in (
        ("good_parts", "train", 50),
        ("more_good_parts", "test", 50),
        ("new_parts", "test", 4),
    ):
        for i, image in enumerate(crops("brick", count, size=96, half=half, rng=rng)):
            write_png(tmp_path / _made(tmp_path / folder) / f"{folder}{i:02d}.png", image)
    for i, image in enumerate(crops("brick", 6, size=96, half="test", rng=rng)):
        write_png(_made(tmp_path / "labelled_parts/test/good") / f"{i}.png", image)
        write_png(_made(tmp_path / "labelled_parts/test/hole") / f"{i}.png", plant(image, "hole", rng)[0])
    for i, image in enumerate(crops("brick", 6, size=96, half="test", rng=rng)):
        write_png(_made(tmp_path / "defects") / f"{'abcdef'[i]}.png", plant(image, "scratch", rng)[0])
    (tmp_path / "labels.csv").write_text("path,label\n" + "".join(f"defects/{c}.png,1\n" for c in "abcdef"))
    return tmp_path


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def test_every_command_of_the_readme_runs(
    factory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    commands = [line.split("  #")[0].strip() for block in blocks("bash") for line in block.splitlines()]
    ours = [c for c in commands if c and not c.startswith(ELSEWHERE)]
    assert len(ours) >= 8
    monkeypatch.chdir(factory)
    for command in ours:
        words = command.split()
        assert words[0] == "anomem", f"README has a command that no test knows: {command}"
        code, shown = run(words[1:]), capsys.readouterr()
        assert code == 0, f"{command}\n{shown.out}\n{shown.err}"
    assert len(list((factory / "heatmaps").rglob("*.png"))) == 4
    assert "<html" in (factory / "report" / "report.html").read_text(encoding="utf-8")


def test_the_snippet_of_the_readme_runs(
    factory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (snippet,) = blocks("python")
    assert len([line for line in snippet.splitlines() if line.strip()]) <= 10
    monkeypatch.chdir(factory)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fifty images are few
        exec(snippet, {})
    assert len(capsys.readouterr().out.splitlines()) == 4
    assert (factory / "model.safetensors").is_file()


def test_every_setting_of_the_readme_is_taken() -> None:
    settings = re.findall(r"--set (\S+=[^\s`]+)", README)
    assert len(settings) >= 3
    parse_assignments(AnoMem, settings)
    AnoMem(**parse_assignments(AnoMem, [s for s in settings if not s.startswith("roi=")])).resolve()


def test_what_the_readme_points_to_is_there() -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", README)
    missing = [t for t in targets if "://" not in t and not (ROOT / t).exists()]
    assert targets
    assert not missing
