"""Configured models that the lists of their providers lack, against the stub of a provider."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from support.polling import until
from support.upstream import Exchange, Upstream

from service.config.roster import Roster
from service.config.schema import parse_config
from service.models.catalog import ModelCatalog

DIALECTS = ("openai-completions", "anthropic-messages")
LISTED = ("gpt-5", "gpt-5-mini", "claude-opus-4-1-20250805", "qwen3:latest", "models/gemini-3", "meta/llama-4")


def notes_of(tmp_path: Path, url: str, *models: str, api: str = "openai-completions") -> list[str]:
    """The notes on the models of a provider "stub", the first one of an agent."""
    provider = {"baseUrl": url, "api": api, "apiKey": "sk-hidden", "models": [{"id": model} for model in models]}
    config, _ = parse_config(
        {"agents": {"defaults": {"model": f"stub/{models[0]}"}}, "models": {"providers": {"stub": provider}}}
    )
    with closing(ModelCatalog(config, tmp_path)) as catalog:
        return [unlisted.to_text() for unlisted in catalog.find_unlisted_models(Roster.from_config(config).agents)]


@pytest.mark.parametrize("api", DIALECTS)
def test_missing_model_is_noted_with_nearest_name(tmp_path: Path, upstream: Upstream, api: str) -> None:
    upstream.models += LISTED
    notes = notes_of(tmp_path, upstream.url, "gtp-5-mini", "gpt-5", "GPT-5", "zzz", api=api)
    assert notes == [
        "The provider's list of models does not have stub/gtp-5-mini. Did you mean stub/gpt-5-mini?",
        "The provider's list of models does not have stub/GPT-5. Did you mean stub/gpt-5?",
        "The provider's list of models does not have stub/zzz. Check its name.",
    ]
    (listing,) = upstream.listings
    assert listing.path == "/v1/models"
    assert "sk-hidden" in (listing.headers.get("x-api-key") or listing.headers["authorization"])


@pytest.mark.parametrize(
    "model",
    ["claude-opus-4-1", "claude-opus-4-1-latest", "qwen3", "gemini-3", "models/gemini-3", "gpt-5:free", "gpt-5@preset"],
)
def test_other_names_of_listed_models_are_not_noted(tmp_path: Path, upstream: Upstream, model: str) -> None:
    upstream.models += LISTED
    assert notes_of(tmp_path, upstream.url, model) == []


def test_pattern_of_proxy_covers_its_models(tmp_path: Path, upstream: Upstream) -> None:
    upstream.models += ["openai/*", "groq/llama"]
    assert len(notes_of(tmp_path, upstream.url, "openai/gpt-5", "groq/lama")) == 1


@pytest.mark.parametrize(("api", "cursor"), list(zip(DIALECTS, ("after", "after_id"), strict=True)))
def test_list_is_read_to_its_last_page(tmp_path: Path, upstream: Upstream, api: str, cursor: str) -> None:
    def page(exchange: Exchange) -> None:
        _, _, query = exchange.path.partition("?")
        number = int(query.removeprefix(f"key=1&{cursor}=m%2F")) + 1 if "&" in query else 0
        entry = f"m/{number}"
        exchange.json(200, {"data": [{"id": entry}], "has_more": number < 3, "last_id": entry})

    upstream.listing = page
    assert len(notes_of(tmp_path, f"{upstream.url}?key=1", "m/0", "m/3", "n/4", api=api)) == 1
    assert len(upstream.listings) == 4


BAD_LISTS: dict[str, Callable[[Exchange], None]] = {
    "no list": lambda exchange: exchange.json(404, {"data": [{"id": "gpt-5"}]}),
    "refused": lambda exchange: exchange.json(401, {"error": {"message": "no"}}),
    "empty": lambda exchange: exchange.json(200, {"data": []}),
    "nothing": lambda exchange: exchange.json(200, None),
    "text": lambda exchange: exchange.json(200, "ok"),
    "null": lambda exchange: exchange.json(200, {"data": None}),
    "odd entry": lambda exchange: exchange.json(200, {"data": [{"id": "gpt-5"}, {"name": "x"}]}),
    "odd id": lambda exchange: exchange.json(200, {"data": [{"id": "gpt-5"}, {"id": 5}]}),
    "more, but from where": lambda exchange: exchange.json(200, {"data": [{"id": "gpt-5"}], "has_more": True}),
    "endless": lambda exchange: exchange.json(200, {"data": [{"id": "a"}], "has_more": True, "last_id": "a"}),
    "dropped": lambda exchange: exchange.drop(),
}


@pytest.mark.parametrize("kind", BAD_LISTS)
@pytest.mark.parametrize("api", DIALECTS)
def test_list_that_is_not_understood_is_no_note(tmp_path: Path, upstream: Upstream, kind: str, api: str) -> None:
    upstream.listing = BAD_LISTS[kind]
    assert notes_of(tmp_path, upstream.url, "other", api=api) == []
    assert upstream.listings


def test_bare_array_is_list(tmp_path: Path, upstream: Upstream) -> None:
    upstream.listing = lambda exchange: exchange.json(200, [{"id": "gpt-5"}])
    assert len(notes_of(tmp_path, upstream.url, "gpt-5", "gpt-6")) == 1


def test_late_list_is_not_waited_for(tmp_path: Path, upstream: Upstream) -> None:
    def drip(exchange: Exchange) -> None:
        exchange.head(content_type="application/json")
        while True:
            exchange.send(b" ")
            exchange.wait(0.5)

    upstream.listing = drip
    began = time.monotonic()
    assert notes_of(tmp_path, upstream.url, "other") == []
    assert time.monotonic() - began > 4.5
    until(upstream.aborted.is_set)


def test_unreachable_provider_and_unknown_ones_are_no_note(tmp_path: Path) -> None:
    config: Any = {"agents": {"defaults": {"model": {"primary": "stub/a", "fallbacks": ["nowhere/b", "local/c"]}}}}
    config["models"] = {"providers": {"stub": {"baseUrl": "http://127.0.0.1:9/v1"}, "odd": {"api": "x"}}}
    parsed, _ = parse_config(config)
    with closing(ModelCatalog(parsed, tmp_path)) as catalog:
        assert catalog.find_unlisted_models(Roster.from_config(parsed).agents) == []
