"""Unpack every zip of a folder into a cache: python3 unpack_data.py FOLDER CACHE.

Each NAME.zip becomes CACHE/NAME. A zip that is there already, by its SHA-256, is left alone; one
that differs from SHA256SUMS beside it is refused. An interrupted run leaves nothing half-unpacked
under the final name.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path

STAMP = ".sha256"


def expected_digests(folder: Path) -> dict[str, str]:
    """Read ``SHA256SUMS``: file name -> hexadecimal digest; empty where there is none."""
    sums = folder / "SHA256SUMS"
    if not sums.is_file():
        return {}
    lines = (line.split(maxsplit=1) for line in sums.read_text().splitlines() if line.strip())
    return {name.lstrip("*"): digest for digest, name in lines}


def unpack(archive: Path, cache: Path, expected: str | None) -> str:
    """Unpack one zip and say in a word what was done."""
    with archive.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if expected is not None and digest != expected:
        sys.exit(f"{archive}: differs from SHA256SUMS; copy it again")

    target = cache / archive.stem
    stamp = target / STAMP
    if stamp.is_file() and stamp.read_text() == digest:
        return "there"

    with tempfile.TemporaryDirectory(dir=cache, prefix=f".{archive.stem}-") as scratch:
        fresh = Path(scratch) / archive.stem
        with zipfile.ZipFile(archive) as content:
            content.extractall(fresh)
        (fresh / STAMP).write_text(digest)
        shutil.rmtree(target, ignore_errors=True)
        fresh.replace(target)
    return "unpacked"


def main() -> None:
    """Unpack what the command line names."""
    if len(sys.argv) != 3:
        sys.exit("usage: unpack_data.py FOLDER CACHE")
    folder, cache = Path(sys.argv[1]), Path(sys.argv[2])
    cache.mkdir(parents=True, exist_ok=True)
    digests = expected_digests(folder)
    for archive in sorted(folder.glob("*.zip")):
        print(f"{archive.name}: {unpack(archive, cache, digests.get(archive.name))}", flush=True)


if __name__ == "__main__":
    main()
