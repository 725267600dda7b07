"""Malicious files: each is refused, or read as what it is, within bounds."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from anomem.errors import ImageError
from anomem.scale.sources import TarSource
from benchmarks.campaign.malicious import outcome
from benchmarks.campaign.malicious_files import CASES, MARK, Seeds, make_seeds

PPM = b"P6 2 2 255\n" + bytes(12)
DEAR = ("gigabyte", "200 MB", "15 GB", "endless numbers", "two gigabytes", "100,000 columns")
"""Words of cases that take more than a second."""


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> Seeds:
    return make_seeds(tmp_path_factory.mktemp("seeds"))


def check(name: str, seeds: Seeds, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    found = outcome(CASES[name], folder, seeds)
    assert "finding" not in found, found
    assert not (folder / MARK).exists()


pytestmark = [
    pytest.mark.filterwarnings("ignore::anomem.errors.AnomemWarning"),
    pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads peaks from /proc"),
]


def _cheap(name: str) -> bool:
    return not any(word in name for word in DEAR) and not name.startswith(("model", "export"))


@pytest.mark.parametrize("name", [name for name in CASES if _cheap(name)])
def test_a_malicious_file_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check(name, Seeds(tmp_path, tmp_path, PPM), tmp_path, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CASES if not _cheap(name)])
def test_a_dear_malicious_file_is_refused(
    name: str, seeds: Seeds, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(name, seeds, tmp_path, monkeypatch)


def test_a_tar_with_links_and_paths_reads_its_own_bytes(tmp_path: Path) -> None:
    (tmp_path / "secret.ppm").write_bytes(b"P6 3 3 255\n" + bytes(27))
    with tarfile.open(tmp_path / "a.tar", "w") as file:
        for name in ("../secret.ppm", str(tmp_path / "secret.ppm")):
            entry = tarfile.TarInfo(name)
            entry.size = len(PPM)
            file.addfile(entry, io.BytesIO(PPM))
        link = tarfile.TarInfo("link.ppm")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path / "secret.ppm")
        file.addfile(link)
    source = TarSource(tmp_path / "a.tar", "a.tar")
    assert [source.load(i).shape for i in range(len(source))] == [(2, 2, 3), (2, 2, 3)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar", "secret.ppm"]
    with pytest.raises(ImageError, match="no such file|cannot be read|check the path"):
        TarSource(tmp_path / "gone.tar", "gone.tar").load(0)
