"""The page at `/` in a real browser: one gateway and one browser for all tests."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from urllib.parse import unquote

import pytest
from support.api_keys import create_key, open_keys
from support.browser import Page, needs_browser
from support.live import TOKEN, live_gateway
from support.page_stage import HOSTILE, IS_OVER, PARAGRAPHS, Stage, answers, ask, config_of
from support.plain_proxy import plain_proxy
from support.polling import until
from support.upstream import Upstream

from service.core.principal import Scope

pytestmark = needs_browser


SCOPES = "import('/ui/socket.js').then(({ live }) => live.scopes)"


@contextmanager
def hurried(page: Page) -> Iterator[None]:
    """Have the pages that are loaded in the block do 40 times as often what they do again and again."""
    source = "{ const slow = setInterval; setInterval = (fn, ms) => slow(fn, ms / 40); }"
    added = page.send("Page.addScriptToEvaluateOnNewDocument", source=source)
    try:
        yield
    finally:
        page.send("Page.removeScriptToEvaluateOnNewDocument", **added)


def test_wrong_token_is_refused_in_the_words_of_the_gateway(stage: Stage) -> None:
    page = stage.page
    page.open(f"{stage.gateway.url}/")
    for secret in ("wrong", stage.keys["expired"]):
        page.fill("#secret", secret)
        page.press("Enter")
        page.wait_for_text("invalid_api_key")
        page.evaluate("document.querySelector('#secret').value = ''")


def test_answer_is_streamed_and_the_conversation_goes_on(stage: Stage) -> None:
    page = stage.sign_in()
    ask(page, "one")
    ask(page, "two")
    assert answers(page) == ["one", "one | two"]


def test_first_message_is_edited_and_asked_again_as_branches(stage: Stage) -> None:
    page = stage.sign_in()
    ask(page, "one")
    page.click("[aria-label='Ask again']")
    page.wait("document.querySelector('.branches')?.innerText.includes('2/2')")
    assert answers(page) == ["one"]
    page.click("[aria-label='Edit message']")
    page.fill(".editing textarea", "two")
    page.press("Escape")
    page.wait("!document.querySelector('.editing')")
    page.click("[aria-label='Edit message']")
    page.fill(".editing textarea", "uno")
    page.press("Enter", modifiers=8)
    assert page.evaluate("document.querySelector('.editing textarea').value") == "uno\n"
    page.fill(".editing textarea", "uno")
    page.press("Enter")
    page.wait("document.querySelector('.branches')?.innerText.includes('3/3')")
    assert answers(page) == ["uno"]
    ask(page, "two")
    assert answers(page) == ["uno", "uno | two"]
    page.click("[aria-label='Earlier branch']")
    page.wait("document.querySelector('.branches')?.innerText.includes('2/3')")
    ask(page, "due")
    assert answers(page) == ["one", "one | due"]


def go_on_elsewhere(stage: Stage, page: Page) -> None:
    """Add a message and its answer to the open conversation, which has one of each, as another program does."""
    key = unquote(page.evaluate("location.hash.slice('#/chat/'.length)"))
    said = [("user", "one"), ("assistant", "one"), ("user", "two")]
    messages = [{"role": role, "content": text} for role, text in said]
    with stage.gateway.client() as client:
        sent = client.post("/v1/chat/completions", json={"messages": messages}, headers={"x-openclaw-session-key": key})
    assert sent.status_code == 200


def test_conversation_that_goes_on_elsewhere_is_shown_and_continued(stage: Stage) -> None:
    page = stage.sign_in()
    ask(page, "one")
    go_on_elsewhere(stage, page)
    page.wait("document.querySelectorAll('.answer').length == 2")
    ask(page, "three")
    assert answers(page) == ["one", "one | two", "one | two | three"]
    assert not page.evaluate("document.querySelector('.branches')")


def test_conversation_that_goes_on_elsewhere_is_shown_without_a_websocket(stage: Stage) -> None:
    page = stage.page
    with plain_proxy(stage.gateway.address) as url, hurried(page):
        dataclasses.replace(stage, gateway=dataclasses.replace(stage.gateway, url=url)).sign_in()
        ask(page, "one")
        go_on_elsewhere(stage, page)
        page.wait("document.querySelectorAll('.answer').length == 2")
    assert answers(page) == ["one", "one | two"]


#: Has the page neither a WebSocket nor an answer to a request while `isAway` is true, as if the gateway restarted.
BREAKABLE = """{
  const [Socket, request, sockets] = [WebSocket, fetch, []];
  let isGone = false;
  window.WebSocket = class extends Socket {
    constructor(url) { super(isGone ? `${url}healthz` : url); sockets.push(this); }
  };
  window.fetch = (...given) => (isGone ? Promise.reject(new TypeError("gone")) : request(...given));
  Object.defineProperty(window, "isAway", { set(value) { isGone = value; if (value) sockets.at(-1).close(); } });
}"""


@contextmanager
def breakable(page: Page) -> Iterator[None]:
    """Have the pages that are loaded in the block cut off where a test sets `isAway`."""
    added = page.send("Page.addScriptToEvaluateOnNewDocument", source=BREAKABLE)
    try:
        yield
    finally:
        page.send("Page.removeScriptToEvaluateOnNewDocument", **added)


def test_conversation_that_went_on_while_the_gateway_was_away_is_shown(stage: Stage) -> None:
    page = stage.page
    with breakable(page):
        stage.sign_in()
        ask(page, "one")
        page.evaluate("isAway = true")
        page.wait_for_text("Connecting")
        go_on_elsewhere(stage, page)
        page.evaluate("isAway = false")
        page.wait("document.querySelectorAll('.answer').length == 2")


def test_conversation_that_could_not_be_opened_is_shown_when_the_gateway_is_back(stage: Stage) -> None:
    page = stage.page
    with breakable(page):
        stage.sign_in()
        ask(page, "one")
        conversation = page.evaluate("location.hash")
        page.evaluate("location.hash = '#/chat'")
        page.wait("!document.querySelector('.answer')")
        page.evaluate("isAway = true")
        page.evaluate(f"location.hash = '{conversation}'")
        page.wait_for_text("The gateway cannot be reached.")
        page.evaluate("isAway = false")
        page.wait("document.querySelector('.answer')")
        assert "cannot be reached" not in page.text()


def test_empty_answer_is_shown_as_such(stage: Stage) -> None:
    page = stage.sign_in()
    ask(page, "say")
    page.wait("document.querySelector('.answer').innerText.includes('The answer is empty.')")
    assert page.evaluate(STATUS) == "The answer is empty."


def test_stopped_answer_keeps_what_was_said(stage: Stage) -> None:
    page = stage.sign_in()
    page.fill("#message", "hold on")
    page.press("Enter")
    page.wait("document.querySelector('.answer .markdown')?.innerText.trim() == 'hold on'")
    page.click("[aria-label=Stop]")
    page.wait(IS_OVER.format(1))
    assert answers(page) == ["hold on"]
    assert not page.evaluate("document.querySelector('[role=alert]')")
    assert ending(page) == ("stopped", "The answer is not complete: stopped.")
    page.open(page.evaluate("location.href"))
    page.wait("document.querySelector('.ending')")
    assert ending(page) == ("stopped", "")
    ask(page, "two")
    assert page.evaluate(STATUS) == "The answer is complete."
    assert page.evaluate("document.querySelectorAll('.ending').length") == 1


@pytest.mark.parametrize("key", ["chat", None])
def test_answer_is_stopped_by_who_may_not_cancel_runs(stage: Stage, key: str | None) -> None:
    with open_keys(stage.gateway.state_dir) as keys:
        _, both = keys.create("both", [Scope.CHAT, Scope.READ])
    page = stage.sign_in(stage.keys[key] if key else both)
    page.fill("#message", "hold on")
    page.press("Enter")
    page.wait("document.querySelector('.answer .markdown')?.innerText.trim() == 'hold on'")
    page.click("[aria-label=Stop]")
    page.wait(IS_OVER.format(1))
    page.wait("document.querySelector('.ending')?.innerText.trim() == 'stopped'")


STATUS = "document.querySelector('.composer [role=status]').innerText.trim()"


def ending(page: Page) -> tuple[str, str]:
    """The mark of the last answer, and what is announced."""
    word = page.evaluate("[...document.querySelectorAll('.answer')].at(-1).querySelector('.ending .state')?.innerText")
    return word, page.evaluate(STATUS)


@pytest.mark.parametrize(
    ("text", "word", "reason"),
    [("break it", "failed", "provider_"), ("short one", "cut off", "The limit of tokens was reached.")],
)
@pytest.mark.parametrize("key", ["chat", None])
def test_answer_that_is_not_whole_is_marked_and_stays_so(
    stage: Stage, text: str, word: str, reason: str, key: str | None
) -> None:
    page = stage.sign_in(*([stage.keys[key]] if key else []))
    ask(page, text)
    page.wait("document.querySelector('.ending')")
    assert reason in page.evaluate("document.querySelector('.ending').innerText")
    shown, said = ending(page)
    assert shown == word
    assert said == "" if page.evaluate("document.querySelector('[role=alert]')") else word in said
    if key is None:
        page.open(page.evaluate("location.href"))
        page.wait("document.querySelector('.ending')")
        assert ending(page) == (word, "")
        assert reason in page.evaluate("document.querySelector('.ending').innerText")


def test_answer_goes_on_when_the_page_is_loaded_again(stage: Stage) -> None:
    page = stage.sign_in()
    page.fill("#message", "hold tight")
    page.press("Enter")
    page.wait("document.querySelector('.answer .markdown')?.innerText.trim() == 'hold tight'")
    page.open(page.evaluate("location.href"))
    page.wait("document.querySelector('.answer[aria-busy=true] .markdown')?.innerText.trim() == 'hold tight'")
    page.click("[aria-label=Stop]")
    page.wait("document.querySelector('.user .bubble')?.innerText == 'hold tight'")
    assert answers(page) == ["hold tight"]


def test_revoked_key_leads_back_to_signing_in(stage: Stage) -> None:
    text, key_id = create_key(stage.gateway.state_dir)
    page = stage.sign_in(text)
    with open_keys(stage.gateway.state_dir) as keys:
        keys.revoke(key_id)
    page.wait_for_text("No live updates")
    page.evaluate("location.hash = '#/sessions'")
    page.wait_for_text("invalid_api_key")
    assert page.evaluate("sessionStorage.length") == 0


def test_reasoning_and_tools_are_folded(stage: Stage) -> None:
    page = stage.sign_in()
    ask(page, "think hard")
    page.wait("document.querySelectorAll('.answer details').length == 2")
    assert not page.evaluate("document.querySelectorAll('.answer details[open]').length")
    page.evaluate("document.querySelectorAll('.answer summary').forEach((one) => one.click())")
    page.wait_for_text("Let me see.")
    page.wait_for_text("does not exist in the workspace")


def test_hostile_answer_tool_and_title_do_nothing(stage: Stage) -> None:
    page = stage.sign_in()
    ask(page, f"attack {HOSTILE}")
    page.wait("document.querySelectorAll('.answer details').length == 2")
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    page.wait_for_text('"<img src=x onerror')
    for selector in (
        "script:not([src])",
        "iframe",
        "form:not(.composer)",
        "style",
        "svg:not(.icon)",
        "img",
        "[style]",
        "[onclick]",
    ):
        assert page.evaluate(f"document.querySelectorAll(`.messages {selector}`).length") == 0, selector
    assert page.evaluate("[...document.querySelectorAll('.markdown a')].map(a => a.getAttribute('href'))") == [
        None,
        None,
    ]
    page.evaluate("document.querySelectorAll('.markdown a').forEach((one) => one.click())")
    page.evaluate("location.hash = '#/sessions'")
    page.wait("document.querySelector('.list')?.innerText.includes('<img src=x')")
    page.evaluate("location.hash = '#/runs'")
    page.click(".list a[href^='#/runs/']")
    page.wait("document.querySelector('.output')")
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert page.evaluate("document.querySelectorAll('main :is(img, script, iframe, style, form)').length") == 0
    assert page.evaluate("document.title") == "Runs · OpenClaw Gateway"
    inert = re.compile("inline (style|event handler)")  # of the markup, while it was taken apart
    assert all(map(inert.search, page.problems))
    page.problems.clear()
    assert (
        page.evaluate("performance.getEntriesByType('resource').filter(({name}) => name.includes('evil')).length") == 0
    )


def test_words_in_angle_brackets_are_shown(stage: Stage) -> None:
    page = stage.sign_in()
    text = "List<String> of <your name>\n\n<div>A block</div>\n\n<b>bold</b> <B>"
    page.evaluate(f"""import("/ui/markdown.js").then(({{ markdown }}) => {{
      document.querySelector(".welcome").append(markdown({{}}, {text!r}));
    }})""")
    shown = page.evaluate("document.querySelector('.markdown').innerText")
    assert shown.split("\n\n") == ["List<String> of <your name>", "<div>A block</div>", "bold <B>"]
    assert page.evaluate("document.querySelectorAll('.markdown :is(div, b)').length") == 1


def test_tasks_show_whether_they_are_done_and_columns_stand_as_they_are_aligned(stage: Stage) -> None:
    page = stage.sign_in()
    ask(page, "say - [x] buy\n- [ ] pay\n\n| a | b |\n|:-:|--:|\n| 1 | 2 |")
    assert page.evaluate("[...document.querySelectorAll('.answer li')].map((one) => one.innerText)") == [
        "☑ buy",
        "☐ pay",
    ]
    aligned = "[...document.querySelectorAll('.answer td')].map((one) => getComputedStyle(one).textAlign)"
    assert page.evaluate(aligned) == ["center", "right"]


@pytest.mark.parametrize("mark", ["> ", "- "])
def test_answer_nested_deeper_than_can_be_drawn_is_shown_as_written(stage: Stage, mark: str) -> None:
    page = stage.sign_in()
    ask(page, f"say {mark * 5000}deep")
    assert answers(page) == [f"{mark * 5000}deep"]
    ask(page, "say **bold**")
    assert answers(page)[1] == "bold"


def test_marks_in_a_very_long_paragraph_are_shown_as_written(stage: Stage) -> None:
    page = stage.sign_in()
    ask(page, f"say {'*a* ' * 2600}end\n\n*last*")
    assert answers(page) == [f"{'*a* ' * 2600}end\n\nlast"]
    assert page.evaluate("document.querySelectorAll('.answer em').length") == 1


def test_text_runs_from_right_to_left_where_its_script_does(stage: Stage) -> None:
    page = stage.sign_in()
    ask(page, "say - \u05e9\u05dc\u05d5\u05dd.")
    assert page.evaluate("getComputedStyle(document.querySelector('.answer li')).direction") == "rtl"
    ask(page, "say hello")
    assert page.evaluate("getComputedStyle([...document.querySelectorAll('.answer p')].at(-1)).direction") == "ltr"


def test_address_that_cannot_be_decoded_opens_the_panel(stage: Stage) -> None:
    page = stage.sign_in(place="#/chat/%E0%A4%A")
    page.wait_for_text("session_not_found")


def test_title_of_a_hidden_tab_tells_of_approvals(stage: Stage) -> None:
    page = stage.sign_in()
    front = page.send("Target.createTarget", url="about:blank")
    page.wait("document.hidden")
    page.evaluate("""void import("/ui/api.js").then(({ postJson }) => postJson("/v1/chat/completions", {
      model: "openclaw/asker", messages: [{ role: "user", content: "think" }],
    }))""")
    page.wait("document.title.startsWith('(1)')")
    page.send("Target.closeTarget", targetId=front["targetId"])
    page.evaluate("location.hash = '#/approvals'")
    page.click(".approval button:last-child")
    page.wait("!document.title.startsWith('(')")


def test_page_is_no_larger_than_its_window_with_many_conversations(stage: Stage) -> None:
    with stage.gateway.client() as client:
        for number in range(15):
            asked = {"model": "openclaw", "messages": [{"role": "user", "content": f"say {number}"}]}
            named = {"x-openclaw-session-key": f"one-of-many-{number}"}
            assert client.post("/v1/chat/completions", json=asked, headers=named).status_code == 200
    page = stage.sign_in()
    page.show_as(1280, 600)
    page.wait("document.querySelectorAll('.recent li').length == 15")
    assert page.evaluate("document.scrollingElement.scrollHeight") == 600
    assert page.evaluate("document.querySelector('.foot').getBoundingClientRect().bottom") <= 600
    page.show_as(320, 600)
    assert page.evaluate("document.documentElement.scrollWidth") == 320
    assert page.evaluate("document.querySelector('.foot button').getBoundingClientRect().right") <= 320
    assert page.evaluate("document.querySelector('nav').scrollWidth") <= 320
    page.send("Emulation.clearDeviceMetricsOverride")


def test_chat_with_a_long_title_is_no_wider_than_a_phone(stage: Stage) -> None:
    page = stage.sign_in()
    ask(page, "say something with a title that is long")
    page.show_as(320, 600)
    assert page.evaluate("document.querySelector('main').scrollWidth") == 320
    assert page.evaluate("document.querySelector('[aria-label=\"New chat\"]').getBoundingClientRect().right") <= 320
    page.send("Emulation.clearDeviceMetricsOverride")


def test_refused_message_can_be_tried_again(stage: Stage) -> None:
    page = stage.sign_in()
    page.fill("#message", "fail please")
    page.press("Enter")
    page.wait_for_text("the picture is too small")
    page.wait_for_text("provider_rejected_request")
    ask(page, "one")
    assert answers(page) == ["one"]


def test_reader_sees_no_panel_of_the_administrator(stage: Stage) -> None:
    page = stage.sign_in(stage.keys["read"], "#/approvals")
    page.wait_for_text("This API key does not have the scope admin.")
    page.evaluate("location.hash = '#/gateway'")
    page.wait_for_text("Runs can begin.")
    page.wait_for_text("a key needs the scope admin")
    page.evaluate("location.hash = '#/chat'")
    page.fill("#message", "hi")
    page.press("Enter")
    page.wait_for_text("This API key does not have the scope chat.")


def test_numbers_of_one_process_are_shown_as_such(stage: Stage) -> None:
    page = stage.sign_in(place="#/gateway")
    page.wait_for_text("Runs now")
    texts = page.evaluate("[...document.querySelectorAll('main :is(h2, dt)')].map((one) => one.innerText)")
    own = texts[texts.index("The process behind this page") : texts.index("Configuration")]
    assert own[1:] == ["Up for", "WebSockets", "Runs now"]


def test_gateway_that_cannot_be_reached_is_not_shown_as_ready(stage: Stage) -> None:
    page = stage.page
    with breakable(page), hurried(page):
        stage.sign_in(place="#/gateway")
        page.wait_for_text("Runs now")
        page.evaluate("isAway = true")
        page.wait_for_text("The gateway cannot be reached.")
        page.wait_for_text("which is not connected")
        assert not {"ready", "Runs now"} & set(page.text().split("\n"))
        page.evaluate("isAway = false")
        page.wait_for_text("Runs now")


def test_usage_by_user_names_the_key_of_each(stage: Stage) -> None:
    with stage.gateway.client(token=stage.keys["chat"]) as client:
        asked = {"model": "openclaw", "user": "anna", "messages": [{"role": "user", "content": "hi"}]}
        assert client.post("/v1/chat/completions", json=asked).status_code == 200
    page = stage.sign_in(place="#/usage")
    page.evaluate("document.querySelector('select').value = 'user'")
    page.evaluate("document.querySelector('select').dispatchEvent(new Event('change'))")
    page.wait("[...document.querySelectorAll('tbody th')].some((one) => one.innerText == 'anna, key of chat')")


def test_cost_that_is_small_is_not_nothing(stage: Stage) -> None:
    page = stage.sign_in()
    shown = page.evaluate("import('/ui/format.js').then(({ money }) => [null, 0, 1e-5, 0.0123, 12].map(money))")
    assert shown == ["unknown", "$0.00", "< $0.0001", "$0.0123", "$12.00"]


def test_text_that_was_not_sent_outlasts_an_expired_key(stage: Stage) -> None:
    text, key = create_key(stage.gateway.state_dir)
    page = stage.sign_in(text)
    ask(page, "one")
    page.click("[aria-label='Edit message']")
    page.fill(".editing textarea", "uno")
    page.fill("#message", "two")
    page.evaluate(DROP_PICTURE)
    page.wait("document.querySelector('.chosen img')")
    with open_keys(stage.gateway.state_dir) as keys:
        keys.revoke(key)
    with stage.gateway.client(token=text) as client:
        until(lambda: client.get("/v1/models").status_code == 401)
    page.press("Enter")
    page.wait_for_text("invalid_api_key")
    page.fill("#secret", TOKEN)
    page.press("Enter")
    page.wait("document.querySelector('.chosen img')")
    kept = page.evaluate("document.querySelector('#message').value")
    assert sorted(kept.split("\n\n")) == ["two", "uno"]  # "two" comes first if it was sent before the page noticed
    page.wait("document.querySelectorAll('.answer').length == 1")
    page.click(".foot button")
    page.fill("#secret", TOKEN)
    page.press("Enter")
    assert page.wait("document.querySelector('#message')?.placeholder == 'Message main'")
    assert page.evaluate("document.querySelector('#message').value") == ""


def test_key_without_a_websocket_has_its_own_scopes(stage: Stage) -> None:
    page = stage.page
    with plain_proxy(stage.gateway.address) as url:
        behind = dataclasses.replace(stage, gateway=dataclasses.replace(stage.gateway, url=url))
        behind.sign_in(stage.keys["read"], "#/gateway")
        page.wait_for_text("This comes over the gateway's WebSocket, which is not connected.")
        page.wait_for_text("To see the configuration of the gateway, a key needs the scope admin.")
        behind.sign_in(stage.keys["chat"])
        ask(page, "one")
        assert answers(page) == ["one"]
        behind.sign_in(stage.keys["write"])
        ask(page, "two")
        page.evaluate("location.hash = '#/sessions'")
        assert page.wait("document.querySelector('[aria-label^=Delete]')?.disabled === false")
        page.evaluate("location.hash = '#/approvals'")
        page.wait_for_text("This API key does not have the scope admin.")
        behind.sign_in(TOKEN, "#/approvals")
        page.wait_for_text("Nothing waits for you")
        page.wait("document.querySelector('.recent li')")


def test_scopes_without_a_websocket_stay_unknown_until_the_gateway_answers(stage: Stage) -> None:
    page, seen = stage.page, list[tuple[str, str]]()
    failing = {"/v1/runs/%20/cancel", "/v1/approvals?limit=1"}
    with plain_proxy(stage.gateway.address, failing, seen) as url, hurried(page):
        behind = dataclasses.replace(stage, gateway=dataclasses.replace(stage.gateway, url=url))
        behind.sign_in(stage.keys["read"], "#/sessions")
        assert page.evaluate(SCOPES) is None
        failing.clear()
        page.wait(f"{SCOPES}.then((scopes) => scopes?.join() == 'operator.read')")
    tried = {path for method, path in seen if method == "POST"}
    with stage.gateway.client() as client:
        assert {client.post(path).json()["error"]["code"] for path in tried} == {"not_found"}  # no run has the id


def test_error_of_an_unknown_run_is_shown_once(stage: Stage) -> None:
    page = stage.sign_in(place="#/runs/no-such-run")
    page.wait_for_text("run_not_found")
    page.wait(
        "performance.getEntriesByType('resource').some(({ name }) => name.includes('/v1/runs/no-such-run/events'))"
    )
    page.evaluate(
        "new Promise((resolve) => setTimeout(() => requestAnimationFrame(() => requestAnimationFrame(resolve))))"
    )
    assert page.text().count("run_not_found") == 1
    assert "The events of this run are not kept" not in page.text()


def test_text_of_a_plot_is_as_large_on_a_phone(stage: Stage) -> None:
    page = stage.sign_in()
    ask(page, "one")
    try:
        for width in (320, 390, 1280):
            page.show_as(width, 800)
            page.evaluate("location.hash = '#/usage'")
            page.wait("document.querySelector('.plot text')")
            page.wait(
                "(([svg]) => svg.getBoundingClientRect().width / svg.viewBox.baseVal.width > 0.95)"
                "(document.querySelectorAll('.plot'))"
            )
            assert page.evaluate("document.documentElement.scrollWidth") == width
            labels = page.evaluate(
                "[...document.querySelectorAll('.plot g text')].map((one) => one.getBoundingClientRect())"
                ".map(({ left, right }) => [left, right])"
            )
            assert len(labels) > 3
            assert all(right < left for (_, right), (left, _) in itertools.pairwise(labels))
            assert labels[-1][1] <= width
    finally:
        page.send("Emulation.clearDeviceMetricsOverride")


def test_key_that_may_only_chat_does_so_without_a_history(stage: Stage) -> None:
    page = stage.sign_in(stage.keys["chat"])
    ask(page, "one")
    ask(page, "two")
    page.click("article:nth-of-type(2) [aria-label='Ask again']")
    page.wait(IS_OVER.format(1))
    assert answers(page) == ["one"]
    page.evaluate("location.hash = '#/sessions'")
    page.wait_for_text("This API key does not have the scope read.")


def test_limit_is_shown_with_the_time_to_wait(stage: Stage) -> None:
    page = stage.sign_in(stage.keys["limited"])
    ask(page, "one")
    page.fill("#message", "two")
    page.press("Enter")
    page.wait_for_text("rate_limit_exceeded")
    assert re.search(r"Try again in \d+ seconds?\.", page.text())


def choose_asker(page: Page) -> None:
    """Choose the agent whose tool calls a person decides."""
    page.wait("document.querySelector('select')")
    page.evaluate("document.querySelector('select').value = 'asker'")
    page.evaluate("document.querySelector('select').dispatchEvent(new Event('change'))")


def test_approval_is_decided_in_the_chat_that_waits_for_it(stage: Stage) -> None:
    page = stage.sign_in()
    choose_asker(page)
    page.fill("#message", "think first")
    page.press("Enter")
    page.wait_for_text("wants to use read")
    page.wait("document.querySelector('.badge')?.innerText == '1'")
    page.click(".approval button.main")
    page.wait(IS_OVER.format(1))
    assert answers(page) == ["think first"]
    page.wait("!document.querySelector('.badge')")


def test_run_that_waits_for_the_decision_of_somebody_else_says_so(stage: Stage) -> None:
    page = stage.sign_in(stage.keys["write"])
    choose_asker(page)
    page.fill("#message", "think first")
    page.press("Enter")
    page.wait("document.querySelector('.answer .note')?.innerText.startsWith('A tool call waits')")
    assert page.evaluate(STATUS).startswith("A tool call waits")
    with stage.gateway.client() as client:
        [approval] = client.get("/v1/approvals").json()["data"]
        client.post(f"/v1/approvals/{approval['id']}", json={"decision": "deny"})
    page.wait(IS_OVER.format(1))
    assert not page.evaluate("document.querySelector('.answer .note')")


def test_decision_that_comes_too_late_is_answered_in_the_chat(stage: Stage) -> None:
    page = stage.sign_in()
    choose_asker(page)
    page.fill("#message", "think first")
    page.press("Enter")
    page.wait("window.late = document.querySelector('.approval button:last-child')")
    with stage.gateway.client() as client:
        [approval] = client.get("/v1/approvals").json()["data"]
        decided = client.post(f"/v1/approvals/{approval['id']}", json={"decision": "allow-once"})
    assert decided.status_code == 200
    page.evaluate("late.click()")
    page.wait("document.querySelector('.answer [role=alert]')?.innerText.includes('approval_closed')")


def unseen(page: Page, selector: str) -> list[str]:
    """The escapes that are marked in the first element of `selector`; no character of the kind may be left in it."""
    page.wait(f"document.querySelector('{selector} .escape')")
    left = r"/[\p{Cf}\p{Cc}\p{Default_Ignorable_Code_Point}]/u.test"
    text = f"document.querySelector('{selector}').textContent.replaceAll('\\n', '')"
    assert page.evaluate(f"{left}({text})") is False
    found: list[str] = page.evaluate(
        f"[...document.querySelector('{selector}').querySelectorAll('.escape')].map((one) => one.textContent)"
    )
    return found


def test_characters_that_disguise_a_command_are_escapes_wherever_it_is_decided_or_read(stage: Stage) -> None:
    page, escapes = stage.sign_in(), [r"\u202e", r"\u2069", r"\u200b", r"\u{e0041}"]
    choose_asker(page)
    page.fill("#message", "disguise it")
    page.press("Enter")
    assert unseen(page, ".answer .approval pre") == escapes
    chat = page.evaluate("location.hash")
    page.evaluate("location.hash = '#/approvals'")
    assert unseen(page, ".cards .approval pre") == escapes
    page.click(".approval button:last-child")
    page.evaluate(f"location.hash = '{chat}'")
    page.wait(IS_OVER.format(1))
    page.evaluate("document.querySelector('.step').open = true")
    assert unseen(page, ".step summary code") == escapes
    assert unseen(page, ".step pre") == escapes
    page.click(".answer a[href^='#/runs/']")
    assert unseen(page, ".page .step pre") == escapes


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\tb\nc\r\nd e\u00a0f", None),
        ("שלום, Müller 日本語\u3000 ❤\ufe0f", None),
        ("a\rb\x1b\x9b", r"a[\u000d]b[\u001b\u009b]"),
        ("\u202a\u2066\u200f\u061c", r"[\u202a\u2066\u200f\u061c]"),
        ("\ufeffa\u2028b\u2029", r"[\ufeff]a[\u2028]b[\u2029]"),
        ("1\ufe0f \U000e0020x\U000e01ef", r"1[\ufe0f] [\u{e0020}]x[\u{e01ef}]"),
        ("\xad\u2060\u180e\u3164\ufff9", r"[\u00ad\u2060\u180e\u3164\ufff9]"),
        (r"\u202e", None),
    ],
)
def test_hidden_characters_are_found(stage: Stage, text: str, shown: str | None) -> None:
    stage.page.open(f"{stage.gateway.url}/")
    stage.page.wait("document.querySelector('#app > *')")
    found = stage.page.evaluate(f"import('/ui/format.js').then(({{ atHidden }}) => atHidden({json.dumps(text)}))")
    assert "".join(f"[{piece}]" if place % 2 else piece for place, piece in enumerate(found)) == (shown or text)


def test_run_stopped_before_its_approval_is_part_of_the_conversation(stage: Stage) -> None:
    page = stage.sign_in()
    choose_asker(page)
    page.fill("#message", "think first")
    page.press("Enter")
    page.wait_for_text("wants to use read")
    page.press("Escape")
    page.wait(IS_OVER.format(1))
    ask(page, "two")
    assert page.evaluate("[...document.querySelectorAll('.bubble')].map((one) => one.innerText)") == [
        "think first",
        "two",
    ]
    assert answers(page) == ["think first | two"]


def test_run_is_watched_from_another_panel_and_cancelled(stage: Stage) -> None:
    page = stage.sign_in()
    page.fill("#message", "hold the line")
    page.press("Enter")
    page.wait("document.querySelector('.answer .markdown')?.innerText.trim() == 'hold the line'")
    page.evaluate("location.hash = '#/runs'")
    page.wait("document.querySelector('.state.running')")
    page.click(".list a")
    page.wait("document.querySelector('.output')?.innerText.trim() == 'hold the line'")
    page.click("button.danger")
    page.wait("document.querySelector('.facts .state.aborted')")


def _read_any(directory: Path, pattern: str) -> str | None:
    return next((path.read_text() for path in directory.glob(pattern)), None)


def test_session_is_found_exported_and_deleted(stage: Stage, tmp_path: Path) -> None:
    page = stage.sign_in()
    page.send("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    ask(page, "think of ../../passwd")
    ask(page, "say the secret word is cucumber")
    page.evaluate("location.hash = '#/sessions'")
    page.fill("[type=search]", "passwd of")
    page.wait("document.querySelectorAll('.list li').length == 1")
    page.evaluate("location.hash = '#/usage'")
    page.wait("document.querySelector('.totals')")
    page.evaluate("location.hash = '#/sessions'")
    assert page.wait("document.querySelector('[type=search]')?.value") == "passwd of"
    for kind, pattern in ((2, "*.md"), (3, "*.json")):
        page.click("[aria-label^='Export']")
        page.click(f"dialog button:nth-child({kind})")
        assert "cucumber" in until(partial(_read_any, tmp_path, pattern))
    page.click("[aria-label^='Delete']")
    page.click("dialog button.danger")
    page.wait_for_text("Nothing found")


def test_exported_conversation_says_what_is_missing_in_it(stage: Stage, tmp_path: Path) -> None:
    page = stage.sign_in()
    page.send("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    ask(page, f"say {'long ' * 50_000}")
    page.evaluate("location.hash = '#/sessions'")
    page.click("[aria-label^='Export']")
    page.click("dialog button:nth-child(2)")
    text = until(partial(_read_any, tmp_path, "*.md"))
    assert text.count("This message is too long for this file") == 2


DROP_PICTURE = """(async () => {
  const canvas = new OffscreenCanvas(1600, 1200), context = canvas.getContext("2d");
  const noise = context.createImageData(1600, 1200);
  for (let at = 0; at < noise.data.length; at++) noise.data[at] = Math.random() * 256;
  context.putImageData(noise, 0, 0);
  const dataTransfer = new DataTransfer();
  dataTransfer.items.add(new File([await canvas.convertToBlob()], "noise.png", { type: "image/png" }));
  document.querySelector(".composer").dispatchEvent(new DragEvent("drop", { dataTransfer, cancelable: true }));
})()"""


def test_picture_is_sent_and_shown_again(stage: Stage, module_upstream: Upstream) -> None:
    page = stage.sign_in()
    page.evaluate(DROP_PICTURE)
    page.wait("document.querySelector('.chosen img')")
    page.fill("#message", "look")
    page.press("Enter")
    page.wait(IS_OVER.format(1))
    [_, picture] = module_upstream.requests[-1].body["messages"][-1]["content"]
    assert picture["image_url"]["url"].startswith("data:image/")
    assert len(picture["image_url"]["url"]) < 180_000
    page.open(page.evaluate("location.href"))
    page.wait("document.querySelector('.user img')?.naturalWidth > 0")


def test_pictures_kept_from_two_messages_are_small_enough_for_one(stage: Stage) -> None:
    text, key = create_key(stage.gateway.state_dir, "read")
    page = stage.sign_in(text)
    page.evaluate(DROP_PICTURE)
    page.wait("document.querySelector('.chosen img')")
    page.fill("#message", "look")
    page.press("Enter")
    page.wait_for_text("This API key does not have the scope chat.")
    page.evaluate(DROP_PICTURE)
    page.wait("document.querySelector('.chosen img')")
    with open_keys(stage.gateway.state_dir) as keys:
        keys.revoke(key)
    page.evaluate("location.hash = '#/sessions'")
    page.wait_for_text("invalid_api_key")
    page.evaluate("location.hash = '#/chat'")
    page.fill("#secret", TOKEN)
    page.press("Enter")
    page.wait("document.querySelectorAll('.chosen img').length == 2")
    page.wait("[...document.querySelectorAll('.chosen img')].map(({ src }) => src).join('').length < 180_000")


#: Counts the blocks of Markdown that are taken away while an answer comes.
COUNT_REPLACED = """window.replaced = 0;
new MutationObserver((changes) => {
  for (const { target, removedNodes } of changes) if (target.className === "markdown") replaced += removedNodes.length;
}).observe(document.querySelector("#app"), { subtree: true, childList: true })"""


def test_long_answer_is_not_drawn_again_for_each_piece(stage: Stage) -> None:
    page = stage.sign_in()
    page.evaluate(COUNT_REPLACED)
    ask(page, "book")
    [text] = answers(page)
    assert text.count("paragraph") == PARAGRAPHS
    assert page.evaluate("document.querySelectorAll('.markdown > p').length") == PARAGRAPHS
    assert page.evaluate("replaced") < 12 * PARAGRAPHS  # a few for each paragraph while it grows


def test_watched_run_is_taken_up_again_when_the_gateway_is_back(
    stage: Stage, module_upstream: Upstream, tmp_path: Path
) -> None:
    config, page = config_of(module_upstream, tmp_path), stage.page
    with live_gateway(tmp_path, config) as first:
        Stage(first, page, {}).sign_in()
        page.fill("#message", "hold the line")
        page.press("Enter")
        page.wait("document.querySelector('.answer .markdown')?.innerText.trim() == 'hold the line'")
        page.evaluate("import('/ui/chat.js').then(({ chat }) => { location.hash = `#/runs/${chat.run.runId}`; })")
        page.wait("document.querySelector('.output')?.innerText.trim() == 'hold the line'")
        first.stop(signal.SIGKILL)
        page.wait_for_text("The gateway cannot be reached.")
    with live_gateway(tmp_path, config, arguments=("--port", str(first.address[1]))):
        page.wait("document.querySelector('.facts .state.interrupted')")
        page.wait("!document.body.innerText.includes('cannot be reached')")
        assert page.evaluate("document.querySelector('.output').innerText.trim()") == "hold the line"


FOCUS = "(document.activeElement.ariaLabel || document.activeElement.id)"


def press_on(page: Page, selector: str) -> None:
    """Press Enter on an element, as those do who use no pointer."""
    page.wait(f"document.querySelector({json.dumps(selector)})?.disabled === false")
    page.evaluate(f"document.querySelector({json.dumps(selector)}).focus()")
    page.press("Enter")


def test_focus_stays_in_the_chat_when_what_had_it_is_gone(stage: Stage) -> None:
    page = stage.sign_in()
    page.fill("#message", "hold on")
    page.press("Enter")
    page.wait("document.querySelector('.answer .markdown')")
    press_on(page, "[aria-label=Stop]")
    page.wait(f"{FOCUS} === 'Message'")
    page.wait(IS_OVER.format(1))
    ask(page, "one")
    press_on(page, "article:last-of-type [aria-label='Ask again']")
    page.wait(f"{FOCUS} === 'Message'")
    page.wait("document.querySelector('.branches')")
    press_on(page, "[aria-label='Edit message']")
    page.wait("document.activeElement.closest('.editing')")
    page.press("Escape")
    page.wait(f"{FOCUS} === 'Message'")


def test_escape_stops_an_answer_that_is_being_read(stage: Stage) -> None:
    page = stage.sign_in()
    page.fill("#message", "hold on")
    page.press("Enter")
    page.wait("document.querySelector('.answer .markdown')")
    page.evaluate("document.querySelector('.messages').focus()")
    page.press("Escape")
    page.wait(IS_OVER.format(1))


def test_focus_stays_in_the_field_when_a_secret_is_refused(stage: Stage) -> None:
    page = stage.sign_in()
    page.click(".foot button")
    page.fill("#secret", "wrong")
    page.press("Enter")
    page.wait_for_text("invalid_api_key")
    page.wait(f"{FOCUS} === 'secret'")
    page.send("Input.insertText", text=TOKEN)
    page.press("Enter")
    page.wait("document.querySelector('nav')")


def test_everything_is_reached_with_the_keyboard(stage: Stage) -> None:
    page = stage.page
    page.open(f"{stage.gateway.url}/")
    page.wait("document.querySelector('#app > *')")
    page.evaluate("sessionStorage.clear()")
    page.open(f"{stage.gateway.url}/")
    page.wait("document.activeElement?.id === 'secret'")
    page.send("Input.insertText", text=TOKEN)
    page.press("Enter")
    page.wait("document.querySelector('nav')")
    focused = []
    for _ in range(40):
        page.press("Tab")
        focused.append(page.evaluate("document.activeElement.ariaLabel || document.activeElement.innerText"))
        if focused[-1] == "Message":
            break
    assert focused[:2] == ["Skip to content", "Chat"]
    page.send("Input.insertText", text="one")
    page.press("Enter")
    page.wait(IS_OVER.format(1))
    assert answers(page) == ["one"]
    assert page.evaluate("document.activeElement.ariaLabel") == "Message"
