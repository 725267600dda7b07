"""Links, names, lists and the table of results in the documents agree with the tree."""

from __future__ import annotations

import importlib
import pkgutil
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [
    *ROOT.glob("*.md"),
    *(ROOT / "docs").rglob("*.md"),
    *(ROOT / "benchmarks").rglob("*.md"),
    ROOT / "runtime" / "README.md",
]
_FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_CODE_PATH = re.compile(r"`((?:benchmarks|docs|examples|src|tests|\.ci)/[\w./-]+)`")
_COMMAND = re.compile(r"python (?:-m )?((?:benchmarks|docs)[\w./]*\w)")


def _anchors(text: str) -> set[str]:
    """Return the names by which a page's headings are linked to."""
    titles = re.findall(r"^#+ (.+)$", _FENCED.sub("", text), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def _broken(page: Path) -> list[str]:
    """Return the relative targets of a page's links that are not there."""
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", _FENCED.sub("", page.read_text(encoding="utf-8"))):
        place, _, anchor = target.partition("#")
        file = (page.parent / place).resolve() if place else page
        if "://" in target:
            continue
        if not file.exists() or (anchor and anchor not in _anchors(file.read_text(encoding="utf-8"))):
            broken.append(f"{page.relative_to(ROOT)}: {target}")
    return broken


def _exists(name: str) -> bool:
    module = ROOT / (name if "/" in name else name.replace(".", "/"))
    return module.exists() or module.with_suffix(".py").exists()


def test_links_lead_somewhere() -> None:
    assert not [broken for page in PAGES for broken in _broken(page)]


def test_files_that_are_named_exist() -> None:
    written = [
        page for page in PAGES if page.name not in {"CHANGELOG.md", "migration.md", "measurements.md", "RESULTS.md"}
    ]
    missing = []
    for page in written:
        text = page.read_text(encoding="utf-8")
        named = [*_CODE_PATH.findall(_FENCED.sub("", text)), *_COMMAND.findall(text)]
        missing += [f"{page.relative_to(ROOT)}: {name}" for name in named if not _exists(name)]
    assert not missing


def test_names_of_the_package_exist() -> None:
    pages = [page for page in PAGES if page.name not in {"CHANGELOG.md", "migration.md"}]
    named = {name for page in pages for name in re.findall(r"`(anomem(?:\.\w+)+)", page.read_text(encoding="utf-8"))}
    assert len(named) > 10
    assert not [name for name in sorted(named) if not _found(name)]


def _found(name: str) -> bool:
    """Find a dotted name by importing as much of it as is a module."""
    head, _, last = name.rpartition(".")
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        return bool(head) and _found(head) and hasattr(pkgutil.resolve_name(head), last)
    return True


@pytest.mark.parametrize(("name", "page"), [("table.md", "README.md"), ("table-report.md", "docs/anomem.md")])
def test_pages_show_the_tables_of_results(name: str, page: str) -> None:
    table = (ROOT / "benchmarks" / "results" / name).read_text(encoding="utf-8").strip()
    assert f"\n\n{table}\n\n" in (ROOT / page).read_text(encoding="utf-8"), f"paste benchmarks/results/{name}"


def test_every_page_is_in_the_index() -> None:
    docs = ROOT / "docs"
    index = (docs / "README.md").read_text(encoding="utf-8")
    pages = [str(page.relative_to(docs)) for page in docs.glob("*.md") if page.name != "README.md"]
    assert not [page for page in pages if f"]({page})" not in index]


def test_contributing_lists_the_packages_as_the_linter_does() -> None:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = {c["id"]: c for c in config["tool"]["importlinter"]["contracts"]}
    layers = [re.findall(r"\w+", layer) for layer in contracts["rooms"]["layers"]]
    section = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## Packages")[2].partition("\nRules")[0]
    listed = [re.findall(r"`(\w+)`", line.partition(":")[0]) for line in section.splitlines() if line.startswith("- ")]
    assert listed == layers
