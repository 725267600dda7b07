"""Files at fsspec URLs (``s3://bucket/key``, ``gs://``, ``https://``, ``memory://``)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from anomem.errors import ImageError, InputError, one_line

__all__ = ["fetch", "is_url", "list_url", "open_url", "read_url"]


def is_url(place: str) -> bool:
    r"""Return True for a URL.

    Examples
    --------
    >>> is_url("s3://parts/2026"), is_url("parts/2026"), is_url("C:\\parts")
    (True, False, False)
    """
    return "://" in place


def list_url(url: str) -> list[str]:
    """List the files at a URL, sorted: the file itself, or all below a folder.

    Raises
    ------
    InputError
        Nothing there, an unknown protocol, or no access.
    """
    with _named(url):
        system, path = _system(url)
        if system.isfile(path):
            return [url]
        found = sorted(str(name) for name in system.find(path))
    if not found:
        raise InputError(f"{url}: no files there; check the address")
    return [str(system.unstrip_protocol(name)) for name in found]


@contextmanager
def open_url(url: str) -> Iterator[IO[bytes]]:
    """Open a file at a URL for reading, with random access; InputError if that fails."""
    with _named(url):
        system, path = _system(url)
        with system.open(path, "rb") as stream:
            yield stream


def read_url(url: str, max_bytes: int) -> bytes:
    """Read a file at a URL; ImageError if it is missing or larger than `max_bytes`."""
    try:
        system, path = _system(url)
        with system.open(path, "rb") as stream:
            content = bytes(stream.read(max_bytes + 1))
    except Exception as error:  # each file system has exceptions of its own
        raise ImageError(url, f"cannot be read ({one_line(error, 200)}); check the address") from error
    if len(content) > max_bytes:
        raise ImageError(url, f"is larger than the limit of {max_bytes:,} bytes; leave it out")
    return content


def fetch(url: str, place: Path) -> None:
    """Copy a file at a URL to the disk; InputError if that fails."""
    with _named(url):
        system, path = _system(url)
        system.get_file(path, str(place))


def _system(url: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs

    system, path = url_to_fs(url)
    return system, str(path)


@contextmanager
def _named(url: str) -> Iterator[None]:
    """Raise every error with the URL."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # each file system has exceptions of its own
        raise InputError(f"{url}: cannot be read ({one_line(error, 200)}); check the address") from error
