"""The storage error, and the classification of driver errors."""

from __future__ import annotations

import sqlite3

from sqlalchemy.exc import DBAPIError, IntegrityError, InterfaceError, OperationalError, SQLAlchemyError

from service.core.errors import GatewayError

_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}

#: Transient errors of PostgreSQL: connection exceptions (08), too many connections (53300), operator intervention
#: (57P), serialization failures and deadlocks (40001, 40P01). Source: PostgreSQL's manual, appendix "Error Codes".
_TRANSIENT_STATES = ("08", "53300", "57P", "40001", "40P01")

#: Errors that a single operation can cause: its data (22), a constraint (23), a limit (54). All others concern the
#: database as a whole.
_OPERATION_STATES = ("22", "23", "54")


#: PostgreSQL's class for corrupted data and indexes.
_CORRUPTED = "XX00"


class StoreError(GatewayError):
    """The database cannot be used.

    Callers get a generic message. `str()` gives `detail`, the cause, for the log and the operator; it never contains
    message text.
    """

    def __init__(self, detail: str) -> None:
        super().__init__(
            "storage_unavailable",
            "The gateway cannot use its database; nothing was stored. Retry later; the gateway's log has the cause.",
        )
        self.detail = detail

    def __str__(self) -> str:
        return self.detail


class DatabaseReplacedError(StoreError):
    """The file of the database was removed or replaced while it was open."""


class OperationRefusedError(Exception):
    """An operation does not do what was asked, and nothing is stored; the database is well. The text says why."""


def root_cause(error: Exception) -> BaseException:
    """Return the driver's error, without the SQL that SQLAlchemy adds."""
    return error.orig if isinstance(error, DBAPIError) and error.orig else error


def is_transient(error: Exception) -> bool:
    """Return True if a retry may succeed: after a lock, a restart, a lost connection or a conflict."""
    if not isinstance(error, DBAPIError):
        return False
    if error.connection_invalidated or isinstance(error, InterfaceError):
        return True
    code = getattr(error.orig, "sqlite_errorcode", None)
    if code is not None:
        return code & 0xFF in _BUSY
    state = getattr(error.orig, "sqlstate", None)
    if state is None:  # no response from a server
        return isinstance(error, OperationalError)
    return str(state).startswith(_TRANSIENT_STATES)


def is_operation_error(error: Exception) -> bool:
    """Return True if a single operation may have caused the error, so that the others can be committed without it."""
    if not isinstance(error, SQLAlchemyError):
        return not isinstance(error, DatabaseReplacedError)
    if isinstance(error, IntegrityError):
        return True
    state = getattr(getattr(error, "orig", None), "sqlstate", None)
    if state is not None:
        return str(state).startswith(_OPERATION_STATES)
    return not isinstance(error, OperationalError)


def is_damage(error: Exception) -> bool:
    """Return True if the stored data is corrupt, which no retry repairs."""
    cause = getattr(error, "orig", None)
    code = getattr(cause, "sqlite_errorcode", None)
    if code is not None:
        return code & 0xFF in _DAMAGED
    return str(getattr(cause, "sqlstate", None)).startswith(_CORRUPTED)
