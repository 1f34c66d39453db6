"""Choose the sandbox for commands from the configuration and what the machine supports."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from service.config.tools import GlobalExecConfig
from service.core.dataclass import record
from service.core.processes.sandbox import PROGRAM_DIRECTORIES, Kind, ResourceLimits, Sandbox, choose_sandbox, describe

_MIB = 1024 * 1024


@record
class ExecSandbox:
    """The sandbox of commands: `kind` is `None` if it is off, and with a `problem` commands are refused."""

    kind: Kind | None
    program: str
    network: bool
    limits: ResourceLimits
    problem: str | None = None

    @classmethod
    def choose(cls, config: GlobalExecConfig, program_directories: str = PROGRAM_DIRECTORIES) -> Self:
        """Find the configured sandbox, the strongest available one for "auto". Starts a program to test it."""
        limits = ResourceLimits(
            processes=config.limits.max_processes,
            memory_bytes=config.limits.max_memory_mb * _MIB,
            file_bytes=config.limits.max_file_mb * _MIB,
            cpu_seconds=config.limits.max_cpu_seconds,
        )
        if config.sandbox == "off":
            return cls(None, "", True, limits)
        try:
            kind, program = choose_sandbox(config.sandbox, program_directories)
        except OSError as error:
            return cls(None, "", False, limits, str(error))
        return cls(kind, program, config.network, limits)

    def for_workspace(self, workspace: Path, hidden: tuple[str, ...]) -> Sandbox | None:
        """Return the sandbox for a command in `workspace`, `None` if it is off."""
        if self.kind is None:
            return None
        return Sandbox(self.kind, (str(workspace),), hidden, self.network, self.program)

    def to_text(self) -> str:
        """Describe it in a clause of plain English."""
        if self.problem is not None:
            return (
                f"commands are refused, as no sandbox works here: {self.problem}. Install bubblewrap, or set "
                'tools.exec.sandbox to "off" to run commands with the rights of the gateway'
            )
        if self.kind is None:
            return (
                "commands run without a sandbox, with the rights of the gateway: they can read its configuration and "
                "state; edits of the configuration take effect only after a restart"
            )
        return f"commands run in a sandbox: {describe(self.kind, network=self.network)}"
