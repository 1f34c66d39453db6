"""Responses that are continued, read again, cancelled and deleted, by every gateway of a database."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.chat import ask, error_of
from support.live import LiveGateway, live_gateway, scripted_config
from support.polling import until
from support.responses import calls_of, events_of, function, respond, response_of, text_of

PICTURE = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAA"
    "fFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def scripted(behaviour: str) -> dict[str, str]:
    return {"x-openclaw-model": f"scripted/{behaviour}"}


def words_read(response: dict[str, Any]) -> int:
    """How many words the model was sent, which the scripted provider counts."""
    count: int = response["usage"]["input_tokens"]
    return count


def get(client: httpx.Client, response_id: str, **query: Any) -> httpx.Response:
    return client.get(f"/v1/responses/{response_id}", params=query)


def ended(client: httpx.Client, response_id: str) -> dict[str, Any]:
    """Wait until a response has ended, and return it."""
    found: list[dict[str, Any]] = []

    def is_over() -> bool:
        found.append(response_of(get(client, response_id)))
        return found[-1]["status"] not in ("queued", "in_progress")

    until(is_over)
    return found[-1]


def test_previous_response_is_continued_and_branched(client: httpx.Client) -> None:
    first = response_of(respond(client, "one two"))
    second = response_of(respond(client, "three", previous_response_id=first["id"]))
    third = response_of(respond(client, "four", previous_response_id=second["id"]))
    other = respond(client, "five six", previous_response_id=first["id"])
    assert [words_read(one) for one in (first, second, third, response_of(other))] == [2, 5, 7, 6]
    assert third["previous_response_id"] == second["id"]
    session = client.get(f"/v1/sessions/{other.headers['x-openclaw-session-key']}").json()
    assert [branch["message_count"] for branch in session["branches"]] == [6, 4]


def test_function_call_is_answered_by_id_of_response(client: httpx.Client) -> None:
    tools = [function("weather")]
    asked = response_of(respond(client, "what is it like", scripted("tools"), tools=tools))
    [call] = calls_of(asked)
    output = {"type": "function_call_output", "call_id": call["call_id"], "output": "sunny"}
    answers = [
        response_of(respond(client, [output], scripted("tools"), tools=tools, previous_response_id=asked["id"]))
        for _ in range(2)
    ]
    assert [text_of(answer) for answer in answers] == ["sunny", "sunny"]


def test_response_of_named_session_is_continued_where_it_is(client: httpx.Client, session: dict[str, str]) -> None:
    first = response_of(respond(client, "one", session))
    ask(client, "two", headers=session).raise_for_status()
    again = respond(client, "three", previous_response_id=first["id"])
    assert words_read(response_of(again)) == 3
    assert response_of(respond(client, "x", session, previous_response_id=first["id"]))["status"] == "completed"
    other = {"x-openclaw-session-key": uuid.uuid4().hex}
    refused = respond(client, "x", other, previous_response_id=first["id"])
    assert error_of(refused) == (400, "invalid_value", "previous_response_id")


def test_side_request_that_follows_a_response_is_none(client: httpx.Client) -> None:
    first = response_of(respond(client, "one two"))
    marked = response_of(respond(client, "### Task: Generate a concise title", previous_response_id=first["id"]))
    assert words_read(marked) == 2 + 2 + 6


def test_agent_of_previous_response_answers(client: httpx.Client) -> None:
    first = response_of(respond(client, "hi", model="openclaw/beta"))
    answer = respond(client, "again", previous_response_id=first["id"])
    assert answer.headers["x-openclaw-session-key"].startswith("agent:beta:")
    refused = respond(client, "again", previous_response_id=first["id"], model="openclaw/main")
    assert error_of(refused) == (400, "invalid_value", "previous_response_id")
    assert "another agent" in refused.json()["error"]["message"]


@pytest.mark.parametrize("stored", [True, False])
def test_unknown_previous_response_is_not_found(client: httpx.Client, stored: bool) -> None:
    previous = f"resp_{uuid.uuid4()}" if stored else response_of(respond(client, "hi", store=False))["id"]
    refused = respond(client, "hi", previous_response_id=previous)
    assert error_of(refused) == (404, "previous_response_not_found", "previous_response_id")


@pytest.mark.parametrize("stream", [False, True])
def test_response_is_read_as_it_was_given(client: httpx.Client, stream: bool) -> None:
    fields = {"metadata": {"a": "b"}, "instructions": "Be brief.", "tools": [function("f")], "stream": stream}
    for model in ("echo", "tools"):
        given = response_of(respond(client, "hello there", scripted(model), **fields))
        assert response_of(get(client, given["id"])) == given
    cut = response_of(respond(client, "one two three", max_output_tokens=2, stream=stream))
    assert response_of(get(client, cut["id"])) == cut


def test_only_stored_responses_are_read(client: httpx.Client) -> None:
    hidden = response_of(respond(client, "hi", store=False))
    completion = ask(client, "hi").json()["id"].replace("chatcmpl_", "resp_")
    for response_id in (hidden["id"], completion, f"resp_{uuid.uuid4()}", "nobody"):
        assert error_of(get(client, response_id)) == (404, "response_not_found", "response_id")


def test_response_in_background_is_read_and_streamed_again(client: httpx.Client) -> None:
    begun = response_of(respond(client, "one two three", scripted("slow"), background=True))
    assert (begun["status"], begun["background"], begun["output"]) == ("queued", True, [])
    live = get(client, begun["id"], stream="true")
    done = ended(client, begun["id"])
    assert (done["status"], done["usage"]["output_tokens"] > 0) == ("completed", True)
    assert response_of(live) == done
    events = events_of(live)
    again = events_of(get(client, begun["id"], stream="true"))
    assert [event["sequence_number"] for event in (again[0], again[-1])] == [0, events[-1]["sequence_number"]]
    middle = events[len(events) // 2]["sequence_number"] - 1
    rest = events_of(get(client, begun["id"], stream="true", starting_after=middle))
    assert "".join(event.get("delta", "") for event in rest)
    assert rest[0]["sequence_number"] > middle
    assert (rest[-1], rest[-1]["response"]) == (events[-1], done)
    assert error_of(get(client, response_of(respond(client, "x"))["id"], stream="true"))[1] == "run_events_gone"


def test_failure_in_background_has_the_names_of_its_request(client: httpx.Client) -> None:
    schema = {"type": "object", "required": ["age"]}
    wanted = {"format": {"type": "json_schema", "name": "pet", "schema": schema, "strict": True}}
    begun = response_of(respond(client, "Rex", text=wanted, background=True))
    error = ended(client, begun["id"])["error"]
    assert error["code"] == "output_not_valid"
    assert "`text.format` asks for" in error["message"]
    assert events_of(get(client, begun["id"], stream="true"))[-1]["response"]["error"] == error


def test_stream_in_background_has_the_numbers_it_has_later(client: httpx.Client) -> None:
    answer = respond(client, "one two", scripted("tools"), background=True, stream=True, tools=[function("f")])
    events = events_of(answer)
    assert events_of(get(client, response_of(answer)["id"], stream="true")) == events


@pytest.mark.parametrize(
    ("fields", "headers"), [({"background": True}, {}), ({}, {"x-openclaw-on-disconnect": "continue"})]
)
def test_stream_of_response_that_goes_on_begins_at_once(
    client: httpx.Client, fields: dict[str, Any], headers: dict[str, str]
) -> None:
    headers |= scripted("fail-rate_limit_exceeded")
    events = events_of(respond(client, "hi", headers, stream=True, **fields))
    assert [event["type"] for event in events] == ["response.created", "response.in_progress", "response.failed"]
    failed = events[-1]["response"]
    assert failed["error"]["code"] == "rate_limit_exceeded"
    assert response_of(get(client, failed["id"])) == failed


def test_response_is_cancelled(client: httpx.Client) -> None:
    begun = response_of(respond(client, "hi", scripted("stuck"), background=True))
    cancelled = client.post(f"/v1/responses/{begun['id']}/cancel").json()
    assert (cancelled["status"], cancelled["error"]["code"]) == ("cancelled", "run_aborted")
    assert client.post(f"/v1/responses/{begun['id']}/cancel").json() == cancelled == ended(client, begun["id"])


def test_failure_in_background_is_part_of_response(client: httpx.Client) -> None:
    begun = response_of(respond(client, "hi", scripted("fail-midway"), background=True))
    failed = ended(client, begun["id"])
    assert (failed["status"], failed["error"]["code"], text_of(failed)) == ("failed", "provider_error", "This will not")
    refused = respond(client, "hi", background=True, store=False)
    assert error_of(refused) == (400, "invalid_value", "store")


def test_deleted_response_takes_its_unnamed_session_along(client: httpx.Client, session: dict[str, str]) -> None:
    first = respond(client, "one")
    second = respond(client, "two", previous_response_id=first.json()["id"])
    key = first.headers["x-openclaw-session-key"]
    assert client.delete(f"/v1/responses/{first.json()['id']}").json()["deleted"] is True
    assert client.get(f"/v1/sessions/{key}").status_code == 200
    assert error_of(get(client, first.json()["id"]))[1] == "response_not_found"
    client.delete(f"/v1/responses/{second.json()['id']}").raise_for_status()
    assert client.get(f"/v1/sessions/{key}").status_code == 404
    named = respond(client, "one", session)
    client.delete(f"/v1/responses/{named.json()['id']}").raise_for_status()
    assert client.get(f"/v1/sessions/{named.headers['x-openclaw-session-key']}").status_code == 200


def test_running_response_is_neither_deleted_nor_continued(client: httpx.Client) -> None:
    begun = response_of(respond(client, "hi", scripted("stuck"), background=True))
    assert error_of(client.delete(f"/v1/responses/{begun['id']}")) == (409, "session_busy", "response_id")
    refused = respond(client, "more", previous_response_id=begun["id"])
    assert error_of(refused) == (409, "session_busy", "previous_response_id")
    client.post(f"/v1/responses/{begun['id']}/cancel").raise_for_status()


def test_input_is_listed_in_pages(client: httpx.Client) -> None:
    items = [
        {
            "role": "user",
            "content": [{"type": "input_text", "text": "Look"}, {"type": "input_image", "image_url": PICTURE}],
        },
        {"role": "assistant", "content": "I look."},
        {"type": "function_call", "call_id": "c1", "name": "zoom", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "near"},
    ]
    response = response_of(respond(client, items, instructions="Be brief."))
    path = f"/v1/responses/{response['id']}/input_items"
    whole = client.get(path, params={"order": "asc"}).json()
    assert [item["type"] for item in whole["data"]] == ["message", "message", "function_call", "function_call_output"]
    assert [part["type"] for part in whole["data"][0]["content"]] == ["input_text", "input_image"]
    first = client.get(path, params={"limit": 3}).json()
    rest = client.get(path, params={"limit": 3, "after": first["last_id"]}).json()
    assert (first["data"] + rest["data"], first["has_more"], rest["has_more"]) == (whole["data"][::-1], True, False)


def test_items_of_earlier_responses_are_referred_to(client: httpx.Client) -> None:
    first = response_of(respond(client, "what is it like", scripted("tools"), tools=[function("weather")]))
    [call] = calls_of(first)
    items = [
        {"role": "user", "content": "what is it like"},
        {"type": "item_reference", "id": call["id"]},
        {"type": "function_call_output", "call_id": call["call_id"], "output": "sunny"},
    ]
    assert text_of(response_of(respond(client, items))) == "sunny"
    unknown = respond(client, [{"type": "item_reference", "id": call["id"] + "1"}, {"role": "user", "content": "hi"}])
    assert error_of(unknown) == (400, "invalid_value", "input[0].id")


@pytest.fixture
def pair(database_url: str | None, tmp_path: Path) -> Iterator[tuple[LiveGateway, LiveGateway]]:
    """Two gateways that share a database."""
    config = scripted_config() | ({} if database_url is None else {"state": {"url": database_url}})
    env = {"OPENCLAW_STATE_DIR": str(tmp_path / "state")}
    with (
        live_gateway(tmp_path / "one", config, env=env) as one,
        live_gateway(tmp_path / "two", config, env=env) as two,
    ):
        yield one, two


def test_every_gateway_of_database_continues_and_reads_responses(pair: tuple[LiveGateway, LiveGateway]) -> None:
    with pair[0].client() as one, pair[1].client() as other:
        first = response_of(respond(one, "one two"))
        assert response_of(get(other, first["id"])) == first
        assert words_read(response_of(respond(other, "three", previous_response_id=first["id"]))) == 5
        begun = response_of(respond(one, "hi", scripted("stuck"), background=True))
        cancelled = response_of(other.post(f"/v1/responses/{begun['id']}/cancel"))
        assert cancelled == response_of(get(one, begun["id"]))
        assert cancelled["status"] == "cancelled"
