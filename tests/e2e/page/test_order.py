"""What happened in a conversation, in its order and as it happens, wherever it is watched."""

from __future__ import annotations

from support.browser import needs_browser
from support.page_stage import Stage, ask

pytestmark = needs_browser

#: What an answer consists of, in the order in which it is shown.
PIECES = """[...document.querySelectorAll('.answer > :is(details, .markdown)')].map((one) =>
  one.className === 'markdown' ? one.innerText.trim() : one.querySelector('.thoughts')?.textContent ?? 'tool')"""
IN_ORDER = ["Thought 0.", "Saying 0.", "tool", "Thought 1.", "Saying 1.", "tool", "Thought 2.", "Saying 2."]


def test_text_stands_before_the_tool_that_was_called_after_it(stage: Stage) -> None:
    page = stage.sign_in()
    ask(page, "announce it")
    assert page.evaluate(PIECES) == IN_ORDER
    page.open(page.evaluate("location.href"))
    page.wait("document.querySelector('.answer')")
    assert page.evaluate(PIECES) == [piece for piece in IN_ORDER if "Thought" not in piece]
