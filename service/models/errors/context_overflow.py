"""Recognise context overflow from provider error messages.

Providers share no error code for it, and no field for the limit.
"""

from __future__ import annotations

import re
from enum import Enum

from service.core.errors import GatewayError

#: A request larger than the rate limit itself, with 429 by OpenAI and 413 by Groq: "Request too large for
#: gpt-4o in organization org-x on tokens per min (TPM): Limit 30000, Requested 45000."
ALWAYS_TOO_LARGE = re.compile(r"request too large for (model\b|[^:]{0,160}\btokens\w* per\b)", re.IGNORECASE)

_TOKENS = re.compile(
    r"""context[ _](length|window|size|limit)                   # OpenAI, OpenRouter, llama.cpp, vLLM
    |maximum[ ](model[ ]|context[ ]|input[ ]|sequence[ ]|prompt[ ])+length         # Mistral, vLLM, xAI
    |maximum[ ](allowed[ ])?length[ ][^.]{0,20}\d[ ]tokens
    |(input|prompt)[ ](is[ ])?too[ ]l(ong|arge)                 # Anthropic, Bedrock, Ollama
    |input[ ]length[ ]and[ ]`?max_tokens`?[ ]exceed             # Anthropic
    |exceed(s|ed)?[ ](the[ ])?(available[ ]|maximum[ ]|allowed[ ])*(context|input[ ]length)
    |exceeds[ ]the[ ]maximum[ ]number[ ]of[ ](input[ ])?tokens   # Gemini
    |exceed(s|ed)?[ ](the[ ])?(model'?s?[ ])?token[ ]limit      # Moonshot
    |(input|prompt)([ ]tokens?)?([ ]count|[ ]length)?([ ]of)?([ ]\(?\d+([ ]tokens)?\)?)?
        [ ](is[ ])?(exceeds|longer[ ]than)
    |too[ ]many[ ](input[ ]|prompt[ ])?tokens
    |`inputs`[ ]tokens[ ]\+|`inputs`[ ]must[ ]have[ ]less[ ]than                   # TGI
    |must[ ]be[ ]less[ ]than[ ]max_seq_len                      # SiliconFlow
    |range[ ]of[ ]input[ ]length[ ]should[ ]be                  # Alibaba
    |reduce[ ]the[ ]length[ ]of[ ]the[ ](messages|prompt|input) # Groq, OpenAI""",
    re.IGNORECASE | re.VERBOSE,
)
_BYTES = re.compile(
    r"""request[ ]exceeds[ ]the[ ]maximum[ ]size                # Anthropic
    |request_too_large|(request|payload|content|body)([ ]entity|[ ]body)?[ ](is[ ])?too[ ]large|\(HTTP[ ]413\)""",
    re.IGNORECASE | re.VERBOSE,
)
_PICTURES = re.compile(
    r"too many images|many-image requests|at most \d+ images?\b|maximum (number )?of \d+ images?\b", re.IGNORECASE
)
#: Limits that waiting or paying lifts.
_OTHER_LIMITS = re.compile(r"rate limit|tokens per (minute|day)|quota", re.IGNORECASE)

#: 400,000 and the like, but not a list of numbers.
_GROUPED_DIGITS = re.compile(r"(?<![\[\d,])\d{1,3}(?:,\d{3})+(?![\d,])")
#: Patterns of the limit, the most specific first: other numbers in a message describe the request.
_LIMITS = (
    # ... the maximum allowed length (8192 tokens), the maximum number of tokens allowed (1048576)
    re.compile(
        r"\b(?:max(?:imum)?|allowed|available)(?:[ ](?!by\b|with\b|and\b)[\w-]+){0,6}?[ ]?[ :(]+(\d+)", re.IGNORECASE
    ),
    re.compile(
        r"""(?:length|size|limit|window)[ ](?:is|of)[ ](?:only[ ])?(\d+)          # ... context length is 8192 tokens
        |>[ ]*(\d+)                                             # 213421 tokens > 200000 maximum
        |<=?[ ]*(\d+)|less[ ]than[ ](\d+)                       # `inputs` tokens + `max_new_tokens` must be <= 2048
        |(?:context[ ](?:size|length|window)|max_seq_len)[ ]\((\d+)
        |limit:?[ ](\d+)\b(?![ ]\+)|for[ ]model[ ]with[ ](\d+)|\[\d+,[ ]*(\d+)\]""",
        re.IGNORECASE | re.VERBOSE,
    ),
)
#: Smaller numbers are not a limit, such as 400 in "400.000".
_LEAST_LIMIT = 512


class Overflow(Enum):
    """Kind of excess: tokens for the context window, bytes in the request, or images."""

    TOKENS = "tokens"
    BYTES = "bytes"
    PICTURES = "pictures"


def overflow_of(error: GatewayError) -> Overflow | None:
    """Return the kind of overflow that a shorter conversation may fix, `None` for other errors."""
    message = _message_of(error)
    if error.code != "provider_rejected_request":
        return None
    if ALWAYS_TOO_LARGE.search(message):
        return Overflow.TOKENS
    if _OTHER_LIMITS.search(message):
        return None
    kinds = ((Overflow.TOKENS, _TOKENS), (Overflow.PICTURES, _PICTURES), (Overflow.BYTES, _BYTES))
    return next((overflow for overflow, words in kinds if words.search(message)), None)


def states_token_overflow(message: str) -> bool:
    """True if the message says that the request has too many tokens."""
    return bool(_TOKENS.search(message)) and not _OTHER_LIMITS.search(message)


def limit_from_error(error: GatewayError) -> int | None:
    """Return the token limit stated in an overflow error, the answer included; `None` if there is none."""
    message = _message_of(error)
    found = next(filter(None, (limits.search(message) for limits in _LIMITS)), None)
    limit = 0 if found is None else int(next(filter(None, found.groups())))
    return limit if limit >= _LEAST_LIMIT else None


def to_caller_error(error: GatewayError) -> GatewayError:
    """Convert an overflow to OpenAI's code for it, `context_length_exceeded`; return other errors unchanged."""
    if overflow_of(error) is not Overflow.TOKENS:
        return error
    converted = GatewayError("context_length_exceeded", error.message, param="messages")
    converted.reason = error.reason
    return converted


def compaction_failed_error(refusal: GatewayError, failure: GatewayError) -> GatewayError:
    """Create the error for a request that was too long and whose summary failed.

    The status is that of `failure` if it may be temporary: a rejected summary request is not the caller's request.
    """
    message = f"The conversation is too long for the model, and summarising its beginning failed: {failure.message}"
    if failure.code != "provider_rejected_request":
        return GatewayError(failure.code, message, headers=failure.headers)
    if overflow_of(refusal) is Overflow.TOKENS:
        return GatewayError("context_length_exceeded", message, param="messages")
    return GatewayError(refusal.code, message, param="messages")


def _message_of(error: GatewayError) -> str:
    return _GROUPED_DIGITS.sub(lambda number: number[0].replace(",", ""), error.message)
