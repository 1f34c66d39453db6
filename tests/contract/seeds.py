"""Sessions, runs and approvals that exist for steered requests."""

from __future__ import annotations

import threading
import uuid
from contextlib import suppress
from functools import cached_property
from typing import Any
from urllib.parse import quote

import httpx
import orjson
from support.live import scripted_config
from support.polling import until

_PATH = "/v1/chat/completions"
_MESSAGES = [{"role": "user", "content": "Create this session."}]


def contract_config() -> dict[str, Any]:
    """A configuration with an agent, `asker`, whose every tool call has to be approved, and every endpoint."""
    config = scripted_config()
    config["gateway"]["http"]["endpoints"]["metrics"] = {"enabled": True}
    config["gateway"]["http"]["endpoints"]["tools"] = {"enabled": True}
    config["gateway"]["http"]["endpoints"]["embeddings"] = {"enabled": True}
    config["gateway"]["controlUi"] = {"enabled": True}
    config["embeddings"] = {"model": "scripted/echo"}
    never = 1_000_000_000  # so that every answer has the headers of limits
    limits = {"requestsPerMinute": never, "tokensPerMinute": never, "concurrentRuns": never}
    config["gateway"]["limits"] = {"total": limits}
    config["agents"]["list"].append({"id": "asker", "tools": {"approvals": {"*": "ask"}}})
    return config


class Seeds:
    """Create sessions, runs and approvals on the gateway at `url`, which has a `contract_config`.

    `sessions`, `runs` (which have ended) and `approvals` (which are pending) are created on first use and kept; a
    session to delete, a run to cancel and an approval to decide are created for each call.
    """

    def __init__(self, url: str, token: str) -> None:
        self._client = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=60)

    @cached_property
    def sessions(self) -> list[str]:
        return [key for key, _ in self._made]

    @cached_property
    def runs(self) -> list[str]:
        return [run_id for _, run_id in self._made]

    @cached_property
    def detached_runs(self) -> list[str]:
        """Runs whose events are stored; they have ended."""
        found = [self._client.post("/v1/runs", json={"input": f"seed {number}"}) for number in range(2)]
        ids = [started.raise_for_status().json()["id"] for started in found]
        for run_id in ids:
            self._client.get(f"/v1/runs/{run_id}/events").raise_for_status()  # to the end
        return ids

    @cached_property
    def responses(self) -> list[str]:
        """Responses of the background, whose events are stored; they have ended."""
        found = [
            self._client.post("/v1/responses", json={"input": f"seed {number}", "background": True, "stream": True})
            for number in range(2)
        ]
        return [_response_of(one) for one in found]

    @cached_property
    def items(self) -> list[str]:
        """Items of the output of `responses`."""
        found = [self._client.get(f"/v1/responses/{one}").raise_for_status().json() for one in self.responses]
        return [item["id"] for one in found for item in one["output"]]

    def make_response(self, *, lasts: bool = False) -> str:
        """Create a response, which `lasts` until it is cancelled or has ended, and return its id."""
        headers = {"x-openclaw-model": "scripted/stuck"} if lasts else {}
        body = {"input": f"doomed {uuid.uuid4()}", "background": lasts}
        found = self._client.post("/v1/responses", json=body, headers=headers).raise_for_status()
        response_id: str = found.json()["id"]
        return response_id

    def run_of(self, session: str) -> str:
        """Return the run of one of `sessions`."""
        return dict(self._made)[session]

    @cached_property
    def approvals(self) -> list[str]:
        return [self.make_approval()]

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

    def make_approval(self) -> str:
        """Start a run that waits for an approval, and return the approval's id."""
        session = uuid.uuid4().hex
        threading.Thread(target=self._call_tool, args=(session,), daemon=True).start()
        return str(until(lambda: self._approvals_of(f"agent:asker:{session}"))[0])

    def _approvals_of(self, session_key: str) -> list[str]:
        found = self._client.get("/v1/approvals", params={"limit": 100}).raise_for_status().json()["data"]
        return [one["id"] for one in found if one["session_key"] == session_key]

    def _call_tool(self, session: str) -> None:
        headers = {"x-openclaw-model": "scripted/tools", "x-openclaw-session-key": session}
        with suppress(httpx.HTTPError):  # nobody may decide
            self._client.post(_PATH, json={"model": "openclaw/asker", "messages": _MESSAGES}, headers=headers)

    @cached_property
    def _made(self) -> list[tuple[str, str]]:
        return [self._ask(name) for name in ("seed/one", "seed:two", "seed drei é")]

    def _ask(self, name: str) -> tuple[str, str]:
        headers = {"x-openclaw-session-key": quote(name)}
        answer = self._client.post(_PATH, json={"messages": _MESSAGES}, headers=headers).raise_for_status()
        return f"agent:main:{name}", answer.json()["id"]


def _response_of(answer: httpx.Response) -> str:
    first = next(line for line in answer.raise_for_status().text.splitlines() if line.startswith("data: {"))
    response_id: str = orjson.loads(first.removeprefix("data: "))["response"]["id"]
    return response_id
