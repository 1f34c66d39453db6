"""A provider behind TLS, in a gateway whose sockets are gevent's: answers larger than a TLS record, and slow ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from support.certificate import CERTIFICATE
from support.chat import ask, streamed_text, text_of
from support.live import live_gateway, stubbed_config
from support.tunnel import Tunnel
from support.upstream import Exchange, Upstream
from support.upstream_answers import TEXT

LARGE = "wort " * 100_000


def large(exchange: Exchange) -> None:
    exchange.head()
    exchange.event({"content": LARGE})
    exchange.end()


def slow(exchange: Exchange) -> None:
    exchange.head()
    exchange.words(pause_seconds=0.05)
    exchange.end()


@pytest.fixture
def tunnel(upstream: Upstream, tmp_path: Path) -> Iterator[Tunnel]:
    upstream.answers |= {"large": large, "slow": slow}
    certificate = tmp_path / "certificate.pem"
    certificate.write_text(CERTIFICATE)
    with Tunnel(int(httpx.URL(upstream.url).port or 0), certificate) as running:
        yield running


def test_answers_of_any_size_and_pace_arrive_whole(tunnel: Tunnel, tmp_path: Path) -> None:
    config = stubbed_config("https://models.example/v1", apiKey="sk-any")
    env = {"HTTPS_PROXY": f"http://{tunnel.address}", "SSL_CERT_FILE": str(tmp_path / "certificate.pem")}
    with live_gateway(tmp_path / "gateway", config, env=env) as gateway, gateway.client(timeout=30) as client:
        for model, text in (("large", LARGE), ("slow", TEXT), ("ok", TEXT)):
            headers = {"x-openclaw-model": f"stub/{model}"}
            assert text_of(ask(client, "hi", headers=headers)) == text
            assert streamed_text(ask(client, "hi", headers=headers, stream=True)) == text
    assert tunnel.heads
