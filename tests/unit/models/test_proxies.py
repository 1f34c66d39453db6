"""Proxies and private certificate authorities from the environment, over real sockets."""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from support.certificate import CERTIFICATE
from support.provider_calls import ask, fail, request
from support.tunnel import Tunnel
from support.upstream import Upstream
from support.upstream_answers import TEXT

from service.config.models import ProviderConfig
from service.core.errors import GatewayError
from service.core.messages import Sampling
from service.models.http import transport
from service.models.http.proxies import Proxy, ProxySettings
from service.models.openai.provider import OpenAIProvider

PROXY = {"HTTPS_PROXY": "http://secure.example:3128", "HTTP_PROXY": "plain.example"}


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    path = tmp_path / "certificate.pem"
    path.write_text(CERTIFICATE)
    return path


def port_of(upstream: Upstream) -> int:
    return int(upstream.url.removesuffix("/v1").rpartition(":")[2])


def open_provider(base_url: str, environ: dict[str, str], **fields: Any) -> OpenAIProvider:
    config = ProviderConfig.model_validate({"baseUrl": base_url, "timeoutSeconds": 5, **fields})
    return OpenAIProvider.from_config(config, ProxySettings.from_environment(environ))


# what the environment says


@pytest.mark.parametrize(
    ("environ", "url", "proxy"),
    [
        (PROXY, "https://api.example/v1", Proxy("secure.example", 3128)),
        (PROXY, "http://api.example/v1", Proxy("plain.example", 80)),
        ({**PROXY, "https_proxy": "http://lower.example:1"}, "https://api.example", Proxy("lower.example", 1)),
        ({"HTTPS_PROXY": "http://ann:p%40ss@p.example:9"}, "https://a.example", Proxy("p.example", 9, "ann", "p@ss")),
        ({"HTTP_PROXY": "http://p.example"}, "https://api.example", None),
        ({}, "https://api.example", None),
    ],
)
def test_proxy_is_chosen_by_scheme(environ: dict[str, str], url: str, proxy: Proxy | None) -> None:
    assert ProxySettings.from_environment(environ).proxy_for(url) == proxy


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1", "127.9.9.9", "[::1]", "x.localhost", "LOCALHOST", "localhost."]
)
def test_loopback_is_reached_without_proxy(host: str) -> None:
    assert ProxySettings.from_environment(PROXY).proxy_for(f"http://{host}:8000/v1") is None


@pytest.mark.parametrize(
    ("no_proxy", "url", "direct"),
    [
        ("*", "https://api.example", True),
        ("api.example", "https://api.example", True),
        ("API.example", "https://api.EXAMPLE", True),
        ("example", "https://api.example", True),
        (".example", "https://api.example", True),
        ("*.example", "https://api.example", True),
        ("pi.example", "https://api.example", False),
        ("other.test, api.example", "https://api.example/v1", True),
        ("api.example:443", "https://api.example", True),
        ("api.example:8443", "https://api.example", False),
        ("10.0.0.0/8", "http://10.1.2.3:8000", True),
        ("10.0.0.0/8", "http://11.1.2.3:8000", False),
        ("192.168.1.5", "http://192.168.1.5", True),
        ("fd00::/8", "http://[fd00::1]", True),
        ("", "https://api.example", False),
        (",.", "https://api.example", False),
    ],
)
def test_no_proxy_accepts_hosts_domains_and_networks(no_proxy: str, url: str, direct: bool) -> None:
    network = ProxySettings.from_environment({**PROXY, "NO_PROXY": no_proxy})
    assert (network.proxy_for(url) is None) is direct


@pytest.mark.parametrize("address", ["socks5://p.example", "https://p.example", "http://", "http://p.example:x"])
def test_unsupported_proxy_scheme_is_refused_by_variable_name(address: str) -> None:
    with pytest.raises(ValueError, match="HTTPS_PROXY must be"):
        ProxySettings.from_environment({"HTTPS_PROXY": address}).proxy_for("https://api.example")


def test_proxy_password_is_not_shown() -> None:
    network = ProxySettings.from_environment({"HTTPS_PROXY": "http://ann:secret@p.example"})
    assert "secret" not in f"{network!r} {network.proxy_for('https://api.example')!r}"


# what goes over


def test_http_request_to_proxy_has_absolute_address(upstream: Upstream) -> None:
    environ = {"HTTP_PROXY": f"http://ann:pass@127.0.0.1:{port_of(upstream)}"}
    provider = open_provider("http://models.example/v1", environ)
    assert ask(provider, "ok")[0] == TEXT
    received = upstream.requests[0]
    assert received.path == "http://models.example/v1/chat/completions"
    assert received.headers["host"] == "models.example"
    assert received.headers["proxy-authorization"] == "Basic YW5uOnBhc3M="
    provider.close()


def test_https_uses_tunnel_and_verifies_certificate(upstream: Upstream, certificate: Path) -> None:
    with Tunnel(port_of(upstream), certificate) as tunnel:
        environ = {"HTTPS_PROXY": f"http://ann:pass@{tunnel.address}", "SSL_CERT_FILE": str(certificate)}
        provider = open_provider("https://models.example/v1", environ, apiKey="sk-for-the-provider-alone")
        for _ in range(2):
            assert ask(provider, "ok")[0] == TEXT
        provider.close()
    assert len(tunnel.heads) == 1
    assert tunnel.heads[0].startswith("CONNECT models.example:443 HTTP/1.1\r\n")
    assert "Proxy-Authorization: Basic YW5uOnBhc3M=\r\n" in tunnel.heads[0]
    assert "sk-for-the-provider-alone" not in tunnel.heads[0]
    assert "proxy-authorization" not in upstream.requests[0].headers


@pytest.mark.parametrize("trust", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", ""])
def test_configured_private_authority_is_trusted(upstream: Upstream, certificate: Path, trust: str) -> None:
    with Tunnel(port_of(upstream), certificate) as tunnel:
        environ = {"HTTPS_PROXY": tunnel.address} | ({trust: str(certificate)} if trust else {})
        provider = open_provider("https://models.example/v1", environ)
        if trust:
            assert ask(provider, "ok")[0] == TEXT
        else:
            error = fail(provider, "ok")[1]
            assert error.code == "provider_unavailable"
            assert "certificate" in error.message
        provider.close()


def test_directory_of_authorities_is_searched(upstream: Upstream, certificate: Path, tmp_path: Path) -> None:
    authorities = tmp_path / "authorities"
    authorities.mkdir()
    (authorities / "ce275665.0").write_text(CERTIFICATE)
    with Tunnel(port_of(upstream), certificate) as tunnel:
        environ = {"HTTPS_PROXY": tunnel.address, "REQUESTS_CA_BUNDLE": os.fspath(authorities)}
        provider = open_provider("https://models.example/v1", environ)
        assert ask(provider, "ok")[0] == TEXT
        provider.close()


def test_refusing_proxy_is_named(upstream: Upstream, certificate: Path) -> None:
    with Tunnel(port_of(upstream), certificate, refusal="407 Proxy Authentication Required") as tunnel:
        provider = open_provider("https://models.example/v1", {"HTTPS_PROXY": f"http://ann:s3cret@{tunnel.address}"})
        error = fail(provider, "ok")[1]
        provider.close()
    assert error.code == "provider_unavailable"
    assert tunnel.address in error.message
    assert "407" in error.message
    assert "s3cret" not in error.message


def test_slow_proxy_response_times_out() -> None:
    def drip(listener: socket.socket) -> None:
        with suppress(OSError), listener.accept()[0] as connection:
            connection.sendall(b"HTTP/1.1 200 OK\r\n")
            for _ in range(30):
                connection.sendall(b"X: y\r\n")
                time.sleep(0.1)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=drip, args=(listener,))
        thread.start()
        network = ProxySettings.from_environment({"HTTPS_PROXY": f"http://127.0.0.1:{listener.getsockname()[1]}"})
        upstream = transport.Upstream("https://models.example/v1", network=network, connect_timeout_seconds=0.3)
        with pytest.raises(GatewayError, match=r"through the proxy .*: timed out") as raised:
            upstream.get("/models")
        assert raised.value.code == "provider_unavailable"
        thread.join()
        upstream.close()


def test_unreadable_certificates_are_refused_by_variable_name(tmp_path: Path) -> None:
    missing = str(tmp_path / "missing.pem")
    with pytest.raises(ValueError, match=r"missing\.pem"):
        open_provider("https://models.example/v1", {"SSL_CERT_FILE": missing})


@pytest.mark.parametrize(
    ("host", "names"),
    [
        ("api.openai.com", {"seed": 7, "max_completion_tokens": 9, "stream_options": {"include_usage": True}}),
        ("eu.api.openai.com", {"seed": 7, "max_completion_tokens": 9, "stream_options": {"include_usage": True}}),
        ("x.openai.azure.com", {"seed": 7, "max_completion_tokens": 9, "stream_options": {"include_usage": True}}),
        ("notapi.openai.com", {"seed": 7, "max_tokens": 9, "stream_options": {"include_usage": True}}),
        ("api.mistral.ai", {"random_seed": 7, "max_tokens": 9}),
        ("api.groq.com", {"seed": 7, "max_tokens": 9, "stream_options": {"include_usage": True}}),
    ],
)
def test_known_host_gets_its_field_names(upstream: Upstream, host: str, names: dict[str, Any]) -> None:
    provider = open_provider(f"http://{host}/v1", {"HTTP_PROXY": f"127.0.0.1:{port_of(upstream)}"})
    ask(provider, request("ok", sampling=Sampling(seed=7, max_tokens=9)))
    body = upstream.requests[0].body
    assert {name: body[name] for name in body.keys() - {"model", "messages", "stream"}} == names
    provider.close()
