"""The table of methods."""

from service.rpc.method import Method
from service.rpc.methods import catalog, chat, runs, sessions

ROWS: tuple[Method, ...] = (*runs.ROWS, *chat.ROWS, *sessions.ROWS, *catalog.ROWS)
