"""Retry and fallback across models until output has been streamed, over real sockets."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from email.utils import formatdate
from typing import Any

import pytest
from support.interruption import interrupt_once
from support.polling import until
from support.provider_calls import KEY, Answer, ask, fail, open_provider, request
from support.upstream import Exchange, Upstream
from support.upstream_answers import TEXT, WORDS, frame, ok

from service.config.models import RetryConfig
from service.core import concurrency
from service.core.dataclass import replace
from service.core.errors import GatewayError
from service.core.messages import Image, Message, Role, Sampling, Usage, text_message
from service.core.usage import Price, total_of
from service.models.catalog import ChosenModel
from service.models.context_windows import LearnedWindows
from service.models.errors.http_errors import status_error
from service.models.fallback import RETRYABLE, FallbackProvider, RetryPolicy
from service.models.openai.provider import OpenAIProvider
from service.models.provider import ModelEnded, ModelRequest, Provider, TextReceiver
from service.models.scripted import ScriptedProvider
from service.models.tokens import BYTES_PER_TOKEN

PICTURE = Message(Role.USER, (Image("data:image/png;base64,iVBORw0KGgo="),))


class Clock:
    """Time that passes only in waits."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0
        self.waits: list[float] = []

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds


class Refusing:
    """A provider that always fails, `seconds` after it was asked."""

    def __init__(self, clock: Clock, error: GatewayError, seconds: float = 0.0) -> None:
        self.clock, self.error, self.seconds = clock, error, seconds
        self.asked = 0

    def ask(self, _: ModelRequest, on_text: TextReceiver) -> ModelEnded:
        del on_text
        self.asked += 1
        self.clock.now += self.seconds
        raise self.error

    def close(self) -> None:
        """Nothing is held."""


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def provider(upstream: Upstream) -> Iterator[OpenAIProvider]:
    opened = open_provider(upstream.url, timeout_seconds=0.3)
    yield opened
    opened.close()


def chosen(provider: Provider, model: str, *, takes_images: bool = True) -> ChosenModel:
    return ChosenModel(f"stub/{model}", model, provider, takes_images)


def resilient(clock: Clock, *choices: ChosenModel, policy: RetryPolicy | None = None) -> FallbackProvider:
    policy = policy or RetryPolicy(min_delay_seconds=1, max_delay_seconds=20)
    return FallbackProvider(
        choices, policy, windows=LearnedWindows(), clock=clock.time, sleep=clock.sleep, random=lambda: 0.5
    )


def asked_models(upstream: Upstream) -> list[str]:
    return [received.body["model"] for received in upstream.requests]


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504, 529, 0])
def test_transient_failure_is_retried(clock: Clock, provider: OpenAIProvider, upstream: Upstream, status: int) -> None:
    model = f"fail-2-{status}"
    assert ask(resilient(clock, chosen(provider, model)), "any")[0] == TEXT
    assert asked_models(upstream) == [model] * 3
    assert clock.waits == ([17, 17] if status == 429 else [0.75, 1.5])


@pytest.mark.parametrize(
    ("model", "outcome"),
    [
        ("status-400", ("provider_rejected_request", 1)),
        ("status-404", ("provider_rejected_request", 1)),
        ("status-401", ("provider_authentication_failed", 1)),
        *((f"status-{status}", ("provider_error", 1)) for status in (301, 302, 307, 308, 402, 405, 410)),
        ("status-503", ("provider_error", 3)),
        ("hang", ("provider_timeout", 3)),
        ("drop-before", ("provider_error", 3)),
        ("garbage", ("provider_error", 3)),
    ],
)
def test_last_failure_is_raised_unchanged(
    clock: Clock, provider: OpenAIProvider, upstream: Upstream, model: str, outcome: tuple[str, int]
) -> None:
    code, attempts = outcome
    model_provider = resilient(clock, chosen(provider, model))
    assert fail(model_provider, "any")[1].code == code
    assert len(upstream.requests) == attempts
    assert model_provider.answered is None


FAILED = "The model provider failed: refused with 503"
REFUSED = "The model provider refused the gateway's credentials (HTTP 401). Correct its apiKey. It says: refused with"
REJECTED = "The model provider rejected the request: refused with 400"


def test_every_failure_is_logged_with_its_model(
    clock: Clock, provider: OpenAIProvider, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        models = [chosen(provider, f"status-{status}") for status in (503, 401, 400)]
        fail(resilient(clock, *models, policy=RetryPolicy(attempts=2, min_delay_seconds=1)), "any")
    assert [record.getMessage() for record in caplog.records] == [
        f"the model stub/status-503 failed, asking again in 0.8 s: provider_error: {FAILED}",
        f"the model stub/status-503 failed, asking the next: provider_error: {FAILED}",
        f"the model stub/status-401 failed, asking the next: provider_authentication_failed: {REFUSED} 401",
        f"the model stub/status-400 failed: provider_rejected_request: {REJECTED}",
    ]


def test_log_of_retry_quotes_neither_request_nor_answer(
    clock: Clock, upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    def quote(exchange: Exchange) -> None:
        exchange.json(401, {"error": {"message": f"Key {KEY} may not ask Marzipan7731 of Hello"}})

    upstream.answers["quote"] = quote
    opened = open_provider(upstream.url)
    asked = replace(request("any", text_message(Role.USER, "Marzipan7731")), collected=True)
    with caplog.at_level(logging.WARNING):
        chain = resilient(clock, *(chosen(opened, model) for model in ("quote", "error-event", "ok")))
        assert ask(chain, asked)[0] == TEXT
    opened.close()
    first, *later = [record.getMessage() for record in caplog.records]
    assert "Key *** may not ask [...] of Hello" in first
    assert [line.rpartition(": ")[2] for line in later] == ["provider_error"] * 3
    assert KEY not in caplog.text


@pytest.mark.parametrize(("model", "text"), [("drop-after", WORDS[0]), ("error-event", WORDS[0]), ("no-finish", TEXT)])
def test_streamed_text_is_never_repeated(
    clock: Clock, provider: OpenAIProvider, upstream: Upstream, model: str, text: str
) -> None:
    told, error = fail(resilient(clock, chosen(provider, model), chosen(provider, "ok")), "any")
    assert (told, error.code) == (text, "provider_error")
    assert asked_models(upstream) == [model]


@pytest.mark.parametrize("model", ["drop-after", "error-event", "no-finish"])
def test_collected_answer_is_retried_after_failure_in_middle(
    clock: Clock, provider: OpenAIProvider, upstream: Upstream, model: str
) -> None:
    asking = resilient(clock, chosen(provider, model), chosen(provider, "ok"))
    assert ask(asking, request("any", collected=True))[0] == TEXT
    assert asked_models(upstream) == [model] * 3 + ["ok"]


@pytest.mark.parametrize("model", ["status-503", "status-429", "status-401", "status-404", "hang", "drop-before"])
def test_fallbacks_are_tried_in_order(clock: Clock, provider: OpenAIProvider, upstream: Upstream, model: str) -> None:
    once = RetryPolicy(attempts=1)
    choices = [chosen(provider, name) for name in (model, "status-500", "ok", "echo")]
    answering = resilient(clock, *choices, policy=once)
    assert ask(answering, "any")[0] == TEXT
    assert asked_models(upstream) == [model, "status-500", "ok"]
    assert answering.answered is choices[2]
    assert clock.waits == []


def test_rejected_request_is_not_sent_to_fallback(clock: Clock, provider: OpenAIProvider, upstream: Upstream) -> None:
    error = fail(resilient(clock, chosen(provider, "status-400"), chosen(provider, "ok")), "any")[1]
    assert "refused with 400" in error.message
    assert asked_models(upstream) == ["status-400"]


def test_html_page_is_not_accepted_as_answer(clock: Clock, provider: OpenAIProvider, upstream: Upstream) -> None:
    def page(exchange: Exchange) -> None:
        exchange.head(200, "text/html; charset=utf-8")
        exchange.send(b"<!doctype html><title>Sign in</title>")
        exchange.last_chunk()

    upstream.answers["page"] = page
    error = fail(resilient(clock, chosen(provider, "page")), "any")[1]
    assert error.message.startswith("The model provider answered with a web page. Check its baseUrl.")
    assert ask(resilient(clock, chosen(provider, "page"), chosen(provider, "ok")), "any")[0] == TEXT
    assert asked_models(upstream) == ["page", "page", "ok"]


def test_event_stream_labelled_html_is_accepted(clock: Clock, provider: OpenAIProvider, upstream: Upstream) -> None:
    def answer(exchange: Exchange) -> None:
        exchange.head(200, "text/html; charset=utf-8")
        exchange.words()
        exchange.end()

    upstream.answers["php"] = answer
    assert ask(resilient(clock, chosen(provider, "php")), "any")[0] == TEXT


@pytest.mark.parametrize(("first", "retryable"), [("status-503", True), ("status-401", False), ("status-404", False)])
def test_permanent_failure_of_fallback_does_not_stop_retries(
    clock: Clock, provider: OpenAIProvider, first: str, retryable: bool
) -> None:
    once = RetryPolicy(attempts=1)
    error = fail(resilient(clock, chosen(provider, first), chosen(provider, "status-401"), policy=once), "any")[1]
    assert (error.code, error.is_retryable) == ("provider_authentication_failed", retryable)


def test_later_turns_start_with_model_that_answered(clock: Clock, provider: OpenAIProvider, upstream: Upstream) -> None:
    choices = [chosen(provider, name) for name in ("status-401", "fail-0-500", "echo")]
    answering = resilient(clock, *choices)
    for _ in range(2):
        assert ask(answering, "any")[0] == TEXT
    assert asked_models(upstream) == ["status-401", "fail-0-500", "fail-0-500"]


def test_model_that_answered_is_replaced_after_later_failure(clock: Clock, provider: OpenAIProvider) -> None:
    with Upstream() as short_lived:
        first = open_provider(short_lived.url)
        choices = [ChosenModel("short/ok", "ok", first, takes_images=True), chosen(provider, "ok")]
        answering = resilient(clock, *choices)
        ask(answering, "any")
        assert answering.answered is choices[0]
    assert ask(answering, "any")[0] == TEXT
    assert answering.answered is choices[1]
    first.close()


def test_fallback_without_image_input_is_skipped(clock: Clock, provider: OpenAIProvider, upstream: Upstream) -> None:
    blind = chosen(provider, "ok", takes_images=False)
    answering = resilient(clock, chosen(provider, "status-401"), blind, chosen(provider, "echo"))
    assert ask(answering, request("any", PICTURE))[0] == "1 images"
    assert asked_models(upstream) == ["status-401", "echo"]


def test_max_tokens_is_limited_for_each_model(clock: Clock, provider: OpenAIProvider, upstream: Upstream) -> None:
    small = ChosenModel("stub/ok", "ok", provider, takes_images=True, max_tokens=100)
    for asked, sent in ((500, 100), (50, 50), (None, 100)):
        ask(resilient(clock, small), request("any", sampling=Sampling(max_tokens=asked)))
        assert upstream.requests[-1].body.get("max_tokens") == sent


def test_local_model_is_not_retried(clock: Clock) -> None:
    scripted = ChosenModel("scripted/x", "fail-provider_error", ScriptedProvider(), False, retried=False)
    echo = ChosenModel("scripted/echo", "echo", ScriptedProvider(), False)
    assert ask(resilient(clock, scripted, echo), "any")[0] == "Hello?"
    assert clock.waits == []


def test_delays_double_up_to_maximum(clock: Clock) -> None:
    refusing = Refusing(clock, GatewayError("provider_error", "no"))
    policy = RetryPolicy(attempts=6, min_delay_seconds=1, max_delay_seconds=5)
    fail(resilient(clock, ChosenModel("a/b", "b", refusing, False), policy=policy), "any")
    assert refusing.asked == 6
    assert clock.waits == [0.75, 1.5, 3, 3.75, 3.75]


def test_no_attempt_starts_after_time_limit(clock: Clock) -> None:
    refusing = Refusing(clock, GatewayError("provider_timeout", "no"), seconds=25)
    policy = RetryPolicy(attempts=9, max_elapsed_seconds=60)
    fail(resilient(clock, ChosenModel("a/b", "b", refusing, False), policy=policy), "any")
    assert refusing.asked == 3


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504, 529])
def test_retry_after_date_is_converted_to_seconds(status: int) -> None:
    at = time.time() + 60
    told = int(status_error(status, "", formatdate(at, usegmt=True)).headers["Retry-After"])
    assert 30 < told <= 61
    assert status_error(status, "", formatdate(0, usegmt=True)).headers == {"Retry-After": "0"}
    for wish, seconds in (("7", "7"), ("1.5", "2"), (".2", "1"), ("0.0", "0"), ("9" * 400, "999999")):
        assert status_error(status, "", wish).headers == {"Retry-After": seconds}
    for nonsense in ("", "soon", "-5", "1,5", "1e9", "nan", "Fri, 99 Foo 2026 00:00:00 GMT"):
        assert status_error(status, "", nonsense).headers == {}


def test_permanent_error_has_no_retry_after() -> None:
    assert status_error(402, "", "7").headers == {"x-should-retry": "false"}


@pytest.mark.parametrize("status", [500, 502, 503, 529])
@pytest.mark.parametrize(("told", "wait"), [("3", 3), ("2.5", 3), (formatdate(0, usegmt=True), 0.75)])
def test_retry_after_of_server_error_is_honoured(
    clock: Clock, provider: OpenAIProvider, upstream: Upstream, status: int, told: str, wait: float
) -> None:
    def answer(exchange: Exchange) -> None:
        if len(upstream.requests) > 1:
            return ok(exchange)
        return exchange.json(status, {}, Retry_After=told)

    upstream.answers["later"] = answer
    assert ask(resilient(clock, chosen(provider, "later")), "any")[0] == TEXT
    assert clock.waits == [wait]


@pytest.mark.parametrize(("headers", "wait"), [({"retry_after_ms": "2500", "retry_after": "9"}, 3), ({}, 0.75)])
def test_retry_after_in_milliseconds_is_honoured(
    clock: Clock, provider: OpenAIProvider, upstream: Upstream, headers: dict[str, str], wait: float
) -> None:
    def answer(exchange: Exchange) -> None:
        if len(upstream.requests) > 1:
            return ok(exchange)
        return exchange.json(429, {}, **headers)

    upstream.answers["later"] = answer
    assert ask(resilient(clock, chosen(provider, "later")), "any")[0] == TEXT
    assert clock.waits == [wait]


QUOTA = "You exceeded your current quota, please check your plan and billing details."


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("error", "attempts"),
    [
        ({"message": QUOTA, "code": "insufficient_quota"}, 1),
        ({"message": "Nope.", "code": "insufficient_quota"}, 1),
        ({"message": QUOTA, "code": 429}, 1),
        ({"message": f"{QUOTA} Please retry in 28.5s.", "code": 429}, 3),
        ({"message": "Rate limit reached.", "code": "rate_limit_exceeded"}, 3),
    ],
)
def test_exhausted_quota_uses_fallback_without_retry(
    clock: Clock, provider: OpenAIProvider, upstream: Upstream, error: dict[str, Any], attempts: int, streamed: bool
) -> None:
    def answer(exchange: Exchange) -> None:
        if not streamed:
            return exchange.json(429, {"error": error})
        exchange.head()
        exchange.send(frame({"error": error}))
        return exchange.last_chunk()

    upstream.answers["spent"] = answer
    assert ask(resilient(clock, chosen(provider, "spent"), chosen(provider, "ok")), "any")[0] == TEXT
    assert asked_models(upstream) == ["spent"] * attempts + ["ok"]
    told = fail(resilient(clock, chosen(provider, "spent")), "any")[1]
    assert (told.code, error["message"] in told.message) == ("rate_limit_exceeded", True)


@pytest.mark.parametrize(
    ("retry_after", "waits"),
    [
        ("0", [0.75]),
        ("3", [3]),
        ("20", [20]),
        ("21", []),
        ("999999", []),
    ],
)
def test_retry_after_is_honoured_within_limits(clock: Clock, retry_after: str, waits: list[float]) -> None:
    error = GatewayError("rate_limit_exceeded", "no", headers={"Retry-After": retry_after})
    policy = RetryPolicy(attempts=2, min_delay_seconds=1, max_delay_seconds=20)
    refusing = Refusing(clock, error)
    told = fail(resilient(clock, ChosenModel("a/b", "b", refusing, False), policy=policy), "any")[1]
    assert told is error
    assert clock.waits == waits


@pytest.mark.parametrize(("share", "seconds"), [(0.0, 2.0), (0.5, 1.5), (1.0, 1.0)])
def test_delay_is_reduced_by_random_jitter_of_up_to_half(share: float, seconds: float) -> None:
    assert RetryPolicy(min_delay_seconds=2).delay_seconds(1, share, None) == seconds


def test_callers_error_is_never_retried() -> None:
    assert all(GatewayError(code, "").status in (429, 502, 503, 504) for code in RETRYABLE)


def test_retry_configuration_is_in_milliseconds() -> None:
    assert RetryPolicy.from_config(RetryConfig()) == RetryPolicy()
    config = RetryConfig.model_validate({"attempts": 2, "minDelayMs": 100, "maxDelayMs": 200, "maxElapsedMs": 300})
    assert RetryPolicy.from_config(config) == RetryPolicy(2, 0.1, 0.2, 0.3)


def test_retry_delay_can_be_cancelled(provider: OpenAIProvider, upstream: Upstream) -> None:
    patient = RetryPolicy(min_delay_seconds=50, max_delay_seconds=50)
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        concurrency.sleep(seconds)

    answering = FallbackProvider([chosen(provider, "status-500")], patient, windows=LearnedWindows(), sleep=wait)
    interrupt_once(lambda: waits, lambda: ask(answering, "any"))
    assert len(upstream.requests) == 1


def test_leaving_answer_ends_upstream_request(clock: Clock, provider: OpenAIProvider, upstream: Upstream) -> None:
    answer = Answer(resilient(clock, chosen(provider, "slow")), "any")
    assert answer.next_text() == WORDS[0]
    answer.leave()
    until(upstream.aborted.is_set)


def priced(provider: Provider, model: str) -> ChosenModel:
    """Input is a dollar for a million tokens, a tenth of it if cached, and output four."""
    return ChosenModel(
        f"stub/{model}", model, provider, takes_images=True, price=Price(1_000_000, 4_000_000, 100_000, 0)
    )


COST_NANO = 4 * 1000 + 3 * 100 + 5 * 4000  # of seven tokens, three of them cached, and five of output


def test_the_calls_of_a_run_are_known_with_their_cost(clock: Clock, provider: OpenAIProvider) -> None:
    models = resilient(clock, priced(provider, "fail-2-503"), priced(provider, "ok"))
    for _ in range(2):
        assert ask(models, "any")[1].usage.cost_nano == COST_NANO
    assert [call.model for call in models.calls] == ["stub/fail-2-503"] * 2
    total = total_of(models.calls)
    assert (total, total.cost_nano) == (Usage(14, 10, 6), 2 * COST_NANO)


def test_the_cost_of_a_fallback_is_its_own(clock: Clock, provider: OpenAIProvider) -> None:
    models = resilient(clock, chosen(provider, "status-401"), priced(provider, "ok"))
    assert ask(models, "any")[1].usage.cost_nano == COST_NANO
    assert [call.model for call in models.calls] == ["stub/ok"]  # a refused call costs nothing


@pytest.mark.parametrize(("model", "calls"), [("drop-after", 1), ("hang", 3), ("status-400", 0)])
def test_the_cost_of_a_call_that_was_cut_off_is_not_known(
    clock: Clock, provider: OpenAIProvider, model: str, calls: int
) -> None:
    models = resilient(clock, priced(provider, model))
    fail(models, "any")
    assert [call.usage.cost_nano for call in models.calls] == [None] * calls
    assert total_of(models.calls).cost_nano == (None if calls else 0)
    assert all(call.estimate_nano >= 1000 for call in models.calls)  # at least a token of input


def test_the_cost_of_a_cancelled_call_is_not_known(clock: Clock) -> None:
    models = resilient(clock, priced(ScriptedProvider(), "silent"))
    with pytest.raises(concurrency.Deadline), concurrency.deadline(0.05):
        ask(models, "any")
    assert [call.usage.cost_nano for call in models.calls] == [None]


def test_a_call_that_was_cut_off_has_an_estimate_of_what_it_wrote(clock: Clock) -> None:
    asked = [resilient(clock, priced(ScriptedProvider(), model)) for model in ("silent", "stuck")]
    for models in asked:
        with pytest.raises(concurrency.Deadline), concurrency.deadline(0.05):
            ask(models, "any")
    [silent], [stuck] = (models.calls for models in asked)
    assert stuck.estimate_nano == silent.estimate_nano + len("Well") // BYTES_PER_TOKEN * 4000


def test_a_model_without_a_price_or_a_count_has_no_cost_unless_it_is_free() -> None:
    counted, uncounted = Usage(7, 5), Usage()
    provider = ScriptedProvider()
    assert priced(provider, "m").costed(counted).cost_nano == 7 * 1000 + 5 * 4000
    assert chosen(provider, "m").costed(counted).cost_nano is None
    assert priced(provider, "m").costed(uncounted).cost_nano is None
    free = replace(priced(provider, "m"), price=Price(0, 0, 0, 0))
    assert free.costed(uncounted).cost_nano == 0
