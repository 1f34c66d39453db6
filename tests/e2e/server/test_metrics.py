"""`GET /metrics` of live gateways: what it counts, in both formats, of one process and of several."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_prometheus
from support.chat import ask, error_of, streamed_text, text_of
from support.live import TOKEN, LiveGateway, live_gateway, scripted_config
from support.polling import until
from support.preloaded import run
from support.processes import running_children
from support.scripted_upstream import Play, calls
from support.upstream import Upstream

FAILING = "scripted/fail-provider_unavailable"


def metrics_config(workspace: Path) -> dict[str, Any]:
    config = scripted_config()
    config["gateway"]["http"]["endpoints"]["metrics"] = {"enabled": True}
    config["agents"]["list"] += [
        {"id": "careful", "model": {"primary": FAILING, "fallbacks": ["scripted/echo"]}},
        {"id": "clerk", "model": "scripted/tools", "tools": {"allow": ["read"]}, "workspace": str(workspace)},
    ]
    return config


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream() as running:
        yield running


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, upstream: Upstream) -> Iterator[LiveGateway]:
    config = metrics_config(tmp_path_factory.mktemp("workspace"))
    stub = {"baseUrl": f"{upstream.url}/v1", "models": [{"id": "vectors", "cost": {"input": 100, "output": 0}}]}
    config["models"]["providers"]["stub"] = stub
    config["gateway"]["http"]["endpoints"]["embeddings"] = {"enabled": True}
    config["embeddings"] = {"model": "stub/vectors"}
    with live_gateway(tmp_path_factory.mktemp("metrics"), config) as running:
        yield running


@pytest.fixture(scope="module")
def client(gateway: LiveGateway) -> Iterator[httpx.Client]:
    with gateway.client() as connected:
        yield connected


class Figures:
    """The samples of one response, by name and labels."""

    def __init__(self, response: httpx.Response) -> None:
        assert response.status_code == 200
        is_open = response.headers["content-type"].startswith("application/openmetrics-text")
        parse: Any = parse_openmetrics if is_open else parse_prometheus
        self.samples = [sample for family in parse(response.text) for sample in family.samples]

    def get(self, name: str, **labels: str) -> float:
        """Return the sum of the samples with this name and these labels."""
        return sum(
            float(one.value) for one in self.samples if one.name == name and labels.items() <= one.labels.items()
        )


def read(client: httpx.Client, **headers: str) -> Figures:
    return Figures(client.get("/metrics", headers=headers))


def agent(name: str) -> dict[str, str]:
    return {"x-openclaw-agent-id": name}


def test_runs_calls_tokens_and_requests_are_counted(client: httpx.Client) -> None:
    before = read(client)
    assert text_of(ask(client, "one two three")) == "one two three"
    assert streamed_text(ask(client, "four", stream=True)) == "four"
    after = read(client)

    def grown(name: str, **labels: str) -> float:
        return after.get(name, **labels) - before.get(name, **labels)

    run = {"agent": "main", "provider": "scripted", "model": "echo", "trigger": "http", "outcome": "ok"}
    model = {"provider": "scripted", "model": "echo"}
    assert grown("openclaw_run_completed_total", **run) == 2
    assert grown("openclaw_run_duration_seconds_count", **model, outcome="ok") == 2
    assert grown("openclaw_run_time_to_first_token_seconds_count", **model) == 2
    assert grown("openclaw_run_queue_wait_seconds_count") == 2
    assert grown("openclaw_model_call_total", **model, outcome="ok") == 2
    assert grown("openclaw_model_tokens_total", agent="main", **model, token_type="output") == 4
    assert grown("openclaw_gen_ai_client_token_usage_count", **model, token_type="input") == 2
    assert grown("openclaw_database_commit_operations_sum") >= 2
    assert grown("openclaw_database_commit_duration_seconds_count", outcome="error") == 0
    asked = {"method": "POST", "route": "/v1/chat/completions", "status": "200"}
    assert grown("openclaw_http_request_duration_seconds_count", **asked) == 2
    assert after.get("openclaw_in_flight_limit_bytes") == 512 * 1024 * 1024
    assert after.get("openclaw_build_info") == 1
    assert after.get("process_resident_memory_bytes") > 1_000_000


def test_failures_failovers_and_tools_are_counted(client: httpx.Client) -> None:
    assert text_of(ask(client, "hi", headers=agent("careful"))) == "hi"
    ask(client, "hi", headers=agent("clerk"))
    assert error_of(ask(client, "hi", headers={"x-openclaw-model": FAILING}))[1] == "provider_unavailable"
    figures = read(client)
    failed = {"provider": "scripted", "model": "fail-provider_unavailable", "outcome": "provider_unavailable"}
    assert figures.get("openclaw_model_call_total", **failed) == 2
    assert figures.get("openclaw_run_completed_total", **failed, agent="main") == 1
    changed = {"from_model": "fail-provider_unavailable", "to_model": "echo", "reason": "provider_unavailable"}
    assert figures.get("openclaw_model_failover_total", **changed) == 1
    assert figures.get("openclaw_tool_execution_total", tool="read", outcome="error") == 1
    assert figures.get("openclaw_tool_execution_duration_seconds_count", tool="read") == 1


def test_names_that_models_invent_for_tools_do_not_add_series(client: httpx.Client, upstream: Upstream) -> None:
    upstream.answers["inventive"] = Play(calls(("write", {}), ("nosuchtool", {})), calls(text="None."))
    ask(client, "hi", headers={**agent("clerk"), "x-openclaw-model": "stub/inventive"})
    figures = read(client)
    assert figures.get("openclaw_tool_execution_total", tool="other", outcome="error") == 2
    assert figures.get("openclaw_tool_execution_total", tool="write") == 0


def test_embeddings_are_counted_and_logged(gateway: LiveGateway, client: httpx.Client, upstream: Upstream) -> None:
    made = {"data": [{"object": "embedding", "index": 0, "embedding": [0.5, 1]}], "usage": {"prompt_tokens": 7}}
    upstream.answers["vectors"] = lambda exchange: exchange.json(200, made)
    assert client.post("/v1/embeddings", json={"input": "hi"}).status_code == 200
    refusal = {"error": {"message": "the input is secret: no such input"}}
    upstream.answers["vectors"] = lambda exchange: exchange.json(400, refusal)
    assert client.post("/v1/embeddings", json={"input": "a secret"}).status_code == 400
    figures = read(client)
    model = {"provider": "stub", "model": "vectors"}
    assert figures.get("openclaw_embedding_tokens_total", agent="main", **model) == 7
    assert figures.get("openclaw_embedding_cost_usd_total", agent="main", **model) == 0.0007
    for outcome in ("ok", "provider_rejected_request"):
        assert figures.get("openclaw_embedding_duration_seconds_count", **model, outcome=outcome) == 1
    assert figures.get("openclaw_model_tokens_total", **model) == 0
    line = "outcome=ok agent=main model=stub/vectors model_calls=1 input_tokens=7 cost=0.0007 duration_ms="
    assert f"INFO openclaw.embeddings {line}" in gateway.output
    [line] = re.findall(r"WARNING openclaw\.embeddings (.*)", gateway.output)
    assert line.startswith("outcome=provider_rejected_request agent=main")
    assert re.search(r'reason="[^"]*input is \[\.\.\.\]: no such input" request_id=', line)
    assert "secret" not in line


def test_wrong_tokens_are_counted_and_get_no_metrics(gateway: LiveGateway, client: httpx.Client) -> None:
    name, outcome = "openclaw_login_failures_total", "invalid_api_key"
    before = read(client).get(name, outcome=outcome)
    with gateway.client("wrong") as stranger:
        assert error_of(stranger.get("/metrics"))[:2] == (401, "invalid_api_key")
    assert read(client).get(name, outcome=outcome) == before + 1


def test_what_goes_on_is_shown(gateway: LiveGateway, client: httpx.Client) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}", "x-openclaw-model": "scripted/stuck"}
    body = {"stream": True, "messages": [{"role": "user", "content": "hi"}]}
    # Not by a checking client, which would read the stream to its end.
    with httpx.stream("POST", f"{gateway.url}/v1/chat/completions", json=body, headers=headers) as response:
        next(response.iter_bytes())
        figures = read(client)
        assert figures.get("openclaw_runs", state="running") == 1
        assert figures.get("openclaw_http_streams") == 1
    until(lambda: read(client).get("openclaw_http_streams") == 0)
    until(lambda: read(client).get("openclaw_runs") == 0)


def test_unknown_paths_methods_and_models_do_not_add_series(client: httpx.Client) -> None:
    for number in range(3):
        client.get(f"/nothing-{number}")
        client.request(f"BREW{number}", "/v1/models")
    for number in range(120):
        ask(client, "hi", headers={"x-openclaw-model": f"scripted/count-{number}"})
    figures = read(client)
    assert figures.get("openclaw_http_request_duration_seconds_count", method="GET", route="other", status="404") == 3
    assert figures.get("openclaw_http_request_duration_seconds_count", method="other") == 3
    assert figures.get("openclaw_model_call_total", model="other") >= 20
    models = {one.labels["model"] for one in figures.samples if one.name == "openclaw_model_call_total"}
    assert len(models) <= 101


def test_openmetrics_is_sent_to_those_that_accept_it(client: httpx.Client) -> None:
    accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
    assert read(client, Accept=accept).get("openclaw_build_info") == 1
    assert client.head("/metrics").headers["content-type"].startswith("text/plain")


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool (Debian: prometheus) is not installed")
def test_promtool_has_no_complaints(client: httpx.Client) -> None:
    ask(client, "hi")
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=client.get("/metrics").content, capture_output=True, check=False
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")


def test_metrics_are_off_by_default(tmp_path: Path) -> None:
    with live_gateway(tmp_path, scripted_config()) as running, running.client() as client:
        assert error_of(client.get("/metrics"))[:2] == (404, "endpoint_disabled")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def test_port_of_its_own_has_metrics_alone_for_programs_of_this_machine(tmp_path: Path) -> None:
    config, port = metrics_config(tmp_path), free_port()
    config["gateway"]["http"]["endpoints"]["metrics"]["port"] = port
    with live_gateway(tmp_path / "one", config) as running, httpx.Client(base_url=f"http://127.0.0.1:{port}") as near:
        with running.client() as client:
            ask(client, "hi")
        assert read(near).get("openclaw_run_completed_total") == 1
        assert near.head("/metrics").content == b""
        assert error_of(near.get("/v1/models"))[:2] == (404, "not_found")
        assert error_of(near.post("/metrics"))[:2] == (405, "method_not_allowed")
        foreign = near.get("/metrics", headers={"Host": "rebound.example.com"})
        assert error_of(foreign)[:2] == (403, "host_not_allowed")
        ended = run(["gateway", "--port", "0"], cwd=tmp_path / "one", env=environment_of(running))
        assert ended.returncode != 0
        text = f"gateway.http.endpoints.metrics.port: cannot listen on port {port}: Address already in use. "
        assert text in ended.stderr


def test_probes_and_scrapes_that_succeed_are_details_of_the_log(tmp_path: Path) -> None:
    config, port = metrics_config(tmp_path), free_port()
    config["gateway"]["http"]["endpoints"]["metrics"]["port"] = port
    config["logging"] = {"level": "debug"}
    with live_gateway(tmp_path / "one", config) as running, running.client() as client, running.client("x") as stranger:
        answers = [stranger.get(path) for path in ("/healthz", "/readyz", "/openapi.json", "/metrics")]
        answers += [client.get("/metrics")]
        answers += [httpx.request(method, f"http://127.0.0.1:{port}/metrics") for method in ("GET", "POST")]
    levels = [
        ("DEBUG", 200),
        ("DEBUG", 200),
        ("INFO", 200),
        ("INFO", 401),
        ("DEBUG", 200),
        ("DEBUG", 200),
        ("INFO", 405),
    ]
    found = re.findall(r"(\w+) openclaw\.access method=\w+ path=\S+ status=(\d+)", running.output)
    assert [one.status_code for one in answers] == [status for _, status in levels]
    assert [(level, int(status)) for level, status in found] == levels


def environment_of(gateway: LiveGateway) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OPENCLAW_")}
    paths = {"CONFIG_PATH": gateway.directory / "openclaw.json", "STATE_DIR": gateway.directory / "other"}
    return kept | {f"OPENCLAW_{name}": str(path) for name, path in paths.items()}


def test_metrics_of_all_workers_are_added_up(tmp_path: Path) -> None:
    config, port = metrics_config(tmp_path), free_port()
    config["gateway"]["http"]["endpoints"]["metrics"]["port"] = port
    with live_gateway(tmp_path, config, arguments=("--workers", "2")) as running:

        def ask_anew(_: int = 0) -> None:  # on a new connection, which any worker may accept
            with running.client() as client:
                assert text_of(ask(client, "hi")) == "hi"

        in_threads([ask_anew] * 20)

        def workers() -> list[int]:
            return [child.pid for child in running_children(running.process.pid, recursive=False)]

        def read_anew(name: str) -> float:
            with running.client() as client:
                return read(client).get(name)

        until(lambda: read_anew("openclaw_run_completed_total") == 20)
        assert {read_anew("openclaw_run_completed_total") for _ in range(6)} == {20}
        assert {read_anew("openclaw_build_info") for _ in range(6)} == {1}
        assert read_anew("process_cpu_seconds_total") > 0
        until(lambda: read_anew("openclaw_in_flight_limit_bytes") == 2 * 512 * 1024 * 1024)
        assert read_anew("openclaw_in_flight_fullest_ratio") < 0.1

        victim = workers()[0]
        os.kill(victim, signal.SIGKILL)
        until(lambda: len(workers()) == 2 and victim not in workers())
        until(lambda: read_anew("openclaw_in_flight_limit_bytes") == 2 * 512 * 1024 * 1024)
        assert read_anew("openclaw_run_completed_total") == 20
        near = [httpx.get(f"http://127.0.0.1:{port}/metrics") for _ in range(6)]
        assert {Figures(one).get("openclaw_run_completed_total") for one in near} == {20}


def in_threads(jobs: Sequence[Any]) -> None:
    threads = [threading.Thread(target=job) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


EXAMPLES = Path(__file__).parents[3] / "examples"
NAME = re.compile(r"\b(?:openclaw|process)_\w+")


@pytest.mark.parametrize(
    "path",
    ["prometheus/alerts.yml", "grafana/openclaw-gateway.json", "../docs/operations.md"],
    ids=lambda path: path[:4],
)
def test_examples_name_metrics_that_exist(client: httpx.Client, path: str) -> None:
    types = re.findall(r"^# TYPE (\S+) (\S+)", client.get("/metrics").text, re.MULTILINE)
    suffixes = {"histogram": ("", "_bucket", "_sum", "_count")}
    known = {name + suffix for name, kind in types for suffix in suffixes.get(kind, ("",))}
    assert set(NAME.findall((EXAMPLES / path).read_text())) - {"process_"} <= known


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool (Debian: prometheus) is not installed")
def test_promtool_takes_the_example_configuration(tmp_path: Path) -> None:
    shutil.copytree(EXAMPLES / "prometheus", tmp_path, dirs_exist_ok=True)
    (tmp_path / "gateway-token").write_text(TOKEN)
    subprocess.run(["promtool", "check", "config", tmp_path / "prometheus.yml"], check=True)
