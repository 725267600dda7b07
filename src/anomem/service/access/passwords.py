"""Passwords and secrets: scrypt hashes, drawn tokens."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets

from anomem.errors import InputError

__all__ = ["check_password", "draw_token", "hash_password", "token_hash"]

SHORTEST, LONGEST = 10, 256
"""Characters of a password."""

_N, _R, _P = 1 << 14, 8, 1
_MAX_N = 1 << 17


def hash_password(password: str) -> str:
    """Return the salted scrypt hash of a password, with its parameters.

    Raises
    ------
    InputError
        Too short or too long a password.
    """
    if not SHORTEST <= len(password) <= LONGEST:
        raise InputError(f"password: has {len(password)} characters; choose {SHORTEST} to {LONGEST}")
    salt = secrets.token_bytes(16)
    return f"scrypt${_N}${_R}${_P}${_text(salt)}${_text(_scrypt(password, salt, _N, _R, _P))}"


def check_password(password: str, hashed: str | None) -> bool:
    """Compare a password with its hash in constant time; without a hash the same time is spent and False returned."""
    if hashed is None:
        _scrypt(password[:LONGEST], b"no such user    ", _N, _R, _P)
        return False
    try:
        kind, n, r, p, salt, digest = hashed.split("$")
        cost = int(n), int(r), int(p)
        expected, drawn = base64.b64decode(digest), base64.b64decode(salt)
    except ValueError:
        return False
    if kind != "scrypt" or cost[0] > _MAX_N or len(password) > LONGEST:
        return False
    return hmac.compare_digest(_scrypt(password, drawn, *cost), expected)


def draw_token() -> str:
    """Return a new API token, 256 random bits."""
    return f"anomem_{secrets.token_urlsafe(32)}"


def token_hash(token: str) -> str:
    """Return the hash under which a token is kept; a drawn token needs no salt."""
    return hashlib.sha256(token.encode()).hexdigest()


def _scrypt(password: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, n=n, r=r, p=p, maxmem=256 << 20, dklen=32)


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
