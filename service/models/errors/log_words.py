"""Words of a failed model that the log may repeat: its provider's, without anything quoted from the conversation.

Providers quote requests in their errors, whole or in part. A word is dropped if the request has it, unless it is one
that such errors consist of anyway, and so is everything in quotation marks and braces.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from service.core.errors import GatewayError
from service.models.provider import ModelRequest

DROPPED = "[...]"
_MAX_CHARACTERS = 200
_QUOTED = re.compile(r"""(?<!\w)'.*?(?:'(?!\w)|$)|["`\u201c\u2018].*?(?:["`\u201d\u2019]|$)|\{.*?(?:\}|$)""", re.DOTALL)
_WORD = re.compile(r"\w+")
_ESCAPE = re.compile(r"\\(?:u[0-9a-fA-F]{0,4}|.)")
_SEVERAL = re.compile(rf"(?:{re.escape(DROPPED)}[\s.,:;/-]*){{2,}}")

#: Words that say nothing about a conversation in which they occur too.
_COMMON_WORDS = (
    "a about access account add after again all allow allowed an and answer any api apikey are at available balance "
    "baseurl be because been before below billing busy by can cannot check configuration connection content context "
    "correct could credential credentials credit credits currently day denied detail details did disabled does error "
    "exceed exceeded exceeds exhausted expired failed failure for found free from funds gateway gateways has have "
    "high hour http if in incorrect input insufficient internal invalid is it its key keys large length limit limits "
    "long maximum message messages method minute missing model models more much must no not number of on only or "
    "organization output overloaded parameter parameters parsed payment per permission permissions plan please "
    "process prompt protocol provided provider providers quota rate rates reach reached refused region rejected "
    "request requested requests require required requires response retry s says second seconds server service size "
    "such support supported temporarily that the their there this time to token tokens too tpm try unable "
    "unauthorized unavailable unexpected unknown unsupported up upgrade url usage use used valid value was were with "
    "within you your"
)
_COMMON = frozenset(_COMMON_WORDS.split())


def log_words(error: GatewayError, texts: Iterable[str]) -> str:
    """Return what the log may say of `error`, with which a model refused a request that consists of `texts`.

    Not for errors after the beginning of an answer, which may quote that.
    """
    haystack = "\n".join(texts).lower()

    def drop(word: re.Match[str]) -> str:
        known = word[0].lower() in _COMMON or word[0].lower() not in haystack
        return word[0] if known else DROPPED

    shown = _WORD.sub(drop, _QUOTED.sub(f" {DROPPED} ", _ESCAPE.sub(" ", error.message[: 4 * _MAX_CHARACTERS])))
    return " ".join(_SEVERAL.sub(f"{DROPPED} ", shown).split())[:_MAX_CHARACTERS]


def texts_of(request: ModelRequest) -> Iterator[str]:
    """Yield every text of `request` that an error may quote."""
    yield request.system
    for message in request.messages:
        yield message.text
        yield from (f"{call.name} {call.arguments}" for call in message.tool_calls)
    yield from (f"{function.name} {function.description or ''}" for function in request.functions)
