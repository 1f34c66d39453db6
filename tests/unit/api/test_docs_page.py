"""The files of the page at `/docs`."""

from __future__ import annotations

import re

import pytest

from handlers.docs import get_docs_asset


@pytest.mark.parametrize("asset", ["swagger-ui.css", "swagger-ui-bundle.js", "start.js"])
def test_page_gets_its_files(asset: str) -> None:
    response = get_docs_asset(asset)
    content = b"".join(response({"REQUEST_METHOD": "GET"}, lambda *_: None))
    assert content


def test_swagger_ui_is_of_a_maintained_version() -> None:
    content = b"".join(get_docs_asset("swagger-ui-bundle.js")({"REQUEST_METHOD": "GET"}, lambda *_: None))
    found = re.search(rb'PACKAGE_VERSION:"(\d+)\.(\d+)', content)
    assert found is not None
    assert (int(found[1]), int(found[2])) >= (5, 24)
