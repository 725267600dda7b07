"""Open inference protocol, version 2, as KServe and Triton clients speak it."""

from __future__ import annotations

import asyncio
import base64
import binascii
import io
import json
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sqlalchemy import select

from anomem.errors import InputError
from anomem.runtime.neutral import printable
from anomem.service.api.deps import Operator, StationOf, Viewer
from anomem.service.api.text import Line
from anomem.service.errors import MissingError, TooLargeError
from anomem.service.scoring.batcher import Batcher
from anomem.service.scoring.parts import Part
from anomem.service.station import Station
from anomem.service.store.tables import Inspection, Model
from anomem.version import __version__

__all__ = ["router"]

router = APIRouter(prefix="/v2", tags=["open inference protocol"])

_BINARY = "inference-header-content-length"


class TensorIn(BaseModel):
    """Input tensor: BYTES (N,) of image files (base64 in JSON), or UINT8 (N, H, W, 3) of RGB pixels."""

    model_config = ConfigDict(extra="ignore")

    name: str = Field(max_length=200)
    shape: list[int] = Field(max_length=8)
    datatype: str = Field(max_length=20)
    parameters: dict[str, Any] = Field(default_factory=dict)
    data: list[Any] | None = None


class InferIn(BaseModel):
    """Request of one input tensor."""

    model_config = ConfigDict(extra="ignore")

    id: str | None = Field(default=None, max_length=200)
    inputs: list[TensorIn] = Field(min_length=1, max_length=1)


@router.get("")
def server(_: Viewer) -> dict[str, Any]:
    """Return name and version of the server."""
    return {"name": "anomem", "version": __version__, "extensions": ["binary_tensor_data"]}


@router.get("/health/live")
def live() -> dict[str, bool]:
    """Answer while the process runs."""
    return {"live": True}


@router.get("/health/ready")
def ready() -> dict[str, bool]:
    """Answer once requests are served."""
    return {"ready": True}


@router.get("/models/{name}")
@router.get("/models/{name}/versions/{version}", include_in_schema=False)
def metadata(name: Line, request: Request, _: Viewer, station: StationOf) -> dict[str, Any]:
    """Return inputs and outputs of a model."""
    version = _served(station, name, request).served.version_id
    return {
        "name": name,
        "versions": [str(version)],
        "platform": "anomem",
        "inputs": [{"name": "image", "datatype": "BYTES", "shape": [-1]}],
        "outputs": [
            {"name": "score", "datatype": "FP64", "shape": [-1]},
            {"name": "p_value", "datatype": "FP64", "shape": [-1]},
            {"name": "anomalous", "datatype": "BOOL", "shape": [-1]},
            {"name": "inspection", "datatype": "INT64", "shape": [-1]},
        ],
    }


@router.get("/models/{name}/ready")
@router.get("/models/{name}/versions/{version}/ready", include_in_schema=False)
def model_ready(name: Line, request: Request, _: Viewer, station: StationOf) -> dict[str, Any]:
    """Answer if a model has a current version."""
    _served(station, name, request)
    return {"name": name, "ready": True}


@router.post("/models/{name}/infer")
@router.post("/models/{name}/versions/{version}/infer", include_in_schema=False)
async def infer(name: Line, request: Request, _: Operator, station: StationOf) -> JSONResponse:
    """Score images and record them, like inspections."""
    batcher = await run_in_threadpool(_served, station, name, request)
    wanted, rest = _parsed(await request.body(), request.headers.get(_BINARY))
    contents = await run_in_threadpool(_images, wanted.inputs[0], rest, station.settings.max_request_images)
    batcher.check_room(len(contents))
    parts = []
    for i, content in enumerate(contents):
        stored = await run_in_threadpool(station.images.put, content, f"image {i}")
        parts.append(Part(stored, station.images.path(stored.sha256), printable(wanted.id or f"image {i}"), "v2"))
    batcher.submit(parts)
    rows = await asyncio.gather(*(asyncio.wrap_future(part.done) for part in parts))
    version = str(rows[0].version_id)
    answer = {"model_name": name, "model_version": version, "id": wanted.id or "", "outputs": _outputs(rows)}
    return JSONResponse(answer)


def _served(station: Station, name: str, request: Request) -> Batcher:
    """Return the batcher of a model; a version in the path must be the one that scores."""
    with station.database.reading() as session:
        found = session.scalar(select(Model.id).where(Model.name == name))
    if found is None:
        raise MissingError(f"model {name[:120]}: does not exist; see the list of models")
    batcher = station.serving.batcher(found)
    version = request.path_params.get("version", str(batcher.served.version_id))
    if version != str(batcher.served.version_id):
        raise MissingError(f"model {name}: version {version[:40]} does not score now; leave the version out")
    return batcher


def _parsed(body: bytes, header: str | None) -> tuple[InferIn, bytes]:
    """Split a body into its JSON and the binary data after it."""
    if header is not None and not header.isdecimal():
        raise InputError(f"{_BINARY}: is not a number; send the length of the JSON part")
    length = len(body) if header is None else int(header)
    try:
        return InferIn.model_validate(json.loads(body[:length])), body[length:]
    except (ValueError, RecursionError, ValidationError) as error:
        raise InputError("infer: the body is not a request of the open inference protocol; see its inputs") from error


def _images(tensor: TensorIn, rest: bytes, most: int) -> list[bytes]:
    """Return the images of a tensor as image files."""
    if not tensor.shape or not 1 <= tensor.shape[0] <= most:
        raise TooLargeError(f"infer: shape {tensor.shape[:4]}; send 1 to {most} images")
    if tensor.datatype == "BYTES":
        found = _from_json(tensor.data) if tensor.data is not None else _from_binary(rest)
        if len(found) != tensor.shape[0]:
            raise InputError(f"infer: {len(found)} images for a shape of {tensor.shape[0]}; send one per entry")
        return found
    if tensor.datatype != "UINT8" or len(tensor.shape) != 4 or tensor.shape[3] != 3 or min(tensor.shape) < 1:
        raise InputError("infer: the input must be BYTES (N,) of image files, or UINT8 (N, H, W, 3)")
    try:
        flat = np.frombuffer(rest, np.uint8) if tensor.data is None else np.asarray(tensor.data, np.uint8)
        pixels = flat.reshape(tensor.shape)
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError("infer: data do not fit the shape; send N x H x W x 3 values from 0 to 255") from error
    return [_png(image) for image in pixels]


def _from_json(data: Sequence[Any]) -> list[bytes]:
    try:
        return [base64.b64decode(text, validate=True) for text in data]
    except (binascii.Error, ValueError, TypeError) as error:
        raise InputError("infer: BYTES in JSON must be base64; encode each image file") from error


def _from_binary(rest: bytes) -> list[bytes]:
    """Split binary BYTES: before each entry its length, 4 bytes, little-endian."""
    found, place = [], 0
    while place < len(rest):
        if place + 4 > len(rest):
            raise InputError("infer: binary data end within a length; send 4 bytes and an image file per entry")
        (length,) = struct.unpack_from("<I", rest, place)
        found.append(rest[place + 4 : place + 4 + length])
        place += 4 + length
    return found


def _png(pixels: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG", compress_level=1)
    return stream.getvalue()


def _outputs(rows: Sequence[Inspection]) -> list[dict[str, Any]]:
    unreadable = next((row.error for row in rows if row.error is not None), None)
    if unreadable is not None:
        raise InputError(unreadable)
    n = [len(rows)]
    return [
        {"name": "score", "datatype": "FP64", "shape": n, "data": [row.score for row in rows]},
        {"name": "p_value", "datatype": "FP64", "shape": n, "data": [row.p_value for row in rows]},
        {"name": "anomalous", "datatype": "BOOL", "shape": n, "data": [row.anomalous for row in rows]},
        {"name": "inspection", "datatype": "INT64", "shape": n, "data": [row.id for row in rows]},
    ]
