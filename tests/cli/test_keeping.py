"""Kept results: earlier labels, and a fit on a full disk; the precision of a fit."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from safetensors import SafetensorError

import anomem as library
from anomem import modelfile
from tests.cli.process import KNN, Run, Shop, defects, files, write_labels


def test_replaced_labels_are_noted_and_added_ones_kept(shop: Shop, here: Run, tmp_path: Path) -> None:
    monday = write_labels(tmp_path / "monday.csv", [(path, 1) for path in defects(shop)[:3]], shop)
    tuesday = write_labels(tmp_path / "tuesday.csv", [(path, 1) for path in defects(shop)[3:]], shop)
    code, _, err = here("label", shop.anomem, "--labels", monday, "--out", "m", "--json")
    assert (code, "earlier" in err) == (0, False)
    code, out, err = here("label", "m", "--labels", tuesday, "--out", "m2", "--json")
    assert (code, json.loads(out)["n_labelled"]) == (0, 2)
    assert "the 3 earlier labels of m will be replaced; --add keeps them" in err
    code, out, err = here("label", "m", "--labels", tuesday, "--add", "--out", "m", "--json")
    assert (code, json.loads(out)["n_labelled"], "earlier" in err) == (0, 5, False)


def test_fit_precision_reaches_the_fit(shop: Shop, here: Run, tmp_path: Path) -> None:
    scores = {}
    for precision in ("fp32", "bf16"):
        arguments = ["fit", shop.data, *KNN, "--alpha", 0.1, "--fit-precision", precision, "--out", precision]
        assert here(*arguments)[0] == 0
        scores[precision] = library.load(tmp_path / precision).calibration_.scores
    assert not np.array_equal(scores["fp32"], scores["bf16"])


def test_a_fit_that_cannot_be_written_is_kept(
    shop: Shop, here: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuge = tmp_path / "refuge"
    refuge.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(refuge))
    full = modelfile.save_file

    def fill(tensors: object, place: str, **options: object) -> None:
        if str(refuge) not in place:
            raise SafetensorError("I/O error: No space left on device (os error 28)")
        full(tensors, place, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(modelfile, "save_file", fill)
    code, _, err = here("fit", shop.data, *KNN, "--alpha", 0.1, "--out", "m")
    (kept,) = refuge.rglob("m")
    assert code == 2
    assert "m: cannot be written (I/O error: No space left on device" in err
    assert f"the fitted model is kept in {kept}; move it" in err
    assert library.load(kept).counts_["n_train"] > 0
    assert files(tmp_path) == {"refuge", f"refuge/{kept.parent.name}", f"refuge/{kept.parent.name}/m"}
