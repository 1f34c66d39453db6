"""A local model server as a program: the stub upstream on a given port.

It prints its process id. Standard input is not watched, SIGTERM can be ignored, and it can start a child in a separate
session that does the same: ending them is left to the caller.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # run as a program, it is not found otherwise

from support.upstream import Upstream


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("--delay", type=float, default=0.0, help="seconds before it listens")
    parser.add_argument("--fail", action="store_true", help="print a complaint and exit with status 3")
    parser.add_argument("--stubborn", action="store_true", help="ignore SIGTERM")
    parser.add_argument("--child", action="store_true", help="start a stubborn child that only waits")
    options = parser.parse_args()
    if options.stubborn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if options.fail:
        print("\x1b[31mno such model\x1b[0m\n")
        sys.exit(3)
    print(f"pid {os.getpid()}", flush=True)
    if options.child:
        ignore = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
        child = subprocess.Popen([sys.executable, "-c", ignore], start_new_session=True)
        print(f"pid {child.pid}", flush=True)
    time.sleep(options.delay)
    with Upstream(options.port):
        time.sleep(600)


if __name__ == "__main__":
    main()
