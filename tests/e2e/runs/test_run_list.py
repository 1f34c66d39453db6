"""`GET /v1/runs`: runs that go on and runs that have ended, in one list."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.chat import ask, error_of
from support.live import LiveGateway, live_gateway, stubbed_config
from support.polling import until
from support.scripted_upstream import Play, calls
from support.upstream import Exchange, Upstream

SESSION_KEY = "x-openclaw-session-key"


@pytest.fixture(scope="module")
def relay(module_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    directory = tmp_path_factory.mktemp("relay")
    agents = [{"id": "main", "default": True, "workspace": str(directory)}, {"id": "beta"}]
    config = stubbed_config(module_upstream.url, agents=agents, defaults={"timeoutSeconds": 60})
    with live_gateway(directory, config) as running:
        yield running


@pytest.fixture
def talk(relay: LiveGateway) -> Iterator[httpx.Client]:
    with relay.client() as client:
        yield client


def listed(client: httpx.Client, limit: int = 100, **query: Any) -> list[dict[str, Any]]:
    """Read all runs page by page."""
    found: list[dict[str, Any]] = []
    after: dict[str, str] = {}
    while True:
        page = client.get("/v1/runs", params={"limit": limit, **query, **after}).json()
        found += page["data"]
        if not page["has_more"]:
            assert page["next_cursor"] is None
            return found
        after = {"after": page["next_cursor"]}


def held_until(release: threading.Event) -> Any:
    """A model that writes a word, then waits."""

    def answer(exchange: Exchange) -> None:
        exchange.head()
        exchange.event({"content": "one "})
        assert release.wait(60)
        exchange.event({"content": "two"})
        exchange.end("stop")

    return answer


def test_running_and_ended_runs_are_listed_once(talk: httpx.Client, upstream: Upstream) -> None:
    release, name = threading.Event(), uuid.uuid4().hex
    upstream.answers[name] = held_until(release)
    headers = {"x-openclaw-model": f"stub/{name}", SESSION_KEY: name}
    ended = [ask(talk, "hi").json()["id"] for _ in range(3)]
    with ThreadPoolExecutor(2) as pool:
        try:
            alone = pool.submit(ask, talk, "hi", stream=True, headers={"x-openclaw-model": f"stub/{name}"})
            until(lambda: listed(talk, state="running"))
            held = pool.submit(ask, talk, "hi", headers=headers)
            (in_session,) = until(lambda: [one for one in listed(talk, session_key=name) if one["first_output_at"]])
            (stateless,) = [one for one in listed(talk, state="running") if one["id"] != in_session["id"]]
            for one in (in_session, stateless):
                assert (one["state"], one["step"], one["model"]) == ("running", 1, f"stub/{name}")
                assert one["created_at"] <= one["started_at"] <= one["first_output_at"]
            for limit in (1, 2, 100):
                ids = [one["id"] for one in listed(talk, limit)]
                assert ids[:5] == [in_session["id"], stateless["id"], *reversed(ended)]
                assert len(set(ids)) == len(ids)
            assert talk.get(f"/v1/runs/{stateless['id']}").json()["state"] == "running"
        finally:
            release.set()
        for future in (alone, held):
            assert future.result().status_code == 200
    assert [one["id"] for one in listed(talk)][:5] == [in_session["id"], stateless["id"], *reversed(ended)]
    (stored,) = listed(talk, session_key=f"agent:main:{name}")
    assert (stored["state"], stored["first_output_at"]) == ("ok", in_session["first_output_at"])
    assert listed(talk, state="running") == []


def test_run_shows_step_tool_and_usage_so_far(talk: httpx.Client, upstream: Upstream) -> None:
    release, name = threading.Event(), uuid.uuid4().hex

    answers = iter([Play(calls(("find", {"pattern": "*.none"}))), held_until(release)])

    def answer_next(exchange: Exchange) -> None:
        next(answers)(exchange)

    upstream.answers[name] = answer_next
    with ThreadPoolExecutor(1) as pool:
        try:
            answer = pool.submit(ask, talk, "hi", headers={"x-openclaw-model": f"stub/{name}", SESSION_KEY: name})
            (run,) = until(lambda: [one for one in listed(talk, session_key=name) if one["step"] == 2])
            assert run["usage"]["input_tokens"] > 0
            assert run["tool"] is None
        finally:
            release.set()
        assert answer.result().status_code == 200
    (run,) = listed(talk, session_key=name)
    assert (run["step"], run["state"]) == (2, "ok")


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"state": "accepted"}, "state"),
        ({"limit": "0"}, "limit"),
        ({"after": "1"}, "after"),
        ({"after": "1.abc"}, "after"),
        ({"session_key": ""}, "session_key"),
        ({"agent": "é"}, "agent"),
    ],
)
def test_wrong_query_is_refused_by_name(talk: httpx.Client, query: dict[str, str], param: str) -> None:
    status, code, name = error_of(talk.get("/v1/runs", params=query))
    assert (status, code, name) == (400, "invalid_value", param)


def test_filters_that_match_nothing_list_nothing(talk: httpx.Client) -> None:
    ask(talk, "hi")
    query: dict[str, str]
    for query in ({"agent": "nobody"}, {"session_key": "nobody"}, {"session_key": "\ud7ff"}, {"after": "0.00"}):
        assert talk.get("/v1/runs", params=query).json()["data"] == []
    assert all(one["agent"] == "main" for one in listed(talk, agent="MAIN"))


def test_local_and_dead_runs_are_listed(upstream: Upstream, tmp_path: Path) -> None:
    release = threading.Event()
    upstream.answers["held"] = held_until(release)
    config = stubbed_config(upstream.url, "stub/held")
    with live_gateway(tmp_path, config) as gateway, ThreadPoolExecutor(1) as pool:
        headers = {"Authorization": "Bearer a-token-for-tests"}
        with httpx.Client(base_url=gateway.url, headers=headers, timeout=60) as client:
            pool.submit(ask, client, "hi", headers={SESSION_KEY: "dies"})
            (run,) = until(lambda: [one for one in listed(client) if one["state"] == "running"])
            gateway.process.kill()
            gateway.process.wait()
    release.set()
    with live_gateway(tmp_path, config) as gateway, gateway.client() as client:
        (found,) = listed(client, state="interrupted")
        assert found["id"] == run["id"]
        assert found["error"]["code"] == "run_interrupted"
