"""Read a file for `openclaw sessions import`, whichever of two formats it has."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from itertools import chain

import click

from service.config.roster import Roster
from service.config.schema import Config
from service.storage.runs.records import RUN_ID_PREFIX
from service.storage.sessions.importing import ImportedSession
from service.storage.sessions.keys import default_session_key, session_key_for
from service.storage.sessions.session_files import OpenClawTranscript, SessionFileError, parse_export, read_lines


def read_sessions(
    file: Iterable[bytes], config: Config, agent: str | None, session_key: str | None
) -> list[ImportedSession]:
    """Return the sessions of `file`; `agent` and `session_key` are for a transcript of OpenClaw.

    Raises `SessionFileError`, and `click.UsageError` for options that an export does not take.
    """
    lines = read_lines(file)
    first = next(lines, None)
    if first is None:
        raise SessionFileError("line 1: it is empty")
    lines = chain([first], lines)
    if "type" not in first[1]:
        if agent is not None or session_key is not None:
            raise click.UsageError("--agent and --session-key are for transcripts of OpenClaw; an export names both.")
        return parse_export(lines)
    agent_id = (agent or Roster.from_config(config).default.id).lower()

    def key_of(session_id: str) -> str:
        return session_key_for(agent_id, default_session_key(session_key, session_id), None, str).key

    return [OpenClawTranscript(key_of, agent_id, lambda: f"{RUN_ID_PREFIX}{uuid.uuid4().hex}").parse(lines)]
