"""Digests inside files."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from anomem.errors import ModelFileError
from anomem.runtime.seal import BLANK, check_seal, seal


@pytest.mark.parametrize("before", [0, 5, (1 << 22) - 7, (1 << 22) + 3])
def test_any_changed_byte_is_noticed(before: int, tmp_path: Path) -> None:
    path = tmp_path / "file"
    whole = bytes(range(7)) * (before // 7) + bytes(before % 7) + BLANK.encode() + b"and what follows"
    path.write_bytes(whole)
    seal(path)
    content = path.read_bytes()
    assert len(content) == len(whole)
    assert hashlib.sha256(whole).hexdigest().encode() in content
    check_seal(path, expected=True)
    check_seal(path, expected=False)
    for at in (0, before, before + len(BLANK) - 1, len(content) - 1):
        changed = bytearray(content)
        changed[at] ^= 1
        path.write_bytes(changed)
        with pytest.raises(ModelFileError, match="file: damaged: its content does not match its digest"):
            check_seal(path, expected=True)
    path.write_bytes(content[:-1])
    with pytest.raises(ModelFileError):
        check_seal(path, expected=True)


def test_files_without_a_digest_are_taken_where_none_is_expected(tmp_path: Path) -> None:
    path = tmp_path / "old"
    path.write_bytes(b"an older model")
    check_seal(path, expected=False)
    with pytest.raises(ModelFileError, match="damaged"):
        check_seal(path, expected=True)
    with pytest.raises(ValueError, match="no place for a digest"):
        seal(path)
