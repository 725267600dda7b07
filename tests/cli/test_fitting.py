"""fit, label and calibrate: results, files, and every error."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import pytest
from PIL import Image

import anomem as library
from tests.cli.process import (
    FIT_KEYS,
    KNN,
    TINY,
    Ran,
    Run,
    Shop,
    defects,
    files,
    goods,
    without_notes,
    write_labels,
)

# --- fit --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["knn", "anomem"])
def test_fit_says_what_the_file_holds(shop: Shop, name: str) -> None:
    facts = shop.fitted[name]
    assert set(facts) >= FIT_KEYS
    model = library.load(getattr(shop, name))
    assert facts["model"] == f"{name}.safetensors"
    assert facts["method"] == name == model.name
    assert facts["alpha"] == 0.1 == model.calibration_.alpha
    assert facts["threshold"] == pytest.approx(model.calibration_.threshold, rel=1e-12)
    assert facts["rate_limit_95"] == pytest.approx(model.calibration_.rate_limit_95)
    assert facts["n_train"] + facts["n_tune"] + facts["n_calibration"] == 30
    assert facts["n_labelled"] == 0
    assert 0 < facts["seconds"] < 300
    assert facts["peak_mb"] > 50
    assert files(shop.knn.parent) & {"knn.safetensors", "anomem.safetensors"} == {
        "knn.safetensors",
        "anomem.safetensors",
    }


def test_fit_talks_to_people(shop: Shop, here: Run) -> None:
    code, out, err = here("fit", shop.data, "--out", "m", *KNN)
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == f"{shop.data} (mvtec layout): train 30 normal; test 5 normal + 5 anomalous of 5 types; 5 masks"
    assert lines[1:4] == [
        "train: 30 normal in train/good",
        "test: 5 normal in test/good",
        "test: 5 anomalous in 5 folders below test",
    ]
    assert lines[4].startswith("knn: learnt from ")
    assert "threshold" in out
    assert "95 % confidence" in out
    assert lines[-1] == "written to m; next: anomem score m IMAGES --heatmaps heatmaps"
    (line,) = err.splitlines()
    assert line.startswith("anomem: note: 10 calibration normals allow")
    assert files(Path()) == {"m"}


def test_same_seed_same_model_other_seed_other_split(shop: Shop, here: Run) -> None:
    thresholds = []
    for seed in (1, 1, 2):
        code, out, _ = here("fit", shop.data, "--out", "m", *KNN, "--seed", seed, "--alpha", 0.1, "--json")
        assert code == 0
        thresholds.append(json.loads(out)["threshold"])
    assert thresholds[0] == thresholds[1] != thresholds[2]


def test_options_become_hyperparameters(shop: Shop, here: Run) -> None:
    code, _, err = here("fit", shop.data, "--out", "m", *KNN, "--precision", "bf16", "--seed", 7, "--set", "k=1")
    assert code == 0, err
    model = library.load("m")
    assert (model.precision, model.seed, model.size) == ("bfloat16", 7, 64)
    assert model.get_params()["k"] == 1
    assert model.calibration_.precision == "bfloat16"


def test_fit_takes_class_folders(here: Run, class_folder: Path) -> None:
    code, _, err = here("fit", class_folder, "--out", "m", *KNN)
    assert code == 2
    assert "plain" in err
    assert "spotted" in err
    code, out, _ = here("fit", class_folder, "--normal", "plain", "--out", "m", *KNN, "--json")
    assert code == 0
    facts = json.loads(out)
    assert facts["n_train"] + facts["n_tune"] + facts["n_calibration"] == 12


def test_labels_for_a_method_without_use_for_them_are_a_note(shop: Shop, here: Run, tmp_path: Path) -> None:
    labels = write_labels(tmp_path / "l.csv", [(path, 1) for path in defects(shop)], shop)
    code, out, err = here("fit", shop.data, "--labels", labels, "--out", "m", *KNN, "--alpha", 0.1, "--json")
    assert code == 0
    assert "knn: learns from normal images only" in err
    facts = json.loads(out)
    assert facts["n_labelled"] == 0
    assert facts["threshold"] == shop.fitted["knn"]["threshold"]


def test_a_table_labels_its_own_images(shop: Shop, here: Run, tmp_path: Path) -> None:
    train = sorted((shop.data / "train" / "good").iterdir())
    rows = [(path, 0) for path in train] + [(path, 1) for path in defects(shop)]
    table = write_labels(tmp_path / "t.csv", rows, shop)
    code, out, err = here("fit", table, "--out", "m", *TINY, "--json")
    assert code == 0, err
    facts = json.loads(out)
    assert facts["n_labelled"] == 5
    assert facts["n_train"] + facts["n_tune"] + facts["n_calibration"] == 30


def test_labels_of_fit_train_and_never_calibrate(shop: Shop, here: Run, tmp_path: Path) -> None:
    rows = [(path, 1) for path in defects(shop)] + [(path, 0) for path in goods(shop)]
    labels = write_labels(tmp_path / "l.csv", rows, shop)
    code, out, err = here("fit", shop.data, "--labels", labels, "--out", "m", *TINY, "--alpha", 0.1, "--json")
    assert code == 0, err
    facts = json.loads(out)
    assert facts["n_labelled"] == 10
    assert facts["n_train"] + facts["n_tune"] + facts["n_calibration"] == 30
    assert facts["n_calibration"] == shop.fitted["anomem"]["n_calibration"]


def test_a_label_overrules_the_data(shop: Shop, here: Run, tmp_path: Path) -> None:
    spoilt = sorted((shop.data / "train" / "good").iterdir())[3]
    labels = write_labels(tmp_path / "l.csv", [(spoilt, 1)], shop, masks=False)
    code, out, err = here("fit", shop.data, "--labels", labels, "--out", "m", *TINY, "--json")
    assert code == 0, err
    facts = json.loads(out)
    assert facts["n_labelled"] == 1
    assert facts["n_train"] + facts["n_tune"] + facts["n_calibration"] == 29


# --- what fit refuses --------------------------------------------------------------------------


def test_errors_come_before_the_work_and_leave_nothing(here: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("a")
    before = files(tmp_path)
    cases = {
        ("fit", "no", "--out", "m"): "no: no such file or folder",
        ("fit", "empty", "--out", "m"): "empty: 0 images, found nothing",
        ("fit", "texts", "--out", "m"): "1 .txt",
        ("fit", "texts/a.txt", "--out", "m"): "give a folder of images",
        ("fit", "empty", "--out", "no/m"): "does not exist; create it first",
        ("fit", "empty", "--out", "texts"): "texts: is a folder; name the model inside it",
    }
    for arguments, expected in cases.items():
        ran = Ran(*here(*arguments))
        assert ran.code == 2, arguments
        assert expected in ran.error, arguments
        assert ran.out == ""
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--set", "sise=64"], "did you mean size?"),
        (["--set", "size"], "expected key=value"),
        (["--set", "size=8"], "size=8 is not allowed; expected an integer >= 16"),
        (["--set", "size=big"], "size='big' is not allowed"),
        (["--method", "knnn"], "did you mean knn?"),
        (["--alpha", "0.01"], "more"),
        (["--device", "cuda:99"], "device='cuda:99' is not available"),
        (["--labels", "no.csv"], "no.csv: no such table"),
        (["--normal", "bad"], "bad"),
    ],
)
def test_fit_names_what_is_wrong(shop: Shop, here: Run, options: list[str], expected: str) -> None:
    code, _, err = here("fit", shop.data, "--out", "m", *KNN, *options, "--json")
    assert code == 2
    (line,) = without_notes(err)
    assert line.startswith("anomem: error: ")
    assert expected in line
    assert files(Path()) == set()


def spoilt_folder(shop: Shop, place: Path) -> Path:
    """The training images, and beside them a text called .png, half an image and an empty file."""
    shutil.copytree(shop.data / "train" / "good", place)
    whole = (place / "000.png").read_bytes()
    (place / "text.png").write_text("not an image")
    (place / "half.png").write_bytes(whole[: len(whole) // 2])
    (place / "empty.png").touch()
    return place


def test_bad_images_are_named_or_left_out(shop: Shop, here: Run, tmp_path: Path) -> None:
    folder = spoilt_folder(shop, tmp_path / "parts")
    code, out, err = here("fit", folder, "--out", "m", *KNN, "--json")
    assert code == 2
    assert out == ""
    assert any(f"{folder / name}.png: " in err for name in ("text", "half", "empty"))
    assert "--skip-bad leaves such images out" in err
    assert not Path("m").exists()

    code, out, err = here("fit", folder, "--out", "m", *KNN, "--skip-bad", "--alpha", 0.1, "--json")
    assert code == 0, err
    facts = json.loads(out)
    assert facts["n_train"] + facts["n_tune"] + facts["n_calibration"] == 30
    assert sorted(Path(image["path"]).name for image in facts["skipped"]) == [
        "empty.png",
        "half.png",
        "text.png",
    ]
    for name in ("text", "half", "empty"):
        assert f"{folder / name}.png: " in err


class Attack:
    """Unpickled, it would write a file."""

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (Path.touch, (Path("ran"),))


@pytest.mark.parametrize("command", ["score", "evaluate", "label", "calibrate", "doctor"])
def test_a_pickle_is_refused_and_not_run(shop: Shop, here: Run, tmp_path: Path, command: str) -> None:
    (tmp_path / "evil.pt").write_bytes(pickle.dumps(Attack()))
    labels = write_labels(tmp_path / "l.csv", [(path, 1) for path in defects(shop)], shop)
    rest = {
        "score": [shop.data / "test"],
        "evaluate": [shop.data],
        "label": ["--labels", labels, "--out", "m"],
        "calibrate": [shop.data / "test" / "good", "--alpha", 0.3],
        "doctor": [],
    }
    code, out, err = here(command, "evil.pt", *rest[command])
    assert code == (1 if command == "doctor" else 2)
    assert "evil.pt: is a pickle, which could run code" in out + err
    assert not (tmp_path / "ran").exists()


def test_other_files_are_no_models(shop: Shop, here: Run, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "empty").touch()
    (tmp_path / "half").write_bytes(shop.knn.read_bytes()[:-100])
    for name in ("a.png", "empty", "half", "."):
        code, _, err = here("score", name, shop.data / "test")
        assert code == 2, name
        (line,) = without_notes(err)
        assert line.startswith(f"anomem: error: {name}: ")
