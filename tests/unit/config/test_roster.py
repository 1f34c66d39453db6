"""The roster: resolution and settings of agents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from service.config.roster import Roster
from service.config.schema import parse_config
from service.core.errors import GatewayError
from service.core.messages import Sampling


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


def test_aliases_name_agents_and_are_offered() -> None:
    data = {"agents": {"entries": {"main": {}, "ops": {}}}, "gateway": {"http": {"models": {"GPT-4o": "openclaw/Ops"}}}}
    agents = Roster.from_config(parse_config(data)[0])
    assert agents.resolve(" gpt-4O", None).id == "ops"
    assert agents.resolve("gpt-4o", "main").id == "main"
    assert agents.model_ids()[-1] == "GPT-4o"
    assert refused(agents, "gpt-4").message.endswith("Agents: main, ops. Aliases: GPT-4o.")


@pytest.mark.parametrize(
    ("aliases", "faulty"),
    [
        ({"a": "openclaw", "b": "agent:main"}, []),
        ({"a": "main", "b": "openclaw/nobody", "c": "openai/gpt-5"}, ["a", "b", "c"]),
        ({"a": "b", "b": "openclaw"}, ["a"]),
        ({"a": "openclaw", "A": "openclaw"}, ["a", "A"]),
        ({"OpenClaw": "openclaw/main", "agent:x": "openclaw/main"}, ["OpenClaw", "agent:x"]),
    ],
)
def test_alias_names_one_agent_and_hides_none(aliases: dict[str, str], faulty: list[str]) -> None:
    config = parse_config({"gateway": {"http": {"models": aliases}}})[0]
    assert list(Roster.from_config(config).unusable_aliases()) == faulty


def test_models_can_be_named_by_alias() -> None:
    models = {"openai/gpt-5": {"alias": "Smart"}, "groq/fast-1": {"alias": "fast"}}
    own = {"model": "smart", "models": {"groq/fast-2": {"alias": "fast"}}}
    defaults = {
        "model": {"primary": "SMART", "fallbacks": ["fast"]},
        "models": models,
        "modelPolicy": {"allow": ["fast"]},
    }
    agents = roster(defaults=defaults, entries={"plain": {}, "own": own})
    plain, other = agents.agents
    assert (plain.model, plain.fallbacks, plain.to_ref("Fast")) == ("openai/gpt-5", ("groq/fast-1",), "groq/fast-1")
    assert (other.model, other.to_ref("fast"), other.to_ref("slow")) == ("openai/gpt-5", "groq/fast-2", "slow")
    assert plain.may_use("groq/fast-1")
    assert other.may_use("groq/fast-2")
    assert not other.may_use("groq/fast-1")


def test_later_layers_of_params_win_key_by_key() -> None:
    defaults = {
        "params": {"temperature": 0.1, "maxTokens": 100, "cacheRetention": "long"},
        "models": {"p/a": {"params": {"temperature": 0.2, "topP": 0.5}}},
        "thinkingDefault": "low",
    }
    own = {"models": {"p/a": {"params": {"topP": 0.6}}}, "params": {"maxTokens": 7, "textVerbosity": "low"}}
    agents = roster(defaults=defaults, entries={"plain": {}, "own": {**own, "thinkingDefault": "off"}})
    plain, other = agents.agents
    assert plain.sampling_of("p/b") == Sampling(temperature=0.1, max_tokens=100, extra={"reasoning_effort": "low"})
    extra = {"reasoning_effort": "none", "verbosity": "low"}
    assert other.sampling_of("p/a") == Sampling(temperature=0.2, top_p=0.6, max_tokens=7, extra=extra)
    assert roster(defaults={"thinkingDefault": "adaptive"}).default.sampling_of("p/a") is None


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
