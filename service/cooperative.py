"""Making the standard library cooperative, for the commands that run agents: once, and before it is used."""

from __future__ import annotations


def make_cooperative() -> None:
    """Let everything that waits in the standard library let others run; before anything that waits is imported."""
    from gevent import config, monkey  # noqa: PLC0415  # commands that run no agents do without all of gevent

    config.track_greenlet_tree = False  # who spawned whom, with the stack of then: a tenth of what a request costs
    monkey.patch_all()
