"""The gateway, which reports its live objects on SIGUSR2: `python observed.py FILE [anything] gateway ...`.

One line of JSON for each signal is added to the file. Garbage is collected first.
"""

from gevent import monkey

monkey.patch_all()

import gc  # noqa: E402  # what follows must already be patched
import json  # noqa: E402
import signal  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402

import gevent  # noqa: E402
from greenlet import greenlet  # noqa: E402

from service.__main__ import main  # noqa: E402


def tell(path: Path) -> None:
    """Add a line."""
    gc.unfreeze()  # objects frozen at the start are counted, too
    gc.collect()
    held = gc.get_objects()
    counts = {"greenlets": sum(isinstance(one, greenlet) and not one.dead for one in held), "objects": len(held)}
    with path.open("a") as file:
        file.write(json.dumps(counts) + "\n")


if __name__ == "__main__":
    gevent.signal_handler(signal.SIGUSR2, tell, Path(sys.argv[1]))
    sys.argv[1:] = sys.argv[sys.argv.index("gateway") :]
    main()
