"""Branches of a session over HTTP: reading them, forking, exporting and deleting."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import httpx
import pytest
from support.chat import PATH, ask, error_of, text_of
from support.databases import Postgres
from support.live import TOKEN, LiveGateway, live_gateway, stubbed_config
from support.upstream import Upstream


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def relay(
    request: pytest.FixtureRequest, module_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LiveGateway]:
    config = stubbed_config(module_upstream.url, "stub/echo")
    postgres: Postgres | None = request.getfixturevalue("postgres") if request.param == "postgres" else None
    url = None if postgres is None else postgres.create_database()
    if url is not None:
        config["state"] = {"url": url}
    with live_gateway(tmp_path_factory.mktemp("branches"), config) as running:
        yield running
    if postgres is not None and url is not None:
        postgres.drop_database(url)


@pytest.fixture
def talk(relay: LiveGateway) -> Iterator[httpx.Client]:
    with relay.client() as client:
        yield client


def said(answer: str) -> dict[str, str]:
    return {"role": "assistant", "content": answer}


def texts_of(session: dict[str, Any]) -> list[str]:
    return ["".join(part["text"] for part in message["content"]) for message in session["messages"]]


@pytest.fixture
def session(talk: httpx.Client) -> str:
    """A session whose second message was edited: one, one, two, two and one, one, zwei, zwei."""
    name = f"branches-{uuid.uuid4()}"
    headers = {"x-openclaw-session-key": name}
    text_of(ask(talk, "one", headers=headers))
    text_of(ask(talk, "one", said("one"), "two", headers=headers))
    text_of(ask(talk, "one", said("one"), "zwei", headers=headers))
    return f"/v1/sessions/agent:main:{name}"


def test_session_shows_current_branch_and_others_by_index(talk: httpx.Client, session: str) -> None:
    current = talk.get(session).json()
    assert texts_of(current) == ["one", "one", "zwei", "zwei"]
    assert [message["index"] for message in current["messages"]] == [0, 1, 4, 5]
    assert [message["parent"] for message in current["messages"]] == [None, 0, 1, 4]
    assert current["message_count"] == 6
    assert current["branches"] == [
        {"index": 3, "message_count": 4, "forked_from": None, "current": False},
        {"index": 5, "message_count": 4, "forked_from": 1, "current": True},
    ]
    assert texts_of(talk.get(session, params={"branch": 3}).json()) == ["one", "one", "two", "two"]
    assert texts_of(talk.get(session, params={"branch": 1}).json()) == ["one", "one"]
    assert texts_of(talk.get(session, params={"branch": 5, "limit": 3}).json()) == ["one", "zwei", "zwei"]


def test_unknown_branch_is_refused(talk: httpx.Client, session: str) -> None:
    assert error_of(talk.get(session, params={"branch": 6})) == (400, "invalid_value", "branch")
    assert error_of(talk.get(session, params={"branch": -1}))[0] == 400


@pytest.mark.parametrize(
    ("index", "copied"), [(None, ["one", "one", "zwei", "zwei"]), (3, ["one", "one", "two", "two"]), (0, ["one"])]
)
def test_fork_copies_a_path(talk: httpx.Client, session: str, index: int | None, copied: list[str]) -> None:
    response = talk.post(f"{session}/fork", json={"index": index})
    assert response.status_code == 201
    key = response.json()["key"]
    assert key.startswith("agent:main:fork:")
    assert response.json()["message_count"] == len(copied)
    assert response.json()["title"] == "one"
    fork = talk.get(f"/v1/sessions/{key}").json()
    assert texts_of(fork) == copied
    assert len(fork["branches"]) == 1
    headers = {"x-openclaw-session-key": key}
    text_of(ask(talk, "one", said("one"), "drei", headers=headers))
    assert texts_of(talk.get(f"/v1/sessions/{key}").json())[-2:] == ["drei", "drei"]
    assert texts_of(talk.get(session).json()) == ["one", "one", "zwei", "zwei"]


def test_fork_ends_with_a_run(talk: httpx.Client, session: str) -> None:
    run_id = talk.get(session, params={"branch": 3}).json()["messages"][-1]["run_id"]
    key = talk.post(f"{session}/fork", json={"run_id": run_id}).json()["key"]
    assert texts_of(talk.get(f"/v1/sessions/{key}").json()) == ["one", "one", "two", "two"]


def test_fork_of_a_resending_client_continues_with_new_messages_alone(
    talk: httpx.Client, upstream: Upstream, session: str
) -> None:
    key = talk.post(f"{session}/fork", json={}).json()["key"]
    text_of(ask(talk, "drei", headers={"x-openclaw-session-key": key}))
    sent = [one["content"] for one in upstream.requests[-1].body["messages"] if one["role"] != "system"]
    assert sent == ["one", "one", "zwei", "zwei", "drei"]


def test_fork_that_cannot_be_made_is_refused(talk: httpx.Client, session: str) -> None:
    assert error_of(talk.post(f"{session}/fork", json={"index": 6})) == (400, "invalid_value", "index")
    assert error_of(talk.post(f"{session}/fork", json={"index": 1, "run_id": "x"})) == (400, "invalid_value", "index")
    assert error_of(talk.post(f"{session}/fork", json={"run_id": "chatcmpl_x"})) == (404, "run_not_found", "run_id")
    assert error_of(talk.post(f"{session}-no/fork", json={})) == (404, "session_not_found", "key")
    assert error_of(talk.post(f"{session}/fork", json=[]))[0] == 400


def test_stateless_session_can_be_forked(talk: httpx.Client) -> None:
    key = ask(talk, "alone").headers["x-openclaw-session-key"]
    forked = talk.post(f"/v1/sessions/{key}/fork", json={}).json()
    assert texts_of(talk.get(f"/v1/sessions/{forked['key']}").json()) == ["alone", "alone"]
    assert forked["stateless"] is False


def test_key_that_ends_like_a_fork_is_a_session(talk: httpx.Client) -> None:
    text_of(ask(talk, "one", headers={"x-openclaw-session-key": "a/fork"}))
    assert texts_of(talk.get("/v1/sessions/agent:main:a/fork").json()) == ["one", "one"]
    assert talk.delete("/v1/sessions/agent:main:a/fork").status_code == 200


def test_deleting_a_session_deletes_all_branches(talk: httpx.Client, session: str) -> None:
    assert talk.delete(session).status_code == 200
    name = session.rpartition(":")[2]
    text_of(ask(talk, "new", headers={"x-openclaw-session-key": name}))
    assert talk.get(session).json()["message_count"] == 2


def test_messages_carry_the_time_they_were_said(talk: httpx.Client) -> None:
    name = f"times-{uuid.uuid4()}"
    text_of(ask(talk, "one", headers={"x-openclaw-session-key": name, "x-openclaw-model": "stub/slow"}))
    asked, answered = talk.get(f"/v1/sessions/agent:main:{name}").json()["messages"]
    assert (asked["duration_ms"], answered["duration_ms"]) == (None, None)
    took = datetime.fromisoformat(answered["created_at"]) - datetime.fromisoformat(asked["created_at"])
    assert took.total_seconds() > 0.2


def test_session_exists_while_its_first_run_goes_on(relay: LiveGateway, talk: httpx.Client) -> None:
    name = f"first-{uuid.uuid4()}"
    path = f"/v1/sessions/agent:main:{name}"
    body = {"stream": True, "messages": [{"role": "user", "content": "hi"}]}
    headers = {
        "x-openclaw-session-key": name,
        "x-openclaw-model": "stub/hang-midway",
        "Authorization": f"Bearer {TOKEN}",
    }
    # Not by a checking client, which would read the stream to its end.
    with httpx.stream("POST", f"{relay.url}{PATH}", json=body, headers=headers) as held:
        assert held.status_code == 200
        shown = talk.get(path).json()
        assert (shown["message_count"], shown["messages"], shown["branches"]) == (0, [], [])
        [run_id] = shown["active_run_ids"]
        first, *_ = talk.get("/v1/sessions?agent=main&stateless=false&limit=1").json()["data"]
        assert (first["id"], first["created_at"], first["message_count"]) == (shown["id"], shown["created_at"], 0)
        assert shown["id"] not in listed_ids(talk, "stateless=true", "agent=beta")
        assert error_of(talk.post(f"{path}/fork", json={})) == (400, "invalid_value", "index")
        assert talk.post(f"/v1/runs/{run_id}/cancel").status_code == 200
    stored = talk.get(path).json()
    while not stored["messages"]:
        stored = talk.get(path).json()
    assert (stored["id"], stored["created_at"]) == (shown["id"], shown["created_at"])
    assert listed_ids(talk, "limit=100").count(shown["id"]) == 1


def listed_ids(talk: httpx.Client, *queries: str) -> list[str]:
    pages = [talk.get(f"/v1/sessions?{query}").json() for query in queries]
    return [one["id"] for page in pages for one in page["data"]]
