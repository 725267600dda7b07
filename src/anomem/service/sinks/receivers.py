"""Receivers of results: webhook, folder, mqtt."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from anomem.errors import InputError, MissingExtraError
from anomem.runtime.atomic import atomic_path
from anomem.runtime.dependencies import installed
from anomem.service.allowed import check_folder_allowed

__all__ = ["KINDS", "Receiver", "checked_target", "open_receiver"]

KINDS = ("webhook", "folder", "mqtt")

_TIMEOUT_S = 10.0


class Receiver(Protocol):
    """Place that results are sent to."""

    def send(self, payload: Mapping[str, object]) -> None:
        """Deliver one result; raises OSError or http.client.HTTPException if it is not received."""

    def close(self) -> None:
        """End the connection."""


def checked_target(kind: str, target: str, folders: tuple[Path, ...]) -> str:
    """Return the target of a new sink.

    Raises
    ------
    InputError
        Unknown kind, no URL of its kind, or a folder that is not allowed.
    MissingExtraError
        mqtt without paho.
    """
    if kind == "folder":
        return str(check_folder_allowed(Path(target), folders))
    schemes = {"webhook": ("http", "https"), "mqtt": ("mqtt", "mqtts")}.get(kind)
    if schemes is None:
        raise InputError(f"sink: kind {kind!r} is unknown; choose {', '.join(KINDS)}")
    try:
        parts = urlsplit(target)
        usable = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or any(ord(character) < 33 for character in target):
        raise InputError(f"sink: {kind} needs a URL, for example {schemes[-1]}://host/path")
    if kind == "mqtt" and not installed("paho"):
        raise MissingExtraError("paho-mqtt", "mqtt")
    return target


def open_receiver(kind: str, target: str, options: Mapping[str, Any]) -> Receiver:
    """Return the receiver of a sink; the first `send` connects."""
    if kind == "webhook":
        return Webhook(target, {str(k): str(v) for k, v in options.get("headers", {}).items()})
    if kind == "folder":
        return Folder(Path(target))
    from anomem.service.sinks.mqtt import Mqtt

    return Mqtt(target)


class Webhook:
    """HTTP POST of each result as JSON; redirects are not followed.

    Parameters
    ----------
    url : str
    headers : mapping
        Further headers, such as Authorization.
    """

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        parts = urlsplit(url)
        self._secure, self._host, self._port = parts.scheme == "https", parts.hostname or "", parts.port
        self._path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._headers = {"Content-Type": "application/json", "User-Agent": "anomem", **headers}
        self._connection: http.client.HTTPConnection | None = None

    def send(self, payload: Mapping[str, object]) -> None:
        """Post a result; any answer from 200 to 299 counts as received."""
        body = json.dumps(payload).encode()
        headers = {**self._headers, "Idempotency-Key": f"inspection-{payload['id']}"}
        try:
            connection = self._open()
            connection.request("POST", self._path, body, headers)
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException):
            self.close()
            raise
        if not 200 <= answer.status < 300:
            raise http.client.HTTPException(f"answered {answer.status}")

    def close(self) -> None:
        """Close the connection; the next result opens another."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def _open(self) -> http.client.HTTPConnection:
        if self._connection is None:
            if self._secure:
                context = ssl.create_default_context()
                connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                    self._host, self._port, timeout=_TIMEOUT_S, context=context
                )
            else:
                connection = http.client.HTTPConnection(self._host, self._port, timeout=_TIMEOUT_S)
            self._connection = connection
        return self._connection


class Folder:
    """One JSON file per result, named by its inspection: a repeated delivery replaces the same file.

    Parameters
    ----------
    root : Path
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def send(self, payload: Mapping[str, object]) -> None:
        """Write a result atomically."""
        try:
            with atomic_path(self._root / f"{payload['id']:012d}.json") as part:
                part.write_text(json.dumps(payload) + "\n", encoding="utf-8")
        except InputError as error:
            raise OSError(str(error)) from error

    def close(self) -> None:
        """Do nothing: no file stays open."""
