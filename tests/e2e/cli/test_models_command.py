"""Notes on models that the list of their provider lacks: `openclaw models list` and the start."""

from __future__ import annotations

from pathlib import Path

from support.chat import ask, text_of
from support.command import Home
from support.live import live_gateway, stubbed_config
from support.polling import until
from support.upstream import Exchange, Upstream

SECONDS = 30
NOTE = "Note: The provider's list of models does not have stub/ko. Did you mean stub/ok?"


def test_list_notes_models_that_provider_does_not_have(tmp_path: Path, upstream: Upstream) -> None:
    home = Home(tmp_path, {})
    home.write(stubbed_config(upstream.url, {"primary": "stub/ok", "fallbacks": ["stub/ko"]}))
    assert home.run("models", "list").err == ""  # the stub lists nothing
    upstream.models += ["ok", "other"]
    done = home.run("models", "list")
    assert (done.status, done.err) == (0, f"{NOTE}\n")
    assert "stub/ko" in done.out
    rows = {row["key"]: row for row in home.run("models", "list", "--json").json}
    assert rows["stub/ok"]["note"] is None
    assert f"Note: {rows['stub/ko']['note']}" == NOTE
    assert rows["stub/ko"]["available"]


def test_validation_contacts_no_provider(tmp_path: Path, upstream: Upstream) -> None:
    upstream.models.append("ok")
    home = Home(tmp_path, {})
    home.write(stubbed_config(upstream.url, "stub/ko"))
    done = home.run("config", "validate")
    assert (done.status, upstream.listings) == (0, [])
    assert "list of models" not in done.err


def test_start_logs_the_notes(tmp_path: Path, upstream: Upstream) -> None:
    upstream.models.append("ok")
    config = stubbed_config(upstream.url, {"primary": "stub/ok", "fallbacks": ["stub/ko"]})
    for arguments in ((), ("--workers", "2")):
        with live_gateway(tmp_path / f"home{len(arguments)}", config, arguments=arguments) as running:
            until(lambda: NOTE in running.output)
            assert running.stop() == 0
            assert running.output.count(NOTE) == 1


def test_list_that_does_not_arrive_delays_neither_start_nor_request_nor_stop(
    tmp_path: Path, upstream: Upstream
) -> None:
    def hang(exchange: Exchange) -> None:
        exchange.wait(SECONDS)

    upstream.listing = hang
    with live_gateway(tmp_path, stubbed_config(upstream.url)) as running, running.client() as client:
        until(lambda: upstream.listings)
        assert text_of(ask(client, "hi"))
        assert not upstream.aborted.is_set()  # the gateway still waits for the list
        assert running.stop() == 0
        assert "list of models" not in running.output
        assert "Traceback" not in running.output
