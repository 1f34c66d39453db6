"""`exec`: run a program or a shell command in the agent's workspace.

It is not sandboxed: the command has the rights of the gateway's user, may read what that user may read, the gateway's
own files among it, and may reach the network. What holds is that it is bounded: in time, in output, and to the run that
asked for it (`supervisor.py` says how). It is not given the gateway's environment, only a short list of harmless names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from service.core.processes.command import Command, CommandError, Outcome, Output, run_command
from service.tools.terminal_text import is_binary, to_plain_text
from service.tools.tool import ToolContext, ToolError

DEFAULT_TIMEOUT_SECONDS = 120
MAX_TIMEOUT_SECONDS = 1800

#: What commands see of the gateway's own environment. Proxies are not among it: their addresses may hold passwords.
SAFE_NAMES = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR")

_DEFAULTS = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}
_MARGIN_SECONDS = 10.0  # for starting, ending and telling: a command's own limit is to be met first
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TEXT: Mapping[str, Any] = {"type": "string"}


def safe_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """What of `environment` commands may see, completed so that programs find each other and write plain text."""
    kept = {name: environment[name] for name in SAFE_NAMES if environment.get(name)}
    return {**_DEFAULTS, **kept, "TERM": "dumb"}


class ExecTool:
    """Runs commands; `environment` is the gateway's own, of which they see `SAFE_NAMES` only."""

    name = "exec"
    description = (
        "Run a command in the workspace and return its exit status, output and errors. Give either `command`, a line "
        "for /bin/sh, or `argv`, a program and its arguments without a shell. There is no input and no terminal. "
        "Everything the command starts ends with it, background processes too. Long output loses "
        "its middle; terminal codes are left out."
    )
    parallel = False
    timeout_seconds = MAX_TIMEOUT_SECONDS + _MARGIN_SECONDS

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = safe_environment(environment)

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The JSON schema of its arguments; that one of `command` and `argv` is given is checked by `run`."""
        timeout = {"type": "number", "exclusiveMinimum": 0, "maximum": MAX_TIMEOUT_SECONDS}
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
                    "description": f"When to end the command; {DEFAULT_TIMEOUT_SECONDS} if not given.",
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
        """Run the command and tell how it ended; a status other than 0 is a result like any other."""
        command = Command(
            argv=_argv(arguments),
            cwd=str(_directory(context.workspace, arguments.get("cwd", "."))),
            env={**self._environment, **_variables(arguments.get("env", {}))},
            timeout_seconds=arguments.get("timeout_seconds", DEFAULT_TIMEOUT_SECONDS),
        )
        try:
            outcome = run_command(command)
        except CommandError as error:
            raise ToolError(f"The command did not run: {error}.") from error
        return _to_text(outcome, command)


def _argv(arguments: Mapping[str, Any]) -> tuple[str, ...]:
    line, argv = arguments.get("command"), arguments.get("argv")
    if (line is None) == (argv is None):
        raise ToolError("Give either `command`, a line for the shell, or `argv`, a program and its arguments.")
    return tuple(argv or ("/bin/sh", "-c", line))


def _directory(workspace: Path | None, cwd: str) -> Path:
    if workspace is None:
        raise ToolError(
            "This agent has no workspace, and commands run nowhere else. Whoever runs the gateway names a directory in "
            "`agents.defaults.workspace`."
        )
    if not _is_directory(workspace):
        raise ToolError(
            "The directory of this agent's workspace is not there, and commands run nowhere else. It comes with the "
            "first file written; else whoever runs the gateway has to make it or to name another in "
            "`agents.defaults.workspace`."
        )
    try:
        root = workspace.resolve()
        directory = (root / cwd).resolve()
        usable = directory.is_relative_to(root) and directory.is_dir()
    except (OSError, ValueError, RuntimeError):  # a name that is too long, holds NUL, or links to itself
        usable = False
    if not usable:
        raise ToolError("`cwd` must be a directory inside the workspace, relative to it, such as `src`.")
    return directory


def _is_directory(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        return False


def _variables(env: Mapping[str, str]) -> Mapping[str, str]:
    for name in env:
        if not _NAME.fullmatch(name):
            raise ToolError(f"`env` has the name {name!r}; a variable's name is letters, digits and `_`.")
    return env


def _to_text(outcome: Outcome, command: Command) -> str:
    lines = [_ending(outcome, command)]
    if outcome.left_running:
        lines.append(f"It left {outcome.left_running} process(es) running in the background; they were ended.")
    for name, output in (("stdout", outcome.stdout), ("stderr", outcome.stderr)):
        text = _shown(output)
        lines.append(f"{name}:\n{text}" if text else f"{name}: (empty)")
    return "\n".join(lines)


def _ending(outcome: Outcome, command: Command) -> str:
    match outcome.cause:
        case "timeout":
            return f"The command was ended: it did not finish within {command.timeout_seconds:g} seconds."
        case "output":
            return f"The command was ended: it printed more than {command.max_output_bytes} bytes."
        case "stopped":
            return "The command was ended from outside."
    if outcome.status < 0:
        return f"The command was ended by signal {-outcome.status} after {outcome.seconds:.1f} seconds."
    return f"The command exited with status {outcome.status} after {outcome.seconds:.1f} seconds."


def _shown(output: Output) -> str:
    if is_binary(output.head):
        size = len(output.head) + output.cut_bytes + len(output.tail)
        return f"[about {size} bytes of binary output, not shown]"
    head = to_plain_text(output.head)
    if not output.cut_bytes:
        return head
    return f"{head}\n[... {output.cut_bytes} bytes left out here ...]\n{to_plain_text(output.tail)}"
