"""Open inference protocol: what KServe and Triton clients send."""

from __future__ import annotations

import base64
import json
import struct

import numpy as np
import pytest
from PIL import Image

from tests.service.conftest import Shop
from tests.service.served import Served

INFER = "/v2/models/brick/infer"


def outputs(answer: dict[str, object]) -> dict[str, list[float]]:
    return {output["name"]: output["data"] for output in answer["outputs"]}  # type: ignore[attr-defined]


def test_every_form_of_input_gives_the_same_scores(brick: Served, shop: Shop) -> None:
    files = [shop.good[0], shop.defects[0]]
    expected = [answer["score"] for answer in brick.inspect(*files)]
    contents = [file.read_bytes() for file in files]
    texts = [base64.b64encode(content).decode() for content in contents]
    tensor = {"name": "image", "shape": [2], "datatype": "BYTES"}
    by_json = brick.client.post(INFER, json={"inputs": [{**tensor, "data": texts}]})
    assert by_json.status_code == 200, by_json.text
    binary = b"".join(struct.pack("<I", len(content)) + content for content in contents)
    head = json.dumps({"id": "7", "inputs": [{**tensor, "parameters": {"binary_data_size": len(binary)}}]}).encode()
    headers = {"inference-header-content-length": str(len(head))}
    by_binary = brick.client.post(INFER, content=head + binary, headers=headers)
    pixels = np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])
    plain = {"name": "image", "shape": list(pixels.shape), "datatype": "UINT8", "data": pixels.ravel().tolist()}
    by_pixels = brick.client.post(INFER, json={"inputs": [plain]})
    for answer in (by_json, by_binary, by_pixels):
        assert outputs(answer.json())["score"] == pytest.approx(expected, rel=1e-6)
    assert (by_binary.json()["model_name"], by_binary.json()["id"]) == ("brick", "7")
    assert len(brick.get("/models/1/inspections", source="v2")["items"]) == 6


def test_health_and_metadata(still: Served) -> None:
    for path in ("/v2/health/live", "/v2/health/ready", "/v2", "/v2/models/brick/ready"):
        assert still.client.get(path).status_code == 200
    assert still.client.get("/v2/models/brick").json()["inputs"][0]["datatype"] == "BYTES"
    assert still.client.get("/v2/models/none").status_code == 404
    assert still.client.get("/v2/models/brick/versions/1/ready").json() == {"name": "brick", "ready": True}
    assert still.client.get("/v2/models/brick/versions/7/ready").status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[1]",
        b'{"inputs": []}',
        b'{"inputs": [{"name": "x", "shape": [1], "datatype": "BYTES", "data": ["%%"]}]}',
        b'{"inputs": [{"name": "x", "shape": [1], "datatype": "BYTES", "data": [7]}]}',
        b'{"inputs": [{"name": "x", "shape": [2], "datatype": "BYTES", "data": ["AA=="]}]}',
        b'{"inputs": [{"name": "x", "shape": [1, 2, 2, 3], "datatype": "UINT8", "data": [1]}]}',
        b'{"inputs": [{"name": "x", "shape": [1, 1, 1, 3], "datatype": "UINT8", "data": [1, 2, 999]}]}',
        b'{"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1.0]}]}',
        b"[" * 100_000,
    ],
)
def test_other_bodies_are_refused(still: Served, body: bytes) -> None:
    answer = still.client.post(INFER, content=body)
    assert 400 <= answer.status_code < 500
    assert "\n" not in answer.json()["detail"]
