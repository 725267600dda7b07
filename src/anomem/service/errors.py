"""Errors of the station, each with its HTTP status."""

from __future__ import annotations

from anomem.errors import AnomemError

__all__ = [
    "BusyError",
    "ConflictError",
    "DeniedError",
    "MissingError",
    "ServiceError",
    "StoreAwayError",
    "TooLargeError",
    "UnauthorisedError",
]


class ServiceError(AnomemError):
    """Request that cannot be served; `status` is its HTTP status, `retry_after` the seconds to wait."""

    status = 400
    retry_after: int | None = None

    def __init__(self, text: str, retry_after: int | None = None) -> None:
        super().__init__(text)
        if retry_after is not None:
            self.retry_after = retry_after


class UnauthorisedError(ServiceError):
    """Request without valid credentials."""

    status = 401


class DeniedError(ServiceError):
    """Request beyond the caller's role, or from another site."""

    status = 403


class MissingError(ServiceError):
    """Subject that does not exist."""

    status = 404


class ConflictError(ServiceError):
    """Request that the present state does not allow."""

    status = 409


class TooLargeError(ServiceError):
    """Upload above a limit."""

    status = 413


class BusyError(ServiceError):
    """Full queue, or too many tries."""

    status = 429
    retry_after = 1


class StoreAwayError(ServiceError):
    """Database or disk that cannot be written."""

    status = 503
    retry_after = 2
