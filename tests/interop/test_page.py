"""The page at `/`, held against axe-core and the compiler of TypeScript."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.browser import Page, needs_browser
from support.documents import reader_environment, succeed
from support.live import LiveGateway
from support.page_stage import Stage, ask, open_stage
from support.upstream import Upstream

import service.api.control_ui
from interop.conftest import Published

FORMATTED = (
    "say # Plan\n\n* **bold** and `code`\n\n```\nx\n```\n\n| a |\n|---|\n| 1 |\n\n> quoted [link](https://example.com)"
)
PANELS = {"sessions": ".list", "runs": ".list", "approvals": ".approval", "usage": ".plot", "gateway": ".fold"}


def test_modules_have_no_errors_of_type(gateway: LiveGateway, published: Published) -> None:
    options = ["--noEmit", "--allowJs", "--strict", "--noImplicitAny", "false", "--target", "es2022"]
    options += ["--module", "nodenext", "--lib", "es2023,dom,dom.iterable"]
    compiler = [str(published.node), str(published.modules / "typescript" / "bin" / "tsc")]
    succeed([*compiler, *options, "app.js"], reader_environment(gateway), Path(service.api.control_ui.__file__).parent)


@pytest.fixture(scope="module")
def stage(module_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with open_stage(module_upstream, tmp_path_factory.mktemp("page")) as opened:
        yield opened


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_axe_finds_nothing_that_matters(stage: Stage, published: Published, width: int, scheme: str) -> None:
    axe = (published.modules / "axe-core" / "axe.min.js").read_text()
    stage.page.show_as(width, 844, scheme)
    found = dict(_violations(stage, axe))
    assert {place: violations for place, violations in found.items() if violations} == {}


def _violations(stage: Stage, axe: str) -> Iterator[tuple[str, Any]]:
    page = stage.page
    stage.sign_in()
    yield "empty chat", _check(page, axe)
    ask(page, "think hard")
    ask(page, FORMATTED)
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    yield "chat", _check(page, axe)
    page.click("[aria-label='Edit message']")
    page.wait("document.querySelector('.editing')")
    yield "edit", _check(page, axe)
    stage.sign_in()
    page.wait("document.querySelector('select')")
    page.evaluate("document.querySelector('select').value = 'asker'")
    page.evaluate("document.querySelector('select').dispatchEvent(new Event('change'))")
    page.fill("#message", "think twice")
    page.press("Enter")
    page.wait("document.querySelector('.approval')")
    for panel, selector in PANELS.items():
        page.evaluate(f"location.hash = '#/{panel}'")
        page.wait(f"document.querySelector('main {selector}')")
        yield panel, _check(page, axe)
    page.click(".foot button")
    page.fill("#secret", "wrong")
    page.press("Enter")
    page.wait_for_text("invalid_api_key")
    yield "signing in", _check(page, axe)


def _check(page: Page, axe: str) -> Any:
    page.evaluate(f"{axe};0")
    return page.evaluate(
        "axe.run(document).then((r) => r.violations.map(({ id, nodes }) => [id, nodes.map(({ html }) => html)]))"
    )
