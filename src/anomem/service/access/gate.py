"""Gate: the caller of a request, by token, session or as the only user of this machine."""

from __future__ import annotations

import hmac
from collections.abc import Mapping

from sqlalchemy.orm import Session

from anomem.service.access.sessions import COOKIE, CSRF_HEADER, Sessions
from anomem.service.access.users import Caller, any_user, checked_role, given_caller, token_caller
from anomem.service.errors import DeniedError, UnauthorisedError
from anomem.service.settings import LOOPBACK, Settings
from anomem.service.store.database import Database
from anomem.service.store.tables import User

__all__ = ["Gate", "host_name"]

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing."""

_FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip")
_LOG_IN = "station: log in, or send a token as Authorization: Bearer TOKEN"


class Gate:
    """Check of credentials.

    Parameters
    ----------
    database : Database
    sessions : Sessions
    settings : Settings
    """

    def __init__(self, database: Database, sessions: Sessions, settings: Settings) -> None:
        self._database, self._sessions, self._settings = database, sessions, settings

    def caller(self, method: str, headers: Mapping[str, str], cookies: Mapping[str, str]) -> Caller:
        """Return the caller of a request.

        Raises
        ------
        UnauthorisedError
            No credentials, or none that are valid.
        DeniedError
            A session without its token against requests from other sites.
        """
        known = self.known(headers)
        if known is not None:
            return known
        with self._database.reading() as session:
            bearer = _bearer(headers)
            if bearer is not None:
                found = token_caller(session, bearer)
            elif COOKIE in cookies:
                found = self._by_session(session, cookies[COOKIE], method, headers)
            else:
                found = self._alone(session, headers)
        if found is None:
            raise UnauthorisedError(_LOG_IN)
        return found

    def known(self, headers: Mapping[str, str]) -> Caller | None:
        """Return the caller with the token of the command line, without the database; None for others."""
        bearer = _bearer(headers)
        return None if bearer is None else given_caller(bearer, self._settings.token)

    def is_open(self, session: Session) -> bool:
        """Return True for a station without users and token, which serves this machine only."""
        return self._settings.host in LOOPBACK and self._settings.token is None and not any_user(session)

    def _by_session(self, session: Session, cookie: str, method: str, headers: Mapping[str, str]) -> Caller | None:
        claims = self._sessions.read(cookie)
        user = None if claims is None else session.get(User, claims.user_id)
        if claims is None or user is None or not user.active or user.epoch != claims.epoch:
            return None
        if method not in SAFE and not hmac.compare_digest(headers.get(CSRF_HEADER, "").encode(), claims.csrf.encode()):
            raise DeniedError(f"session: the header {CSRF_HEADER} is missing or wrong; reload the page")
        return Caller(user.name, checked_role(user.role), claims.csrf)

    def _alone(self, session: Session, headers: Mapping[str, str]) -> Caller | None:
        direct = host_name(headers.get("host", "")) in LOOPBACK and not any(name in headers for name in _FORWARDED)
        return Caller("local", "engineer") if direct and self.is_open(session) else None


def host_name(host: str) -> str:
    """Return the name in a Host header, without the port.

    Examples
    --------
    >>> host_name("localhost:8765"), host_name("[::1]:8765")
    ('localhost', '::1')
    """
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower()


def _bearer(headers: Mapping[str, str]) -> str | None:
    kind, _, text = headers.get("authorization", "").partition(" ")
    return text.strip() if kind.lower() == "bearer" else None
