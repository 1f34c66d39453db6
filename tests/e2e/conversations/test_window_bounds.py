"""Context windows and token counts by model: same names, fallbacks, room for the answer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from support import upstream_answers_anthropic as anthropic
from support.chat import ask, text_of
from support.live import LiveGateway, live_gateway, stubbed_config
from support.upstream import Exchange, Upstream
from support.upstream_answers import refuse

from e2e.server.test_live_configuration import Editing
from service.agent.compaction.compactor import SUMMARY_HEADING
from service.models.catalog import ChosenModel
from service.models.context_windows import LearnedWindows
from service.models.scripted import ScriptedProvider

WINDOW = 8_000
MESSAGE = "fruit " * 800  # 1200 tokens
TALK = (MESSAGE, {"role": "assistant", "content": "OK"}, MESSAGE, {"role": "assistant", "content": "OK"}, "and now?")


#: The models of two providers that the stub knows apart by their keys, and of one of another kind.
ROWS: list[dict[str, Any]] = [
    *({"id": model, "contextWindow": WINDOW} for model in ("counted", "first", "dearer", "coming", "play")),
    {"id": "small", "contextWindow": WINDOW, "maxTokens": 3_500},
    {"id": "large", "contextWindow": WINDOW, "maxTokens": WINDOW},
    # Windows that are thought to be larger than any conversation here.
    *({"id": model, "contextWindow": 200_000} for model in ("described-400", "described-429", "forgotten")),
    {"id": "halved", "contextWindow": 200_000, "maxTokens": 1_500},
]
BOUNDS = {row["id"]: row.get("maxTokens") for row in ROWS}


def config_of(upstream: Upstream) -> dict[str, Any]:
    agents = [
        {"id": "main", "default": True},
        {"id": "falling", "model": {"primary": "fair/first", "fallbacks": ["fair/dearer"]}},
    ]
    keys = {name: f"the-{name}-key" for name in ("dear", "fair")}
    providers = {name: {"baseUrl": upstream.url, "models": ROWS, "apiKey": key} for name, key in keys.items()}
    return stubbed_config(upstream.url, "dear/play", agents=agents, providers=providers, models=ROWS)


@pytest.fixture(scope="module")
def gateway(module_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    """A gateway which learns of each model what one test has it learn."""
    with live_gateway(tmp_path_factory.mktemp("gateway"), config_of(module_upstream)) as running:
        yield running


def talk_of(subject: str) -> tuple[Any, ...]:
    """A conversation that no other test has: a summary that is known is not asked for again."""
    return (f"{subject} {MESSAGE}", *TALK[1:])


def by(model: str) -> dict[str, str]:
    return {"x-openclaw-model": model}


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


def test_token_counts_are_separate_for_same_model_name_at_other_provider(
    client: httpx.Client, upstream: Upstream
) -> None:
    upstream.answers["counted"] = counting
    talk = talk_of("counts")
    text_of(ask(client, MESSAGE, headers=by("dear/counted")))
    text_of(ask(client, *talk, headers=by("fair/counted")))
    assert summaries(upstream) == 0
    text_of(ask(client, *talk, headers=by("dear/counted")))
    assert summaries(upstream) > 0


def test_token_counts_of_fallback_are_separate(client: httpx.Client, upstream: Upstream) -> None:
    upstream.answers |= {"first": lambda exchange: refuse(exchange, 503), "dearer": counting}
    talk = talk_of("fallbacks")
    text_of(ask(client, MESSAGE, model="openclaw/falling"))
    assert upstream.requests[-1].body["model"] == "dearer"
    upstream.answers["first"] = counting
    text_of(ask(client, *talk, model="openclaw/falling"))
    assert summaries(upstream) == 0
    text_of(ask(client, *talk, headers=by("fair/dearer")))
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
    ("provider", "model"),
    [("dear", "small"), ("dear", "large"), ("claude", "small"), ("claude", "large"), ("claude", "play")],
)
def test_max_tokens_sent_is_room_reserved_for_answer(
    client: httpx.Client, upstream: Upstream, provider: str, model: str, asked: int | None
) -> None:
    upstream.answers[model] = strict
    options: dict[str, Any] = {} if asked is None else {"max_tokens": asked}
    first, answer, *_ = talk_of(f"{provider} {model} {asked}")
    for length in range(1, 8):
        talk = [first, answer] * (length // 2)
        last = ("fruit " * 400 * (length % 2), "and now?")
        text_of(ask(client, *talk, *last, headers=by(f"{provider}/{model}"), **options))
    half, bound = WINDOW // 2, BOUNDS[model]
    expected = min(asked or bound or 8_192, bound or half, half)
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


@pytest.mark.parametrize("refusal", [TOO_LONG, TOO_MUCH_FOR_A_MINUTE])
@pytest.mark.parametrize("described", ["described", "undescribed"])
def test_limit_from_error_is_applied_to_later_requests(
    client: httpx.Client, upstream: Upstream, refusal: tuple[int, str], described: str
) -> None:
    name = f"{described}-{refusal[0]}"
    model = upstream.answers[name] = Taking(*refusal)
    for _ in range(3):
        text_of(ask(client, *talk_of(name), headers=by(f"dear/{name}")))
    assert model.refused == ["Bearer the-dear-key"]
    text_of(ask(client, *talk_of(name), headers=by(f"fair/{name}")))
    assert model.refused == ["Bearer the-dear-key", "Bearer the-fair-key"]


def test_answer_is_limited_to_half_of_learned_window(client: httpx.Client, upstream: Upstream) -> None:
    model = upstream.answers["halved"] = Taking(*TOO_LONG)
    for _ in range(2):
        text_of(ask(client, *talk_of("halves"), headers=by("dear/halved")))
    assert len(model.refused) == 1
    assert upstream.requests[0].body["max_tokens"] == 1_500
    assert upstream.requests[-1].body["max_tokens"] == TOLD // 2


def test_learned_window_is_forgotten_after_model_accepts_more(client: httpx.Client, upstream: Upstream) -> None:
    upstream.answers["forgotten"] = Taking(*TOO_LONG)
    model, talk = by("dear/forgotten"), talk_of("forgetting")
    text_of(ask(client, *talk, headers=model))
    upstream.answers["forgotten"] = lambda exchange: count(exchange, len(str(exchange.body["messages"])) // 4)
    before = summaries(upstream)
    text_of(ask(client, "hi", *talk, headers=model))
    assert summaries(upstream) > before
    text_of(ask(client, MESSAGE * 3, headers=model))
    before = summaries(upstream)
    text_of(ask(client, "ho", *talk, headers=model))
    assert summaries(upstream) == before


def test_learned_window_is_forgotten_after_configuration_edit(upstream: Upstream, tmp_path: Path) -> None:
    model = upstream.answers["forgotten"] = Taking(*TOO_LONG)
    with live_gateway(tmp_path, config_of(upstream)) as running, running.client() as client:
        editing = Editing(running)
        text_of(ask(client, *TALK, headers=by("dear/forgotten")))
        assert len(model.refused) == 1
        upstream.answers["forgotten"] = lambda exchange: count(exchange, 10)
        editing.config = config_of(upstream)
        for name in ("dear", "fair", "claude"):
            editing.config["models"]["providers"][name]["models"] = [{"id": "forgotten", "contextWindow": 300_000}]
        editing.apply()
        before = summaries(upstream)
        text_of(ask(client, "hi", *TALK, headers=by("dear/forgotten")))
        assert summaries(upstream) == before


def test_learned_window_only_lowers_configured_one() -> None:
    windows = LearnedWindows()
    model = ChosenModel("stub/play", "play", ScriptedProvider(), takes_images=False, context_window=WINDOW)
    windows.observe("stub/play", 2 * WINDOW)
    assert windows.narrowed(model) is model
    for told in (TOLD, 2 * TOLD):
        windows.observe("stub/play", told)
        assert windows.narrowed(model).context_window == TOLD
    for number in range(1_000):
        windows.observe(f"stub/{number}", TOLD)
    assert windows.narrowed(model) is model


def test_summary_is_reused_for_resent_conversation_that_grows(client: httpx.Client, upstream: Upstream) -> None:
    upstream.answers["coming"] = lambda exchange: count(exchange, 10)
    model, talk = by("dear/coming"), [*talk_of("coming")[:4] * 6]
    text_of(ask(client, *talk, "and now?", headers=model))
    made = summaries(upstream)
    assert made > 0
    text_of(ask(client, *talk, "and now?", {"role": "assistant", "content": "OK"}, "and then?", headers=model))
    assert summaries(upstream) == made
    assert SUMMARY_HEADING in str(upstream.requests[-1].body["messages"])
    assert "and then?" in str(upstream.requests[-1].body["messages"][-1])
    text_of(ask(client, "fruit", *talk, "and now?", headers=model))
    assert summaries(upstream) > made
