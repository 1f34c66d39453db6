"""Convert runs and turns to table rows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from service.core.dataclass import record
from service.core.messages import Message, Role, Usage
from service.storage.database.errors import StoreError
from service.storage.message_codec import to_payload
from service.storage.runs.records import AcceptedRun, RunOutcome, RunState
from service.storage.sessions.keys import owner_of
from service.storage.sessions.tree import ROOT, Path, last_of

#: Length limit of a session's title.
TITLE_CHARACTERS = 80


@record
class SessionStart:
    """A session that starts with the turn of `outcome`."""

    run: AcceptedRun
    outcome: RunOutcome
    session_id: str
    at_ms: int

    def to_row(self) -> dict[str, Any]:
        """Build the row of `sessions`."""
        usage = self.outcome.usage
        return {
            "key": self.run.session_key,
            "session_id": self.session_id,
            "agent_id": self.run.agent_id,
            "entry_count": len(self.outcome.messages),
            "created_at_ms": self.at_ms if self.run.stateless else self.run.accepted_at_ms,
            "updated_at_ms": self.at_ms,
            "title": to_title(self.outcome.messages),
            "model": self.outcome.model,
            "last_run_id": self.run.id,
            **to_usage_columns(usage),
            "stateless": self.run.stateless,
            "resends": bool(self.outcome.resends),
            "branched": False,
            "owner": owner_of(self.run.session_key),
        }


def to_run_row(run: AcceptedRun, gateway_id: str, state: RunState) -> dict[str, Any]:
    """Build a row of `runs` for a run that has not ended."""
    return {
        "id": run.id,
        "session_key": run.session_key,
        "agent_id": run.agent_id,
        "gateway_id": gateway_id,
        "door": run.protocol.value,
        "state": state.value,
        "accepted_at_ms": run.accepted_at_ms,
        "metadata": run.metadata,
        "response": run.response,
        "detached": run.detached,
        "owner": owner_of(run.session_key),
    }


def to_usage_columns(usage: Usage) -> dict[str, int | None]:
    """Build the columns that runs, sessions and stateless turns have of their usage."""
    return {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cached_tokens": usage.cached_tokens,
        "cost_nano": usage.cost_nano,
    }


def to_error_text(message: str) -> str:
    """Return the message of an error as it can be stored: it may quote a caller's NUL, which PostgreSQL refuses."""
    return message.replace("\0", "\ufffd")


def to_webhook_rows(accepted: Iterable[AcceptedRun]) -> list[dict[str, Any]]:
    """Build rows of `webhooks`, for the runs that have one."""
    return [
        {
            "run_id": run.id,
            "url": run.webhook.url,
            "secret": run.webhook.secret,
            "attempts": 0,
            "due_at_ms": run.accepted_at_ms,
        }
        for run in accepted
        if run.webhook is not None
    ]


def to_entry_rows(run: AcceptedRun, outcome: RunOutcome, first_seq: int, at_ms: int) -> list[dict[str, Any]]:
    """Build rows of `entries`; the last one has the totals of the turn. Raises `StoreError` for a lone surrogate.

    The output was complete when its messages say, or at `at_ms`; the other messages came with the run.
    """
    output = first_seq + len(outcome.messages) - outcome.reply_count
    digests = outcome.digests or (None,) * len(outcome.messages)
    rows: list[dict[str, Any]] = [
        {
            "session_key": run.session_key,
            "seq": seq,
            "run_id": run.id,
            "role": message.role.value,
            "payload": to_payload(message),
            "model": None,
            "input_tokens": None,
            "output_tokens": None,
            "cached_tokens": None,
            "created_at_ms": run.accepted_at_ms if seq < output else message.at_ms or at_ms,
            "digest": digest,
        }
        for seq, (message, digest) in enumerate(zip(outcome.messages, digests, strict=True), start=first_seq)
    ]
    usage = outcome.usage
    rows[-1].update(
        model=outcome.model,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cached_tokens=usage.cached_tokens,
    )
    return rows


def to_branch_rows(run: AcceptedRun, outcome: RunOutcome, entry_count: int) -> list[dict[str, Any]]:
    """Build the row of `branches` for a turn that begins one in a session with `entry_count` entries, if it does."""
    parent = outcome.parent
    if parent in (None, entry_count - 1):
        return []
    values = {"first_seq": entry_count, "parent_seq": None if parent == ROOT else parent}
    return [{"session_key": run.session_key, **values}]


def to_summary_row(run: AcceptedRun, outcome: RunOutcome, path: Path, at_ms: int) -> dict[str, Any]:
    """Build a row of `summaries` for the path that ends with the run's messages. Raises `StoreError`."""
    last_ones = last_of(path, outcome.kept + 1) if outcome.kept >= 0 else ()
    if outcome.summary is None or not last_ones or len(last_ones) != outcome.kept + 1:
        raise StoreError(f"A summary must cover at least one message, but the session has only {outcome.kept}.")
    return {
        "session_key": run.session_key,
        "covers": last_ones[0] + 1,
        "run_id": run.id,
        "role": outcome.summary.role.value,
        "payload": to_payload(outcome.summary),
        "created_at_ms": at_ms,
    }


def to_title(messages: Iterable[Message]) -> str | None:
    """Derive a session's title: one line of its first user message."""
    for message in messages:
        if message.role is Role.USER:
            line = " ".join(message.text[: TITLE_CHARACTERS * 4].split())
            if not line.isprintable():
                line = "".join(character for character in line if character.isprintable())
            return f"{line[: TITLE_CHARACTERS - 1]}…" if len(line) > TITLE_CHARACTERS else line or None
    return None
