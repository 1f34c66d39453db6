"""The configuration's section on approvals: what happens to tool calls that nobody decides."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from service.config.problems import Section
from service.config.types import Seconds

#: What a rule says about the calls of a tool, from the least to the most restrictive.
ApprovalRule = Literal["allow", "ask", "deny"]

_MOST_SECONDS = 30 * 24 * 60 * 60


class ApprovalsConfig(Section):
    """Tool calls that wait for a person's decision."""

    timeout_seconds: Annotated[Seconds, Field(le=_MOST_SECONDS)] = 600
    """Time for a decision. The run's own time limit does not count it."""
    unattended: Literal["deny", "allow"] = "deny"
    """The decision on a call that nobody decides in time."""
