"""The table of methods."""

from service.api.websocket.dispatch import Method
from service.api.websocket.methods import agent as runs
from service.api.websocket.methods import approvals, chat, sessions
from service.api.websocket.methods import info as catalog

ROWS: tuple[Method, ...] = (*runs.ROWS, *chat.ROWS, *sessions.ROWS, *approvals.ROWS, *catalog.ROWS)
