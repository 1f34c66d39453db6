"""Telling a change to whoever waits for it in another process, where the database can."""

from __future__ import annotations

import hashlib

import sqlalchemy as sa

CHANNEL = "openclaw_changes"


def tell_change(connection: sa.Connection, topic: str) -> None:
    """Let those who wait for `topic` know once the transaction of `connection` is committed; elsewhere they poll."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_notify(CHANNEL, to_payload(topic))))


def to_payload(topic: str) -> str:
    """How `topic` is told."""
    # A payload has at most 8,000 bytes, a topic (a session's key) may have more.
    return hashlib.sha256(topic.encode()).hexdigest()


def lane_topic(session_key: str) -> str:
    """What is told when a session becomes free."""
    return f"lane {session_key}"


def gateway_topic(gateway_id: str) -> str:
    """What is told when somebody wants something of a gateway."""
    return f"gateway {gateway_id}"
