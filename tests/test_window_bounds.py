"""Whose window counts, and by whose counts: models of one name, fallbacks, and the room that an answer needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import upstream_answers_anthropic as anthropic
from chat import ask, text_of
from live import TOKEN, live_gateway
from upstream import Exchange, Upstream
from upstream_answers import refuse

WINDOW = 8_000
MESSAGE = "fruit " * 800  # 1200 tokens
TALK = (MESSAGE, {"role": "assistant", "content": "OK"}, MESSAGE, {"role": "assistant", "content": "OK"}, "and now?")


def config_of(upstream: Upstream, *models: str, **fields: Any) -> dict[str, Any]:
    """Two providers of the same models, which the stub knows apart by their keys."""
    rows = [{"id": model, "contextWindow": WINDOW, **fields} for model in models]
    return {
        "gateway": {
            "auth": {"mode": "token", "token": TOKEN},
            "http": {"endpoints": {"chatCompletions": {"enabled": True}}},
        },
        "agents": {"defaults": {"model": "dear/play"}},
        "models": {
            "retry": {"attempts": 1},
            "providers": {
                name: {"baseUrl": upstream.url, "apiKey": f"the-{name}-key", "models": rows}
                for name in ("dear", "fair")
            },
        },
    }


def counting(exchange: Exchange) -> None:
    """An answer that is counted at four times its length by a dear model, and as it is by others."""
    size = len(str(exchange.body["messages"])) // 4
    is_dear = "dear" in exchange.headers["authorization"] or exchange.body["model"] == "dearer"
    count(exchange, size * 4 if is_dear else size)


def count(exchange: Exchange, tokens: int) -> None:
    exchange.head()
    exchange.event({"content": "OK"})
    exchange.event({}, "stop", usage={"prompt_tokens": tokens, "completion_tokens": 1})
    exchange.send(b"data: [DONE]\n\n")
    exchange.last_chunk()


def is_summary(body: Any) -> bool:
    return "condense conversations" in str(body.get("system") or body["messages"][0])


def summaries(upstream: Upstream) -> int:
    return sum(is_summary(received.body) for received in upstream.requests)


def test_what_a_provider_counts_says_nothing_of_anothers_model_of_the_same_name(
    upstream: Upstream, tmp_path: Path
) -> None:
    upstream.answers["play"] = counting
    with live_gateway(tmp_path, config_of(upstream, "play")) as running, running.client() as client:
        text_of(ask(client, MESSAGE))
        text_of(ask(client, *TALK, headers={"x-openclaw-model": "fair/play"}))
        assert summaries(upstream) == 0
        text_of(ask(client, *TALK))
        assert summaries(upstream) > 0


def test_a_fallbacks_counts_are_its_own(upstream: Upstream, tmp_path: Path) -> None:
    upstream.answers |= {"play": lambda exchange: refuse(exchange, 503), "dearer": counting}
    config = config_of(upstream, "play", "dearer")
    config["agents"]["defaults"]["model"] = {"primary": "fair/play", "fallbacks": ["fair/dearer"]}
    with live_gateway(tmp_path, config) as running, running.client() as client:
        text_of(ask(client, MESSAGE))
        upstream.answers["play"] = counting
        text_of(ask(client, *TALK))
        assert summaries(upstream) == 0
        text_of(ask(client, *TALK, headers={"x-openclaw-model": "fair/dearer"}))
        assert summaries(upstream) > 0


def strict(exchange: Exchange) -> None:
    """As many servers do: what is asked and the longest answer together have to fit the window."""
    bound = exchange.body.get("max_tokens")
    size = len(str(exchange.body["messages"])) // 4
    if bound is None or size + bound > WINDOW:
        refuse(exchange, 400)
    elif exchange.path.endswith("/messages"):
        start = anthropic.start()
        start["message"]["usage"] = {"input_tokens": size, "output_tokens": 1}
        anthropic.telling(start, *anthropic.text(), *anthropic.end())(exchange)
    else:
        count(exchange, size)


@pytest.mark.parametrize("asked", [None, 100, 100_000])
@pytest.mark.parametrize(
    ("api", "bound"),
    [
        ("openai-completions", {"maxTokens": 3_500}),
        ("openai-completions", {"maxTokens": WINDOW}),
        ("anthropic-messages", {"maxTokens": 3_500}),
        ("anthropic-messages", {"maxTokens": WINDOW}),
        ("anthropic-messages", {}),
    ],
)
def test_the_room_that_is_kept_for_an_answer_is_the_bound_that_is_sent(
    upstream: Upstream, tmp_path: Path, api: str, bound: dict[str, int], asked: int | None
) -> None:
    upstream.answers["play"] = strict
    config = config_of(upstream, "play", **bound)
    config["models"]["providers"]["dear"]["api"] = api
    options = {} if asked is None else {"max_tokens": asked}
    with live_gateway(tmp_path, config) as running, running.client() as client:
        for length in range(1, 8):
            talk = [MESSAGE, {"role": "assistant", "content": "OK"}] * (length // 2)
            text_of(ask(client, *talk, "fruit " * 400 * (length % 2), "and now?", **options))
    half = WINDOW // 2
    expected = min(asked or bound.get("maxTokens", 8_192), bound.get("maxTokens", half), half)
    told = {received.body["max_tokens"] for received in upstream.requests if not is_summary(received.body)}
    assert told == {expected}
