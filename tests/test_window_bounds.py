"""Whose window counts, and by whose counts: models of one name, fallbacks, and the room that an answer needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import upstream_answers_anthropic as anthropic
from chat import ask, text_of
from live import TOKEN, live_gateway
from test_live_configuration import Editing
from upstream import Exchange, Upstream
from upstream_answers import refuse

from service.compaction import SUMMARY_HEADING
from service.models import ChosenModel
from service.providers.scripted import ScriptedProvider
from service.windows import ToldWindows

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


TOLD = 2_000
TOO_LONG = (400, f"This model's maximum context length is {TOLD} tokens.")
TOO_MUCH_FOR_A_MINUTE = (429, f"Request too large for x on tokens per min (TPM): Limit {TOLD}, Requested 4000.")


class Taking:
    """A model that takes `TOLD` tokens, its answer included, and refuses more."""

    def __init__(self, status: int, words: str) -> None:
        self.status, self.words = status, words
        self.refused: list[str] = []

    def __call__(self, exchange: Exchange) -> None:
        size = len(str(exchange.body["messages"])) // 4
        if size + exchange.body.get("max_tokens", 0) > TOLD:
            self.refused.append(exchange.headers["authorization"])
            exchange.json(self.status, {"error": {"message": self.words}})
        else:
            count(exchange, size)


def unbounded(upstream: Upstream) -> dict[str, Any]:
    """Two providers of a model whose window is thought to be larger than any conversation here."""
    return config_of(upstream, "play", contextWindow=200_000)


@pytest.mark.parametrize("refusal", [TOO_LONG, TOO_MUCH_FOR_A_MINUTE])
@pytest.mark.parametrize("described", [True, False])
def test_what_a_model_was_said_to_take_is_kept_to_from_then_on(
    upstream: Upstream, tmp_path: Path, refusal: tuple[int, str], described: bool
) -> None:
    model = upstream.answers["play"] = Taking(*refusal)
    config = unbounded(upstream) if described else config_of(upstream)
    with live_gateway(tmp_path, config) as running, running.client() as client:
        for _ in range(3):
            text_of(ask(client, *TALK))
        assert model.refused == ["Bearer the-dear-key"]
        text_of(ask(client, *TALK, headers={"x-openclaw-model": "fair/play"}))
        assert model.refused == ["Bearer the-dear-key", "Bearer the-fair-key"]


def test_an_answer_keeps_to_half_of_what_a_model_was_said_to_take(upstream: Upstream, tmp_path: Path) -> None:
    model = upstream.answers["play"] = Taking(*TOO_LONG)
    config = config_of(upstream, "play", contextWindow=200_000, maxTokens=1_500)
    with live_gateway(tmp_path, config) as running, running.client() as client:
        for _ in range(2):
            text_of(ask(client, *TALK))
    assert len(model.refused) == 1
    assert upstream.requests[0].body["max_tokens"] == 1_500
    assert upstream.requests[-1].body["max_tokens"] == TOLD // 2


def test_what_a_model_was_said_to_take_is_forgotten_when_it_takes_more(upstream: Upstream, tmp_path: Path) -> None:
    upstream.answers["play"] = Taking(*TOO_LONG)
    with live_gateway(tmp_path, unbounded(upstream)) as running, running.client() as client:
        text_of(ask(client, *TALK))
        upstream.answers["play"] = lambda exchange: count(exchange, len(str(exchange.body["messages"])) // 4)
        before = summaries(upstream)
        text_of(ask(client, "hi", *TALK))
        assert summaries(upstream) > before
        text_of(ask(client, MESSAGE * 3))
        before = summaries(upstream)
        text_of(ask(client, "ho", *TALK))
        assert summaries(upstream) == before


def test_what_a_model_was_said_to_take_is_forgotten_when_the_configuration_is_edited(
    upstream: Upstream, tmp_path: Path
) -> None:
    model = upstream.answers["play"] = Taking(*TOO_LONG)
    with live_gateway(tmp_path, unbounded(upstream)) as running, running.client() as client:
        editing = Editing(running)
        text_of(ask(client, *TALK))
        assert len(model.refused) == 1
        upstream.answers["play"] = lambda exchange: count(exchange, 10)
        editing.config = config_of(upstream, "play", contextWindow=300_000)
        editing.apply()
        before = summaries(upstream)
        text_of(ask(client, "hi", *TALK))
        assert summaries(upstream) == before


def test_a_window_is_only_lowered_by_what_is_said_of_it() -> None:
    windows = ToldWindows()
    model = ChosenModel("stub/play", "play", ScriptedProvider(), takes_images=False, context_window=WINDOW)
    windows.observe("stub/play", 2 * WINDOW)
    assert windows.narrowed(model) is model
    for told in (TOLD, 2 * TOLD):
        windows.observe("stub/play", told)
        assert windows.narrowed(model).context_window == TOLD
    for number in range(1_000):
        windows.observe(f"stub/{number}", TOLD)
    assert windows.narrowed(model) is model


def test_a_conversation_that_comes_again_and_grows_is_not_summarised_anew(upstream: Upstream, tmp_path: Path) -> None:
    upstream.answers["play"] = lambda exchange: count(exchange, 10)
    talk: list[Any] = [*TALK[:4] * 6]
    with live_gateway(tmp_path, config_of(upstream, "play")) as running, running.client() as client:
        text_of(ask(client, *talk, "and now?"))
        made = summaries(upstream)
        assert made > 0
        text_of(ask(client, *talk, "and now?", {"role": "assistant", "content": "OK"}, "and then?"))
        assert summaries(upstream) == made
        assert SUMMARY_HEADING in str(upstream.requests[-1].body["messages"])
        assert "and then?" in str(upstream.requests[-1].body["messages"][-1])
        text_of(ask(client, "fruit", *talk, "and now?"))
        assert summaries(upstream) > made
