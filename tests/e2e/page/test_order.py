"""What happened in a conversation, in its order and as it happens, wherever it is watched."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote

import httpx
from support.api_keys import create_key, open_keys
from support.browser import needs_browser
from support.live import TOKEN, live_gateway
from support.page_stage import IS_OVER, Stage, answers, ask, config_of
from support.upstream import Upstream

from service.core.principal import Scope

pytestmark = needs_browser

#: What an answer consists of, in the order in which it is shown.
PIECES = """[...document.querySelectorAll('main :is(.fold, .markdown, .output)')].map((one) =>
  one.tagName !== 'DETAILS' ? one.innerText.trim() : one.querySelector('.thoughts')?.textContent ?? 'tool')"""
IN_ORDER = ["Thought 0.", "Saying 0.", "tool", "Thought 1.", "Saying 1.", "tool", "Thought 2.", "Saying 2."]


def test_text_stands_before_the_tool_that_was_called_after_it(stage: Stage) -> None:
    page = stage.sign_in()
    ask(page, "announce it")
    assert page.evaluate(PIECES) == IN_ORDER
    page.click(".answer a[href^='#/runs/']")
    page.wait("document.querySelectorAll('.output').length == 3")
    assert page.evaluate(PIECES) == IN_ORDER
    assert "running" not in page.evaluate("document.querySelector('main').innerText")
    page.evaluate("history.back()")
    page.wait("document.querySelector('.answer')")
    page.open(page.evaluate("location.href"))
    page.wait("document.querySelector('.answer')")
    assert page.evaluate(PIECES) == [piece for piece in IN_ORDER if "Thought" not in piece]


def test_error_of_a_killed_gateway_is_shown_once(stage: Stage, module_upstream: Upstream, tmp_path: Path) -> None:
    config, page = config_of(module_upstream, tmp_path), stage.page
    with live_gateway(tmp_path, config) as first:
        Stage(first, page, {}).sign_in()
        page.fill("#message", "hold the line")
        page.press("Enter")
        page.wait("document.querySelector('.answer .markdown')?.innerText.trim() == 'hold the line'")
        first.stop(signal.SIGKILL)
        page.wait_for_text("The connection was lost. Reconnecting")
    with live_gateway(tmp_path, config, arguments=("--port", str(first.address[1]))):
        page.wait("document.querySelector('[role=alert]')")
        page.wait_for_text("Connected")
        assert answers(page) == ["hold the line"]
        assert page.evaluate("document.querySelector('.ending').innerText.trim()") == "interrupted"
        assert page.text().count("run_interrupted") == 1
        page.click("[role=alert] button")
        page.wait("document.querySelector('.answer .markdown')?.innerText.trim() == 'hold the line'")


@contextmanager
def run_elsewhere(stage: Stage, text: str, **headers: str) -> Iterator[str]:
    """Have another program ask; yields the key of its session while the answer goes on, which is then left."""
    asked = {"model": "openclaw/main", "stream": True, "messages": [{"role": "user", "content": text}]}
    given = {"Authorization": f"Bearer {TOKEN}", **headers}
    url = f"{stage.gateway.url}/v1/chat/completions"
    with httpx.stream("POST", url, json=asked, headers=given, timeout=30) as response:
        yield response.headers["x-openclaw-session-key"]


def test_session_has_its_title_while_its_first_run_goes_on(stage: Stage) -> None:
    page = stage.sign_in()
    with run_elsewhere(stage, "hold the first", **{"x-openclaw-session-key": "first-run"}) as key:
        page.wait("document.querySelector('.recent')?.innerText.includes('hold the first')")
        page.evaluate("location.hash = '#/sessions'")
        page.wait("document.querySelector('.list strong')?.innerText == 'hold the first'")
        page.evaluate(f"location.hash = '#/chat/{key}'")
        page.wait("document.querySelector('.answer .markdown')?.innerText.trim() == 'hold the first'")
        assert page.evaluate("document.querySelector('h1').innerText") == "hold the first"


def test_run_of_another_program_is_seen_in_the_open_session_as_it_happens(stage: Stage) -> None:
    page = stage.sign_in()
    ask(page, "one")
    key = unquote(page.evaluate("location.hash.slice('#/chat/'.length)"))
    with run_elsewhere(stage, "hold two", **{"x-openclaw-session-key": key}):
        page.wait("document.querySelector('.answer[aria-busy=true] .markdown')?.innerText.trim() == 'one | hold two'")
        assert answers(page) == ["one", "one | hold two"]
        page.click("[aria-label=Stop]")
        page.wait(IS_OVER.format(2))
    page.wait("document.querySelectorAll('.bubble').length == 2")


def test_run_that_waited_for_another_one_is_seen_after_it(stage: Stage) -> None:
    page = stage.sign_in()
    ask(page, "one")
    key = unquote(page.evaluate("location.hash.slice('#/chat/'.length)"))
    with run_elsewhere(stage, "hold two", **{"x-openclaw-session-key": key}), stage.gateway.client() as client:
        page.wait("document.querySelector('.answer[aria-busy=true] .markdown')")
        assert client.post("/v1/runs", json={"input": "hold three", "session_key": key}).json()["state"] == "queued"
        for count, text in ((2, "one | hold two"), (3, "one | hold two | hold three")):
            page.wait(
                f"document.querySelectorAll('.answer').length == {count}"
                f" && document.querySelector('.answer[aria-busy=true] .markdown')?.innerText.trim() == '{text}'"
            )
            page.click("[aria-label=Stop]")
        page.wait(IS_OVER.format(3))


def test_run_that_may_not_be_cancelled_is_left_for_good(stage: Stage) -> None:
    with open_keys(stage.gateway.state_dir) as keys:
        _, text = keys.create("reader", [Scope.CHAT, Scope.READ])
    page = stage.sign_in(text)
    ask(page, "one")
    key = unquote(page.evaluate("location.hash.slice('#/chat/'.length)"))
    given = {"Authorization": f"Bearer {text}", "x-openclaw-session-key": key}
    with run_elsewhere(stage, "hold two", **given):
        page.wait("document.querySelector('.answer[aria-busy=true] .markdown')")
        page.click("[aria-label=Stop]")
        page.wait(IS_OVER.format(2))
        time.sleep(0.5)
        assert page.evaluate("document.querySelector('[aria-label=Stop]')") is None


def test_usage_tells_keys_of_the_same_name_apart(stage: Stage) -> None:
    ids = []
    for _ in range(2):
        text, key = create_key(stage.gateway.state_dir)
        ids.append(key)
        with stage.gateway.client(token=text) as client:
            asked = {"model": "openclaw", "user": "anna", "messages": [{"role": "user", "content": "hi"}]}
            assert client.post("/v1/chat/completions", json=asked).status_code == 200
    page = stage.sign_in(place="#/usage")
    for kind, prefix in (("key", ""), ("user", "anna, ")):
        page.evaluate(f"document.querySelector('select').value = '{kind}'")
        page.evaluate("document.querySelector('select').dispatchEvent(new Event('change'))")
        wanted = [f"{prefix}key of write ({key})" for key in ids]
        page.wait(
            f"(shown => {json.dumps(wanted)}.every((one) => shown.includes(one)))"
            "([...document.querySelectorAll('tbody th')].map((one) => one.innerText))"
        )
