"""The work of the current greenlet: the run that its log lines name, and the trace that other services continue.

A greenlet begins with nothing; `run_concurrently` hands the work of its caller to its jobs.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any, NamedTuple

_NOTHING: Mapping[str, str] = MappingProxyType({})


class WorkContext(NamedTuple):
    """A piece of work: `ids` are fields of its log lines.

    With traces, `span` is its span, opaque here, `kind` what this is a span of, and `around` the work that it is a part
    of. Requests to other services have `trace_headers`; `trace_lines` are the same as lines of an HTTP head.
    """

    ids: Mapping[str, str] = _NOTHING
    trace_headers: Mapping[str, str] = _NOTHING
    trace_lines: str = ""
    kind: str = ""
    span: Any = None
    around: WorkContext | None = None


current_work: ContextVar[WorkContext] = ContextVar("current_work", default=WorkContext())  # noqa: B039 - a tuple
