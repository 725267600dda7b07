"""MQTT receiver, with the extra ``mqtt``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from urllib.parse import unquote, urlsplit

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

__all__ = ["Mqtt"]

_TIMEOUT_S = 10.0


class Mqtt:
    """Publisher with quality of service 1: each result is acknowledged by the broker.

    Parameters
    ----------
    url : str
        ``mqtt://[USER:PASSWORD@]HOST[:PORT]/TOPIC``; mqtts for TLS.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._secure = parts.hostname or "", parts.scheme == "mqtts"
        self._port = parts.port or (8883 if self._secure else 1883)
        self._topic = unquote(parts.path.strip("/")) or "anomem"
        self._user = None if parts.username is None else (unquote(parts.username), unquote(parts.password or ""))
        self._client: mqtt.Client | None = None

    def send(self, payload: Mapping[str, object]) -> None:
        """Publish a result, and wait for the broker's acknowledgement."""
        try:
            message = self._open().publish(self._topic, json.dumps(payload), qos=1)
            message.wait_for_publish(_TIMEOUT_S)
            received = message.is_published()
        except (OSError, RuntimeError, ValueError) as error:
            self.close()
            raise OSError(str(error)) from error
        if not received:
            self.close()
            raise OSError("the broker has not acknowledged")

    def close(self) -> None:
        """End the connection; the next result opens another."""
        if self._client is not None:
            self._client.disconnect()
            self._client.loop_stop()
        self._client = None

    def _open(self) -> mqtt.Client:
        if self._client is None:
            client = mqtt.Client(CallbackAPIVersion.VERSION2)
            if self._user is not None:
                client.username_pw_set(*self._user)
            if self._secure:
                client.tls_set()
            client.connect(self._host, self._port)
            client.loop_start()
            self._client = client
        return self._client
