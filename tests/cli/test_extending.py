"""More normals later: fit --keep-store, then fit --extend."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import anomem as library
from anomem.data.samples import Sample
from anomem.detectors import get
from anomem.errors import InputError
from anomem.modelfile import read_manifest
from tests.cli.process import KNN, Run, Shop, files, goods

METHODS = ("knn", "padim", *(pytest.param(name, marks=pytest.mark.slow) for name in ("kmeans", "iforest", "ocsvm")))

pytestmark = pytest.mark.filterwarnings("ignore::anomem.errors.AnomemWarning")


def parts(shop: Shop, tmp_path: Path) -> tuple[list[Path], list[Path]]:
    """Copy the normals into two folders, old (20) and new (10 others and one of the old)."""
    normals = sorted((shop.data / "train" / "good").iterdir())
    for name, chosen in (("old", normals[:20]), ("new", [*normals[20:], normals[3]])):
        (tmp_path / name).mkdir()
        for path in chosen:
            shutil.copy(path, tmp_path / name / path.name)
    return sorted((tmp_path / "old").iterdir()), sorted((tmp_path / "new").iterdir())


@pytest.mark.parametrize("method", METHODS)
def test_extended_equals_a_fit_on_all(shop: Shop, tmp_path: Path, method: str) -> None:
    old, new = parts(shop, tmp_path)
    fresh = [path for path in new if path.name not in {other.name for other in old}]
    detector = get(method)(**get(method).test_params)
    detector.fit(old).save(tmp_path / "m", keep_store=True)
    extended = library.load(tmp_path / "m").fit(new, extend=tmp_path / "m")
    whole = detector.fit([*old, *fresh])
    assert extended.digests_by_role_ == whole.digests_by_role_
    assert extended.calibration_ == whole.calibration_
    test = goods(shop)
    np.testing.assert_array_equal(extended.anomaly_score(test), whole.anomaly_score(test))
    assert extended.calibration_ != library.load(tmp_path / "m").calibration_


def test_groups_are_kept(shop: Shop, tmp_path: Path) -> None:
    old, new = parts(shop, tmp_path)
    samples = [Sample(path, 0, group=f"=lot {i // 2}") for i, path in enumerate(old)]
    more = [Sample(path, 0, group=f"=lot {i // 2 + 9}") for i, path in enumerate(new[1:])]
    get("knn")(size=64).fit(samples).save(tmp_path / "m", keep_store=True)
    extended = get("knn")(size=64).fit(more, extend=tmp_path / "m")
    whole = get("knn")(size=64).fit([*samples, *more])
    assert extended.calibration_ == whole.calibration_
    assert extended.calibration_.groups.tolist() == whole.calibration_.groups.tolist()


def test_commands_extend(shop: Shop, here: Run, tmp_path: Path) -> None:
    parts(shop, tmp_path)
    code, _, err = here("fit", "old", "--out", "m", *KNN, "--keep-store")
    assert code == 0, err
    code, out, err = here("fit", "new", "--extend", "m", "--out", "m2", "--keep-store")
    assert code == 0, err
    assert "m: its normals (m.store.csv) are learnt together with these, all anew" in out
    model = library.load("m2")
    assert model.name == "knn"
    assert model.resolved_["size"] == 64
    # Twenty and eleven, one of them in both.
    assert len(model.digests_) == 30
    assert len(Path("m2.store.csv").read_text().splitlines()) == 31
    code, out, err = here("fit", "new", "--extend", "m2", "--out", "m3", "--json")
    assert code == 0, err
    assert sum(json.loads(out)[key] for key in ("n_train", "n_tune", "n_calibration")) == 30


def test_settings_of_the_call_are_kept_unless_given_anew(shop: Shop, here: Run, tmp_path: Path) -> None:
    parts(shop, tmp_path)
    call = ("--alpha", "0.3", "--group-by", "([^/]*)[.]png", "--max-pixels", "5000000", "--fit-precision", "fp32")
    assert here("fit", "old", "--out", "m", *KNN, *call, "--bits", "12", "--keep-store")[0] == 0
    code, out, err = here("fit", "new", "--extend", "m", "--out", "m2", "--keep-store")
    assert code == 0, err
    assert "as m was fitted, unless given anew: alpha 0.3, fit_precision float32, max_pixels 5000000, groups (" in out
    for name in ("m", "m2"):
        manifest = read_manifest(name)
        assert manifest.calibration["alpha"] == 0.3
        assert manifest.resolved["bits"] == 12
        assert manifest.facts["call"] == {"groups": call[3], "fit_precision": "float32", "max_pixels": 5_000_000}
    code, out, err = here("fit", "new", "--extend", "m2", "--out", "m3", "--alpha", "0.4", "--max-pixels", "1000")
    assert code == 2
    assert "are more than the limit of 1000" in err
    assert here("fit", "new", "--extend", "m2", "--out", "m3", "--alpha", "0.4")[0] == 0
    assert read_manifest("m3").calibration["alpha"] == 0.4


def test_what_cannot_be_extended_is_refused(shop: Shop, here: Run, tmp_path: Path) -> None:
    old, new = parts(shop, tmp_path)
    assert here("fit", "old", "--out", "m", *KNN, "--keep-store")[0] == 0
    assert here("fit", "new", "--out", "other", *KNN)[0] == 0
    (tmp_path / "other.store.csv").write_bytes((tmp_path / "m.store.csv").read_bytes())
    shutil.copy("m", "bare")
    shutil.copy("m", "odd")
    (tmp_path / "odd.store.csv").write_text("path,digest\nx,y\n")
    shutil.copy("m", "deep")
    (tmp_path / "deep.store.csv").write_text(f"path,digest,group\nx,5,{'[' * 9000}\n")
    before = files(tmp_path)

    def refused(*arguments: str) -> str:
        code, _, err = here("fit", "new", "--out", "m2", *arguments)
        assert code == 2
        assert files(tmp_path) == before
        return err

    assert "bare.store.csv: no such store" in refused("--extend", "bare")
    assert "other.store.csv: the store of another model than other" in refused("--extend", "other")
    for name in ("odd", "deep"):
        assert f"{name}.store.csv: no store of normals, or damaged" in refused("--extend", name)
    assert "--set: --extend fits as m was fitted" in refused("--extend", "m", "--set", "size=32")
    assert "--method: --extend fits as m was fitted" in refused("--extend", "m", "--method", "knn")
    content = old[2].read_bytes()
    shutil.copy(new[5], old[2])
    before = files(tmp_path)
    assert f"{old[2]}: has changed since the earlier fit" in refused("--extend", "m")
    old[2].unlink()
    before = files(tmp_path)
    assert f"{old[2]}: there is no such file" in refused("--extend", "m")
    old[2].write_bytes(content)
    assert here("fit", "new", "--out", "m2", "--extend", "m")[0] == 0


def test_a_store_cannot_replace_a_table_that_is_read(shop: Shop, here: Run, tmp_path: Path) -> None:
    rows = "\n".join(map(str, sorted((shop.data / "train" / "good").iterdir())))
    table = tmp_path / "m.store.csv"
    table.write_text(f"path\n{rows}\n")
    code, _, err = here("fit", table, "--out", "m", *KNN, "--keep-store")
    assert code == 2
    assert "m.store.csv: is read by this command" in err
    assert table.read_text() == f"path\n{rows}\n"


def test_arrays_have_no_store(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 255, (9, 64, 64, 3), np.uint8)
    model = get("knn")(size=64).fit(images)
    with pytest.raises(InputError, match=r"m\.store\.csv: the image files of the fit are not known"):
        model.save(tmp_path / "m", keep_store=True)
