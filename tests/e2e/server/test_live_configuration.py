"""Live reload of the configuration file."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import psutil
import pytest
from support.chat import ask, error_of, streamed_text, text_of
from support.command import Home
from support.live import TOKEN, LiveGateway, live_gateway, scripted_config
from support.operator_client import operator_client
from support.polling import until
from support.processes import command_of, running_children
from support.upstream import Upstream
from websockets.exceptions import ConnectionClosed


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    with live_gateway(tmp_path_factory.mktemp("gateway"), scripted_config()) as running:
        yield running


class Editing:
    """The running gateway's file, replaced atomically as editors do, and its log."""

    def __init__(self, running: LiveGateway) -> None:
        self.running = running
        self.path = running.output_path.with_name("openclaw.json")
        self.config = scripted_config()

    def write(self, config: Any = None) -> None:
        """Replace the file by `config`, or by `self.config`."""
        new = self.path.with_suffix(".new")
        new.write_bytes(orjson.dumps(self.config if config is None else config))
        new.replace(self.path)

    def apply(self) -> None:
        """Write the configuration and wait until it is in force, or logged as waiting for a restart."""
        logged = self._times_applied()
        self.write()
        until(lambda: self._times_applied() > logged)

    def _times_applied(self) -> int:
        return self.running.output.count("in force:") + self.running.output.count("after a restart:")


@pytest.fixture
def editing(gateway: LiveGateway) -> Iterator[Editing]:
    """The original file, which is restored afterwards."""
    editing = Editing(gateway)
    yield editing
    before, now = scripted_config(), orjson.loads(editing.path.read_bytes())
    editing.config = before
    if now != before:
        editing.apply()


def test_endpoint_is_switched_off_and_on(editing: Editing) -> None:
    enabled = editing.config["gateway"]["http"]["endpoints"]["chatCompletions"]
    with editing.running.client() as client:
        enabled["enabled"] = False
        editing.apply()
        assert error_of(ask(client, "hi"))[:2] == (404, "endpoint_disabled")
        enabled["enabled"] = True
        editing.apply()
        assert text_of(ask(client, "hi")) == "hi"


def test_agents_are_added_removed_and_changed(editing: Editing) -> None:
    with editing.running.client() as client:
        editing.config["agents"]["list"] = [{"id": "gamma", "model": "scripted/count-3"}]
        editing.apply()
        listed = [model["id"] for model in client.get("/v1/models").json()["data"]]
        assert listed == ["openclaw", "openclaw/default", "openclaw/gamma"]
        assert text_of(ask(client, "hi")).split() == ["1", "2", "3"]
        assert error_of(ask(client, "hi", model="openclaw/beta"))[:2] == (404, "model_not_found")


def test_new_secret_applies_from_the_next_request(editing: Editing) -> None:
    editing.config["gateway"]["auth"]["token"] = "another"
    editing.apply()
    with editing.running.client() as old, editing.running.client("another") as new:
        assert old.get("/v1/models").status_code == 401
        assert new.get("/v1/models").status_code == 200
    assert "another" not in editing.running.output


def test_websocket_authenticated_with_the_old_secret_is_closed(editing: Editing) -> None:
    with operator_client(editing.running) as operator:
        editing.config["gateway"]["auth"]["token"] = "the-next-token-for-tests"
        editing.apply()
        with pytest.raises(ConnectionClosed) as closed:
            operator.receive_until(lambda _frame: False)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1008
    editing.config["gateway"]["auth"]["token"] = TOKEN
    editing.apply()


def test_login_limits_and_trusted_proxies_are_reloaded(editing: Editing) -> None:
    gateway = editing.config["gateway"]
    gateway["trustedProxies"] = ["127.0.0.1"]
    gateway["auth"]["rateLimit"] = {"exemptLoopback": False, "maxAttempts": 1, "lockoutMs": 60_000}
    editing.apply()
    elsewhere = {"X-Forwarded-For": "203.0.113.7"}
    with editing.running.client("wrong") as wrong, editing.running.client() as right:
        assert [wrong.get("/v1/models", headers=elsewhere).status_code for _ in range(3)] == [401, 429, 429]
        assert right.get("/v1/models", headers=elsewhere).status_code == 429
        assert right.get("/v1/models").status_code == 200


def test_tools_are_reloaded(editing: Editing, tmp_path: Path) -> None:
    (tmp_path / "in the workspace").write_text("")
    agent = {"id": "main", "workspace": str(tmp_path), "model": "scripted/tools", "tools": {"allow": ["ls"]}}
    editing.config["agents"]["list"] = [agent]
    editing.apply()
    with editing.running.client() as client:
        assert "in the workspace" in text_of(ask(client, "hi"))
        agent["tools"] = {"deny": ["*"]}
        editing.apply()
        assert text_of(ask(client, "hi")) == "hi"


def test_session_maintenance_is_reloaded(editing: Editing) -> None:
    editing.config["session"] = {"maintenance": {"pruneAfter": "30d"}}
    editing.apply()
    until(lambda: "in force: session" in editing.running.output)


def test_running_answer_is_not_affected_by_an_edit(editing: Editing) -> None:
    answers: list[httpx.Response] = []
    with editing.running.client() as client:
        headers = {"x-openclaw-model": "scripted/slow"}
        asking = threading.Thread(
            target=lambda: answers.append(ask(client, "hi", stream=True, model="openclaw/beta", headers=headers))
        )
        asking.start()
        until(lambda: client.get("/v1/runs", params={"state": "running"}).json()["data"])
        editing.config["models"] = {"providers": {"other": {"api": "scripted"}}}
        editing.config["agents"] = {"defaults": {"model": "other/echo"}}
        editing.config["gateway"]["auth"]["token"] = "another"
        editing.apply()
        asking.join()
    assert streamed_text(answers[0]).endswith("before it ends.")
    with editing.running.client("another") as client:
        assert text_of(ask(client, "hi")) == "hi"
        refused = ask(client, "hi", headers={"x-openclaw-model": "scripted/echo"})
        assert error_of(refused)[:2] == (404, "model_not_found")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"gateway": ', "line 1"),
        ('{"gateway": {"port": "x"}}', "gateway.port"),
        ('{"gateway": {"auth": {"mode": "token", "token": "${GONE}"}}}', "GONE"),
        (
            '{"gateway": {"port": 5555, "http": {"endpoints": {"metrics": {"enabled": true, "port": 5555}}}}}',
            "gateway.http.endpoints.metrics.port: 5555 is gateway.port, too",
        ),
        ('{"gateway": {"auth": {"token": "a", "password": "b"}}}', "both a token and a password"),
    ],
)
def test_invalid_edit_is_refused_and_the_previous_configuration_stays(editing: Editing, text: str, words: str) -> None:
    logged = editing.running.output.count("is refused")
    editing.path.write_text(text)
    until(lambda: editing.running.output.count("is refused") > logged)
    assert words in editing.running.output.rpartition("is refused")[2]
    with editing.running.client() as client:
        assert text_of(ask(client, "hi")) == "hi"
    editing.write()  # unchanged: nothing to apply or log


def test_removed_file_changes_nothing(editing: Editing) -> None:
    editing.path.unlink()
    until(lambda: "there is no such file" in editing.running.output)
    with editing.running.client() as client:
        assert text_of(ask(client, "hi")) == "hi"
    editing.write()


def test_restart_only_keys_are_logged_and_the_rest_applied(editing: Editing) -> None:
    config = copy.deepcopy(editing.config)
    editing.config["gateway"]["bind"] = "lan"
    editing.config["agents"]["list"][1]["id"] = "delta"
    editing.apply()
    until(lambda: "only after a restart: gateway.bind" in editing.running.output)
    assert "is in force: agents.list\n" in editing.running.output
    assert "is in force: gateway.bind" not in editing.running.output
    editing.config["gateway"]["bind"] = "loopback"
    editing.config["gateway"]["auth"]["mode"] = "none"
    editing.config["gateway"]["auth"]["rateLimit"]["maxAttempts"] = 11
    editing.apply()
    until(lambda: "only after a restart: gateway.auth.mode" in editing.running.output)
    assert "is in force: gateway.bind, gateway.auth.rateLimit\n" in editing.running.output
    with editing.running.client(None) as client:
        assert client.get("/v1/models").status_code == 401  # the credentials before hold until then
        editing.config["agents"]["list"][1]["id"] = "epsilon"
        editing.apply()
        assert client.get("/v1/models").status_code == 401  # whatever else is edited
    editing.config = config
    with editing.running.client(TOKEN) as client:
        assert text_of(ask(client, "hi", model="openclaw/epsilon")) == "hi"


def test_config_command_reaches_the_running_gateway(editing: Editing, tmp_path: Path) -> None:
    home = Home(tmp_path, {"OPENCLAW_CONFIG_PATH": str(editing.path)})
    logged = editing.running.output.count("in force:")
    assert home.run("config", "set", "agents.list[2]", "{id: 'epsilon', model: 'scripted/count-2'}").status == 0
    until(lambda: editing.running.output.count("in force:") > logged)
    with editing.running.client() as client:
        assert text_of(ask(client, "hi", model="openclaw/epsilon")).split() == ["1", "2"]


def test_added_comment_changes_nothing(editing: Editing) -> None:
    logged = editing.running.output.count("in force:")
    editing.path.write_text(f"// a comment\n{editing.path.read_text()}")
    time.sleep(2)
    assert editing.running.output.count("in force:") == logged
    editing.write()


def test_added_key_that_is_ignored_is_logged(editing: Editing) -> None:
    editing.config["messages"] = {"ackReaction": "x"}
    editing.write()
    until(lambda: "Note: messages" in editing.running.output)
    assert "Note: messages" not in editing.running.output.partition("listening on")[0]
    editing.write(scripted_config())


def test_model_server_keeps_running_unless_it_is_edited(tmp_path: Path) -> None:
    """A server that took long to load is not restarted because an agent was renamed."""
    with Upstream() as upstream:
        config = scripted_config()
        service = {"command": "/bin/sleep", "args": ["600"], "healthUrl": f"{upstream.url}/models"}
        config["models"]["providers"]["up"] = {"baseUrl": upstream.url, "localService": service}
        config["agents"]["defaults"]["model"] = "up/ok"
        with live_gateway(tmp_path, config) as running, running.client() as client:
            editing = Editing(running)
            editing.config = config

            def servers() -> list[int]:
                children = running_children(running.process.pid)
                return [child.pid for child in children if command_of(child)[:1] == ["/bin/sleep"]]

            ask(client, "hi")
            until(lambda: len(servers()) == 1)  # a moment after its start it has its own name
            [first] = servers()
            config["agents"]["list"][0]["name"] = "Renamed"
            editing.apply()
            ask(client, "hi")
            assert servers() == [first]
            service["args"] = ["601"]
            editing.apply()
            until(lambda: servers() == [])
            ask(client, "hi")
            until(lambda: len(servers()) == 1)
            [second] = servers()
            assert second != first
        assert not psutil.pid_exists(second)


def test_edit_through_a_symbolic_link_is_applied(tmp_path: Path) -> None:
    versions = [tmp_path / "a.json", tmp_path / "b.json"]
    config = scripted_config()
    versions[0].write_bytes(orjson.dumps(config))
    config["agents"]["list"] = [{"id": "linked"}]
    versions[1].write_bytes(orjson.dumps(config))
    link = tmp_path / "link.json"
    link.symlink_to(versions[0])
    with live_gateway(tmp_path, config, env={"OPENCLAW_CONFIG_PATH": str(link)}) as running, running.client() as client:
        new = tmp_path / "new"
        new.symlink_to(versions[1])
        new.replace(link)
        until(lambda: "in force: agents.list" in running.output)
        assert text_of(ask(client, "hi", model="openclaw/linked")) == "hi"


def test_allowed_websocket_origins_are_reloaded(editing: Editing) -> None:
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Origin": "https://ui.example.com",
    }

    def status() -> int:
        with httpx.stream("GET", f"{editing.running.url}/", headers=upgrade, timeout=10) as response:
            return response.status_code

    assert status() == 403
    editing.config["gateway"]["controlUi"] = {"allowedOrigins": ["https://ui.example.com"]}
    editing.apply()
    assert status() == 101


@pytest.mark.parametrize("live", [False, True])
def test_edit_is_ignored_with_reload_off(tmp_path: Path, *, live: bool) -> None:
    config = scripted_config()
    off = {**config, "gateway": {**config["gateway"], "reload": {"mode": "off"}}}
    with live_gateway(tmp_path, config if live else off) as running, running.client() as client:
        editing = Editing(running)
        if live:
            editing.write(off)
            until(lambda: "in force: gateway.reload" in running.output)
        config["agents"]["list"] = [{"id": "new"}]
        editing.write(config)
        time.sleep(2.5)  # an edit is applied after one second
        assert ask(client, "hi", model="openclaw/new").status_code == 404
        assert "in force: agents" not in running.output


def test_edit_waits_for_a_restart_if_a_command_may_have_made_it(tmp_path: Path) -> None:
    config = scripted_config()
    (tmp_path / "workspace").mkdir()
    config["agents"]["defaults"]["workspace"] = str(tmp_path / "workspace")
    config["tools"] = {"alsoAllow": ["exec"], "exec": {"sandbox": "off"}}
    with live_gateway(tmp_path, config) as running:
        assert "commands run without a sandbox" in running.output
        editing = Editing(running)
        editing.config = {**config, "tools": {"profile": "full", "exec": {"sandbox": "off"}}}
        editing.write()
        until(lambda: "agents use programs without a sandbox (tools.exec.sandbox)" in running.output)
        assert "in force: " not in running.output


def test_edit_waits_for_a_restart_if_an_mcp_server_may_have_made_it(tmp_path: Path) -> None:
    config = scripted_config()
    config["mcp"] = {"servers": {"files": {"command": "false"}}}
    config["tools"] = {"alsoAllow": ["files__*"]}
    with live_gateway(tmp_path, config) as running:
        assert 'mcp.servers.files.sandbox: "off"' in running.output
        editing = Editing(running)
        editing.config = {**config, "tools": {"profile": "full", "alsoAllow": ["files__*"]}}
        editing.write()
        until(lambda: "only after a restart: agents use programs without a sandbox" in running.output)
        assert "in force: " not in running.output


def test_all_workers_apply_an_edit(tmp_path: Path) -> None:
    with live_gateway(tmp_path, scripted_config(), arguments=("--workers", "2")) as running:
        editing = Editing(running)
        editing.config["agents"]["list"] = [{"id": "gamma"}]
        editing.write()
        until(lambda: running.output.count("in force:") == 2)
        for _ in range(8):  # each on its own connection, so that both workers get some
            with running.client() as client:
                assert text_of(ask(client, "hi", model="openclaw/gamma")) == "hi"


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        ({"agents": {"defaults": {"model": "nowhere/x"}}}, 'No provider "nowhere"'),
        ({"state": {"url": "mysql://user:hidden@host/x"}}, 'state.url: the driver "mysql"'),
    ],
)
def test_edit_that_could_never_start_is_refused(editing: Editing, edit: dict[str, Any], words: str) -> None:
    logged = editing.running.output.count("is refused")
    editing.write(editing.config | edit)
    until(lambda: editing.running.output.count("is refused") > logged)
    assert words in editing.running.output.rpartition("is refused")[2]
    assert "hidden" not in editing.running.output
    with editing.running.client() as client:
        assert text_of(ask(client, "hi")) == "hi"
    editing.config = scripted_config()
    editing.write()
