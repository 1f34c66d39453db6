"""What hosts of the OpenAI dialect want otherwise; the many that copied the API are content with the common ways."""

from __future__ import annotations

import hashlib
import re
import string
from collections.abc import Callable, Mapping
from dataclasses import field, replace
from typing import Any, Literal

from service.core.dataclass import record

_NINE_ALPHANUMERICS = re.compile(r"[a-zA-Z0-9]{9}")
_ALPHANUMERICS = string.digits + string.ascii_letters


#: Where Google keeps the signature of a call, without which its newer models refuse to see the call again.
CALL_DATA = "extra_content"

#: The two names of the field that bounds an answer.
Bound = Literal["max_tokens", "max_completion_tokens"]


def _same(call_id: str) -> str:
    return call_id


def to_mistral_id(call_id: str) -> str:
    """The id as Mistral takes it, nine letters and digits, the same each time; calls of others have other ids."""
    if _NINE_ALPHANUMERICS.fullmatch(call_id):
        return call_id
    number = int.from_bytes(hashlib.sha256(call_id.encode(errors="surrogatepass")).digest())
    return "".join(_ALPHANUMERICS[number // 62**place % 62] for place in range(9))


@record
class HostQuirks:
    """How a host is spoken to.

    `names` are its own names of fields, `bound` that of the longest answer; without `asks_usage` it is not asked to
    count. `to_call_id` makes an id that it takes.
    `message` is what it wants on each message of the assistant that has no data of its own, `first_call` what on the
    first call of such a message, but for models whose id has `except_for` in it.
    """

    names: Mapping[str, str] = field(default_factory=dict)
    bound: Bound = "max_tokens"
    asks_usage: bool = True
    to_call_id: Callable[[str], str] = _same
    message: Mapping[str, Any] = field(default_factory=dict)
    first_call: Mapping[str, Any] = field(default_factory=dict)
    except_for: str | None = None

    def first_call_of(self, model: str) -> Mapping[str, Any]:
        """What the first call of a message without data needs for `model`."""
        return {} if self.except_for is not None and self.except_for in model else self.first_call


_COMMON = HostQuirks()
_QUIRKS: Mapping[str, HostQuirks] = {
    # Its reasoning models refuse the old name.
    "api.openai.com": HostQuirks(bound="max_completion_tokens"),
    "openai.azure.com": HostQuirks(bound="max_completion_tokens"),
    # It counts usage unasked, and refuses to be asked.
    "mistral.ai": HostQuirks({"seed": "random_seed"}, asks_usage=False, to_call_id=to_mistral_id),
    # Where tools are on offer it refuses messages without reasoning, but not with an empty one:
    # https://api-docs.deepseek.com/guides/thinking_mode
    "api.deepseek.com": HostQuirks(message={"reasoning_content": ""}),
    # From Gemini 3 on it refuses calls without a signature, but for this one, meant for calls that others made:
    # https://ai.google.dev/gemini-api/docs/thought-signatures
    "generativelanguage.googleapis.com": HostQuirks(
        first_call={"extra_content": {"google": {"thought_signature": "skip_thought_signature_validator"}}},
        except_for="gemini-2",
    ),
}


# Azure and others leave it to the model which name is right: their refusals tell.
_WANTS_NEW_NAME = re.compile(r"use\W+max_completion_tokens", re.IGNORECASE)
_WANTS_OLD_NAME = re.compile(
    r"(unrecogni[sz]ed|unsupported|unknown|unexpected|extra)[^.]{0,40}max_completion_tokens"
    r"|max_completion_tokens\W{1,3}[^.]{0,20}not (supported|permitted|allowed)",
    re.IGNORECASE,
)
# What callers may name as they like, a field called "reasoning" among it.
_CALLERS_OWN = re.compile(r"\b(tools?|tool_choice|functions?|function_call|response_format)\b|schema", re.IGNORECASE)
# Groq says "property 'reasoning_content' is unsupported" of 'messages.1' and "messages[1].reasoning: reasoning is not
# supported", Google that it cannot find the name "extra_content" at 'messages[1].tool_calls[0]'.
_DATA_OF_A_MESSAGE = re.compile(
    r"messages\W{1,4}\d.*['\"`.](reasoning(_content|_details)?|extra_content)\b"
    r"|['\"`](reasoning(_content|_details)?|extra_content)\W.*messages\W{1,4}\d"
    r"|property\W{1,3}(reasoning_content|reasoning_details|extra_content)\b",
    re.IGNORECASE | re.DOTALL,
)
_NOT_KNOWN = re.compile(
    r"unrecogni[sz]ed|unsupported|unknown|unexpected|\bextra\b|not (supported|permitted|allowed)", re.IGNORECASE
)
# "The reasoning_content in the thinking mode must be passed back to the API." (DeepSeek), "Function call is missing a
# thought_signature in functionCall parts." (Google): a name may stand for several models that take turns.
_WANTS_DATA = re.compile(
    r"missing\W[^.]{0,20}(reasoning_content|thought_signature)|reasoning_content\b[^.]{0,40}must be passed back",
    re.IGNORECASE,
)


@record
class RequestStyle:
    """How one model is spoken to: by which name its answer is bounded, what it is shown and asked.

    With `shows_data` it is shown its own data again, with `asks_usage` asked to count at the end of a stream.
    """

    bound: Bound
    shows_data: bool = True
    asks_usage: bool = True

    def corrected(self, refusal: str) -> RequestStyle:
        """The style that a model's words ask for, the same if they are about something else."""
        if _WANTS_DATA.search(refusal):
            return replace(self, shows_data=True)
        if self.asks_usage and "stream_options" in refusal:  # which no caller can send
            return replace(self, asks_usage=False)
        if _CALLERS_OWN.search(refusal):
            return self
        if _WANTS_NEW_NAME.search(refusal):
            return replace(self, bound="max_completion_tokens")
        if _WANTS_OLD_NAME.search(refusal):
            return replace(self, bound="max_tokens")
        is_about_data = _DATA_OF_A_MESSAGE.search(refusal) and _NOT_KNOWN.search(refusal)
        return replace(self, shows_data=False) if is_about_data else self


def quirks_of(host: str) -> HostQuirks:
    """How `host`, or the one it belongs to, wants to be spoken to."""
    return next((quirks for name, quirks in _QUIRKS.items() if f".{host}".endswith(f".{name}")), _COMMON)
