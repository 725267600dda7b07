"""Metadata texts of exported files, read and replaced without ONNX or OpenVINO.

An ONNX file is a protocol-buffer message with few top-level fields; fields other than anomem's texts are copied byte by
byte. An OpenVINO IR is an XML file (with a .bin of weights beside it), with texts in ``rt_info``.
"""

from __future__ import annotations

import hashlib
import os
import xml.etree.ElementTree as ET
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from anomem.errors import ModelFileError
from anomem.runtime.atomic import atomic_path
from anomem.runtime.files import is_file
from anomem.runtime.limits import MAX_TEXT_BYTES
from anomem.runtime.seal import BLANK, SEAL, seal

__all__ = ["checksum", "has_checksum", "is_exported", "read_texts", "weights_of", "write_texts"]

_METADATA = 14
"""Field number of ``metadata_props`` in ONNX's ModelProto; each entry has a key (1) and a value (2)."""

_MESSAGE = 2
"""Wire type of texts, bytes and messages: a length, then as many bytes."""

_PIECE = 1 << 22
_ROOM = "anomem"


def is_exported(path: str | Path) -> bool:
    """Return True for the path of an exported file: .onnx, or .xml of an OpenVINO IR."""
    return Path(path).suffix.lower() in (".onnx", ".xml")


def weights_of(path: str | Path) -> Path | None:
    """Return the weights file of an OpenVINO IR; None for ONNX, which is one file."""
    place = Path(path)
    return place.with_suffix(".bin") if place.suffix.lower() == ".xml" else None


def read_texts(path: str | Path) -> dict[str, str]:
    """Read anomem's texts from an exported file.

    Parameters
    ----------
    path : str or Path
        A .onnx file, or the .xml of an OpenVINO IR.

    Returns
    -------
    dict
        Texts by key; empty if the file has none.

    Raises
    ------
    ModelFileError
        The file is missing, truncated or of another kind.
    """
    place = _existing(path)
    if place.suffix.lower() == ".xml":
        room = _tree(place).find(f"rt_info/{_ROOM}")
        return {} if room is None else {entry.tag: entry.get("value", "") for entry in room}
    with place.open("rb") as stream:
        found = (field for field in _fields(stream, place) if field.is_metadata)
        entries = (_entry(_content(stream, field, place), place) for field in found)
        return {key.removeprefix(f"{_ROOM}."): value for key, value in entries if key.startswith(f"{_ROOM}.")}


def write_texts(path: str | Path, texts: Mapping[str, str], target: str | Path | None = None) -> None:
    """Replace anomem's texts in an exported file; all other content is unchanged, in ONNX byte for byte.

    Parameters
    ----------
    path : str or Path
        As for `read_texts`.
    texts : mapping of str to str
        Texts by key; keys consist of letters, digits and underscores.
    target : str or Path, optional
        File to write instead; for an IR only the .xml.

    Raises
    ------
    ModelFileError
        As for `read_texts`.
    InputError
        The target's folder is missing or not writable.
    """
    place, texts = _existing(path), {**texts, SEAL: BLANK}
    with atomic_path(target or place) as part:
        if place.suffix.lower() == ".xml":
            _write_xml(_tree(place), texts, part)
        else:
            _write_onnx(place, texts, part)
        seal(part)


def _write_onnx(place: Path, texts: Mapping[str, str], part: Path) -> None:
    with place.open("rb") as stream, part.open("wb") as out:
        for field in list(_fields(stream, place)):
            if not (field.is_metadata and _entry(_content(stream, field, place), place)[0].startswith(f"{_ROOM}.")):
                _copy(stream, out, field.start, field.end)
        for key, value in texts.items():
            content = _text(1, f"{_ROOM}.{key}") + _text(2, value)
            out.write(_varint(_METADATA << 3 | _MESSAGE) + _varint(len(content)) + content)


def checksum(path: str | Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def has_checksum(path: str | Path, expected: str | None) -> bool:
    """Return True for a file with this checksum; older exports have size and CRC-32, ``123-0123abcd``."""
    if expected is None or "-" not in expected:
        return checksum(path) == expected
    size, value = 0, 0
    with Path(path).open("rb") as stream:
        while piece := stream.read(_PIECE):
            size, value = size + len(piece), zlib.crc32(piece, value)
    return f"{size}-{value:08x}" == expected


def _existing(path: str | Path) -> Path:
    place = Path(path)
    if not is_file(place):
        raise ModelFileError(f"{place}: no such model file")
    return place


def _tree(place: Path) -> ET.Element:
    if place.stat().st_size > MAX_TEXT_BYTES:
        raise _too_much_text(place)
    try:
        root = ET.parse(place).getroot()
    except Exception as error:  # the parser raises nearly everything on damaged files
        raise ModelFileError(f"{place}: not an OpenVINO IR, or damaged; export it again") from error
    if root.tag != "net":
        raise ModelFileError(f"{place}: an XML file, but not an OpenVINO IR")
    return root


def _write_xml(root: ET.Element, texts: Mapping[str, str], part: Path) -> None:
    facts = root.find("rt_info")
    facts = ET.SubElement(root, "rt_info") if facts is None else facts
    for old in facts.findall(_ROOM):
        facts.remove(old)
    room = ET.SubElement(facts, _ROOM)
    for key, value in texts.items():
        ET.SubElement(room, key, {"value": value})
    ET.ElementTree(root).write(part, encoding="utf-8", xml_declaration=True)


class _Field:
    """Field of a message: its number, and the positions of the field and its content in the file."""

    def __init__(self, number: int, wire: int, start: int, content: int, end: int) -> None:
        self.number, self.wire, self.start, self.content, self.end = number, wire, start, content, end

    @property
    def is_metadata(self) -> bool:
        return self.number == _METADATA and self.wire == _MESSAGE


def _fields(stream: BinaryIO, place: Path) -> Iterator[_Field]:
    """Yield the top-level fields of a message; ModelFileError for a truncated or other file."""
    size = os.fstat(stream.fileno()).st_size
    start, known = 0, 0
    while start < size:
        stream.seek(start)
        key = _read_varint(stream, place)
        number, wire = key >> 3, key & 7
        length = _read_varint(stream, place) if wire == _MESSAGE else 0
        content = stream.tell()
        if wire == 0:
            _read_varint(stream, place)
        end = stream.tell() + length + {1: 8, 5: 4}.get(wire, 0)
        if wire not in (0, 1, 2, 5) or number == 0 or end > size:
            raise _damaged(place)
        known += number in (7, 8)  # a model has a graph and operator sets
        yield _Field(number, wire, start, content, end)
        start = end
    if known < 2:
        raise _damaged(place)


def _content(stream: BinaryIO, field: _Field, place: Path) -> bytes:
    if field.end - field.content > MAX_TEXT_BYTES:
        raise _too_much_text(place)
    stream.seek(field.content)
    return stream.read(field.end - field.content)


def _entry(content: bytes, place: Path) -> tuple[str, str]:
    """Return key and value of an entry of ``metadata_props``."""
    found, at = {1: b"", 2: b""}, 0
    while at < len(content):
        key, at = _varint_at(content, at, place)
        length, at = _varint_at(content, at, place)
        if key & 7 != _MESSAGE or at + length > len(content):
            raise _damaged(place)
        found[key >> 3] = content[at : at + length]
        at += length
    try:
        return found[1].decode(), found[2].decode()
    except UnicodeDecodeError as error:
        raise _damaged(place) from error


def _read_varint(stream: BinaryIO, place: Path) -> int:
    value = shift = 0
    while True:
        byte = stream.read(1)
        if not byte or shift > 63:
            raise _damaged(place)
        value |= (byte[0] & 127) << shift
        if byte[0] < 128:
            return value
        shift += 7


def _varint_at(content: bytes, at: int, place: Path) -> tuple[int, int]:
    value = shift = 0
    while at < len(content) and shift <= 63:
        byte = content[at]
        value, at, shift = value | (byte & 127) << shift, at + 1, shift + 7
        if byte < 128:
            return value, at
    raise _damaged(place)


def _varint(value: int) -> bytes:
    parts = bytearray()
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    parts.append(value)
    return bytes(parts)


def _text(number: int, text: str) -> bytes:
    content = text.encode()
    return _varint(number << 3 | _MESSAGE) + _varint(len(content)) + content


def _copy(stream: BinaryIO, out: BinaryIO, start: int, end: int) -> None:
    stream.seek(start)
    while start < end:
        piece = stream.read(min(_PIECE, end - start))
        out.write(piece)
        start += len(piece)


def _too_much_text(place: Path) -> ModelFileError:
    return ModelFileError(f"{place}: damaged: more text than the limit of {MAX_TEXT_BYTES >> 20} MiB; export it again")


def _damaged(place: Path) -> ModelFileError:
    return ModelFileError(f"{place}: not an ONNX model, or damaged; export it again")
