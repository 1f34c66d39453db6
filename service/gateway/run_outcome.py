"""How a run's end is recorded, and how a record is told again."""

from __future__ import annotations

from dataclasses import replace

from service.agent.conversation import ConversationDigest, unanswered_calls
from service.agent.events import RunEnded
from service.agent.loop import RunDraft
from service.core.errors import KINDS, GatewayError
from service.core.messages import Message, Role, Text
from service.storage.runs.records import RunOutcome, RunRecord, RunState

#: What ends a run from outside, and what the model is told of calls and words that it ended.
_CUT = {"run_aborted": "the run was aborted", "run_timeout": "the time of the run was up"}


def to_outcome(
    end: RunEnded, new: tuple[Message, ...], reply: RunDraft, model: str, *, keep_partial: bool = False
) -> RunOutcome:
    """What is recorded of a run that answered `new` with `reply` and ended so; `model` is `provider/model`.

    One that was cut keeps what was said so far, and so does one that failed if it `keep_partial`. Any other that failed
    leaves its session as it was, so that the same can be asked again, unless its tools have done something by then,
    which the agent has to know.
    """
    error = end.error
    if error is None:
        ended = RunOutcome(RunState.OK, reply.usage, model, stop_reason=end.stop_reason)
    else:
        state = RunState.ABORTED if error.code == "run_aborted" else RunState.ERROR
        ended = RunOutcome(state, reply.usage, model, error_code=error.code, error_message=error.message)
    said = reply.to_messages()
    has_acted = any(message.role is Role.TOOL for message in said)
    if error is not None:
        said = _settled(said, error)
    if error is not None and not (has_acted or (said and (keep_partial or error.code in _CUT))):
        return ended
    # What the caller cannot send back is looked for by the call it answers: `recall_steps`.
    keeps_more = has_acted or any(message.provider_data is not None for message in said)
    asked = unanswered_calls(said) if keeps_more else ()
    return replace(
        ended,
        messages=(*new, *said),
        reply_count=len(said),
        summary=reply.summary,
        kept=reply.kept + len(said),
        asked_call_id=asked[0].id if asked else None,
        asked_after=str(ConversationDigest(new)) if asked else None,
    )


def _settled(said: tuple[Message, ...], error: GatewayError) -> tuple[Message, ...]:
    """What a run said that ended with `error`, each of its calls with a result: the caller was not told of any.

    Words that nothing follows are marked as cut off.
    """
    why = _CUT.get(error.code, "the run failed")
    missing = [
        Message(Role.TOOL, (Text(f"(no result: {why})"),), tool_call_id=call.id) for call in unanswered_calls(said)
    ]
    if said and said[-1].role is Role.ASSISTANT and not said[-1].tool_calls:
        said = (*said[:-1], replace(said[-1], cut_off=why))
    return (*said, *missing)


def failure_of(record: RunRecord | None) -> GatewayError:
    """What a recorded run failed with, as whoever waited for it is told."""
    if record is not None and record.error_code in KINDS:
        return GatewayError(record.error_code, record.error_message or "The run failed.")
    text = "The gateway that executed this run has died. Try again."
    if record is None:
        text = "This run was given up before it began, or its answer has been deleted. Send the request again."
    return GatewayError("run_interrupted", text)


def key_reused() -> GatewayError:
    """What is told to who sends a known idempotency key with something else."""
    text = (
        "This Idempotency-Key was sent with another request less than a day ago. Send the very same request, "
        "or use another key."
    )
    return GatewayError("idempotency_key_reused", text, param="Idempotency-Key")


def shutting_down() -> GatewayError:
    """What is told to who comes too late."""
    return GatewayError("shutting_down", "The gateway is shutting down. Try again soon.")


def run_not_found(run_id: str) -> GatewayError:
    """What is told of a run of which nothing is known."""
    text = (
        f'No run "{run_id}" is known here: it was never started, was given up before it began, or has been deleted '
        "since. One that stands alone is known only to the gateway that executes it until it has ended."
    )
    return GatewayError("run_not_found", text, param="run_id")
