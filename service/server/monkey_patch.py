"""Patching of the standard library by gevent, for the commands that run agents."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


def make_cooperative() -> None:
    """Make the blocking functions of the standard library cooperative; call it before they are imported."""
    from gevent import config, monkey  # noqa: PLC0415  # commands that run no agents do not import gevent

    config.track_greenlet_tree = False  # recording each spawner and its stack takes a tenth of a request's time
    with _entry_points_cached():
        monkey.patch_all()


@contextmanager
def _entry_points_cached() -> Iterator[None]:
    """Scan the installed packages once: gevent searches them for plug-ins with each module it patches."""
    from importlib import metadata  # noqa: PLC0415  # as above

    entry_points = metadata.entry_points
    metadata.entry_points = entry_points().select
    try:
        yield
    finally:
        metadata.entry_points = entry_points
