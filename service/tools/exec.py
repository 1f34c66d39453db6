"""`exec`: run a program or a shell command in the agent's workspace.

The command runs in a sandbox (see `sandbox.py`) unless `tools.exec.sandbox` is "off". Time, output, processes and
memory are limited, and the command ends with the run. It gets a short list of harmless environment variables.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from service.config.tools import MAX_COMMAND_SECONDS, GlobalExecConfig
from service.core.processes.command import Command, CommandError, Outcome, Output, run_command
from service.core.processes.sandbox import PROGRAM_DIRECTORIES, ResourceLimits
from service.tools.exec_sandbox import ExecSandbox
from service.tools.process_slots import ProcessSlots
from service.tools.terminal_text import is_binary, to_plain_text
from service.tools.tool import ToolAccess, ToolContext, ToolError
from service.tools.workspace.hidden_files import HiddenFiles
from service.tools.workspace.paths import MOVED

DEFAULT_TIMEOUT_SECONDS = 120

#: Variables of the gateway's environment that are passed to commands. No proxies: their URLs may contain passwords.
SAFE_NAMES = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR")

_DESCRIPTION = (
    "Run a command in the workspace and return its exit status, output and errors. Give either `command`, a line for "
    "/bin/sh, or `argv`, a program and its arguments without a shell. There is no input and no terminal. Everything "
    "the command starts ends with it, background processes too. Long output is cut in the middle; terminal codes are "
    "removed."
)
_DEFAULTS = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}
_QUEUE_SECONDS = 60.0
_MARGIN_SECONDS = _QUEUE_SECONDS + 10.0  # for start, stop and report, so that the command's own limit applies first
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TEXT: Mapping[str, Any] = {"type": "string"}


def safe_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of `environment` that commands may see, with defaults for `PATH`, `LANG` and `TERM`."""
    kept = {name: environment[name] for name in SAFE_NAMES if environment.get(name)}
    return {**_DEFAULTS, **kept, "TERM": "dumb"}


class ExecTool:
    """Runs commands with the variables in `SAFE_NAMES` of the gateway's `environment`.

    The sandbox is chosen on first use.
    """

    name: ClassVar = "exec"
    access: ClassVar = ToolAccess(("group:runtime",), needs_workspace=True)
    parallel = False
    timeout_seconds = MAX_COMMAND_SECONDS + _MARGIN_SECONDS

    def __init__(
        self,
        environment: Mapping[str, str],
        config: GlobalExecConfig | None = None,
        program_directories: str = PROGRAM_DIRECTORIES,
        slots: ProcessSlots | None = None,
    ) -> None:
        self._environment = safe_environment(environment)
        self._config = config or GlobalExecConfig()
        self._program_directories = program_directories
        self._slots = slots or ProcessSlots()

    @cached_property
    def sandbox(self) -> ExecSandbox:
        """The sandbox of all commands."""
        return ExecSandbox.choose(self._config, self._program_directories)

    @property
    def _default_seconds(self) -> int:
        return min(DEFAULT_TIMEOUT_SECONDS, self._config.timeout_sec)

    @property
    def description(self) -> str:
        """The description for the model, which depends on the sandbox."""
        return f"{_DESCRIPTION} {_confinement_text(self.sandbox)}"

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The JSON schema of the arguments. `run` checks that either `command` or `argv` is given."""
        timeout = {"type": "number", "exclusiveMinimum": 0, "maximum": self._config.timeout_sec}
        return {
            "type": "object",
            "properties": {
                "command": {**_TEXT, "minLength": 1, "description": "A command line for /bin/sh."},
                "argv": {"type": "array", "items": _TEXT, "minItems": 1, "description": "A program and its arguments."},
                "cwd": {
                    **_TEXT,
                    "description": "The directory to run in, relative to the workspace, which is the default.",
                },
                "timeout_seconds": {
                    **timeout,
                    "description": f"When to end the command; {self._default_seconds} if not given.",
                },
                "env": {
                    "type": "object",
                    "additionalProperties": _TEXT,
                    "description": "Further environment variables.",
                },
            },
            "additionalProperties": False,
        }

    def run(self, arguments: Mapping[str, Any], context: ToolContext) -> str:
        """Run the command and return its status and output. A non-zero status is a result, not an error."""
        if self.sandbox.problem is not None:
            raise ToolError(f"The command did not run: {self.sandbox.to_text()}.")
        root, directory = _directories(context.workspace, arguments.get("cwd", "."))
        files = HiddenFiles(context.hidden)
        if self.sandbox.kind is not None and (problem := files.link_problem()) is not None:
            raise ToolError(f"The command did not run: {problem}.")
        if str(root) in files.paths:
            raise ToolError(
                "The command did not run: the workspace is the gateway's own directory. Configure another one."
            )
        command = Command(
            argv=_argv(arguments),
            cwd=str(directory),
            env={**self._environment, **self._variables(arguments.get("env", {}))},
            timeout_seconds=arguments.get("timeout_seconds", self._default_seconds),
            limits=self.sandbox.limits,
            sandbox=self.sandbox.for_workspace(root, files.paths_with_copies(str(root))),
        )
        try:
            with self._slots.hold(_QUEUE_SECONDS):
                outcome = run_command(command)
        except CommandError as error:
            raise ToolError(f"The command did not run: {error}.") from error
        return _to_text(outcome, command)

    def _variables(self, env: Mapping[str, str]) -> Mapping[str, str]:
        for name in env:
            if not _NAME.fullmatch(name):
                raise ToolError(f"`env` has the name {name!r}; a variable's name is letters, digits and `_`.")
        # A sandbox makes $TMPDIR, from outside: a model must not choose where.
        return {name: env[name] for name in env if name != "TMPDIR" or self.sandbox.kind is None}


def _confinement_text(sandbox: ExecSandbox) -> str:
    if sandbox.problem is not None:
        return "Commands are refused on this machine, as no sandbox works here."
    if sandbox.kind is None:
        return ""
    network = "the internet can be reached" if sandbox.network else "there is no network"
    return f"It runs in a sandbox: only the workspace and $TMPDIR can be written to, and {network}."


def _argv(arguments: Mapping[str, Any]) -> tuple[str, ...]:
    line, argv = arguments.get("command"), arguments.get("argv")
    if (line is None) == (argv is None):
        raise ToolError("Give either `command`, a line for the shell, or `argv`, a program and its arguments.")
    return tuple(argv or ("/bin/sh", "-c", line))


def _directories(workspace: Path | None, cwd: str) -> tuple[Path, Path]:
    """Return the workspace and the directory to run in, as real paths."""
    if workspace is None:
        raise ToolError(
            "This agent has no workspace to run commands in. The operator can set `agents.defaults.workspace`."
        )
    root = workspace
    if os.path.realpath(root) != str(root):
        raise ToolError(MOVED)
    if not _is_directory(root):
        raise ToolError(
            "The directory of this agent's workspace does not exist. Write a file to create it, or have the gateway's "
            "operator create it or set `agents.defaults.workspace`."
        )
    try:
        directory = (root / cwd).resolve()
        usable = directory.is_relative_to(root) and directory.is_dir()
    except (OSError, ValueError, RuntimeError):  # a name that is too long, contains NUL, or links to itself
        usable = False
    if not usable:
        raise ToolError("`cwd` must be a directory inside the workspace, relative to it, such as `src`.")
    return root, directory


def _is_directory(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        return False


def _to_text(outcome: Outcome, command: Command) -> str:
    lines = [_ending(outcome, command)]
    if outcome.left_running:
        lines.append(f"It left {outcome.left_running} process(es) running in the background; they were ended.")
    for name, output in (("stdout", outcome.stdout), ("stderr", outcome.stderr)):
        text = _output_text(output)
        lines.append(f"{name}:\n{text}" if text else f"{name}: (empty)")
    return "\n".join(lines)


def _ending(outcome: Outcome, command: Command) -> str:
    limits = command.limits or ResourceLimits()
    causes = {
        "timeout": f"it did not finish within {command.timeout_seconds:g} seconds",
        "output": f"it printed more than {command.max_output_bytes} bytes",
        "processes": f"it ran more than {limits.processes} processes and threads",
        "memory": f"it used more than {limits.memory_bytes} bytes of memory",
    }
    if outcome.cause == "stopped":
        return "The command was ended from outside."
    if outcome.cause is not None:
        return f"The command was ended: {causes[outcome.cause]}."
    if outcome.status < 0:
        return f"The command was ended by signal {-outcome.status} after {outcome.seconds:.1f} seconds."
    return f"The command exited with status {outcome.status} after {outcome.seconds:.1f} seconds."


def _output_text(output: Output) -> str:
    if is_binary(output.head):
        size = len(output.head) + output.cut_bytes + len(output.tail)
        return f"[about {size} bytes of binary output, not shown]"
    head = to_plain_text(output.head)
    if not output.cut_bytes:
        return head
    return f"{head}\n[... {output.cut_bytes} bytes omitted ...]\n{to_plain_text(output.tail)}"
