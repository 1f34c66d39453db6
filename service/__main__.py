"""The program `openclaw`: makes the standard library cooperative before anything else is imported."""

import sys

from gevent import config, monkey


def main() -> None:
    """Run the command line."""
    config.track_greenlet_tree = False  # who spawned whom, with the stack of then: a tenth of what a request costs
    monkey.patch_all()
    from service.cli import openclaw  # noqa: PLC0415  # what it imports must already be patched

    sys.exit(openclaw(standalone_mode=True))


if __name__ == "__main__":
    main()
