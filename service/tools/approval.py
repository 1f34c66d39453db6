"""Approval of tool calls: the question to a person, and the answer."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson

from service.core.dataclass import record
from service.core.messages import ToolApproval, ToolCall
from service.tools.policy import ApprovalPolicy
from service.tools.tool import ToolError

#: A person has to be able to read the arguments.
MAX_ARGUMENT_CHARACTERS = 64 * 1024

#: Tools that a decision for the session covers only with the same arguments: another command is another matter.
_BY_ARGUMENTS = ("exec",)


@record
class ApprovalRequest:
    """A call that needs an approval. `arguments` are those that the tool will get, as JSON.

    `subject` identifies the calls that a decision for the session covers; `None`: only this one.
    """

    tool: str
    arguments: str
    call_id: str
    subject: str | None

    @classmethod
    def of(cls, call: ToolCall, arguments: Mapping[str, Any], approval: ApprovalPolicy) -> ApprovalRequest:
        """Return the request for a call with valid `arguments`. Raises `ToolError` for arguments nobody can read."""
        # Not the model's own text: a key that occurs twice would show a person something else than what happens.
        try:
            text = orjson.dumps(arguments, option=orjson.OPT_SORT_KEYS).decode()
        except orjson.JSONEncodeError:
            raise ToolError(f"The arguments of {call.name} are nested too deeply to be approved.") from None
        if len(text) > MAX_ARGUMENT_CHARACTERS:
            raise ToolError(
                f"The arguments of {call.name} have more than {MAX_ARGUMENT_CHARACTERS} characters, too many to be "
                "approved. Use several smaller calls."
            )
        subject = call.name
        if call.name in _BY_ARGUMENTS:
            subject = f"{call.name} {hashlib.sha256(text.encode()).hexdigest()}"
        return cls(call.name, text, call.id, None if approval is ApprovalPolicy.ASK_ALWAYS else subject)


@record
class Verdict:
    """The answer to a request: `refusal` is the message for the model if the call must not be made."""

    refusal: str | None
    approval: ToolApproval | None = None

    def check(self) -> None:
        """Raise `ToolError` if the call must not be made."""
        if self.refusal is not None:
            raise ToolError(self.refusal)


#: Gets the requests of one turn and returns their verdicts in order; waits for a person if necessary.
ApprovalDecider = Callable[[Sequence[ApprovalRequest]], Sequence[Verdict]]


def refuse_all(requests: Sequence[ApprovalRequest]) -> Sequence[Verdict]:
    """Refuse every request, for runs that cannot ask anybody."""
    return [Verdict(f"{one.tool} needs an approval, which this run cannot ask for.") for one in requests]
