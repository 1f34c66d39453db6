"""Notifications of changes to other processes, where the database supports them."""

from __future__ import annotations

import hashlib

import sqlalchemy as sa

CHANNEL = "openclaw_changes"


def notify_change(connection: sa.Connection, topic: str) -> None:
    """Notify waiters for `topic` when the transaction of `connection` commits; without support they poll."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_notify(CHANNEL, to_notification(topic))))


def to_notification(topic: str) -> str:
    """Encode `topic` as the payload of a notification."""
    # A payload is limited to 8,000 bytes; a topic (a session's key) may be longer.
    return hashlib.sha256(topic.encode()).hexdigest()


def session_topic(session_key: str) -> str:
    """Topic that is notified when a session is released."""
    return f"session {session_key}"


def gateway_topic(gateway_id: str) -> str:
    """Topic that is notified when a gateway has requests of other gateways to process."""
    return f"gateway {gateway_id}"
