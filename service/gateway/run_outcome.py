"""Conversion of a run's end to its record, and of a record to its error; the refusals of runs."""

from __future__ import annotations

from collections.abc import Sequence

from service.agent.conversation import ConversationDigest, unanswered_calls
from service.agent.events import RunEnded
from service.agent.partial_output import PartialOutput
from service.agent.placement import Placement
from service.agent.run import Run
from service.core.dataclass import replace
from service.core.errors import KINDS, GatewayError
from service.core.messages import Message, Role, Text, Usage
from service.core.usage import ModelCall
from service.storage.runs.records import RunOutcome, RunRecord, RunState

#: Errors that end a run from outside, and the reason the model reads beside calls and text they cut off.
_CUT = {"run_aborted": "the run was aborted", "run_timeout": "the time of the run was up"}

#: Errors whose messages are the gateway's own words alone, so that the log may have them.
_OWN_WORDS = frozenset(
    {"overloaded", "run_aborted", "run_interrupted", "run_timeout", "session_busy", "session_lost", "too_many_runs"}
)

#: The first fields of a `RunOutcome`.
_Ended = tuple[RunState, Usage, str, str | None, str | None, str | None]


def to_outcome(
    end: RunEnded,
    new: tuple[Message, ...],
    partial: PartialOutput,
    model: str,
    calls: Sequence[ModelCall],
    *,
    keep_partial: bool = False,
) -> RunOutcome:
    """The record of a run that answered `new` with `partial` and ended with `end`; `model` is `provider/model`.

    `calls` are those of its models.

    A run that was cut keeps its output so far; so does one that failed, with `keep_partial`. Any other failure leaves
    the session as it was, so that the request can be repeated, unless the agent's tools have already acted.
    """
    error, output = end.error, partial.to_messages()
    has_acted = has_data = False
    for message in output:
        has_acted = has_acted or message.role is Role.TOOL
        has_data = has_data or message.provider_data is not None
    ended: _Ended = RunState.OK, end.usage, model, end.stop_reason.value, None, None
    if error is not None:
        ended = end.state, end.usage, model, None, error.code, error.message
        output = _settled(output, error)
        if not (has_acted or (output and (keep_partial or error.code in _CUT))):
            return RunOutcome(*ended, calls=calls)
    # What the caller cannot send back is found by the call it answers: `recall_steps`.
    asked = unanswered_calls(output) if has_acted or has_data else ()
    return RunOutcome(
        *ended,
        (*new, *output),
        len(output),
        partial.summary,
        partial.kept + len(output),
        asked[0].id if asked else None,
        str(ConversationDigest(new)) if asked else None,
        calls=calls,
    )


def with_times(outcome: RunOutcome, run: Run) -> RunOutcome:
    """Return the outcome with the run's times and the number of its model calls."""
    return replace(
        outcome, started_at_ms=run.started_at_ms, first_output_at_ms=run.first_output_at_ms, step=run.step or None
    )


def placed(outcome: RunOutcome, place: Placement) -> RunOutcome:
    """Return the outcome with the turn's place in its session."""
    if not outcome.messages:
        return outcome
    digests = place.digests(outcome.messages, outcome.reply_count)
    return replace(outcome, parent=place.parent, digests=digests, resends=place.resends)


def _settled(output: tuple[Message, ...], error: GatewayError) -> tuple[Message, ...]:
    """The messages of a run that ended with `error`, each call with a result, since the caller received none of them.

    Trailing text is marked as cut off.
    """
    why = _CUT.get(error.code, "the run failed")
    missing = [
        Message(Role.TOOL, (Text(f"(no result: {why})"),), tool_call_id=call.id) for call in unanswered_calls(output)
    ]
    if output and output[-1].role is Role.ASSISTANT and not output[-1].tool_calls:
        output = (*output[:-1], replace(output[-1], cut_off=why))
    return (*output, *missing)


def failure_of(record: RunRecord | None) -> GatewayError:
    """The error of a recorded run, for the callers that waited for it; `None` is a run without a record."""
    if record is not None and record.error_code in KINDS:
        return GatewayError(record.error_code, record.error_message or "The run failed.")
    text = "The gateway that executed this run has died. Try again."
    if record is None:
        text = "This run was cancelled before it started, or its answer has been deleted. Send the request again."
    return GatewayError("run_interrupted", text)


def key_reused() -> GatewayError:
    """The refusal of a known idempotency key with another request."""
    text = (
        "This Idempotency-Key was sent with another request less than a day ago. Send the very same request, "
        "or use another key."
    )
    return GatewayError("idempotency_key_reused", text, param="Idempotency-Key")


def run_id_taken() -> GatewayError:
    """The refusal of a run id that a run of another session has."""
    text = "This idempotencyKey is the id of a run of another session. Send a fresh one."
    return GatewayError("invalid_value", text, param="idempotencyKey")


def too_many_named_runs() -> GatewayError:
    """The refusal of one more run that does not end with its connection."""
    return GatewayError("too_many_runs", "Too many runs wait for their sessions. Try again when some have ended.")


def aborted_in_queue(run: Run) -> GatewayError:
    """The error of a run that was aborted before it began."""
    return run.abort_reason or GatewayError("run_aborted", "The run was aborted while it waited.")


def shutting_down() -> GatewayError:
    """The refusal of requests that come while the gateway stops."""
    return GatewayError("shutting_down", "The gateway is shutting down. Try again soon.")


def run_not_found(run_id: str) -> GatewayError:
    """The error for an unknown run id."""
    text = (
        f'Run "{run_id}" not found: it was never started, was cancelled before it started, or has been deleted. A run '
        "without a session is known only to the process that executes it until it has ended."
    )
    return GatewayError("run_not_found", text, param="run_id")


def reason_of(error: GatewayError) -> str | None:
    """Return what the log may say of an error."""
    return error.message if error.code in _OWN_WORDS else error.reason
