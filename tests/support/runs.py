"""Runs without a gateway."""

from __future__ import annotations

from service.agent.run import Run
from service.storage.runs.records import AcceptedRun, Protocol


def new_run(
    run_id: str = "chatcmpl_1", session_key: str = "agent:main:x", *, protocol: Protocol = Protocol.HTTP
) -> Run:
    """A run that has just been accepted."""
    return Run(AcceptedRun(run_id, session_key, "main", protocol, accepted_at_ms=1_700_000_000_500, stateless=False))
