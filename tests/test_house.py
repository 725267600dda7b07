"""House rules for all modules: layers, start-up, dependencies, sizes."""

from __future__ import annotations

import ast
import functools
import importlib.util
import re
import sys
import sysconfig
from collections.abc import Iterator
from importlib.metadata import requires
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.cli.process import completed

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "anomem"
SOURCES = sorted(PACKAGE.rglob("*.py"))
ALL_PYTHON = [path for room in ("src", "tests", "benchmarks") for path in sorted((ROOT / room).rglob("*.py"))]

HEAVY = {"torch", "torchvision", "timm", "kornia", "accelerate", "matplotlib"}
LIGHT_ROOMS = ("__init__", "__main__", "runtime", "params", "metrics", "data.sources", "cli")

MAX_PACKAGES = 52
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 50

OPENERS = re.compile(r"(What|Who|Whose|Whether|How|Of|From what|In which|Where|That)\b")
MAX_OPENERS = 0
"""Docstrings that open with one of them: none."""

CUDA = re.compile(r"(nvidia|cuda)-.*|triton")


def module_name(path: Path) -> str:
    """src/anomem/data/sources.py -> data.sources; src/anomem/cli/__init__.py -> cli."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    if len(parts) > 1 and parts[-1] == "__init__":
        parts = parts[:-1]
    return ".".join(parts)


def is_light(path: Path) -> bool:
    name = module_name(path)
    return any(name == room or name.startswith(f"{room}.") for room in LIGHT_ROOMS)


LIGHT_SOURCES = [path for path in SOURCES if is_light(path)]


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


# --- layers -----------------------------------------------------------------------------------


def test_rooms_import_downwards() -> None:
    tool = Path(sysconfig.get_path("scripts")) / "lint-imports"
    run = completed([tool, "--no-cache"], cwd=ROOT)
    assert run.returncode == 0, run.stdout + run.stderr


# --- dependencies -----------------------------------------------------------------------------


def closure(distribution: str) -> set[str]:
    """Every distribution that installing this one brings along here, itself and CUDA left out."""
    environment = {str(key): str(value) for key, value in default_environment().items()}
    found: set[str] = set()
    seen: set[tuple[str, str]] = set()
    pending = [(canonicalize_name(distribution), "")]
    while pending:
        name, extra = pending.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        for line in requires(name) or []:
            requirement = Requirement(line)
            marker = requirement.marker
            if marker is not None and not marker.evaluate(environment | {"extra": extra}):
                continue
            needed = canonicalize_name(requirement.name)
            if CUDA.fullmatch(needed):
                continue
            found.add(needed)
            pending += [(needed, wanted) for wanted in ("", *requirement.extras)]
    return found - {canonicalize_name(distribution)}


def test_core_brings_few_packages() -> None:
    packages = closure("anomem")
    assert {"torch", "timm", "pillow"} <= packages
    assert "pyarrow" not in packages
    assert len(packages) <= MAX_PACKAGES, f"{len(packages)}: {sorted(packages)}"


# --- start-up ---------------------------------------------------------------------------------


def heavy_modules_after(code: str) -> set[str]:
    """The heavy packages that a fresh interpreter has imported once it has run the code."""
    probe = f"import sys\n{code}\nprint('MODULES', *sys.modules)\n"
    run = completed([sys.executable, "-c", probe])
    assert run.returncode == 0, run.stderr
    (line,) = (line for line in run.stdout.splitlines() if line.startswith("MODULES "))
    return HEAVY & set(line.split())


def test_import_anomem_is_light() -> None:
    assert heavy_modules_after("import anomem") == set()


def test_help_is_light() -> None:
    code = (
        "from anomem.cli.main import main\n"
        "sys.argv = ['anomem', '--help']\n"
        "try:\n"
        "    main()\n"
        "except SystemExit as end:\n"
        "    assert not end.code, end.code"
    )
    assert heavy_modules_after(code) == set()


def test_light_rooms_import_nothing_heavy() -> None:
    names = [module_name(path) for path in LIGHT_SOURCES]
    modules = ["anomem" if name == "__init__" else f"anomem.{name}" for name in names]
    code = "\n".join(f"import {name}" for name in modules if not name.endswith("__main__"))
    assert heavy_modules_after(code) == set()


def module_level_imports(path: Path) -> Iterator[str]:
    """Top-level packages imported when the module is, ``if TYPE_CHECKING`` left out."""
    pending: list[ast.AST] = [parsed(path)]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            pending += node.orelse
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]
        pending += ast.iter_child_nodes(node)


def test_no_heavy_import_at_module_level() -> None:
    found = {relative(path): HEAVY.intersection(module_level_imports(path)) for path in LIGHT_SOURCES}
    assert {name: heavy for name, heavy in found.items() if heavy} == {}


# --- sizes ------------------------------------------------------------------------------------


def test_files_stay_small() -> None:
    lengths = {relative(path): path.read_text(encoding="utf-8").count("\n") for path in ALL_PYTHON}
    assert {name: n for name, n in lengths.items() if n > MAX_FILE_LINES} == {}


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from ``def`` to the end, the docstring left out: documentation is no complexity."""
    lines = function.end_lineno - function.lineno + 1
    if ast.get_docstring(function) is not None:
        docstring = function.body[0]
        lines -= docstring.end_lineno - docstring.lineno + 1
    return lines


def test_functions_stay_small() -> None:
    lengths = {
        f"{relative(path)}: {node.name}": body_lines(node)
        for path in SOURCES
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert {name: n for name, n in lengths.items() if n > MAX_FUNCTION_LINES} == {}


# --- text -------------------------------------------------------------------------------------


def docstrings(path: Path) -> Iterator[tuple[int, str]]:
    """Line and text of every string that stands alone: of modules, classes, functions and attributes."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.lineno, node.value.value.strip()


def test_docstrings_open_with_a_verb_or_a_noun() -> None:
    found = [
        f"{relative(path)}:{line}: {text.partition(chr(10))[0]}"
        for path in SOURCES
        for line, text in docstrings(path)
        if OPENERS.match(text)
    ]
    assert len(found) <= MAX_OPENERS, "\n".join(found)


SECTION = re.compile(r"^(?:Other )?Parameters\n-+\n(.*?)(?=^\w[\w ]*\n-{3,}$|\Z)", re.MULTILINE | re.DOTALL)


def documented(docstring: str) -> Iterator[str]:
    """Names of the entries of a docstring's Parameters section."""
    for section in SECTION.findall(docstring):
        for line in section.splitlines():
            if line and not line[0].isspace():
                yield from (name.strip().lstrip("*") for name in line.partition(" :")[0].split(","))


def accepted(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> tuple[set[str], bool]:
    """Names that a function or a class takes, and whether it takes others."""
    names: set[str] = set()
    if isinstance(node, ast.ClassDef):
        fields = (n.target for n in node.body if isinstance(n, ast.AnnAssign))
        names |= {target.id for target in fields if isinstance(target, ast.Name)}
        inits = [n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"]
        if not inits:
            return names, False
        node = inits[0]
    given = node.args
    several = [argument for argument in (given.vararg, given.kwarg) if argument is not None]
    names |= {argument.arg for argument in (*given.posonlyargs, *given.args, *given.kwonlyargs, *several)}
    return names, given.kwarg is not None


def test_documented_parameters_are_those_of_the_signature() -> None:
    found = []
    for path in ALL_PYTHON:
        for node in ast.walk(parsed(path)):
            if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            names, others = accepted(node)
            wrong = [name for name in documented(ast.get_docstring(node) or "") if name not in names]
            wrong = [name for name in wrong if not (others and name.isidentifier())]
            found += [f"{relative(path)}:{node.lineno} {node.name}: {name}" for name in wrong]
    assert found == []


# --- objects and processes --------------------------------------------------------------------


OUTSIDE = ("cli", "service", "report", "benchmark", "evaluation", "testing")
"""Packages that use models as users do."""


def foreign_private(path: Path) -> Iterator[str]:
    """Private attributes of other objects that a module uses and does not itself define."""
    nodes = list(ast.walk(parsed(path)))
    own = {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    own |= {node.attr for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)}
    own |= {"_replace", "_asdict", "_exit"}  # Python's own
    for node in nodes:
        if not (isinstance(node, ast.Attribute) and re.match("_[a-z]", node.attr)) or node.attr in own:
            continue
        if ast.unparse(node.value) not in ("self", "cls", "super()"):
            yield f"{relative(path)}:{node.lineno}: {ast.unparse(node)}"


def test_models_are_used_through_public_names() -> None:
    rooms = [path for path in SOURCES if path.relative_to(PACKAGE).parts[0] in OUTSIDE]
    assert [found for path in rooms for found in foreign_private(path)] == []


def test_children_of_tests_have_a_time_limit() -> None:
    """All processes are started by one module, and no test forks the process of the others."""
    starts = re.compile(r"\bsubprocess\.(run|Popen|call|check_\w+)\(|preexec_fn=|^\s*\w+ = os\.fork\(", re.MULTILINE)
    allowed = {"tests/cli/process.py", "tests/benchmark/killed.py"}  # the second is itself a child
    found = {relative(path) for path in sorted((ROOT / "tests").rglob("*.py")) if starts.search(code_of(path))}
    assert found <= allowed


def code_of(path: Path) -> str:
    """A module without the strings in it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            node.value = ""
    return ast.unparse(tree)


def test_asserts_claim_values() -> None:
    found = [
        f"{relative(path)}:{node.lineno}"
        for path in sorted((ROOT / "tests").rglob("*.py"))
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Assert) and re.fullmatch(r"\S+ is not None", ast.unparse(node.test))
    ]
    assert found == []


# --- packaging --------------------------------------------------------------------------------


def test_package_is_typed() -> None:
    spec = importlib.util.find_spec("anomem")
    assert (Path(spec.origin).parent / "py.typed").is_file()
