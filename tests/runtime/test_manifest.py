"""Manifest: round trip, and one-line errors for invalid ones."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anomem.errors import ModelFileError
from anomem.runtime.manifest import FORMAT_VERSION, Manifest
from anomem.runtime.preprocess import Preprocessing


def facts(**changes: Any) -> dict[str, Any]:
    return {
        "method": "anomem",
        "version": "0.1.0",
        "params": {"size": 224, "preset": "surface", "layers": [1, 2], "beta": None},
        "resolved": {"size": 224},
        "architecture": {"dims": [40, 112], "backbone": "lite0"},
        "preprocessing": Preprocessing(224, tile=512).to_dict(),
        "calibration": {"alpha": 0.01, "n": 120, "precision": "float32"},
        "counts": {"n_train": 400, "n_tune": 80, "n_calibration": 120, "n_labelled": 0},
        "precision": "float32",
        "map_scale": {"low": 0.1, "high": 2.5},
        "facts": {"note": "größer als 0"},
    } | changes


def document(**changes: Any) -> str:
    return json.dumps(json.loads(Manifest(**facts()).to_json()) | changes)


def test_round_trip() -> None:
    manifest = Manifest(**facts())
    text = manifest.to_json()
    assert Manifest.from_json(text) == manifest
    assert Manifest.from_json(text).to_json() == text
    assert json.loads(text)["format"] == "anomem"
    assert json.loads(text)["format_version"] == 1
    assert "\n" not in text


def test_round_trip_without_maps() -> None:
    manifest = Manifest(**facts(map_scale=None))
    assert Manifest.from_json(manifest.to_json()).map_scale is None


@given(alpha=st.floats(1e-9, 1, exclude_max=True), low=st.floats(-1e30, 1e30))
def test_numbers_survive_to_the_last_bit(alpha: float, low: float) -> None:
    calibration = {"alpha": alpha, "n": 3, "precision": "bfloat16"}
    manifest = Manifest(**facts(calibration=calibration, map_scale={"low": low, "high": low}))
    assert Manifest.from_json(manifest.to_json()) == manifest


def test_numpy_scalars_and_tuples_become_json() -> None:
    written = Manifest(**facts(facts={"a": np.float32(0.5), "b": (np.int64(3), np.bool_(True))}))
    assert Manifest.from_json(written.to_json()).facts == {"a": 0.5, "b": [3, True]}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1: 2}, {1, 2}, np.zeros(2)])
def test_what_json_cannot_hold_is_not_written(value: object) -> None:
    with pytest.raises(ModelFileError, match="cannot be written"):
        Manifest(**facts(facts={"value": value})).to_json()


def refusal(text: str) -> str:
    with pytest.raises(ModelFileError, match="^m.safetensors: ") as caught:
        Manifest.from_json(text, name="m.safetensors")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "\x80\x04pickle",
        '{"format": "anomem", "format": "anomem"}',
        document().replace("0.01", "NaN"),
        document().replace("2.5", "Infinity"),
        document().replace("2.5", "1e999"),
        document() + "x",
        "[" * 100_000,
        "9" * 10_000,
    ],
)
def test_text_that_is_no_strict_json(text: str) -> None:
    assert "not a readable manifest" in refusal(text)


@pytest.mark.parametrize("text", ["[]", "3", "null", '"anomem"', "{}", '{"format": "other"}'])
def test_json_that_is_something_else(text: str) -> None:
    assert "not an anomem model" in refusal(text)


def test_a_newer_format_asks_for_an_update() -> None:
    # Whatever else a newer version holds, the version is what the reader hears about.
    text = document(format_version=FORMAT_VERSION + 1, colour="red", counts=None)
    assert refusal(text) == (
        f"m.safetensors: written by a newer anomem (file format {FORMAT_VERSION + 1}, this one reads {FORMAT_VERSION});"
        " update with pip install -U anomem"
    )


@pytest.mark.parametrize("version", [0, -1, None, "1", 1.0, True, [1]])
def test_a_version_that_is_none(version: object) -> None:
    assert "no valid format version" in refusal(document(format_version=version))


def test_unknown_and_missing_keys() -> None:
    assert "unknown key 'colour'" in refusal(document(colour="red"))
    assert "unknown key 'format_colour'" in refusal(document(format_colour="red"))
    for key in facts():
        content = json.loads(document())
        del content[key]
        assert f"missing key '{key}'" in refusal(json.dumps(content))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"method": ""}, "method must be text"),
        ({"version": 3}, "version must be text"),
        ({"precision": None}, "precision must be text"),
        ({"params": []}, "params must be an object"),
        ({"facts": None}, "facts must be an object"),
        ({"calibration": None}, "calibration must have exactly"),
        ({"calibration": {"alpha": 0.1, "n": 3}}, "calibration must have exactly"),
        ({"calibration": {"alpha": 1, "n": 3, "precision": "x"}}, "calibration.alpha"),
        ({"calibration": {"alpha": True, "n": 3, "precision": "x"}}, "calibration.alpha"),
        ({"calibration": {"alpha": 0.1, "n": 0, "precision": "x"}}, "calibration.n"),
        ({"calibration": {"alpha": 0.1, "n": 3.0, "precision": "x"}}, "calibration.n"),
        ({"calibration": {"alpha": 0.1, "n": 3, "precision": 32}}, "calibration.precision"),
        ({"counts": {"n_train": 1}}, "counts must have exactly"),
        ({"counts": facts()["counts"] | {"n_tune": -1}}, "counts.n_tune"),
        ({"counts": facts()["counts"] | {"n_tune": True}}, "counts.n_tune"),
        ({"counts": facts()["counts"] | {"n_more": 1}}, "counts must have exactly"),
        ({"map_scale": {"low": 0}}, "map_scale must have exactly"),
        ({"map_scale": {"low": 2, "high": 1}}, "map_scale must rise"),
        ({"map_scale": {"low": "0", "high": 1}}, "map_scale must rise"),
    ],
)
def test_values_of_another_kind(changes: dict[str, Any], words: str) -> None:
    assert words in refusal(document(**changes))
    with pytest.raises(ModelFileError, match=words):
        Manifest(**facts(**changes))
