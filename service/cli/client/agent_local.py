"""Agent client without a gateway process: a Gateway object in this process, on the same database."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import TYPE_CHECKING

from service.agent.conversation import IncomingMessage
from service.agent.events import RunEnded, TextDelta, ToolStarted
from service.agent.request import AgentRequest
from service.agent.run import Run
from service.api.log_lines import GatewayLog
from service.api.traces import are_on, open_traces
from service.api.websocket.run_result import to_meta
from service.cli.client.agent import (
    AgentEvent,
    AgentFailure,
    AgentInvocation,
    AgentResult,
    TextOutput,
    ToolCallStarted,
    timed_out,
)
from service.config.loading import load_config
from service.config.schema import Config
from service.config.source import Locations
from service.core.concurrency import Deadline, deadline, on_signal
from service.core.errors import GatewayError
from service.core.messages import Message, Role, Sampling, Text
from service.core.principal import ADMINISTRATOR
from service.gateway.build import open_gateway
from service.gateway.gateway import Gateway
from service.gateway.startup_checks import check_traces
from service.models.output_format import strict_format
from service.storage.database.errors import StoreError
from service.storage.runs.records import Protocol

if TYPE_CHECKING:
    from service.api.traces.export import Traces


class LocalAgentClient:
    """Runs the agent in this process, whose standard library is patched; transcripts are shared with gateways.

    Traces are opened by the first run and sent by `close`: a wait for their collector does not hold up a conversation.
    """

    def __init__(self, locations: Locations) -> None:
        self._locations = locations
        self._traces: Traces | None = None
        self._log = GatewayLog(locations.state_dir, console=False, with_process=True)
        self._interrupted = False
        self._interrupt: Callable[[], None] = lambda: None

    def run(self, request: AgentInvocation) -> Iterator[AgentEvent]:
        """See `AgentClient.run`."""
        self._interrupted = False
        logging.basicConfig(level=logging.ERROR)  # the command reports failures itself
        config = self._config()
        if config.logging.file is not None:
            self._log.apply(config.logging)
        self._open_traces(config)
        try:
            gateway = open_gateway(config, self._locations, os.environ)
        except StoreError as error:
            raise AgentFailure(str(error)) from None
        with closing(gateway), on_signal(signal.SIGINT, self._on_interrupt):
            try:
                with deadline(request.timeout_seconds):
                    yield from self._follow(gateway, self._start(gateway, request))
            except Deadline:
                raise timed_out(request.timeout_seconds) from None
            except GatewayError as error:
                raise AgentFailure(error.message, error.code) from None

    def close(self) -> None:
        """See `AgentClient.close`."""
        if self._traces is not None:
            self._traces.close()

    def _open_traces(self, config: Config) -> None:
        """Make traces from now on where they are on. Raises `ConfigError` without the extra."""
        if self._traces is None and are_on(config.diagnostics, os.environ):
            check_traces(config)
            self._traces = open_traces(config.diagnostics, os.environ)

    def _config(self) -> Config:
        # No file is needed: the embedded model works without one.
        return load_config(self._locations, os.environ).config if self._locations.config_path.exists() else Config()

    def _on_interrupt(self) -> None:
        self._interrupted = True
        self._interrupt()

    def _start(self, gateway: Gateway, request: AgentInvocation) -> Run:
        schema = request.json_schema
        message = IncomingMessage("message", Message(Role.USER, (Text(request.message),)))
        return gateway.submit(
            AgentRequest(
                principal=ADMINISTRATOR,
                protocol=Protocol.LOCAL,
                messages=(message,),
                agent_id=request.agent_id,
                provider_model=request.model,
                session_key=request.session_key,
                sampling=Sampling(response_format=None if schema is None else strict_format(schema)),
            )
        )

    def _follow(self, gateway: Gateway, run: Run) -> Iterator[AgentEvent]:
        self._interrupt = run.abort
        try:
            for batch in run.follow():
                for event in batch:
                    yield from self._to_events(gateway, run, event)
        finally:
            run.abort()

    def _to_events(self, gateway: Gateway, run: Run, event: object) -> Iterator[AgentEvent]:
        if isinstance(event, TextDelta):
            yield TextOutput(event.text)
        elif isinstance(event, ToolStarted):
            yield ToolCallStarted(event.call.name)
        elif isinstance(event, RunEnded):
            if self._interrupted:
                raise KeyboardInterrupt
            if event.error is not None:
                raise event.error
            duration_ms = round((time.time() - run.accepted_at) * 1000)
            payloads = [{"text": run.text, "mediaUrl": None}] if run.text else []
            meta = to_meta(run, event, gateway, duration_ms)
            yield AgentResult(run.text, {"payloads": payloads, "meta": meta})
