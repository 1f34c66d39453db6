"""The real gateway with a seeded fault for each request that names one: `python -m gevent.monkey faulty_gateway.py`.

A request names its fault in the header `X-Seeded-Fault`; without it nothing is wrong. Faults are injected from outside:
another document or other settings for the application, or a WSGI wrapper that alters responses. The process reads its
configuration from the environment as the gateway does, prints its address and serves until SIGTERM.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, NamedTuple

import flask
import orjson

from service.api.auth import Authenticator, LoginLimiter, NamedKeys, resolve_credentials
from service.api.http.app import create_app
from service.api.http.contract import load_contract, to_bound_contract
from service.api.http.published_contract import PublishedContract
from service.api.settings import ApiSettings, SettingsSlot
from service.config.loading import load_config
from service.config.schema import Config
from service.config.source import locate
from service.core.principal import Principal, Scope
from service.core.rate_limits import NO_LIMITS
from service.gateway.build import open_gateway
from service.gateway.gateway import Gateway
from service.server.app import add_websocket_app, switch_metrics
from service.server.http1.server import Server
from service.server.lifecycle import Stop, run_until_stopped
from service.storage.api_keys import ApiKeys

HOST = "127.0.0.1"

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class Setup(NamedTuple):
    """The application without a fault, and its arguments for another one."""

    application: flask.Flask
    gateway: Gateway
    document: dict[str, Any]
    settings: ApiSettings

    def create(self) -> Application:
        """Create an application with these arguments."""
        published, bound = PublishedContract(self.document), to_bound_contract(self.document)
        application = create_app(self.gateway, bound, published, SettingsSlot(self.settings))
        application.extensions["metrics"] = self.application.extensions["metrics"]
        return application


Fault = Callable[[Setup], Application]


class Answer(NamedTuple):
    """A whole response and the method it answers; `headers` has lower-case names."""

    method: str
    status: str
    headers: dict[str, str]
    body: bytes


def altered(alter: Callable[[Answer], Answer]) -> Fault:
    """The fault of an application whose answers pass through `alter`."""

    def build(setup: Setup) -> Application:
        application: Any = setup.application

        def serve(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
            started: list[Any] = []
            pieces = application(environ, lambda status, headers, *_: started.extend((status, headers)))
            body = b"".join(pieces)
            if hasattr(pieces, "close"):
                pieces.close()
            headers = {name.lower(): value for name, value in started[1]}
            answer = alter(Answer(environ["REQUEST_METHOD"], started[0], headers, body))
            start_response(answer.status, [*{**answer.headers, "content-length": str(len(answer.body))}.items()])
            return [answer.body]

        return serve

    return build


def altered_contract(change: Callable[[dict[str, Any]], object]) -> Fault:
    """The fault of an application that was given a document with `change` made to it."""

    def build(setup: Setup) -> Application:
        document = copy.deepcopy(setup.document)
        change(document)
        return setup._replace(document=document).create()

    return build


def altered_json(change: Callable[[Any], object], *, status: str = "2") -> Fault:
    """The fault of `change` being made to the JSON of answers with `status`."""

    def alter(answer: Answer) -> Answer:
        if not (answer.status.startswith(status) and answer.headers.get("content-type") == "application/json"):
            return answer
        value = orjson.loads(answer.body)
        change(value)
        return answer._replace(body=orjson.dumps(value))

    return altered(alter)


def altered_stream(change: Callable[[bytes], bytes]) -> Fault:
    """The fault of `change` being made to the bytes of streams."""

    def alter(answer: Answer) -> Answer:
        is_stream = answer.headers.get("content-type") == "text/event-stream"
        return answer._replace(body=change(answer.body)) if is_stream else answer

    return altered(alter)


def altered_event(kind: bytes, change: Callable[[bytes], bytes]) -> Fault:
    """The fault of `change` being made to the first event of a kind in streams."""
    return altered_block(b"event: " + kind, change)


def altered_block(part: bytes, change: Callable[[bytes], bytes]) -> Fault:
    """The fault of `change` being made to the first event that has `part` in streams."""

    def alter(body: bytes) -> bytes:
        events = [event + b"\n\n" for event in body.split(b"\n\n")[:-1]]
        place = next((at for at, event in enumerate(events) if part in event), None)
        if place is not None:
            events[place] = change(events[place])
        return b"".join(events)

    return altered_stream(alter)


def without_authentication(setup: Setup) -> Application:
    settings = replace(setup.settings, authenticator=None)
    return setup._replace(document=load_contract(authenticated=False), settings=settings).create()


class FaultyKeys:
    """The named keys, whose callers pass through `alter`; with `remembers` a key that was accepted once always is."""

    def __init__(self, keys: ApiKeys, alter: Callable[[Principal], Principal], *, remembers: bool = False) -> None:
        self._keys = keys
        self._alter = alter
        self._remembered: dict[bytes, Principal] | None = {} if remembers else None

    def authenticate(self, key: bytes) -> Principal | None:
        if self._remembered is not None and key in self._remembered:
            return self._remembered[key]
        principal = self._keys.authenticate(key)
        if principal is None:
            return None
        if self._remembered is not None:
            self._remembered[key] = principal
        return self._alter(principal)

    def renew(self, principal: Principal) -> Principal | None:
        return None if self._keys.renew(principal) is None else principal


def with_keys(alter: Callable[[Principal], Principal], *, remembers: bool = False) -> Fault:
    """The fault of named keys that are not what they should be."""

    def build(setup: Setup) -> Application:
        keys = FaultyKeys(setup.gateway.storage.api_keys, alter, remembers=remembers)
        settings = replace(setup.settings, authenticator=authenticator_of(setup.settings.config, keys))
        return setup._replace(settings=settings).create()

    return build


def authenticator_of(config: Config, keys: NamedKeys) -> Authenticator:
    limiter = LoginLimiter(config.gateway.auth.rate_limit, lambda: 0.0)
    return Authenticator(resolve_credentials(config.gateway.auth, os.environ, HOST), limiter, keys)


def without_header(name: str) -> Fault:
    def alter(answer: Answer) -> Answer:
        return answer._replace(headers={key: value for key, value in answer.headers.items() if key != name})

    return altered(alter)


def with_headers(**added: str) -> Fault:
    headers = {name.replace("_", "-"): value for name, value in added.items()}
    return altered(lambda answer: answer._replace(headers={**answer.headers, **headers}))


def with_other_success(status: str, content_type: str | None = None, body: bytes | None = None) -> Fault:
    """The fault of success with another status, type or body."""

    def alter(answer: Answer) -> Answer:
        if not answer.status.startswith("2"):
            return answer
        headers = answer.headers | ({} if content_type is None else {"content-type": content_type})
        return answer._replace(status=status, headers=headers, body=answer.body if body is None else body)

    return altered(alter)


def with_mistyped_member(answer: Answer) -> Answer:
    """Give a member of a JSON value, or of the first event that has one, a value of another type."""
    if not answer.status.startswith("2"):
        return answer
    if answer.headers.get("content-type") == "application/json":
        return answer._replace(body=_mistyped(answer.body))
    before, data, rest = answer.body.partition(b"data: {")
    line, end, after = (b"{" + rest).partition(b"\n")
    return answer._replace(body=before + b"data: " + _mistyped(line) + end + after) if data else answer


def _mistyped(body: bytes) -> bytes:
    """Change the first member of an object, or of the first object of its list."""
    whole = orjson.loads(body)
    part = whole["data"][0] if isinstance(whole.get("data"), list) and whole["data"] else whole
    name = next(iter(part))
    part[name] = [part[name]]
    return orjson.dumps(whole)


def with_other_type(answer: Answer) -> Answer:
    if not (answer.status.startswith("2") and "content-type" in answer.headers):
        return answer
    return answer._replace(headers=answer.headers | {"content-type": "application/octet-stream"})


def with_swapped_ends(body: bytes) -> bytes:
    """Swap the last two events of a stream."""
    events = body.split(b"\n\n")[:-1]
    return b"".join(event + b"\n\n" for event in [*events[:-2], *reversed(events[-2:])])


def with_any_method(answer: Answer) -> Answer:
    if answer.method != "DELETE":
        return answer
    headers = {"content-type": "application/json", "cache-control": "no-store"}
    return answer._replace(status="200 OK", headers=headers, body=b'{"ok":true,"status":"live"}')


def with_false_allow(answer: Answer) -> Answer:
    return answer._replace(headers=answer.headers | {"allow": "GET, DELETE"}) if answer.method == "OPTIONS" else answer


def _request_field(document: dict[str, Any], name: str) -> dict[str, Any]:
    field: dict[str, Any] = document["components"]["schemas"]["ChatCompletionRequest"]["properties"][name]
    return field


def _without_arguments(answer: Any) -> None:
    for one in answer.get("data", ()):
        one.pop("arguments", None)


#: A chunk of a chat stream that can be resumed behind it.
_NUMBERED = b'"sequence_number":'

FAULTS: dict[str, Fault] = {
    "none": lambda it: it.application,
    # of every operation: of one kind each
    "status": with_other_success("203 Non-Authoritative Information"),
    "header": with_headers(x_content_type_options="sniff"),
    "type": altered(with_other_type),
    "body": altered(with_mistyped_member),
    "event": altered(with_mistyped_member),
    "order": altered_stream(with_swapped_ends),
    "auth": without_authentication,
    # of one operation
    "temperature-without-maximum": altered_contract(lambda it: _request_field(it, "temperature").pop("maximum")),
    "top-p-at-most-one-half": altered_contract(lambda it: _request_field(it, "top_p").update(maximum=0.5)),
    "other-content-type": with_other_success("200 OK", content_type="text/plain"),
    "plain-text-500": with_other_success("500 Internal Server Error", "text/plain", b"Internal Server Error"),
    "envelope-without-param": altered_json(lambda it: it["error"].pop("param"), status="4"),
    "message-without-refusal": altered_json(lambda it: it["choices"][0]["message"].pop("refusal")),
    "chunk-of-another-object": altered_stream(lambda it: it.replace(b"chat.completion.chunk", b"chat.completion")),
    "stream-without-done": altered_stream(lambda it: it.replace(b"data: [DONE]\n\n", b"")),
    "chunk-that-is-not-json": altered_stream(lambda it: it.replace(b'"choices":[', b'"choices":[,', 1)),
    "approval-without-arguments": altered_json(_without_arguments),
    "usage-without-cost": altered_json(lambda it: it["total"].pop("cost")),
    "decision-without-decider": altered_json(lambda it: it.pop("decided_by", None)),
    "tool-without-parameters": altered_json(lambda it: [one.pop("parameters") for one in it["data"]]),
    "result-without-text": altered_json(lambda it: it["result"]["content"][0].pop("text")),
    "vectors-without-index": altered_json(lambda it: [one.pop("index") for one in it["data"]]),
    "response-without-usage": altered_json(lambda it: it.pop("usage", None)),
    "input-without-last-id": altered_json(lambda it: it.pop("last_id")),
    "response-event-missing": altered_event(b"response.content_part.done", lambda _: b""),
    "response-with-two-ends": altered_event(b"response.completed", lambda it: it + it),
    "response-event-misnamed": altered_event(
        b"response.output_item.added", lambda it: it.replace(b"event: response", b"event: reply", 1)
    ),
    "event-missing": altered_event(b"text.delta", lambda _: b""),
    "event-repeated": altered_event(b"text.delta", lambda it: it + it),
    "two-ends": altered_event(b"run.ended", lambda it: it + it),
    "other-event-id": altered_event(b"text.delta", lambda it: it.replace(b"id: ", b"id: 1", 1)),
    "resumed-chunk-missing": altered_block(_NUMBERED, lambda _: b""),
    "resumed-chunk-repeated": altered_block(_NUMBERED, lambda it: it + it),
    "resumed-chunk-with-other-text": altered_block(
        _NUMBERED, lambda it: it.replace(b'"content":"', b'"content":"x', 1)
    ),
    "resumed-chunk-with-other-number": altered_block(
        _NUMBERED, lambda it: it.replace(b'"sequence_number":', b'"sequence_number":1', 1)
    ),
    "resumed-chunk-of-another-run": altered_block(_NUMBERED, lambda it: it.replace(b"chatcmpl_", b"chatcmpl_0", 1)),
    "resumed-stream-with-two-ends": altered_block(b'"finish_reason":"', lambda it: it + it),
    "event-without-text": altered_event(b"text.delta", lambda it: it.replace(b'"text":', b'"txet":')),
    "page-without-policy": without_header("content-security-policy"),
    "script-as-text": with_other_success("200 OK", content_type="text/plain"),
    "no-cache-control": without_header("cache-control"),
    "undocumented-header": with_headers(x_powered_by="curiosity"),
    "method-answered": altered(with_any_method),
    "no-allow": without_header("allow"),
    "false-allow": altered(with_false_allow),
    "key-reads-foreign-sessions": with_keys(lambda it: replace(it, owner=None)),
    "revoked-key-works": with_keys(lambda it: it, remembers=True),
    "limited-key-is-not-limited": with_keys(lambda it: replace(it, limits=NO_LIMITS)),
    "key-has-every-scope": with_keys(lambda it: replace(it, scopes=frozenset(Scope))),
}


def by_request(setup: Setup) -> Application:
    """The applications with each fault as one, which takes a request to that of its fault."""
    made: dict[str, Application] = {}

    def serve(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        name = environ.get("HTTP_X_SEEDED_FAULT", "none")
        if name not in made:
            made[name] = FAULTS[name](setup)
        return made[name](environ, start_response)

    return serve


def main() -> None:
    locations = locate(os.environ, dev=False, profile=None)
    config = load_config(locations, os.environ).config
    gateway = open_gateway(config, locations, os.environ)
    settings = ApiSettings.build(config, authenticator_of(config, gateway.storage.api_keys))
    document = load_contract()
    slot = SettingsSlot(settings)
    application = create_app(gateway, to_bound_contract(document), PublishedContract(document), slot)
    add_websocket_app(application, gateway, slot, dict)
    switch_metrics(application, gateway, is_on=True)
    try:
        server = Server((HOST, 0), by_request(Setup(application, gateway, document, settings)))
        server.start()
        print(f"http://{HOST}:{server.server_port}", flush=True)
        run_until_stopped(server, Stop(on_asked=gateway.drain, on_over=gateway.abort_all))
    finally:
        gateway.close()


if __name__ == "__main__":
    main()
