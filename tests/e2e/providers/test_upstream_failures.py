"""Provider failures through the endpoint: the matching status, or an error event in a stream."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from support.chat import ask, chunks_of, error_of, streamed_text, text_of
from support.live import LiveGateway, live_gateway, stubbed_config
from support.polling import until
from support.raw_request import start_request
from support.upstream import Exchange, Upstream
from support.upstream_answers import frame, ok

API_KEY = "the-providers-own-key"


def relay_config(upstream: Upstream, timeout_seconds: float = 1.5, agent_seconds: float = 20) -> dict[str, Any]:
    """A gateway whose models are the stub's answers."""
    nobody = {"baseUrl": "http://127.0.0.1:9/v1"}  # nothing listens on the discard port
    return stubbed_config(
        upstream.url,
        defaults={"timeoutSeconds": agent_seconds},
        providers={"nobody": nobody},
        apiKey=API_KEY,
        timeoutSeconds=timeout_seconds,
    )


@pytest.fixture(scope="module")
def relay(module_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    with live_gateway(tmp_path_factory.mktemp("relay"), relay_config(module_upstream)) as running:
        yield running
        assert "Traceback" not in running.output
        assert API_KEY not in running.output


@pytest.fixture(scope="module")
def patient_relay(module_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    """A gateway that waits for a provider longer than any test does."""
    config = relay_config(module_upstream, timeout_seconds=600, agent_seconds=600)
    with live_gateway(tmp_path_factory.mktemp("patient"), config) as running:
        yield running


@pytest.fixture
def client(relay: LiveGateway) -> Iterator[httpx.Client]:
    with relay.client() as connected:
        yield connected


def by(model: str) -> dict[str, str]:
    return {"x-openclaw-model": model}


FAILURES = [
    ("stub/status-400", 400, "provider_rejected_request"),
    ("stub/status-404", 400, "provider_rejected_request"),
    ("stub/status-401", 502, "provider_authentication_failed"),
    ("stub/status-403", 502, "provider_authentication_failed"),
    ("stub/status-402", 502, "provider_error"),
    ("stub/status-405", 502, "provider_error"),
    ("stub/status-308", 502, "provider_error"),
    ("stub/status-408", 504, "provider_timeout"),
    ("stub/status-429", 429, "rate_limit_exceeded"),
    ("stub/status-500", 502, "provider_error"),
    ("stub/status-503", 502, "provider_error"),
    ("stub/garbage", 502, "provider_error"),
    ("stub/garbage-events", 502, "provider_error"),
    ("stub/endless-line", 502, "provider_error"),
    ("stub/endless-head", 502, "provider_error"),
    ("stub/end-quietly", 502, "provider_error"),
    ("stub/drop-before", 502, "provider_error"),
    ("stub/drop-after", 502, "provider_error"),
    ("stub/hang", 504, "provider_timeout"),
    ("stub/hang-midway", 504, "provider_timeout"),
    ("stub/error-event", 502, "provider_error"),
    ("stub/no-finish", 502, "provider_error"),
    ("nobody/x", 503, "provider_unavailable"),
]
#: Those that fail when they have said something.
BREAKING_OFF = {f"stub/{name}" for name in ("end-quietly", "drop-after", "hang-midway", "error-event", "no-finish")}


@pytest.mark.parametrize(("model", "status", "code"), FAILURES)
def test_provider_failure_has_matching_status(client: httpx.Client, model: str, status: int, code: str) -> None:
    response = ask(client, "hi", headers=by(model))
    assert error_of(response)[:2] == (status, code)
    assert API_KEY not in response.text


@pytest.mark.parametrize(("model", "status", "code"), FAILURES)
def test_stream_failure_is_status_before_first_event_and_error_event_after(
    client: httpx.Client, model: str, status: int, code: str
) -> None:
    response = ask(client, "hi", stream=True, headers=by(model))
    if model in BREAKING_OFF:
        assert chunks_of(response)[-1]["error"]["code"] == code
    else:
        assert error_of(response)[:2] == (status, code)


@pytest.mark.parametrize(
    ("model", "why"),
    [
        ("nobody/x", "provider_unavailable: Cannot connect to the model provider at http://127.0.0.1:9"),
        ("stub/status-401", "provider_authentication_failed: The model provider refused the gateway's credentials"),
        ("stub/status-402", "provider_error: The model provider requires payment (HTTP 402)."),
        ("stub/drop-after", "provider_error run="),
        ("stub/status-400", "provider_rejected_request: The model provider rejected the request"),
    ],
)
def test_log_has_failed_model_code_and_reason(client: httpx.Client, relay: LiveGateway, model: str, why: str) -> None:
    ask(client, "hi", headers=by(model))
    until(lambda: f"the model {model} failed: {why}" in relay.output)


def test_log_has_codes_of_failed_runs_and_refused_requests(client: httpx.Client, relay: LiveGateway) -> None:
    ask(client, "hi", headers={**by("nowhere/x"), "x-request-id": "find-me"})
    until(lambda: "request find-me was refused: model_not_found\n" in relay.output)
    answer = ask(client, "hi", stream=True, headers=by("stub/drop-after"))
    run_id = chunks_of(answer)[0]["id"]
    until(lambda: f"openclaw.run run={run_id} outcome=provider_error agent=main" in relay.output)
    refused = re.compile(r"access.* status=404 .*request_id=find-me .* error=model_not_found\n")
    broken = re.compile(rf"access.* status=200 .* run={run_id} error=provider_error\n")
    until(lambda: refused.search(relay.output) is not None)
    until(lambda: broken.search(relay.output) is not None)


def test_retry_after_of_provider_is_passed_on(client: httpx.Client) -> None:
    assert ask(client, "hi", headers=by("stub/status-429")).headers["retry-after"] == "17"


def test_provider_message_reaches_caller(client: httpx.Client) -> None:
    assert "refused with 400" in ask(client, "hi", headers=by("stub/status-400")).json()["error"]["message"]


def test_refused_key_error_has_provider_message_without_key(client: httpx.Client, upstream: Upstream) -> None:
    told = f"no key {API_KEY}, nor sk-proj-ab***xyz, sk-ab...xyz or sk-ab\u2026xyz; this model is for others..."
    upstream.answers["closed"] = lambda exchange: exchange.json(403, {"error": {"message": told}})
    message = ask(client, "hi", headers=by("stub/closed")).json()["error"]["message"]
    assert "It says: no key *** nor *** *** or *** this model is for others..." in message
    assert "xyz" not in message


@pytest.mark.parametrize("status", [301, 302, 307, 308])
@pytest.mark.parametrize(
    ("location", "hint"),
    [
        ("https://ann:s3cret@models.example/api/v1/chat/completions?x=1", "perhaps to https://models.example/api/v1."),
        ("/v2/chat/completions", "/v2."),
        ("/login", "Correct its baseUrl."),
        (None, "Correct its baseUrl."),
    ],
)
def test_redirect_is_not_followed_and_error_has_its_target(
    client: httpx.Client, upstream: Upstream, status: int, location: str | None, hint: str
) -> None:
    headers = {} if location is None else {"Location": location}
    upstream.answers["moved"] = lambda exchange: exchange.json(status, {}, **headers)
    asked = len(upstream.requests)
    response = ask(client, "hi", headers=by("stub/moved"))
    message = response.json()["error"]["message"]
    assert response.status_code == 502
    assert f"redirects elsewhere (HTTP {status}). Correct its baseUrl" in message
    assert hint in message
    assert "s3cret" not in message
    assert len(upstream.requests) == asked + 1


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (400, (400, "provider_rejected_request")),
        (429, (429, "rate_limit_exceeded")),
        (503, (502, "provider_error")),
        ("400", (400, "provider_rejected_request")),
        ("429", (429, "rate_limit_exceeded")),
        ("rate_limit_exceeded", (429, "rate_limit_exceeded")),
        ("server_error", (502, "provider_error")),
    ],
)
def test_error_event_of_provider_has_status_of_its_error(
    client: httpx.Client, upstream: Upstream, code: Any, expected: tuple[int, str]
) -> None:
    def answer(exchange: Exchange) -> None:
        exchange.head()
        exchange.send(frame({"error": {"message": "no room", "code": code}}))
        exchange.last_chunk()

    upstream.answers["streamed"] = answer
    response = ask(client, "hi", headers=by("stub/streamed"))
    assert error_of(response)[:2] == expected
    assert "no room" in response.text


def test_usage_is_provider_count(client: httpx.Client) -> None:
    usage = ask(client, "hi").json()["usage"]
    details = {"cached_tokens": 3}
    assert usage == {
        "prompt_tokens": 7,
        "completion_tokens": 5,
        "total_tokens": 12,
        "prompt_tokens_details": details,
    }


@pytest.mark.parametrize("model", ["stub/ok", "stub/crlf", "stub/split", "stub/plain-json"])
def test_answer_is_complete_however_it_is_sent(client: httpx.Client, model: str) -> None:
    assert text_of(ask(client, "hi", headers=by(model))) == "Hello from the upstream."
    assert streamed_text(ask(client, "hi", stream=True, headers=by(model))) == "Hello from the upstream."


def test_sampling_fields_reach_provider(client: httpx.Client, upstream: Upstream) -> None:
    sampling = {"temperature": 0.5, "top_p": 0.9, "seed": 7, "stop": ["x"], "frequency_penalty": 1}
    sampling |= {"presence_penalty": -1, "max_tokens": 5, "response_format": {"type": "json_object"}}
    sampling |= {"logit_bias": {"1": 2}, "reasoning_effort": "low", "verbosity": "low"}
    ask(client, "hi", **sampling)
    sent = upstream.requests[-1].body
    assert {name: sent[name] for name in sampling} == sampling
    assert sent["stream"] is True
    assert "user" not in sent


@pytest.mark.parametrize(
    ("stop", "sent"), [(["", "x"], ["x"]), (["x", "", ""], ["x"]), ([""], None), ("", None), ("x", ["x"])]
)
def test_empty_stop_strings_are_left_out(client: httpx.Client, upstream: Upstream, stop: object, sent: object) -> None:
    ask(client, "hi", stop=stop)
    assert upstream.requests[-1].body.get("stop") == sent


NAMES = ["max_tokens", "max_completion_tokens"]
REFUSALS = [
    ("max_tokens", "Unsupported parameter: 'max_tokens' is not supported with this model. Use {} instead."),
    ("max_completion_tokens", "Unrecognized request argument supplied: max_completion_tokens"),
]


@pytest.mark.parametrize(("refused", "words"), REFUSALS)
def test_max_completion_tokens_is_used_when_model_requires_it(
    upstream: Upstream, tmp_path: Path, refused: str, words: str
) -> None:
    def answer(exchange: Exchange) -> None:
        if refused in exchange.body:
            until(lambda: len(upstream.requests) >= asked + 3)  # requests side by side are all refused
            exchange.json(400, {"error": {"message": words.format("'max_completion_tokens'")}})
        else:
            ok(exchange)

    upstream.answers["named"] = answer
    config = relay_config(upstream, timeout_seconds=10)
    config["models"]["providers"]["stub"]["models"] = [{"id": "named", "compat": {"maxTokensField": refused}}]
    asked = len(upstream.requests)
    with live_gateway(tmp_path, config) as running, running.client() as client, ThreadPoolExecutor(3) as pool:
        for response in pool.map(lambda _: ask(client, "hi", headers=by("stub/named"), max_tokens=9), range(3)):
            text_of(response)
        text_of(ask(client, "hi", headers=by("stub/named"), max_tokens=9))
        text_of(ask(client, "hi", headers=by("stub/named")))
    bodies = [received.body for received in upstream.requests[asked:]]
    [other] = {*NAMES} - {refused}
    assert sum(refused in body for body in bodies) == 3
    assert [{name: body[name] for name in body.keys() & NAMES} for body in bodies[-5:]] == [{other: 9}] * 4 + [{}]


def test_error_about_too_large_max_tokens_is_passed_on(client: httpx.Client, upstream: Upstream) -> None:
    words = "'max_tokens' or 'max_completion_tokens' is too large: 5000. Unsupported value."
    upstream.answers["small"] = lambda exchange: exchange.json(400, {"error": {"message": words}})
    asked = len(upstream.requests)
    assert words in ask(client, "hi", headers=by("stub/small"), max_tokens=5000).json()["error"]["message"]
    assert len(upstream.requests) == asked + 1


def test_failed_run_leaves_session_unchanged(client: httpx.Client, upstream: Upstream) -> None:
    headers = {"x-openclaw-session-key": "failing"}
    ask(client, "lost", headers={**headers, **by("stub/drop-after")})
    ask(client, "kept", headers=headers)
    assert [message["content"] for message in upstream.requests[-1].body["messages"]] == ["kept"]


def test_run_beyond_time_limit_is_504(tmp_path: Path, upstream: Upstream) -> None:
    config = relay_config(upstream, timeout_seconds=30, agent_seconds=0.5)
    with live_gateway(tmp_path, config) as running, running.client() as client:
        assert error_of(ask(client, "hi", headers=by("stub/hang-midway")))[:2] == (504, "run_timeout")


def test_busy_session_is_409(tmp_path: Path) -> None:
    with Upstream() as upstream:
        config = relay_config(upstream, timeout_seconds=30, agent_seconds=1)
        headers = {"x-openclaw-session-key": "busy", **by("stub/hang-midway")}
        with live_gateway(tmp_path, config) as running:
            first = start_request(running, stream=True, headers=headers)
            with running.client() as client:
                status, code, _ = error_of(ask(client, "second", headers=headers))
            first.close()
    # the first may have ended at its own limit in the very moment the second gave up waiting
    assert (status, code) in ((409, "session_busy"), (504, "run_timeout"))


def receive_word(connection: socket.socket) -> None:
    """Read a stream as far as its first word."""
    received = b""
    while b"Hello" not in received:
        received += connection.recv(4096)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("model", ["stub/hang-midway", "stub/hang"])
def test_disconnect_of_caller_ends_upstream_request(
    patient_relay: LiveGateway, upstream: Upstream, stream: bool, model: str
) -> None:
    told = len(patient_relay.output)
    connection = start_request(patient_relay, stream=stream, headers=by(model))
    until(lambda: upstream.requests)
    if begins := stream and model == "stub/hang-midway":
        receive_word(connection)
    connection.close()
    until(upstream.aborted.is_set)
    status = 200 if begins else 499
    until(lambda: f"path=/v1/chat/completions status={status} " in patient_relay.output[told:])


def test_disconnect_of_queued_caller_frees_its_place(tmp_path: Path) -> None:
    with Upstream() as upstream:
        config = relay_config(upstream, timeout_seconds=60)
        config["agents"]["defaults"]["maxConcurrent"] = 1
        with live_gateway(tmp_path, config) as running, running.client() as client:
            first = start_request(running, stream=False, headers=by("stub/hang"))
            until(lambda: upstream.requests)
            waiting = [start_request(running, stream=stream, headers=by("stub/split")) for stream in (True, False)]
            time.sleep(0.3)  # they wait by now; who comes later leaves in the same way
            for connection in waiting:
                connection.close()
            until(lambda: running.output.count("status=499") == len(waiting))
            first.close()
            assert ask(client, "hi").status_code == 200
        assert [received.body["model"] for received in upstream.requests] == ["hang", "ok"]


def test_wait_for_slot_is_bounded_by_run_timeout(tmp_path: Path) -> None:
    with Upstream() as upstream:
        config = relay_config(upstream, timeout_seconds=60)
        config["agents"]["defaults"]["maxConcurrent"] = 1
        with live_gateway(tmp_path, config) as running, running.client() as client:
            first = start_request(running, stream=False, headers=by("stub/hang"))
            until(lambda: upstream.requests)
            config["agents"]["defaults"]["timeoutSeconds"] = 0.5  # for those that come later
            (tmp_path / "openclaw.json").write_bytes(orjson.dumps(config))
            until(lambda: "in force:" in running.output)
            refused = ask(client, "hi")
            assert error_of(refused)[:2] == (429, "too_many_runs")
            assert refused.headers["retry-after"] == "1"
            assert not upstream.aborted.is_set()
            first.close()
            until(upstream.aborted.is_set)
        assert [received.body["model"] for received in upstream.requests] == ["hang"]


def test_timeout_error_states_time_spent_in_queue(tmp_path: Path) -> None:
    with Upstream() as upstream:
        config = relay_config(upstream, timeout_seconds=60)
        config["agents"]["defaults"] |= {"maxConcurrent": 1, "timeoutSeconds": 3}
        with live_gateway(tmp_path, config) as running, running.client() as client, ThreadPoolExecutor() as pool:
            first = start_request(running, stream=False, headers=by("stub/hang"))
            until(lambda: upstream.requests)
            waiting = pool.submit(ask, client, "hi", headers=by("stub/hang"))
            until(lambda: client.get("/v1/runs", params={"state": "queued"}).json()["data"])
            time.sleep(0.5)
            first.close()
            refused = waiting.result(30)
            alone = ask(client, "hi", headers=by("stub/hang"))
        assert error_of(refused)[:2] == error_of(alone)[:2] == (504, "run_timeout")
        assert re.search(r"3 seconds; it waited \d\.\d of them for a slot \(agents\.defaults\.maxConc", refused.text)
        assert "waited" not in alone.text


def test_text_before_disconnect_is_stored(patient_relay: LiveGateway, upstream: Upstream) -> None:
    key = {"x-openclaw-session-key": "cut"}
    connection = start_request(patient_relay, stream=True, headers={**key, **by("stub/hang-midway")})
    receive_word(connection)
    connection.close()
    until(upstream.aborted.is_set)
    with patient_relay.client() as client:
        ask(client, "go on", headers=key)
    roles = [message["role"] for message in upstream.requests[-1].body["messages"]]
    assert roles == ["user", "assistant", "user"]
