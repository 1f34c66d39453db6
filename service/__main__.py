"""The program `openclaw`: makes the standard library cooperative before anything else is imported."""

import sys

from gevent import monkey


def main() -> None:
    """Run the command line."""
    monkey.patch_all()
    from service.cli import openclaw  # noqa: PLC0415  # what it imports must already be patched

    sys.exit(openclaw(standalone_mode=True))


if __name__ == "__main__":
    main()
