"""The program `openclaw`."""

import sys

from service.cli import openclaw


def main() -> None:
    """Run the command line."""
    sys.exit(openclaw(prog_name="openclaw", standalone_mode=True))


if __name__ == "__main__":
    main()
