"""The page at `/docs` in a real browser: the document, a stream as it comes, and how long the token is kept."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from support.browser import Page, needs_browser, open_browser
from support.live import TOKEN, LiveGateway, live_gateway, stubbed_config
from support.polling import until
from support.upstream import Exchange, Upstream

pytestmark = needs_browser

CHAT = "#operations-chat-stream_chat_completion"
WHOLE = ".live-responses-table tbody .response-col_description"
STREAMED = '{"model": "openclaw", "stream": true, "messages": [{"role": "user", "content": "hi"}]}'


class Stage(NamedTuple):
    """A gateway whose answers begin and end once they are released, and a browser."""

    gateway: LiveGateway
    page: Page
    released: threading.Event

    def open(self) -> Page:
        """Load the page, and wait for its operations."""
        self.page.open(f"{self.gateway.url}/docs")
        self.page.wait(f"document.querySelector('{CHAT}')")
        return self.page


@pytest.fixture(scope="module")
def stage(module_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    released = threading.Event()

    def answer(exchange: Exchange) -> None:
        exchange.head()
        exchange.event({"content": "half "})
        until(lambda: released.is_set() or exchange.server.upstream.closing.is_set())
        exchange.event({"content": "whole"})
        exchange.end()

    module_upstream.answers["held"] = answer
    config = stubbed_config(module_upstream.url, "stub/held")
    directory = tmp_path_factory.mktemp("docs")
    with live_gateway(directory, config) as gateway, open_browser(directory / "profile") as page:
        yield Stage(gateway, page, released)


def authorize(page: Page) -> None:
    """Enter the token as a person does."""
    page.click(".auth-wrapper .authorize")
    page.fill(".auth-container input", TOKEN)
    page.click(".auth-btn-wrapper .authorize")
    page.click(".auth-btn-wrapper .btn-done")


def is_authorized(page: Page) -> bool:
    return bool(page.evaluate("!!document.querySelector('.auth-wrapper .btn.authorize.locked')"))


def test_page_shows_the_3_1_document_with_its_schemas_folded(stage: Stage) -> None:
    page = stage.open()
    assert "OAS 3.1" in page.text()
    assert page.evaluate("document.querySelector('.models').classList.contains('is-open')") is False
    assert page.evaluate("document.querySelectorAll('.models .model').length") == 0
    assert page.problems == []


def test_token_is_kept_when_the_page_is_loaded_again_and_not_beyond_the_tab(stage: Stage) -> None:
    page = stage.open()
    assert not is_authorized(page)
    authorize(page)
    stage.open()
    page.wait("document.querySelector('.auth-wrapper .btn.authorize.locked')")
    assert TOKEN not in page.evaluate("JSON.stringify({...localStorage})")
    assert TOKEN in page.evaluate("JSON.stringify({...sessionStorage})")
    page.click(".auth-wrapper .authorize")
    page.click(".auth-btn-wrapper .auth:not(.authorize)")
    assert TOKEN not in page.evaluate("JSON.stringify({...sessionStorage})")


def execute(page: Page) -> None:
    """Open the operation for chats, and send a request for a stream."""
    page.click(f"{CHAT} .opblock-summary-control")
    page.click(f"{CHAT} .try-out__btn")
    page.fill(f"{CHAT} textarea.body-param__text", STREAMED)
    page.click(f"{CHAT} .execute")


def test_stream_is_shown_as_it_comes_and_whole_at_the_end(stage: Stage) -> None:
    page = stage.open()
    authorize(page)
    execute(page)
    live = page.wait(f"document.querySelector('{CHAT} .live-stream pre')?.innerText")
    assert live.startswith("data: {")
    assert "[DONE]" not in live
    stage.released.set()
    page.wait(f"document.querySelector('{CHAT} {WHOLE}')?.innerText.includes('[DONE]')")
    assert page.evaluate("document.querySelector('.live-stream')") is None
    assert page.problems == []


def test_stream_cut_inside_a_character_is_shown_with_a_mark_in_its_place(stage: Stage) -> None:
    page = stage.open()
    page.evaluate("""void (window.fetch = async () => {
      const headers = { "content-type": "text/event-stream" };
      return new Response(new TextEncoder().encode("data: 5 \u20ac").slice(0, -1), { headers });
    })""")
    execute(page)
    page.wait(f"document.querySelector('{CHAT} {WHOLE}')?.innerText.includes('data: 5 \ufffd')")
