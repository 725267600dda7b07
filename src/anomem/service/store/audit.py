"""Append-only audit of what people do."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session

from anomem.service.store.tables import Audit

__all__ = ["record"]


def record(session: Session, author: str, action: str, subject: str, **facts: Any) -> None:
    """Add an entry in the transaction of the action itself.

    Parameters
    ----------
    author : str
        Name of the person or token.
    action : str
        Such as "label", "model.alpha", "version.promote", "login".
    subject : str
        Such as "inspection 7".
    **facts
        JSON-ready details.
    """
    session.add(Audit(author=author, action=action, subject=subject, facts=facts))
