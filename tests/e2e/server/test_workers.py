"""Several workers on one port: all of them answer, a lost one is replaced, and all stop together."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import orjson
import psutil
import pytest
from support.chat import PATH, ask, error_of, text_of, user
from support.live import TOKEN, LiveGateway, live_gateway, scripted_config
from support.operator_client import operator_client
from support.polling import until
from support.processes import has_ended, running_children

TWO = ("--workers", "2")
SLOW = {"x-openclaw-model": "scripted/slow"}
LINE = re.compile(r"openclaw\.access\[(\d+)\]")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    with live_gateway(tmp_path_factory.mktemp("pair"), scripted_config(), arguments=TWO) as running:
        yield running


def workers_of(running: LiveGateway) -> set[int]:
    return {child.pid for child in running_children(running.process.pid, recursive=False)}


def ask_on_new_connection(running: LiveGateway) -> httpx.Response:
    """Ask on a new connection, which any worker may accept."""
    body = {"model": "openclaw", "messages": [user("hi")]}
    return httpx.post(f"{running.url}{PATH}", json=body, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=30)


def ask_until_answered_by(running: LiveGateway, workers: set[int]) -> bool:
    """Send concurrent requests until each of `workers` has answered; returns whether they did."""
    with ThreadPoolExecutor(8) as pool:
        for _ in range(50):
            for answer in pool.map(lambda _: ask_on_new_connection(running), range(8)):
                assert text_of(answer) == "hi"
            if workers <= set(map(int, LINE.findall(running.output))):
                return True
            time.sleep(0.2)  # a starting worker needs the processor as well
    return False


def begin_slow_streams(running: LiveGateway, count: int) -> Callable[[], list[str]]:
    """Start streams of about two seconds; returns a function that waits for their texts."""
    pool = ThreadPoolExecutor(count)
    begun = threading.Semaphore(0)

    def stream() -> str:
        body = {"model": "openclaw", "messages": [user("hi")], "stream": True}
        headers = {"Authorization": f"Bearer {TOKEN}", **SLOW}
        with httpx.stream("POST", f"{running.url}{PATH}", json=body, headers=headers, timeout=60) as response:
            pieces = []
            for piece in response.iter_text():
                pieces.append(piece)
                begun.release()
            return "".join(pieces)

    futures = [pool.submit(stream) for _ in range(count)]
    for _ in range(count):
        assert begun.acquire(timeout=30)
    return lambda: [future.result(60) for future in futures]


def is_whole(stream: str) -> bool:
    return stream.rstrip().endswith("data: [DONE]")


def test_both_workers_answer(pair: LiveGateway) -> None:
    workers = workers_of(pair)
    assert len(workers) == 2
    assert ask_until_answered_by(pair, workers)


def test_address_is_printed_once(pair: LiveGateway) -> None:
    assert pair.output.count("listening on http") == 1
    assert pair.output.count("answered by scripted/echo") == 2  # two agents
    assert "gunicorn" not in pair.output


def test_streams_arrive_unbuffered(pair: LiveGateway) -> None:
    with pair.client() as client:
        body = {"model": "openclaw", "messages": [user("hi")], "stream": True}
        plain = httpx.Client(base_url=pair.url, headers=client.headers, timeout=30)
        with plain, plain.stream("POST", PATH, json=body, headers=SLOW) as response:
            times = [time.monotonic() for piece in response.iter_bytes() if piece]
        assert len(times) > 5
        assert times[-1] - times[0] > 0.5  # the model takes about two seconds over it


def test_session_continues_on_any_worker(pair: LiveGateway) -> None:
    for number in range(6):
        with pair.client() as client:
            answer = ask(client, f"turn {number}", headers={"x-openclaw-session-key": "shared"})
            assert text_of(answer) == f"turn {number}"


def test_parser_is_as_strict_as_in_a_single_process(pair: LiveGateway) -> None:
    with socket.create_connection(pair.address, timeout=10) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n")
        answer = connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"x-request-id" in answer.lower()
    assert b'"error"' in answer


def test_killed_worker_is_replaced(tmp_path: Path) -> None:
    with live_gateway(tmp_path, scripted_config(), arguments=TWO) as running:
        before = workers_of(running)
        victim = min(before)
        psutil.Process(victim).kill()
        until(lambda: len(workers_of(running) - {victim}) == 2)
        (replacement,) = workers_of(running) - before
        assert ask_until_answered_by(running, {replacement})
        assert f"{victim}" in running.output
        assert running.output.count("listening on") == 1
        assert running.stop() == 0


def lose_run(running: LiveGateway, processes: Iterable[int]) -> str:
    """Begin a run in a session and kill these processes; returns its id."""
    headers = {"Authorization": f"Bearer {TOKEN}", "x-openclaw-session-key": "lost", **SLOW}
    body = {"messages": [user("hi " * 200)], "stream": True}
    with httpx.stream("POST", f"{running.url}{PATH}", json=body, headers=headers, timeout=60) as response:
        next(response.iter_bytes())
        for process in processes:
            psutil.Process(process).kill()
        run_id: str = response.headers["x-openclaw-run-id"]
        return run_id


@pytest.mark.parametrize("is_restarted", [False, True])
def test_run_of_killed_worker_has_line_and_figure(tmp_path: Path, *, is_restarted: bool) -> None:
    config = scripted_config()
    config["gateway"]["http"]["endpoints"]["metrics"] = {"enabled": True}
    with ExitStack() as stack:
        running = stack.enter_context(live_gateway(tmp_path, config, arguments=TWO))
        before = workers_of(running)
        run_id = lose_run(running, [running.process.pid, *before] if is_restarted else before)
        if is_restarted:
            running.process.wait(30)
            running = stack.enter_context(live_gateway(tmp_path, config, arguments=TWO))
        line = rf"WARNING openclaw\.run\[\d+\] run={run_id} outcome=run_interrupted agent=main session=agent:main:lost"
        until(lambda: len(re.findall(line, running.output)) == 1)
        until(lambda: len(workers_of(running) - before) == 2)
        with running.client() as client:
            figure = re.compile(r'^openclaw_run_completed_total{.*outcome="run_interrupted".*} 1.0$', re.MULTILINE)
            until(lambda: figure.search(client.get("/metrics").text) is not None)
        assert running.output.count("was sent SIGKILL!") == (0 if is_restarted else 2)
        assert running.stop() == 0
        assert running.output.count("outcome=run_interrupted") == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_under_load_loses_no_answer(tmp_path: Path, number: signal.Signals) -> None:
    whole: list[str] = []
    broken: list[str] = []
    with live_gateway(tmp_path, scripted_config(), arguments=TWO) as running:
        workers = workers_of(running)
        streams = begin_slow_streams(running, 8)
        stopping = threading.Event()

        def keep_asking() -> None:
            while not stopping.is_set():
                try:
                    answer = ask_on_new_connection(running)
                except (httpx.ConnectError, httpx.ReadError, httpx.RemoteProtocolError) as error:
                    # Refused connections are expected. An answer that began and did not end is a failure.
                    if "incomplete" in str(error) or "peer closed connection without sending complete" in str(error):
                        broken.append(str(error))
                    return
                if answer.status_code == 200:
                    whole.append(text_of(answer))
                else:
                    assert error_of(answer)[0] == 503

        asking = [threading.Thread(target=keep_asking) for _ in range(4)]
        for thread in asking:
            thread.start()
        until(lambda: len(whole) > 10)
        assert running.stop(number, seconds=60) == 0
        stopping.set()
        for thread in asking:
            thread.join()
        assert broken == []
        assert set(whole) == {"hi"}
        assert all(is_whole(stream) for stream in streams())
        assert not any(map(psutil.pid_exists, workers))
        assert running.output.rstrip().endswith("Stopped.")


def test_second_interrupt_a_second_later_stops_at_once(tmp_path: Path) -> None:
    with live_gateway(tmp_path, scripted_config(), arguments=(*TWO, "--grace", "600")) as running:
        connection = socket.create_connection(running.address)
        body = orjson.dumps({"messages": [user("hi")], "stream": True})
        head = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
        head += "Content-Type: application/json\r\nx-openclaw-model: scripted/stuck\r\n"
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        assert connection.recv(12) == b"HTTP/1.1 200"  # it has begun
        for process in (running.process.pid, *workers_of(running)):  # a terminal signals all of them
            psutil.Process(process).send_signal(signal.SIGINT)
        running.process.send_signal(signal.SIGINT)  # a burst counts once
        time.sleep(1.5)
        assert running.process.poll() is None
        assert "Ctrl-C again" in running.output
        running.process.send_signal(signal.SIGINT)
        assert running.process.wait(60) == 0
        connection.close()


def test_workers_end_when_their_arbiter_is_killed(tmp_path: Path) -> None:
    with live_gateway(tmp_path, scripted_config(), arguments=TWO) as running:
        workers = [psutil.Process(pid) for pid in workers_of(running)]
        running.process.kill()
        running.process.wait()
        _, alive = psutil.wait_procs(workers, timeout=20)
        assert all(map(has_ended, alive))


def test_sighup_replaces_the_workers_without_breaking_a_stream(tmp_path: Path) -> None:
    with live_gateway(tmp_path, scripted_config(), arguments=TWO) as running:
        before = workers_of(running)
        streams = begin_slow_streams(running, 4)
        running.process.send_signal(signal.SIGHUP)
        assert all(is_whole(stream) for stream in streams())
        until(lambda: len(now := workers_of(running)) == 2 and not now & before)
        assert text_of(ask_on_new_connection(running)) == "hi"
        assert running.output.count("listening on") == 1


def test_sighup_with_an_invalid_configuration_changes_nothing(tmp_path: Path) -> None:
    with live_gateway(tmp_path, scripted_config(), arguments=TWO) as running:
        before = workers_of(running)
        (tmp_path / "openclaw.json").write_text("{ gateway: { prot: 1 } }")
        running.process.send_signal(signal.SIGHUP)
        until(lambda: "not replaced" in running.output)
        assert "prot" in running.output
        assert workers_of(running) == before
        assert text_of(ask_on_new_connection(running)) == "hi"


def test_worker_that_cannot_start_ends_all_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "openclaw.json").write_text('{ gateway: { auth: { mode: "token", token: "${NOT_THERE}" } } }')
    with socket.create_server(("127.0.0.1", 0)) as listener:
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "service.server.workers.arbiter",
                *TWO,
                "--host",
                "127.0.0.1",
                "--listener",
                str(listener.fileno()),
            ],
            env={"HOME": str(tmp_path), "OPENCLAW_STATE_DIR": str(tmp_path)},
            pass_fds=[listener.fileno()],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert done.returncode == 3
    assert "NOT_THERE" in done.stderr
    assert "failed to boot" in done.stdout
    assert "Traceback" not in done.stderr


def test_single_process_imports_no_gunicorn_and_the_arbiter_no_gateway() -> None:
    alone = "import sys, service.cli; print([name for name in sys.modules if name.startswith('gunicorn')])"
    keeper = (
        "import sys, service.server.workers.arbiter; from gevent import monkey; "
        "print([name for name in ('flask', 'connexion', 'sqlalchemy', 'pydantic') if name in sys.modules]"
        " + [name for name in ('socket', 'thread', 'time') if monkey.is_module_patched(name)])"
    )
    for program in (alone, keeper):
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
        assert done.stdout.strip() == "[]"


def test_websocket_of_one_worker_aborts_the_run_of_another(pair: LiveGateway) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(operator_client(pair)) for _ in range(8)]
        request = {"message": "x", "idempotencyKey": "across", "sessionKey": "across", "model": "scripted/silent"}
        request_id = clients[0].send("agent", request)
        assert clients[0].response(request_id)["payload"]["status"] == "accepted"
        until(lambda: "inFlightRun" in clients[1].call("chat.history", {"sessionKey": "across"}))
        for client in clients:
            waited = client.call("agent.wait", {"runId": "across", "timeoutMs": 10})
            assert waited["status"] == "timeout"
            assert client.call("chat.history", {"sessionKey": "across"})["inFlightRun"]["runId"] == "across"
        assert clients[-1].call("chat.abort", {"sessionKey": "across"})["runIds"] == ["across"]
        assert clients[0].response(request_id)["payload"]["summary"] == "aborted"


def test_one_idempotency_key_on_all_websockets_runs_once(pair: LiveGateway) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(operator_client(pair)) for _ in range(8)]
        request = {"message": "x", "idempotencyKey": "of all", "sessionKey": "of all", "model": "scripted/slow"}
        requests = [(client, client.send("agent", request)) for client in clients]
        texts = set()
        for client, request_id in requests:
            assert client.response(request_id)["payload"]["status"] == "accepted"
            texts.add(client.response(request_id)["payload"]["result"]["payloads"][0]["text"])
        assert len(texts) == 1
        for client in clients:
            assert len(client.call("chat.history", {"sessionKey": "of all"})["messages"]) == 2
