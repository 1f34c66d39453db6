"""MCP tools: listings, results and misbehaving servers."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import support
from support.chat import ask, error_of
from support.live import live_gateway, scripted_config
from support.polling import until
from support.processes import command_of, has_ended, running_children, started
from support.upstream import Upstream

from service.core import concurrency
from service.tools.mcp.server import LISTING_SECONDS, McpEndpoint, McpServer
from service.tools.mcp.servers import McpServers, to_tool_name
from service.tools.tool import Tool, ToolContext, ToolError

SERVER = str(Path(support.__file__).with_name("mcp_servers.py"))
RAW_SERVER = str(Path(support.__file__).with_name("mcp_raw_server.py"))
CONTEXT = ToolContext("main", None, "agent:main:x", "run")
GENEROUS_SECONDS = 20.0

Open = Callable[..., McpServer]


def endpoint(kind: str = "", name: str = "test", **settings: Any) -> McpEndpoint:
    """The server made with the SDK, or the one without, of some kind."""
    return McpEndpoint(name, command=sys.executable, args=(RAW_SERVER, kind) if kind else (SERVER,), **settings)


@pytest.fixture
def open_server(tmp_path: Path) -> Iterator[Open]:
    opened: list[McpServer] = []

    def open_one(kind: str = "", idle_stop_seconds: float = 900, **settings: Any) -> McpServer:
        opened.append(McpServer(endpoint(kind, **settings), tmp_path / "log", idle_stop_seconds=idle_stop_seconds))
        return opened[-1]

    yield open_one
    for closing in [concurrency.spawn(server.close) for server in opened]:
        closing.join()


@pytest.fixture(scope="module")
def shared() -> Iterator[McpServers]:
    servers = McpServers([endpoint(env={"SHOWN": "yes"}), endpoint("wild", "odd one", deny=("bare",))])
    yield servers
    servers.close()


@pytest.fixture(scope="module")
def tools(shared: McpServers) -> dict[str, Tool]:
    return {tool.name: tool for tool in shared.list_tools(shared.names, None)}


@pytest.fixture(scope="module")
def results() -> Iterator[McpServer]:
    server = McpServer(endpoint("results"))
    yield server
    server.close()


def test_remote_tool_is_offered_with_its_description_and_schema(tools: dict[str, Tool]) -> None:
    add = tools["test__add"]
    assert add.description == "Add two numbers."
    assert add.parameters["properties"].keys() == {"a", "b"}
    assert add.run({"a": 1, "b": 2}, CONTEXT) == "3"
    assert add.timeout_seconds > 60


def test_only_tool_that_says_it_changes_nothing_runs_beside_others(tools: dict[str, Tool]) -> None:
    assert tools["test__add"].parallel
    assert not tools["test__fail"].parallel


def test_names_are_made_fit_for_models(tools: dict[str, Tool]) -> None:
    odd = {name for name in tools if name.startswith("odd_one__")}
    assert all(re.fullmatch("[A-Za-z0-9_-]{1,64}", name) for name in tools)
    assert "odd_one__bad_name_" in odd
    assert tools["odd_one__bad_name_"].run({}, CONTEXT) == "called bad name!"
    assert to_tool_name("a", "b", distinct="1") != to_tool_name("a", "b", distinct="2")


def test_tool_whose_arguments_are_no_object_or_that_is_denied_is_left_out(tools: dict[str, Tool]) -> None:
    assert "odd_one__list" not in tools
    assert "odd_one__bare" not in tools
    assert len([name for name in tools if name.startswith("odd_one__")]) == 2


def test_tool_that_is_left_out_of_each_listing_is_logged_once(tmp_path: Path) -> None:
    now = [0.0]
    server = McpServer(endpoint("wild"), tmp_path / "log", clock=lambda: now[0])
    try:
        for _ in range(3):
            assert {tool.name for tool in server.list_tools()} >= {"bare", "bad name!"}
            now[0] += LISTING_SECONDS + 1
    finally:
        server.close()
    log = (tmp_path / "log").read_text()
    assert log.count("The tool 'list' is omitted: its arguments are not an object") == 1


def test_schema_without_type_becomes_that_of_object(open_server: Open) -> None:
    listed = {tool.name: tool for tool in open_server("wild", allow=("ba*",)).list_tools()}
    assert set(listed) == {"bare", "bad name!"}
    assert listed["bare"].parameters == {"type": "object"}


def test_error_of_tool_is_reported_verbatim(tools: dict[str, Tool]) -> None:
    with pytest.raises(ToolError, match="the disk is full"):
        tools["test__fail"].run({}, CONTEXT)


def test_parts_that_are_not_text_are_named(tools: dict[str, Tool]) -> None:
    assert tools["test__parts"].run({}, CONTEXT) == "before\n\n[image, image/png, 3 bytes, not shown]\n\nafter"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("broken promise", '{"n": "none"}'),
        ("rows", '3 rows\n\n{"rows": [1, 2, 3]}'),
        ("same", '{"a":1}'),
        ("wrapped", "1\n\nx"),
        ("picture", "[image, image/png, 2 bytes, not shown]"),
        ("terminal", "red\nplain"),
        ("binary", "[1000 characters of binary data, not shown]"),
        ("half a pair", 'a\ufffd b\n\n{"\ufffd": "\ufffd"}'),
    ],
)
def test_result_says_once_what_it_says_as_plain_text(results: McpServer, name: str, told: str) -> None:
    assert results.call_tool(name, {}) == told


def test_failure_without_word_is_reported_as_one(results: McpServer) -> None:
    with pytest.raises(ToolError, match="failed without a message"):
        results.call_tool("silent failure", {})


def test_lone_surrogate_in_failure_is_replaced(results: McpServer) -> None:
    with pytest.raises(ToolError, match=r"^no \ufffd$"):
        results.call_tool("half a pair in a failure", {})


def test_huge_result_is_cut_with_note(tools: dict[str, Tool]) -> None:
    answer = tools["test__big"].run({"characters": 3_000_000}, CONTEXT)
    assert len(answer) < 201_000
    assert answer.endswith("[2800000 more characters omitted]")


def test_garbage_on_its_standard_output_does_not_disturb_server(tools: dict[str, Tool]) -> None:
    assert tools["test__noisy"].run({}, CONTEXT) == "still here"


def test_server_gets_its_own_environment_and_not_gateways(tools: dict[str, Tool]) -> None:
    environment = tools["test__environment"]
    assert environment.run({"name": "SHOWN"}, CONTEXT) == "yes"
    assert "PYTEST_CURRENT_TEST" in os.environ
    assert environment.run({"name": "PYTEST_CURRENT_TEST"}, CONTEXT) == "(unset)"


def test_server_that_is_not_asked_for_is_not_started(tmp_path: Path) -> None:
    servers = McpServers([endpoint()], tmp_path)
    assert servers.list_tools(["another"]) == ()
    servers.close()
    assert list(tmp_path.iterdir()) == []


def test_crash_in_mid_call_costs_that_call_and_server_that_keeps_crashing_is_left_alone(open_server: Open) -> None:
    server = open_server("wild")

    def crash() -> None:
        with pytest.raises(ToolError, match="Connection closed"):
            server.call_tool("crash", {})

    crash()
    assert server.call_tool("process", {}).isdigit()
    crash()
    crash()
    with pytest.raises(ToolError, match=r"next attempt is in \d+ s"):
        server.call_tool("process", {})


def test_crash_costs_calls_under_way_and_none_that_comes_after(open_server: Open) -> None:
    server, failed = open_server("wild"), concurrency.Event()
    pid = server.call_tool("process", {})

    def wait_in_vain() -> None:
        with pytest.raises(ToolError, match="Connection closed"):
            server.call_tool("never", {})
        failed.set()

    concurrency.spawn(wait_in_vain)
    concurrency.sleep(0)
    with pytest.raises(ToolError, match="Connection closed"):
        server.call_tool("crash", {})
    after = [concurrency.spawn(server.call_tool, "process", {}) for _ in range(3)]
    (new_pid,) = {calling.get() for calling in after}
    assert new_pid != pid
    assert failed.wait(GENEROUS_SECONDS)


def test_server_that_ends_between_two_calls_costs_none(open_server: Open) -> None:
    server = open_server("wild")

    def wait_for_end() -> None:
        until(lambda: server._connection is not None and server._connection.is_closing)

    pid = int(server.call_tool("process", {}))
    os.kill(pid, signal.SIGKILL)
    wait_for_end()
    assert int(server.call_tool("process", {})) != pid
    server.list_tools()
    assert server.call_tool("bare", {"end": True}) == "called bare"
    wait_for_end()
    assert server.call_tool("process", {}).isdigit()


def test_call_that_takes_too_long_is_called_off(open_server: Open, tmp_path: Path) -> None:
    server, touched = open_server(), tmp_path / "touched"
    server.list_tools()  # the start of the server may take its time
    server.endpoint = replace(server.endpoint, timeout_seconds=2.5)
    with pytest.raises(ToolError, match=r"did not answer within 2.5 s"):
        server.call_tool("hang", {"touch": str(touched)})
    until(lambda: touched.read_text() == "begun and called off")


def test_caller_that_is_ended_calls_its_call_off_and_server_lives_on(open_server: Open, tmp_path: Path) -> None:
    server, touched = open_server(), tmp_path / "touched"
    pid = server.call_tool("process", {})
    calling = concurrency.spawn(server.call_tool, "hang", {"touch": str(touched)})
    until(touched.exists)
    calling.kill()
    until(lambda: touched.read_text() == "begun and called off")
    assert server.call_tool("process", {}) == pid


def test_server_that_hangs_or_sends_line_without_end_is_ended_and_started_again(open_server: Open) -> None:
    def suffer(tool: str) -> None:
        server = open_server("wild")
        pid = int(server.call_tool("process", {}))
        patient = server.endpoint
        server.endpoint = replace(patient, timeout_seconds=3)
        with pytest.raises(ToolError, match=r"did not answer|more than fits"):
            server.call_tool(tool, {})
        server.endpoint = patient
        assert int(server.call_tool("process", {})) != pid
        assert has_ended(pid)

    for suffering in [concurrency.spawn(suffer, tool) for tool in ("block", "endless")]:
        suffering.get()


def test_server_that_never_speaks_costs_one_wait(open_server: Open) -> None:
    server = open_server("mute", timeout_seconds=1)
    with pytest.raises(ToolError, match="did not answer within 1 s"):
        server.list_tools()
    until(lambda: server._failures == 1)
    with pytest.raises(ToolError, match="next attempt is in"):
        server.list_tools()


def test_run_does_not_wait_long_for_listing_that_goes_on(tmp_path: Path) -> None:
    servers = McpServers([endpoint("mute", "mute"), endpoint()], tmp_path)
    try:
        assert servers.list_tools(["test"], None)
        began = time.monotonic()
        assert {tool.name.split("__")[0] for tool in servers.list_tools(servers.names, 0.5)} == {"test"}
        for _ in range(20):  # the wait was that of all who ask
            assert servers.list_tools(["mute"], 0.5) == ()
        assert 0.4 < time.monotonic() - began < 5
        assert servers._servers["mute"]._failures == 0  # it may still answer
    finally:
        servers.close()


def test_time_of_run_covers_servers_it_waits_for_and_they_are_waited_for_once(tmp_path: Path) -> None:
    config = scripted_config()
    config["agents"]["defaults"]["timeoutSeconds"] = 2
    config["agents"]["defaults"]["maxConcurrent"] = 1
    config["mcp"] = {"servers": {"mute": {"command": sys.executable, "args": [RAW_SERVER, "mute"]}}}
    config["tools"] = {"alsoAllow": ["mute__*"]}
    with live_gateway(tmp_path, config) as gateway, gateway.client() as client:
        began = time.monotonic()
        assert error_of(ask(client, "hi"))[:2] == (504, "run_timeout")
        concurrency.sleep(max(0.0, began + 5.5 - time.monotonic()))
        assert ask(client, "hi").status_code == 200


def test_model_is_never_offered_more_tools_than_it_takes(tmp_path: Path) -> None:
    with Upstream() as upstream:
        config = scripted_config()
        config["agents"]["list"] = [{"id": "main", "model": "stub/ok"}]
        config["models"] = {"providers": {"stub": {"baseUrl": upstream.url, "apiKey": "a-key"}}}
        config["mcp"] = {"servers": {"many": {"command": sys.executable, "args": [RAW_SERVER, "many"]}}}
        config["tools"] = {"allow": ["session_status", "many__*"]}
        function = {"type": "function", "function": {"name": "mine", "parameters": {"type": "object"}}}
        with live_gateway(tmp_path, config) as gateway, gateway.client() as client:
            for _ in range(20):  # a run waits 5 s for the server, which may be too short on a busy machine
                assert ask(client, "without any of one's own").status_code == 200
                if "many__t0" in str(upstream.requests[-1].body):
                    break
            for _ in range(2):
                assert ask(client, "without any of one's own").status_code == 200
                assert ask(client, "hi", tools=[function]).status_code == 200
                names = [tool["function"]["name"] for tool in upstream.requests[-1].body["tools"]]
                assert len(names) == 128
                assert {"mine", "session_status", "many__t0"} <= set(names)
            told = [line for line in gateway.output.splitlines() if "omitted: " in line]
        assert [line.count("many__t") for line in told] == [300 - 127, 300 - 126]


def test_server_that_is_missing_is_reported_once_and_when_it_is_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    servers = McpServers([endpoint()], tmp_path)
    for wait_seconds in (0.0, 0.0, None, None):
        servers.list_tools(["test"], wait_seconds)
    servers.close()
    told = [record.getMessage() for record in caplog.records if record.name == "openclaw.tools"]
    assert len(told) == 2
    assert "test did not list its tools within 0 s" in told[0]
    assert "The tools of the MCP server test are available" in told[1]


def named_servers(pid: int) -> set[str]:
    """The last arguments of the raw servers that run below `pid`, or whose guards do."""
    names = set()
    for child in running_children(pid):
        command = command_of(child)
        if RAW_SERVER in command:
            names.add(command[-1])
    return names


def test_gateway_contacts_servers_that_agents_may_use_before_anybody_asks(tmp_path: Path) -> None:
    config = scripted_config()
    servers = {name: {"command": sys.executable, "args": [RAW_SERVER, "wild", name]} for name in ("used", "unused")}
    config["mcp"] = {"servers": servers}
    config["tools"] = {"alsoAllow": ["used__*"]}
    with live_gateway(tmp_path, config) as gateway, gateway.client() as client:
        pid = gateway.process.pid
        until(lambda: named_servers(pid) != set())
        assert ask(client, "hi").status_code == 200
        assert named_servers(pid) == {"used"}


def test_server_that_cannot_start_is_left_out_and_log_has_its_words(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken = endpoint("broken", "broken")
    missing = McpEndpoint("missing", command="/nowhere/at-all")
    servers = McpServers([broken, missing, endpoint()], tmp_path)
    assert {tool.name.split("__")[0] for tool in servers.list_tools(servers.names, None)} == {"test"}
    servers.close()
    (told,) = [record.getMessage() for record in caplog.records if "server broken" in record.getMessage()]
    assert "cannot find my database" in told
    assert told.endswith("It exited with status 1.")
    assert "cannot find my database" in (tmp_path / "mcp-broken.log").read_text()


def test_missing_command_is_reported() -> None:
    server = McpServer(McpEndpoint("missing", command="/nowhere/at-all"))
    with pytest.raises(ToolError, match="its command /nowhere/at-all is not an executable file"):
        server.list_tools()


def test_server_that_keeps_failing_is_tried_again_within_half_minute() -> None:
    now = [0.0]
    server = McpServer(McpEndpoint("missing", command="/nowhere/at-all"), clock=lambda: now[0])
    for _ in range(5):
        now[0] += 60.0  # what its silence has cost
        server._handle_end("it did not answer")
    with pytest.raises(ToolError, match=r"it did not answer. The next attempt is in 30 s\."):
        server.call_tool("x", {})
    now[0] += 30.0
    with pytest.raises(ToolError, match="not an executable file"):
        server.call_tool("x", {})


def test_tools_that_change_are_listed_again(open_server: Open) -> None:
    server = open_server()
    assert "grown" not in {tool.name for tool in server.list_tools()}
    assert server.call_tool("grow", {}) == "grown"
    until(lambda: "grown" in {tool.name for tool in server.list_tools()})
    assert server.call_tool("grown", {}) == "new"


def test_unused_server_is_stopped_and_restarted_on_demand(open_server: Open) -> None:
    nested: Any = {}
    for _ in range(sys.getrecursionlimit()):
        nested = {"a": nested}
    server = open_server("wild", idle_stop_seconds=0.2)
    pid = int(server.call_tool("process", {}))
    with pytest.raises(ToolError, match="nested too deeply"):  # and it is not used by that
        server.call_tool("process", nested)
    until(lambda: has_ended(pid))
    assert int(server.call_tool("process", {})) != pid


def test_closing_ends_server_and_what_is_asked_of_it_and_twice_is_no_op(open_server: Open) -> None:
    server = open_server("wild")
    pid = int(server.call_tool("process", {}))
    failed: list[str] = []

    def call() -> None:
        try:
            server.call_tool("never", {})
        except ToolError as error:
            failed.append(str(error))

    calling = concurrency.spawn(call)
    concurrency.sleep(0)
    server.close()
    server.close()
    calling.join()
    assert len(failed) == 1
    assert has_ended(pid)
    with pytest.raises(ToolError, match="shutting down"):
        server.list_tools()


GATEWAY = """
import gevent.monkey; gevent.monkey.patch_all()
import sys
from service.tools.mcp.server import McpEndpoint, McpServer
server = McpServer(McpEndpoint("test", command=sys.executable, args=(sys.argv[1], "wild")))
print(server.call_tool("process", {}), server._connection._process.pid, flush=True)
import gevent; gevent.sleep(60)
"""


def test_in_patched_process_it_works_and_ends_with_gateway_that_is_killed() -> None:
    command = [sys.executable, "-c", GATEWAY, RAW_SERVER]
    with started(command, cwd=Path(__file__).parents[3], stdout=subprocess.PIPE, text=True) as gateway:
        assert gateway.stdout is not None
        pids = [int(pid) for pid in gateway.stdout.readline().split()]
        gateway.kill()
    assert len(pids) == 2
    until(lambda: all(map(has_ended, pids)))


def test_without_sdk_command_that_installs_it_is_reported() -> None:
    command = [sys.executable, "-S", "-P", "-m", "service.tools.mcp.child"]  # -S: without the installed packages
    environment = {"PYTHONPATH": str(Path(__file__).parents[3])}
    order = '{"command": "x", "args": [], "env": {}, "cwd": null, "url": null, "headers": {}, "version": "1"}\n'
    told = subprocess.run(command, input=order, capture_output=True, text=True, check=False, env=environment).stdout
    assert "Run `pip install '.[mcp]'` in the gateway's clone." in told
