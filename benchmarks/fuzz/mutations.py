"""Mutations of valid content: bytes, chunks of a PNG, tags of a TIFF, words of a text, values of a JSON tree."""

from __future__ import annotations

import json
import re
import struct
import zlib
from copy import deepcopy
from random import Random
from typing import Any

__all__ = ["bytes_of", "png_of", "text_of", "tiff_of", "tree_of"]

_NUMBERS = (0, 1, 2, 7, 8, 127, 128, 255, 256, 32767, 32768, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1)
_WORDS = (
    *(
        "",
        "-1",
        "0",
        "1",
        "nan",
        "NaN",
        "inf",
        "-inf",
        "1e308",
        "1e-320",
        "9" * 400,
        "0x10",
        "1_000",
        "٣",
        "true",
        "None",
    ),
    *("'", '"', "\\", "/", "..", "/dev/zero", "/dev/stdin", "\0", "\ud800", "\ufeff", "\u202e", "\x1b[31m", "=1+1"),
    *("[", "]", "{", "}", "(", ")", "<", ">", ",", ";", "\t", "\r", "\n", "\r\n", "&x;", "<!--", "]]>", "a" * 5000),
    *(
        "[" * 3000,
        "good",
        "bad",
        "normal",
        "path",
        "label",
        "train",
        "test",
        "é",
        "日本",
        "🧪",
        "%00",
        "file:///",
        "://",
        "?d=",
    ),
)
_VALUES: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        2**31,
        2**63,
        2**64,
        -(2**63),
        10**400,
        0.5,
        1e308,
        1e-320,
        float("nan"),
        float("inf"),
    ),
    *("", "x", "float32", "nan", "../..", "\0", "a" * 5000, [], {}, [[]], [None], {"": None}, [0] * 5000),
)


def bytes_of(content: bytes, rng: Random, other: bytes = b"") -> bytes:
    """Damage some places of a content; `other` is spliced in now and then."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 8, 32))):
        if not data:
            break
        at = rng.randrange(min(len(data), rng.choice((64, 1024, len(data)))) or 1)
        _damage(data, at, rng, other)
    return bytes(data)


def _damage(data: bytearray, at: int, rng: Random, other: bytes) -> None:
    size = rng.choice((1, 2, 4, 16, 256))
    match rng.randrange(8):
        case 0:
            data[at] ^= 1 << rng.randrange(8)
        case 1:
            data[at] = rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))
        case 2:
            del data[at : at + size]
        case 3:
            data[at:at] = data[at : at + size] * rng.choice((1, 2, 40))
        case 4:
            data[at:at] = rng.randbytes(size)
        case 5:
            start = rng.randrange(len(other)) if other else 0
            data[at : at + size] = other[start : start + rng.choice((size, len(other)))]
        case 6:
            del data[at:]
        case 7:
            form = rng.choice(("<H", ">H", "<I", ">I"))
            number = rng.choice(_NUMBERS) % (1 << 8 * struct.calcsize(form))
            data[at : at + struct.calcsize(form)] = struct.pack(form, number)


def text_of(text: str, rng: Random) -> bytes:
    """Replace, repeat, swap or remove words and marks of a text; now and then another encoding."""
    tokens = re.findall(r"\w+|\s+|[^\w\s]", text)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        at = rng.randrange(len(tokens) or 1)
        match rng.randrange(5):
            case 0 | 1:
                tokens[at : at + 1] = [rng.choice(_WORDS)]
            case 2:
                tokens[at:at] = tokens[at : at + rng.randrange(40)] * rng.choice((1, 3))
            case 3:
                del tokens[at : at + rng.choice((1, 1, 8))]
            case 4:
                tokens[at : at + 1] = [str(rng.choice(_NUMBERS) * rng.choice((1, -1)))]
    encoding = rng.choice(("utf-8",) * 8 + ("utf-16", "utf-8-sig", "latin-1", "utf-32"))
    content = "".join(tokens).encode(encoding, "surrogatepass" if encoding.startswith("utf") else "replace")
    return bytes_of(content, rng) if rng.random() < 0.2 else content


def tree_of(tree: Any, rng: Random) -> Any:
    """Change some values, keys or lengths of a JSON tree."""
    copy = json.loads(json.dumps(tree))
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        places = list(_places(copy))
        if not places:
            break
        owner, key = rng.choice(places)
        match rng.randrange(6):
            case 0 | 1 | 2:
                owner[key] = deepcopy(rng.choice(_VALUES))
            case 3:
                del owner[key]
            case 4:
                owner[key] = [owner[key]] * rng.choice((1, 2, 100))
            case 5:
                other, place = rng.choice(places)
                owner[key] = json.loads(json.dumps(other[place])) if _has(other, place) else None
    return copy


def _has(owner: Any, key: Any) -> bool:
    return key in owner if isinstance(owner, dict) else key < len(owner)


def _places(tree: Any) -> Any:
    """Yield each value of a tree as its container and key."""
    keys = list(tree) if isinstance(tree, dict) else list(range(len(tree))) if isinstance(tree, list) else []
    for key in keys:
        yield tree, key
        yield from _places(tree[key])


def png_of(content: bytes, rng: Random) -> bytes:
    """Change the chunks of a PNG and give each its checksum again."""
    chunks, at = [], 8
    while at + 8 <= len(content):
        size = int.from_bytes(content[at : at + 4], "big")
        chunks.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + size]))
        at += 12 + size
    i = rng.randrange(len(chunks))
    kind, body = chunks[i]
    match rng.randrange(5):
        case 0:
            chunks.insert(rng.randrange(len(chunks)), (kind, bytes_of(body, rng)))
        case 1:
            del chunks[i]
        case 2 if kind == b"IDAT":
            chunks[i] = (kind, zlib.compress(bytes_of(zlib.decompress(body), rng)))
        case 3:
            named = rng.choice(
                (b"tRNS", b"PLTE", b"gAMA", b"eXIf", b"iCCP", b"acTL", b"fcTL", b"sBIT", b"IEND", b"tEXt")
            )
            chunks.insert(1, (named, rng.randbytes(rng.choice((0, 1, 3, 6, 26, 300)))))
        case _:
            chunks[i] = (kind, bytes_of(body, rng))
    parts = (struct.pack(">I", len(b)) + k + b + struct.pack(">I", zlib.crc32(k + b)) for k, b in chunks)
    return content[:8] + b"".join(parts)


def tiff_of(content: bytes, rng: Random) -> bytes:
    """Change entries of the first directory of a little-endian TIFF."""
    data = bytearray(content)
    start = int.from_bytes(data[4:8], "little")
    count = int.from_bytes(data[start : start + 2], "little")
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = start + 2 + 12 * rng.randrange(count or 1)
        tag, kind, length, value = struct.unpack_from("<HHII", data, at)
        match rng.randrange(4):
            case 0:
                value = rng.choice((*_NUMBERS, value + 1, value * 2 % 2**32, start))
            case 1:
                length = rng.choice((*_NUMBERS, length + 1))
            case 2:
                kind = rng.randrange(20)
            case 3:
                tag = rng.choice(
                    (254, 258, 259, 262, 266, 273, 274, 277, 279, 284, 317, 320, 322, 324, 330, 338, 339, 347)
                )
        struct.pack_into("<HHII", data, at, tag, kind, length % 2**32, value % 2**32)
    return bytes(data)
