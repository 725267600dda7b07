"""Write the tables of parameters in the docs from the methods' declarations: python docs/parameters.py [--check]."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from anomem.detector import Detector
from anomem.detectors import get
from anomem.params import table

FOLDER = Path(__file__).parent
_TABLE = re.compile(r"<!-- parameters: (\w+) -->\n.*?<!-- end -->", re.DOTALL)


def written(text: str) -> str:
    """Return a page with its tables of parameters as the methods declare them today."""
    return _TABLE.sub(
        lambda found: f"{_opening(found[1])}\n\n{table(get(found[1]), but=Detector)}\n\n<!-- end -->", text
    )


def _opening(method: str) -> str:
    return f"<!-- parameters: {method} -->"


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
