"""The configuration's section on MCP servers: where agents get further tools."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from service.config.problems import Section
from service.config.types import AbsolutePath, Bool, HeaderName, HeaderValue, HttpUrl, Seconds


class McpToolsConfig(Section):
    """The tools of one server that are offered, by patterns of its own names."""

    allow: tuple[str, ...] | None = None
    """Offer these tools only. Unset: all of them."""
    deny: tuple[str, ...] = ()
    """Never offer these tools, even if `allow` names them."""


class McpToolFilterConfig(Section):
    """OpenClaw's spelling of `tools`."""

    include: tuple[str, ...] = ()
    """Offer these tools only. Empty: all of them."""
    exclude: tuple[str, ...] = ()
    """Never offer these tools."""


class McpServerConfig(Section):
    """An MCP server: a command that speaks on its standard streams, or the URL of a running one."""

    enabled: Bool = True
    """`false` leaves the server out."""
    command: str | None = None
    """The program to start."""
    args: tuple[str, ...] = ()
    """Arguments of the program."""
    env: dict[str, str] = Field(default_factory=dict, repr=False)
    """Environment variables of the program. It gets none of the gateway's own secrets."""
    cwd: AbsolutePath | None = None
    """Directory to start the program in."""
    transport: Literal["stdio", "streamable-http"] | None = None
    """The transport to the server. Unset: by `command` or `url`, whichever is set."""
    headers: dict[HeaderName, HeaderValue] = Field(default_factory=dict, repr=False)
    """HTTP headers to send to the server at `url`."""
    timeout_seconds: Seconds = 60
    """Time limit of one call, the start of the server included."""
    tool_filter: McpToolFilterConfig | None = None
    """OpenClaw's spelling of `tools`."""
    tools: McpToolsConfig = McpToolsConfig()
    """The tools of the server that are offered."""
    url: Annotated[HttpUrl | None, Field(validate_default=True)] = None
    """Address of a server that runs by itself."""

    sandbox: Literal["off", "auto", "landlock", "bwrap"] = "off"
    """The sandbox of the program: as in `tools.exec.sandbox`, but "off" by default. It can write to `cwd` and $TMPDIR
    only. A server whose sandbox does not work on the machine is not started."""
    network: Bool = True
    """`false` takes the network away from the program; it needs a sandbox."""

    @property
    def tool_lists(self) -> McpToolsConfig:
        """The tools that are offered, however they are spelt."""
        if self.tool_filter is None:
            return self.tools
        return McpToolsConfig(allow=self.tool_filter.include or None, deny=self.tool_filter.exclude)

    @field_validator("tools")
    @classmethod
    def _check_one_spelling(cls, tools: McpToolsConfig, info: ValidationInfo) -> McpToolsConfig:
        if info.data.get("tool_filter") is not None:
            raise ValueError("toolFilter is given too; keep one of the two spellings")
        return tools

    @field_validator("url")
    @classmethod
    def _check_one_way(cls, url: str | None, info: ValidationInfo) -> str | None:
        if (url is None) == (info.data.get("command") is None):
            raise ValueError('give either "command" or "url"')
        return url

    @model_validator(mode="after")
    def _check_sandbox(self) -> Self:
        if self.command is None and not self.model_fields_set.isdisjoint({"sandbox", "network"}):
            raise ValueError('sandbox and network apply to a "command" only; a server at a url runs elsewhere')
        if self.sandbox == "off" and not self.network:
            raise ValueError('network: false needs a sandbox; remove it, or set sandbox to "auto"')
        return self


def _enabled(servers: dict[str, McpServerConfig]) -> dict[str, McpServerConfig]:
    return {name: server for name, server in servers.items() if server.enabled}


class McpConfig(Section):
    """MCP servers."""

    servers: Annotated[dict[str, McpServerConfig], AfterValidator(_enabled)] = Field(default_factory=dict)
    """The servers by name; the names of their tools begin with it."""
