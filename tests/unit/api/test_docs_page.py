"""The files of the page at `/docs`."""

from __future__ import annotations

import re

import orjson
import pytest

from handlers.docs import get_docs_asset, get_error_page
from service.api.http.contract import load_contract
from service.core.errors import KINDS


@pytest.mark.parametrize("asset", ["swagger-ui.css", "swagger-ui-bundle.js", "start.js"])
def test_page_gets_its_files(asset: str) -> None:
    response = get_docs_asset(asset)
    content = b"".join(response({"REQUEST_METHOD": "GET"}, lambda *_: None))
    assert content


@pytest.mark.parametrize("code", KINDS)
def test_page_of_error_says_why_and_what_to_do(code: str) -> None:
    page = b"".join(get_error_page(code)({"REQUEST_METHOD": "GET"}, lambda *_: None)).decode()
    returned = f'"{code}"' in orjson.dumps(load_contract()["components"]["responses"]).decode()
    where = f"HTTP status {KINDS[code].status} (" if returned else "Of the WebSocket only"
    assert f"<h1><code>{code}</code></h1>\n<p>{where}" in page
    assert len(re.findall(r"<h2>[\w ]+</h2>\n<p>[^\n]+\.</p>", page)) == 2
    assert "`" not in page


def test_swagger_ui_is_of_a_maintained_version() -> None:
    content = b"".join(get_docs_asset("swagger-ui-bundle.js")({"REQUEST_METHOD": "GET"}, lambda *_: None))
    found = re.search(rb'PACKAGE_VERSION:"(\d+)\.(\d+)', content)
    assert found is not None
    assert (int(found[1]), int(found[2])) >= (5, 24)
