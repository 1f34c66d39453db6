"""The event loop while large requests are handled: other greenlets run again after little CPU time.

CPU time is measured instead of lateness, which other programs of the machine add to.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import flask
import orjson
import pytest
from support.live import TOKEN, scripted_config
from support.pictures import data_uri, picture

from service.api.auth import Credentials
from service.config.schema import parse_config
from service.config.source import Locations
from service.core.concurrency import sleep, spawn
from service.gateway.build import open_gateway
from service.server.app import open_apps

MIB = 1024 * 1024
#: The limit is 50 ms on an idle machine; a busy one has cold caches.
MOST_CPU_SECONDS = 0.1
USER = {"role": "user", "content": "hello there"}


def _bytes_of(**members: object) -> bytes:
    return orjson.dumps({"messages": [USER], **members})


def _said(content: object) -> bytes:
    return _bytes_of(messages=[{"role": "user", "content": content}])


def _with_picture(url: str, *texts: str) -> bytes:
    parts = [{"type": "text", "text": text} for text in texts]
    return _said([*parts, {"type": "image_url", "image_url": {"url": url}}])


#: Functions that make the bodies, and their statuses: every worker collects all tests, and few need the bodies.
CASES: dict[str, tuple[Callable[[], bytes], int]] = {
    "text": (lambda: _said("x" * (15 * MIB)), 502),
    "words": (lambda: _said("word " * (3 * MIB)), 502),
    "words-answered": (lambda: _said("word " * 400_000), 200),
    "escapes": (lambda: b'{"messages":[{"role":"user","content":"' + b"\\\\" * 1_900_000 + b'"}]}', 200),
    "too-many-escapes": (lambda: b'{"messages":[{"role":"user","content":"' + b"\\\\" * 9_000_000 + b'"}]}', 413),
    "emoji": (lambda: _said("\U0001f600" * 1_700_000), 200),
    "too-many-emoji": (lambda: _said("\U0001f600" * 4_000_000), 413),
    "surrogates": (lambda: b'{"messages":[{"role":"user","content":"' + rb"\ud83d" * 1_000_000 + b'"}]}', 200),
    "messages": (lambda: _bytes_of(messages=[USER] * 10_000), 200),
    "too-many-messages": (lambda: _bytes_of(messages=[USER] * 650_000)[: 18 * MIB], 400),
    "logit-bias": (lambda: _bytes_of(logit_bias={str(key): 1 for key in range(100_000)}), 400),
    "unknown-keys": (lambda: _bytes_of(**{f"key{key}": 1 for key in range(99_000)}), 200),
    "too-many-keys": (lambda: _bytes_of(**{f"key{key}": 1 for key in range(190_000)}), 400),
    "picture": (lambda: _with_picture("data:image/png;base64," + "A" * 13_000_000), 400),
    "picture-answered": (lambda: _with_picture(data_uri(picture("PNG") + bytes(9_500_000)), "look"), 200),
}


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[flask.Flask]:
    directory = tmp_path_factory.mktemp("loop")
    # The server gives the memory of requests back, and there is none here.
    config, _ = parse_config(scripted_config(maxInFlightBytes=8192 * MIB))
    locations = Locations(directory / "openclaw.json", directory, dev=False)
    with closing(open_gateway(config, locations, {})) as gateway:
        app = open_apps(config, Credentials("token", TOKEN), gateway).app
        _send(app, _bytes_of())  # what is made once is no part of a large request
        yield app


def _send(app: flask.Flask, body: bytes) -> Any:
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    return app.test_client().post("/v1/chat/completions", data=body, headers=headers)


@pytest.mark.parametrize("name", CASES)
def test_no_request_holds_the_event_loop(app: flask.Flask, name: str) -> None:
    make_body, expected = CASES[name]
    body = make_body()
    longest = 0.0
    done = False

    def watch() -> None:
        nonlocal longest
        while not done:
            before = time.thread_time()
            sleep(0.001)
            longest = max(longest, time.thread_time() - before)

    gc.collect()
    gc.disable()  # a collection of everything that tests have imported takes longer than the requests
    try:
        watcher = spawn(watch)
        sleep(0.01)
        response = _send(app, body)
        done = True
        watcher.join()
    finally:
        gc.enable()
    assert response.status_code == expected, response.data[:500]
    assert longest < MOST_CPU_SECONDS
