"""Examples at the end of each command's help."""

from __future__ import annotations

from collections.abc import Mapping

import click

#: By the words of the command, without `openclaw`.
EXAMPLES: Mapping[str, tuple[str, ...]] = {
    "": ("openclaw setup", "openclaw gateway", 'openclaw agent "hi"'),
    "agent": (
        'openclaw agent "What is in my workspace?" --agent coder',
        'openclaw agent "And who are you?" --session-key demo --stream',
        "git diff | openclaw agent - --json",
    ),
    "agents": ("openclaw agents list", "openclaw agents show main"),
    "agents list": ("openclaw agents list --json",),
    "agents show": ("openclaw agents show main",),
    "approvals": ("openclaw approvals list", "openclaw approvals resolve apr_01a2 allow-once"),
    "approvals list": ("openclaw approvals list",),
    "approvals resolve": ("openclaw approvals resolve apr_01a2 deny",),
    "backup": ("openclaw backup openclaw.sqlite",),
    "chat": ("openclaw chat", "openclaw chat --agent coder --session-key refactoring"),
    "completion": ("openclaw completion bash >> ~/.bashrc",),
    "config": ("openclaw config get agents", "openclaw config validate"),
    "config file": ("openclaw config file",),
    "config get": ("openclaw config get gateway.auth.token", "openclaw config get agents.defaults"),
    "config schema": ("openclaw config schema > openclaw.schema.json",),
    "config set": (
        "openclaw config set agents.defaults.model openai/gpt-5-mini",
        "openclaw config set gateway.http.endpoints.chatCompletions.enabled true",
    ),
    "config unset": ("openclaw config unset agents.defaults.workspace",),
    "config validate": ("openclaw config validate",),
    "doctor": ("openclaw doctor", "openclaw doctor --no-calls --json"),
    "gateway": ("openclaw gateway", "openclaw gateway --port 8080 --workers 4", "openclaw gateway --dev"),
    "health": ("openclaw health", "openclaw health --timeout 2 --json"),
    "keys": ("openclaw keys create alice --scope chat", "openclaw keys list"),
    "keys create": (
        "openclaw keys create alice --scope chat --agent main --expires 90d",
        "openclaw keys create batch --rpm 60 --budget 5usd/day",
    ),
    "keys limit": ("openclaw keys limit alice --rpm 30",),
    "keys list": ("openclaw keys list",),
    "keys revoke": ("openclaw keys revoke alice",),
    "keys rotate": ("openclaw keys rotate alice --grace 1h",),
    "keys show": ("openclaw keys show alice --json",),
    "logs": ("openclaw logs --follow", "openclaw logs --limit 500 --json"),
    "mcp": ("openclaw mcp list", "openclaw mcp test"),
    "mcp list": ("openclaw mcp list",),
    "mcp test": ("openclaw mcp test github",),
    "mock": ("openclaw mock", "openclaw mock --port 18790 --model slow"),
    "models": ("openclaw models list", "openclaw models install"),
    "models install": ("openclaw models install",),
    "models list": ("openclaw models list --json",),
    "restore": ("openclaw restore openclaw.sqlite",),
    "runs": ("openclaw runs list", "openclaw runs watch chatcmpl_01a2"),
    "runs cancel": ("openclaw runs cancel chatcmpl_01a2",),
    "runs list": ("openclaw runs list --agent main --limit 10",),
    "runs show": ("openclaw runs show chatcmpl_01a2",),
    "runs watch": ("openclaw runs watch chatcmpl_01a2",),
    "sessions": ("openclaw sessions list", "openclaw sessions show demo"),
    "sessions abort": ("openclaw sessions abort demo --agent main",),
    "sessions delete": ("openclaw sessions delete demo --yes",),
    "sessions export": (
        "openclaw sessions export demo",
        "openclaw sessions export --all --output sessions.jsonl",
    ),
    "sessions import": (
        "openclaw sessions import sessions.jsonl",
        "openclaw sessions import 2f1c.jsonl --agent main --session-key old-talk",
    ),
    "sessions list": ("openclaw sessions list --agent main",),
    "sessions prune": ("openclaw sessions prune --dry-run",),
    "sessions show": ("openclaw sessions show demo --limit 5",),
    "setup": ("openclaw setup", "openclaw setup --model openai/gpt-5-mini --endpoint"),
    "status": ("openclaw status",),
    "usage": ("openclaw usage --by agent", "openclaw usage --by day --from 2026-01-01 --to 2026-01-31"),
}


def add_examples(command: click.Command, words: str = "") -> None:
    """Add its examples to the help of `command`, whose words are `words`, and of all commands below it."""
    lines = "\n".join(f"  {example}" for example in EXAMPLES.get(words, ()))
    command.epilog = f"{command.epilog or ''}\n\n\b\nExamples:\n{lines}"
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            add_examples(below, f"{words} {name}".lstrip())
