"""Kill the gateway at random moments: complete answers are stored exactly once, and no repair is needed."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path
from typing import Any

import httpx
from support.live import TOKEN, live_gateway, scripted_config
from support.polling import until

from chaos.clients import SESSIONS, Ledger, Talker, talking
from chaos.transcript import check_against, check_usage, connected, read_turns, runs_by_state

CLIENTS = 6
LONGEST_LIFE_SECONDS = 1.5


def config() -> dict[str, Any]:
    return scripted_config() | {"session": {}}


def test_finished_answers_are_stored_exactly_once(
    database_url: str | None, tmp_path: Path, chance: random.Random, *, is_long: bool
) -> None:
    ledger = Ledger()
    env = {"OPENCLAW_STATE_URL": database_url} if database_url else {}
    for _ in range(25 if is_long else 2):
        with live_gateway(tmp_path, config(), env=env) as gateway:
            with talking(ledger, lambda: gateway.url, CLIENTS, chance):
                until(lambda: ledger.answers)  # at least one answer before the first kill, however slow the machine
                time.sleep(chance.uniform(0, LONGEST_LIFE_SECONDS))
                with connected(database_url, gateway.state_dir) as connection:
                    read_turns(connection)  # only complete turns are visible at any time
                gateway.process.send_signal(signal.SIGKILL)
                gateway.process.wait()
            with connected(database_url, gateway.state_dir) as connection:
                check_against(ledger, read_turns(connection))
                check_usage(connection)
    _check_that_it_goes_on(database_url, tmp_path, ledger, env)


def _check_that_it_goes_on(database_url: str | None, directory: Path, ledger: Ledger, env: dict[str, str]) -> None:
    """After a restart every session continues at once and every question with a key gets its one answer."""
    with live_gateway(directory, config(), env=env) as gateway:
        talker = Talker(ledger, lambda: gateway.url, seed=0)
        with httpx.Client(headers={"Authorization": f"Bearer {TOKEN}"}, timeout=30) as client:
            while (question := ledger.take_unanswered()) is not None:
                talker.ask(client, question)
            for session in SESSIONS:
                began_at = time.monotonic()
                response = client.post(
                    f"{gateway.url}/v1/chat/completions",
                    json={"messages": [{"role": "user", "content": f"still there, {session}?"}]},
                    headers={"x-openclaw-session-key": session},
                )
                assert response.status_code == 200, response.text
                assert time.monotonic() - began_at < 10  # no wait for a dead gateway of the same host
        with connected(database_url, gateway.state_dir) as connection:
            check_against(ledger, read_turns(connection))
            check_usage(connection)
            states = runs_by_state(connection)
    assert states["running"] == states["accepted"] == 0
    assert set(states) <= {"ok", "interrupted", "aborted", "error"}
