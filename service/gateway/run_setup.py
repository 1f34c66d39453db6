"""Preparation of a run: what its request resolves to, its deadline, and its model request, history and tools."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic

from service.agent.agent_tools import AgentTools
from service.agent.conversation import Conversation, select_new
from service.agent.model_fit import fit_choices
from service.agent.placement import Placement, place_request
from service.agent.request import AgentRequest, check_model, check_names
from service.agent.restored_tool_steps import recall_steps
from service.agent.side_tasks import find_task
from service.agent.structured_output import OutputCheck, open_check
from service.agent.system_prompt import to_system_text
from service.config.roster import Agent
from service.core.dataclass import record, replace
from service.core.errors import GatewayError
from service.core.ids import with_time
from service.core.messages import Role, Sampling
from service.gateway.rate_limiter import Ticket
from service.gateway.runtime import RuntimeLease
from service.gateway.session_selection import choose_session
from service.gateway.tool_invocation import Invocation, plan_invocation, prepare_invocation, to_context
from service.models.catalog import ChosenModel
from service.models.provider import ModelRequest
from service.storage.runs.records import RUN_ID_PREFIX, AcceptedRun
from service.storage.sessions.keys import SessionKey, own_run_id, owner_of
from service.storage.sessions.tree import SessionHead
from service.storage.storage import Storage
from service.tools.toolbox import Toolbox

#: The encoding of shorter histories is not kept.
_MIN_CONTINUED = 16

#: Shorter waits for a slot are not mentioned in an error.
_MENTIONED_SECONDS = 0.1


@record
class RunPlan:
    """A request and what it resolves to; `lease` keeps the configuration it was resolved with open.

    `ticket` is its admission, if a limit concerns it.
    """

    request: AgentRequest
    agent: Agent
    choices: tuple[ChosenModel, ...]
    session: SessionKey
    lease: RuntimeLease
    context_key: str | None = None
    """The session in which a tool is called without a model."""
    ticket: Ticket | None = None

    @property
    def sampling(self) -> Sampling:
        """The sampling parameters in force: the request's, and where it has none the agent's for its first model."""
        defaults = self.choices[0].defaults
        return self.request.sampling if defaults is None else self.request.sampling.over(defaults)

    @property
    def queue_seconds(self) -> float:
        """The longest wait for the session."""
        limit = self.lease.runtime.limits.queue_seconds
        return self.agent.timeout_seconds if limit is None else min(limit, self.agent.timeout_seconds)


def plan_run(request: AgentRequest, lease: RuntimeLease, new_id: Callable[[], str]) -> RunPlan:
    """Resolve the request's agent, models and session.

    A side request gets a new session. Raises `GatewayError`: an unknown agent or model, input the model does not
    support, a reserved session key.
    """
    runtime = lease.runtime
    if request.call is not None:
        call = plan_invocation(request, request.call, runtime, new_id)
        return RunPlan(request, call.agent, call.choices, call.session, lease, call.context_key)
    task = find_task(request, runtime.tasks)
    if task is not None:
        request = replace(request, task=task, session_key=None, user=None)
    elif request.task is not None:
        request = replace(request, task=None)
    principal, task_model = request.principal, runtime.tasks.model
    roster = runtime.roster.of(principal)
    agent = roster.resolve(request.model, request.agent_id)
    is_for_task = task is not None and task_model is not None and request.provider_model is None
    if is_for_task and task_model is not None and principal.may_use(task_model):
        choices: tuple[ChosenModel, ...] = (runtime.catalog.choose_named(task_model),)
    else:
        choices = runtime.catalog.choices(request.provider_model, agent, principal)
    check_model(request, choices[0])
    session = choose_session(agent.id, request.session_key, request.user, new_id, roster, principal.owner)
    return RunPlan(request, agent, choices, session, lease)


def to_accepted(plan: RunPlan, new_id: Callable[[], str], now_ms: int) -> AcceptedRun:
    """Return the facts of a run that is accepted now."""
    request, session, principal = plan.request, plan.session, plan.request.principal
    named = request.run_id and own_run_id(request.run_id, principal.owner)
    claimed = request.idempotency_key is not None
    return AcceptedRun(
        named or f"{RUN_ID_PREFIX}{with_time(new_id(), now_ms)}",
        session.key,
        plan.agent.id,
        request.protocol,
        now_ms,
        session.fresh,
        claimed,
        request.detached,
        request.metadata,
        request.webhook,
        None if request.response is None else request.response(plan.agent.id, plan.sampling),
        principal.account,
        principal.user or request.end_user,
    )


class RunDeadline:
    """The time limit of a run, which begins once it has its session: now.

    `seconds` is the agent's limit, or the request's if that is less. Waiting for a slot counts, and so does
    preparation.
    """

    def __init__(self, plan: RunPlan) -> None:
        limit = plan.agent.timeout_seconds
        self.seconds = min(limit, plan.request.timeout_seconds or limit)
        self._ends_at = monotonic() + self.seconds
        self._waited_seconds = 0.0

    def end_wait(self) -> float:
        """Note that the run has its slot; return the time that is left."""
        left = self.left_seconds()
        self._waited_seconds = self.seconds - left
        return left

    def left_seconds(self) -> float:
        """Return the time that is left."""
        return max(0.0, self._ends_at - monotonic())

    def to_error(self) -> GatewayError:
        """The error of a run that exceeded it."""
        text = f"The run took longer than its limit of {self.seconds:g} seconds"
        if self._waited_seconds >= _MENTIONED_SECONDS:
            text = f"{text}; it waited {self._waited_seconds:.1f} of them for a slot (agents.defaults.maxConcurrent)"
        return GatewayError("run_timeout", f"{text}.")


@record
class PreparedRun:
    """Input of the agent loop, ready to be sent. `placement` is that of the turn in its session, if it has one."""

    choices: tuple[ChosenModel, ...]
    model_request: ModelRequest
    conversation: Conversation
    placement: Placement | None
    tools: AgentTools
    output: OutputCheck | None
    keep_partial: bool
    """Store partial output if the run fails: only output that a reader has seen and no client sends again by itself."""


def _own_tools(plan: RunPlan, names: Sequence[str]) -> Toolbox:
    """Return the agent's tools for the run beside the caller's functions with these `names`; none for a side request.

    Raises `GatewayError` if a function of the caller has the name of one.
    """
    if plan.request.task is not None:
        return Toolbox(())
    toolboxes = plan.lease.runtime.toolboxes
    own_tools = toolboxes.of(plan.agent, names, [choice.ref for choice in plan.choices])
    check_names(plan.request.functions, own_tools)
    return own_tools


def _prepare_call(plan: RunPlan, call: Invocation) -> PreparedRun:
    return PreparedRun(
        plan.choices, call.model_request, call.conversation, None, call.tools, output=None, keep_partial=False
    )


def prepare(plan: RunPlan, accepted: AcceptedRun, storage: Storage, head: SessionHead) -> PreparedRun:
    """Build the model request of a run that has its session: history, new messages, system prompt and tools.

    `head` is that of the session.

    Waits for MCP servers and remote images. Raises `GatewayError` for what is wrong with the request.
    """
    request, agent, runtime = plan.request, plan.agent, plan.lease.runtime
    if request.call is not None:
        key = plan.context_key or accepted.session_key
        return _prepare_call(plan, prepare_invocation(request, request.call, agent, runtime, accepted, key))
    output = open_check(request.sampling.response_format, runtime.slots.searches)
    context = to_context(request, agent, runtime, accepted, accepted.session_key)
    own_tools = _own_tools(plan, context.caller_functions)
    transcripts = storage.transcripts
    placement = None if accepted.stateless else place_request(request, accepted.session_key, transcripts, head)
    if placement is None:
        incoming = recall_steps(
            request.messages, agent.id, owner_of(accepted.session_key), storage.records, transcripts
        )
        new = select_new((), incoming, has_instructions=bool(request.system_text))
    else:
        new = placement.new
    history = () if placement is None else placement.history
    conversation = Conversation(history, tuple([item.message for item in runtime.check_images(new)]))
    tools = AgentTools(own_tools, context, request.functions, request.tool_choice, request.max_tool_calls)
    model_request = ModelRequest(
        plan.choices[0].ref,
        to_system_text(agent, runtime.hidden, channel=request.channel, request_text=request.system_text),
        conversation.messages,
        *tools.offered(),
        request.sampling,
        continued=len(history) >= _MIN_CONTINUED,
        unsigned=0 if placement is None else placement.loaded.unsigned,
    )
    choices = fit_choices(plan.choices, conversation, with_functions=request.offers_functions)
    may_keep = request.streamed and request.idempotency_key is None
    keep_partial = may_keep and all(message.role is Role.USER for message in conversation.new)
    return PreparedRun(choices, model_request, conversation, placement, tools, output, keep_partial)
