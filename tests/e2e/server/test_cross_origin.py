"""Calls of browsers from pages of other origins: preflight requests, streams, errors, and origins not listed."""

from __future__ import annotations

import functools
import http.server
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import orjson
import pytest
from support.live import TOKEN, LiveGateway, live_gateway, scripted_config

PAGE = "https://ui.example.com"
CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    config = scripted_config()
    config["gateway"]["http"]["cors"] = {"allowedOrigins": [PAGE]}
    with live_gateway(tmp_path_factory.mktemp("cors"), config) as running:
        yield running


def test_preflight_request_of_a_listed_origin_allows_what_the_page_asks_for(gateway: LiveGateway) -> None:
    wanted = "authorization,content-type,x-stainless-os,x-openclaw-session-key"
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": wanted}
    answer = httpx.options(gateway.url + CHAT, headers={"Origin": PAGE, **asked})
    assert answer.status_code == 204
    assert answer.content == b""
    assert answer.headers["Access-Control-Allow-Origin"] == PAGE
    assert answer.headers["Access-Control-Allow-Headers"] == wanted
    assert "POST" in answer.headers["Access-Control-Allow-Methods"]
    assert "Access-Control-Allow-Credentials" not in answer.headers
    assert answer.headers["Vary"] == "Origin"


@pytest.mark.parametrize(
    "origin", ["https://evil.example.com", f"{PAGE}.evil.com", "null", "https://UI.example.com:8443"]
)
def test_other_origins_get_no_permission(gateway: LiveGateway, origin: str) -> None:
    asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    with gateway.client() as client:
        answers = [client.options(CHAT, headers=asked), client.get("/v1/models", headers={"Origin": origin})]
    assert [answer.status_code for answer in answers] == [405, 200]
    for answer in answers:
        assert not [name for name in answer.headers if name.lower().startswith("access-control-")]
        assert answer.headers["Vary"] == "Origin"


def test_responses_of_every_status_can_be_read_by_the_page(gateway: LiveGateway) -> None:
    message = {"messages": [{"role": "user", "content": "hi"}]}
    with gateway.client() as client:
        client.headers["Origin"] = PAGE
        answers = [
            client.post(CHAT, json=message),
            client.post(CHAT, json={**message, "stream": True}),
            client.post(CHAT, json={}),
            client.post(CHAT, content=b"{}", headers={"Content-Type": "text/plain"}),
            client.get("/nothing"),
            client.delete("/v1/models"),
            client.get("/v1/models", headers={"Authorization": "Bearer wrong"}),
        ]
    assert [answer.status_code for answer in answers] == [200, 200, 400, 415, 404, 405, 401]
    for answer in answers:
        assert answer.headers["Access-Control-Allow-Origin"] == PAGE
        exposed = answer.headers["Access-Control-Expose-Headers"].split(", ")
        assert {"x-request-id", "Retry-After", "x-openclaw-session-key"} <= set(exposed)


def test_without_listed_origins_nothing_is_allowed(tmp_path: Path) -> None:
    with live_gateway(tmp_path, scripted_config()) as gateway, gateway.client() as client:
        asked = {"Origin": PAGE, "Access-Control-Request-Method": "POST"}
        answer = client.options(CHAT, headers=asked)
    assert answer.status_code == 405
    assert not {"vary", "access-control-allow-origin"} & set(answer.headers)


_SCRIPT = """
<p id="result">waiting</p><script type="module">
const ask = (body) => fetch("%(url)s/v1/chat/completions", {method: "POST", body: JSON.stringify(body),
  headers: {"Authorization": "Bearer %(token)s", "Content-Type": "application/json", "X-Stainless-Lang": "js"}});
const messages = [{role: "user", content: "hello"}];
let text;
try {
  const [whole, stream, wrong] = await Promise.all([ask({messages}), ask({messages, stream: true}), ask({})]);
  const answer = await whole.json(), events = await stream.text();
  const {error} = await wrong.json(), id = wrong.headers.get("x-request-id");
  const content = answer.choices[0].message.content, isWhole = events.endsWith("[DONE]\\n\\n");
  text = JSON.stringify([content, isWhole, wrong.status, error.code, id.length > 0]);
} catch (error) { text = String(error); }
document.getElementById("result").textContent = text;
</script>
"""


@pytest.mark.skipif(shutil.which("chromium") is None, reason="Chromium is not installed (Debian: apt install chromium)")
@pytest.mark.parametrize("is_listed", [True, False])
def test_page_in_a_browser_reads_answers_streams_and_errors_only_if_listed(tmp_path: Path, *, is_listed: bool) -> None:
    site = tmp_path / "site"
    site.mkdir()
    with _static_site(site) as origin:
        config = scripted_config()
        config["gateway"]["http"]["cors"] = {"allowedOrigins": [origin if is_listed else PAGE]}
        with live_gateway(tmp_path / "gateway", config) as gateway:
            (site / "index.html").write_text(_SCRIPT % {"url": gateway.url, "token": TOKEN})
            shown = _result_in_browser(f"{origin}/index.html", tmp_path / "profile")
    if is_listed:
        text, is_whole, *error = orjson.loads(shown)
        assert "hello" in text
        assert (is_whole, error) == (True, [400, "missing_required_parameter", True])
    else:
        assert shown == "TypeError: Failed to fetch"


@contextmanager
def _static_site(directory: Path) -> Iterator[str]:
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(directory))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def _result_in_browser(url: str, profile: Path) -> str:
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--disable-sync",
        f"--user-data-dir={profile}",
        "--virtual-time-budget=20000",
    ]
    done = subprocess.run(
        ["chromium", *flags, "--dump-dom", url], capture_output=True, text=True, timeout=240, check=True
    )
    return done.stdout.partition('<p id="result">')[2].partition("</p>")[0]
