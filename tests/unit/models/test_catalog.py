"""Resolution of model names: configured providers, known hosts, fallbacks, a local Ollama."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.provider_calls import ask, fail
from support.upstream import Upstream
from support.upstream_answers import TEXT

from service.config.models import SCRIPTED_API, ProviderConfig
from service.config.roster import Agent, Roster
from service.config.schema import Config, parse_config
from service.core.errors import GatewayError
from service.core.messages import Function, Sampling, ToolChoice, ToolChoiceMode
from service.models.anthropic.provider import AnthropicProvider
from service.models.catalog import EMBEDDED_REFERENCE, ModelCatalog
from service.models.dialects import DIALECTS
from service.models.http.proxies import ProxySettings
from service.models.known_hosts import KNOWN_HOSTS, config_of, ids_with_key
from service.models.openai.provider import OpenAIProvider
from service.models.provider import ModelRequest

KEY = "sk-of-the-environment"
ALL_KEYS = {host.variable: KEY for host in KNOWN_HOSTS.values()}

Open = Callable[..., ModelCatalog]


@pytest.fixture
def open_catalog(tmp_path: Path) -> Iterator[Open]:
    opened = []

    def open_one(providers: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None) -> ModelCatalog:
        catalog = ModelCatalog(config_with(providers or {}), tmp_path, environ or {})
        opened.append(catalog)
        return catalog

    yield open_one
    for catalog in opened:
        catalog.close()
        catalog.close()


def config_with(providers: Mapping[str, Any]) -> Config:
    return parse_config({"models": {"providers": providers}})[0]


def agent(model: Any = None) -> Agent:
    defaults = {} if model is None else {"model": model}
    return Roster.from_config(parse_config({"agents": {"defaults": defaults}})[0]).default


def refused(catalog: ModelCatalog, requested: str | None, of: Agent | None = None) -> GatewayError:
    with pytest.raises(GatewayError) as refusal:
        catalog.choose(requested, of or agent())
    return refusal.value


# dialects


def test_default_and_known_hosts_use_registered_dialects() -> None:
    default = ProviderConfig.model_fields["api"].default
    assert {default, SCRIPTED_API, *(host.api for host in KNOWN_HOSTS.values())} <= DIALECTS.keys()


@pytest.mark.parametrize(
    ("api", "path"), [("openai-completions", "/v1/chat/completions"), ("anthropic-messages", "/v1/messages")]
)
def test_configured_provider_uses_its_dialect(open_catalog: Open, upstream: Upstream, api: str, path: str) -> None:
    catalog = open_catalog({"stub": {"api": api, "baseUrl": upstream.url, "apiKey": KEY}})
    chosen = catalog.choose("stub/ok", agent())
    assert ask(chosen.provider, chosen.id)[0] == TEXT
    assert upstream.requests[0].path == path
    assert (chosen.ref, chosen.id, chosen.retried) == ("stub/ok", "ok", True)


def test_provider_is_opened_once(open_catalog: Open, upstream: Upstream) -> None:
    catalog = open_catalog({"stub": {"baseUrl": upstream.url}})
    assert catalog.choose("stub/ok", agent()).provider is catalog.choose("stub/other/model", agent()).provider


def test_scripted_models_are_not_retried(open_catalog: Open) -> None:
    assert not open_catalog({"scripted": {"api": "scripted"}}).choose("scripted/echo", agent()).retried


def test_model_entry_sets_input_types_and_limits(open_catalog: Open) -> None:
    models = [
        {"id": "eyes", "input": ["text", "image"], "maxTokens": 100, "contextWindow": 2000},
        {"id": "blind"},
    ]
    catalog = open_catalog({"stub": {"baseUrl": "http://127.0.0.1:9/v1", "models": models}})
    eyes, blind, unlisted = (catalog.choose(f"stub/{model}", agent()) for model in ("eyes", "blind", "other"))
    assert (eyes.takes_images, eyes.max_tokens, eyes.context_window) == (True, 100, 2000)
    assert (blind.takes_images, blind.max_tokens, blind.context_window) == (False, None, None)
    assert (unlisted.takes_images, unlisted.max_tokens, unlisted.context_window) == (True, None, None)


def test_models_that_are_not_listed_are_kept_some_of_them(open_catalog: Open) -> None:
    catalog = open_catalog({"stub": {"baseUrl": "http://127.0.0.1:9/v1", "models": [{"id": "eyes"}]}})
    first = [catalog.choose(f"stub/{number}", agent()) for number in range(300)]
    again = [catalog.choose(f"stub/{number}", agent()) for number in range(300)]
    assert again == first
    assert again[0] is first[0]
    assert again[-1] is not first[-1]


BOUNDS = [
    ("openai-completions", {}, ((200, 200), (None, None))),
    ("openai-completions", {"maxTokens": 100}, ((200, 100), (100, 100), (5, 5), (None, 100))),
    ("openai-completions", {"contextWindow": 300}, ((200, 150), (5, 5), (None, None))),
    ("openai-completions", {"maxTokens": 300, "contextWindow": 300}, ((200, 150), (5, 5), (None, 150))),
    ("anthropic-messages", {}, ((9000, 9000), (5, 5), (None, 8192))),
    ("anthropic-messages", {"maxTokens": 9000}, ((9001, 9000), (None, 9000))),
    ("anthropic-messages", {"contextWindow": 300}, ((None, 150),)),
]


@pytest.mark.parametrize(("api", "row", "bounds"), BOUNDS)
def test_max_tokens_of_request_is_limited_to_models_maximum(
    open_catalog: Open, api: str, row: dict[str, int], bounds: tuple[tuple[int | None, int | None], ...]
) -> None:
    provider = {"api": api, "baseUrl": "http://127.0.0.1:9/v1", "models": [{"id": "m", **row}]}
    chosen = open_catalog({"stub": provider}).choose("stub/m", agent())
    for asked, given in bounds:
        request = chosen.to_request(ModelRequest("?", "", (), sampling=Sampling(max_tokens=asked, seed=3)))
        assert (request.model, request.sampling) == ("m", Sampling(max_tokens=given, seed=3))


# hosts that need only a key


@pytest.mark.parametrize("provider_id", sorted(KNOWN_HOSTS))
def test_key_in_environment_enables_known_host(open_catalog: Open, provider_id: str) -> None:
    variable = KNOWN_HOSTS[provider_id].variable
    chosen = open_catalog({}, {variable: KEY}).choose(f"{provider_id}/some/model", agent())
    kind = AnthropicProvider if provider_id == "anthropic" else OpenAIProvider
    assert isinstance(chosen.provider, kind)
    assert (chosen.id, chosen.takes_images) == ("some/model", True)


@pytest.mark.parametrize(
    ("provider_id", "path", "header", "value"),
    [
        ("openai", "/v1/chat/completions", "authorization", f"Bearer {KEY}"),
        ("anthropic", "/v1/messages", "x-api-key", KEY),
        ("openrouter", "/api/v1/chat/completions", "authorization", f"Bearer {KEY}"),
        ("groq", "/openai/v1/chat/completions", "authorization", f"Bearer {KEY}"),
        ("gemini", "/v1beta/openai/chat/completions", "authorization", f"Bearer {KEY}"),
    ],
)
def test_known_host_uses_its_key_and_path(
    upstream: Upstream, provider_id: str, path: str, header: str, value: str
) -> None:
    config = config_of(provider_id, ALL_KEYS)
    assert config is not None
    local = config.model_copy(
        update={"base_url": str(config.base_url).replace(host_of(config.base_url), upstream.url[:-3])}
    )
    provider = DIALECTS[local.api].open(local, ProxySettings())
    ask(provider, "ok")
    assert upstream.requests[0].path == path
    assert upstream.requests[0].headers[header] == value
    provider.close()


def host_of(url: str | None) -> str:
    return "/".join(str(url).split("/")[:3])


def test_key_alone_does_not_change_default_model(open_catalog: Open) -> None:
    catalog = open_catalog({}, ALL_KEYS)
    assert catalog.describe(agent()).startswith(EMBEDDED_REFERENCE)


@pytest.mark.parametrize("environ", [{}, {"GROQ_API_KEY": " "}])
def test_known_host_without_key_names_variable(open_catalog: Open, environ: dict[str, str]) -> None:
    error = refused(open_catalog({}, environ), "groq/llama")
    assert (error.code, error.param) == ("model_not_found", "x-openclaw-model")
    assert "GROQ_API_KEY" in error.message


def test_key_invalid_in_header_is_refused_without_its_value(open_catalog: Open) -> None:
    error = refused(open_catalog({}, {"GROQ_API_KEY": "gsk\x00-hidden"}), "groq/llama")
    assert error.code == "provider_unavailable"
    assert "GROQ_API_KEY" in error.message
    assert "hidden" not in error.message


def test_whitespace_around_key_is_ignored() -> None:
    config = config_of("groq", {"GROQ_API_KEY": f" {KEY}\n"})
    assert config is not None
    assert config.api_key is not None
    assert config.api_key.get_secret_value() == KEY


def test_configured_provider_overrides_known_host(open_catalog: Open, upstream: Upstream) -> None:
    catalog = open_catalog({"openai": {"baseUrl": upstream.url, "apiKey": "its-own-key"}}, ALL_KEYS)
    chosen = catalog.choose("openai/ok", agent())
    assert ask(chosen.provider, chosen.id)[0] == TEXT
    assert upstream.requests[0].headers["authorization"] == "Bearer its-own-key"


@pytest.mark.parametrize("ref", ["nowhere/model", "stub/", "local/other"])
def test_unknown_model_is_refused_with_available_providers(open_catalog: Open, ref: str) -> None:
    catalog = open_catalog({"stub": {"baseUrl": "http://127.0.0.1:9/v1"}}, {"GROQ_API_KEY": KEY})
    error = refused(catalog, ref)
    assert error.code == "model_not_found"
    assert f"Available: stub, groq, ollama, {EMBEDDED_REFERENCE}." in error.message
    assert refused(catalog, None, agent("nowhere/model")).param == "model"


def test_provider_name_in_wrong_case_is_suggested(open_catalog: Open) -> None:
    catalog = open_catalog({"oA": {"baseUrl": "http://127.0.0.1:9/v1"}, "odd": {"api": "openai-responses"}})
    assert "configured for the model OA/m1. Did you mean oA/m1? Available: oA" in refused(catalog, "OA/m1").message
    assert refused(catalog, "odd/m").message.endswith("Use one of openai-completions, anthropic-messages.")


def test_hosts_with_key_are_listed_by_id() -> None:
    assert ids_with_key({"GEMINI_API_KEY": KEY, "GROQ_API_KEY": ""}) == ("google", "gemini")


def test_invalid_proxy_is_reported_on_first_use(open_catalog: Open) -> None:
    catalog = open_catalog({}, {"OPENAI_API_KEY": KEY, "HTTPS_PROXY": "socks5://proxy.example"})
    error = refused(catalog, "openai/gpt")
    assert error.code == "provider_unavailable"
    assert "HTTPS_PROXY must be" in error.message


# Ollama


@pytest.mark.parametrize(
    ("told", "url"),
    [
        ("", "http://127.0.0.1:11434/v1"),
        ("0.0.0.0", "http://127.0.0.1:11434/v1"),
        (":8000", "http://127.0.0.1:8000/v1"),
        ("gpu.example", "http://gpu.example:11434/v1"),
        ("gpu.example:80", "http://gpu.example:80/v1"),
        ("https://gpu.example", "https://gpu.example/v1"),
        ("http://gpu.example:11434/", "http://gpu.example:11434/v1"),
        ("[::1]:9", "http://[::1]:9/v1"),
        ("[::]", "http://127.0.0.1:11434/v1"),
    ],
)
def test_ollama_address_is_read_from_its_variable(told: str, url: str) -> None:
    config = config_of("ollama", {"OLLAMA_HOST": told})
    assert config is not None
    assert config.base_url == url


def test_running_ollama_is_used_on_request(open_catalog: Open, upstream: Upstream) -> None:
    address = upstream.url.removeprefix("http://").removesuffix("/v1")
    chosen = open_catalog({}, {"OLLAMA_HOST": address}).choose("ollama/ok", agent())
    assert ask(chosen.provider, chosen.id)[0] == TEXT
    assert upstream.requests[0].path == "/v1/chat/completions"
    assert "authorization" not in upstream.requests[0].headers


def test_stopped_ollama_is_unavailable(open_catalog: Open) -> None:
    chosen = open_catalog({}, {"OLLAMA_HOST": "127.0.0.1:9"}).choose("ollama/ok", agent())
    error = fail(chosen.provider, chosen.id)[1]
    assert error.code == "provider_unavailable"
    assert "127.0.0.1:9" in error.message


def test_invalid_ollama_address_is_refused_by_variable_name(open_catalog: Open) -> None:
    error = refused(open_catalog({}, {"OLLAMA_HOST": "ftp://gpu.example"}), "ollama/ok")
    assert error.code == "provider_unavailable"
    assert "OLLAMA_HOST must be" in error.message


# fallbacks


STUB = {"stub": {"baseUrl": "http://127.0.0.1:9/v1"}}


def test_fallbacks_follow_agents_model_without_duplicates(open_catalog: Open) -> None:
    of = agent({"primary": "stub/a", "fallbacks": ["stub/b", "stub/a", "ollama/c"]})
    choices = open_catalog(STUB).choices(None, of)
    assert [choice.ref for choice in choices] == ["stub/a", "stub/b", "ollama/c"]


def test_model_outside_agents_policy_is_refused(open_catalog: Open) -> None:
    catalog = open_catalog({"scripted": {"api": "scripted"}})
    limited = replace(agent("scripted/echo"), allowed_models=("other/*",))
    assert catalog.choose(None, limited).ref == catalog.choose("scripted/echo", limited).ref == "scripted/echo"
    error = refused(catalog, "scripted/words", limited)
    assert (error.code, error.param) == ("model_not_found", "x-openclaw-model")
    assert "(modelPolicy, agents.defaults.models, models.mode)" in error.message


def test_model_without_tool_support_gets_no_tools(open_catalog: Open) -> None:
    models = [{"id": "plain", "compat": {"supportsTools": False}}, {"id": "able"}]
    catalog = open_catalog({"stub": {"baseUrl": "http://127.0.0.1:9/v1", "models": models}})
    plain, able = (catalog.choose(f"stub/{name}", agent()) for name in ("plain", "able"))
    assert (plain.calls_functions, able.calls_functions) == (False, True)
    function = Function("read")
    request = ModelRequest("stub/plain", "", (), (function,), ToolChoice(ToolChoiceMode.NONE))
    assert able.to_request(request).functions == (function,)
    assert plain.to_request(request).functions == ()
    assert plain.to_request(request).tool_choice == ToolChoice()


def test_model_named_by_caller_has_no_fallback(open_catalog: Open) -> None:
    of = agent({"primary": "stub/a", "fallbacks": ["stub/b"]})
    assert [choice.ref for choice in open_catalog(STUB).choices("stub/z", of)] == ["stub/z"]


@pytest.mark.parametrize(
    ("primary", "fallback"), [("nowhere/a", "stub/b"), ("stub/b", "nowhere/a"), ("groq/a", "stub/b")]
)
def test_unusable_model_is_skipped_and_logged(
    open_catalog: Open, caplog: pytest.LogCaptureFixture, primary: str, fallback: str
) -> None:
    of = agent({"primary": primary, "fallbacks": [fallback]})
    with caplog.at_level(logging.WARNING):
        choices = open_catalog(STUB).choices(None, of)
    assert [choice.ref for choice in choices] == ["stub/b"]
    assert [record.args for record in caplog.records] == [
        ("main", next(iter({primary, fallback} - {"stub/b"})), "model_not_found")
    ]


def test_first_problem_is_raised_without_usable_model(open_catalog: Open) -> None:
    with pytest.raises(GatewayError, match="nowhere/a"):
        open_catalog(STUB).choices(None, agent({"primary": "nowhere/a", "fallbacks": ["elsewhere/b"]}))
