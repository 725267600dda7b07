"""Make RESULTS.md from the result files."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ORDER = (
    "one_class",
    "labels",
    "cifar",
    "promise",
    "stage_one",
    "speed",
    "throughput",
    "latency",
    "retrieval",
    "roofline",
    "growth",
    "scratch",
    "plume",
    "fyd",
    "pmb",
    "comparison",
    "padim",
    "peers",
    "trivial",
)
MET = {True: "yes", False: "**no**", None: ""}


def page(results: list[dict[str, Any]]) -> str:
    """The whole page."""
    head = "# Results\n\nMade by `python benchmarks/tables.py` from the files in `benchmarks/results`.\n"
    trivial = next((result["rows"] for result in results if result["name"] == "trivial"), [])
    return "\n".join([head, *(section(result, trivial) for result in results)])


def section(result: dict[str, Any], trivial: list[dict[str, Any]]) -> str:
    """One benchmark: circumstances, tables, what trivial features alone reach on its sets, notes."""
    parts = [f"## {result['title']}", "", circumstances(result), ""]
    for title in dict.fromkeys(row["table"] for row in result["rows"]):
        parts += [f"**{title}**", "", *table([r for r in result["rows"] if r["table"] == title]), ""]
    beside = [row for row in trivial if row["name"] in result["sets"] and result["name"] != "trivial"]
    if beside:
        parts += ["**Beside it: trivial features alone, AUROC**", "", *table(beside), ""]
    parts += [f"- {note}" for note in result["notes"]] + [""]
    return "\n".join(parts)


def circumstances(result: dict[str, Any]) -> str:
    """Where, when and with what it was measured, in a sentence."""
    machine, made = result["hardware"], result["versions"]
    roles = {role: [n for n, s in result["sets"].items() if s["role"] == role] for role in ("development", "report")}
    sets = "; ".join(f"{role} sets: {', '.join(names)}" for role, names in roles.items() if names)
    return (
        f"`{result['command']}` · {result['date']} · revision {result['revision']} · {machine['cpu']}, "
        f"{machine['threads']} of {machine['cores']} cores · torch {made['torch']}, timm {made['timm']}"
        + (f" · {sets}" if sets else "")
    )


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Markdown lines of one table; columns are those of all its rows."""
    columns = list(dict.fromkeys(column for row in rows for column in row["values"]))
    barred = any(row["bar"] for row in rows)
    heads = ["", *columns, *(["bar", "met"] if barred else [])]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for row in rows:
        cells = [row["name"], *(cell(row["values"].get(column)) for column in columns)]
        cells += [row["bar"], MET[row["met"]]] if barred else []
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def cell(value: Any) -> str:
    """One value as text."""
    if value is None:
        return "–"
    if isinstance(value, dict):
        return f"{value['mean']:g} ± {value['sd']:g}" if value["n"] > 1 else f"{value['mean']:g}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def main() -> None:
    """Read every result file and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--out", type=Path, default=HERE / "RESULTS.md")
    args = parser.parse_args()
    known = {p.stem: json.loads(p.read_text(encoding="utf-8")) for p in sorted(args.results.glob("*.json"))}
    names = [n for n in ORDER if n in known] + [n for n in known if n not in ORDER]
    args.out.write_text(page([known[name] for name in names]), encoding="utf-8")
    print(args.out)


if __name__ == "__main__":
    main()
