"""The one error of the database, and which of the drivers' errors are worth another try."""

from __future__ import annotations

import sqlite3

from sqlalchemy.exc import DBAPIError, IntegrityError, InterfaceError, OperationalError, SQLAlchemyError

from service.core.errors import GatewayError

_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}

#: PostgreSQL's classes and codes of what passes: connections (08), too many of them (53300), restarts (57P), conflicts
#: of transactions (40001, 40P01). Source: the appendix of error codes in PostgreSQL's manual.
_PASSING = ("08", "53300", "57P", "40001", "40P01")

#: What a single operation may be at fault for: its values (22), a constraint (23), their size (54). Everything else is
#: the database's.
_OF_VALUES = ("22", "23", "54")


class StoreError(GatewayError):
    """The database cannot do what was asked.

    A caller is told only that. As text it is `detail`, which says what is wrong, for the log and for whoever runs the
    gateway; it never holds what was said.
    """

    def __init__(self, detail: str) -> None:
        super().__init__(
            "storage_unavailable",
            "The gateway cannot use its database, so nothing of this is stored. Try again soon; its log says why.",
        )
        self.detail = detail

    def __str__(self) -> str:
        return self.detail


def reason_of(error: Exception) -> BaseException:
    """What went wrong, without the SQL that SQLAlchemy adds."""
    return error.orig if isinstance(error, DBAPIError) and error.orig else error


def may_pass(error: Exception) -> bool:
    """Whether the same may succeed in a moment: a lock, a restart, a lost connection, a conflict."""
    if not isinstance(error, DBAPIError):
        return False
    if error.connection_invalidated or isinstance(error, InterfaceError):
        return True
    code = getattr(error.orig, "sqlite_errorcode", None)
    if code is not None:
        return code & 0xFF in _BUSY
    state = getattr(error.orig, "sqlstate", None)
    if state is None:  # no answer from a server at all
        return isinstance(error, OperationalError)
    return str(state).startswith(_PASSING)


def is_of_the_operation(error: Exception) -> bool:
    """Whether one operation may be at fault, so that others of the same transaction can do without it."""
    if not isinstance(error, SQLAlchemyError):
        return True
    if isinstance(error, IntegrityError):
        return True
    state = getattr(getattr(error, "orig", None), "sqlstate", None)
    if state is not None:
        return str(state).startswith(_OF_VALUES)
    return not isinstance(error, OperationalError)
