"""Users, API tokens and the audit."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field
from sqlalchemy import select

from anomem.service.access import users
from anomem.service.api.deps import Engineer, Id, QueryId, StationOf
from anomem.service.api.schemas import AuditOut, Name, Password, _In, _Out
from anomem.service.api.text import Line
from anomem.service.errors import MissingError
from anomem.service.store.audit import record
from anomem.service.store.tables import Audit, Token, User, now

__all__ = ["router"]

router = APIRouter(prefix="/api/v1", tags=["access"])


class UserIn(_In):
    """New user."""

    name: Name
    role: users.Role
    password: Password


class UserChange(_In):
    """Changed role, state or password; open sessions of the user end."""

    role: users.Role | None = None
    active: bool | None = None
    password: Password | None = None


class UserOut(_Out):
    """User."""

    id: int
    name: str
    role: str
    active: bool
    created: datetime


class TokenIn(_In):
    """New API token; `days` None: without end."""

    name: Name
    role: users.Role
    days: Annotated[int, Field(ge=1, le=3650)] | None = 365


class TokenOut(_Out):
    """API token."""

    id: int
    name: str
    role: str
    author: str
    created: datetime
    expires: datetime | None
    revoked: datetime | None


class NewToken(TokenOut):
    """API token with its text, which is shown this once."""

    token: str


@router.get("/users", response_model=list[UserOut])
def list_users(_: Engineer, station: StationOf) -> Sequence[User]:
    """List all users."""
    with station.database.reading() as session:
        return session.scalars(select(User).order_by(User.name)).all()


@router.post("/users", response_model=UserOut, status_code=201)
def add_user(body: UserIn, caller: Engineer, station: StationOf) -> User:
    """Add a user. The first one must be an engineer: from then on all callers need credentials."""
    with station.database.writing() as session:
        users.check_first(session, body.role)
        return users.add_user(session, body.name, body.role, body.password, caller.name)


@router.patch("/users/{name}", response_model=UserOut)
def change_user(name: Line, body: UserChange, caller: Engineer, station: StationOf) -> User:
    """Change role, state or password of a user."""
    with station.database.writing() as session:
        if body.password is not None:
            users.reset_password(session, name, body.password, caller.name)
        return users.change_user(session, name, caller.name, role=body.role, active=body.active)


@router.get("/tokens", response_model=list[TokenOut])
def list_tokens(_: Engineer, station: StationOf) -> Sequence[Token]:
    """List all API tokens, without their texts."""
    with station.database.reading() as session:
        return session.scalars(select(Token).order_by(Token.id)).all()


@router.post("/tokens", status_code=201)
def add_token(body: TokenIn, caller: Engineer, station: StationOf) -> NewToken:
    """Add an API token."""
    with station.database.writing() as session:
        token, text = users.add_token(session, body.name, body.role, body.days, caller.name)
    return NewToken(token=text, **TokenOut.model_validate(token).model_dump())


@router.delete("/tokens/{token_id}", status_code=204)
def revoke_token(token_id: Id, caller: Engineer, station: StationOf) -> None:
    """Revoke an API token."""
    with station.database.writing() as session:
        token = session.get(Token, token_id)
        if token is None:
            raise MissingError(f"token {token_id}: does not exist; see the list of tokens")
        token.revoked = token.revoked or now()
        record(session, caller.name, "token.revoke", f"token {token_id}")


@router.get("/audit", response_model=list[AuditOut])
def audit(
    _: Engineer,
    station: StationOf,
    before: QueryId = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> Sequence[Audit]:
    """List the audit, newest first, `before` an entry's id."""
    query = select(Audit).order_by(Audit.id.desc()).limit(limit)
    with station.database.reading() as session:
        return session.scalars(query if before is None else query.where(Audit.id < before)).all()
