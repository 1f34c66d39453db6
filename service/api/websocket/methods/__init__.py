"""The table of methods."""

from service.api.websocket.dispatch import Method
from service.api.websocket.methods import agent, approvals, chat, info, sessions

ROWS: tuple[Method, ...] = (*agent.ROWS, *chat.ROWS, *sessions.ROWS, *approvals.ROWS, *info.ROWS)
