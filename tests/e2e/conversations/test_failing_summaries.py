"""Failing summaries: the conversation continues uncompacted, or the error names the cause."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.chat import ask, error_of, text_of
from support.live import LiveGateway, live_gateway, stubbed_config
from support.upstream import Exchange, Upstream
from support.upstream_answers import hang

from e2e.conversations.test_window_bounds import MESSAGE, TALK, count, is_summary

BAD_SUMMARY = (400, "temperature has to be 1")
BUSY = (503, "come back later")


class Failing:
    """A model that fails to summarise and, if `is_short`, refuses whatever is asked for its length."""

    def __init__(self, status: int, words: str, *, is_short: bool) -> None:
        self.failure, self.is_short = (status, words), is_short
        self.summaries = self.others = 0

    def __call__(self, exchange: Exchange) -> None:
        if is_summary(exchange.body):
            self.summaries += 1
            exchange.json(self.failure[0], {"error": {"message": self.failure[1]}})
        elif self.is_short:
            self.others += 1
            exchange.json(400, {"error": {"message": "prompt is too long"}})
        else:
            self.others += 1
            count(exchange, 10)


def config_of(upstream: Upstream) -> dict[str, Any]:
    rows = [{"id": model, "contextWindow": 1_000} for model in ("play", "short", "falls")]
    agents = [
        {"id": "main", "default": True},
        {"id": "falling", "model": {"primary": "stub/falls", "fallbacks": ["stub/other"]}},
    ]
    return stubbed_config(upstream.url, "stub/play", agents=agents, models=rows)


@pytest.fixture(scope="module")
def gateway(module_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    with live_gateway(tmp_path_factory.mktemp("gateway"), config_of(module_upstream)) as running:
        yield running


@pytest.mark.parametrize("failure", [BAD_SUMMARY, BUSY])
def test_session_continues_uncompacted_after_failed_summary(
    client: httpx.Client, upstream: Upstream, session: dict[str, str], failure: tuple[int, str]
) -> None:
    model = upstream.answers["play"] = Failing(*failure, is_short=False)
    for _ in range(4):
        assert text_of(ask(client, MESSAGE, headers=session)) == "OK"
    assert (model.summaries > 0, model.others) == (True, 4)
    assert str(upstream.requests[-1].body["messages"]).count(MESSAGE) == 4


@pytest.mark.parametrize(
    ("failure", "told"), [(BAD_SUMMARY, (400, "context_length_exceeded")), (BUSY, (502, "provider_error"))]
)
@pytest.mark.parametrize("name", ["short", "undescribed"])
def test_conversation_that_cannot_be_compacted_is_context_overflow(
    client: httpx.Client, upstream: Upstream, failure: tuple[int, str], told: tuple[int, str], name: str
) -> None:
    upstream.answers[name] = Failing(*failure, is_short=True)
    answer = ask(client, *TALK, headers={"x-openclaw-model": f"stub/{name}"})
    status, code, message = error_of(answer)[0], error_of(answer)[1], answer.json()["error"]["message"]
    assert (status, code) == told
    assert message.startswith("The conversation is too long for the model, and summarising its beginning failed:")
    assert failure[1] in message


@pytest.mark.parametrize("failure", [BAD_SUMMARY, BUSY])
def test_fallback_answers_after_overflow_and_failed_summary(
    client: httpx.Client, upstream: Upstream, failure: tuple[int, str]
) -> None:
    upstream.answers |= {
        "falls": Failing(*failure, is_short=True),
        "other": Failing(*failure, is_short=False),
    }
    assert text_of(ask(client, *TALK, model="openclaw/falling")) == "OK"
    last = upstream.requests[-1].body
    assert (last["model"], str(last["messages"]).count(MESSAGE)) == ("other", 2)


def test_fallback_answers_conversation_that_cannot_be_compacted(client: httpx.Client, upstream: Upstream) -> None:
    upstream.answers |= {
        "falls": (falls := Failing(*BAD_SUMMARY, is_short=True)),
        "other": Failing(*BAD_SUMMARY, is_short=False),
    }
    assert text_of(ask(client, MESSAGE, model="openclaw/falling")) == "OK"
    assert (falls.summaries, falls.others) == (0, 1)
    refused = ask(client, MESSAGE, headers={"x-openclaw-model": "stub/falls"})
    assert error_of(refused)[:2] == (400, "context_length_exceeded")


def test_overflow_is_reported_when_fallback_fails_otherwise(client: httpx.Client, upstream: Upstream) -> None:
    upstream.answers["falls"] = Failing(*BAD_SUMMARY, is_short=True)
    upstream.answers["other"] = lambda exchange: exchange.json(401, {"error": {"message": "who are you?"}})
    refused = ask(client, MESSAGE, model="openclaw/falling")
    assert error_of(refused) == (400, "context_length_exceeded", "messages")
    assert "prompt is too long" in refused.text
    assert upstream.requests[-1].body["model"] == "other"


def test_hanging_summary_ends_with_run(upstream: Upstream, tmp_path: Path) -> None:
    upstream.answers["play"] = hang
    config = config_of(upstream)
    config["agents"]["defaults"]["timeoutSeconds"] = 1
    with live_gateway(tmp_path, config) as running, running.client() as client:
        assert error_of(ask(client, *TALK))[:2] == (504, "run_timeout")
    assert [is_summary(received.body) for received in upstream.requests] == [True]
