"""The configuration's section on MCP servers: where agents get further tools."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from service.config.problems import Section
from service.config.types import AbsolutePath, HeaderName, HeaderValue, HttpUrl, Seconds


class McpToolsConfig(Section):
    """Which of a server's tools are offered, by patterns of their own names; deny wins."""

    allow: tuple[str, ...] | None = None
    deny: tuple[str, ...] = ()


class McpServerConfig(Section):
    """An MCP server: a command that speaks on its standard streams, or the URL of one that is running."""

    command: str | None = None
    args: tuple[str, ...] = ()
    env: dict[str, str] = Field(default_factory=dict, repr=False)
    cwd: AbsolutePath | None = None
    transport: Literal["stdio", "streamable-http"] | None = None
    headers: dict[HeaderName, HeaderValue] = Field(default_factory=dict, repr=False)
    timeout_seconds: Seconds = 60
    tools: McpToolsConfig = McpToolsConfig()
    url: Annotated[HttpUrl | None, Field(validate_default=True)] = None

    @field_validator("url")
    @classmethod
    def _check_one_way(cls, url: str | None, info: ValidationInfo) -> str | None:
        if (url is None) == (info.data.get("command") is None):
            raise ValueError('give either "command" or "url"')
        return url


class McpConfig(Section):
    """MCP servers by the name their tools begin with."""

    servers: dict[str, McpServerConfig] = Field(default_factory=dict)
