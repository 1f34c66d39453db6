"""The configuration file: location, syntax, environment variables, command line flags."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from service.config.loading import create_dev_config, load_config, resolve_bind, resolve_port
from service.config.schema import Config, parse_config
from service.config.source import ConfigError, Locations, locate


@pytest.fixture
def locations(tmp_path: Path) -> Locations:
    return Locations(tmp_path / "openclaw.json", tmp_path, dev=False)


def load(locations: Locations, text: str, **environ: str) -> Config:
    locations.config_path.write_text(text, encoding="utf-8")
    return load_config(locations, environ).config


def refusal(locations: Locations, text: str, **environ: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(locations, text, **environ)
    assert str(caught.value).startswith(f"{locations.config_path} cannot be used")
    return str(caught.value)


@pytest.mark.parametrize(
    ("environ", "options", "config_path", "state_dir"),
    [
        ({"HOME": "/h"}, {}, "/h/.openclaw/openclaw.json", "/h/.openclaw"),
        ({"HOME": "/h"}, {"dev": True}, "/h/.openclaw-dev/openclaw.json", "/h/.openclaw-dev"),
        ({"HOME": "/h"}, {"profile": "work"}, "/h/.openclaw-work/openclaw.json", "/h/.openclaw-work"),
        ({"OPENCLAW_STATE_DIR": "/s"}, {}, "/s/openclaw.json", "/s"),
        ({"HOME": "/h", "OPENCLAW_CONFIG_PATH": "~/c.json"}, {}, "/h/c.json", "/h/.openclaw"),
        ({"OPENCLAW_STATE_DIR": "/s", "OPENCLAW_CONFIG_PATH": "/c.json"}, {"dev": True}, "/c.json", "/s"),
    ],
)
def test_file_and_state_directory_are_located(
    environ: dict[str, str], options: dict[str, Any], config_path: str, state_dir: str
) -> None:
    found = locate(environ, **options)
    assert found == Locations(Path(config_path), Path(state_dir), options.get("dev", False))


@pytest.mark.parametrize(
    ("environ", "options", "words"),
    [
        ({}, {}, "HOME is not set"),
        ({"HOME": "/h"}, {"profile": "../x"}, "--profile is"),
        ({"HOME": "/h"}, {"profile": "x", "dev": True}, "exclude each other"),
    ],
)
def test_conflicting_or_incomplete_location_is_refused(
    environ: dict[str, str], options: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        locate(environ, **options)


def test_file_is_json5(locations: Locations) -> None:
    config = load(locations, "\ufeff// a comment\n{gateway: {port: 0x10, bind: 'lan',},}")
    assert (config.gateway.port, config.gateway.bind) == (16, "lan")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{\n  gateway: {port 5}\n}", "line 2, column 18: this is not JSON5"),
        ("{\n  gateway: {", "line 2, column 12: the object, list, text or comment that begins here"),
        ("{}\n{}", "there is text after the end"),
        ("[" * 100, "nested too deeply"),
        (" ", "the file is empty"),
        ("[]", "must be an object"),
        ("{gateway: {port: 'x'}}", "gateway.port: must be a whole number"),
        ("{session: {x: '" + "x" * 5_000_000 + "'}}", "larger than 4 MiB"),
    ],
)
def test_invalid_file_is_refused_with_position(locations: Locations, text: str, words: str) -> None:
    assert words in refusal(locations, text)


def test_invalid_utf8_is_refused_with_its_line(locations: Locations) -> None:
    locations.config_path.write_bytes(b"{\n\xff}")
    with pytest.raises(ConfigError, match="line 2: invalid UTF-8"):
        load_config(locations, {})


def test_missing_file_is_refused_with_example(locations: Locations) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(locations, {})
    text = str(caught.value)
    assert str(locations.config_path) in text
    assert "--dev" in text
    config = load(locations, text[text.index("{") :])
    assert config.gateway.auth.mode == "token"
    assert config.gateway.http.endpoints.chat_completions.enabled


def test_directory_as_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="it cannot be read"):
        load_config(Locations(tmp_path, tmp_path, dev=False), {})


def test_pipe_as_file_is_refused_without_blocking(locations: Locations) -> None:
    os.mkfifo(locations.config_path)
    with pytest.raises(ConfigError, match="not a regular file"):
        load_config(locations, {})


def test_environment_reference_of_openclaw_is_replaced(locations: Locations) -> None:
    text = "{gateway: {auth: {token: {source: 'env', provider: 'default', id: 'MY_TOKEN'}}}}"
    token = load(locations, text, MY_TOKEN="t0ken").gateway.auth.token
    assert token is not None
    assert token.get_secret_value() == "t0ken"
    assert "gateway.auth.token: the environment variable MY_TOKEN is not set" in refusal(locations, text)
    elsewhere = text.replace("'env'", "'file'")
    assert "gateway.auth.token: is a reference to a secret outside" in refusal(locations, elsewhere, MY_TOKEN="t")


def test_variables_are_replaced_from_environment(locations: Locations) -> None:
    env = "{a: 'x${A}y${B_2}', c: '$${A}', d: '$${lower} $A {}'}"
    text = f"{{mcp: {{servers: {{one: {{command: '/bin/true', args: ['${{A}}'], env: {env}}}}}}}}}"
    server = load(locations, text, A="1", B_2="${A}").mcp.servers["one"]
    assert server.args == ("1",)
    assert server.env == {"a": "x1y${A}", "c": "${A}", "d": "${lower} $A {}"}


@pytest.mark.parametrize("name", ["lower", "Mixed", "WITH-HYPHEN", "A:-default", "1ST", "", " A "])
def test_invalid_variable_name_is_refused(locations: Locations, name: str) -> None:
    text = refusal(locations, f"{{state: {{url: 'secret ${{{name}}}'}}}}", lower="x", Mixed="x")
    assert "state.url: ${...} must contain the name of an environment variable" in text
    assert "$${...}" in text
    assert "secret" not in text


def test_missing_variables_are_refused_with_their_paths(locations: Locations) -> None:
    text = refusal(locations, "{gateway: {auth: {token: '${GONE}'}, trustedProxies: ['${EMPTY}']}}", EMPTY="")
    assert "gateway.auth.token: the environment variable GONE is not set" in text
    assert "gateway.trustedProxies[0]: the environment variable EMPTY is not set" in text


def test_variables_in_ignored_sections_may_be_unset(locations: Locations) -> None:
    locations.config_path.write_text("{channels: {x: '${GONE}'}}")
    assert load_config(locations, {}).notices == ("channels: ignored, as there are no messaging channels",)


def test_variable_that_is_not_utf8_is_refused(locations: Locations) -> None:
    assert "A is not UTF-8 text" in refusal(locations, "{session: {a: '${A}'}}", A="\udcff")


@pytest.mark.parametrize("token", ["plain", 'with "quotes" and \\', "${HOME} and $${HOME}", "grüße\u2028"])
def test_development_file_round_trip(tmp_path: Path, token: str) -> None:
    place = Locations(tmp_path / "a" / "openclaw.json", tmp_path / "b" / "c", dev=True)
    assert create_dev_config(place, token)
    loaded = load_config(place, {"HOME": "/h"})
    assert loaded.notices == ()
    gateway = loaded.config.gateway
    assert gateway.auth.token is not None
    assert (gateway.auth.mode, gateway.auth.token.get_secret_value()) == ("token", token)
    assert (gateway.port, gateway.http.endpoints.chat_completions.enabled) == (19001, True)


def test_development_file_is_private_and_leaves_no_temporary_file(tmp_path: Path) -> None:
    place = Locations(tmp_path / "a" / "openclaw.json", tmp_path / "a", dev=True)
    assert create_dev_config(place, "t")
    assert stat.S_IMODE(place.config_path.stat().st_mode) == 0o600
    assert stat.S_IMODE(place.state_dir.stat().st_mode) == 0o700
    assert list(place.state_dir.iterdir()) == [place.config_path]


def test_development_file_never_replaces_another(locations: Locations) -> None:
    locations.config_path.write_text("mine")
    assert not create_dev_config(locations, "t")
    assert locations.config_path.read_text() == "mine"
    dangling = Locations(locations.state_dir / "link", locations.state_dir, dev=True)
    dangling.config_path.symlink_to("nowhere")
    assert not create_dev_config(dangling, "t")
    assert sorted(path.name for path in locations.state_dir.iterdir()) == ["link", "openclaw.json"]


def test_unwritable_directory_is_refused(locations: Locations) -> None:
    locations.config_path.write_text("")
    inside = Locations(locations.config_path / "openclaw.json", locations.config_path, dev=True)
    with pytest.raises(ConfigError, match="it cannot be written"):
        create_dev_config(inside, "t")


def test_port_of_flag_environment_and_file_in_this_order() -> None:
    given, _ = parse_config({"gateway": {"port": 3}})
    silent = Config()
    environ = {"OPENCLAW_GATEWAY_PORT": "2"}
    assert resolve_port(1, environ, given, dev=True) == 1
    assert resolve_port(None, environ, given, dev=True) == 2
    assert resolve_port(None, {"OPENCLAW_GATEWAY_PORT": ""}, given, dev=True) == 3
    assert resolve_port(None, {}, silent, dev=False) == 18789
    assert resolve_port(None, {}, silent, dev=True) == 19001


@pytest.mark.parametrize("text", ["x", "-1", "65536", "1" * 5000, "²"])
def test_invalid_port_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="OPENCLAW_GATEWAY_PORT"):
        resolve_port(None, {"OPENCLAW_GATEWAY_PORT": text}, Config(), dev=False)
    with pytest.raises(ConfigError, match="--port"):
        resolve_port(70000, {}, Config(), dev=False)


def test_bind_of_flag_and_file_in_this_order() -> None:
    custom, _ = parse_config({"gateway": {"bind": "custom", "customBindHost": "::1"}})
    assert [resolve_bind(flag, Config()) for flag in (None, "auto", "lan")] == ["127.0.0.1", "127.0.0.1", "0.0.0.0"]
    assert [resolve_bind(flag, custom) for flag in (None, "loopback")] == ["::1", "127.0.0.1"]
    with pytest.raises(ConfigError, match=r"gateway\.customBindHost"):
        resolve_bind("custom", Config())
    with pytest.raises(ConfigError, match="one of loopback, lan, auto, custom"):
        resolve_bind("tailnet", Config())
