"""Making the standard library cooperative, for the commands that run agents: once, and before it is used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


def make_cooperative() -> None:
    """Let everything that waits in the standard library let others run; before anything that waits is imported."""
    from gevent import config, monkey  # noqa: PLC0415  # commands that run no agents do without all of gevent

    config.track_greenlet_tree = False  # who spawned whom, with the stack of then: a tenth of what a request costs
    with _plugins_found_once():
        monkey.patch_all()


@contextmanager
def _plugins_found_once() -> Iterator[None]:
    """Meanwhile look through what is installed once: gevent asks it for plug-ins with each module it patches."""
    from importlib import metadata  # noqa: PLC0415  # likewise

    look = metadata.entry_points
    metadata.entry_points = look().select  # the same question, asked of what was found
    try:
        yield
    finally:
        metadata.entry_points = look
