"""The tools of an agent as callers may use them: listed, and called without a model.

A call is a run like any other: it has a slot, a time limit and a record, waits for approvals, ends with its caller, and
can be asked for again by its idempotency key. It is a turn of no session; a session key only concerns the tool, and the
approvals, where it is used.
"""

from __future__ import annotations

from collections.abc import Callable

from service.agent.agent_tools import AgentTools
from service.agent.conversation import Conversation
from service.agent.invocation import INVOKED, InvokedTool
from service.agent.request import AgentRequest
from service.config.roster import Agent
from service.core.dataclass import record
from service.core.errors import GatewayError
from service.core.messages import Function, ToolCall, ToolChoice
from service.core.principal import Principal
from service.gateway.runtime import Runtime, RuntimeLease
from service.gateway.session_selection import choose_session
from service.models.catalog import EMBEDDED_REFERENCE, ChosenModel
from service.models.provider import ModelRequest
from service.storage.runs.records import AcceptedRun
from service.storage.sessions.keys import SessionKey
from service.tools.policy import ApprovalPolicy
from service.tools.tool import ToolContext
from service.tools.toolbox import Toolbox


@record
class ListedTool:
    """A tool and whether its calls wait for an approval."""

    function: Function
    approval: ApprovalPolicy


def list_tools(lease: RuntimeLease, agent_id: str | None, principal: Principal) -> tuple[Agent, tuple[ListedTool, ...]]:
    """Return the agent and the tools that its policy lets callers, here `principal`, use. Waits for its MCP servers.

    Raises `GatewayError` (`model_not_found`) for an unknown agent.
    """
    with lease:
        agent = lease.runtime.roster.of(principal).resolve(None, agent_id)
        tools = _tools_of(agent, lease.runtime)
        return agent, tuple(ListedTool(one, tools.approval_of(one.name)) for one in tools.functions())


@record
class InvocationPlan:
    """The resolved parts of a call: its agent, the model that stands for the call, its sessions."""

    agent: Agent
    choices: tuple[ChosenModel, ...]
    session: SessionKey
    context_key: str


def plan_invocation(
    request: AgentRequest, call: ToolCall, runtime: Runtime, new_id: Callable[[], str]
) -> InvocationPlan:
    """Resolve the agent and the sessions of a call. Raises the errors of `choose_session` and `Roster.resolve`."""
    roster, owner = runtime.roster.of(request.principal), request.principal.owner
    agent = roster.resolve(request.model, request.agent_id)
    session = choose_session(agent.id, None, None, new_id, owner=owner)
    context = session
    if request.session_key is not None:
        context = choose_session(agent.id, request.session_key, None, new_id, roster, owner)
    choice = ChosenModel(INVOKED, call.name, InvokedTool(call), takes_images=False, retried=False)
    return InvocationPlan(agent, (choice,), session, context.key)


@record
class Invocation:
    """Input of the agent loop for a call."""

    model_request: ModelRequest
    conversation: Conversation
    tools: AgentTools


def prepare_invocation(
    request: AgentRequest, call: ToolCall, agent: Agent, runtime: Runtime, accepted: AcceptedRun, key: str
) -> Invocation:
    """Find the tool, in the session with this `key`. Waits for MCP servers.

    Raises `GatewayError` (`tool_not_found`) for a tool that does not exist or that the policy hides.
    """
    tools = _tools_of(agent, runtime)
    if call.name not in tools:
        text = f"The agent {agent.id} has no tool of this name. GET /v1/tools lists its tools."
        raise GatewayError("tool_not_found", text, param="tool")
    context = to_context(request, agent, runtime, accepted, key)
    own = AgentTools(tools, context, (), ToolChoice())
    return Invocation(ModelRequest(INVOKED, "", (), *own.offered()), Conversation((), ()), own)


def to_context(request: AgentRequest, agent: Agent, runtime: Runtime, accepted: AcceptedRun, key: str) -> ToolContext:
    """Return the context of the tools of a run in the session with this `key`."""
    functions = tuple([function.name for function in request.functions])
    usable = request.principal.agents
    return ToolContext(agent.id, agent.workspace_root, key, accepted.id, runtime.hidden, functions, usable)


def _tools_of(agent: Agent, runtime: Runtime) -> Toolbox:
    models = (agent.model or EMBEDDED_REFERENCE, *agent.fallbacks)
    return runtime.toolboxes.invocable(agent, models)
