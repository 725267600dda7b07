"""Groups of dependent images and strata: given, by folder, by file name, or near-duplicates."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from anomem.errors import InputError, one_line
from anomem.runtime.alike import find_alike
from anomem.runtime.calibration import Calibration
from anomem.runtime.expressions import MOST_REPEATS, endless
from anomem.runtime.sources import FileSource, ImageSource
from anomem.runtime.strata import COLUMN
from anomem.runtime.text import count
from anomem.types import Record

__all__ = ["Groups", "fresh_strata", "group_facts", "group_line", "image_strata", "resolve_groups", "resolve_strata"]

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
        Sequence of another length, invalid or endless expression or one without a match, or images without paths.
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
    if groups == "folder":
        folders = tuple(str(Path(name).parent) for name in _paths(source, groups, "groups"))
        if len(set(folders)) == 1 and len(folders) > 1:
            raise InputError(f"groups='folder': all images lie in {folders[0]}; give a regular expression, or 'near'")
        return folders
    return _matched(groups, source, "groups")


def resolve_strata(strata: Groups, source: ImageSource) -> tuple[str, ...]:
    """Return the stratum of each image.

    Parameters
    ----------
    strata : sequence or str
        One entry per image; or "folder" for the name of the image's folder; or a regular expression searched in each
        path, whose first parenthesis, or else whole match, is the name.
    source : ImageSource
        The images.

    Raises
    ------
    InputError
        Sequence of another length, an image without a stratum, an invalid or endless expression, or images without
        paths.
    """
    names = [source.name(i) for i in range(len(source))]
    if isinstance(strata, str):
        # The folder's own name, since new images lie elsewhere than those of the fit.
        expression = r"([^/]+?)(?:\.zip)?/[^/]*$" if strata == "folder" else strata
        return _required(_matched(expression, source, "strata", strata), names)
    found = len(strata) if strata is not None and hasattr(strata, "__len__") else "no"
    if strata is None or found != len(source):
        raise InputError(
            f"strata has {found} entries for {len(source)} images; give one per image, or 'folder' or a regular "
            "expression"
        )
    return _required(strata, names)


def image_strata(calibration: Calibration, strata: Groups, source: ImageSource) -> tuple[str | None, ...]:
    """Return the stratum whose calibration judges each image; None without strata in the calibration.

    Parameters
    ----------
    calibration : Calibration
    strata : sequence or str, optional
        As for `resolve_strata`; by default the rule of the calibration.
    source : ImageSource
        The images.

    Raises
    ------
    InputError
        An image of a stratum without calibration normals; or strata that the calibration does not have.
    """
    if calibration.strata is None:
        if strata is not None:
            raise InputError("strata: the model has one calibration for all images; calibrate with strata first")
        return (None,) * len(source)
    names = resolve_strata(_rule(calibration.strata.by) if strata is None else strata, source)
    for name in dict.fromkeys(names):
        try:
            calibration.of(name)
        except InputError as error:
            raise InputError(f"{source.name(names.index(name))}: {error}") from error
    return names


def fresh_strata(
    calibration: Calibration, strata: Groups, source: ImageSource, rule: Groups
) -> tuple[tuple[str, ...] | None, str]:
    """Return the strata of fresh normals, and the rule that names them; by default those of the calibration.

    Raises
    ------
    InputError
        By the calibration's own rule, a stratum without fresh normals.
    """
    if strata is not None:
        former = COLUMN if calibration.strata is None else calibration.strata.by
        return resolve_strata(strata, source), rule if isinstance(rule, str) else former
    if calibration.strata is None:
        return None, ""
    names = resolve_strata(_rule(calibration.strata.by), source)
    missing = sorted(set(calibration.parts) - set(names))
    if missing:
        raise InputError(f"stratum {missing[0]!r}: no fresh normals of it; give normals of all strata")
    return names, calibration.strata.by


def _rule(by: str) -> str:
    if by in ("", COLUMN):
        raise InputError("strata are required: each has a threshold of its own; name one per image")
    return by


def _matched(expression: str, source: ImageSource, what: str, rule: str | None = None) -> tuple[str | None, ...]:
    """Return per image the first parenthesis, or else the match, of an expression in its path; None without one."""
    try:
        pattern = re.compile(expression)
    except re.error as error:
        raise InputError(
            f"{what}={expression!r}: not a regular expression ({error}); an example that takes the part before the "
            r"last underscore: '([^/]+)_[^_]*$'"
        ) from error
    if endless(expression):
        raise InputError(
            f"{what}={one_line(expression, 80)!r}: could take for ever: a repeat or choice inside a repeat, or more "
            f"than {MOST_REPEATS} repeats; write it with fewer of * + ? {{ |"
        )
    names = _paths(source, rule or expression, what)
    matches = [pattern.search(Path(name).as_posix()) for name in names]
    if not any(match and match[0] for match in matches):  # An empty match would make one group of all.
        raise InputError(f"{what}={expression!r}: matches none of {len(names):,} paths, such as {names[0]}; change it")
    return tuple(match[1 if pattern.groups else 0] if match else None for match in matches)


def _paths(source: ImageSource, rule: str, what: str) -> list[str]:
    if not isinstance(source, FileSource):
        fix = "'near' or one entry per image" if what == "groups" else "one entry per image"
        raise InputError(f"{what}={rule!r}: these images have no paths; give {fix}")
    return [source.name(i) for i in range(len(source))]


def _required(strata: Sequence[Hashable | None], names: Iterable[str]) -> tuple[str, ...]:
    """Return the stratum of each image as text; InputError for an image without one."""
    missing = [name for name, stratum in zip(names, strata, strict=True) if stratum in (None, "")]
    if missing:
        raise InputError(
            f"{missing[0]}: has no stratum, as {len(missing):,} of {len(strata):,} images; name one per image"
        )
    return tuple(map(str, strata))


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


def group_line(facts: Mapping[str, Any], shorten: Callable[[str], str] = str) -> str:
    """Return the facts of :func:`group_facts` as text; `shorten` is applied to names of images."""
    known = (facts.get(name) for name in ("in_groups", "images", "groups", "largest"))
    numbers = [number for number in known if isinstance(number, int)]
    if len(numbers) < 4:
        return "none found"
    in_groups, images, groups, largest = numbers
    examples = facts.get("examples")
    known_pairs = examples if isinstance(examples, list) else []
    pairs = "; ".join(" and ".join(shorten(str(name)) for name in pair) for pair in known_pairs)
    found = f"{in_groups:,} of {images:,} normal images in {count(groups, 'group')} ({facts.get('rule')})"
    return f"{found}, the largest of {largest:,}" + (f", such as {pairs}" if pairs else "")
