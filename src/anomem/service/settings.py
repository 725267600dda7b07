"""Settings of a running station."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["LOOPBACK", "Settings"]

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
"""Hosts that only this machine reaches."""


@dataclass(frozen=True)
class Settings:
    """Settings given on the command line, and limits.

    Parameters
    ----------
    host, port : str, int
        Address to serve on.
    db : str or None
        URL of the database; None for a SQLite file in the station's folder.
    token : str or None
        Token of an engineer, beside the users and tokens in the database.
    certificate, key : Path or None
        Files for TLS.
    folders : tuple of Path
        Folders on this machine that requests may name, and all below them.
    max_image_bytes, max_pixels : int
        Size limits of an image.
    max_request_images, max_request_bytes : int
        Size limits of a request.
    rate : float
        Requests per second and address; further ones are refused with 429. 0: no limit.
    queue : int
        Images that wait per model; further ones are refused with 429.
    batch : int
        Images per batch.
    """

    host: str = "127.0.0.1"
    port: int = 8765
    db: str | None = None
    token: str | None = None
    certificate: Path | None = None
    key: Path | None = None
    folders: tuple[Path, ...] = ()
    max_image_bytes: int = 64 << 20
    max_pixels: int = 120_000_000
    max_request_images: int = 128
    max_request_bytes: int = 512 << 20
    rate: float = 200.0
    queue: int = 512
    batch: int = 16

    @property
    def secure(self) -> bool:
        """True if the station itself serves TLS."""
        return self.certificate is not None
