"""The log in the configured form, with a line for each run, request for embeddings and call of an agent's own tool."""

from __future__ import annotations

import logging
from pathlib import Path

import orjson

from service.config.log_settings import LoggingConfig
from service.config.secrets import mask_secrets
from service.config.source import ConfigError
from service.core.logs import configure_logging, write_event
from service.core.signals import (
    EmbeddingCalled,
    RunFinished,
    ToolExecuted,
    embedding_called,
    run_finished,
    tool_executed,
)
from service.core.usage import NANO
from service.core.work_context import current_work

_runs = logging.getLogger("openclaw.run")
_embeddings = logging.getLogger("openclaw.embeddings")
_tools = logging.getLogger("openclaw.tool")

#: Longer arguments are not searched for secrets, and left out.
_MAX_ARGUMENTS_CHARACTERS = 10_000


class GatewayLog:
    """The log of this process. A relative `logging.file` is below `state_dir`.

    `console`: standard error gets the lines, too. `with_process` adds the process id to each.
    """

    def __init__(self, state_dir: Path, *, console: bool = True, with_process: bool = False) -> None:
        self._state_dir = state_dir
        self._console = console
        self._with_process = with_process
        self._config: LoggingConfig | None = None

    def apply(self, config: LoggingConfig) -> None:
        """Log as `config` says from now on. Raises `ConfigError` if its file cannot be written."""
        if config == self._config:
            return
        settings = config.to_settings(self._state_dir)
        try:
            configure_logging(settings, console=self._console, with_process=self._with_process)
        except OSError as error:
            raise ConfigError([f"logging.file: {settings.file} cannot be written: {error.strerror}"]) from None
        if self._config is None:
            run_finished.connect(write_run)
            embedding_called.connect(write_embeddings)
            tool_executed.connect(self._write_call)
        self._config = config

    def _write_call(self, event: ToolExecuted) -> None:
        config = self._config
        arguments = _shown(event.arguments, config) if config is not None and config.tool_arguments else None
        fields: dict[str, str | float] = {
            "tool": event.name,
            "outcome": event.outcome,
            "duration_ms": round(event.seconds * 1000, 1),
            "run": event.run_id,
            "agent": event.agent,
            "session": event.session_key,
        }
        ids = current_work.get().ids
        _add_caller(fields, ids.get("key"), ids.get("request_id"))
        if event.decided_by is not None:
            fields["decided_by"] = event.decided_by
        if arguments is not None:
            fields["arguments"] = arguments
        write_event(_tools, fields)


def write_run(event: RunFinished) -> None:
    """Write the line of a run."""
    failed, usage = event.outcome != "ok", event.usage
    level = logging.WARNING if failed and event.has_begun else logging.INFO
    fields: dict[str, str | float] = {
        "run": event.run_id,
        "outcome": event.outcome,
        "agent": event.agent,
        "session": event.session_key,
        "protocol": event.protocol,
        "model_calls": event.model_calls,
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
    }
    if usage.cached_tokens:
        fields["cached_tokens"] = usage.cached_tokens
    if usage.reasoning_tokens:
        fields["reasoning_tokens"] = usage.reasoning_tokens
    if event.model_calls and usage.cost_nano is not None:
        fields["cost"] = usage.cost_nano / NANO
    if queued_ms := round(event.queued_seconds * 1000):
        fields["queued_ms"] = queued_ms
    if event.seconds is not None:
        fields["duration_ms"] = round(event.seconds * 1000)
    if event.first_output_seconds is not None:
        fields["first_output_ms"] = round(event.first_output_seconds * 1000)
    if event.model is not None:
        fields["model"] = event.model
    if event.reason is not None:
        fields["reason"] = event.reason
    _add_caller(fields, event.key_id, event.request_id)
    write_event(_runs, fields, level)


def write_embeddings(event: EmbeddingCalled) -> None:
    """Write the line of a request for embeddings that a model was asked for."""
    asked, usage = event.asked, event.usage
    fields: dict[str, str | float] = {
        "outcome": event.outcome,
        "agent": asked.agent,
        "model": asked.model,
        "model_calls": event.attempts,
        "input_tokens": usage.input_tokens,
    }
    if usage.input_tokens and usage.cost_nano is not None:
        fields["cost"] = usage.cost_nano / NANO
    fields["duration_ms"] = round(event.seconds * 1000)
    if event.reason is not None:
        fields["reason"] = event.reason
    _add_caller(fields, asked.key_id, asked.request_id)
    write_event(_embeddings, fields, logging.INFO if event.outcome == "ok" else logging.WARNING)


def _add_caller(fields: dict[str, str | float], key_id: str | None, request_id: str | None) -> None:
    """Add who asked, and the trace that this is a part of."""
    if key_id is not None:
        fields["key"] = key_id
    if request_id is not None:
        fields["request_id"] = request_id
    ids = current_work.get().ids
    if "trace_id" in ids:
        fields["trace_id"], fields["span_id"] = ids["trace_id"], ids["span_id"]


def _shown(arguments: str, config: LoggingConfig) -> str | None:
    """Return the arguments without secrets, `None` if they are no JSON in which these could be found."""
    if config.redact_sensitive == "off":
        return arguments
    if len(arguments) > _MAX_ARGUMENTS_CHARACTERS:
        return None
    try:
        return orjson.dumps(mask_secrets(orjson.loads(arguments))).decode()
    except ValueError:
        return None
