"""The worked example of docs/adding-a-method.md applies to the tree, and its method keeps the contract."""

from __future__ import annotations

import importlib.util
import re
import runpy
import sys
from pathlib import Path

import pytest

from anomem.detectors import DETECTORS, get
from anomem.testing import check_detector

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "adding-a-method.md").read_text(encoding="utf-8")
METHOD = "src/anomem/detectors/baselines/centroid.py"
LIST = "src/anomem/detectors/__init__.py"
TEST = "tests/detectors/test_centroid.py"
TEXT = "docs/baselines/centroid.md"
CHECKS = (
    "clone_and_repr_round_trip",
    "wrong_parameters_are_named",
    "defects_rank_above_normals",
    "calibration_scores_are_scores",
    "saved_and_loaded",
)


def _files() -> dict[str, list[str]]:
    """Return the lines of each file's part of the diff."""
    (diff,) = re.findall(r"^```diff\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    parts = re.split(r"^--- .*\n\+\+\+ b/(.+)\n@@.*\n", diff, flags=re.MULTILINE)[1:]
    return {name: lines.splitlines() for name, lines in zip(parts[::2], parts[1::2], strict=True)}


def _new(name: str) -> str:
    """Return the text of a file that the diff adds."""
    lines = _files()[name]
    assert all(line.startswith("+") for line in lines)
    return "\n".join(line[1:] for line in lines) + "\n"


def _changed(name: str) -> str:
    """Return the text of a file of the tree with the diff applied."""
    lines = _files()[name]
    old, new = ("\n".join(line[1:] for line in lines if line[0] in kept) + "\n" for kept in (" -", " +"))
    text = (ROOT / name).read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{name} has changed: write the diff of docs/adding-a-method.md anew"
    return text.replace(old, new)


@pytest.fixture
def added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Name of the method, registered as the diff says, with its module in a folder of its own."""
    before, after = dict(DETECTORS), runpy.run_path(str(_written(tmp_path / "changed.py", _changed(LIST))))["DETECTORS"]
    ((name, place),) = after.items() - before.items()
    module = place.partition(":")[0]
    assert f"src/{module.replace('.', '/')}.py" == METHOD
    spec = importlib.util.spec_from_file_location(module, _written(tmp_path / "method.py", _new(METHOD)))
    loaded = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, module, loaded)
    spec.loader.exec_module(loaded)
    monkeypatch.setitem(DETECTORS, name, place)
    return str(name)


def _written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_the_diff_touches_four_files() -> None:
    assert list(_files()) == [METHOD, LIST, TEST, TEXT]


def test_the_added_method_keeps_the_contract(added: str) -> None:
    assert set(check_detector(get(added), only=CHECKS).values()) == {"passed"}


def test_the_added_test_passes_and_can_fail(added: str, tmp_path: Path) -> None:
    tests = runpy.run_path(str(_written(tmp_path / "test_added.py", _new(TEST))))
    (test,) = [value for name, value in tests.items() if name.startswith("test_")]
    test()
    module = sys.modules[get(added).__module__]
    module.trimmed_mean.__code__ = (lambda vectors, trim: vectors.mean(dim=0)).__code__
    with pytest.raises(AssertionError):
        test()


def test_the_added_page_is_as_the_generator_writes_it(added: str) -> None:
    generator = runpy.run_path(str(ROOT / "docs" / "parameters.py"))
    assert f"<!-- parameters: {added} -->" in _new(TEXT)
    assert generator["written"](_new(TEXT)) == _new(TEXT)
