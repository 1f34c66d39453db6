"""Traces of live gateways, as a real collector reads them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
import support
from support.chat import ask, error_of, streamed_text, text_of
from support.collector import CollectedSpan, Collector, collector
from support.live import LiveGateway, live_gateway, stubbed_config
from support.operator_client import operator_client
from support.polling import until
from support.preloaded import run
from support.scripted_upstream import Play, calls
from support.upstream import Upstream

MARKER = "Marzipan7731"
MCP = {"command": sys.executable, "args": [str(Path(support.__file__).with_name("mcp_servers.py"))]}
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SOON = {"OTEL_BSP_SCHEDULE_DELAY": "50"}

#: Open the applications of a gateway and print what was imported of OpenTelemetry; or without its packages, the error.
IMPORTS = """
import sys
if sys.argv[2] == "missing":
    sys.modules["opentelemetry.exporter.otlp"] = None
from service.server.monkey_patch import make_cooperative
make_cooperative()
from pathlib import Path
import orjson
from service.api.auth import Credentials
from service.config.schema import parse_config
from service.config.source import ConfigError, locate
from service.cli.shared.serve import serve
from service.gateway.build import open_gateway
from service.gateway.startup_checks import check_startable
from service.server.app import open_apps, switch_traces
from service.server.workers.worker import Worker
config, _ = parse_config({"diagnostics": {"otel": {"enabled": sys.argv[2] != "off"}}})
locations = locate({"OPENCLAW_STATE_DIR": sys.argv[1]}, dev=False)
try:
    check_startable(config, locations, {})
except ConfigError as error:
    sys.exit(f"refused: {error}")
opened = open_gateway(config, locations, {})
apps = open_apps(config, Credentials("none"), opened)
print(len([name for name in sys.modules if name.startswith("opentelemetry")]))
opened.close()
switch_traces(apps.app, None)
"""


@pytest.fixture(scope="module")
def collected() -> Iterator[Collector]:
    with collector() as made:
        yield made


def traced_config(upstream: Upstream, **otel: Any) -> dict[str, Any]:
    config = stubbed_config(upstream.url, "stub/play", retry={"attempts": 2, "minDelayMs": 1})
    config["logging"] = {"format": "json"}
    config["diagnostics"] = {"otel": {"enabled": True, **otel}}
    return config


@pytest.fixture(scope="module")
def gateway(
    module_upstream: Upstream, collected: Collector, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LiveGateway]:
    config = traced_config(module_upstream, endpoint=collected.url, headers={"x-tenant": "mine"}, serviceName="named")
    workspace = str(tmp_path_factory.mktemp("workspace"))
    tools = {"profile": "full"}
    config["agents"]["list"] = [{"id": "main", "workspace": workspace, "tools": tools}]
    config["mcp"] = {"servers": {"near": MCP}}
    config["gateway"]["http"]["endpoints"]["embeddings"] = {"enabled": True}
    config["models"]["providers"]["stub"]["models"] = [{"id": "priced", "cost": {"input": 2, "output": 0}}]
    with live_gateway(tmp_path_factory.mktemp("traces"), config, env=SOON) as running, running.client() as client:
        until(lambda: "connected" in client.get("/readyz").text)  # a run waits for its tools, but not for ever
        yield running


@pytest.fixture
def client(gateway: LiveGateway) -> Iterator[httpx.Client]:
    with gateway.client() as connected:
        yield connected


def lines_of(gateway: LiveGateway, logger: str, run_id: str) -> list[dict[str, Any]]:
    found = [orjson.loads(line) for line in gateway.output.splitlines() if line.startswith("{")]
    return [one for one in found if one["logger"] == f"openclaw.{logger}" and one.get("run") == run_id]


def test_run_is_trace_of_calls_and_tools_that_others_continue(
    gateway: LiveGateway, client: httpx.Client, collected: Collector, upstream: Upstream
) -> None:
    upstream.answers["play"] = Play(
        calls(("read", {"path": MARKER})), calls(("near__trace", {})), calls(text=f"No {MARKER}.")
    )
    headers = {"traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": "a=b", "x-request-id": "find-me"}
    answer = ask(client, f"Read {MARKER}.", headers=headers, temperature=0.5)
    run_id = answer.json()["id"]
    spans = collected.of(TRACE, 6)
    assert [span.name for span in spans] == [
        *("invoke_agent main", "chat play", "execute_tool read", "chat play", "execute_tool near__trace", "chat play")
    ]
    run, asked, read, _, remote, last = spans
    assert run.parent_id == SPAN
    assert all(span.parent_id == run.span_id and span.trace_id == TRACE for span in spans[1:])
    assert all(before.end <= after.start for before, after in pairwise(spans[1:]))
    assert (run.kind, asked.kind, read.kind) == (1, 3, 1)
    assert run.resource["service.name"] == "named"
    assert (collected.headers["x-tenant"], collected.paths) == ("mine", {"/v1/traces"})
    usage = answer.json()["usage"]
    assert run.attributes["gen_ai.usage.input_tokens"] == usage["prompt_tokens"]
    assert run.attributes["openclaw.request.id"] == "find-me"
    assert run.attributes["gen_ai.conversation.id"]
    assert (asked.attributes["gen_ai.provider.name"], asked.attributes["gen_ai.request.temperature"]) == ("stub", 0.5)
    assert asked.attributes["gen_ai.response.finish_reasons"] == ["tool_calls"]
    assert last.attributes["gen_ai.response.finish_reasons"] == ["stop"]
    assert (read.attributes["error.type"], read.error) == ("tool_error", "")
    assert (remote.error, run.error) == (None, None)
    # The provider and the MCP server are told the very spans that they are asked in.
    told = [request.headers["traceparent"] for request in upstream.requests]
    assert told == [f"00-{TRACE}-{span.span_id}-01" for span in spans if span.name == "chat play"]
    assert upstream.requests[0].headers["tracestate"] == "a=b"
    result = upstream.requests[2].body["messages"][-1]["content"]
    assert result == f"00-{TRACE}-{remote.span_id}-01 None"
    assert MARKER not in str(spans)
    [line] = lines_of(gateway, "run", run_id)
    assert (line["trace_id"], line["span_id"]) == (TRACE, run.span_id)
    tools = lines_of(gateway, "tool", run_id)
    assert [one["span_id"] for one in tools] == [read.span_id, remote.span_id]
    until(lambda: lines_of(gateway, "access", run_id))
    assert lines_of(gateway, "access", run_id)[0]["trace_id"] == TRACE


def test_failed_attempts_and_first_tokens_are_shown(
    gateway: LiveGateway, client: httpx.Client, collected: Collector
) -> None:
    answer = ask(client, "hi", stream=True, headers={"x-openclaw-model": "stub/fail-1-500"})
    assert streamed_text(answer)
    run_id = answer.headers["x-openclaw-run-id"]
    run, failed, answered = collected.of_run(run_id, 3)
    assert failed.attributes["error.type"] == "provider_error"
    assert (failed.error, failed.events) == ("The model provider failed: refused with 500", {})
    assert answered.attributes["openclaw.attempt"] == 2
    assert answered.start <= answered.events["openclaw.first_token"] <= answered.end
    assert run.start <= run.events["openclaw.first_token"] <= run.end
    assert answered.attributes["gen_ai.response.time_to_first_chunk"] > 0
    [warning] = lines_of(gateway, "models", run_id)
    assert warning["message"].endswith("provider_error: The model provider failed: refused with 500")
    assert (warning["trace_id"], warning["span_id"]) == (run.trace_id, run.span_id)
    refused = ask(client, "hi", headers={"x-openclaw-model": "stub/status-401"})
    assert error_of(refused)[1] == "provider_authentication_failed"
    failed_run, failed_call = collected.of_run(refused.headers["x-openclaw-run-id"], 2)
    assert failed_run.attributes["error.type"] == "provider_authentication_failed"
    assert failed_run.error == failed_call.error != ""


def test_websocket_request_continues_trace_and_callers_decide_what_is_kept(
    gateway: LiveGateway, client: httpx.Client, collected: Collector, upstream: Upstream
) -> None:
    upstream.answers["play"] = Play(*[calls(text="Hello.")] * 3)
    trace = TRACE[::-1]
    with operator_client(gateway) as operator:
        params = {"message": "hi", "idempotencyKey": "of-a-trace"}
        request = operator.send("agent", params, traceparent=f"00-{trace}-{SPAN}-01")
        assert operator.response(request)["ok"]
    assert collected.of(trace, 2)[0].attributes["openclaw.run.id"] == "of-a-trace"
    other = "a" * 32
    assert text_of(ask(client, "hi", headers={"traceparent": f"00-{other}-{SPAN}-00"})) == "Hello."
    assert upstream.requests[-1].headers["traceparent"].startswith(f"00-{other}-")
    assert upstream.requests[-1].headers["traceparent"].endswith("-00")
    answer = ask(client, "hi", headers={"traceparent": "garbage"})
    own = collected.of_run(answer.json()["id"], 2)[0]
    assert own.parent_id == ""
    assert not [span for span in collected.spans if span.trace_id == other]


def test_embeddings_are_a_span_that_the_provider_continues(
    client: httpx.Client, collected: Collector, upstream: Upstream
) -> None:
    answers = [
        (503, {"error": {"message": "busy"}}),
        (200, {"data": [{"embedding": [1]}], "usage": {"prompt_tokens": 5}}),
    ]
    upstream.answers["vectors"] = lambda exchange: exchange.json(*answers.pop(0))
    trace, keyed = "b" * 32, "c" * 32
    body = {"input": MARKER, "dimensions": 1}
    headers = {"x-openclaw-model": "stub/vectors", "traceparent": f"00-{trace}-{SPAN}-01", "x-request-id": "of-vectors"}
    assert client.post("/v1/embeddings", json=body, headers=headers).is_success
    [span] = collected.of(trace, 1)
    assert (span.name, span.parent_id, span.kind, span.error) == ("embeddings vectors", SPAN, 3, None)
    assert span.attributes == {
        "gen_ai.operation.name": "embeddings",
        "gen_ai.provider.name": "stub",
        "gen_ai.request.model": "vectors",
        "gen_ai.agent.id": "main",
        "gen_ai.embeddings.dimension.count": 1,
        "gen_ai.usage.input_tokens": 5,
        "openclaw.model_calls": 2,
        "openclaw.request.id": "of-vectors",
    }
    expected = f"00-{trace}-{span.span_id}-01"
    assert [request.headers["traceparent"] for request in upstream.requests] == [expected] * 2
    upstream.answers["vectors"] = lambda exchange: exchange.json(400, {"error": {"message": MARKER}})
    headers |= {"traceparent": f"00-{keyed}-{SPAN}-01", "Idempotency-Key": "vectors"}
    assert error_of(client.post("/v1/embeddings", json=body, headers=headers))[1] == "provider_rejected_request"
    [failed] = collected.of(keyed, 1)
    assert failed.attributes["error.type"] == "provider_rejected_request"
    assert failed.error == "The model provider rejected the request: [...]"
    assert MARKER not in str((span, failed))


@pytest.mark.parametrize(("first", "costs"), [(503, {"openclaw.cost.usd": 1e-05}), (504, {})])
def test_cost_of_embeddings_is_known_unless_an_attempt_was_cut_off(
    client: httpx.Client, collected: Collector, upstream: Upstream, first: int, costs: dict[str, float]
) -> None:
    answers = [
        (first, {"error": {"message": "late"}}),
        (200, {"data": [{"embedding": [1]}], "usage": {"prompt_tokens": 5}}),
    ]
    upstream.answers["priced"] = lambda exchange: exchange.json(*answers.pop(0))
    trace = f"{first:032x}"
    headers = {"x-openclaw-model": "stub/priced", "traceparent": f"00-{trace}-{SPAN}-01"}
    assert client.post("/v1/embeddings", json={"input": "hi"}, headers=headers).is_success
    [span] = collected.of(trace, 1)
    assert (span.attributes["openclaw.model_calls"], span.attributes["gen_ai.usage.input_tokens"]) == (2, 5)
    assert {name: value for name, value in span.attributes.items() if name == "openclaw.cost.usd"} == costs


def test_local_agent_sends_its_trace_before_it_ends(
    gateway: LiveGateway, collected: Collector, upstream: Upstream
) -> None:
    upstream.answers["play"] = Play(calls(text="Hello."))
    done = run(("agent", "--local", "--message", "hi"), cwd=gateway.directory, env=local_environment(gateway.directory))
    assert (done.stdout.strip(), done.stderr) == ("Hello.", "")
    spans = list(collected.spans)  # the gateway's own may still come
    [agent] = [span for span in spans if span.attributes.get("openclaw.protocol") == "local"]
    [asked] = [span for span in spans if span.trace_id == agent.trace_id and span != agent]
    assert (agent.name, asked.name, asked.parent_id) == ("invoke_agent main", "chat play", agent.span_id)


def local_environment(directory: Path, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OPENCLAW_")}
    own = {"OPENCLAW_CONFIG_PATH": str(directory / "openclaw.json"), "OPENCLAW_STATE_DIR": str(directory / "state")}
    return {**kept, **own, **more}


def test_local_chat_sends_its_traces_once_at_its_end(
    module_upstream: Upstream, upstream: Upstream, tmp_path: Path
) -> None:
    upstream.answers["play"] = Play(*[calls(text=f"{number}.") for number in range(3)])
    with collector() as made:
        config = traced_config(module_upstream, endpoint=made.url)
        (tmp_path / "openclaw.json").write_bytes(orjson.dumps(config))
        env = local_environment(tmp_path, OTEL_BSP_SCHEDULE_DELAY="3600000")
        done = run(("chat", "--local"), cwd=tmp_path, env=env, text="one\ntwo\nthree\n")
        assert (done.stdout, made.requests) == ("0.\n1.\n2.\n", 1)
        assert [span.name for span in made.spans] == ["chat play", "invoke_agent main"] * 3


def test_workers_send_contents_where_asked_and_what_waits_when_they_stop(
    module_upstream: Upstream, upstream: Upstream, tmp_path: Path
) -> None:
    upstream.answers["play"] = Play(*[calls(text=f"It is {MARKER}.")] * 8)
    with collector() as made:
        env = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": made.url,
            "OTEL_SERVICE_NAME": "of-the-environment",
            "OTEL_BSP_SCHEDULE_DELAY": "3600000",
            "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "span_only",
        }
        config = traced_config(module_upstream)
        with live_gateway(tmp_path, config, arguments=("--workers", "2"), env=env) as gateway:
            ids = []
            for _ in range(8):
                with gateway.client() as client:
                    ids.append(ask(client, f"Who is {MARKER}?").json()["id"])
            assert made.spans == []
            assert gateway.stop() == 0
        chats = [span for span in made.spans if span.name == "chat play"]
        runs = {span.attributes["openclaw.run.id"] for span in made.spans if span.name == "invoke_agent main"}
    assert (runs, len(chats)) == (set(ids), 8)
    check_content(chats[0])


def check_content(span: CollectedSpan) -> None:
    assert span.resource["service.name"] == "of-the-environment"
    asked, answered = (orjson.loads(span.attributes[f"gen_ai.{name}.messages"]) for name in ("input", "output"))
    assert asked[-1] == {"role": "user", "parts": [{"type": "text", "content": f"Who is {MARKER}?"}]}
    assert answered[0]["parts"] == [{"type": "text", "content": f"It is {MARKER}."}]
    assert answered[0]["finish_reason"] == "stop"


def test_silent_collector_holds_up_neither_requests_nor_stop(
    module_upstream: Upstream, upstream: Upstream, tmp_path: Path
) -> None:
    upstream.answers["play"] = Play(*[calls(text="Hello.")] * 6)
    with collector() as made:
        made.speaks.clear()
        env = {**SOON, "OTEL_EXPORTER_OTLP_TIMEOUT": "3600", "OTEL_BSP_MAX_QUEUE_SIZE": "4"}
        with live_gateway(tmp_path, traced_config(module_upstream, endpoint=made.url), env=env) as gateway:
            with gateway.client() as client:
                for _ in range(6):
                    assert text_of(ask(client, "hi")) == "Hello."
            assert gateway.stop() == 0
        assert made.spans == []


def test_failing_collector_is_logged_once_and_when_it_is_back(
    module_upstream: Upstream, upstream: Upstream, tmp_path: Path
) -> None:
    upstream.answers["play"] = Play(*[calls(text="Hello.")] * 20)
    with collector() as made:
        made.status = 400
        with (
            live_gateway(tmp_path, traced_config(module_upstream, endpoint=made.url), env=SOON) as gateway,
            gateway.client() as client,
        ):
            ask(client, "hi")
            until(lambda: "Traces cannot be sent" in gateway.output)
            made.status = 200
            until(lambda: ask(client, "hi").is_success and bool(made.spans))
            until(lambda: "Export of traces has recovered" in gateway.output)
            assert gateway.output.count("Traces cannot be sent") == 1
            assert f"Traces cannot be sent to {made.url}/v1/traces, and are lost: " in gateway.output
            assert "code: 400" in gateway.output
            assert "opentelemetry" not in gateway.output


@pytest.mark.parametrize(("state", "wanted"), [("off", "0"), ("on", "many"), ("missing", "refused")])
def test_nothing_is_imported_without_traces(state: str, wanted: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS, str(tmp_path), state],
        env={**os.environ, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    if wanted == "refused":
        assert "diagnostics.otel.enabled: traces need OpenTelemetry; pip install '.[otel]'" in done.stderr
        return
    assert done.returncode == 0, done.stderr
    assert (done.stdout.strip() == "0") is (wanted == "0")
