"""Write the generated tables of the docs, parameters, backbones and old names: python docs/parameters.py [--check]."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path

from anomem.detector import Detector
from anomem.detectors import DETECTORS, get
from anomem.framing import FrameParameters
from anomem.nn.families import ALIASES
from anomem.params import table
from anomem.renamed import CLASSES, MODULES

FOLDER = Path(__file__).parent
_TABLE = re.compile(r"^<!-- (parameters|renamed|backbones): (\w+) -->\n.*?^<!-- end -->", re.DOTALL | re.MULTILINE)


def written(text: str) -> str:
    """Return a page with its tables as the declarations have them today."""
    return _TABLE.sub(
        lambda found: f"<!-- {found[1]}: {found[2]} -->\n\n{_content(*found.groups())}\n\n<!-- end -->", text
    )


def _content(kind: str, of: str) -> str:
    if kind == "parameters":
        return table(get(of), but=Detector)
    if kind == "backbones":
        return "\n".join(["| alias | timm's name |", "|---|---|", *(f"| `{k}` | `{v}` |" for k, v in ALIASES.items())])
    if of == "modules":
        return _renamed("module", ((old, [f"anomem.{new}" for new in MODULES[old]]) for old in MODULES), "anomem.")
    if of == "classes":
        return _renamed("class", ((old, [new]) for old, new in CLASSES.items()))
    return _renamed("parameter", _moved_parameters())


def _moved_parameters() -> Iterable[tuple[str, list[str]]]:
    for cls in (FrameParameters, *map(get, DETECTORS)):
        for old, new in vars(cls).get("moved", {}).items():
            yield f"{'any method' if cls is FrameParameters else cls.__name__}({old}=)", [new]


def _renamed(kind: str, names: Iterable[tuple[str, list[str]]], before: str = "") -> str:
    """Return a Markdown table of old and new names; names without a successor are packages of others, and left out."""
    rows = [f"| `{before}{old}` | {', '.join(f'`{name}`' for name in new)} |" for old, new in names if new]
    return "\n".join([f"| old {kind} | new |", "|---|---|", *rows])


def main(check: bool) -> int:
    """Rewrite every page, or (check) name those that are out of date."""
    old = []
    for page in sorted(FOLDER.rglob("*.md")):
        text = page.read_text(encoding="utf-8")
        if written(text) != text:
            old.append(str(page.relative_to(FOLDER)))
            if not check:
                page.write_text(written(text), encoding="utf-8")
    sys.stdout.write("\n".join([*old, f"{len(old)} pages out of date"]) + "\n")
    return int(check and bool(old))


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv))
