"""The `exec` tool: environment, results, time limits and process clean-up."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.polling import until
from support.processes import running_children, started

import service
from service.config.tools import GlobalExecConfig
from service.core import concurrency
from service.core.processes.reaper import program
from service.tools.exec import ExecTool
from service.tools.tool import ToolContext, ToolError

GENEROUS_SECONDS = 30.0

#: Seven processes, each in a session of its own and deaf to every polite signal. Two of them leave at once, so that
#: their four children are orphans; with LEAVE in the environment the first one leaves once all have grown.
TREE = """
import os, signal, time

for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
    signal.signal(number, signal.SIG_IGN)

def grow(depth):
    for _ in range(2 if depth else 0):
        if os.fork() == 0:
            os.setsid()
            grow(depth - 1)
            os._exit(0)
    with open("pids", "a") as file:
        file.write(f"{os.getpid()}\\n")
    while depth == 2 and "LEAVE" in os.environ:
        if len(open("pids").readlines()) == 7:
            return
        time.sleep(0.01)
    if depth != 1:
        time.sleep(600)

grow(2)
"""

#: A gateway's process in small: patched, a greenlet that counts, and commands beside it.
PATCHED = """
from gevent import monkey
monkey.patch_all()
import os, sys
from pathlib import Path
from service.core import concurrency
from service.tools.tool import ToolContext
from service.config.tools import GlobalExecConfig
from service.tools.exec import ExecTool

def tick():
    for _ in range(10):
        concurrency.sleep(0.01)
    Path(sys.argv[1], "ticked").touch()

results = []
unconfined = GlobalExecConfig(sandbox="off")
tool, context = ExecTool(os.environ, unconfined), ToolContext("main", Path(sys.argv[1]), "s", "r")
concurrency.spawn(tick)
for _ in range(2):
    concurrency.spawn(lambda: results.append(tool.run({"command": sys.argv[2]}, context)))
while len(results) < 2:
    concurrency.sleep(0.01)
print(results)
"""

#: A supervisor whose first fork, which makes it two processes, is followed by a SIGTERM to one of them at once.
SIGNALLED = """
import os, signal, sys

def strike(starter=os.getpid()):
    if starter == (os.getpid() if moment == "after_in_parent" else os.getppid()):
        os.kill(os.getpid(), signal.SIGTERM)

moment = sys.argv[1]
sys.path.append(sys.argv[2])
from service.core.processes.supervisor import main
os.register_at_fork(**{moment: strike})
sys.exit(main(sys.argv[3:]))
"""
#: A process in a session of its own that ends its guard and its supervisor, which have been stopped, and lives on.
KILL_BOTH = """
import os, sys, time

def parent_of(pid):
    return int(open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[1])

supervisor = os.getppid()
guard = parent_of(supervisor)
assert b"supervisor" in open(f"/proc/{guard}/cmdline", "rb").read()
if os.fork() == 0:
    os.setsid()
    for signal in (19, 9):
        for pid in (guard, supervisor):
            os.kill(pid, signal)
    for _ in range(2):
        os.fork()
        os.setsid() if os.getpid() != os.getsid(0) else None
    os.execv("/bin/sleep", ["sleep", sys.argv[1]])
time.sleep(60)
"""
PACKAGE = str(Path(service.__file__).parents[1])


@pytest.fixture
def context(tmp_path: Path) -> ToolContext:
    return ToolContext("main", tmp_path, "agent:main:s", "run")


def run(context: ToolContext, **arguments: Any) -> str:
    return ExecTool(os.environ, GlobalExecConfig(sandbox="off")).run(arguments, context)


def run_python(context: ToolContext, program: str, **arguments: Any) -> str:
    return run(context, argv=[sys.executable, "-c", program], **arguments)


def report_of_a_signal(moment: str) -> Any:
    """What a supervisor reports of a command of a minute when a SIGTERM meets the guard or itself at their fork."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        arguments = [sys.executable, "-I", "-S", "-c", SIGNALLED, moment, PACKAGE, str(theirs.fileno())]
        with started(arguments, stdout=subprocess.PIPE, pass_fds=[theirs.fileno()]) as process:
            theirs.close()
            limits = {"timeout_seconds": 60, "kept_bytes": 1000, "max_output_bytes": 1000}
            around: dict[str, Any] = {"cwd": "/", "env": {}, "limits": None, "sandbox": None}
            ours.sendall(json.dumps({"argv": ["/bin/sleep", "60"], **around, **limits}).encode() + b"\n")
            return json.loads(process.communicate(timeout=GENEROUS_SECONDS)[0])


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def tree_of(workspace: Path) -> list[int]:
    """The process ids of a `TREE` that has grown in `workspace`."""
    file = workspace / "pids"
    until(lambda: file.exists() and len(file.read_text().split()) == 7)
    return [int(pid) for pid in file.read_text().split()]


def wait_until_gone(pids: list[int]) -> None:
    until(lambda: not any(map(is_alive, pids)))


def test_status_and_both_streams_are_reported(context: ToolContext) -> None:
    told = run(context, command="echo out; echo err >&2; exit 3")
    assert told.startswith("The command exited with status 3 after ")
    assert told.endswith("stdout:\nout\n\nstderr:\nerr\n")


def test_argv_goes_to_no_shell(context: ToolContext) -> None:
    assert "stdout:\n$HOME; exit 1\n" in run(context, argv=["echo", "$HOME; exit 1"])


def test_signal_is_reported(context: ToolContext) -> None:
    assert "ended by signal 9" in run(context, command="kill -9 $$")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({}, "either `command`"),
        ({"command": "true", "argv": ["true"]}, "either `command`"),
        ({"argv": ["no-such-program"]}, "cannot start no-such-program: No such file"),
        ({"argv": ["true", "a\0b"]}, "NUL"),
        ({"command": "true", "env": {"A": "\ud800"}}, "valid Unicode"),
        ({"command": "true #" + "x" * 130_000}, "script to a file"),
        ({"command": "true", "env": {"A=B": "1"}}, "a variable's name"),
        ({"command": "true", "cwd": ".."}, "inside the workspace"),
        ({"command": "true", "cwd": "/"}, "inside the workspace"),
        ({"command": "true", "cwd": "out"}, "inside the workspace"),
        ({"command": "true", "cwd": "a\0b"}, "inside the workspace"),
        ({"command": "true", "cwd": "x" * 5000}, "inside the workspace"),
    ],
)
def test_command_that_cannot_run_is_reported_with_reason(
    context: ToolContext, arguments: dict[str, Any], reason: str
) -> None:
    assert context.workspace is not None
    (context.workspace / "out").symlink_to("/")
    with pytest.raises(ToolError, match=reason):
        run(context, **arguments)


def test_without_workspace_nothing_runs() -> None:
    with pytest.raises(ToolError, match=r"no workspace.* operator can set .*agents\.defaults\.workspace"):
        run(ToolContext("main", None, "s", "r"), command="true")


def test_workspace_that_is_not_there_is_reported_as_such(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match=r"workspace does not exist.* Write a file"):
        run(ToolContext("main", tmp_path / "later", "s", "r"), command="true")


def test_command_runs_in_workspace_or_below(context: ToolContext) -> None:
    assert context.workspace is not None
    (context.workspace / "below").mkdir()
    assert f"stdout:\n{context.workspace}\n" in run(context, command="pwd -P")
    assert f"stdout:\n{context.workspace}/below\n" in run(context, command="pwd -P", cwd="below")


def test_environment_is_short_list_without_secrets(context: ToolContext) -> None:
    own = {"PATH": os.environ["PATH"], "OPENAI_API_KEY": "secret-1", "HTTPS_PROXY": "http://user:secret-2@proxy"}
    command = "env; cat /proc/$PPID/environ | tr '\\0' '\\n'"
    told = ExecTool(own, GlobalExecConfig(sandbox="off")).run({"command": command, "env": {"EXTRA": "1"}}, context)
    assert "secret" not in told
    names = {line.partition("=")[0] for line in told.splitlines() if "=" in line}
    assert names - {"PWD", "OLDPWD", "SHLVL", "_"} == {"PATH", "LANG", "TERM", "EXTRA"}


def test_no_command_gains_rights(context: ToolContext) -> None:
    assert "NoNewPrivs:\t1" in run(context, command="grep NoNewPrivs /proc/self/status")


def test_command_has_no_input(context: ToolContext) -> None:
    assert "status 0" in run(context, command="cat")


def test_no_descriptor_of_gateway_reaches_command(context: ToolContext) -> None:
    with (Path(str(context.workspace)) / "kept").open("w") as kept:
        os.set_inheritable(kept.fileno(), True)
        told = run_python(context, "import os; print(sorted(map(int, os.listdir('/proc/self/fd')))[:-1])")
    assert "[0, 1, 2]" in told


def test_middle_of_long_output_is_cut_with_note(context: ToolContext) -> None:
    told = run_python(context, "print('first'); print('x' * 1_000_000); print('last')")
    assert "stdout:\nfirst\n" in told
    assert f"[... {1_000_012 - 32 * 1024} bytes omitted ...]" in told
    assert "\nlast\n" in told
    assert len(told) < 40_000


def test_endless_output_is_ended(context: ToolContext) -> None:
    told = run(context, command="yes & yes >&2", timeout_seconds=60)
    assert "printed more than" in told
    assert len(told) < 80_000


def test_command_that_takes_too_long_is_ended_and_what_it_said_is_reported(context: ToolContext) -> None:
    told = run(context, command="trap '' TERM; echo before; sleep 60; echo after", timeout_seconds=2)
    assert "did not finish within 2 seconds" in told
    assert "before" in told
    assert "after" not in told


def test_command_may_tidy_up_when_it_is_asked_to_end(context: ToolContext) -> None:
    told = run(context, command="trap 'echo tidy; exit' TERM; sleep 60 & wait", timeout_seconds=2)
    assert "tidy" in told


def test_background_processes_are_ended_and_reported(context: ToolContext) -> None:
    told = run(context, command="setsid sleep 60 & echo $!; (sleep 60 &) ; echo done")
    assert "It left 2 process(es) running" in told
    assert "done" in told


def test_tree_that_ignores_signals_ends_with_command_itself(context: ToolContext) -> None:
    assert context.workspace is not None
    assert "running in the background; they were ended" in run_python(context, TREE, env={"LEAVE": "1"})
    assert not any(is_alive(pid) for pid in tree_of(context.workspace))


def test_cancelling_ends_tree_that_ignores_signals(context: ToolContext) -> None:
    assert context.workspace is not None
    scope, cancelled = concurrency.CancelScope(), concurrency.Event()

    def work() -> None:
        try:
            with scope:
                run_python(context, TREE)
        except concurrency.Cancelled:
            cancelled.set()

    concurrency.spawn(work)
    pids = tree_of(context.workspace)
    scope.cancel()
    assert cancelled.wait(GENEROUS_SECONDS)
    wait_until_gone(pids)


def test_command_dies_with_gateway(context: ToolContext) -> None:
    assert context.workspace is not None
    script = context.workspace / "tree.py"
    script.write_text(TREE)
    command = [sys.executable, "-c", PATCHED, str(context.workspace), f"exec {sys.executable} {script}"]
    # One of the two commands grows the tree; the other one finds that it is not the first.
    command[-1] = f"mkdir mine && exec {sys.executable} {script} || sleep 120"
    with started(command) as gateway:
        pids = tree_of(context.workspace)
        gateway.send_signal(signal.SIGKILL)
    wait_until_gone(pids)


def test_patched_process_goes_on_while_commands_run_side_by_side(context: ToolContext) -> None:
    line = "until test -e ticked; do sleep 0.02; done; echo waited"
    command = [sys.executable, "-c", PATCHED, str(context.workspace), line]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.count("status 0") == 2
    assert done.stdout.count("waited") == 2


def test_supervisor_that_is_killed_is_reported(context: ToolContext) -> None:
    with pytest.raises(ToolError, match="its supervisor was killed"):
        run(context, command="kill -9 $PPID; exec true")


@pytest.mark.parametrize(
    "stop", ["kill -STOP $PPID", "(while kill -STOP $PPID; do :; done) &"], ids=["once", "again and again"]
)
def test_command_that_stops_its_supervisor_keeps_to_its_time(context: ToolContext, stop: str) -> None:
    assert context.workspace is not None
    try:
        with concurrency.deadline(GENEROUS_SECONDS):
            told = run(context, command=f"echo $$ > pid\n{stop}\nexec sleep 600", timeout_seconds=2)
    except ToolError as error:
        told = str(error)
    assert "did not finish within 2 seconds" in told or "its supervisor was killed" in told
    wait_until_gone([int((context.workspace / "pid").read_text())])


def test_command_that_stops_its_supervisor_dies_with_gateway(context: ToolContext) -> None:
    assert context.workspace is not None
    line = f"mkdir mine && kill -STOP $PPID && exec {sys.executable} tree.py || sleep 120"
    (context.workspace / "tree.py").write_text(TREE)
    with started([sys.executable, "-c", PATCHED, str(context.workspace), line]) as gateway:
        pids = tree_of(context.workspace)
        gateway.send_signal(signal.SIGKILL)
    wait_until_gone(pids)


def test_command_that_kills_its_supervisor_dies_with_it(context: ToolContext) -> None:
    assert context.workspace is not None
    with pytest.raises(ToolError, match="its supervisor was killed"):
        run(context, command="echo $$ > pid; kill -9 $PPID; exec sleep 600")
    wait_until_gone([int((context.workspace / "pid").read_text())])


@pytest.mark.parametrize("kill", ["kill -9 $PPID", 'setsid sh -c "kill -9 $PPID; sleep $0" $0'], ids=["in it", "apart"])
def test_command_that_kills_its_supervisor_leaves_nothing(context: ToolContext, kill: str) -> None:
    for turn in range(20):  # a shell may die before it starts another program or after
        mark = f"60.{turn:02}{os.getpid()}"
        line = f"sleep {mark} & setsid sleep {mark} & {kill}; sleep {mark}"
        with pytest.raises(ToolError, match="its supervisor was killed"):
            run(context, argv=["/bin/sh", "-c", line, mark])
        assert not [process for process in psutil.process_iter(["cmdline"]) if mark in (process.info["cmdline"] or ())]


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's reparenting")
def test_command_that_kills_guard_and_supervisor_leaves_nothing(context: ToolContext) -> None:
    mark = f"61.{os.getpid()}"
    with started(["/bin/sleep", f"60.{os.getpid()}"]) as other, concurrency.deadline(GENEROUS_SECONDS):
        with pytest.raises(ToolError, match="its supervisor was killed"):
            run(context, argv=[sys.executable, "-c", KILL_BOTH, mark])
        assert not [process for process in psutil.process_iter(["cmdline"]) if mark in (process.info["cmdline"] or ())]
        assert other.poll() is None, "a child that is no command's was killed"
        other.kill()


def test_command_that_kills_guard_is_supervised_all_same(context: ToolContext) -> None:
    find = "guard=$(sed -n 's/^PPid:\t//p' /proc/$PPID/status); grep -q supervisor /proc/$guard/cmdline"
    told = run(context, command=f"{find} && kill -9 $guard && echo killed; sleep 60 & exit 3")
    assert told.startswith("The command exited with status 3")
    assert "It left 1 process(es) running in the background; they were ended" in told
    assert "killed" in told


def test_command_that_stops_guard_is_not_waited_for_once_it_has_ended(context: ToolContext) -> None:
    guard = "$(sed -n 's/^PPid:\t//p' /proc/$PPID/status)"
    with concurrency.deadline(3 * GENEROUS_SECONDS):
        stopped = f"until grep -q '^State:.T' /proc/{guard}/status; do :; done"  # soon, not at once
        told = run(
            context, command=f"kill -STOP {guard}; {stopped}; echo $(sed -n 's/^State:\t//p' /proc/{guard}/status)"
        )
    assert "T (stopped)" in told


def test_order_that_comes_late_to_socket_that_does_not_block_is_read() -> None:
    """As of a gateway that is busy after it has started the supervisor."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setblocking(False)
        start = program("service.core.processes.supervisor", str(theirs.fileno()))
        with started(start, stdout=subprocess.PIPE, pass_fds=[theirs.fileno()]) as process:
            theirs.close()
            while process.poll() is None and not running_children(process.pid):
                time.sleep(0.01)
            time.sleep(0.3)  # in which it would have given up
            order: dict[str, Any] = {
                "argv": ["/bin/echo", "tea"],
                "cwd": "/",
                "env": {},
                "limits": None,
                "sandbox": None,
            }
            limits = {"timeout_seconds": 60, "kept_bytes": 1000, "max_output_bytes": 1000}
            ours.sendall(json.dumps({**order, **limits}).encode() + b"\n")
            report = json.loads(process.communicate(timeout=GENEROUS_SECONDS)[0])
    assert report["stdout"]["head"] == "tea\n"


@pytest.mark.parametrize("moment", ["after_in_parent", "after_in_child"])
def test_no_signal_is_lost_at_fork_of_guard_and_supervisor(moment: str) -> None:
    assert report_of_a_signal(moment)["cause"] == "stopped"


def test_report_written_by_command_is_ignored(context: ToolContext) -> None:
    try:
        told = run(context, command="head -c 100000000 /dev/zero > /proc/$PPID/fd/1")
    except ToolError as error:
        told = str(error)
    assert "report cannot be read" in told or "Permission denied" in told  # root may open it


def test_terminal_codes_are_left_out_of_output(context: ToolContext) -> None:
    told = run(context, command=r"printf '\033[31mred\033[0m\r\n\001'; printf 'a\0b' >&2")
    assert told.endswith("stdout:\nred\n\nstderr:\na\nb")


def test_binary_output_is_reported_as_such(context: ToolContext) -> None:
    told = run(context, command="head -c 1000000 /dev/zero")
    assert "stdout:\n[about 1000000 bytes of binary output, not shown]\n" in told


def test_configured_time_limit_bounds_what_a_command_may_ask_for() -> None:
    tool = ExecTool({}, GlobalExecConfig.model_validate({"timeoutSec": 60, "sandbox": "off"}))
    limit = tool.parameters["properties"]["timeout_seconds"]
    assert (limit["maximum"], "60 if not given" in limit["description"]) == (60, True)
