"""Processor instructions of one request, counted by callgrind, against the stored baseline.

`python tests/bench/instructions.py [--accept]` needs valgrind. The count is independent of other load, so a
regression of a few percent shows on any machine; the kernel's work is not counted. Counts are compared as multiples of
the floor's, which removes most of the difference between versions of Python. It ends with status 1 when
one is more than `TOLERANCE` above the baseline; `--accept` stores the counts as the new one.
"""

from gevent import monkey

monkey.patch_all()

import argparse  # noqa: E402  # what follows must already be patched
import os  # noqa: E402
import shutil  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from collections.abc import Iterator  # noqa: E402
from contextlib import ExitStack, contextmanager  # noqa: E402
from pathlib import Path  # noqa: E402

import orjson  # noqa: E402
from harness import Server, ask, client_of, free_port, gateway, program, started  # noqa: E402

BASELINE = Path(__file__).with_name("instructions.json")
TOLERANCE = 0.05
#: Enough requests that a garbage collection, which is as much as four of them, does not decide between the kinds.
WARM_UP, REQUESTS = 30, 400
KINDS = {"JSON": False, "SSE": True}


def callgrind(output: Path) -> list[str]:
    """Return the callgrind command line; counting starts on request."""
    return ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={output}", "--quiet"]


@contextmanager
def counted(name: str, directory: Path, upstream_port: int) -> Iterator[Server]:
    """Start the gateway or the floor under callgrind."""
    before = callgrind(directory / "out")
    if name == "gateway":
        with gateway(directory, upstream_port, before=before) as server:
            yield server
        return
    port = free_port()
    command = [*before, sys.executable, str(Path(__file__).with_name("servers.py")), name, str(port)]
    with started(name, [*command, str(upstream_port)], port, measured=True) as server:
        yield server


def control(server: Server, *arguments: str) -> None:
    """Send a command to callgrind."""
    command = ["callgrind_control", *arguments, str(server.process.pid)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def count(server: Server, directory: Path) -> dict[str, int]:
    """Instructions of one request, by kind, after a warm-up."""
    client = client_of(server)
    counts = {}
    control(server, "-i", "on")
    for kind, stream in KINDS.items():
        body = server.body(stream=stream)
        for _ in range(WARM_UP):
            ask(client, server, body)
        control(server, "-z")
        for _ in range(REQUESTS):
            ask(client, server, body)
        seen = set(directory.glob("out.*"))
        control(server, "-d")
        counts[kind] = _total(directory, seen) // REQUESTS
    return counts


def _total(directory: Path, seen: set[Path]) -> int:
    for _ in range(100):
        for path in set(directory.glob("out.*")) - seen:
            for line in path.read_text(errors="replace").splitlines():
                if line.startswith("totals:"):
                    return int(line.split()[1])
        time.sleep(0.1)
    raise RuntimeError("callgrind wrote no count")


def main() -> None:
    """Count, compare, and end with 1 for a regression."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--accept", action="store_true", help="store what is counted as the new baseline")
    options = parser.parse_args()
    if shutil.which("valgrind") is None:
        sys.exit("valgrind is not installed")
    os.environ["PYTHONHASHSEED"] = "0"  # of both servers: the order of sets and the collisions of dictionaries count
    counts: dict[str, dict[str, int]] = {}
    for name in ("floor", "gateway"):
        with ExitStack() as stack:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            upstream = stack.enter_context(program("upstream", measured=False))
            counts[name] = count(stack.enter_context(counted(name, directory, upstream.port)), directory)
    baseline = orjson.loads(BASELINE.read_bytes()) if BASELINE.exists() else counts
    print("| one request | to the floor | baseline | change | gateway | floor |\n|---|---|---|---|---|---|")
    worst = 0.0
    for kind in KINDS:
        ratio, before = (one["gateway"][kind] / one["floor"][kind] for one in (counts, baseline))
        worst = max(worst, ratio / before - 1)
        figures = " | ".join(f"{counts[name][kind]:,}" for name in ("gateway", "floor"))
        print(f"| {kind} | {ratio:.2f} | {before:.2f} | {ratio / before - 1:+.1%} | {figures} |")
    if options.accept:
        BASELINE.write_bytes(orjson.dumps(counts, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    elif worst > TOLERANCE:
        sys.exit(f"A request costs {worst:.1%} more instructions than the baseline; {TOLERANCE:.0%} are tolerated.")


if __name__ == "__main__":
    main()
