"""`openclaw config`: reading, editing and validating the configuration file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import jsonschema_rs
import pytest
from support.command import Home

from service.config.problems import Section
from service.config.schema import Config, parse_config
from service.config.secrets import MASK, mask_secrets

FILE = """// mine
{
  gateway: {
    auth: { mode: "token", token: "hidden-1" }, // keep it to yourself
  },
  models: {
    providers: {
      openai: { baseUrl: "https://api.openai.com/v1", apiKey: "${OPENAI_API_KEY}", headers: { "X-Key": "hidden-2" } },
    },
  },
}
"""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path, {})
    home.write(FILE)
    return home


def test_config_file_prints_path(tmp_path: Path) -> None:
    home = Home(tmp_path, {})
    assert home.run("config", "file").out == f"{home.config_path}\n"
    assert home.run("config", "file", "--dev").out == f"{tmp_path}/.openclaw-dev/openclaw.json\n"
    assert home.run("--profile", "work", "config", "file").out == f"{tmp_path}/.openclaw-work/openclaw.json\n"
    assert home.run("config", "file", "--json").json == {"path": str(home.config_path), "exists": False}
    assert home.run("--dev", "config", "file", "--profile", "x").status == 2


def test_get_masks_secrets_unless_path_names_them(home: Home) -> None:
    whole = home.run("config", "get")
    assert whole.status == 0
    assert "hidden" not in whole.out
    assert whole.json["gateway"]["auth"] == {"mode": "token", "token": MASK}
    assert whole.json["models"]["providers"]["openai"]["apiKey"] == "${OPENAI_API_KEY}"
    assert home.run("config", "get", "models.providers.openai.headers").json == {"X-Key": MASK}
    assert home.run("config", "get", "gateway.auth.token").out == "hidden-1\n"
    assert home.run("config", "get", "gateway.auth.token", "--json").json == "hidden-1"


def test_get_of_unset_key_fails(home: Home) -> None:
    done = home.run("config", "get", "gateway.port", "--json")
    assert (done.status, done.json["ok"], done.json["error"]["type"]) == (1, False, "cli_error")
    assert "gateway.port is not set" in done.err
    assert home.run("config", "get", "a..b").status == 2


def test_set_changes_one_value_and_keeps_everything_else(home: Home) -> None:
    home.config_path.chmod(0o640)
    before = home.config_path.stat()
    assert home.run("config", "set", "gateway.port", "0x4000").status == 0
    assert home.run("config", "set", "agents.defaults.model", "openai/gpt-5").status == 0
    expected = FILE.replace("yourself\n", "yourself\n    port: 16384,\n")
    agents = '  agents: {\n    defaults: { model: "openai/gpt-5" },\n  },\n'
    expected = expected.removesuffix("}\n") + agents + "}\n"
    assert home.config_path.read_text() == expected
    after = home.config_path.stat()
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert list(home.config_path.parent.iterdir()) == [home.config_path]


def test_value_is_json5_or_text_and_may_come_from_standard_input(home: Home) -> None:
    home.run("config", "set", "agents.list", "[{id: 'main', default: true},]")
    home.run("config", "set", "agents.list[1]", '{"id": "beta"}')
    home.run("config", "set", "agents.list.1.name", "Mr. B")
    home.run("config", "set", "gateway.auth.token", "-", text="12345\n")  # a number is not a token
    home.run("config", "set", "gateway.auth.token", "--text", "-", text="67890\n")
    data = json.loads(home.run("config", "get", "agents").out)
    assert data == {"list": [{"id": "main", "default": True}, {"id": "beta", "name": "Mr. B"}]}
    assert home.run("config", "get", "gateway.auth.token").out == "67890\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("set", "gateway.port", "high"), "gateway.port: must be a whole number"),
        (("set", "gateway.prot", "1"), "did you mean `port`"),
        (("set", "gateway.auth.token", "12345"), "gateway.auth.token: must be a string"),
        (("set", "gateway.auth.token.x", "1"), "neither an object nor a list"),
        (("unset", "models.providers.openai.baseUrl"), "baseUrl: is required"),
        (("unset", "gateway.port"), "gateway.port is not set"),
        (("set", "agents.defaults.model", "nowhere/x"), 'agents.defaults.model: No provider "nowhere" is configured'),
        (("set", "agents.defaults.workspace", "/etc/passwd"), "/etc/passwd is not a directory"),
        (("set", "state.url", "mysql://user:pass@host/x"), 'state.url: the driver "mysql"'),
        (("set", "state.url", "nothing"), "state.url: it is not a URL"),
    ],
)
def test_invalid_change_is_refused_and_file_stays(home: Home, arguments: tuple[str, ...], words: str) -> None:
    done = home.run("config", *arguments)
    assert done.status == 1
    assert words in done.err
    assert done.out == ""
    assert home.config_path.read_text() == FILE
    assert list(home.config_path.parent.iterdir()) == [home.config_path]


def test_unset_removes_value(home: Home) -> None:
    assert home.run("config", "unset", "models.providers.openai.headers").status == 0
    assert home.config_path.read_text() == FILE.replace(', headers: { "X-Key": "hidden-2" }', "")


def test_invalid_file_can_be_repaired_step_by_step(home: Home) -> None:
    home.write("{ gateway: { port: 'x', bind: 'y' } }")
    done = home.run("config", "set", "gateway.port", "1")
    assert done.status == 0
    assert "gateway.bind" in done.err
    home.write("{ gateway: ")
    assert "line 1" in home.run("config", "set", "gateway.port", "1").err


def test_change_that_start_up_would_refuse_is_not_written(home: Home) -> None:
    assert home.run("config", "set", "models.providers.vllm.baseUrl", "http://127.0.0.1:1/v1").status == 0
    assert home.run("config", "set", "agents.defaults.model", "vllm/x").status == 0
    assert home.run("config", "set", "agents.defaults.model", "groq/x").status == 0  # a key may come
    assert home.run("config", "set", "agents.defaults.model", "vllm/x").status == 0
    before = home.config_path.read_text()
    done = home.run("config", "unset", "models.providers.vllm", "--json")
    assert (done.status, home.config_path.read_text()) == (1, before)
    assert 'No provider "vllm"' in done.json["error"]["message"]


def test_one_port_for_two_listeners_is_not_written(home: Home) -> None:
    assert home.run("config", "set", "gateway.http.endpoints.metrics", "{enabled: true, port: 5000}").status == 0
    before = home.config_path.read_text()
    for path, value in (("gateway.port", "5000"), ("gateway.http.endpoints.metrics.port", "18789")):
        done = home.run("config", "set", path, value)
        assert (done.status, home.config_path.read_text()) == (1, before)
        assert "gateway.http.endpoints.metrics.port: " in done.err
        assert "is gateway.port, too" in done.err


def test_hidden_problem_does_not_block_repair(home: Home) -> None:
    home.write("{ gateway: { port: 'x' }, agents: { defaults: { model: 'nowhere/x' } } }")
    for path, value in (("gateway.port", "1"), ("models.providers.vllm.baseUrl", "http://127.0.0.1:1/v1")):
        done = home.run("config", "set", path, value)
        assert done.status == 0, done.err
        assert 'still invalid: agents.defaults.model: No provider "nowhere"' in done.err
    done = home.run("config", "set", "agents.defaults.model", "vllm/x")
    assert (done.status, done.err) == (0, "")


def test_value_with_missing_variable_is_not_validated(home: Home) -> None:
    assert home.run("config", "set", "state.url", "${DATABASE_URL}").status == 0
    assert "state.url" in home.run("config", "set", "gateway.port", "1", DATABASE_URL="mysql://h/x").err


def test_set_creates_missing_file_and_unset_does_not(tmp_path: Path) -> None:
    home = Home(tmp_path, {})
    assert home.run("config", "unset", "gateway.port").status == 1
    assert not home.config_path.parent.exists()
    assert home.run("config", "set", "gateway.port", "1").status == 0
    assert home.config_path.read_text() == "{\n  gateway: { port: 1 },\n}\n"
    assert home.config_path.stat().st_mode & 0o777 == 0o600


def test_symbolic_link_keeps_pointing_to_file(home: Home, tmp_path: Path) -> None:
    target = tmp_path / "dotfiles" / "openclaw.json"
    target.parent.mkdir()
    home.config_path.rename(target)
    home.config_path.symlink_to(target)
    assert home.run("config", "set", "gateway.port", "1").status == 0
    assert home.config_path.is_symlink()
    assert "port: 1" in target.read_text()


def test_concurrent_edits_lose_nothing(home: Home) -> None:
    command = [sys.executable, "-m", "service", "config", "set"]
    writers = [
        subprocess.Popen([*command, f"agents.entries.agent{number}.name", f"x{number}"], env=home.environment())
        for number in range(4)
    ]
    assert [writer.wait(90) for writer in writers] == [0] * 4
    assert sorted(home.run("config", "get", "agents.entries").json) == [f"agent{number}" for number in range(4)]


def test_ineffective_tool_rules_are_noted_with_their_path(home: Home) -> None:
    result = home.run("config", "set", "tools.alsoAllow", "['exce']")
    note = 'Note: tools.alsoAllow: "exce" matches no tool of this gateway, ignored\n'
    assert (result.status, result.err) == (0, note)
    home.run("config", "set", "agents.list", "[{ id: 'a' }, { id: 'b' }]")
    result = home.run("config", "set", "agents.list[1].tools.profile", "coder")
    assert result.err.startswith('Note: agents.list[1].tools.profile: "coder" is not a profile')
    assert result.err.count("\n") == 1
    noticed = home.run("config", "validate", "--json", OPENAI_API_KEY="k")
    assert noticed.status == 0
    assert [notice.partition(":")[0] for notice in noticed.json["notices"]] == [
        "tools.alsoAllow",
        "agents.list[1].tools.profile",
    ]
    home.run("config", "unset", "agents.list")
    result = home.run("config", "set", "agents.entries", "{ b: { tools: { deny: ['web_fecth'] } } }")
    assert result.err.startswith('Note: agents.entries.b.tools.deny: "web_fecth" matches no tool')


def test_validate_matches_start_up_checks(home: Home) -> None:
    unset = home.run("config", "validate")
    assert unset.status == 1
    assert "OPENAI_API_KEY is not set" in unset.err
    fine = home.run("config", "validate", "--json", OPENAI_API_KEY="k")
    assert (fine.status, fine.json["valid"], fine.json["problems"]) == (0, True, [])
    home.write("{ gateway: { auth: { mode: 'none' }, bind: 'lan' }, channels: {} }")
    wrong = home.run("config", "validate", "--json")
    assert (wrong.status, wrong.json["valid"]) == (1, False)
    assert "everyone" in wrong.json["problems"][0]
    home.write("{ agents: { defaults: { model: 'nowhere/x' } }, state: { url: 'mysql://u:hidden@h/x' } }")
    wrong = home.run("config", "validate", "--json", OPENCLAW_GATEWAY_TOKEN="t")
    assert (wrong.status, wrong.json["valid"]) == (1, False)
    assert [problem.partition(":")[0] for problem in wrong.json["problems"]] == ["state.url", "agents.defaults.model"]
    assert "hidden" not in wrong.out + wrong.err
    home.write("{ agents: { defaults: { model: 'groq/x' } } }")
    noticed = home.run("config", "validate", "--json", OPENCLAW_GATEWAY_TOKEN="t")
    assert noticed.status == 0
    assert "GROQ_API_KEY" in noticed.json["notices"][0]
    home.write("{ gateway: { auth: { mode: 'none' } }, channels: {} }")
    noticed = home.run("config", "validate")
    assert (noticed.status, noticed.out) == (0, f"{home.config_path} is valid.\n")
    assert "channels" in noticed.err


def test_json_schema_accepts_what_gateway_accepts(tmp_path: Path) -> None:
    schema = Home(tmp_path, {}).run("config", "schema").json
    document = {
        "gateway": {"port": 1, "trustedProxies": ["10.0.0.0/8"], "auth": {"mode": "token", "token": "t"}},
        "agents": {"defaults": {"model": "a/b"}, "list": [{"id": "main", "model": {"primary": "a/b"}}]},
        "models": {"providers": {"a": {"baseUrl": "http://x/v1", "models": [{"id": "b", "maxTokens": 5}]}}},
    }
    parse_config(document)
    assert jsonschema_rs.is_valid(schema, document)
    for section, key, value in (("gateway", "port", "x"), ("gateway", "bind", "everywhere"), ("agents", "list", {})):
        assert not jsonschema_rs.is_valid(schema, {section: {key: value}})


def secret_keys_of(section: type[Section]) -> set[str]:
    found = set()
    for name, field in section.model_fields.items():
        if "SecretStr" in str(field.annotation) or not field.repr:
            found.add(field.alias or name)
    return found


def test_every_secret_of_configuration_is_masked() -> None:
    sections: list[type[Section]] = [*Section.__subclasses__()]
    keys = {key for section in sections for key in secret_keys_of(section)}
    assert {"token", "password", "apiKey", "headers", "env"} <= keys
    sections_of_texts = {"headers": {"a": "s3cret"}, "env": {"a": "s3cret"}, "url": "postgresql://me:s3cret@host/db"}
    for key in keys:
        assert "s3cret" not in str(mask_secrets({key: sections_of_texts.get(key, "s3cret")}))
    assert Config in sections


@pytest.mark.parametrize(
    "section",
    [
        {"mcp": {"servers": {"x": {"args": ["--api-key=s3cret"]}}}},
        {"mcp": {"servers": {"x": {"url": "https://host/mcp?key=s3cret"}}}},
        {"state": {"url": "postgresql://host/name?password=s3cret"}},
        {"state": {"url": "postgresql://me:s3cret@host/name"}},
    ],
)
def test_secrets_in_arguments_and_addresses_are_masked(section: dict[str, object]) -> None:
    shown = str(mask_secrets(section))
    assert "s3cret" not in shown
    assert MASK in shown
