"""MCP servers in a sandbox: what they reach, and what refuses them."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import support
from support.processes import running_children

from service.config.roster import Roster
from service.config.schema import Config, parse_config
from service.config.source import ConfigError, Locations
from service.config.workspaces import fix_directory
from service.core.processes.confined_exec import words_before
from service.core.processes.sandbox import PROGRAM_DIRECTORIES, Kind, Sandbox, find_sandboxes
from service.gateway.build import to_mcp_endpoint
from service.tools.mcp.sandbox import McpSandbox
from service.tools.mcp.server import McpEndpoint, McpServer
from service.tools.policy_checks import tool_warnings
from service.tools.tool import ToolError

SERVER = str(Path(support.__file__).with_name("mcp_servers.py"))
SECRET = "a-token-nobody-may-read"
#: A Python that every user can start, which the one that runs the tests may not be.
PYTHON = "/usr/bin/python3"
#: Where bubblewrap is, if not where the gateway looks for it.
DIRECTORIES = os.environ.get("BWRAP_DIRECTORY", PROGRAM_DIRECTORIES)


class Home(NamedTuple):
    """A home directory with the gateway's configuration and state, and a directory for a server."""

    path: Path

    @property
    def hidden(self) -> tuple[str, ...]:
        return str(self.path / "openclaw.json"), str(self.path / "state")

    @property
    def work(self) -> Path:
        return self.path / "state" / "work"


@pytest.fixture(params=["landlock", "bwrap"])
def kind(request: pytest.FixtureRequest) -> Kind:
    wanted: Kind = "bwrap" if request.param == "bwrap" else "landlock"
    if missing := find_sandboxes(DIRECTORIES, [wanted]).missing:
        pytest.skip("; ".join(missing.values()))
    return wanted


@pytest.fixture
def home() -> Iterator[Home]:
    home = Home(Path(tempfile.mkdtemp(prefix="home-", dir="/var/tmp")))
    home.work.mkdir(parents=True)
    for name in ("openclaw.json", "state/sessions.sqlite", "readable.txt"):
        (home.path / name).write_text(SECRET)
    yield home
    shutil.rmtree(home.path)


def open_server(home: Home, sandbox: McpSandbox | None, **settings: Any) -> McpServer:
    settings = {"cwd": str(home.work), **settings}
    return McpServer(McpEndpoint("notes", command=sys.executable, args=(SERVER,), sandbox=sandbox, **settings))


def attempts(server: McpServer, home: Home, port: int) -> dict[str, str]:
    """What a server gets from each attempt."""
    return {
        name: server.call_tool("attempt", {"action": action, "target": target})
        for name, action, target in (
            ("own", "write", str(home.work / "own.txt")),
            ("temporary", "write", f"{server.call_tool('environment', {'name': 'TMPDIR'})}/own.txt"),
            ("system", "read", str(home.path / "readable.txt")),
            ("configuration", "read", str(home.path / "openclaw.json")),
            ("state", "read", str(home.path / "state" / "sessions.sqlite")),
            ("outside", "write", str(home.path / "readable.txt")),
            ("network", "connect", str(port)),
        )
    }


def test_server_in_sandbox_reaches_its_directory_the_system_and_network(kind: Kind, home: Home) -> None:
    sandbox = McpSandbox(kind, hidden=home.hidden, program_directories=DIRECTORIES)
    with socket.create_server(("127.0.0.1", 0)) as listener, closing(open_server(home, sandbox)) as server:
        told = attempts(server, home, listener.getsockname()[1])
        directory = server.call_tool("environment", {"name": "TMPDIR"})
    assert {name for name, text in told.items() if text == "done"} == {"own", "temporary", "network"}
    assert told["system"] == SECRET
    assert all(told[name].startswith("refused: ") for name in ("configuration", "state", "outside") if told[name])
    assert SECRET not in told["configuration"] + told["state"]
    assert (home.path / "readable.txt").read_text() == SECRET
    assert directory == "/tmp" or not Path(directory).exists()


def test_server_without_network_reaches_none(kind: Kind, home: Home) -> None:
    sandbox = McpSandbox(kind, network=False, hidden=home.hidden, program_directories=DIRECTORIES)
    with socket.create_server(("127.0.0.1", 0)) as listener, closing(open_server(home, sandbox)) as server:
        assert attempts(server, home, listener.getsockname()[1])["network"].startswith("refused: ")


def test_server_without_directory_writes_to_temporary_one_only(kind: Kind, home: Home) -> None:
    sandbox = McpSandbox(kind, hidden=home.hidden, program_directories=DIRECTORIES)
    with closing(open_server(home, sandbox, cwd=None)) as server:
        told = attempts(server, home, 9)
    assert told["temporary"] == "done"
    assert told["own"].startswith("refused: ")


def test_closed_server_leaves_no_process(kind: Kind, home: Home) -> None:
    before = set(running_children())
    with closing(open_server(home, McpSandbox(kind, program_directories=DIRECTORIES))) as server:
        assert server.call_tool("add", {"a": 1, "b": 2}) == "3"
        assert set(running_children()) - before
    assert set(running_children()) <= before


def test_server_without_sandbox_reads_what_gateway_reads(home: Home) -> None:
    with closing(open_server(home, None)) as server:
        assert server.call_tool("attempt", {"action": "read", "target": str(home.path / "openclaw.json")}) == SECRET


def test_sandbox_that_does_not_work_refuses_server_by_name(home: Home, tmp_path: Path) -> None:
    sandbox = McpSandbox("bwrap", program_directories=str(tmp_path))
    with (
        closing(open_server(home, sandbox)) as server,
        pytest.raises(ToolError, match=r"server notes .*bubblewrap \(bwrap\) is not installed.* set it to \"off\""),
    ):
        server.list_tools()
    assert "the server is not started" in sandbox.to_text()


def test_directory_of_gateway_is_refused(kind: Kind, home: Home) -> None:
    sandbox = McpSandbox(kind, hidden=home.hidden, program_directories=DIRECTORIES)
    with (
        closing(open_server(home, sandbox, cwd=str(home.path / "state"))) as server,
        pytest.raises(ToolError, match="server notes failed: its directory is the gateway's own; set another cwd"),
    ):
        server.list_tools()


@pytest.mark.parametrize("sandbox", [None, McpSandbox("auto", program_directories=DIRECTORIES)])
def test_directory_that_became_a_link_refuses_server(sandbox: McpSandbox | None, home: Home) -> None:
    """An agent with commands can exchange what is in its workspace."""
    other = home.path / "other"
    other.mkdir()
    home.work.rename(home.work.with_name("moved"))
    home.work.symlink_to(other)
    with (
        closing(open_server(home, sandbox)) as server,
        pytest.raises(ToolError, match="server notes failed: a symbolic link leads to its directory"),
    ):
        server.list_tools()


def test_link_in_workspace_is_not_followed_to_directory(tmp_path: Path) -> None:
    workspace, real = tmp_path / "workspace", tmp_path / "real"
    (workspace / "notes").mkdir(parents=True)
    (real / "notes").mkdir(parents=True)
    (tmp_path / "configured").symlink_to(workspace)
    (workspace / "link").symlink_to(real)
    assert fix_directory(tmp_path / "configured" / "notes", [workspace]) == workspace / "notes"
    assert fix_directory(workspace / "link" / "notes", [workspace]) == workspace / "link" / "notes"
    assert fix_directory(workspace / "link" / "notes", []) == real / "notes"


def test_hidden_file_with_another_link_refuses_server(kind: Kind, home: Home) -> None:
    sandbox = McpSandbox(kind, hidden=home.hidden, program_directories=DIRECTORIES)
    (home.work / "linked").hardlink_to(home.hidden[0])
    with (
        closing(open_server(home, sandbox)) as server,
        pytest.raises(ToolError, match=r"server notes failed: .*openclaw.json has another hard link"),
    ):
        server.list_tools()


@pytest.mark.parametrize("user", ["root", "nobody"])
def test_command_is_confined_for_every_user(kind: Kind, home: Home, user: str) -> None:
    if os.getuid() != 0 and user == "root":
        pytest.skip("needs root")
    if not Path(PYTHON).exists():
        pytest.skip(f"there is no {PYTHON} that every user can start")
    account = pwd.getpwnam(user) if os.getuid() == 0 else pwd.getpwuid(os.getuid())
    if os.getuid() == 0:
        for path in (home.path, *home.path.rglob("*")):
            os.chown(path, account.pw_uid, account.pw_gid)
    program = find_sandboxes(DIRECTORIES, [kind]).kinds[kind]
    words = words_before(Sandbox(kind, (str(home.work),), home.hidden, network=False, program=program), "")
    line = (
        f"echo tea > own.txt; cat own.txt ../sessions.sqlite {home.hidden[0]}; echo x > {home.path}/readable.txt; "
        f"chmod 604 own.txt; chmod 666 {home.hidden[0]} ../sessions.sqlite"
    )
    modes = [path.stat().st_mode for path in (Path(home.hidden[0]), home.path / "state" / "sessions.sqlite")]
    done = subprocess.run(
        [PYTHON, *words[1:], "/bin/sh", "-c", line],
        user=account.pw_uid,
        group=account.pw_gid,
        extra_groups=[] if os.getuid() == 0 else None,
        env={"PATH": "/usr/bin:/bin"},
        cwd=home.work,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "tea\n", done.stderr
    assert (home.work / "own.txt").stat().st_mode & 0o777 == 0o604
    assert [path.stat().st_mode for path in (Path(home.hidden[0]), home.path / "state" / "sessions.sqlite")] == modes
    assert (home.path / "readable.txt").read_text() == SECRET


def config_of(**server: Any) -> Any:
    config, _ = parse_config({"mcp": {"servers": {"notes": server}}})
    return config


def test_configuration_sets_sandbox() -> None:
    locations = Locations(Path("/home/me/openclaw.json"), Path("/home/me/state"), dev=False)
    confined = config_of(command="notes", sandbox="landlock", network=False)
    hidden = ("/home/me/openclaw.json", "/home/me/state")
    assert endpoint_of(confined, locations).sandbox == McpSandbox("landlock", network=False, hidden=hidden)
    assert endpoint_of(config_of(command="notes"), locations).sandbox is None


def endpoint_of(config: Config, locations: Locations) -> McpEndpoint:
    return to_mcp_endpoint("notes", config.mcp.servers["notes"], Roster.from_config(config), locations)


@pytest.mark.parametrize(
    ("server", "words"),
    [
        ({"url": "http://127.0.0.1:1/mcp", "sandbox": "auto"}, "mcp.servers.notes.*a server at a url runs elsewhere"),
        ({"url": "http://127.0.0.1:1/mcp", "network": False}, "a server at a url runs elsewhere"),
        ({"command": "notes", "network": False}, "network: false needs a sandbox"),
        ({"command": "notes", "sandbox": "firejail"}, "mcp.servers.notes.sandbox"),
    ],
)
def test_sandbox_that_cannot_be_honoured_is_refused(server: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        config_of(**server)


def test_start_notes_sandbox_of_server() -> None:
    if find_sandboxes("", ["landlock"]).missing:
        pytest.skip("there is no Landlock")
    config = config_of(command="notes", sandbox="landlock", network=False)
    notes = "\n".join(tool_warnings(config, Roster.from_config(config)))
    assert "mcp.servers.notes.sandbox: the server runs in a sandbox: Landlock" in notes
    assert "without network" in notes
