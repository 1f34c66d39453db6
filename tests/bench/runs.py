"""Cost of a run against the floor, by part: the run itself, each token, each turn with a tool of the agent.

`python tests/bench/runs.py [--rounds 5] [--seconds 2] [--callers 8]` prints two tables. The upstream answers at once:
20 tokens, 400 tokens, 20 tokens of an agent that has 100 tools of an MCP server, or a call of the agent's tool `read`
and then 20 tokens. The floor is the relay of `servers.py`, asked once for each answer of the model. Rounds of both are
interleaved. Figures are the CPU of the server's process, as median (least to most) of the rounds, since load generator
and upstream share the machine's cores; the second table uses the minimum, which other load affects least.
"""

from gevent import monkey

monkey.patch_all()

import argparse  # noqa: E402  # what follows must already be patched
import json  # noqa: E402
import socket  # noqa: E402
import statistics  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from collections.abc import Iterable, Iterator  # noqa: E402
from contextlib import ExitStack, contextmanager  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import gevent  # noqa: E402
import psutil  # noqa: E402
from geventhttpclient import HTTPClient  # noqa: E402
from servers import NoDelayServer  # noqa: E402

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.live import TOKEN, live_gateway  # noqa: E402

FEW, MANY = 20, 400
#: The kinds of run by the model that is asked, which is also the agent's id: their names for people, and their tokens.
RUNS = {
    "few": (f"{FEW} tokens", FEW),
    "many": (f"{MANY} tokens", MANY),
    "tools": (f"{FEW} tokens, 100 tools", FEW),
    "read": (f"`read`, then {FEW} tokens", FEW),
}
KINDS = ("JSON", "SSE")
HUNDRED = {"allow": ["t[0-9]", "t[0-9][0-9]"]}
MCP_SERVER = Path(__file__).parents[1] / "support" / "mcp_raw_server.py"
USAGE = {"prompt_tokens": 9, "completion_tokens": 20, "total_tokens": 29}
QUESTION = {"role": "user", "content": "hi"}
CALL = {"id": "call_1", "type": "function", "function": {"name": "read", "arguments": '{"path": "notes.txt"}'}}
RESULT = {"role": "tool", "tool_call_id": "call_1", "content": "1\ttea"}


def answer(deltas: list[dict[str, Any]], reason: str) -> tuple[bytes, bytes]:
    """Return the model's answer, as a stream and as one object."""
    common = {"id": "c", "created": 1, "model": "m"}
    pieces: list[tuple[dict[str, Any], str | None]] = [
        ({"role": "assistant"}, None),
        *((delta, None) for delta in deltas),
    ]
    events = [
        {**common, "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta, "finish_reason": end}]}
        for delta, end in [*pieces, ({}, reason)]
    ]
    events[-1]["usage"] = USAGE
    stream = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events) + b"data: [DONE]\n\n"
    text = "".join(delta.get("content", "") for delta in deltas)
    message = {"role": "assistant", "content": text, "tool_calls": deltas[0].get("tool_calls")}
    choice = {"index": 0, "message": message, "finish_reason": reason}
    whole = {**common, "object": "chat.completion", "choices": [choice], "usage": USAGE}
    return stream, json.dumps(whole).encode()


def words(count: int) -> list[dict[str, Any]]:
    """Return an answer of `count` tokens."""
    return [{"content": f"word{number} "} for number in range(count)]


ANSWERS = {f'"model":"{name}"'.encode(): answer(words(tokens), "stop") for name, (_, tokens) in RUNS.items()}
TOOL_CALL = answer([{"tool_calls": [{"index": 0, **CALL}]}], "tool_calls")


def upstream(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
    """A model provider that answers at once."""
    if environ["REQUEST_METHOD"] == "GET":
        models = {"object": "list", "data": [{"id": run, "object": "model"} for run in RUNS]}
        start("200 OK", [("Content-Type", "application/json")])
        return [json.dumps(models).encode()]
    asked = environ["wsgi.input"].read().replace(b'": ', b'":')
    stream, whole = next(answer for model, answer in ANSWERS.items() if model in asked)
    if b'"model":"read"' in asked and b'"role":"tool"' not in asked:
        stream, whole = TOOL_CALL
    streaming = b'"stream":true' in asked
    body = stream if streaming else whole
    kind = "text/event-stream" if streaming else "application/json"
    start("200 OK", [("Content-Type", kind), ("Content-Length", str(len(body)))])
    return [body]


@contextmanager
def server(program: str, *arguments: str) -> Iterator[tuple[int, psutil.Process]]:
    """Start a program of this directory and wait until it listens."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    name, *rest = arguments
    process = subprocess.Popen([sys.executable, str(Path(__file__).with_name(program)), name, str(port), *rest])
    try:
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield port, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()


def bodies_of(run: str, name: str, *, stream: bool) -> list[tuple[bytes, bytes]]:
    """Return the request of one run to server `name` and the required part of the answer."""
    last = f"word{RUNS[run][1] - 1} ".encode()
    asked: dict[str, Any] = {"model": f"openclaw/{run}", "stream": stream, "messages": [QUESTION]}
    if name == "gateway":
        return [(json.dumps(asked).encode(), last)]
    asked["model"] = run
    if run != "read":
        return [(json.dumps(asked).encode(), last)]
    again = {**asked, "messages": [QUESTION, {"role": "assistant", "tool_calls": [CALL]}, RESULT]}
    return [(json.dumps(asked).encode(), b"tool_calls"), (json.dumps(again).encode(), last)]


def load(port: int, bodies: list[tuple[bytes, bytes]], callers: int, seconds: float) -> tuple[int, float]:
    """Start runs as fast as possible; return their number and the seconds."""
    client = HTTPClient("127.0.0.1", port, concurrency=callers, network_timeout=30)
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    end, runs = time.monotonic() + seconds, 0

    def call() -> None:
        nonlocal runs
        while time.monotonic() < end:
            for body, expected in bodies:
                response = client.post("/v1/chat/completions", body, headers=headers)
                text = response.read()
                if response.status_code != 200 or expected not in text:
                    raise RuntimeError(f"a wrong answer: {response.status_code} {text[:200]!r}")
            runs += 1

    started = time.monotonic()
    gevent.joinall([gevent.spawn(call) for _ in range(callers)], raise_error=True)
    client.close()
    return runs, time.monotonic() - started


def cpu_seconds(process: psutil.Process) -> float:
    """User and system time of the process so far."""
    times = process.cpu_times()
    return float(times.user + times.system)


def config_for(upstream_port: int, workspace: Path) -> dict[str, Any]:
    """Configure one agent per kind of run; only the reading one has a workspace, and one an MCP server."""
    agents: dict[str, dict[str, Any]] = {run: {"id": run, "model": f"instant/{run}"} for run in RUNS}
    agents["read"]["workspace"] = str(workspace)
    agents["tools"]["tools"] = {"alsoAllow": ["many__*"]}
    http = {"endpoints": {"chatCompletions": {"enabled": True}}}
    return {
        "gateway": {"auth": {"mode": "token", "token": TOKEN}, "http": http},
        "agents": {"list": list(agents.values())},
        "mcp": {"servers": {"many": {"command": sys.executable, "args": [str(MCP_SERVER), "many"], "tools": HUNDRED}}},
        "models": {"providers": {"instant": {"baseUrl": f"http://127.0.0.1:{upstream_port}/v1"}}},
    }


Costs = dict[tuple[str, str, str], list[float]]


def measure(rounds: int, seconds: float, callers: int) -> tuple[Costs, Costs]:
    """Measure CPU milliseconds per run and runs per second by kind and server, one figure per round."""
    cpu: Costs = {}
    speed: Costs = {}
    with ExitStack() as stack:
        upstream_port, _ = stack.enter_context(server("runs.py", "upstream"))
        floor_port, floor = stack.enter_context(server("servers.py", "floor", str(upstream_port)))
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (directory / "notes.txt").write_text("tea\n")
        gateway = stack.enter_context(live_gateway(directory / "gateway", config_for(upstream_port, directory)))
        targets = {
            "floor": (floor_port, floor),
            "gateway": (gateway.address[1], psutil.Process(gateway.process.pid)),
        }
        for number in range(rounds + 1):
            for kind, run, name in ((kind, run, name) for kind in KINDS for run in RUNS for name in targets):
                port, process = targets[name]
                bodies = bodies_of(run, name, stream=kind == "SSE")
                before = cpu_seconds(process)
                runs, took = load(port, bodies, callers, seconds if number else 0.3)
                if number:  # the first round warms up
                    cpu.setdefault((kind, run, name), []).append((cpu_seconds(process) - before) / runs * 1000)
                    speed.setdefault((kind, run, name), []).append(runs / took)
    return cpu, speed


def spread(values: list[float], digits: int = 2) -> str:
    """Median (least to most)."""
    shown = [f"{value:.{digits}f}" for value in (statistics.median(values), min(values), max(values))]
    return f"{shown[0]} ({shown[1]} to {shown[2]})"


def ratios(ours: list[float], floor: list[float]) -> list[float]:
    """The gateway's figure over the floor's, round by round."""
    return [one / other for one, other in zip(ours, floor, strict=True)]


def parts(cpu: Costs, kind: str, name: str) -> dict[str, float]:
    """Return the cost of a run's parts in microseconds, from the minima of the kinds of run."""
    few, many, read = (min(cpu[kind, run, name]) * 1000 for run in ("few", "many", "read"))
    token = (many - few) / (MANY - FEW)
    return {"a run without its tokens": few - FEW * token, "each token": token, "a turn with a tool": read - few}


def main() -> None:
    """Measure and print, or serve the upstream."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--callers", type=int, default=8)
    options = parser.parse_args()
    cpu, speed = measure(options.rounds, options.seconds, options.callers)
    print("| load | run | CPU ratio | gateway CPU ms | floor CPU ms | gateway runs/s | floor runs/s |")
    print("|---|---|---|---|---|---|---|")
    for kind, run in ((kind, run) for kind in KINDS for run in RUNS):
        ours, floor = cpu[kind, run, "gateway"], cpu[kind, run, "floor"]
        speeds = " | ".join(f"{statistics.median(speed[kind, run, name]):.0f}" for name in ("gateway", "floor"))
        ratio = spread(ratios(ours, floor), 1)
        print(f"| {kind} | {RUNS[run][0]} | {ratio} | {spread(ours)} | {spread(floor)} | {speeds} |")
    print("\n| load | of that | gateway CPU µs | floor CPU µs |")
    print("|---|---|---|---|")
    for kind in KINDS:
        floor_of = parts(cpu, kind, "floor")
        for part, micros in parts(cpu, kind, "gateway").items():
            print(f"| {kind} | {part} | {micros:.1f} | {floor_of[part]:.1f} |")


if __name__ == "__main__":
    if sys.argv[1:2] == ["upstream"]:
        NoDelayServer(("127.0.0.1", int(sys.argv[2])), upstream, log=None).serve_forever()
    else:
        main()
