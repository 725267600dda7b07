"""Events of a station for open pages: results, labels, jobs, promotions."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Mapping

__all__ = ["Events"]

_WAITING = 256
_ALIVE_S = 15.0


class Events:
    """Broker from any thread to subscribers in event loops; a slow subscriber loses its oldest events."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # `close` is called in a signal handler
        self._subscribers: dict[asyncio.Queue[str | None], asyncio.AbstractEventLoop] = {}
        self._closed = False

    def publish(self, kind: str, facts: Mapping[str, object]) -> None:
        """Send an event to all subscribers."""
        text = f"event: {kind}\ndata: {json.dumps(facts, allow_nan=False, default=str)}\n\n"
        self._send(text)

    def close(self) -> None:
        """End all streams."""
        self._closed = True
        self._send(None)

    async def stream(self) -> AsyncIterator[str]:
        """Yield events as lines of `text/event-stream`, with a comment when there is none for a while."""
        queue: asyncio.Queue[str | None] = asyncio.Queue(_WAITING)
        with self._lock:
            self._subscribers[queue] = asyncio.get_running_loop()
        try:
            yield ": connected\n\n"
            while not self._closed:
                try:
                    text = await asyncio.wait_for(queue.get(), _ALIVE_S)
                except TimeoutError:
                    text = ": alive\n\n"
                if text is None:
                    return
                yield text
        finally:
            with self._lock:
                self._subscribers.pop(queue, None)

    def _send(self, text: str | None) -> None:
        with self._lock:
            waiting = list(self._subscribers.items())
        for queue, loop in waiting:
            try:
                loop.call_soon_threadsafe(_put, queue, text)
            except RuntimeError:  # its loop has ended
                with self._lock:
                    self._subscribers.pop(queue, None)


def _put(queue: asyncio.Queue[str | None], text: str | None) -> None:
    if queue.full():
        queue.get_nowait()
    queue.put_nowait(text)
