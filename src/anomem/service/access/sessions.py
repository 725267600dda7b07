"""Sessions of the page: a signed cookie and a token against requests from other sites."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from itsdangerous import BadData, URLSafeTimedSerializer

__all__ = ["COOKIE", "CSRF_HEADER", "SESSION_S", "SessionClaims", "Sessions"]

COOKIE = "anomem_session"
CSRF_HEADER = "x-csrf-token"
SESSION_S = 12 * 3600
"""Lifetime of a session, seconds."""


@dataclass(frozen=True)
class SessionClaims:
    """Content of a session cookie.

    Parameters
    ----------
    user_id, epoch : int
        User, and the epoch at login: a later epoch of the user ends the session.
    csrf : str
        Token that unsafe requests repeat in a header.
    """

    user_id: int
    epoch: int
    csrf: str


class Sessions:
    """Signer of session cookies.

    Parameters
    ----------
    secret : bytes
        The station's key.
    """

    def __init__(self, secret: bytes) -> None:
        self._serializer = URLSafeTimedSerializer(secret, salt="session")

    def issue(self, user_id: int, epoch: int) -> tuple[str, SessionClaims]:
        """Return a new cookie value and its claims."""
        claims = SessionClaims(user_id, epoch, secrets.token_urlsafe(24))
        return str(self._serializer.dumps([claims.user_id, claims.epoch, claims.csrf])), claims

    def read(self, cookie: str) -> SessionClaims | None:
        """Return the claims of a cookie; None if it is forged, damaged or expired."""
        try:
            user_id, epoch, csrf = self._serializer.loads(cookie, max_age=SESSION_S)
        except (BadData, ValueError, TypeError):
            return None
        return SessionClaims(int(user_id), int(epoch), str(csrf))
