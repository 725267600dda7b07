"""Groups of dependent images: given, by folder, by file name, or near-duplicates."""

from __future__ import annotations

import re
from collections.abc import Generator, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from anomem.errors import InputError
from anomem.runtime.alike import find_alike
from anomem.runtime.sources import FileSource, ImageSource
from anomem.runtime.text import count
from anomem.types import Record

__all__ = ["Groups", "group_facts", "group_line", "resolve_groups"]

Groups: TypeAlias = Sequence[Hashable | None] | str | None
"""Group entry per image (None for a group of its own); or "near", "folder" or a regular expression."""


def resolve_groups(
    groups: Groups, source: ImageSource, *, workers: int | None = None
) -> Generator[Record, None, tuple[Hashable | None, ...] | None]:
    """Return the group of each image; yields progress.

    Parameters
    ----------
    groups : sequence, str or None
        A sequence is returned unchanged. ``"near"``: near-duplicates form a group (see
        `anomem.runtime.alike.find_alike`). ``"folder"``: images directly in one folder form a group. Any other text: a
        regular expression searched in each path; its first parenthesis, or else the whole match, names the group, and
        an image without a match is a group of its own.
    source : ImageSource
        The images.
    workers : int, optional
        Number of decoding threads.

    Raises
    ------
    InputError
        Sequence of another length, invalid expression or one without a match, or images without paths.
    """
    if groups is None:
        return None
    if not isinstance(groups, str):
        found = len(groups) if hasattr(groups, "__len__") else "no"
        if found != len(source):
            raise InputError(
                f"groups has {found} entries for {len(source)} images; give one per image, or 'near', 'folder' or a "
                "regular expression"
            )
        return tuple(groups)
    if groups == "near":
        found_groups = yield from find_alike(source, workers=workers)
        return tuple(found_groups)
    if not isinstance(source, FileSource):
        raise InputError(f"groups={groups!r}: these images have no paths; give 'near' or one entry per image")
    names = [source.name(i) for i in range(len(source))]
    if groups == "folder":
        folders = tuple(str(Path(name).parent) for name in names)
        if len(set(folders)) == 1 and len(names) > 1:
            raise InputError(f"groups='folder': all images lie in {folders[0]}; give a regular expression, or 'near'")
        return folders
    return _matched(groups, names)


def _matched(expression: str, names: Sequence[str]) -> tuple[Hashable | None, ...]:
    try:
        pattern = re.compile(expression)
    except re.error as error:
        raise InputError(
            f"groups={expression!r}: not a regular expression ({error}); an example that takes the part before the "
            r"last underscore: '([^/]+)_[^_]*$'"
        ) from error
    matches = [pattern.search(Path(name).as_posix()) for name in names]
    if not any(matches):
        raise InputError(f"groups={expression!r}: matches none of {len(names):,} paths, such as {names[0]}; change it")
    return tuple(match[1 if pattern.groups else 0] if match else None for match in matches)


def group_facts(names: Sequence[str], groups: Sequence[Hashable | None], rule: str) -> dict[str, Any]:
    """Return the facts of groups with several images for a manifest; empty without such a group.

    Parameters
    ----------
    names : sequence of str
        Name of each image.
    groups : sequence of hashable or None
        Group of each image; None for a group of its own.
    rule : str
        Origin of the groups, such as "near" or "given".

    Returns
    -------
    dict
        rule, images, in_groups, groups, largest, and as examples the first two images of the three largest groups.

    Examples
    --------
    >>> group_facts(["a", "b", "c", "d"], [1, 1, None, 2], "given")["examples"]
    [['a', 'b']]
    """
    members: dict[Hashable, list[str]] = {}
    for name, group in zip(names, groups, strict=True):
        if group is not None:
            members.setdefault(group, []).append(name)
    several = sorted((images for images in members.values() if len(images) > 1), key=len, reverse=True)
    if not several:
        return {}
    return {
        "rule": rule,
        "images": len(names),
        "in_groups": sum(map(len, several)),
        "groups": len(several),
        "largest": len(several[0]),
        "examples": [images[:2] for images in several[:3]],
    }


def group_line(facts: Mapping[str, Any]) -> str:
    """Return the facts of :func:`group_facts` as text."""
    known = (facts.get(name) for name in ("in_groups", "images", "groups", "largest"))
    numbers = [number for number in known if isinstance(number, int)]
    if len(numbers) < 4:
        return "none found"
    in_groups, images, groups, largest = numbers
    examples = facts.get("examples")
    pairs = "; ".join(" and ".join(map(str, pair)) for pair in examples) if isinstance(examples, list) else ""
    found = f"{in_groups:,} of {images:,} normal images in {count(groups, 'group')} ({facts.get('rule')})"
    return f"{found}, the largest of {largest:,}" + (f", such as {pairs}" if pairs else "")
