"""Requests too large for their model: recognition of provider errors, and continuation of the session."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from support.chat import ask, error_of, text_of, user
from support.live import LiveGateway, live_gateway, stubbed_config
from support.upstream import Exchange, Upstream
from support.upstream_answers import frame

from service.core.errors import GatewayError
from service.models.errors.context_overflow import Overflow, limit_from_error, overflow_of, to_caller_error

PICTURE = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAA"
    "fFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
LIMIT_BYTES = 6_000

TOO_LARGE_FOR_A_MINUTE = (
    "Request too large for gpt-4o in organization org-x on tokens per min (TPM): Limit 1500, Requested 2000. "
    "The input or output tokens must be reduced in order to run successfully. "
    "Visit https://platform.openai.com/account/rate-limits to learn more."
)
MINUTE_USED_UP = (
    "Rate limit reached for gpt-4o in organization org-x on tokens per min (TPM): "
    "Limit 30000, Used 20000, Requested 15000. Please try again in 10s."
)

TOO_MANY_TOKENS = [
    ("This model's maximum context length is 8192 tokens. However, your messages resulted in 9001 tokens.", 8192),
    ("Your input exceeds the context window of this model. Please adjust your input and try again.", None),
    ("context_length_exceeded", None),
    ("prompt is too long: 213421 tokens > 200000 maximum", 200_000),
    ("input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000", 200_000),
    ("the request exceeds the available context size, try increasing it", None),
    ("request (9001 tokens) exceeds the available context size (8192 tokens), try increasing it", 8192),
    ("The decoder prompt (length 9001) is longer than the maximum model length of 8192.", 8192),
    ("You passed 9001 input tokens and requested 100 output tokens. However, the model's context length is 8192", 8192),
    ("The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).", 1_048_576),
    ("Please reduce the length of the messages or completion.", None),
    ("This endpoint's maximum context length is 32768 tokens. However, you requested about 42832 tokens.", 32_768),
    ("This model's maximum prompt length is 131072 but the request contains 537812 tokens.", 131_072),
    ("Input validation error: `inputs` tokens + `max_new_tokens` must be <= 2048. Given: 3474 `inputs` tokens", 2048),
    ("Input validation error: `inputs` must have less than 1024 tokens. Given: 1168", 1024),
    ("Prompt contains 9001 tokens and 0 draft tokens, too large for model with 8192 maximum context length", 8192),
    ("Invalid request: Your request exceeded model token limit: 262144 (requested: 270000)", 262_144),
    ("invalid params, context window exceeds limit", None),
    ("Range of input length should be [1, 30720]", 30_720),
    ("length of prompt_tokens (163280) must be less than max_seq_len (32768).", 32_768),
    ("prompt token count of 100000 exceeds the limit of 65536", 65_536),
    ("prompt too long; exceeded max context length by 12 tokens", None),
    ("Prompt exceeds max length", None),
    ("Input length 131393 exceeds the maximum allowed input length of 131040 tokens.", 131_040),
    ("Input length (10000 tokens) exceeds the maximum allowed length (8192 tokens). Use a shorter input.", 8192),
    ("Input length (10,000 tokens) exceeds the allowed length (8,192 tokens).", 8192),
    ("The input (10000 tokens) is longer than the model's context length (8192 tokens).", 8192),
    ("This model's maximum context length is 400,000 tokens, your messages resulted in 410,000 tokens.", 400_000),
    ("prompt is too long: 1,034,211 tokens > 1,000,000 maximum", 1_000_000),
    ("Your input exceeds the context window of this model. The limit is 272,000 tokens.", 272_000),
    ("The prompt is too long: 200000, model maximum context length: 131071", 131_071),
    ("Range of input length should be [1,512]", 512),
    ("prompt too long; exceeded max context length by 1200 tokens", None),
    ("This model's maximum context length is 400.000 tokens.", None),
    ("This model's maximum context length is 32k tokens.", None),
    (
        "Request too large for model `llama` in organization on tokens per minute (TPM): Limit 6000, Requested 7000",
        6000,
    ),
    (TOO_LARGE_FOR_A_MINUTE, 1500),
    ("Request too large for gpt-4.1 (for limit gpt-4.1) on tokens per min (TPM): Limit 30000", 30_000),
    ("Request too large for gpt-4 in organization org-x on tokens_usage_based per min: Limit 10,000", 10_000),
]
TOO_MUCH_ELSE = [
    ("Request exceeds the maximum size", Overflow.BYTES),
    ("Request Entity Too Large", Overflow.BYTES),
    ("The model provider rejected the request (HTTP 413).", Overflow.BYTES),
    ("messages.8.content: Too many images and documents: 101 + 0 > 100", Overflow.PICTURES),
    ("Too many images provided. This model supports up to 5 images", Overflow.PICTURES),
    ("At most 4 image(s) may be provided in one prompt.", Overflow.PICTURES),
    ("At least one of the image dimensions exceed max allowed size for many-image requests: 2000", Overflow.PICTURES),
]


def rejected(words: str) -> GatewayError:
    return GatewayError("provider_rejected_request", f"The provider rejected it: {words}")


@pytest.mark.parametrize(("words", "limit"), TOO_MANY_TOKENS)
def test_token_overflow_and_limit_are_read_from_provider_message(words: str, limit: int | None) -> None:
    assert overflow_of(rejected(words)) is Overflow.TOKENS
    assert limit_from_error(rejected(words)) == limit
    assert to_caller_error(rejected(words)).code == "context_length_exceeded"


@pytest.mark.parametrize(("words", "overflow"), TOO_MUCH_ELSE)
def test_byte_and_image_overflows_are_recognised_and_passed_on(words: str, overflow: Overflow) -> None:
    assert overflow_of(rejected(words)) is overflow
    assert to_caller_error(rejected(words)).code == "provider_rejected_request"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("provider_rejected_request", "Invalid value for temperature: 3"),
        ("provider_rejected_request", "max_tokens is too large: 900000"),
        ("provider_rejected_request", "Rate limit reached: too many tokens per minute"),
        ("provider_rejected_request", MINUTE_USED_UP),
        ("provider_rejected_request", "string too long at messages[0].name"),
        ("provider_rejected_request", "image is too large"),
        (
            "provider_rejected_request",
            "string too long. Expected a string with maximum length 1024, but got a string with length 2000 instead.",
        ),
        ("provider_error", "maximum context length is 8192 tokens"),
    ],
)
def test_other_errors_are_not_overflow(code: str, words: str) -> None:
    assert overflow_of(GatewayError(code, words)) is None


def config_of(upstream: Upstream) -> dict[str, Any]:
    return stubbed_config(upstream.url, "stub/play")


def by(model: str) -> dict[str, str]:
    return {"x-openclaw-model": f"stub/{model}"}


class Taking:
    """A model that refuses, as `refuse` does, requests that are `too_much` for it, and else answers."""

    def __init__(self, too_much: Callable[[str], bool], refuse: Callable[[Exchange], None]) -> None:
        self.too_much, self.refuse = too_much, refuse
        self.refusals = 0

    def __call__(self, exchange: Exchange) -> None:
        if self.too_much(str(exchange.body["messages"])):
            self.refusals += 1
            self.refuse(exchange)
        else:
            exchange.head()
            exchange.event({"content": "SUMMARY: they talked about fruit."})
            exchange.end()


def saying(status: int, words: str) -> Callable[[Exchange], None]:
    return lambda exchange: exchange.json(status, {"error": {"message": words}})


def telling(error: dict[str, Any]) -> Callable[[Exchange], None]:
    return lambda exchange: exchange.json(400, {"error": error})


def streaming(error: dict[str, Any]) -> Callable[[Exchange], None]:
    def refuse(exchange: Exchange) -> None:
        exchange.head()
        exchange.send(frame({"error": error}))
        exchange.last_chunk()

    return refuse


WRAPPED = json.dumps({"error": {"message": "This model's maximum context length is 1500 tokens."}})


def bare(exchange: Exchange) -> None:
    """A refusal by a proxy in front of the model, which does not say it in JSON."""
    exchange.send_response(413)
    exchange.send_header("Content-Length", "0")
    exchange.end_headers()


@pytest.fixture(scope="module")
def gateway(module_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    """A gateway which learns of each model what one test has it learn."""
    with live_gateway(tmp_path_factory.mktemp("gateway"), config_of(module_upstream)) as running:
        yield running


@pytest.fixture(scope="module")
def retrying(module_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    """A gateway that asks again where that may help."""
    config = config_of(module_upstream)
    config["models"]["retry"] = {"attempts": 3, "minDelayMs": 1}
    with live_gateway(tmp_path_factory.mktemp("retrying"), config) as running:
        yield running


@pytest.fixture
def name() -> str:
    """A model that no other test asks: what was once said of one is not forgotten."""
    return uuid.uuid4().hex


@pytest.mark.parametrize(
    "refuse",
    [
        saying(400, "This model's maximum prompt length is 1500 but the request contains 2000 tokens."),
        saying(422, "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 1500. Given: 2000"),
        saying(413, "Request exceeds the maximum size"),
        saying(413, "Request too large for model `x` on tokens per minute (TPM): Limit 1500, Requested 2000"),
        saying(429, TOO_LARGE_FOR_A_MINUTE),
        streaming({"message": TOO_LARGE_FOR_A_MINUTE, "type": "tokens", "code": "rate_limit_exceeded"}),
        telling({"message": "Provider returned error", "code": 400, "metadata": {"raw": WRAPPED}}),
        telling({"message": "Das war zu viel.", "code": "context_length_exceeded"}),
        streaming({"message": "Das war zu viel.", "code": "context_length_exceeded"}),
        bare,
    ],
)
def test_session_of_undescribed_model_continues_after_overflow(
    client: httpx.Client, upstream: Upstream, session: dict[str, str], name: str, refuse: Callable[[Exchange], None]
) -> None:
    model = upstream.answers[name] = Taking(lambda shown: len(shown) > LIMIT_BYTES, refuse)
    for number in range(8):
        text_of(ask(client, f"number {number}: " + "fruit " * 200, headers=session | by(name)))
    assert model.refusals
    assert "SUMMARY" in str(upstream.requests[-1].body["messages"])
    assert "number 7" in str(upstream.requests[-1].body["messages"][-1])


@pytest.mark.parametrize(
    "words", ["maximum context length is 1500 tokens", "context_length_exceeded", "prompt is too long"]
)
def test_session_many_times_larger_than_window_continues(
    client: httpx.Client, upstream: Upstream, session: dict[str, str], name: str, words: str
) -> None:
    upstream.answers |= {
        "play": Taking(lambda _: False, bare),
        name: Taking(lambda shown: len(shown) > LIMIT_BYTES, saying(400, words)),
    }
    for number in range(30):
        text_of(ask(client, f"number {number}: " + "fruit " * 200, headers=session))
    text_of(ask(client, "and now?", headers=session | by(name)))
    assert len(str(upstream.requests[-1].body["messages"])) <= LIMIT_BYTES


def test_request_larger_than_rate_limit_is_context_overflow(retrying: LiveGateway, upstream: Upstream) -> None:
    model = upstream.answers["large"] = Taking(lambda _: True, saying(429, TOO_LARGE_FOR_A_MINUTE))
    with retrying.client() as client:
        answer = ask(client, "fruit " * 2_000, headers=by("large"))
    assert error_of(answer)[:2] == (400, "context_length_exceeded")
    assert TOO_LARGE_FOR_A_MINUTE in answer.text
    assert model.refusals == 1


def test_exhausted_token_rate_is_rate_limit(retrying: LiveGateway, upstream: Upstream) -> None:
    model = upstream.answers["busy"] = Taking(lambda _: True, saying(429, MINUTE_USED_UP))
    with retrying.client() as client:
        answer = ask(client, "hi", headers=by("busy"))
    assert error_of(answer)[:2] == (429, "rate_limit_exceeded")
    assert model.refusals == 3


def test_images_of_earlier_turns_are_removed_for_new_ones(
    client: httpx.Client, upstream: Upstream, session: dict[str, str]
) -> None:
    refuse = saying(400, "messages.3.content: Too many images and documents: 5 + 0 > 4")
    model = upstream.answers["pictures"] = Taking(lambda shown: shown.count("image_url': {") > 4, refuse)
    picture = {"type": "image_url", "image_url": {"url": PICTURE}}
    for _ in range(3):
        text_of(ask(client, user([picture] * 2), headers=session | by("pictures")))
    assert model.refusals == 1
    answer = ask(client, user([picture] * 5), headers=by("pictures"))
    assert error_of(answer)[:2] == (400, "provider_rejected_request")
    assert "Too many images" in answer.text
    assert model.refusals == 2
