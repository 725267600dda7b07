"""Campaign of damaged input: a few executions of each reader, and its bookkeeping."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest

from anomem.errors import AnomemError, InputError
from benchmarks.fuzz import pictures, shards, tables
from benchmarks.fuzz.__main__ import Campaign
from benchmarks.fuzz.reader import Reader

FINDINGS = Path(tables.__file__).parent / "findings"
pytestmark = pytest.mark.filterwarnings("ignore::anomem.errors.AnomemWarning", "ignore:Possible:FutureWarning")


def test_readers_raise_nothing_but_our_errors(tmp_path: Path) -> None:
    for reader in [*pictures.readers(), *tables.readers(tmp_path), *shards.readers(tmp_path)]:
        for i in range(15):
            with suppress(AnomemError):
                reader.read(reader.make(Random(i)))


def test_earlier_findings_stay_mended(tmp_path: Path) -> None:
    """Damaged facts of a Parquet column (4325) ended the process; an expression of 41 repeats (13206) took
    seconds, and is refused.
    """
    readers = {reader.name: reader for reader in [*pictures.readers(), *tables.readers(tmp_path)]}
    found = sorted(FINDINGS.glob("*.bin"))
    for file in found:
        expected = pytest.raises(InputError) if file.stem.startswith("groups") else suppress(AnomemError)
        with expected:
            readers[file.stem.rpartition("-")[0].replace("-", " ")].read(file.read_bytes())
    assert found


def test_a_finding_is_kept_with_its_input_and_a_run_resumes(tmp_path: Path) -> None:
    seen: list[bytes] = []

    def read(content: bytes) -> None:
        seen.append(content)
        if content == b"3":
            raise KeyError(content)

    numbers = iter("012345")
    reader = Reader("made up", 6, lambda _: next(numbers).encode(), read)
    (tmp_path / "noise").touch()
    Campaign(tmp_path, tmp_path / "noise").run(reader, 4)
    Campaign(tmp_path, tmp_path / "noise").run(reader, 6)
    assert b"".join(seen) == b"012345"
    assert [path.name for path in sorted((tmp_path / "findings").iterdir())] == ["made-up-3.bin", "made-up-3.txt"]
    assert (tmp_path / "findings" / "made-up-3.bin").read_bytes() == b"3"
    counts = json.loads((tmp_path / "state.json").read_text())["made up"]
    assert (counts["runs"], counts["read"], counts["refused"], counts["findings"]) == (6, 5, 0, 1)
