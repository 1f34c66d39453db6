"""Every wire case, sent by the stub over a socket and read by the provider of its dialect."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from support.provider_calls import DraftRecorder, ask, fail, open_provider, receive, request
from support.upstream import Exchange, Upstream

from service.core.errors import GatewayError
from service.core.messages import Function, text_message
from service.models.anthropic.provider import AnthropicProvider
from service.models.http import transport
from service.models.provider import ModelEnded, Provider
from unit.models.wire_cases import ANTHROPIC, CASES, DONE, NO_THOUGHTS, OPEN_THOUGHTS, OPENAI, WireCase, paced, said

TIMEOUT_SECONDS = 2.5
SLOW = WireCase("in pieces", (*paced(0.2, *map(said, ("One ", "two ", "three"))), said("", reason="stop"), DONE))
FUNCTIONS = ("weather", "clock", "read", "read_file")


@pytest.fixture
def providers(module_upstream: Upstream) -> Iterator[dict[str, Provider]]:
    base_url = module_upstream.url.removesuffix("/v1")
    claude = AnthropicProvider(transport.Upstream(base_url, read_timeout_seconds=TIMEOUT_SECONDS))
    opened: dict[str, Provider] = {OPENAI: open_provider(module_upstream.url, TIMEOUT_SECONDS), ANTHROPIC: claude}
    yield opened
    for provider in opened.values():
        provider.close()


def player(case: WireCase) -> Callable[[Exchange], None]:
    def play(exchange: Exchange) -> None:
        exchange.head(200, case.label, **case.headers)
        for piece in case.pieces:
            if isinstance(piece, bytes) and piece:
                exchange.send(piece)
            elif isinstance(piece, float):
                exchange.wait(piece)
        if case.drops or "connection" in case.headers:
            exchange.drop()
        else:
            exchange.last_chunk()

    return play


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.dialect}: {case.name}")
def test_response_bytes_give_expected_answer(
    case: WireCase, module_upstream: Upstream, providers: dict[str, Provider]
) -> None:
    module_upstream.answers["case"] = player(case)
    messages = [text_message(role, text) for role, text in case.asked.items()]
    asked = request("case", *messages, system=case.system, functions=tuple(map(Function, FUNCTIONS)))
    texts: list[str] = []
    end: ModelEnded | None = None
    error: GatewayError | None = None
    drafts = DraftRecorder()
    try:
        end = receive(providers[case.dialect], replace(asked, drafts=drafts), texts)
    except GatewayError as failure:
        error = failure
    assert case.text is None or "".join(texts) == case.text
    assert case.reasoning is None or drafts.reasoning == case.reasoning
    if case.error is not None:
        assert (error and error.code, end) == (case.error, None), error and error.message
        assert error is not None
        assert case.words in error.message
        return
    assert error is None, error.message
    assert end is not None
    assert tuple((made.name, made.arguments) for made in end.tool_calls) == case.calls
    assert end.stop_reason.value == case.reason
    for place, (name, beginning) in drafts.calls.items():
        call = end.tool_calls[place]
        assert (call.name, call.arguments[: len(beginning)]) == (name, beginning)
    counted = (end.usage.input_tokens, end.usage.output_tokens, end.usage.reasoning_tokens)
    assert case.usage is None or counted[: len(case.usage)] == case.usage


@pytest.mark.parametrize("dialect", [OPENAI, ANTHROPIC])
def test_thoughts_that_a_template_opens_are_held_back_from_the_second_answer_on(
    dialect: str, module_upstream: Upstream, providers: dict[str, Provider]
) -> None:
    asked = request(f"opens-thoughts-{dialect}")
    module_upstream.answers[asked.model] = player(OPEN_THOUGHTS[dialect])
    text, error = fail(providers[dialect], asked)
    assert (error.code, "reasoning" in error.message, text[:3]) == ("provider_error", True, "Hm.")
    text, _ = ask(providers[dialect], asked)
    assert text == "Hello there"
    module_upstream.answers[asked.model] = player(NO_THOUGHTS[dialect])
    text, _ = ask(providers[dialect], asked)
    assert text == "Hello there"


def test_answer_without_thoughts_ends_the_wait_for_their_end(
    module_upstream: Upstream, providers: dict[str, Provider]
) -> None:
    asked = request("opens-thoughts-once")
    module_upstream.answers[asked.model] = player(OPEN_THOUGHTS[OPENAI])
    fail(providers[OPENAI], asked)
    texts = []
    for _ in range(2):
        module_upstream.answers[asked.model] = player(SLOW)
        received: list[str] = []
        receive(providers[OPENAI], asked, received)
        texts.append(received)
    assert texts == [["One two three"], ["One ", "two ", "three"]]
