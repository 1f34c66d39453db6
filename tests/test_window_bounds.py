"""Whose window counts, and by whose counts: models of one name, fallbacks, and the room that an answer needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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
    exchange.head()
    exchange.event({"content": "OK"})
    exchange.event({}, "stop", usage={"prompt_tokens": size * (4 if is_dear else 1), "completion_tokens": 1})
    exchange.send(b"data: [DONE]\n\n")
    exchange.last_chunk()


def is_summary(exchange_body: Any) -> bool:
    return "condense conversations" in str(exchange_body["messages"][0])


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
