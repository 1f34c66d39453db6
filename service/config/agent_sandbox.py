"""OpenClaw's sandbox of an agent, mapped onto that of its commands.

OpenClaw runs an agent's tools in a container, without network. With `workspaceAccess: "rw"` they reach the workspace
there and nothing else, as they do here: file tools keep to the workspace, and so do commands in the sandbox of
`tools.exec`. What else a file demands of the container is refused.

https://docs.openclaw.ai/gateway/sandboxing
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

from service.config.key_paths import KeyPath, format_path
from service.config.problems import Section

#: Limits and rules of the container that the sandbox of commands does not have.
_RULES = ("apparmorProfile", "capDrop", "cpus", "memory", "memorySwap", "pidsLimit", "seccompProfile", "ulimits")


class SandboxConfig(Section):
    """OpenClaw's sandbox: commands have to run in that of `tools.exec`."""

    mode: Literal["off", "non-main", "all"] | None = None
    """"all" and "non-main" demand a sandbox for the agent's commands, in every session: `tools.exec.sandbox` must not
    be "off", and `workspaceAccess` has to be "rw"."""
    workspace_access: Literal["none", "ro", "rw"] | None = None
    """The workspace as a sandbox shows it. With "none", OpenClaw's default, and "ro" an agent would work in a
    directory of its own, which there is not here: they are refused while `mode` demands a sandbox."""


class SandboxSection(NamedTuple):
    """A sandbox in the file: its key, its fields, and all that is written there."""

    path: KeyPath
    config: SandboxConfig
    data: Mapping[str, Any]


def find_sandbox_problems(agent: SandboxSection, defaults: SandboxSection, *, is_off: bool) -> Iterator[str]:
    """Yield the settings of an agent's sandbox that cannot be enforced; `is_off`: `tools.exec.sandbox` is "off"."""
    mode = agent.config.mode or defaults.config.mode or "off"
    if mode == "off":
        return
    where = format_path((*(agent if agent.config.mode else defaults).path, "mode"))
    if is_off:
        yield f'{where}: "{mode}" demands a sandbox, but tools.exec.sandbox is "off"; remove one of the two'
    if (agent.config.workspace_access or defaults.config.workspace_access) != "rw":
        yield (
            f'{where}: "{mode}" needs workspaceAccess: "rw" beside it; without it the agent would have a directory of '
            "its own instead of its workspace, which there is not here. To keep commands and files from an agent, deny "
            '"group:runtime" and "group:fs" in its tools'
        )
    for place in (defaults, agent):
        yield from _container_rules(place)


def _container_rules(place: SandboxSection) -> Iterator[str]:
    docker = place.data.get("docker")
    if not isinstance(docker, Mapping):
        return
    for key in _RULES:
        if docker.get(key) not in (None, "", [], {}):
            path = format_path((*place.path, "docker", key))
            remedy = "remove it; tools.exec.limits limits each command"
            yield f"{path}: is a restriction this gateway cannot enforce; {remedy}"
