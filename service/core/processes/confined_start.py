"""Start a command for its supervisor, with limits and inside a sandbox. Needs only the standard library."""

from __future__ import annotations

import os
import signal
import subprocess
from typing import TYPE_CHECKING, Any

from service.core.processes.process_tree import count_threads_of, tree_of
from service.core.processes.reaper import set_dumpable, tie_to_parent

if TYPE_CHECKING:
    from service.core.processes.permission_broker import PermissionBroker
    from service.core.processes.sandbox import Confinement, ResourceLimits


class ConfinedStart:
    """The start of one command, and what holds until its end: limits, a sandbox, a temporary directory."""

    def __init__(self, order: dict[str, Any]) -> None:
        self.limits: ResourceLimits | None = None
        self._order = order
        self._env: dict[str, str] = order["env"]
        self._confinement: Confinement | None = None
        self._temporary: str | None = None
        self._running = 0
        self.broker: PermissionBroker | None = None
        if order["limits"] is not None:
            from service.core.processes.sandbox import ResourceLimits  # noqa: PLC0415 - few commands need it

            self.limits = ResourceLimits(*order["limits"])
            self._running = count_threads_of(os.getuid())
        if order["sandbox"] is not None:
            self._confine(order)

    def start(self) -> subprocess.Popen[bytes]:
        """Start the command. Raises `OSError`."""
        confinement, order = self._confinement, self._order
        process = subprocess.Popen(
            order["argv"] if confinement is None else confinement.argv,
            cwd=order["cwd"],
            env=self._env if confinement is None else confinement.start_env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
            pass_fds=() if confinement is None else confinement.descriptors,
            preexec_fn=self._become_command,  # noqa: PLW1509 - there is one thread
        )
        if confinement is not None:
            self.broker = confinement.open_broker()
        return process

    def exceeded(self) -> str | None:
        """Return which limit the command and what it started exceed together, if any."""
        if self.limits is None:
            return None
        tree = tree_of(os.getpid())
        if sum(process.threads for process in tree) > self.limits.processes:
            return "processes"
        return "memory" if sum(process.resident_bytes for process in tree) > self.limits.memory_bytes else None

    def remove(self) -> None:
        """Delete the temporary directory."""
        if self._temporary is not None:
            import shutil  # noqa: PLC0415 - few commands need it

            shutil.rmtree(self._temporary, ignore_errors=True)

    def _confine(self, order: dict[str, Any]) -> None:
        from service.core.processes.sandbox import Confinement, Sandbox  # noqa: PLC0415 - few commands need it

        sandbox = Sandbox(*order["sandbox"])
        temporary = "/tmp"  # noqa: S108 - bubblewrap's is private
        if sandbox.kind == "landlock":
            parent = os.path.realpath(self._env.get("TMPDIR", temporary))
            temporary = self._temporary = f"{parent}/openclaw-{os.urandom(8).hex()}"
            os.mkdir(temporary, 0o700)  # noqa: PTH102 - pathlib is slow to import
        self._env = {**self._env, "TMPDIR": temporary}
        self._confinement = Confinement(sandbox, order["argv"], order["cwd"], self._temporary, self._env)

    def _become_command(self) -> None:
        tie_to_parent(os.getppid(), signal.SIGKILL)
        if self.limits is not None:
            from service.core.processes.sandbox import lower_priority  # noqa: PLC0415 - imported above

            # As long as this is a copy of the supervisor, which cannot be dumped, its files in /proc are root's.
            set_dumpable(on=True)
            lower_priority()
            self.limits.enforce(self._running)
        if self._confinement is not None:
            self._confinement.enforce()
