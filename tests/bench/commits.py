"""Time that transactions hold SQLite's write lock, which all workers share: a model of more workers than cores.

`python tests/bench/commits.py [--seconds 5]`. One worker is loaded, and its metrics say how many transactions there
were, how many turns each stored, and how long it took. The lock is busy for their sum; as many workers as
`1 / share` would keep it busy all the time if each had a core of its own and no more turns shared a transaction.
"""

from gevent import monkey

monkey.patch_all()

import argparse  # noqa: E402  # what follows must already be patched
import re  # noqa: E402
import tempfile  # noqa: E402
from pathlib import Path  # noqa: E402

from harness import HEADERS, Server, client_of, gateway, load, program  # noqa: E402

CALLERS = (8, 64)
COMMITS = "openclaw_database_commit"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5)
    options = parser.parse_args()
    print("| callers | turns/s | turns in a transaction | ms of a transaction | lock busy | workers that fill it |")
    print("|---|---|---|---|---|---|")
    with (
        tempfile.TemporaryDirectory() as directory,
        program("upstream", measured=False) as upstream,
        gateway(Path(directory), upstream.port, metrics=True) as server,
    ):
        load(server, CALLERS[0], 1, stream=False)
        for callers in CALLERS:
            before = read(server)
            answers, took = load(server, callers, options.seconds, stream=False)
            count, operations, busy = (now - then for now, then in zip(read(server), before, strict=True))
            share = busy / took
            figures = f"{answers / took:.0f} | {operations / count:.1f} | {busy / count * 1000:.2f}"
            print(f"| {callers} | {figures} | {share:.0%} | {1 / share:.1f} |")


def read(server: Server) -> tuple[float, ...]:
    """Return the transactions so far, the changes they stored, and the seconds they took."""
    response = client_of(server).get("/metrics", headers=HEADERS)
    text = response.read().decode()
    names = (f"{COMMITS}_operations_count", f"{COMMITS}_operations_sum", f"{COMMITS}_duration_seconds_sum")
    return tuple(sum(map(float, re.findall(rf"^{name}(?:{{.*}})? (.+)$", text, re.MULTILINE))) for name in names)


if __name__ == "__main__":
    main()
