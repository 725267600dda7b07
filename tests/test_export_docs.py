"""Examples in the documentation of exported files run unchanged."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anomem.runtime.images import decode
from tests.cli.process import completed
from tests.exports import exported, pictures

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "standalone.py"
PAGE = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")


def test_the_standalone_example_scores_and_draws(tmp_path: Path) -> None:
    pair = exported("memae")
    command = [sys.executable, str(EXAMPLE), str(pair.file), "maps", *map(str, pictures())]
    done = completed(command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = [line.split(" ") for line in done.stdout.splitlines()]
    wanted = list(pair.detector.score(pictures()))
    assert [row[0] for row in rows] == [str(path) for path in pictures()]
    np.testing.assert_allclose([float(row[1]) for row in rows], [r.score for r in wanted], rtol=1e-4)
    assert [row[3] == "anomalous" for row in rows] == [r.anomalous for r in wanted]
    for path in {path.stem: path for path in pictures()}.values():
        assert decode(tmp_path / "maps" / f"{path.stem}.png").shape == decode(path).shape


def test_the_standalone_example_is_short_and_needs_little() -> None:
    text = EXAMPLE.read_text(encoding="utf-8")
    assert len([line for line in text.splitlines() if line.strip()]) <= 20
    nodes = list(ast.walk(ast.parse(text)))
    modules = {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    modules |= {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    ours = {name for name in modules if name and name.startswith("anomem")}
    assert all(name.startswith("anomem.runtime.") for name in ours)
    assert modules - ours == {"sys", "pathlib", "numpy", "PIL"}


def test_the_raw_graph_gives_what_the_session_gives(tmp_path: Path) -> None:
    pair = exported("memae")
    (snippet,) = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
    (tmp_path / "model.onnx").write_bytes(pair.file.read_bytes())
    Image.open(pictures()[0]).save(tmp_path / "photo.png")
    done = completed([sys.executable, "-c", snippet], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    score = float(done.stdout.split()[0])
    assert score == pytest.approx(float(pair.detector.anomaly_score(tmp_path / "photo.png")[0]), rel=1e-4)


def test_what_the_page_points_to_is_there() -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", PAGE)
    assert targets
    assert [t for t in targets if not (ROOT / "docs" / t).exists()] == []
