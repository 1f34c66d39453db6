"""The pages at `/docs/errors/{code}`: why an error occurs, and what to do about it."""

from __future__ import annotations

from html import escape
from http import HTTPStatus

from service.core.dataclass import record
from service.core.errors import KINDS


@record
class Explanation:
    """The cause of an error, and its remedy; in both, text between backticks is code."""

    why: str
    remedy: str


#: Those that no HTTP operation returns.
_WEBSOCKET_CODES = frozenset({"protocol_mismatch", "unknown_method", "too_many_requests", "run_failed"})

_WAIT = "Try again after the seconds in `Retry-After`, or a little later; OpenAI's SDKs do so by themselves."
_OPERATOR = "Tell the operator the `x-request-id`: the gateway's log has the details under it."

EXPLANATIONS: dict[str, Explanation] = {
    "malformed_request": Explanation(
        "The request is not HTTP as the standard has it: a header is repeated, lengths disagree, or a line is cut.",
        "Use an HTTP library, and look at what a proxy on the way changes.",
    ),
    "invalid_json": Explanation(
        "The body is no JSON, or nested too deeply. The message has the line and the column.",
        "Send what a JSON library writes, in UTF-8, without NaN and Infinity.",
    ),
    "invalid_value": Explanation(
        "A value has the right type, but is not allowed. `param` names it, the message says what is allowed.",
        "Send another value, or leave the field out.",
    ),
    "invalid_type": Explanation(
        "A value has the wrong type. `param` names it, the message says which types it may have.",
        "Send a value of such a type. Null counts as absent wherever a field is optional.",
    ),
    "missing_required_parameter": Explanation(
        "A field is missing that the request needs, or nothing in it can be answered.",
        "Add the field that `param` names.",
    ),
    "unsupported_parameter": Explanation(
        "The request asks for something that the gateway, or the agent's model, does not do. Ignoring it would change "
        "what the request means.",
        "Leave out the field that `param` names, or send what the message names in its place.",
    ),
    "provider_rejected_request": Explanation(
        "The model's provider refused the request. The message has its words.",
        "Change what it names, or use another model: the header `x-openclaw-model` names one for a single request.",
    ),
    "context_length_exceeded": Explanation(
        "The conversation does not fit into the model's context window, not even summarised.",
        "Send less text or fewer pictures, begin another session, or use a model with a larger window.",
    ),
    "tool_failed": Explanation(
        "The tool that was called has failed. The message is its own.",
        "Change the arguments. `GET /v1/tools` has the schema of each tool's arguments.",
    ),
    "request_timeout": Explanation(
        "The request did not arrive in time.",
        "Send it again, over a faster connection or with less in it.",
    ),
    "session_busy": Explanation(
        "Another run uses the session, and it did not become free in time. A session has one run at a time.",
        "Try again when that run has ended, or cancel it: `GET /v1/runs` shows it.",
    ),
    "idempotency_key_reused": Explanation(
        "The `Idempotency-Key` was sent before, with another request.",
        "Use a new key for each request, and the same only to repeat one.",
    ),
    "run_ended": Explanation(
        "The run cannot be cancelled, because it has ended.",
        "Nothing. `GET /v1/runs/{run_id}` shows how it ended.",
    ),
    "approval_closed": Explanation(
        "The approval was decided by somebody else, has expired, or its run has ended.",
        "Nothing. `GET /v1/approvals` lists those that are open.",
    ),
    "run_events_gone": Explanation(
        "The events of the run are no longer kept, or never were: those of a run that ends with its caller are not.",
        "Read the result instead. For events that can be read later, send the request to `/v1/runs`, with `background` "
        "to `/v1/responses`, or with `x-openclaw-on-disconnect: continue`.",
    ),
    "request_too_large": Explanation(
        "The body is too large, or has too many values.",
        "Send at most 20 MiB, of which 8 MiB are text that is escaped or not ASCII, and fewer pictures or files.",
    ),
    "uri_too_long": Explanation("The address is longer than 8 KiB.", "Use shorter keys and parameters."),
    "unsupported_media_type": Explanation(
        "The body has another type than the operation takes, or is compressed.",
        "Send `Content-Type: application/json` and no `Content-Encoding`.",
    ),
    "headers_too_large": Explanation(
        "The headers are longer than 64 KiB, or there are too many.", "Send fewer or shorter ones, cookies above all."
    ),
    "protocol_mismatch": Explanation(
        "A WebSocket client speaks no version of the protocol that the gateway speaks.",
        "Update the client or the gateway. The error's details have the versions.",
    ),
    "missing_credentials": Explanation(
        "The request has no token.", "Send `Authorization: Bearer <token>`, with the gateway's token or an API key."
    ),
    "invalid_api_key": Explanation(
        "The token is wrong, or the API key has expired or was revoked.",
        "Use the token in `gateway.auth.token`, or create a key with `openclaw keys create`.",
    ),
    "too_many_failed_attempts": Explanation(
        "Too many requests with a wrong token came from this address.",
        "Wait for the seconds in `Retry-After`, and correct the token.",
    ),
    "untrusted_proxy_headers": Explanation(
        "The request has forwarding headers such as `X-Forwarded-For`, but does not come from a trusted proxy, or they "
        "contradict each other.",
        "The operator lists the proxy in `gateway.trustedProxies`, or the header in `gateway.trustedProxyHeader`.",
    ),
    "host_not_allowed": Explanation(
        "The gateway has no authentication and is asked under a name that is not its own machine's, as a hostile page "
        "in a browser would.",
        "Use `localhost`, `127.0.0.1` or `[::1]`, or configure a token.",
    ),
    "origin_not_allowed": Explanation(
        "A page of another origin sent the request.",
        "The operator lists the origin in `gateway.http.cors.allowedOrigins`, for the WebSocket in "
        "`gateway.controlUi.allowedOrigins`, or configures a token.",
    ),
    "user_not_allowed": Explanation(
        "The user that a trusted proxy names may not use the gateway.",
        "The operator lists the user in `gateway.auth.trustedProxy.allowUsers`.",
    ),
    "missing_scope": Explanation(
        "The API key is valid, but may not do this. The message names the scope.",
        "Use another key, or create one with `openclaw keys create --scope`.",
    ),
    "not_found": Explanation(
        "There is nothing at this path.", "Look at the message, which often names the right path, or at `/docs`."
    ),
    "run_not_found": Explanation(
        "There is no run with this id: it never was, its record was deleted, or it belongs to another API key.",
        "List the runs with `GET /v1/runs`.",
    ),
    "response_not_found": Explanation(
        "There is no stored response with this id: it was sent with `store: false`, was deleted, or belongs to another "
        "API key.",
        "Use the `id` of a response that was stored.",
    ),
    "previous_response_not_found": Explanation(
        "The response to continue was not stored, has failed before it said anything, or was deleted.",
        "Send the whole conversation as `input`, without `previous_response_id`.",
    ),
    "session_not_found": Explanation(
        "There is no session with this key.", "List the sessions with `GET /v1/sessions`. A session begins with a run."
    ),
    "approval_not_found": Explanation(
        "There is no approval with this id.", "List those that are open with `GET /v1/approvals`."
    ),
    "tool_not_found": Explanation(
        "The agent has no tool of this name, or its policy hides it.",
        "List its tools with `GET /v1/tools?agent=<id>`. The operator allows others in `tools.alsoAllow`.",
    ),
    "model_not_found": Explanation(
        "There is no agent, or no model, of this name, or the API key may not use it. The message lists what there is.",
        "Send `openclaw` or `openclaw/<agent>` as `model`; a model of a provider goes into `x-openclaw-model`.",
    ),
    "endpoint_disabled": Explanation(
        "The operation exists, but is switched off.", "The operator sets the key that the message names to true."
    ),
    "method_not_allowed": Explanation(
        "The path exists, but not with this method.", "Use one of the methods in the header `Allow`."
    ),
    "unknown_method": Explanation(
        "The WebSocket has no method of this name.", "See the methods in `hello-ok`, which answers `connect`."
    ),
    "internal_error": Explanation("The gateway has a defect.", _OPERATOR),
    "provider_error": Explanation(
        "The model's provider failed, or its answer was incomplete or could not be understood, also after retries.",
        "Try again. If it stays, use another model, or name `fallbacks` of the agent's model.",
    ),
    "provider_authentication_failed": Explanation(
        "The model's provider refused the gateway's key, or its account has no credit.",
        "The operator corrects `apiKey` of the provider, or pays its bill. Trying again does not help.",
    ),
    "tool_choice_not_met": Explanation(
        "`tool_choice` requires a call, and the model made none.", "Try again, or use a model that follows it."
    ),
    "output_not_valid": Explanation(
        "The model's answer is not JSON, or not valid against the schema, also after it was asked to repair it. The "
        "message has the failing path.",
        "Try again, use another model, make the schema simpler, or allow more `structuredOutput.repairs`.",
    ),
    "rate_limit_exceeded": Explanation(
        "A limit of requests or tokens is reached: of the key, the user, the agent or the gateway, or the provider's.",
        _WAIT,
    ),
    "budget_exceeded": Explanation(
        "The money that the key, the user, the agent or the gateway may spend in a day or month is spent.",
        "Wait until the budget renews, as the message says, or ask the gateway's operator for a larger one.",
    ),
    "too_many_runs": Explanation("As many runs go on or wait as are allowed.", _WAIT),
    "too_many_requests": Explanation(
        "This WebSocket connection waits for too many answers.", "Wait for some of them before you send more."
    ),
    "too_many_connections": Explanation("The gateway has no room for another connection.", _WAIT),
    "overloaded": Explanation(
        "The gateway has as much data in flight as it may, or no process for a file or a schema.", _WAIT
    ),
    "provider_unavailable": Explanation(
        "The model's provider cannot be reached, or says that it is overloaded.",
        "Try again. The operator checks `baseUrl`, the network, and that a local server runs.",
    ),
    "model_not_installed": Explanation(
        "The embedded model has no weights or no runtime on this machine.",
        "The operator runs `openclaw models install`, or configures another model.",
    ),
    "not_ready": Explanation(
        "The gateway runs, but cannot work yet, or its database cannot be used. The message names what fails.",
        "Wait. If it stays, see the log.",
    ),
    "shutting_down": Explanation("The gateway is stopping.", "Try again; another process, or the next one, answers."),
    "provider_timeout": Explanation(
        "The model's provider was silent for too long.", "Try again, or use a faster model or `fallbacks`."
    ),
    "run_timeout": Explanation(
        "The run took longer than the agent may take (`timeoutSeconds`), waiting included.",
        "Ask for less at once, or raise the limit. For long work use `POST /v1/runs`.",
    ),
    "run_failed": Explanation(
        "A run that a WebSocket client started has failed. The error's details have the code of the reason.",
        "Look up that code here.",
    ),
    "run_aborted": Explanation(
        "Somebody cancelled the run, or its caller left.", "Nothing. What was written until then is kept."
    ),
    "run_interrupted": Explanation(
        "The process that executed the run has died.", "Send the request again. What was stored before is kept."
    ),
    "session_lost": Explanation(
        "The process was taken for dead while the run went on, and its session was given to another. The turn was not "
        "stored.",
        "Send the request again. If it happens often, the machine is overloaded, or is suspended at times.",
    ),
    "storage_unavailable": Explanation(
        "The gateway cannot use its database. Nothing was stored.",
        "Try again later. The operator finds the cause in the log: a full disk, a network, permissions.",
    ),
}

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{code}</title>
<link rel="icon" href="data:,">
</head>
<body>
<h1><code>{code}</code></h1>
<p>{status}, type <code>{type}</code>. {retry}</p>
<h2>Why</h2>
<p>{why}</p>
<h2>What to do</h2>
<p>{remedy}</p>
</body>
</html>
"""


def to_page(code: str) -> bytes:
    """Return the page of an error code as HTML; raises `KeyError` for one that is unknown."""
    kind, explanation = KINDS[code], EXPLANATIONS[code]
    phrase = HTTPStatus(kind.status).phrase
    status = "Of the WebSocket only" if code in _WEBSOCKET_CODES else f"HTTP status {kind.status} ({phrase})"
    retry = "" if kind.retryable else "Clients should not repeat the request by themselves."
    return _PAGE.format(
        code=code,
        status=status,
        type=kind.type,
        retry=retry,
        why=_to_html(explanation.why),
        remedy=_to_html(explanation.remedy),
    ).encode()


def _to_html(text: str) -> str:
    parts = escape(text, quote=False).split("`")
    return "".join(f"<code>{part}</code>" if index % 2 else part for index, part in enumerate(parts))
