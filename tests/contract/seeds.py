"""Sessions and runs that exist for steered requests."""

from __future__ import annotations

import uuid
from functools import cached_property
from urllib.parse import quote

import httpx
import orjson

_PATH = "/v1/chat/completions"
_MESSAGES = [{"role": "user", "content": "Create this session."}]


class Seeds:
    """Create sessions and runs on the gateway at `url`.

    `sessions` and `runs` (which have ended) are created on first use and kept; a session to delete and a run to cancel
    are created for each call.
    """

    def __init__(self, url: str, token: str) -> None:
        self._client = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=60)

    @cached_property
    def sessions(self) -> list[str]:
        return [key for key, _ in self._made]

    @cached_property
    def runs(self) -> list[str]:
        return [run_id for _, run_id in self._made]

    def close(self) -> None:
        self._client.close()

    def make_session(self) -> str:
        """Create a session and return its key."""
        return self._ask(f"doomed {uuid.uuid4()}")[0]

    def make_run(self) -> str:
        """Start a run that lasts until it is cancelled, and return its id."""
        headers = {"x-openclaw-model": "scripted/stuck", "Idempotency-Key": str(uuid.uuid4())}
        body = {"messages": _MESSAGES, "stream": True}
        with self._client.stream("POST", _PATH, json=body, headers=headers) as response:
            first = next(line for line in response.iter_lines() if line.startswith("data: {"))
        run_id: str = orjson.loads(first.removeprefix("data: "))["id"]
        return run_id

    @cached_property
    def _made(self) -> list[tuple[str, str]]:
        return [self._ask(name) for name in ("seed/one", "seed:two", "seed drei é")]

    def _ask(self, name: str) -> tuple[str, str]:
        headers = {"x-openclaw-session-key": quote(name)}
        answer = self._client.post(_PATH, json={"messages": _MESSAGES}, headers=headers).raise_for_status()
        return f"agent:main:{name}", answer.json()["id"]
