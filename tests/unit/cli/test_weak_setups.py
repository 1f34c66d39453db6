"""Notes of set-ups that others could abuse."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

from service.api.auth import Credentials
from service.cli.shared.weak_setups import list_weak_setups
from service.config.gateway import GatewayConfig
from service.config.source import Locations

GENERATED = Credentials("token", secrets.token_urlsafe(32))


@pytest.fixture
def locations(tmp_path: Path) -> Locations:
    """A private directory with a configuration file and a state directory."""
    tmp_path.chmod(0o700)
    (tmp_path / "openclaw.json").write_text("{}")
    (tmp_path / "openclaw.json").chmod(0o600)
    (tmp_path / "state").mkdir(mode=0o700)
    return Locations(tmp_path / "openclaw.json", tmp_path / "state", dev=False)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "0.0.0.0"])
def test_generated_token_and_private_files_have_no_notes(locations: Locations, host: str) -> None:
    assert list_weak_setups(GENERATED, host, locations, GatewayConfig()) == ()


@pytest.mark.parametrize("credentials", [Credentials("token", "short"), Credentials("password", "correct horse")])
def test_secret_that_can_be_guessed_is_noted_beyond_loopback(locations: Locations, credentials: Credentials) -> None:
    assert list_weak_setups(credentials, "127.0.0.1", locations, GatewayConfig()) == ()
    (note,) = list_weak_setups(credentials, "0.0.0.0", locations, GatewayConfig())
    assert note.startswith(f"gateway.auth.{credentials.mode}: other machines can reach 0.0.0.0")


@pytest.mark.parametrize("mode", [0o660, 0o602])
def test_configuration_that_others_can_write_is_noted(locations: Locations, mode: int) -> None:
    locations.config_path.chmod(mode)
    (note,) = list_weak_setups(GENERATED, "127.0.0.1", locations, GatewayConfig())
    assert note.startswith(f"{locations.config_path}: other users can change it")


@pytest.mark.parametrize(
    ("mode", "directory_mode", "text", "noted"),
    [
        (0o644, 0o755, GENERATED.secret, True),
        (0o640, 0o755, GENERATED.secret, False),
        (0o644, 0o700, GENERATED.secret, False),
        (0o644, 0o755, "${OPENCLAW_GATEWAY_TOKEN}", False),
    ],
    ids=["readable", "own file", "own directory", "variable"],  # the secret differs in each of the parallel processes
)
def test_secret_that_others_can_read_is_noted(
    locations: Locations, mode: int, directory_mode: int, text: str, noted: bool
) -> None:
    locations.config_path.write_text(f"{{ gateway: {{ auth: {{ token: '{text}' }} }} }}")
    locations.config_path.chmod(mode)
    locations.config_path.parent.chmod(directory_mode)
    notes = list_weak_setups(GENERATED, "127.0.0.1", locations, GatewayConfig())
    assert [note.partition(": ")[2][:25] for note in notes] == ["other users can read it, "] * noted


def test_directories_that_others_can_write_are_noted_unless_they_are_sticky(locations: Locations) -> None:
    locations.state_dir.chmod(0o770)
    locations.config_path.parent.chmod(0o777)
    assert len(list_weak_setups(GENERATED, "127.0.0.1", locations, GatewayConfig())) == 2
    locations.config_path.parent.chmod(0o1777)
    (note,) = list_weak_setups(GENERATED, "127.0.0.1", locations, GatewayConfig())
    assert str(locations.state_dir) in note


def test_missing_files_have_no_notes(tmp_path: Path) -> None:
    absent = Locations(tmp_path / "absent" / "openclaw.json", tmp_path / "absent", dev=False)
    assert list_weak_setups(GENERATED, "0.0.0.0", absent, GatewayConfig()) == ()


def test_risks_of_users_named_by_a_proxy_are_noted(tmp_path: Path) -> None:
    locations = Locations(tmp_path / "a" / "b", tmp_path / "c", dev=False)
    proxy = {"userHeader": "x-forwarded-user"}
    auth = {"mode": "trusted-proxy", "trustedProxy": proxy, "token": "x"}
    gateway = GatewayConfig.model_validate({"auth": auth, "trustedProxies": ["127.0.0.1"]})
    notes = list_weak_setups(Credentials("trusted-proxy"), "0.0.0.0", locations, gateway)
    assert [note.partition(":")[0] for note in notes] == [
        "gateway.auth.trustedProxy.allowUsers",
        "gateway.trustedProxies",
        "gateway.auth.token",
    ]
    auth = {"mode": "trusted-proxy", "trustedProxy": {**proxy, "allowUsers": ["anna"]}}
    gateway = GatewayConfig.model_validate({"auth": auth, "bind": "lan", "trustedProxies": ["10.0.0.1"]})
    assert list_weak_setups(Credentials("trusted-proxy"), "0.0.0.0", locations, gateway) == ()
