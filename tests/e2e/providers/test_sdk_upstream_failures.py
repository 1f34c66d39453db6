"""Provider answers and failures through OpenAI's SDK: both dialects, streamed or not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import OpenAI
from support.live import TOKEN, live_gateway, stubbed_config
from support.polling import until
from support.upstream import Exchange, Upstream
from support.upstream_answers import RETRY_AFTER, TEXT, WORDS, frame
from support.upstream_answers_anthropic import frame as anthropic_frame

from service.agent.loop import MAX_MESSAGE_CHARACTERS

KEY = "the-providers-own-key"
TIMEOUT_SECONDS = 0.6
OVERFLOWS = {
    "openai": {"error": {"message": "This model's maximum context length is 8192 tokens.", "type": "x", "code": "y"}},
    "anthropic": {"type": "error", "error": {"type": "invalid_request_error", "message": "prompt is too long: 9 > 8"}},
}


def overflow(exchange: Exchange) -> None:
    exchange.json(400, OVERFLOWS["anthropic" if exchange.path.endswith("/messages") else "openai"])


def endless(exchange: Exchange) -> None:
    """Good words, a gigabyte of them if nobody leaves; made as they are sent."""
    exchange.head()
    word = "x" * 65536
    delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}}
    piece = anthropic_frame(delta) if exchange.path.endswith("/messages") else frame(choice_of(word))
    for _ in range((1 << 30) // len(word)):
        exchange.send(piece)


def choice_of(word: str) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}]}


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream() as running:
        running.answers |= {"overflow": overflow, "endless": endless}
        yield running


@pytest.fixture(scope="module")
def sdk(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenAI]:
    provider = {"baseUrl": upstream.url, "apiKey": KEY, "timeoutSeconds": TIMEOUT_SECONDS}
    config = stubbed_config(
        upstream.url,
        "openai/ok",
        defaults={"timeoutSeconds": 30},
        providers={"openai": provider, "anthropic": {**provider, "api": "anthropic-messages"}},
        retry={"attempts": 2, "minDelayMs": 10, "maxDelayMs": 20},
    )
    with live_gateway(tmp_path_factory.mktemp("gateway"), config) as running:
        with OpenAI(base_url=f"{running.url}/v1", api_key=TOKEN, max_retries=0, timeout=30) as client:
            yield client
        assert "Traceback" not in running.output
        assert KEY not in running.output


@pytest.fixture(params=["openai", "anthropic"])
def dialect(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def ask(sdk: OpenAI, model: str) -> str:
    """The text of a whole answer."""
    answer = sdk.chat.completions.create(
        model="openclaw", messages=[{"role": "user", "content": "hi"}], extra_headers={"x-openclaw-model": model}
    )
    return answer.choices[0].message.content or ""


def follow(sdk: OpenAI, model: str, heard: list[str]) -> None:
    """Read a streamed answer into `heard`."""
    chunks = sdk.chat.completions.create(
        model="openclaw",
        messages=[{"role": "user", "content": "hi"}],
        stream=True,
        extra_headers={"x-openclaw-model": model},
    )
    with chunks:
        heard.extend(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)


# What becomes of a bad day: the exception and its status, the error's code, words of its message, and what a stream
# had said before.
UNAVAILABLE = openai.InternalServerError
FAILURES = [
    ("status-400", openai.BadRequestError, 400, "provider_rejected_request", "refused with 400", ""),
    ("status-404", openai.BadRequestError, 400, "provider_rejected_request", "refused with 404", ""),
    ("overflow", openai.BadRequestError, 400, "context_length_exceeded", "rejected the request: ", ""),
    ("status-401", UNAVAILABLE, 502, "provider_authentication_failed", "Correct its apiKey", ""),
    ("status-429", openai.RateLimitError, 429, "rate_limit_exceeded", "refused with 429", ""),
    ("status-500", UNAVAILABLE, 502, "provider_error", "refused with 500", ""),
    ("garbage", UNAVAILABLE, 502, "provider_error", "not valid HTTP", ""),
    ("garbage-events", UNAVAILABLE, 502, "provider_error", "something that is not a", ""),
    ("drop-before", UNAVAILABLE, 502, "provider_error", "closed the connection", ""),
    ("drop-after", UNAVAILABLE, 502, "provider_error", "closed the connection", WORDS[0]),
    ("hang", UNAVAILABLE, 504, "provider_timeout", "did not answer in time", ""),
    ("hang-midway", UNAVAILABLE, 504, "provider_timeout", "did not answer in time", WORDS[0]),
]


@pytest.mark.parametrize("model", ["ok", "slow", "split"])
def test_answer_is_complete_however_it_is_sent(sdk: OpenAI, dialect: str, model: str) -> None:
    heard: list[str] = []
    follow(sdk, f"{dialect}/{model}", heard)
    assert "".join(heard) == ask(sdk, f"{dialect}/{model}") == TEXT


@pytest.mark.parametrize("status", [503, 529, 0])
def test_transient_failure_is_hidden_from_sdk(sdk: OpenAI, upstream: Upstream, dialect: str, status: int) -> None:
    model = f"fail-1-{status}"
    upstream.requests.clear()
    assert ask(sdk, f"{dialect}/{model}") == TEXT
    assert [received.body["model"] for received in upstream.requests] == [model, model]
    upstream.requests.clear()
    heard: list[str] = []
    follow(sdk, f"{dialect}/{model}", heard)
    assert "".join(heard) == TEXT
    assert len(upstream.requests) == 2


@pytest.mark.parametrize(("model", "error", "status", "code", "words", "before"), FAILURES)
def test_failure_raises_matching_sdk_exception(
    sdk: OpenAI,
    dialect: str,
    model: str,
    error: type[openai.APIStatusError],
    status: int,
    code: str,
    words: str,
    before: str,
) -> None:
    del before
    with pytest.raises(error) as caught:
        ask(sdk, f"{dialect}/{model}")
    assert (caught.value.status_code, caught.value.code) == (status, code)
    assert words in str(caught.value)


@pytest.mark.parametrize(("model", "error", "status", "code", "words", "before"), FAILURES)
def test_stream_failure_is_raised_before_or_after_partial_text(
    sdk: OpenAI,
    dialect: str,
    model: str,
    error: type[openai.APIStatusError],
    status: int,
    code: str,
    words: str,
    before: str,
) -> None:
    heard: list[str] = []
    with pytest.raises(openai.APIError) as caught:
        follow(sdk, f"{dialect}/{model}", heard)
    assert (caught.value.code, "".join(heard)) == (code, before)
    assert words in caught.value.message
    if not before:  # nothing was said yet: the stream has not begun, and the SDK may ask again
        assert isinstance(caught.value, error)
        assert caught.value.status_code == status


def test_answer_without_finish_is_interrupted(sdk: OpenAI, upstream: Upstream, dialect: str) -> None:
    words = f"exceeds {MAX_MESSAGE_CHARACTERS} characters"
    with pytest.raises(openai.InternalServerError, match=words):
        ask(sdk, f"{dialect}/endless")
    heard: list[str] = []
    with pytest.raises(openai.APIError, match=words):
        follow(sdk, f"{dialect}/endless", heard)
    assert 0 < len("".join(heard)) <= MAX_MESSAGE_CHARACTERS
    until(upstream.aborted.is_set)


def test_overflow_has_providers_message(sdk: OpenAI) -> None:
    for dialect, words in (("openai", "maximum context length is 8192"), ("anthropic", "prompt is too long: 9 > 8")):
        with pytest.raises(openai.BadRequestError, match=words):
            ask(sdk, f"{dialect}/overflow")


def test_retry_after_of_provider_reaches_sdk(sdk: OpenAI, dialect: str) -> None:
    with pytest.raises(openai.RateLimitError) as caught:
        ask(sdk, f"{dialect}/status-429")
    assert caught.value.response.headers["retry-after"] == RETRY_AFTER
    with pytest.raises(openai.RateLimitError) as caught:
        follow(sdk, f"{dialect}/status-429", [])
    assert caught.value.response.headers["retry-after"] == RETRY_AFTER
