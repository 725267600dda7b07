"""Annotations of CVAT: "CVAT for images 1.1", XML."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

from anomem.data.regions import Annotated, Region, Runs, finite, image_size, merged
from anomem.errors import InputError, one_line

__all__ = ["read"]

_REGIONS = frozenset({"polygon", "mask", "box", "ellipse", "polyline", "points", "cuboid", "skeleton"})
_FORMAT = "export as 'CVAT for images 1.1'"


class _DeclaredError(Exception):
    """A document type: it may define entities, which expand without bound."""


class _Builder(ET.TreeBuilder):
    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise _DeclaredError


def read(export: Path) -> list[Annotated]:
    """Read the images of an export with their tags and regions.

    Raises
    ------
    InputError
        It is no such export, or damaged.
    """
    try:
        root = ET.fromstring(export.read_bytes(), parser=ET.XMLParser(target=_Builder()))
    except _DeclaredError:
        raise InputError(f"{export}: has a document type, which no export has; {_FORMAT}") from None
    except (ET.ParseError, LookupError, ValueError, OSError) as error:
        raise InputError(f"{export}: not readable as XML ({one_line(error)}); {_FORMAT}") from error
    if root.tag != "annotations":
        raise InputError(f"{export}: an XML file, but no annotations of CVAT; {_FORMAT}")
    if root.find("track") is not None:
        raise InputError(f"{export}: annotations of a video; {_FORMAT}")
    images = enumerate(root.iter("image"), start=1)
    return merged(_image(element, f"{export}, image {number}") for number, element in images)


def _image(element: ET.Element, where: str) -> Annotated:
    try:
        size = image_size(element.attrib["height"], element.attrib["width"])
        regions = tuple(_region(shape, size) for shape in element if shape.tag in _REGIONS)
        words = tuple(tag.attrib["label"] for tag in element.findall("tag"))
        return Annotated(where, element.attrib["name"], words, regions, size)
    except (KeyError, ValueError) as error:
        raise InputError(f"{where}: damaged ({one_line(error)}); {_FORMAT}") from error


def _region(shape: ET.Element, size: tuple[int, int]) -> Region:
    facts = shape.attrib
    if shape.tag == "polygon":
        corners = (corner.split(",") for corner in facts["points"].split(";") if corner.strip())
        return Region(facts["label"], tuple((finite(x) / size[1], finite(y) / size[0]) for x, y in corners))
    if shape.tag != "mask":
        return Region(facts["label"])
    left, top, width, height = (int(facts[name]) for name in ("left", "top", "width", "height"))
    lengths = tuple(int(length) for length in facts["rle"].split(","))
    inside = 0 <= left <= left + width <= size[1] and 0 <= top <= top + height <= size[0]
    if not inside or min(lengths) < 0 or sum(lengths) != width * height:
        raise ValueError("a mask beyond its image")
    return Region(facts["label"], runs=Runs(left, top, (height, width), lengths, size))
