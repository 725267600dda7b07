"""Two distributions from one tree: anomem-runtime, which scores exported models without torch, and anomem."""

from __future__ import annotations

import ast
import json
import os
import sys
import zipfile
from collections.abc import Iterator
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import numpy as np
import pytest

import anomem
from tests.cli.process import completed
from tests.exports import exported, pictures

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "anomem"
NAMES = ("anomem-runtime", "anomem")

pytestmark = [pytest.mark.slow, pytest.mark.ci_sample]

BEYOND = [
    "torch",
    "torchvision",
    "timm",
    "accelerate",
    "safetensors",
    "scipy",
    "sklearn",
    "matplotlib",
    "click",
    "rich",
]
"""What anomem needs and anomem-runtime must do without."""

CHECK = """
import sys
sys.modules.update(dict.fromkeys({beyond!r}))  # None: importing it fails

import json, anomem
from anomem.runtime.overlay import overlay
from anomem.runtime.images import decode

session = anomem.load(sys.argv[1])
found = list(session.score(sys.argv[2:], maps=True))
low, high = session.map_scale_
drawn = overlay(decode(sys.argv[2]), found[0].map, low=low, high=high)
refused = dict()
for name, attempt in (("AnoMem", lambda: anomem.AnoMem), ("load", lambda: anomem.load("model.safetensors"))):
    try:
        attempt()
    except anomem.errors.AnomemError as error:
        refused[name] = str(error)
print(json.dumps([anomem.__file__, drawn.shape, refused, [[r.score, r.p_value, r.map.sum().item()] for r in found]]))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the distributions are built."""
    return tmp_path_factory.mktemp("distributions")


@pytest.fixture(scope="module")
def wheels(folder: Path) -> dict[str, Path]:
    """Both wheels, built from the tree."""
    return build(folder / "wheels", ROOT / "runtime", ROOT)


def build(target: Path, *sources: Path) -> dict[str, Path]:
    """Build the wheels of anomem-runtime and anomem, in this order."""
    run("-m", "pip", "wheel", *OFFLINE, "--no-build-isolation", "--wheel-dir", target, *sources)
    (runtime,), (rest,) = (list(target.glob(f"{name}-*.whl")) for name in ("anomem_runtime", "anomem"))
    return dict(zip(NAMES, (runtime, rest), strict=True))


OFFLINE = ("--quiet", "--disable-pip-version-check", "--no-index", "--no-deps")


def run(*words: str | Path, cwd: Path = ROOT, path: Path | None = None) -> str:
    """Run this Python with some words and return what it printed."""
    environment = os.environ | ({"PYTHONPATH": str(path)} if path else {})
    ran = completed([sys.executable, *words], cwd=cwd, env=environment)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def shipped(wheel: Path) -> set[str]:
    """Files of the package in a wheel, relative to it."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if ".dist-info/" not in name]
    assert all(name.startswith("anomem/") for name in names)
    return {name.removeprefix("anomem/") for name in names}


def metadata(wheel: Path) -> Message:
    """What a wheel says about itself."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return message_from_bytes(archive.read(name))


def test_every_file_is_in_exactly_one_of_them(wheels: dict[str, Path]) -> None:
    runtime, rest = (shipped(wheels[name]) for name in NAMES)
    assert runtime & rest == set()
    tree = {path.relative_to(PACKAGE) for path in PACKAGE.rglob("*") if path.is_file()}
    hidden = {path for path in tree if any(part.startswith((".", "__pycache__")) for part in path.parts)}
    assert runtime | rest == {path.as_posix() for path in tree - hidden}


def test_the_runtime_ships_what_it_imports_and_nothing_else(wheels: dict[str, Path]) -> None:
    room = {path.relative_to(PACKAGE).as_posix() for path in (PACKAGE / "runtime").glob("*.py")}
    assert "runtime/session.py" in room
    needed, pending = set(), {"__init__.py", *room}
    while pending:
        needed |= pending
        pending = {found for path in pending for found in imports(PACKAGE / path)} - needed
    # anomem.load opens exported files itself; the type checker's marker stands beside __init__.py.
    assert shipped(wheels["anomem-runtime"]) == needed | {"loading.py", "py.typed"}


def imports(path: Path) -> Iterator[str]:
    """Files of the package that a file imports, inside functions too, ``if TYPE_CHECKING`` left out."""
    pending: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("anomem"):
            for module in (str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)):
                file = "/".join(module.split(".")[1:])
                yield from (name for name in (f"{file}.py", f"{file}/__init__.py") if (PACKAGE / name).is_file())
        pending += ast.iter_child_nodes(node)


def test_both_have_the_one_version_and_anomem_asks_for_it(wheels: dict[str, Path]) -> None:
    runtime, rest = (metadata(wheels[name]) for name in NAMES)
    assert (runtime["Version"], rest["Version"]) == (anomem.__version__, anomem.__version__)
    assert f"anomem-runtime=={anomem.__version__}" in rest.get_all("Requires-Dist", [])
    needs = [line.partition(";") for line in runtime.get_all("Requires-Dist", [])]
    found = sorted((name.partition(">=")[0].strip(), condition.strip()) for name, _, condition in needs)
    engines = [(name, f"extra == '{name}'") for name in ("onnxruntime", "openvino")]
    assert found == [("numpy", ""), *engines, ("pillow", "")]


def test_source_distributions_give_the_same_wheels(wheels: dict[str, Path], folder: Path) -> None:
    for project in (ROOT / "runtime", ROOT):
        run("-m", "hatchling", "build", "--target", "sdist", "--directory", folder / "sources", cwd=project)
    again = build(folder / "again", *(folder / "sources").iterdir())
    for name in NAMES:
        assert again[name].read_bytes() == wheels[name].read_bytes(), name


def test_the_runtime_alone_scores_an_exported_model(wheels: dict[str, Path], folder: Path) -> None:
    place, pair = folder / "installed", exported("padim")
    run("-m", "pip", "install", *OFFLINE, "--target", place, wheels["anomem-runtime"])
    words = [str(path) for path in (pair.file, *pictures()[:4])]
    said = run("-c", CHECK.format(beyond=BEYOND), *words, cwd=folder, path=place)
    where, drawn, refused, found = json.loads(said)
    assert Path(where) == place / "anomem" / "__init__.py"
    assert drawn == [48, 48, 3]
    assert refused == {
        "AnoMem": "anomem.AnoMem is not installed: pip install anomem",
        "load": "model.safetensors: anomem-runtime scores exported models only; export it, or pip install anomem",
    }
    native = list(pair.detector.score(pictures()[:4], maps=True))
    scores = [(r.score, r.p_value, r.map.sum()) for r in native if r.map is not None]
    np.testing.assert_allclose(np.asarray(found), np.asarray(scores), rtol=1e-4)
