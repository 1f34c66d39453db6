"""The built-in tools, each with its construction.

A tool's class carries its name, its groups and the rest of its `access`; `policy.py` reads them from there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from service.config.roster import Roster
from service.config.tools import GlobalToolsConfig
from service.core.dataclass import record
from service.tools.exec import ExecTool
from service.tools.process_slots import ToolSlots
from service.tools.sessions import (
    AgentsListTool,
    SessionsHistoryTool,
    SessionsListTool,
    SessionStatusTool,
    VisibleSessions,
)
from service.tools.tool import BuiltInTool
from service.tools.web import WebFetchTool
from service.tools.workspace.files import EditTool, ListTool, ReadTool, WriteTool
from service.tools.workspace.search import FindTool, GrepTool


@record
class ToolParts:
    """The arguments of the tools' constructors; `slots` are shared by all runtimes of a process."""

    config: GlobalToolsConfig
    roster: Roster
    sessions: VisibleSessions
    environ: Mapping[str, str]
    slots: ToolSlots


#: In the order in which models see them.
BUILT_IN_TOOLS: Mapping[type[BuiltInTool], Callable[[ToolParts], BuiltInTool]] = {
    ReadTool: lambda _parts: ReadTool(),
    WriteTool: lambda _parts: WriteTool(),
    EditTool: lambda _parts: EditTool(),
    ListTool: lambda _parts: ListTool(),
    FindTool: lambda parts: FindTool(parts.slots.searches),
    GrepTool: lambda parts: GrepTool(parts.slots.searches),
    ExecTool: lambda parts: ExecTool(parts.environ, parts.config.exec, slots=parts.slots.commands),
    WebFetchTool: lambda parts: WebFetchTool.from_config(parts.config.web.fetch, parts.slots.searches),
    SessionStatusTool: lambda parts: SessionStatusTool(parts.sessions),
    SessionsListTool: lambda parts: SessionsListTool(parts.sessions),
    SessionsHistoryTool: lambda parts: SessionsHistoryTool(parts.sessions),
    AgentsListTool: lambda parts: AgentsListTool(parts.roster),
}


def open_built_in_tools(parts: ToolParts) -> tuple[BuiltInTool, ...]:
    """Construct each built-in tool."""
    return tuple(construct(parts) for construct in BUILT_IN_TOOLS.values())
