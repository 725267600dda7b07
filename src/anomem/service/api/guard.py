"""Checks of every request before its route: rate, other sites, size; and headers of every answer."""

from __future__ import annotations

import math
import time
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from anomem.service.access.gate import SAFE

if TYPE_CHECKING:
    from anomem.service.access.rate_limit import RateLimit
    from anomem.service.metrics import Metrics

__all__ = ["Guard"]

_HEADERS = {
    "content-security-policy": "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}
_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"})


class Guard:
    """ASGI middleware.

    Parameters
    ----------
    app : ASGI application
    max_bytes : int
        Size limit of a request's body.
    rate : RateLimit
    metrics : Metrics
    """

    def __init__(self, app: ASGIApp, *, max_bytes: int, rate: RateLimit, metrics: Metrics) -> None:
        self._app, self._max_bytes, self._rate, self._metrics = app, max_bytes, rate, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check a request, pass it on, and count it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, method = time.perf_counter(), scope["method"] if scope["method"] in _METHODS else "other"
        body = _Body(receive, self._max_bytes)

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                if scope["path"].startswith("/api/"):
                    headers.setdefault("cache-control", "no-store")
                self._metrics.requests.labels(method, str(message["status"])).inc()
                self._metrics.seconds.labels(method).observe(time.perf_counter() - started)
            await send(message)

        async def answer_in_time(message: Message) -> None:
            if not body.too_large:
                await answer(message)

        refusal = self._refusal(scope)
        if refusal is None:
            with suppress(ClientDisconnect):
                await self._app(scope, body.receive, answer_in_time)
            refusal = self._too_large() if body.too_large else None
        if refusal is not None:
            await refusal(scope, receive, answer)

    def _refusal(self, scope: Scope) -> JSONResponse | None:
        headers = Headers(scope=scope)
        wait = self._rate.wait_s(scope["client"][0]) if scope["client"] else 0.0
        if wait:
            seconds = math.ceil(wait)
            said = f"request: too many from this address; wait {seconds} s, or start the station with another --rate"
            return JSONResponse({"detail": said}, 429, {"retry-after": str(seconds)})
        if scope["method"] not in SAFE and _from_elsewhere(headers):
            return JSONResponse({"detail": "request: comes from another site; use the station's own page"}, 403)
        length = headers.get("content-length", "0")
        return None if length.isdecimal() and int(length) <= self._max_bytes else self._too_large()

    def _too_large(self) -> JSONResponse:
        limit = f"request: is larger than the limit of {self._max_bytes:,} bytes; send fewer images"
        return JSONResponse({"detail": limit}, 413, {"connection": "close"})


class _Body:
    """Body of a request, cut off where it exceeds the limit; it may come without a length."""

    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive, self._left = receive, limit
        self.too_large = False

    async def receive(self) -> Message:
        message = await self._receive()
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            self.too_large = True
            return {"type": "http.disconnect"}
        return message


def _from_elsewhere(headers: Headers) -> bool:
    """Return True for a request that a browser sends for a page of another site; a token proves the intent."""
    if headers.get("authorization"):
        return False
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site not in ("same-origin", "none")
    origin = headers.get("origin")
    if origin is None:
        return False
    return urlsplit(origin).netloc not in (headers.get("host"), headers.get("x-forwarded-host"))
