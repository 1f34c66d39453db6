"""The files of the page at `/`, over real sockets."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from support.live import live_gateway, stubbed_config
from support.upstream import Upstream


@pytest.fixture(scope="module")
def client(module_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    config = stubbed_config(module_upstream.url, "stub/talk")
    config["gateway"]["controlUi"] = {"enabled": True}
    with live_gateway(tmp_path_factory.mktemp("files"), config) as gateway, gateway.client(token=None) as client:
        yield client


@pytest.mark.parametrize("path", ["/", "/ui/app.js", "/ui/style.css", "/ui/vendor/purify.min.js"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_file_is_sent_once_and_confirmed_afterwards(client: httpx.Client, method: str, path: str) -> None:
    first = client.request(method, path)
    assert (first.status_code, first.headers["cache-control"]) == (200, "no-cache")
    assert bool(first.content) == (method == "GET")
    again = client.request(method, path, headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", first.headers["etag"])
    assert "content-type" not in again.headers
    changed = client.request(method, path, headers={"If-None-Match": '"of-an-earlier-version"'})
    assert (changed.status_code, changed.headers["etag"]) == (200, first.headers["etag"])


def test_file_that_is_not_of_the_page_is_not_found(client: httpx.Client) -> None:
    for path in ("/ui/vendor/libraries.json", "/ui/vendor/..%2f__init__.py", "/ui/__init__.py", "/ui/lit-html.js"):
        assert client.get(path).status_code in (400, 404)
