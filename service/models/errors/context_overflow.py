"""Refusals of requests that are too much for their model, known by the words of whoever refused.

Providers have no code for it in common, nor a field that says how much they would take.
"""

from __future__ import annotations

import re
from enum import Enum

from service.core.errors import GatewayError
from service.models.errors.http_errors import TOO_LARGE_AT_ANY_TIME

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
#: What waiting or paying would mend.
_OTHER_LIMITS = re.compile(r"rate limit|tokens per (minute|day)|quota", re.IGNORECASE)

#: 400,000 and the like; a list of numbers is none.
_GROUPED_DIGITS = re.compile(r"(?<![\[\d,])\d{1,3}(?:,\d{3})+(?![\d,])")
#: Where the limit stands, the likeliest words first: other numbers in a refusal are those of the request.
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
#: No model takes less: a smaller number was something else, 400 out of "400.000" perhaps.
_LEAST_LIMIT = 512


class Overflow(Enum):
    """What there is too much of: tokens for the model's window, bytes in the request, or pictures."""

    TOKENS = "tokens"
    BYTES = "bytes"
    PICTURES = "pictures"


def overflow_of(error: GatewayError) -> Overflow | None:
    """What a provider refused a request for, if a shorter conversation may be taken; else `None`."""
    said = _said(error)
    if error.code != "provider_rejected_request":
        return None
    if TOO_LARGE_AT_ANY_TIME.search(said):
        return Overflow.TOKENS
    if _OTHER_LIMITS.search(said):
        return None
    kinds = ((Overflow.TOKENS, _TOKENS), (Overflow.PICTURES, _PICTURES), (Overflow.BYTES, _BYTES))
    return next((overflow for overflow, words in kinds if words.search(said)), None)


def told_limit(error: GatewayError) -> int | None:
    """The tokens that a refusal for too many says would be taken, the answer included; `None` if it does not say."""
    said = _said(error)
    found = next(filter(None, (limits.search(said) for limits in _LIMITS)), None)
    limit = 0 if found is None else int(next(filter(None, found.groups())))
    return limit if limit >= _LEAST_LIMIT else None


def to_caller_error(error: GatewayError) -> GatewayError:
    """`error` as the caller is told it: a conversation that stayed too long has OpenAI's code for that."""
    if overflow_of(error) is not Overflow.TOKENS:
        return error
    return GatewayError("context_length_exceeded", error.message, param="messages")


def compaction_failed_error(refusal: GatewayError, failure: GatewayError) -> GatewayError:
    """What is told where a request was refused as too much, and the summary that would have helped failed.

    The status is the failure's if that may pass. What the provider found wrong with the summary is not the caller's
    request.
    """
    told = f"The conversation is too long for the model, and summarising its beginning failed: {failure.message}"
    if failure.code != "provider_rejected_request":
        return GatewayError(failure.code, told, headers=failure.headers)
    if overflow_of(refusal) is Overflow.TOKENS:
        return GatewayError("context_length_exceeded", told, param="messages")
    return GatewayError(refusal.code, told, param="messages")


def _said(error: GatewayError) -> str:
    return _GROUPED_DIGITS.sub(lambda number: number[0].replace(",", ""), error.message)
