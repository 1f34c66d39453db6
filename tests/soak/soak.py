"""Mixed traffic against a live gateway for a long time: no leak, no wrong answer, no 500.

`python tests/soak/soak.py [--minutes 20] [--callers 8] [--seed 1] [--output DIRECTORY]` prints a summary, writes it and
a picture, and ends with status 1 on failure. After a warm-up of a fifth of the time, and at the end, the traffic
pauses: the gateway's memory, greenlets, sockets, files and threads must be the same both times.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.live import TOKEN, LiveGateway, live_gateway
from support.upstream import Upstream
from traffic import Caller, Tally

MEGABYTE = 1024 * 1024
QUIET_SECONDS = 5.0
#: What may be held more at the end than after the warm-up.
ALLOWED = {"memory, MB": 12.0, "greenlets": 3, "files": 4, "sockets": 4, "threads": 1}


@dataclass
class Watch:
    """Samples of the gateway's process, one per second."""

    process: psutil.Process
    begun: float = field(default_factory=time.monotonic)
    seconds: list[float] = field(default_factory=list)
    samples: list[dict[str, float]] = field(default_factory=list)

    def look(self) -> dict[str, float]:
        """Return the resources of the process."""
        return {
            "memory, MB": self.process.memory_info().rss / MEGABYTE,
            "files": self.process.num_fds(),
            "sockets": len(self.process.net_connections("all")),
            "threads": self.process.num_threads(),
        }

    def run(self, until: threading.Event, tally: Tally) -> None:
        """Sample until stopped."""
        while not until.wait(1.0):
            self.seconds.append(time.monotonic() - self.begun)
            self.samples.append(self.look() | {"done": float(sum(tally.done.values()))})


def config_for(upstream_url: str, workspace: Path) -> dict[str, Any]:
    """Configure two agents: one answered by the stub, one that calls a tool in every turn."""
    auth = {"mode": "token", "token": TOKEN, "rateLimit": {"exemptLoopback": True}}
    return {
        "gateway": {"auth": auth, "http": {"endpoints": {"chatCompletions": {"enabled": True}}}},
        "agents": {
            "defaults": {"model": "stub/ok"},
            "list": [
                {"id": "main", "default": True},
                {"id": "worker", "model": "scripted/tools", "workspace": str(workspace)},
            ],
        },
        "models": {
            "retry": {"attempts": 2, "minDelayMs": 10, "maxDelayMs": 20},
            "providers": {"stub": {"baseUrl": upstream_url}, "scripted": {"api": "scripted"}},
        },
    }


def drive(gateway: LiveGateway, tally: Tally, callers: int, seed: int, seconds: float) -> None:
    """Run the callers for the given time."""
    end = time.monotonic() + seconds

    def call(number: int) -> None:
        caller = Caller(gateway, tally, seed * 1000 + number)
        while time.monotonic() < end:
            caller.step()
        caller.close()

    threads = [threading.Thread(target=call, args=(number,)) for number in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def hold(gateway: LiveGateway, watch: Watch, report: Path) -> dict[str, float]:
    """Return the resources of the idle gateway."""
    time.sleep(QUIET_SECONDS)
    lines = report.read_text().splitlines() if report.exists() else []
    gateway.process.send_signal(signal.SIGUSR2)
    for _ in range(100):
        time.sleep(0.1)
        after = report.read_text().splitlines() if report.exists() else []
        if len(after) > len(lines):
            counts: dict[str, float] = orjson.loads(after[-1])
            return watch.look() | counts
    raise RuntimeError("the gateway does not tell what it holds")


def judge(tally: Tally, first: dict[str, float], last: dict[str, float], output: str) -> list[str]:
    """Return the failures as text."""
    grown = [
        f"{name} grew from {first[name]:.0f} to {last[name]:.0f}"
        for name, allowed in ALLOWED.items()
        if last[name] - first[name] > allowed
    ]
    logged = [f"the log has: {line[:300]}" for line in output.splitlines() if line.startswith("Traceback")]
    internal = [f"a 500: {line[:300]}" for line in output.splitlines() if " status=500 " in line]
    return [*grown, *internal[:10], *logged[:10], *tally.wrong[:20]]


def draw(watch: Watch, path: Path) -> None:
    """Draw the resources over time."""
    import matplotlib as mpl  # noqa: PLC0415 - only who wants the picture needs the package

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    names = list(watch.samples[0])
    figure, axes = plt.subplots(len(names), figsize=(9, 2 * len(names)), sharex=True, layout="constrained")
    for name, one in zip(names, axes, strict=True):
        one.plot(watch.seconds, [sample[name] for sample in watch.samples])
        one.set_ylabel(name)
        one.set_ylim(bottom=0)
    axes[-1].set_xlabel("seconds")
    figure.savefig(path)
    plt.close(figure)


def run(minutes: float, callers: int, seed: int, output: Path) -> list[str]:
    """Run the soak and return the failures."""
    tally, report = Tally(), output / "held.jsonl"
    report.unlink(missing_ok=True)
    observed = [sys.executable, str(Path(__file__).with_name("observed.py")), str(report)]
    with tempfile.TemporaryDirectory() as directory, Upstream() as upstream:
        workspace = Path(directory) / "workspace"
        workspace.mkdir()
        config = config_for(upstream.url, workspace)
        with live_gateway(Path(directory) / "gateway", config, before=observed) as gateway:
            watch, over = Watch(psutil.Process(gateway.process.pid)), threading.Event()
            watcher = threading.Thread(target=watch.run, args=(over, tally))
            watcher.start()
            try:
                drive(gateway, tally, callers, seed, minutes * 60 * 0.2)
                first = hold(gateway, watch, report)
                upstream.requests.clear()
                drive(gateway, tally, callers, seed + 1, minutes * 60 * 0.8)
                last = hold(gateway, watch, report)
            finally:
                over.set()
                watcher.join()
            wrong = judge(tally, first, last, gateway.output)
    lines = [f"{sum(tally.done.values())} things done in {minutes:g} minutes: {dict(tally.done.most_common())}"]
    lines += [f"{name}: {first[name]:.0f} after the warm-up, {last[name]:.0f} at the end" for name in last]
    lines += [f"WRONG: {one}" for one in wrong] or ["Nothing was wrong."]
    (output / "soak.txt").write_text("\n".join(lines) + "\n")
    draw(watch, output / "soak.png")
    print("\n".join(lines))
    return wrong


def main() -> None:
    """Run the soak; exit with 1 on failure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--callers", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("soak-results"))
    options = parser.parse_args()
    output = options.output.resolve()  # the gateway that writes there works elsewhere
    output.mkdir(parents=True, exist_ok=True)
    sys.exit(1 if run(options.minutes, options.callers, options.seed, output) else 0)


if __name__ == "__main__":
    main()
