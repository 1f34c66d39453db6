"""The gateway against the floor and its peers, measured in one run on one machine.

`python tests/bench/bench.py [--rounds 5] [--peer litellm] [--only throughput,latency] [--output DIRECTORY]` prints one
table and writes it, the figures of all rounds as JSON and a picture; `--growth` measures by the size of the database
(`growth.py`). The server that is measured has a core to itself;
the upstream and the callers share the others. CPU of the server per request is the main figure, because the
callers' own speed affects it least. Rounds of all servers are interleaved.
"""

from gevent import monkey

monkey.patch_all()

import argparse  # noqa: E402  # what follows must already be patched
import os  # noqa: E402
import resource  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from contextlib import ExitStack  # noqa: E402
from pathlib import Path  # noqa: E402

import growth  # noqa: E402
from harness import gateway, pin, program  # noqa: E402
from peers import PEERS  # noqa: E402
from results import Results  # noqa: E402
from rows import Bench  # noqa: E402

ROWS = (
    Bench.throughput,
    Bench.tokens_apart,
    Bench.latency,
    Bench.first_byte,
    Bench.conversation,
    Bench.slow_streams,
    Bench.mixed,
    Bench.sessions,
    Bench.resends,
    Bench.workers,
    Bench.write_lock,
    Bench.stored,
    Bench.start,
)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peer", action="append", choices=sorted(PEERS), default=[])
    parser.add_argument("--only", default="", help="names of rows, with commas between them")
    parser.add_argument("--streams", type=int, default=2000, help="slow streams at once")
    parser.add_argument("--growth", action="store_true", help="the cost by the number of sessions instead")
    parser.add_argument("--messages", type=int, default=20, help="of each session, with --growth")
    parser.add_argument("--output", type=Path, default=Path("bench-results"))
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    pin(os.getpid(), measured=False)
    if options.growth:
        growth.run(options.rounds, options.messages, options.output)
        return
    begun = time.monotonic()
    results = Results(lambda row: print(f"[{time.monotonic() - begun:3.0f} s] {row}", flush=True))
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        upstream = stack.enter_context(program("upstream", measured=False))
        servers = [stack.enter_context(program(name, str(upstream.port))) for name in ("floor", "fold")]
        servers += [stack.enter_context(PEERS[name](directory, upstream.port)) for name in options.peer]
        servers.append(stack.enter_context(gateway(directory / "gateway", upstream.port)))
        bench = Bench(upstream, servers, results, options.rounds, options.streams)
        for row in ROWS:
            if not options.only or row.__name__ in options.only.split(","):
                row(bench)
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "bench.json").write_bytes(results.to_json())
    (options.output / "bench.md").write_text(results.to_table() + "\n")
    results.draw(options.output / "bench.png")
    print(f"\n{results.to_table()}\n\nWritten to {options.output}, after {time.monotonic() - begun:.0f} s.")


if __name__ == "__main__":
    main()
