"""Cost of idle operators: memory per connection, CPU of the ticks, time to broadcast a run to all of them.

Run it from the top of the repository: `python tests/bench/idle_websockets.py [connections]`.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.live import live_gateway, scripted_config
from support.operator_client import operator_client
from support.raw_websocket import raw_operator

TICK_SECONDS = 35


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    with tempfile.TemporaryDirectory() as directory, live_gateway(Path(directory), scripted_config()) as running:
        process = psutil.Process(running.process.pid)
        with operator_client(running) as client:
            client.run("warm up", "first")
        before = process.memory_info().rss
        began = time.monotonic()
        sockets = [raw_operator(running) for _ in range(count)]
        print(f"{count} connections in {time.monotonic() - began:.1f} s")
        print(f"{(process.memory_info().rss - before) / count / 1024:.0f} KiB each, {before / 2**20:.0f} MiB without")
        used = sum(process.cpu_times()[:2])
        time.sleep(TICK_SECONDS)
        print(f"{sum(process.cpu_times()[:2]) - used:.2f} s of CPU in {TICK_SECONDS} s, one tick for each included")
        with operator_client(running) as client:
            began = time.monotonic()
            client.run("a broadcast run", "second")
            print(f"{(time.monotonic() - began) * 1000:.0f} ms to broadcast a run")
        for sock in sockets:
            sock.close()


if __name__ == "__main__":
    main()
