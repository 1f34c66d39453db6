"""`GET /v1/runs/{id}/events`: watched live, resumed anywhere, from every process, on both databases."""

from __future__ import annotations

import random
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.chat import ask, error_of
from support.conformance import Conformance
from support.live import TOKEN, LiveGateway, live_gateway, stubbed_config
from support.polling import until
from support.run_events import follow, joined, parse_events, text_of
from support.scripted_upstream import Play, calls
from support.upstream import Exchange, Upstream

LETTERS = ("a", "là ", "𝄞🎼", "\u0000\n\n", "data: x\n\n", "", " tail")
WHOLE = "".join(LETTERS)


@pytest.fixture(scope="module")
def conformance() -> Conformance:
    return Conformance()


@pytest.fixture(scope="module")
def config(module_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    directory = tmp_path_factory.mktemp("workspace")
    agent = {"id": "main", "workspace": str(directory), "tools": {"profile": "full", "approvals": {"write": "ask"}}}
    return stubbed_config(module_upstream.url, agents=[agent], defaults={"timeoutSeconds": 120})


class Paced:
    """A model that writes `pieces`, each when it is let."""

    def __init__(self, upstream: Upstream, *pieces: str) -> None:
        self.pieces = pieces
        self.turns = threading.Semaphore(0)
        self.name = uuid.uuid4().hex
        upstream.answers[self.name] = self

    def __call__(self, exchange: Exchange) -> None:
        exchange.head()
        for piece in self.pieces:
            assert self.turns.acquire(timeout=60)
            exchange.event({"content": piece})
        assert self.turns.acquire(timeout=60)
        exchange.end("stop")

    def go_on(self, turns: int = 1000) -> None:
        self.turns.release(turns)


def start(client: httpx.Client, model: str, **fields: Any) -> str:
    """Start a run and return its path."""
    response = client.post("/v1/runs", json={"input": "hi", "model": f"stub/{model}", **fields})
    assert response.status_code == 202, response.text
    return response.headers["Location"]


def events_of(client: httpx.Client, path: str, conformance: Conformance, after: int = 0) -> list[dict[str, Any]]:
    """Return the events of a run that has ended, or wait for its end."""
    response = client.get(f"{path}/events", headers={"Last-Event-ID": str(after)}, timeout=60)
    assert response.status_code == 200, response.text
    events = parse_events(conformance, response.content, after)
    assert events[-1]["type"] == "run.ended"
    return events


def test_events_come_live_and_are_replayed_by_every_process(
    pair: tuple[LiveGateway, LiveGateway],
    here: httpx.Client,
    there: httpx.Client,
    upstream: Upstream,
    conformance: Conformance,
) -> None:
    model = Paced(upstream, "one ", "two ", "three")
    path = start(here, model.name)
    seen: list[list[dict[str, Any]]] = []
    for gateway in pair:
        stream = follow(gateway.url, path, TOKEN)
        assert [event["type"] for event in islice(stream, 2)] == ["run.queued", "run.started"]
        seen.append([*stream_until_text(model, stream)])
    shown = until(lambda: run if (run := there.get(path).json())["first_output_at"] else None)
    assert (shown["state"], shown["step"], shown["model"]) == ("running", 1, f"stub/{model.name}")
    model.go_on()
    whole = [events_of(client, path, conformance) for client in (here, there)]
    assert joined(whole[0]) == joined(whole[1])
    assert [event["type"] for event in joined(whole[0])] == [
        *("run.queued", "run.started", "text.delta", "usage", "run.ended")
    ]
    assert text_of(whole[0]) == "one two three"
    ended = whole[0][-1]
    assert (ended["state"], ended["finish_reason"], ended["error"]) == ("ok", "stop", None)
    for events in seen:
        assert "one two three".startswith(text_of(events))


def stream_until_text(model: Paced, stream: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    model.go_on(1)
    yield next(stream)


def test_stream_cut_anywhere_is_continued_anywhere(
    here: httpx.Client, there: httpx.Client, upstream: Upstream, conformance: Conformance
) -> None:
    model = Paced(upstream, *LETTERS)
    model.go_on()
    path = start(here, model.name)
    whole = joined(events_of(here, path, conformance))
    assert text_of(whole) == WHOLE
    raw = there.get(f"{path}/events").content
    rests: dict[tuple[int, httpx.Client], list[dict[str, Any]]] = {}
    for cut in range(len(raw) + 1):
        begun = parse_events(conformance, raw[:cut])
        last = begun[-1]["sequence_number"] if begun else 0
        client = random.Random(cut).choice((here, there))
        if (last, client) not in rests:
            response = client.get(f"{path}/events", params={"after": last})
            rests[last, client] = parse_events(conformance, response.content, last)
            assert response.status_code == (200 if rests[last, client] else 204)
        assert joined([*begun, *rests[last, client]]) == whole
    assert rests[last, client] == []


def test_text_is_continued_within_its_pieces(
    here: httpx.Client, there: httpx.Client, upstream: Upstream, conformance: Conformance
) -> None:
    model = Paced(upstream, WHOLE)
    model.go_on()
    path = start(here, model.name)
    whole = events_of(here, path, conformance)
    for seen in range(len(WHOLE) + 1):
        for client in (here, there):
            rest = events_of(client, path, conformance, 2 + seen)
            assert text_of(rest) == WHOLE[seen:]
            assert rest[-2:] == whole[-2:]


def test_reader_that_goes_back_and_forth_during_the_run_misses_nothing(
    pair: tuple[LiveGateway, LiveGateway], here: httpx.Client, upstream: Upstream
) -> None:
    words = tuple(f"{number} " for number in range(40))
    model = Paced(upstream, *words)
    path, events, last = start(here, model.name), [], 0
    for turn in range(60):
        model.go_on(1)
        for event in islice(follow(pair[turn % 2].url, path, TOKEN, last), 1):
            events.append(event)
            last = event["sequence_number"]
        if event["type"] == "run.ended":
            break
    assert text_of(events) == "".join(words)
    assert [event["type"] for event in events].count("run.ended") == 1


def test_tools_usage_and_approvals_are_shown(
    here: httpx.Client, there: httpx.Client, upstream: Upstream, conformance: Conformance
) -> None:
    write = ("write", {"path": f"{uuid.uuid4().hex}.txt", "content": "x"})
    name = uuid.uuid4().hex
    upstream.answers[name] = Play(calls(write, text="Let me."), calls(("read", {"path": "none"})), calls(text="Done."))
    path = start(here, name)
    approval = until(lambda: there.get("/v1/approvals").json()["data"])[0]
    until(lambda: there.get(path).json()["state"] == "waiting")
    there.post(f"/v1/approvals/{approval['id']}", json={"decision": "allow-once"})
    whole = events_of(there, path, conformance)
    assert joined(whole) == joined(events_of(here, path, conformance))
    kinds = [event["type"] for event in joined(whole)]
    assert kinds == [
        *("run.queued", "run.started", "text.delta", "usage", "approval.requested", "approval.closed"),
        *("tool.started", "tool.ended", "usage", "tool.started", "tool.ended", "text.delta", "usage", "run.ended"),
    ]
    by_kind = {event["type"]: event for event in whole}
    assert by_kind["approval.requested"]["id"] == by_kind["approval.closed"]["id"] == approval["id"]
    assert (by_kind["approval.closed"]["state"], by_kind["approval.closed"]["decision"]) == ("decided", "allow-once")
    assert (by_kind["tool.ended"]["ok"], by_kind["tool.started"]["name"]) == (False, "read")
    assert "none" in by_kind["tool.ended"]["summary"]
    assert text_of(whole) == "Let me.\n\nDone."
    steps = [event["input_tokens"] for event in whole if event["type"] == "usage"]
    assert steps == sorted(steps)
    assert there.get(path).json()["usage"]["input_tokens"] == steps[-1]


@pytest.mark.parametrize("stream", [False, True])
def test_chat_completion_can_be_watched_where_it_runs(
    here: httpx.Client, there: httpx.Client, upstream: Upstream, conformance: Conformance, *, stream: bool
) -> None:
    model = Paced(upstream, "one ", "two")
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(ask, here, "hi", headers={"x-openclaw-model": f"stub/{model.name}"}, stream=stream)
        (run,) = until(lambda: here.get("/v1/runs", params={"state": "running"}).json()["data"])
        path = f"/v1/runs/{run['id']}"
        assert error_of(there.get(f"{path}/events"))[:2] == (404, "run_not_found")
        model.go_on()
        events = events_of(here, path, conformance)
        assert answer.result().headers["x-openclaw-run-id"] == run["id"]
    assert text_of(events) == "one two"
    assert error_of(there.get(f"{path}/events"))[:2] == (410, "run_events_gone")
    assert joined(events_of(here, path, conformance)) == joined(events)


def test_every_process_shows_the_progress_of_a_chat(
    here: httpx.Client, there: httpx.Client, upstream: Upstream
) -> None:
    model = Paced(upstream, "one ", "two")
    key = uuid.uuid4().hex
    with ThreadPoolExecutor(1) as pool:
        headers = {"x-openclaw-model": f"stub/{model.name}", "x-openclaw-session-key": key}
        answer = pool.submit(ask, here, "hi", headers=headers)
        (run,) = until(lambda: there.get("/v1/runs", params={"session_key": key, "state": "running"}).json()["data"])
        model.go_on(1)
        shown = until(lambda: there.get(f"/v1/runs/{run['id']}").json()["first_output_at"])
        run = there.get(f"/v1/runs/{run['id']}").json()
        assert (run["state"], run["model"], run["step"]) == ("running", f"stub/{model.name}", 1)
        assert shown == here.get(f"/v1/runs/{run['id']}").json()["first_output_at"]
        model.go_on()
        assert answer.result().is_success
    assert there.get(f"/v1/runs/{run['id']}").json()["state"] == "ok"


def test_look_at_a_run_of_another_process_waits_for_its_progress(
    here: httpx.Client, there: httpx.Client, upstream: Upstream
) -> None:
    model = Paced(upstream, "one")
    key = uuid.uuid4().hex
    looks: list[str | None] = []
    with ThreadPoolExecutor(1) as pool:
        headers = {"x-openclaw-model": f"stub/{model.name}", "x-openclaw-session-key": key}
        answer = pool.submit(ask, here, "hi", headers=headers)
        (run,) = until(lambda: here.get("/v1/runs", params={"session_key": key, "state": "running"}).json()["data"])
        while not looks or looks[-1] is None:
            looks.append(there.get(f"/v1/runs/{run['id']}").json()["model"])
        model.go_on()
        assert answer.result().is_success
    assert looks[-1] == f"stub/{model.name}"
    assert len(looks) < 10


def test_failed_and_refused_runs_end_with_their_errors(
    here: httpx.Client, there: httpx.Client, upstream: Upstream, conformance: Conformance
) -> None:
    path = start(here, "status-401")
    ends = [events_of(client, path, conformance) for client in (here, there)]
    assert ends[0] == ends[1]
    assert (ends[0][-1]["state"], ends[0][-1]["error"]["code"]) == ("error", "provider_authentication_failed")
    model = Paced(upstream, "x")
    session = {"session_key": uuid.uuid4().hex}
    holder, waiting = start(here, model.name, **session), start(here, model.name, **session)
    assert there.post(f"{waiting}/cancel").status_code == 200
    for client in (here, there):
        events = events_of(client, waiting, conformance)
        assert [event["type"] for event in events] == ["run.queued", "usage", "run.ended"]
        assert events[-1]["state"] == "aborted"
    model.go_on()
    assert events_of(there, holder, conformance)[-1]["state"] == "ok"


def test_head_has_the_headers_of_get(here: httpx.Client, upstream: Upstream, conformance: Conformance) -> None:
    model = Paced(upstream, "x")
    path = start(here, model.name)
    assert here.head(f"{path}/events").headers["content-type"] == "text/event-stream"
    model.go_on()
    last = events_of(here, path, conformance)[-1]["sequence_number"]
    assert here.head(f"{path}/events", params={"after": last}).status_code == 204
    for wrong in ({"after": "-1"}, {"after": "x"}):
        assert error_of(here.get(f"{path}/events", params=wrong)) == (
            400,
            "invalid_value" if wrong["after"] != "x" else "invalid_type",
            "after",
        )
    assert error_of(here.get(f"{path}/events", headers={"Last-Event-ID": "x"})) == (
        400,
        "invalid_value",
        "Last-Event-ID",
    )
    assert error_of(here.get("/v1/runs/nobody/events")) == (404, "run_not_found", "run_id")
    long_ago = "chatcmpl_01000000-0000-7000-8000-000000000000"
    assert error_of(here.get(f"/v1/runs/{long_ago}/events")) == (410, "run_events_gone", "run_id")


def test_run_of_killed_process_is_replayed_and_ends_interrupted(
    config: dict[str, Any], upstream: Upstream, database_url: str | None, tmp_path: Path, conformance: Conformance
) -> None:
    config = {**config, "state": {"url": database_url}}
    env = {"OPENCLAW_STATE_DIR": str(tmp_path / "state")}
    models = [Paced(upstream, "one ", "two ", "three") for _ in range(2)]
    with live_gateway(tmp_path / "two", config, env=env) as two, two.client() as there, ThreadPoolExecutor(2) as pool:
        with live_gateway(tmp_path / "one", config, env=env) as one:
            with one.client() as client:
                paths = [start(client, models[0].name), start(client, models[1].name, session_key="dies")]
            rests = []
            for path, model in zip(paths, models, strict=True):
                model.go_on(2)
                seen: list[dict[str, Any]] = []
                for event in follow(one.url, path, TOKEN):
                    seen.append(event)
                    if text_of(seen) == "one two ":
                        break
                rests.append(pool.submit(list, follow(two.url, path, TOKEN, event["sequence_number"])))
            until(lambda: all(there.get(path).json()["state"] == "running" for path in paths))
            one.process.kill()
            one.process.wait()
        for path, rest in zip(paths, rests, strict=True):
            assert [event["type"] for event in rest.result()] == ["usage", "run.ended"]
            last = rest.result()[-1]
            assert (last["state"], last["error"]["code"]) == ("interrupted", "run_interrupted")
            events = events_of(there, path, conformance)
            assert text_of(events) == "one two "
            assert events[-1] == last
    for model in models:
        model.go_on()
