"""Sets in array files: every pixel read according to the format."""

from __future__ import annotations

import gzip
import hashlib
import pickle
import struct
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.io import savemat
from torchvision.datasets import CIFAR10, CIFAR100

from anomem.data.catalog import CATALOG, OfficialSet, open_set
from anomem.data.official.coarse import COARSE, COARSE_OF
from anomem.data.official.inside import read_array
from anomem.data.official.records import read_records, svhn_digits
from anomem.data.samples import Sample
from anomem.errors import ImageError, InputError

Array = npt.NDArray[Any]
RNG = np.random.default_rng(3)
COLOUR = RNG.integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
GREY = RNG.integers(0, 256, (6, 28, 28), dtype=np.uint8)


def loaded(data: OfficialSet, samples: tuple[Sample, ...]) -> Array:
    source = data.source(samples)
    return np.stack([source.load(i) for i in range(len(source))])


def classes(data: OfficialSet, samples: tuple[Sample, ...]) -> list[str]:
    return [data.class_of(sample) for sample in samples]


def as_rgb(grey: Array) -> Array:
    return np.repeat(grey[..., None], 3, axis=-1)


def missing(name: str, root: Path, what: str) -> None:
    with pytest.raises(InputError) as error:
        open_set(name, root)
    assert what in str(error.value)
    assert CATALOG[name].source in str(error.value)


def zipped(folder: Path, target: Path) -> Path:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(folder))
    return target


# --- CIFAR ------------------------------------------------------------------------------------


def cifar_record(image: Array, *labels: int) -> bytes:
    """Label bytes, then the red, green and blue plane, each row by row: as the format's description has it."""
    return bytes(labels) + b"".join(image[:, :, channel].tobytes() for channel in range(3))


def build_cifar10(root: Path) -> Path:
    folder = root / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    for i in range(5):
        records = [cifar_record(COLOUR[2 * i + j], j) for j in range(2)]
        (folder / f"data_batch_{i + 1}.bin").write_bytes(b"".join(records))
    (folder / "test_batch.bin").write_bytes(cifar_record(COLOUR[10], 1) + cifar_record(COLOUR[11], 0))
    (folder / "batches.meta.txt").write_text("airplane\nautomobile\n\n")
    return root


def build_cifar100(root: Path) -> Path:
    folder = root / "cifar-100-binary"
    folder.mkdir(parents=True)
    (folder / "train.bin").write_bytes(b"".join(cifar_record(COLOUR[i], i % 2, i % 3) for i in range(6)))
    (folder / "test.bin").write_bytes(b"".join(cifar_record(COLOUR[i], i % 2, i % 3) for i in range(6, 8)))
    (folder / "coarse_label_names.txt").write_text("fish\ntrees\n")
    (folder / "fine_label_names.txt").write_text("ray\noak_tree\nshark\n")
    return root


@pytest.mark.parametrize("packed", [False, True])
def test_cifar10_binary(tmp_path: Path, packed: bool) -> None:
    root = build_cifar10(tmp_path / "copy")
    data = open_set("cifar10", zipped(root, tmp_path / "cifar-10-binary.zip") if packed else root)
    assert data.classes == ("airplane", "automobile")
    assert np.array_equal(loaded(data, data.train), COLOUR[:10])
    assert np.array_equal(loaded(data, data.test), COLOUR[10:])
    assert classes(data, data.train) == ["airplane", "automobile"] * 5
    assert classes(data, data.test) == ["automobile", "airplane"]
    planes = data.one_vs_rest("airplane")
    assert [sample.label for sample in planes.test] == [1, 0]
    assert (len(planes.train), len(planes.spare)) == (5, 5)


def test_cifar100_binary_has_two_label_bytes(tmp_path: Path) -> None:
    root = build_cifar100(tmp_path)
    fine, coarse = (open_set("cifar100", root, variant=variant) for variant in ("fine", "coarse"))
    assert classes(fine, fine.train) == ["ray", "oak_tree", "shark"] * 2
    assert classes(coarse, coarse.train) == ["fish", "trees"] * 3
    assert np.array_equal(loaded(fine, fine.train), COLOUR[:6])
    assert np.array_equal(loaded(coarse, coarse.test), COLOUR[6:8])


def test_cifar_missing_batch(tmp_path: Path) -> None:
    batch = build_cifar10(tmp_path) / "cifar-10-batches-bin/data_batch_4.bin"
    batch.unlink()
    missing("cifar10", tmp_path, f"{batch}: absent; found batches.meta.txt, data_batch_1.bin")


def test_cifar_nothing_there(tmp_path: Path) -> None:
    missing("cifar10", tmp_path, "cifar-10-batches-bin: absent (nor cifar-10-batches-py, nor train/<class>)")


def test_cifar_incomplete_batch(tmp_path: Path) -> None:
    batch = build_cifar10(tmp_path) / "cifar-10-batches-bin/data_batch_4.bin"
    batch.write_bytes(batch.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"data_batch_4\.bin: 6,145 bytes are no whole number of records of 3,073"):
        open_set("cifar10", tmp_path)


def test_cifar_class_number_without_a_name(tmp_path: Path) -> None:
    (build_cifar10(tmp_path) / "cifar-10-batches-bin/batches.meta.txt").write_text("airplane\n")
    with pytest.raises(InputError, match=r"data_batch_1\.bin: class number 1 of 1 classes"):
        open_set("cifar10", tmp_path)


def build_python(root: Path, monkeypatch: pytest.MonkeyPatch, kind: type[CIFAR10], names: list[str]) -> Path:
    """A miniature of the Python version, with torchvision told the miniature's checksums instead of the official."""
    folder = root / kind.base_folder
    folder.mkdir(parents=True)
    key = "labels" if kind is CIFAR10 else "fine_labels"

    def dump(name: str, content: object) -> str:
        (folder / name).write_bytes(pickle.dumps(content))
        return hashlib.md5((folder / name).read_bytes()).hexdigest()

    sums = []
    files = [*kind.train_list, *kind.test_list]
    for i, (name, _) in enumerate(files):
        planes = COLOUR[2 * i : 2 * i + 2].transpose(0, 3, 1, 2).reshape(2, -1)
        sums.append([name, dump(name, {"data": planes, key: [0, 1]})])
    meta = dict(kind.meta)
    meta["md5"] = dump(str(meta["filename"]), {meta["key"]: names})
    monkeypatch.setattr(kind, "train_list", sums[:-1])
    monkeypatch.setattr(kind, "test_list", sums[-1:])
    monkeypatch.setattr(kind, "meta", meta)
    return folder


def test_cifar10_python_version_through_torchvision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build_python(tmp_path, monkeypatch, CIFAR10, ["cat", "dog"])
    data = open_set("cifar10", tmp_path)
    assert np.array_equal(loaded(data, data.train), COLOUR[:10])
    assert np.array_equal(loaded(data, data.test), COLOUR[10:])
    assert classes(data, data.train) == ["cat", "dog"] * 5
    assert "Python version, read by torchvision" in data.describe()


def test_cifar100_python_version_in_coarse_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = build_python(tmp_path, monkeypatch, CIFAR100, ["ray", "oak_tree"])
    data = open_set("cifar100", folder, variant="coarse")
    assert classes(data, data.train) == ["fish", "trees"]
    assert np.array_equal(loaded(data, data.test), COLOUR[2:4])


def test_cifar_pickles_that_are_not_the_official_ones_are_never_opened(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta"):
        (folder / name).write_bytes(b"cos\nsystem\n(S'touch owned'\ntR.")
    with pytest.raises(InputError, match="a batch is missing or is not the official one"):
        open_set("cifar10", tmp_path)
    (folder / "data_batch_2").unlink()
    missing("cifar10", tmp_path, "data_batch_2: absent")


def test_cifar_python_version_in_a_zip_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build_python(tmp_path / "copy", monkeypatch, CIFAR10, ["cat", "dog"])
    with pytest.raises(InputError, match="inside a zip; unpack it, or use the binary version"):
        open_set("cifar10", zipped(tmp_path / "copy", tmp_path / "cifar10.zip"))


def test_coarse_classes_are_complete() -> None:
    assert len(COARSE) == 20
    assert {len(members) for members in COARSE.values()} == {5}
    assert len(COARSE_OF) == 100


# --- MNIST and Fashion-MNIST ------------------------------------------------------------------


def idx(array: Array) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def build_idx(folder: Path, *, packed: bool = False) -> Path:
    folder.mkdir(parents=True)
    for prefix, part in (("train", slice(0, 4)), ("t10k", slice(4, 6))):
        for name, array in (("images-idx3", GREY[part]), ("labels-idx1", np.arange(6, dtype=np.uint8)[part])):
            content = idx(array)
            file = folder / f"{prefix}-{name}-ubyte{'.gz' if packed else ''}"
            file.write_bytes(gzip.compress(content) if packed else content)
    return folder


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("name", "place"), [("mnist", ""), ("mnist", "MNIST/raw"), ("fashion_mnist", "FashionMNIST/raw")]
)
def test_idx_files(tmp_path: Path, name: str, place: str, packed: bool) -> None:
    build_idx(tmp_path / "copy" / place, packed=packed)
    data = open_set(name, tmp_path / "copy")
    assert np.array_equal(loaded(data, data.train), as_rgb(GREY[:4]))
    assert np.array_equal(loaded(data, data.test), as_rgb(GREY[4:]))
    expected = ["4", "5"] if name == "mnist" else ["Coat", "Sandal"]
    assert classes(data, data.test) == expected
    assert len(data.one_vs_rest(data.classes[0]).train) == 1


def test_idx_files_in_a_zip(tmp_path: Path) -> None:
    data = open_set("mnist", zipped(build_idx(tmp_path / "copy"), tmp_path / "mnist.zip"))
    assert np.array_equal(loaded(data, data.test), as_rgb(GREY[4:]))


def test_idx_missing(tmp_path: Path) -> None:
    file = build_idx(tmp_path / "mnist") / "t10k-labels-idx1-ubyte"
    file.unlink()
    missing("mnist", tmp_path, f"{file}: absent (nor t10k-labels-idx1-ubyte.gz, raw/t10k-labels-idx1-ubyte")


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (idx(np.arange(3, dtype=np.uint8)), "3 labels for 4 images"),
        (idx(np.full(4, 10, np.uint8)), "class number 10 of 10 classes"),
        (b"\0\0\x0d\1" + b"\0" * 20, "damaged, or not an IDX file"),
        (idx(np.zeros(4, np.uint8))[:-2], "damaged or incomplete"),
        (b"", "damaged, or not an IDX file"),
    ],
)
def test_idx_damaged(tmp_path: Path, content: bytes, line: str) -> None:
    file = build_idx(tmp_path / "copy") / "train-labels-idx1-ubyte"
    file.write_bytes(content)
    with pytest.raises(InputError, match=f"train-labels-idx1-ubyte: {line}"):
        open_set("mnist", tmp_path / "copy")


def test_gz_that_is_cut_off(tmp_path: Path) -> None:
    file = build_idx(tmp_path / "copy", packed=True) / "train-images-idx3-ubyte.gz"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(InputError, match=r"train-images-idx3-ubyte\.gz: damaged or incomplete"):
        open_set("mnist", tmp_path / "copy")


def test_a_file_that_changes_is_opened_anew(tmp_path: Path) -> None:
    file = tmp_path / "train-labels-idx1-ubyte"
    file.write_bytes(idx(np.arange(3, dtype=np.uint8)))
    assert read_array(file).tolist() == [0, 1, 2]
    file.unlink()  # a mapped file must not be written over
    file.write_bytes(idx(np.arange(4, dtype=np.uint8)))
    assert read_array(file).tolist() == [0, 1, 2, 3]


# --- SVHN and MedMNIST ------------------------------------------------------------------------


def build_svhn(root: Path) -> Path:
    root.mkdir()
    for part, images, digits in (("train", COLOUR[:3], [1, 10, 3]), ("test", COLOUR[3:5], [10, 9])):
        savemat(
            root / f"{part}_32x32.mat", {"X": images.transpose(1, 2, 3, 0), "y": np.array(digits, np.uint8)[:, None]}
        )
    return root


@pytest.mark.parametrize("packed", [False, True])
def test_svhn_writes_ten_for_zero(tmp_path: Path, packed: bool) -> None:
    root = build_svhn(tmp_path / "copy")
    data = open_set("svhn", zipped(root, tmp_path / "svhn.zip") if packed else root)
    assert classes(data, data.train) == ["1", "0", "3"]
    assert classes(data, data.test) == ["0", "9"]
    assert np.array_equal(loaded(data, data.train), COLOUR[:3])
    assert np.array_equal(loaded(data, data.test), COLOUR[3:5])


def test_svhn_missing_and_damaged(tmp_path: Path) -> None:
    file = build_svhn(tmp_path / "copy") / "test_32x32.mat"
    file.write_bytes(b"no MAT file")
    with pytest.raises(InputError, match=r"test_32x32\.mat: not a readable SVHN file"):
        open_set("svhn", tmp_path / "copy")
    file.unlink()
    missing("svhn", tmp_path / "copy", f"{file}: absent")


def build_medmnist(root: Path) -> Path:
    root.mkdir()
    arrays: dict[str, Array] = {}
    for i, part in enumerate(("train", "val", "test")):
        arrays[f"{part}_images"] = GREY[2 * i : 2 * i + 2]
        arrays[f"{part}_labels"] = np.array([[0], [1]], np.uint8)
    np.savez(root / "pneumoniamnist.npz", **arrays)  # type: ignore[arg-type]
    return root


def test_medmnist(tmp_path: Path) -> None:
    data = open_set("pneumonia_mnist", build_medmnist(tmp_path / "copy"))
    everything = (*data.train, *data.spare, *data.validation, *data.test)
    assert np.array_equal(loaded(data, everything), as_rgb(GREY))
    assert [sample.label for sample in everything] == [0, 1] * 3


def test_medmnist_missing(tmp_path: Path) -> None:
    tmp_path.joinpath("pneumonia_mnist").mkdir()
    missing("pneumonia_mnist", tmp_path, "pneumoniamnist.npz: absent (nor train/normal); the folder is empty")
    np.savez(tmp_path / "pneumonia_mnist/pneumoniamnist.npz", train_images=GREY)
    with pytest.raises(ImageError, match=r"train_labels\.npy: there is no such file"):
        open_set("pneumonia_mnist", tmp_path)


def test_damaged_svhn_files_are_refused_and_end_no_process(tmp_path: Path) -> None:
    file, rng = tmp_path / "train_32x32.mat", np.random.default_rng(0)
    savemat(file, {"X": np.zeros((4, 4, 3, 2), np.uint8), "y": np.ones((2, 1), np.uint8)})
    whole = file.read_bytes()
    for _ in range(300):
        content = bytearray(whole)
        for at in rng.integers(0, len(whole), 8):
            content[at] = rng.integers(256)
        file.write_bytes(content)
        with suppress(InputError):
            assert read_records(file).ndim == 4
            assert svhn_digits(file).ndim == 1
