"""Folders on this machine that requests may name."""

from __future__ import annotations

from pathlib import Path

from anomem.errors import InputError

__all__ = ["check_folder_allowed"]


def check_folder_allowed(folder: Path, allowed: tuple[Path, ...]) -> Path:
    """Return the real path of a folder on this machine that a request names.

    Raises
    ------
    InputError
        It is not below a folder allowed by ``--folders``, or does not exist.
    """
    place = folder.resolve()
    if not any(place.is_relative_to(root.resolve()) for root in allowed):
        raise InputError(f"{folder}: is not below a folder allowed by --folders; start the station with it")
    if not place.is_dir():
        raise InputError(f"{folder}: is not a folder; check the path")
    return place
