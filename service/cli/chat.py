"""`openclaw chat`: a conversation with an agent in the terminal."""

from __future__ import annotations

import re
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import TYPE_CHECKING

import click

from service.cli.agent import agent_option, local_option, model_option, open_client, run_turn, session_key_option
from service.cli.shared.common import pass_locations, printable
from service.config.source import Locations

if TYPE_CHECKING:
    from service.cli.client.agent import AgentClient

_HELP = "/new begins a new conversation, /exit or Ctrl-D ends, Ctrl-C stops an answer. A final \\ continues the line."

#: A command, known or not; a path, such as /etc/hosts, is none.
_COMMAND = re.compile(r"/[\w-]+(?!\S)")

#: A message that begins with a slash.
_ESCAPED = re.compile(r"//(?=\S)")


@click.command()
@agent_option
@session_key_option
@model_option
@local_option
@pass_locations
def chat(
    locations: Locations, agent_id: str | None, session_key: str | None, model: str | None, *, local: bool
) -> None:
    """Talk with an agent, through the gateway or in this process with --local.

    The conversation is the agent's session `main` unless --session-key names another one.
    """
    client = open_client(locations, local=local)
    from service.cli.client.agent import resolve_session

    agent_id, key = resolve_session(agent_id, None, session_key)
    is_terminal = sys.stdin.isatty()
    if is_terminal:
        _show(f"Session {key} of {agent_id or 'the default agent'}. {_HELP}", err=False)
    with closing(client):
        failed = _converse(client, agent_id, key, model, is_terminal=is_terminal)
    if failed and not is_terminal:
        raise click.exceptions.Exit(1)


def _converse(client: AgentClient, agent_id: str | None, key: str, model: str | None, *, is_terminal: bool) -> bool:
    """Answer what is typed until its end; return True if a turn failed or a line was not sent."""
    from service.cli.client.agent import AgentFailure, AgentInvocation
    from service.core.ids import new_uuid

    failed = False
    for text in _read_messages(is_terminal=is_terminal):
        if text == "/new":
            key = f"chat-{new_uuid()}"
            _show(f"A new conversation: {key}")
        elif text in ("/", "/help"):
            _show(_HELP)
        elif _COMMAND.match(text):
            failed = True
            _show(f"There is no such command. Write /{text.split()[0]} to send it as text. {_HELP}")
        else:
            message = text[1:] if _ESCAPED.match(text) else text
            try:
                run_turn(client, AgentInvocation(message, agent_id, key, model, None), stream=True)
            except AgentFailure as failure:
                failed = True
                click.ClickException(printable(failure.message)).show()
            except KeyboardInterrupt:
                signal.signal(signal.SIGINT, signal.default_int_handler)  # instead of one that ignores the next Ctrl-C
                _show("Stopped.")
    return failed


def _show(text: str, *, err: bool = True) -> None:
    """Print what is not part of the conversation, wrapped to the width of the terminal."""
    click.echo(click.style(click.wrap_text(text, shutil.get_terminal_size().columns), dim=True), err=err)


def _read_messages(*, is_terminal: bool) -> Iterator[str]:
    """Yield what is typed until the end of the input or /exit, without empty lines."""
    if is_terminal:
        with suppress(ImportError):
            import readline  # noqa: F401 - `input` edits lines and remembers them with it
    prompt, text = "you> " if is_terminal else "", ""
    while True:
        try:
            text += input(f"{'...> ' if is_terminal and text else prompt}")
        except EOFError:
            break
        if text.endswith("\\"):
            text = f"{text[:-1]}\n"
            continue
        message, text = text.strip(), ""
        if message in ("/exit", "/quit"):
            return
        if message:
            yield message
    if text.strip():
        yield text.strip()
