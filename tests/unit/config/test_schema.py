"""The configuration schema: defaults, keys, error messages."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.config.schema import parse_config
from service.config.source import ConfigError

SECRET = "hunter2-is-my-secret"

FULL: dict[str, Any] = {
    "gateway": {
        "mode": "local",
        "port": 4000,
        "bind": "custom",
        "customBindHost": "10.0.0.5",
        "auth": {"mode": "password", "password": SECRET, "rateLimit": {"maxAttempts": 3, "exemptLoopback": False}},
        "trustedProxies": ["10.0.0.1", "192.168.0.0/16"],
        "tls": {"enabled": False},
        "http": {"endpoints": {"chatCompletions": {"enabled": True, "images": {"maxBytes": 1e6}}}},
    },
    "agents": {
        "defaults": {"model": "openai/gpt-5", "timeoutSeconds": 30, "instructions": "Be brief."},
        "list": [{"id": "Ops", "default": True, "model": {"primary": "local/a/b", "fallbacks": ["openai/gpt-5"]}}],
    },
    "models": {
        "providers": {
            "local": {
                "baseUrl": "http://127.0.0.1:8080/v1/",
                "apiKey": SECRET,
                "headers": {"X-Team": "blue"},
                "models": [{"id": "a/b", "input": ["text", "image"], "cost": {"input": 1}}],
                "localService": {"command": "/usr/bin/server", "args": ["--port", "8080"]},
            }
        }
    },
    "tools": {"profile": "coding", "deny": ["shell"]},
    "session": {"maintenance": {"mode": "warn", "pruneAfter": "4w", "maxEntries": 500, "statelessAfter": "36h"}},
}


def problems_of(data: object) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        parse_config(data)
    return caught.value.problems


def provider(**keys: Any) -> dict[str, Any]:
    return {"models": {"providers": {"p": {"baseUrl": "http://h/v1"} | keys}}}


def proxied(
    header: str = "x-forwarded-user",
    trustedProxies: Any = ("127.0.0.1",),  # noqa: N803
    **keys: Any,
) -> dict[str, Any]:
    auth = {"mode": "trusted-proxy", "trustedProxy": {"userHeader": header, **keys}}
    return {"gateway": {"auth": auth, "trustedProxies": list(trustedProxies)}}


def test_empty_configuration_is_loopback_with_endpoint_off() -> None:
    config, notices = parse_config({})
    assert (config.gateway.port, config.gateway.bind, config.gateway.mode) == (18789, "loopback", "local")
    assert config.gateway.auth.mode is None
    assert not config.gateway.http.endpoints.chat_completions.enabled
    assert config.gateway.auth.rate_limit.model_dump() == {
        "max_attempts": 10,
        "window_ms": 60_000,
        "lockout_ms": 300_000,
        "exempt_loopback": True,
    }
    assert config.agents.defaults.timeout_seconds == 600
    assert notices == ()


def test_keys_reach_their_attributes() -> None:
    config, notices = parse_config(FULL)
    assert notices == ()
    assert config.gateway.trusted_proxies == (ip_network("10.0.0.1/32"), ip_network("192.168.0.0/16"))
    assert config.gateway.http.endpoints.chat_completions.images.max_bytes == 1_000_000
    assert config.gateway.auth.password is not None
    assert config.gateway.auth.password.get_secret_value() == SECRET
    local = config.models.providers["local"]
    assert local.base_url == "http://127.0.0.1:8080/v1"
    assert local.timeout_seconds == 120
    assert local.local_service is not None
    assert (local.local_service.ready_timeout_ms, local.local_service.idle_stop_ms) == (120_000, 0)
    assert config.agents.roster["ops"].model is not None
    assert config.session.maintenance.model_dump() == {
        "mode": "warn",
        "prune_after": 28 * 86_400,
        "max_entries": 500,
        "stateless_after": 36 * 3_600,
        "runs_after": 30 * 86_400,
    }


def test_named_sessions_are_kept_by_default() -> None:
    kept = parse_config({})[0].session.maintenance
    assert (kept.prune_after, kept.max_entries, kept.stateless_after) == (None, None, 7 * 86_400)
    never = {"pruneAfter": False, "maxEntries": False, "statelessAfter": False, "runsAfter": False}
    config, _ = parse_config({"session": {"maintenance": never}})
    assert config.session.maintenance.model_dump(exclude={"mode"}) == dict.fromkeys(
        ("prune_after", "max_entries", "stateless_after", "runs_after")
    )


def test_other_session_keys_of_openclaw_are_noticed() -> None:
    _, notices = parse_config({"session": {"dmScope": "main", "maintenance": {"maxDiskBytes": "1gb", "pruneDays": 3}}})
    assert [notice.partition(":")[0] for notice in notices] == [
        "session.dmScope",
        "session.maintenance.maxDiskBytes",
        "session.maintenance.pruneDays",
    ]


def test_representation_has_no_secrets() -> None:
    config, _ = parse_config(FULL)
    assert SECRET not in repr(config)
    assert SECRET not in str(config)


def test_list_and_entries_make_same_roster() -> None:
    listed, _ = parse_config({"agents": {"list": [{"id": "Main", "name": "M"}, {"id": "ops"}]}})
    entries, _ = parse_config({"agents": {"entries": {"Main": {"name": "M"}, "ops": {}}}})
    assert list(listed.agents.roster) == list(entries.agents.roster) == ["main", "ops"]
    assert listed.agents.roster["main"].name == entries.agents.roster["main"].name == "M"


@pytest.mark.parametrize(
    ("data", "path", "words"),
    [
        (
            {"gateway": {"http": {"endpoints": {"chatCompletion": {}}}}},
            "gateway.http.endpoints.chatCompletion",
            "chatC",
        ),
        ({"gateway": {"prot": 1}}, "gateway.prot", "`port`"),
        ({"mcpServers": {}}, "mcpServers", "`mcp.servers`"),
        ({"mcp": {"servers": {"a": {"command": "x", "timeout": 5}}}}, "mcp.servers.a.timeout", "`timeoutSeconds`"),
        (
            {"tools": {"allow": ["read"], "alsoAllow": ["exec"]}},
            "tools.alsoAllow",
            "keep one of the two lists",
        ),
        ({"gateway": {"trusted_proxies": []}}, "gateway.trusted_proxies", "`trustedProxies`"),
        ({"agents": {"list": [{"id": "a", "modle": "x/y"}]}}, "agents.list[0].modle", "`model`"),
        ({"agents": {"entries": {"a": {"workspce": "/x"}}}}, "agents.entries.a.workspce", "`workspace`"),
        (provider(models=[{"id": "m", "maxToken": 5}]), "models.providers.p.models[0].maxToken", "`maxTokens`"),
        (provider(localService={"command": "/x", "arg": []}), "models.providers.p.localService.arg", "`args`"),
        ({"gateway": {"port": 70000}}, "gateway.port", "at most 65535, not 70000"),
        ({"gateway": {"port": "18789"}}, "gateway.port", "a whole number, not a string"),
        ({"gateway": {"port": True}}, "gateway.port", "a whole number, not true or false"),
        ({"gateway": {"port": 1.5}}, "gateway.port", "a whole number"),
        ({"gateway": {"mode": "cloud"}}, "gateway.mode", '"local" or "remote", not "cloud"'),
        ({"gateway": {"bind": "tailnet"}}, "gateway.bind", 'not "tailnet"'),
        ({"gateway": {"bind": "custom"}}, "gateway.customBindHost", "is required"),
        ({"gateway": {"customBindHost": "my host"}}, "gateway.customBindHost", "an IP address"),
        ({"gateway": {"auth": {"mode": "trusted-proxy"}}}, "gateway.auth.trustedProxy", "is required"),
        (proxied(trustedProxies=[]), "gateway.trustedProxies", "is required"),
        (proxied(trustedProxies=["0.0.0.0/0"]), "gateway.trustedProxies", "too wide"),
        (proxied(trustedProxies=["::/0", "127.0.0.1"]), "gateway.trustedProxies", "too wide"),
        (proxied(trustedProxies=["10.0.0.1"]), "gateway.trustedProxies", "no loopback"),
        (proxied(allowLoopback=False), "gateway.trustedProxies", "allowLoopback forbids"),
        (proxied("authorization"), "gateway.auth.trustedProxy.userHeader", "the proxy alone"),
        (proxied("X-Forwarded-For"), "gateway.auth.trustedProxy.userHeader", "the proxy alone"),
        (proxied("x-openclaw-agent-id"), "gateway.auth.trustedProxy.userHeader", "the proxy alone"),
        (proxied("remote_user"), "gateway.auth.trustedProxy.userHeader", "underscores"),
        ({"gateway": {"tls": {"enabled": True}}}, "gateway.tls.enabled", "reverse proxy"),
        ({"gateway": {"trustedProxies": ["10.0.0.0/99"]}}, "gateway.trustedProxies[0]", "IP address or network"),
        ({"session": {"maintenance": {"pruneAfter": 30}}}, "session.maintenance.pruneAfter", 'such as "30d"'),
        ({"session": {"maintenance": {"runsAfter": "0d"}}}, "session.maintenance.runsAfter", 'such as "30d"'),
        ({"session": {"maintenance": {"maxEntries": 0}}}, "session.maintenance.maxEntries", "at least 1"),
        ({"session": {"maintenance": {"pruneAfer": "1d"}}}, "session.maintenance.pruneAfer", "`pruneAfter`"),
        ({"gateway": None}, "gateway", "an object in {braces}, not null"),
        ({"gateway": {"http": []}}, "gateway.http", "not a list"),
        ({"agents": {"defaults": {"model": "gpt-5"}}}, "agents.defaults.model", '"provider/model"'),
        ({"agents": {"defaults": {"model": "a b"}}}, "agents.defaults.model.primary", '"provider/model"'),
        ({"agents": {"list": [{"id": "a", "model": "gpt-5"}]}}, "agents.list[0].model", "alias"),
        ({"agents": {"defaults": {"params": {"temperature": 3}}}}, "agents.defaults.params.temperature", "at most 2"),
        ({"gateway": {"http": {"models": {" ": "openclaw"}}}}, 'gateway.http.models[" "]', "printable"),
        ({"agents": {"defaults": {"model": 5}}}, "agents.defaults.model", "an object"),
        ({"agents": {"defaults": {"timeoutSeconds": 0}}}, "agents.defaults.timeoutSeconds", "more than 0, not"),
        ({"agents": {"defaults": {"timeoutSeconds": float("inf")}}}, "agents.defaults.timeoutSeconds", "finite"),
        ({"agents": {"defaults": {"workspace": "~other/x"}}}, "agents.defaults.workspace", "a directory"),
        ({"agents": {"list": {}}}, "agents.list", "a list in [brackets], not an object"),
        ({"agents": {"list": [{}]}}, "agents.list[0].id", "is required"),
        ({"agents": {"list": [{"id": "-a"}]}}, "agents.list[0].id", "1 to 64"),
        ({"agents": {"list": [{"id": "a" * 65}]}}, "agents.list[0].id", "1 to 64"),
        ({"agents": {"list": [{"id": "Default"}]}}, "agents.list[0].id", "the default agent"),
        ({"agents": {"list": [{"id": "a"}, {"id": "A"}]}}, "agents.list", "repeated: a"),
        ({"agents": {"entries": {"a": {}, "A": {}}}}, "agents.entries", "repeated: a"),
        ({"agents": {"entries": {"a b": {}}}}, 'agents.entries["a b"]', "1 to 64"),
        ({"agents": {"list": [{"id": "a"}], "entries": {"b": {}}}}, "agents.entries", "one of the two"),
        ({"agents": {"entries": {"a": {"default": True}, "b": {"default": True}}}}, "agents.entries", "a, b"),
        (provider(baseUrl="ftp://h"), "models.providers.p.baseUrl", "http://"),
        (provider(baseUrl="http://h:port"), "models.providers.p.baseUrl", "http://"),
        (provider(apiKey=" "), "models.providers.p.apiKey", "is blank"),
        (provider(headers={"a b": "c"}), 'models.providers.p.headers["a b"]', "not a header name"),
        (provider(headers={"a": "c\n"}), "models.providers.p.headers.a", "printable"),
        (provider(models=[{"id": "m", "input": ["audio"]}]), "models.providers.p.models[0].input[0]", '"text" or'),
        (provider(localService={"command": "x"}), "models.providers.p.localService.command", "absolute"),
        ({"models": {"providers": {"a/b": {"api": "scripted"}}}}, 'models.providers["a/b"]', 'no "/"'),
        ([], "it must be an object", "braces"),
    ],
)
def test_problem_names_path_and_remedy(data: object, path: str, words: str) -> None:
    (problem,) = problems_of(data)
    assert problem.partition(": ")[0] == path if data else path in problem
    assert words in problem


def test_scripted_provider_needs_no_url() -> None:
    config, _ = parse_config({"models": {"providers": {"demo": {"api": "scripted"}}}})
    assert config.models.providers["demo"].base_url is None


def test_all_problems_are_reported_together() -> None:
    data = {
        "gateway": {"prot": 1, "bind": "custom", "auth": {"mode": "x"}},
        "models": {"providers": {"p": {"baseUrl": "ftp://h"}}},
        "agents": {"list": [{"id": "a"}, {"id": "a"}]},
    }
    paths = {problem.partition(":")[0] for problem in problems_of(data)}
    expected = {"gateway.prot", "gateway.customBindHost", "gateway.auth.mode", "models.providers.p.baseUrl"}
    assert paths == expected | {"agents.list"}


def test_openclaw_keys_without_effect_are_ignored_with_notice() -> None:
    data = {
        "channels": {"telegram": {"token": SECRET}},
        "plugins": [],
        "cron": {},
        "gateway": {"controlUi": {"basePath": "/ui"}},
        "agents": {"defaults": {"models": {"openai/gpt-5": {}}}, "list": [{"id": "a", "sandbox": {"prune": {}}}]},
    }
    config, notices = parse_config(data)
    assert list(config.agents.roster) == ["a"]
    assert [notice.partition(":")[0] for notice in notices] == [
        "channels",
        "plugins",
        "cron",
        "gateway.controlUi.basePath",
        "agents.list[0].sandbox.prune",
    ]
    assert SECRET not in " ".join(notices)


def test_error_text_has_no_secret() -> None:
    data = {
        "gateway": {"auth": {"token": [SECRET], "mode": SECRET * 3}},
        "models": {"providers": {"p": {"apiKey": SECRET + "\n", "baseUrl": f"ftp://{SECRET}@h", "headers": SECRET}}},
    }
    with pytest.raises(ConfigError) as caught:
        parse_config(data)
    text = str(caught.value)
    assert text.startswith("The configuration cannot be used. It has 5 problems:\n  - gateway.auth.mode: ")
    assert SECRET not in text
    assert "pydantic" not in text


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["gateway", "agents", "models", "list", "entries", "providers", "auth", "port", "id", "p"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=150)
@given(JSON)
def test_any_document_is_accepted_or_refused_readably(data: object) -> None:
    problems: tuple[str, ...] = ()
    try:
        parse_config(data)
    except ConfigError as error:
        problems = error.problems
    assert not [problem for problem in problems if "is not a value that can be used here" in problem]


@pytest.mark.parametrize(
    ("written", "host"),
    [
        ("Example.COM.", "example.com"),
        ("b\u00fccher.example", "xn--bcher-kva.example"),
        ("*.B\u00fccher.example", "*.xn--bcher-kva.example"),
        ("1.1.257", "1.1.1.1"),
        ("[2606:4700:4700:0::1111]", "2606:4700:4700::1111"),
        ("::1", "::1"),
        ("_tcp.example.com", "_tcp.example.com"),
    ],
)
def test_hosts_have_one_spelling(written: str, host: str) -> None:
    fetch = {"allowHosts": [written], "denyHosts": [written]}
    config, _ = parse_config({"tools": {"web": {"fetch": fetch}}})
    found = config.tools.web.fetch
    assert (found.allow_hosts, found.deny_hosts) == ((host,), (host,))


@pytest.mark.parametrize(
    "host",
    ["https://example.com", "example.com:443", "example.com/a", ".example.com", "*example.com", "a.*", "*", "", "a b"],
)
def test_host_that_would_match_nothing_is_refused(host: str) -> None:
    with pytest.raises(ConfigError, match=r"denyHosts.*must be a host without a port"):
        parse_config({"tools": {"web": {"fetch": {"denyHosts": [host]}}}})


@pytest.mark.parametrize(
    ("port", "metrics", "refused"),
    [
        (5000, {"enabled": True, "port": 5000}, True),
        (None, {"enabled": True, "port": 18789}, True),
        (5000, {"port": 5000}, False),
        (5000, {"enabled": True, "port": 5001}, False),
        (5000, {"enabled": True}, False),
        (0, {"enabled": True, "port": 5000}, False),
    ],
)
def test_metrics_cannot_have_the_port_of_the_gateway(port: int | None, metrics: object, refused: bool) -> None:
    data = {"gateway": {"http": {"endpoints": {"metrics": metrics}}} | ({} if port is None else {"port": port})}
    if not refused:
        parse_config(data)
        return
    [problem] = problems_of(data)
    assert problem.startswith("gateway.http.endpoints.metrics.port: ")
    assert "gateway.port" in problem
