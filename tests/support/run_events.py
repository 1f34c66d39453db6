"""Read event streams of runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import orjson

from support.conformance import Conformance, check_run_events


def parse_events(conformance: Conformance, data: bytes, after: int = 0) -> list[dict[str, Any]]:
    """Return the complete events of `data`, the beginning of a stream behind number `after`, checked."""
    whole, _, _ = data.rpartition(b"\n\n")
    return check_run_events(conformance, (whole + b"\n\n").decode(), after)


def text_of(events: list[dict[str, Any]]) -> str:
    text = ""
    for event in events:
        if event["type"] == "text.delta":
            text += event["text"]
        elif event["type"] == "text.retracted":
            text = text[: -event["characters"]]
    return text


def joined(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return events with neighbouring pieces of text joined, as the same run shows them however it was read."""
    found: list[dict[str, Any]] = []
    for event in events:
        if found and event["type"] == found[-1]["type"] == "text.delta":
            found[-1] = {**event, "text": found[-1]["text"] + event["text"]}
        else:
            found.append(event)
    return found


def follow(url: str, path: str, token: str, after: int = 0) -> Iterator[dict[str, Any]]:
    """Yield the events of a run as they come."""
    headers = {"Authorization": f"Bearer {token}", "Last-Event-ID": str(after)}
    with httpx.stream("GET", f"{url}{path}/events", headers=headers, timeout=60) as response:
        assert response.status_code == 200, response.read()
        for line in response.iter_lines():
            if line.startswith("data: "):
                yield orjson.loads(line.removeprefix("data: "))
