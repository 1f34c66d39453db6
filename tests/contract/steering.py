"""Generation hooks that satisfy requirements which a schema cannot express.

A request that satisfies the contract may still be refused for good reasons: an agent that is not configured, a tool's
result without its call, no message to answer. The hooks change such a request so that the gateway must accept it.
Requests that break the contract pass through the same hooks, so that the breach is the only reason to refuse them; a
change that would repair the breach is not made.
"""

from __future__ import annotations

import copy
import uuid
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote, unquote

import schemathesis
from schemathesis import BaseSchema, Case, HookContext
from schemathesis.core.parameters import ParameterLocation
from schemathesis.generation.meta import negated_parameters

from contract.response_steering import mend_response_request
from contract.seeds import Seeds
from service.api.http.schema_validation import CompiledSchema

#: Every name of an agent of `scripted_config()`, including differences in case. The agent `asker` would wait.
MODELS = ("openclaw", "openclaw/default", "openclaw/main", "openclaw/beta", "openclaw:beta", "agent:main", "OpenClaw")
AGENTS = ("main", "beta", "Beta", "default")
#: Tools that every agent has, and that need no arguments.
TOOL_NAMES = ("sessions_list", "agents_list", "session_status")
#: `tools` calls the first function, so that answers have tool calls without a `tool_choice`.
PROVIDER_MODELS = ("scripted/echo", "scripted/count-3", "scripted/tools")
FAILING_MODELS = (
    "scripted/fail-rate_limit_exceeded",
    "scripted/fail-provider_error",
    "scripted/fail-provider_unavailable",
    "scripted/fail-provider_timeout",
    "scripted/fail-midway",
)

COMPLETION = "POST /v1/chat/completions"
RESPONSE = "POST /v1/responses"
GET_RESPONSE = "GET /v1/responses/{response_id}"
HEAD_RESPONSE = "HEAD /v1/responses/{response_id}"
DELETE_RESPONSE = "DELETE /v1/responses/{response_id}"
CANCEL_RESPONSE = "POST /v1/responses/{response_id}/cancel"
INPUT_ITEMS = "GET /v1/responses/{response_id}/input_items"
HEAD_INPUT_ITEMS = "HEAD /v1/responses/{response_id}/input_items"
MODEL = "GET /v1/models/{model}"
HEAD_MODEL = "HEAD /v1/models/{model}"
SESSION = "GET /v1/sessions/{key}"
HEAD_SESSION = "HEAD /v1/sessions/{key}"
DELETE_SESSION = "DELETE /v1/sessions/{key}"
FORK_SESSION = "POST /v1/sessions/{key}/fork"
CREATE_RUN = "POST /v1/runs"
RUN = "GET /v1/runs/{run_id}"
HEAD_RUN = "HEAD /v1/runs/{run_id}"
RUN_EVENTS = "GET /v1/runs/{run_id}/events"
HEAD_RUN_EVENTS = "HEAD /v1/runs/{run_id}/events"
CHAT_STREAM = "GET /v1/runs/{run_id}/chat-stream"
HEAD_CHAT_STREAM = "HEAD /v1/runs/{run_id}/chat-stream"
CANCEL_RUN = "POST /v1/runs/{run_id}/cancel"
EMBEDDINGS = "POST /v1/embeddings"
TOOLS = "GET /v1/tools"
HEAD_TOOLS = "HEAD /v1/tools"
CALL_TOOL = "POST /tools/invoke"
APPROVALS = "GET /v1/approvals"
DECIDE_APPROVAL = "POST /v1/approvals/{approval_id}"

_WEBHOOKS = ("https://hooks.example/one", "https://hooks.example/two")

#: A picture of one pixel.
PICTURE = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAA"
    "fFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)

#: A file that says "hi".
FILE = "data:text/plain;base64,aGk="

_MAX_MESSAGES = 10_000
_MAX_TOOLS = 128
_MAX_PICTURES = _MAX_FILES = 8
_MAX_KEY = 2048
_LAST_NUMBER = 999_999_999_999_999
_CALL = {"name": "look_up", "arguments": "{}"}


class Steering:
    """The hooks for one contract.

    With `streaming` every completion is requested as a stream; with `failing` each uses a model that fails. Without
    `seeds` there are no sessions and runs.
    """

    def __init__(
        self, document: Mapping[str, Any], seeds: Seeds | None, *, streaming: bool = False, failing: bool = False
    ) -> None:
        self._seeds = seeds
        schemas = (
            (COMPLETION, "ChatCompletionRequest"),
            (RESPONSE, "ResponseRequest"),
            (CREATE_RUN, "RunRequest"),
            (CALL_TOOL, "ToolInvocationRequest"),
            (EMBEDDINGS, "EmbeddingRequest"),
        )
        self._bodies = {
            label: CompiledSchema({"$ref": f"#/components/schemas/{name}"}, document) for label, name in schemas
        }
        parameters = document["components"]["parameters"].values()
        self._headers = {one["name"]: CompiledSchema(one["schema"], document) for one in parameters}
        self._streaming = streaming
        self._failing = failing
        self._at_end = set[str]()

    def register(self, schema: BaseSchema) -> None:
        """Steer every case that is generated from `schema`."""

        @schema.hook
        def map_case(context: HookContext, case: Case[Any]) -> Case[Any]:
            del context
            return self.steer(case)

        @schema.hook
        def before_add_examples(context: HookContext, examples: list[Case[Any]]) -> None:
            del context
            for case in examples:
                self.steer(case)

    def steer(self, case: Case[Any]) -> Case[Any]:
        """Change `case` where the contract leaves open what the gateway requires."""
        if case.operation.label in (COMPLETION, RESPONSE):
            self._steer_headers(case)
            self._steer_body(case)
        if case.operation.label == EMBEDDINGS:
            self._steer_headers(case)
            self._steer_embeddings(case)
        if case.operation.label in (TOOLS, HEAD_TOOLS) and _is_right(case) and isinstance(case.query.get("agent"), str):
            case.query = {**case.query, "agent": _pick(AGENTS, case.query["agent"])}
        if case.operation.label == CALL_TOOL:
            self._steer_idempotency_key(case)
            self._steer_call(case)
        if case.operation.label == CREATE_RUN:
            self._steer_idempotency_key(case)
            self._steer_run(case)
        if case.operation.label in (RUN_EVENTS, HEAD_RUN_EVENTS):
            self._steer_position(case)
        if self._seeds is not None:
            steer_path = _steer_response if "response_id" in case.path_parameters else _steer_path
            steer_path(case, self._seeds)
        if self._streaming and case.operation.label == GET_RESPONSE and _is_right(case):
            case.query = {**case.query, "stream": "true"}
        return case

    def _steer_headers(self, case: Case[Any]) -> None:
        wrong = {name.lower() for name, place in negated_parameters(case.meta) if place is ParameterLocation.HEADER}
        if "authorization" in wrong:
            return  # a case without credentials is refused anyway
        headers = case.headers.copy()
        if self._failing and "x-openclaw-model" not in wrong:
            headers.setdefault("x-openclaw-model", str(case.body))  # a seed for the choice
        models = FAILING_MODELS if self._failing else PROVIDER_MODELS
        for name, known in (("x-openclaw-agent-id", AGENTS), ("x-openclaw-model", models)):
            value = headers.get(name)
            # If Schemathesis finds no right value for a header, it sends a wrong one with every case; only a case about
            # this header may keep it.
            if isinstance(value, str) and (name not in wrong or self._headers[name].is_valid(value.strip(" \t"))):
                headers[name] = _pick(known, value)
        key = headers.get("x-openclaw-session-key")
        if isinstance(key, str) and _grows_too_long(key) and self._headers["x-openclaw-session-key"].is_valid(key):
            headers["x-openclaw-session-key"] = f"of-{len(key)}-characters"
        key = headers.get("Idempotency-Key")
        if isinstance(key, str) and self._headers["Idempotency-Key"].is_valid(key.strip(" \t")):
            headers["Idempotency-Key"] = str(uuid.uuid4())  # a used key is valid for its request only
        case.headers = headers  # changes in place would not be noticed

    def _steer_body(self, case: Case[Any]) -> None:
        if not isinstance(case.body, dict):
            return
        body: dict[str, Any] = copy.deepcopy(case.body)
        if self._streaming:
            body["stream"] = True
        if "x-openclaw-agent-id" not in case.headers and isinstance(body.get("model"), str):
            body["model"] = _pick(MODELS, body["model"])
        in_session = "x-openclaw-session-key" in case.headers or _says(body.get("user"))
        if case.operation.label == RESPONSE:
            in_session |= self._follow_response(case, body, in_session=in_session)
            stored = [] if self._seeds is None else self._seeds.items
            mend_response_request(body, PICTURE, FILE, stored, in_session=in_session)
        else:
            if isinstance(body.get("messages"), list):
                body["messages"] = mend_conversation(body["messages"], in_session=in_session)
            mend_tools(body)
            mend_format(body)
            mend_pictures(body)
            if case.headers.get("x-openclaw-on-disconnect") == "cancel":
                body.pop("webhook", None)
            mend_webhook(body)
        self._replace_body(case, body)

    def _follow_response(self, case: Case[Any], body: dict[str, Any], *, in_session: bool) -> bool:
        """Let a request that names no session and no agent follow a response that exists; return True if it does."""
        names_other = in_session or body.get("conversation") or body.get("model")
        if not _says(body.get("previous_response_id")):
            return False
        if self._seeds is None or names_other or "x-openclaw-agent-id" in case.headers:
            del body["previous_response_id"]
            return False
        body["previous_response_id"] = self._seeds.responses[0]
        return True

    def _replace_body(self, case: Case[Any], body: dict[str, Any]) -> None:
        schema = self._bodies[case.operation.label]
        if schema.is_valid(body) == schema.is_valid(case.body):
            case.body = body

    def _steer_idempotency_key(self, case: Case[Any]) -> None:
        wrong = {name.lower() for name, _ in negated_parameters(case.meta)}
        key = case.headers.get("Idempotency-Key")
        is_right = isinstance(key, str) and self._headers["Idempotency-Key"].is_valid(key.strip(" \t"))
        if is_right and "authorization" not in wrong:
            headers = case.headers.copy()
            headers["Idempotency-Key"] = str(uuid.uuid4())  # a used key is valid for its request only
            case.headers = headers

    def _steer_call(self, case: Case[Any]) -> None:
        wrong = {name.lower() for name, _ in negated_parameters(case.meta)}
        headers, agent = case.headers.copy(), case.headers.get("x-openclaw-agent-id")
        is_right = isinstance(agent, str) and self._headers["x-openclaw-agent-id"].is_valid(agent)
        if is_right and "authorization" not in wrong:
            headers["x-openclaw-agent-id"] = _pick(AGENTS, str(agent))
            case.headers = headers
        if not isinstance(case.body, dict):
            return
        body: dict[str, Any] = copy.deepcopy(case.body)
        name = "name" if isinstance(body.get("name"), str) and body.get("tool") is None else "tool"
        body |= {
            name: _pick(TOOL_NAMES, str(body.get(name))),
            "args": {} if isinstance(body.get("args"), dict) else None,
        }
        if name == "tool" and isinstance(body.get("name"), str):
            body["name"] = body["tool"]
        if isinstance(body.get("sessionKey"), str):
            body["sessionKey"] = f"of-{len(body['sessionKey'])}-characters"
        if isinstance(body.get("agentId"), str):
            body["agentId"] = _pick(AGENTS, body["agentId"])
        self._replace_body(case, body)

    def _steer_embeddings(self, case: Case[Any]) -> None:
        body: Any = case.body
        if isinstance(body, dict) and isinstance(body.get("model"), str) and "x-openclaw-agent-id" not in case.headers:
            self._replace_body(case, {**body, "model": _pick(MODELS, body["model"])})

    def _steer_position(self, case: Case[Any]) -> None:
        """Ask in the first right case for what follows the last event, which is nothing."""
        if _is_right(case) and case.operation.label not in self._at_end:
            self._at_end.add(case.operation.label)
            headers = case.headers.copy()
            headers.pop("Last-Event-ID", None)  # it takes precedence
            case.headers = headers
            case.query = {**case.query, "after": _LAST_NUMBER}

    def _steer_run(self, case: Case[Any]) -> None:
        if not isinstance(case.body, dict):
            return
        body: dict[str, Any] = copy.deepcopy(case.body)
        for name, known in (("agent", AGENTS), ("model", PROVIDER_MODELS)):
            if isinstance(body.get(name), str):
                body[name] = _pick(known, body[name])
        if isinstance(body.get("session_key"), str):
            body["session_key"] = f"of-{len(body['session_key'])}-characters"
        mend_webhook(body)
        if isinstance(body.get("input"), list) and len(body["input"]) <= _MAX_MESSAGES:
            body["input"] = mend_conversation(body["input"][: _MAX_MESSAGES // 2], in_session=False)
            mend_pictures({"messages": body["input"]})
        self._replace_body(case, body)


def mend_webhook(body: dict[str, Any]) -> None:
    """Send webhooks to addresses that are not refused."""
    webhook = body.get("webhook")
    if isinstance(webhook, dict) and isinstance(webhook.get("url"), str):
        webhook["url"] = webhook["url"] and _pick(_WEBHOOKS, webhook["url"])


def _grows_too_long(key: str) -> bool:
    """Return True if a session key is too long with its agent's prefix and in canonical encoding."""
    return len("agent:main:") + len(quote(unquote(key).lower())) > _MAX_KEY


@schemathesis.hook
def before_call(context: HookContext, case: Case[Any], kwargs: Mapping[str, Any]) -> None:
    """Point every request at what exists, also those that Schemathesis derives from others."""
    del context, kwargs
    name = case.path_parameters.get("model")
    is_right = isinstance(name, str) and 1 <= len(unquote(name)) <= 256  # longer ones break the contract
    if case.operation.label in (MODEL, HEAD_MODEL) and is_right and name not in MODELS:
        case.path_parameters = {**case.path_parameters, "model": _pick(MODELS, str(name))}
    is_linked = case.meta is not None and case.meta.phase.name.value == "stateful"
    if case.operation.label == FORK_SESSION and is_linked and isinstance(case.body, dict) and _is_right(case):
        # Links take the ids of runs from responses, whatever session they belong to.
        case.body = {name: value for name, value in case.body.items() if name not in ("index", "run_id")}


def _steer_path(case: Case[Any], seeds: Seeds) -> None:
    """Point a request with a right path at an existing object; wrong requests must not change one."""
    label, path = case.operation.label, case.path_parameters
    if any(place is ParameterLocation.PATH for _, place in negated_parameters(case.meta)):
        return
    is_right = _is_right(case)
    if label in (SESSION, HEAD_SESSION, FORK_SESSION):
        case.path_parameters = {**path, "key": _pick(seeds.sessions, str(path["key"]))}
        # Coverage sends numbers as text, which Schemathesis takes for wrong beside an unknown parameter.
        case.query = {name: int(text) if _is_number(text) else text for name, text in case.query.items()}
        if is_right:
            _steer_branch(case, seeds)
    elif label == DELETE_SESSION:
        case.path_parameters = {**path, "key": seeds.make_session() if is_right else "agent:main:nobody"}
    elif label in (RUN_EVENTS, HEAD_RUN_EVENTS, CHAT_STREAM, HEAD_CHAT_STREAM):
        case.path_parameters = {**path, "run_id": _pick(seeds.detached_runs, str(path["run_id"]))}
    elif label in (RUN, HEAD_RUN):
        case.path_parameters = {**path, "run_id": _pick(seeds.runs, str(path["run_id"]))}
    elif label == CANCEL_RUN:
        case.path_parameters = {**path, "run_id": seeds.make_run() if is_right else "nobody"}
    elif label == DECIDE_APPROVAL:
        case.path_parameters = {**path, "approval_id": seeds.make_approval() if is_right else "nobody"}
    elif label == APPROVALS:
        assert seeds.approvals  # the list has an element


def _steer_response(case: Case[Any], seeds: Seeds) -> None:
    label, path = case.operation.label, case.path_parameters
    if any(place is ParameterLocation.PATH for _, place in negated_parameters(case.meta)):
        return
    if label in (DELETE_RESPONSE, CANCEL_RESPONSE):
        made = seeds.make_response(lasts=label == CANCEL_RESPONSE) if _is_right(case) else "nobody"
        case.path_parameters = {**path, "response_id": made}
        return
    case.path_parameters = {**path, "response_id": _pick(seeds.responses, str(path["response_id"]))}
    if _is_right(case) and isinstance(case.query.get("after"), str):
        item = case.path_parameters["response_id"].replace("resp_", "msg_")
        case.query = {**case.query, "after": f"{item}_i0"}


def _is_number(value: object) -> bool:
    return isinstance(value, str) and value.isdecimal() and value.isascii()


def _is_right(case: Case[Any]) -> bool:
    return case.meta is None or case.meta.generation.mode.is_positive


def _steer_branch(case: Case[Any], seeds: Seeds) -> None:
    """Name messages and runs that the session has: a question and its answer."""
    if isinstance(branch := case.query.get("branch"), int):
        case.query = {**case.query, "branch": branch % 2}
    if not isinstance(case.body, dict):
        return
    body: dict[str, Any] = dict(case.body)
    if isinstance(body.get("index"), int):
        body["index"] %= 2
        body.pop("run_id", None)
    elif isinstance(body.get("run_id"), str):
        body["run_id"] = seeds.run_of(str(case.path_parameters["key"]))
    case.body = body


def mend_conversation(messages: Iterable[Any], *, in_session: bool) -> list[Any]:
    """Add a call before every result that lacks one, and a message to answer at the end.

    In a session only messages after the last assistant message count, so results must precede that one.
    """
    called: set[str] = set()
    mended: list[Any] = []
    for message in messages:
        match message:
            case {"role": "tool", "tool_call_id": str(call_id)} if call_id not in called:
                call = {"id": call_id, "type": "function", "function": _CALL}
                mended.append({"role": "assistant", "tool_calls": [call]})
                called.add(call_id)
            case {"role": "function", "name": str(name)} if f"function {name}" not in called:
                mended.append({"role": "assistant", "function_call": {**_CALL, "name": name}})
                called.add(f"function {name}")
            case {"role": "assistant"}:
                called |= _calls_of(message)
        mended.append(message)
    if not _can_be_answered(mended, in_session=in_session):
        mended += [{"role": "assistant", "content": "Go on."}, {"role": "user", "content": "Say this again, please."}]
    return mended


def _calls_of(message: Mapping[str, Any]) -> set[str]:
    calls = {call["id"] for call in _items(message.get("tool_calls")) if isinstance(call.get("id"), str)}
    match message.get("function_call"):
        case {"name": str(name)}:
            calls.add(f"function {name}")
    return calls


def _can_be_answered(messages: Sequence[Any], *, in_session: bool) -> bool:
    roles = [message.get("role") if isinstance(message, dict) else None for message in messages]
    if not in_session:
        return "tool" in roles or "function" in roles or any(map(_is_said_by_user, messages))
    begin = max((index for index, role in enumerate(roles) if role == "assistant"), default=-1) + 1
    has_results = "tool" in roles[begin:] or "function" in roles[begin:]
    return not has_results and any(map(_is_said_by_user, messages[begin:]))


def _is_said_by_user(message: Any) -> bool:
    match message:
        case {"role": "user", "content": str(text)}:
            return _says(text)
        case {"role": "user", "content": list(parts)}:
            return any(part.get("type") == "image_url" or _says(part.get("text")) for part in _items(parts))
    return False


def mend_tools(body: dict[str, Any]) -> None:
    """Give each tool of `body` a unique name, and `tool_choice` an existing tool."""
    tools = [] if body.get("tools") is None else body["tools"]
    if not isinstance(tools, list):
        return
    functions = [tool["function"] for tool in _items(tools) if isinstance(tool.get("function"), dict)]
    names: set[str] = set()
    for index, function in enumerate(functions):
        if isinstance(function.get("name"), str):
            if function["name"] in names:
                function["name"] = f"{function['name'][:50]}-{index}"
            names.add(function["name"])
    match body.get("tool_choice"):
        case "required" if not tools:
            body["tools"] = [_tool("look_up")]
        case {"function": {"name": str(name)}} if name not in names:
            body["tools"] = [*tools[: _MAX_TOOLS - 1], _tool(name)]


def mend_format(body: dict[str, Any]) -> None:
    """Let every answer be valid against a strict schema: generated ones are seldom schemas."""
    match body.get("response_format"):
        case {"json_schema": {"schema": dict(), "strict": True} as wanted}:
            wanted["schema"] = {"description": "Any value."}


def mend_pictures(body: dict[str, Any]) -> None:
    """Replace pictures and files by real ones, within the limits of a request."""
    seen = files = 0
    for message in _items(body.get("messages")):
        for part in _items(message.get("content")):
            match part:
                case {"type": "file", "file": {"file_data": str(data)} as file} if data:
                    file["file_data"] = FILE
                    files += 1
                    if files > _MAX_FILES:
                        part.clear()
                        part.update({"type": "text", "text": "and another file"})
                case {"type": "image_url", "image_url": str(url) | {"url": str(url)}} if _is_image_url(url):
                    seen += 1
                    if isinstance(part["image_url"], dict):
                        part["image_url"]["url"] = PICTURE
                    else:
                        part["image_url"] = PICTURE
                    if seen > _MAX_PICTURES:
                        part.clear()
                        part.update({"type": "text", "text": "and another picture"})


def _is_image_url(url: str) -> bool:
    return url.lower().startswith(("data:", "http"))


def _tool(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


def _items(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _says(text: Any) -> bool:
    return isinstance(text, str) and bool(text.strip())


def _pick(known: Sequence[str], value: str) -> str:
    """Map `value` to one of `known`, always to the same."""
    return known[zlib.crc32(value.encode(errors="replace")) % len(known)]
