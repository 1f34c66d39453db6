"""Deviations of hosts and models from the OpenAI API, known in advance or learned from their error messages."""

from __future__ import annotations

import hashlib
import re
import string
from collections.abc import Callable, Mapping
from dataclasses import field, replace
from typing import Any, Literal

from service.core.dataclass import record
from service.models.request_styles import NOT_KNOWN, refused_fields, refuses_value
from service.models.tool_style import USUAL_TOOLS, ToolStyle

_NINE_ALPHANUMERICS = re.compile(r"[a-zA-Z0-9]{9}")
_ALPHANUMERICS = string.digits + string.ascii_letters
_MAX_ID_CHARS = 40


#: The member with Google's signature of a call, without which its newer models refuse the call.
CALL_DATA = "extra_content"

#: The two names of the field that bounds an answer.
Bound = Literal["max_tokens", "max_completion_tokens"]


def to_short_id(call_id: str) -> str:
    """Return the id as OpenAI takes it, at most 40 characters; a longer one is replaced by its hash."""
    if len(call_id) <= _MAX_ID_CHARS:
        return call_id
    return f"call_{hashlib.sha256(call_id.encode(errors='surrogatepass')).hexdigest()[:32]}"


def to_mistral_id(call_id: str) -> str:
    """Return the id as Mistral takes it, nine letters and digits, always the same for an id."""
    if _NINE_ALPHANUMERICS.fullmatch(call_id):
        return call_id
    number = int.from_bytes(hashlib.sha256(call_id.encode(errors="surrogatepass")).digest())
    return "".join(_ALPHANUMERICS[number // 62**place % 62] for place in range(9))


@record
class HostQuirks:
    """Conventions of a host.

    `names` renames fields, `max_tokens_field` limits an answer; without `asks_usage` no usage is requested.
    `to_call_id` converts the ids of calls. `message` is added to assistant messages without provider data, `first_call`
    to the first call of such a message, except for models whose id contains `except_for`.
    """

    names: Mapping[str, str] = field(default_factory=dict)
    max_tokens_field: Bound = "max_tokens"
    asks_usage: bool = True
    to_call_id: Callable[[str], str] = to_short_id
    message: Mapping[str, Any] = field(default_factory=dict)
    first_call: Mapping[str, Any] = field(default_factory=dict)
    except_for: str | None = None

    def first_call_of(self, model: str) -> Mapping[str, Any]:
        """Return the members that `model` needs on the first call of a message without provider data."""
        return {} if self.except_for is not None and self.except_for in model else self.first_call


_COMMON = HostQuirks()
_QUIRKS: Mapping[str, HostQuirks] = {
    # Its reasoning models refuse the old name.
    "api.openai.com": HostQuirks(max_tokens_field="max_completion_tokens"),
    "openai.azure.com": HostQuirks(max_tokens_field="max_completion_tokens"),
    # It always reports usage, and refuses the option.
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


# On Azure and other hosts the right name depends on the model.
_WANTS_NEW_NAME = re.compile(r"use\W+max_completion_tokens", re.IGNORECASE)
_WANTS_OLD_NAME = re.compile(
    r"(unrecogni[sz]ed|unsupported|unknown|unexpected|extra)[^.]{0,40}max_completion_tokens"
    r"|max_completion_tokens\W{1,3}[^.]{0,20}not (supported|permitted|allowed)",
    re.IGNORECASE,
)
# Contains names of the caller's choice, such as a property called "reasoning".
_CALLERS_OWN = re.compile(r"\b(tools?|tool_choice|functions?|function_call|response_format)\b|schema", re.IGNORECASE)
# Groq says "property 'reasoning_content' is unsupported" of 'messages.1' and "messages[1].reasoning: reasoning is not
# supported", Google that it cannot find the name "extra_content" at 'messages[1].tool_calls[0]'.
_DATA_OF_A_MESSAGE = re.compile(
    r"messages\W{1,4}\d.*['\"`.](reasoning(_content|_details)?|extra_content)\b"
    r"|['\"`](reasoning(_content|_details)?|extra_content)\W.*messages\W{1,4}\d"
    r"|property\W{1,3}(reasoning_content|reasoning_details|extra_content)\b",
    re.IGNORECASE | re.DOTALL,
)
# "The reasoning_content in the thinking mode must be passed back to the API." (DeepSeek), "Function call is missing a
# thought_signature in functionCall parts." (Google): a name may stand for several models that take turns.
_WANTS_DATA = re.compile(
    r"missing\W[^.]{0,20}(reasoning_content|thought_signature)|reasoning_content\b[^.]{0,40}must be passed back",
    re.IGNORECASE,
)


#: How an answer is sampled, which reasoning models decide themselves. `stop` and `logit_bias` are no hints: an answer
#: without them may have what the caller has excluded.
SAMPLING_HINTS = ("temperature", "top_p", "frequency_penalty", "presence_penalty")
# Optional fields that do not change the meaning of an answer, and how error messages name them where a bare name could
# mean something else.
_HINTS = {
    **{
        name: re.compile(rf"(?<![\w-]){name}(?![\w-])")
        for name in ("verbosity", "metadata", "store", "seed", "user", "temperature")
    },
    **{
        # Some hosts write them in camel case, or in words.
        name: re.compile(rf"(?<![\w-]){name.replace('_', '[_ ]?')}(?![\w-])", re.IGNORECASE)
        for name in (
            *("prompt_cache_key", "prompt_cache_retention", "safety_identifier", "reasoning_effort"),
            *("parallel_tool_calls", "service_tier", "top_p"),
        )
    },
    **{
        # Google refuses both: "Penalty is not enabled for models/gemini-2.5-flash".
        f"{kind}_penalty": re.compile(rf"(?<![\w-])({kind}[_ ]?penalty(?![\w-])|penalty is not)", re.IGNORECASE)
        for kind in ("frequency", "presence")
    },
    "detail": re.compile(r"image_url\W{1,4}detail\b|['\"`]detail['\"`]"),
    "strict": re.compile(r"function\W{1,4}strict\b|['\"`]strict['\"`]"),
    # xAI says that only messages of the role 'user' can have one.
    "name": re.compile(
        r"messages\W{1,4}\d+\W{1,4}((user|system|developer|assistant|tool)\W{1,4})?name\b"
        r"|messages? of role\W{1,3}user\W{1,3}can have a name\b"
    ),
}
# Claude accepts only one of them: "`temperature` and `top_p` cannot both be specified for this model."
_ONE_OF_TWO = re.compile(
    r"(temperature\W.{0,20}\btop_p|top_p\W.{0,20}\btemperature)\b.{0,40}(both|only one|same time|together)"
    r"|both\W.{0,20}(temperature\W.{0,20}\btop_p|top_p\W.{0,20}\btemperature)\b",
    re.IGNORECASE,
)
_FIRST_QUOTED = re.compile(r"['\"`]([^'\"`]+)['\"`]")
_ABOUT_A_TOOL = re.compile(r"\b(tools|functions?|schema)\b", re.IGNORECASE)
_WANTS_CONTENT = re.compile(
    r"\bcontent\b.{0,80}(\bnull\b|\bNone\b|valid string|\ba string\b|required|missing|must not be)"
    r"|(null|None|missing|required)\b.{0,40}\bcontent\b",
    re.DOTALL,
)
# "contents is not specified" (Google), "No user query found in messages." (chat templates of Qwen), "Expected last role
# User or Tool" (Mistral).
WANTS_USER = re.compile(
    r"\bcontents?\b[^.]{0,20}(not specified|required|empty)|\bmessages?\b[^.]{0,40}(empty|at least)|\buser\b",
    re.IGNORECASE,
)


@record
class RequestStyle:
    """The form of the requests to one model.

    `max_tokens_field` limits an answer. With `sends_provider_data` the model gets its own data back, with `asks_usage`
    usage is requested. `omitted` fields are left out, `skipped` ones of this request only, and with `drops_top_p`
    `top_p` beside a temperature. `fills_content` sends an empty text beside calls instead of null,
    `adds_user` begins a conversation without a user message with one, and `tools` is the form of the tools.
    """

    max_tokens_field: Bound
    sends_provider_data: bool = True
    asks_usage: bool = True
    omitted: frozenset[str] = frozenset()
    skipped: frozenset[str] = frozenset()
    drops_top_p: bool = False
    fills_content: bool = False
    adds_user: bool = False
    tools: ToolStyle = USUAL_TOOLS

    @property
    def left_out(self) -> frozenset[str]:
        """The names of the optional fields that are left out of a request."""
        return self.omitted | self.skipped if self.skipped else self.omitted

    def for_later_requests(self) -> RequestStyle:
        """Return the style for later requests."""
        return replace(self, skipped=frozenset()) if self.skipped else self

    def adapted(self, message: str, hints: Mapping[str, Any]) -> RequestStyle:
        """Return the style that an error message about a request with these `hints`, optional fields, asks for.

        The same style if the message is about something else.
        """
        wanted = self._without_refused(message, {name: hints[name] for name in hints.keys() - self.left_out})
        if wanted == self:
            wanted = self._with_data(message)
        return wanted if wanted != self or _CALLERS_OWN.search(message) else self._with_other_bound(message)

    def _without_refused(self, message: str, hints: Mapping[str, Any]) -> RequestStyle:
        if _ONE_OF_TWO.search(message) and not self.drops_top_p and {"temperature", "top_p"} <= hints.keys():
            return replace(self, drops_top_p=True)
        refused, is_lasting = refused_fields(message, _HINTS, hints)
        if refused and is_lasting:
            return replace(self, omitted=self.omitted | refused)
        if refused := refused or _named_by_value(message, hints):
            return replace(self, skipped=self.skipped | refused)
        if self.asks_usage and ("stream_options" in message or "include_usage" in message):  # which no caller can send
            return replace(self, asks_usage=False)
        if _WANTS_CONTENT.search(message) and not _ABOUT_A_TOOL.search(message):
            return replace(self, fills_content=True)
        return self

    def _with_data(self, message: str) -> RequestStyle:
        if _WANTS_DATA.search(message):
            return replace(self, sends_provider_data=True)
        is_refused = _DATA_OF_A_MESSAGE.search(message) and NOT_KNOWN.search(message)
        return replace(self, sends_provider_data=False) if is_refused and not _CALLERS_OWN.search(message) else self

    def _with_other_bound(self, message: str) -> RequestStyle:
        if _WANTS_NEW_NAME.search(message):
            return replace(self, max_tokens_field="max_completion_tokens")
        return replace(self, max_tokens_field="max_tokens") if _WANTS_OLD_NAME.search(message) else self


def _named_by_value(message: str, hints: Mapping[str, Any]) -> frozenset[str]:
    """Return the hint whose value an error message refuses without its name: "Invalid value: 'xhigh'."."""
    value = _FIRST_QUOTED.search(message) if refuses_value(message) else None
    named = [name for name in hints if name in _HINTS and value and hints[name] == value[1]]
    return frozenset(named if len(named) == 1 else ())


def quirks_of(host: str) -> HostQuirks:
    """Return the conventions of `host` or of its parent domain."""
    return next((quirks for name, quirks in _QUIRKS.items() if f".{host}".endswith(f".{name}")), _COMMON)
