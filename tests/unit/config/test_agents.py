"""The roster: resolution and settings of agents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from service.config.agents import Roster
from service.config.schema import parse_config
from service.core.errors import GatewayError


def roster(**agents: Any) -> Roster:
    return Roster.from_config(parse_config({"agents": agents})[0])


def refused(agents: Roster, model: str | None, agent_id: str | None = None) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        agents.resolve(model, agent_id)
    return caught.value


def test_roster_without_agents_is_main() -> None:
    (main,) = roster().agents
    assert (main.id, main.name, main.instructions, main.model) == ("main", "main", "", None)
    assert (main.fallbacks, main.workspace, main.timeout_seconds) == ((), None, 600)
    assert roster().default == main


@pytest.mark.parametrize(
    ("entries", "default"),
    [
        ({"a": {}, "main": {}, "b": {"default": True}}, "b"),
        ({"a": {}, "Main": {}}, "main"),
        ({"b": {}, "a": {}}, "b"),
    ],
)
def test_default_agent_is_marked_one_else_main_else_first(entries: dict[str, Any], default: str) -> None:
    assert roster(entries=entries).default.id == default
    as_list = [{"id": agent_id} | entry for agent_id, entry in entries.items()]
    assert roster(list=as_list).default.id == default


@pytest.mark.parametrize(
    ("model", "agent_id", "expected"),
    [
        (None, None, "main"),
        ("openclaw", None, "main"),
        ("  OpenClaw ", None, "main"),
        ("openclaw/default", None, "main"),
        ("openclaw/ops", None, "ops"),
        ("OPENCLAW/OPS\t", None, "ops"),
        ("openclaw:Ops", None, "ops"),
        ("agent:ops", None, "ops"),
        ("openclaw/main", "ops", "ops"),
        ("gpt-4o", " OPS ", "ops"),
        ("gpt-4o", "default", "main"),
        ("agent:ops", "", "ops"),
        (None, "ops", "ops"),
    ],
)
def test_agent_is_chosen_by_header_or_model(model: str | None, agent_id: str | None, expected: str) -> None:
    assert roster(entries={"main": {}, "Ops": {}}).resolve(model, agent_id).id == expected


@pytest.mark.parametrize(
    ("model", "agent_id", "param"),
    [
        ("gpt-4o", None, "model"),
        ("", None, "model"),
        ("openclaw/", None, "model"),
        ("openclaw/nobody", None, "model"),
        ("openclaw/ops/x", None, "model"),
        ("openclawops", None, "model"),
        ("ops", None, "model"),
        ("openclaw/ops", "nobody", "x-openclaw-agent-id"),
    ],
)
def test_unknown_agent_is_refused_with_known_ones(model: str, agent_id: str | None, param: str) -> None:
    error = refused(roster(entries={"main": {}, "Ops": {}}), model, agent_id)
    assert (error.code, error.status, error.param) == ("model_not_found", 404, param)
    assert "`openclaw/<agent id>`" in error.message
    assert error.message.endswith("Agents: main, ops.")


def test_refusal_of_long_name_is_short() -> None:
    many = roster(entries={f"a{number}": {} for number in range(500)})
    error = refused(many, "x" * 10_000)
    assert len(error.message) < 500
    assert error.message.endswith("a19 and 480 more.")


def test_all_offered_models_resolve() -> None:
    agents = roster(list=[{"id": "Ops"}, {"id": "dev"}])
    assert agents.model_ids() == ["openclaw", "openclaw/default", "openclaw/ops", "openclaw/dev"]
    assert [agents.resolve(model, None).id for model in agents.model_ids()] == ["ops", "ops", "ops", "dev"]


def test_agent_inherits_defaults() -> None:
    defaults = {
        "model": {"primary": "openai/a", "fallbacks": ["openai/b"]},
        "workspace": "/srv",
        "instructions": "Be brief.",
        "timeoutSeconds": 5,
    }
    own = {"model": "local/c", "workspace": "~/w", "instructions": "", "name": "Own"}
    agents = roster(defaults=defaults, entries={"plain": {}, "own": own})
    plain = agents.resolve("openclaw/plain", None)
    assert (plain.model, plain.fallbacks, plain.workspace) == ("openai/a", ("openai/b",), Path("/srv"))
    assert (plain.instructions, plain.timeout_seconds) == ("Be brief.", 5)
    other = agents.resolve("openclaw/own", None)
    assert (other.model, other.fallbacks, other.workspace) == ("local/c", (), Path.home() / "w")
    assert (other.name, other.instructions) == ("Own", "")


def test_identity_opens_instructions() -> None:
    identity = {"name": "Clawd", "theme": "a helpful lobster", "emoji": "🦞"}
    agents = roster(entries={"a": {"identity": identity, "instructions": "Be brief.\n"}, "b": {"identity": identity}})
    first, second = agents.agents
    lines = "You are Clawd.\nYour character: a helpful lobster.\nYour emoji: 🦞"
    assert first.instructions == f"{lines}\n\nBe brief."
    assert second.instructions == lines
    assert first.name == "Clawd"
