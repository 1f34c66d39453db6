"""Streams whose tokens contain the time of sending: their delay, and disturbances."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import gevent
from geventhttpclient import HTTPClient
from harness import PATH, Server, client_of

_SENT = re.compile(rb'"content": ?"((?:[0-9.]+ )+)"')


@dataclass
class Followed:
    """Results of streams: seconds between the sending and the arrival of tokens, and the number of complete streams.

    `late_in_crowd` has the tokens sent after the last stream began and before the first one ended.
    """

    crowd_from: float = math.inf
    crowd_until: float = math.inf
    late_seconds: list[float] = field(default_factory=list)
    late_in_crowd: list[float] = field(default_factory=list)
    complete: int = 0
    problems: list[str] = field(default_factory=list)

    def add_tokens(self, piece: bytes) -> None:
        """Record the tokens in `piece` of a stream."""
        now = time.monotonic()
        for times in _SENT.findall(piece):
            sent = [float(at) for at in times.split()]
            self.late_seconds += [now - at for at in sent]
            self.late_in_crowd += [now - at for at in sent if self.crowd_from <= at < self.crowd_until]


def follow(client: HTTPClient, server: Server, tokens: int, pause_ms: int, followed: Followed) -> None:
    """Request one stream of `tokens` and read it to its end."""
    model = f"paced-{tokens}-{pause_ms}"
    last = b""
    try:
        response = client.post(PATH, server.body(model, stream=True), headers=server.headers(model))
        while piece := bytes(response.readline(b"\n\n")):
            followed.add_tokens(piece)
            last = piece
    except OSError as error:
        followed.problems.append(repr(error))
    if last == b"data: [DONE]\n\n":
        followed.complete += 1
    else:
        followed.problems.append(repr(last[:200]))


def run_streams(server: Server, count: int, tokens: int, pause_ms: int, ramp_seconds: float) -> Followed:
    """Run many streams at once, started one after another within `ramp_seconds`."""
    begun = time.monotonic()
    followed, client = Followed(begun + ramp_seconds, begun + tokens * pause_ms / 1000), client_of(server, count)

    def one(number: int) -> None:
        gevent.sleep(ramp_seconds * number / count)
        follow(client, server, tokens, pause_ms, followed)

    gevent.joinall([gevent.spawn(one, number) for number in range(count)], raise_error=True)
    client.close()
    return followed


@contextmanager
def disturbed_by(disturbance: Callable[[], object], every_seconds: float) -> Iterator[list[float]]:
    """Call `disturbance` repeatedly in the background; yield the seconds of each call."""
    took: list[float] = []

    def disturb() -> None:
        while True:
            begun = time.monotonic()
            disturbance()
            took.append(time.monotonic() - begun)
            gevent.sleep(max(0.0, every_seconds - took[-1]))

    greenlet = gevent.spawn(disturb)
    try:
        yield took
    finally:
        failed = greenlet.exception
        greenlet.kill()
    if failed is not None:
        raise failed


def percentile(values: list[float], share: float) -> float:
    """Return the quantile `share` of `values`."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(share * len(ranked)))]
