"""Users and tokens in the store."""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from anomem.errors import InputError
from anomem.service.access.passwords import check_password, draw_token, hash_password, token_hash
from anomem.service.errors import ConflictError, MissingError
from anomem.service.store.audit import record
from anomem.service.store.tables import Token, User, now

__all__ = [
    "ROLES",
    "Caller",
    "Role",
    "add_token",
    "add_user",
    "any_user",
    "authenticate",
    "change_user",
    "check_first",
    "given_caller",
    "reset_password",
    "token_caller",
]

Role = Literal["viewer", "operator", "engineer"]
ROLES: tuple[Role, ...] = ("viewer", "operator", "engineer")
"""Roles, each with the rights of those before it: look; score and label; fit, refit, set alpha, promote, administer."""

_NAME = re.compile(r"[\w.@-]{1,120}")


@dataclass(frozen=True)
class Caller:
    """Author of a request.

    Parameters
    ----------
    name : str
        As in the audit.
    role : Role
    csrf : str or None
        Token of the session; None without a session.
    """

    name: str
    role: Role
    csrf: str | None = None

    def may(self, role: Role) -> bool:
        """Return True if the caller has the rights of `role`."""
        return ROLES.index(self.role) >= ROLES.index(role)


def any_user(session: Session) -> bool:
    """Return True if there is a user who may log in."""
    return session.scalar(select(User.id).where(User.active).limit(1)) is not None


def check_first(session: Session, role: str) -> None:
    """Refuse a first user who is no engineer, since nobody could administer the station.

    Raises
    ------
    ConflictError
        There is no user yet, and the role is another.
    """
    if role != "engineer" and not any_user(session):
        raise ConflictError("user: the first one must be an engineer; add one first")


def add_user(session: Session, name: str, role: str, password: str, author: str) -> User:
    """Add a user.

    Raises
    ------
    InputError
        Unusable name, unknown role, or too short a password.
    ConflictError
        The name is taken.
    """
    if not _NAME.fullmatch(name):
        raise InputError("user: the name must be 1 to 120 letters, digits, or . _ @ -; choose another")
    if session.scalar(select(User).where(func.lower(User.name) == name.lower())) is not None:
        raise ConflictError(f"user {name}: exists; choose another name")
    user = User(name=name, role=checked_role(role), password=hash_password(password))
    session.add(user)
    session.flush()
    record(session, author, "user.add", f"user {name}", role=role)
    return user


def checked_role(role: str) -> Role:
    """Return a role; InputError for an unknown one."""
    for known in ROLES:
        if role == known:
            return known
    raise InputError(f"role {role!r}: unknown; choose {', '.join(ROLES)}")


def find_user(session: Session, name: str) -> User:
    """Return a user; MissingError if there is none."""
    user = session.scalar(select(User).where(User.name == name))
    if user is None:
        raise MissingError(f"user {name}: does not exist; see the list of users")
    return user


def reset_password(session: Session, name: str, password: str, author: str) -> None:
    """Set a new password, and end the user's sessions."""
    user = find_user(session, name)
    user.password, user.epoch = hash_password(password), user.epoch + 1
    record(session, author, "user.password", f"user {name}")


def change_user(session: Session, name: str, author: str, *, role: str | None, active: bool | None) -> User:
    """Change role or state of a user, and end the user's sessions.

    Raises
    ------
    ConflictError
        No engineer would be left.
    """
    user = find_user(session, name)
    if role is not None:
        user.role = checked_role(role)
    if active is not None:
        user.active = active
    user.epoch += 1
    session.flush()
    if session.scalar(select(User.id).where(User.active, User.role == "engineer").limit(1)) is None:
        raise ConflictError(f"user {name}: is the last engineer; make another one first")
    record(session, author, "user.change", f"user {name}", role=user.role, active=user.active)
    return user


def authenticate(session: Session, name: str, password: str) -> User | None:
    """Return the active user of this name and password, or None; takes the same time for unknown names."""
    user = session.scalar(select(User).where(User.name == name, User.active))
    return user if check_password(password, None if user is None else user.password) else None


def add_token(session: Session, name: str, role: str, days: int | None, author: str) -> tuple[Token, str]:
    """Add an API token; return its row and the token, which is shown once and kept as a hash."""
    text = draw_token()
    expires = None if days is None else now() + timedelta(days=days)
    token = Token(name=name, role=checked_role(role), sha256=token_hash(text), author=author, expires=expires)
    session.add(token)
    session.flush()
    record(session, author, "token.add", f"token {token.id}", name=name, role=role)
    return token, text


def given_caller(text: str, given: str | None) -> Caller | None:
    """Return the caller with the token of the command line, `given`; None for another token, or without one."""
    if given is not None and hmac.compare_digest(text.encode(), given.encode()):
        return Caller("token of the command line", "engineer")
    return None


def token_caller(session: Session, text: str) -> Caller | None:
    """Return the caller with this token, or None."""
    token = session.scalar(select(Token).where(Token.sha256 == token_hash(text)))
    if token is None or token.revoked is not None or _over(token.expires):
        return None
    return Caller(f"token {token.name}", checked_role(token.role))


def _over(moment: datetime | None) -> bool:
    return moment is not None and moment <= now()
