"""Dialect differences, and statements compiled once per dialect.

Looking up a compiled statement costs SQLAlchemy several times what SQLite needs to execute it, and so does its result.
The statements of every run are therefore compiled once, and SQLite's driver gets their text.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import orjson
import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

if TYPE_CHECKING:
    from sqlalchemy.dialects import postgresql

Dialect = sa.engine.interfaces.Dialect

#: Makes the driver's parameters of a statement's.
_Bind = Callable[[Any], Any]


def insert(dialect: Dialect, table: sa.Table) -> sqlite.Insert | postgresql.Insert:
    """Build an INSERT into `table` with a parameter for each column and support for ON CONFLICT."""
    if dialect.name != "postgresql":
        return sqlite.insert(table).inline()
    from sqlalchemy.dialects import postgresql  # noqa: PLC0415 - two megabytes that SQLite does not need

    return postgresql.insert(table).inline()


def is_among(dialect: Dialect, column: sa.ColumnElement[Any], name: str) -> sa.ColumnElement[bool]:
    """Build `column IN (...)` for the list parameter `name`, which `to_list` encodes."""
    if dialect.name == "postgresql":
        return column == sa.any_(sa.bindparam(name, type_=sa.ARRAY(sa.Text)))
    items = sa.func.json_each(sa.bindparam(name, type_=sa.Text)).table_valued("value")
    return column.in_(sa.select(items.c.value))


def to_list(dialect: Dialect, texts: Sequence[str]) -> object:
    """Encode the list parameter of `is_among`."""
    return list(texts) if dialect.name == "postgresql" else orjson.dumps(texts).decode()


class PreparedStatement:
    """A statement with named parameters, built by `build` and compiled once per dialect.

    `columns` are the columns that an INSERT fills, where its parameters are its columns. With `order`, the names of
    all parameters, `execute_many` takes tuples in that order.
    """

    def __init__(
        self,
        build: Callable[[Dialect], sa.Executable],
        columns: Sequence[str] | None = None,
        order: Sequence[str] | None = None,
    ) -> None:
        self._build = build
        self._columns = columns
        self._order = order
        self._compiled: dict[str, tuple[str, _Bind]] = {}
        self._row: Any = None

    def execute(self, connection: sa.Connection, parameters: Mapping[str, Any]) -> sa.CursorResult[Any]:
        """Execute it once."""
        text, bind = self._compile(connection.dialect)
        return connection.exec_driver_sql(text, bind(parameters))

    def all(self, connection: sa.Connection, parameters: Mapping[str, Any]) -> Sequence[Any]:
        """Execute it once and return all rows, whose columns are attributes."""
        if connection.dialect.name != "sqlite":
            return self.execute(connection, parameters).all()
        text, bind = self._compile(connection.dialect)
        driver: Any = connection.connection.dbapi_connection
        cursor = driver.execute(text, bind(parameters))
        rows = cursor.fetchall()
        if rows and self._row is None:
            names = [name for name, *_ in cursor.description]
            self._row = namedtuple("Row", names)  # type: ignore[misc]  # noqa: PYI024 - its columns have no types
        return [self._row._make(row) for row in rows] if rows else []

    def first(self, connection: sa.Connection, parameters: Mapping[str, Any]) -> Any | None:
        """Execute it once and return the first row, if there is one."""
        rows = self.all(connection, parameters)
        return rows[0] if rows else None

    def execute_many(
        self, connection: sa.Connection, rows: Sequence[Mapping[str, Any]] | Sequence[tuple[Any, ...]]
    ) -> int:
        """Execute it for each of `rows`; return the number of rows it changed."""
        if not rows:
            return 0
        text, bind = self._compile(connection.dialect)
        bound = list(map(bind, rows))
        if connection.dialect.name == "sqlite":
            driver: Any = connection.connection.dbapi_connection
            return int(driver.executemany(text, bound).rowcount)
        return connection.exec_driver_sql(text, bound).rowcount

    def _compile(self, dialect: Dialect) -> tuple[str, _Bind]:
        known = self._compiled.get(dialect.name)
        if known is None:
            compiled: Any = self._build(dialect)
            compiled = compiled.compile(dialect=dialect, column_keys=self._columns)
            constants = {name: bind.effective_value for name, bind in compiled.binds.items() if not bind.required}
            bind = _binding(compiled.positiontup, constants) if self._order is None else self._ordering(compiled)
            known = self._compiled[dialect.name] = str(compiled), bind
        return known

    def _ordering(self, compiled: Any) -> _Bind:
        order = self._order or ()
        if compiled.positiontup is None:
            return lambda values: dict(zip(order, values, strict=True))
        return itemgetter(*map(order.index, compiled.positiontup))


def _binding(order: Sequence[str] | None, constants: Mapping[str, Any]) -> _Bind:
    """Return what adds `constants` to parameters, and puts them in their `order` for positional drivers."""
    take = _taking(order)
    return (lambda parameters: take({**constants, **parameters})) if constants else take


def _taking(order: Sequence[str] | None) -> _Bind:
    if order is None:
        return lambda parameters: parameters
    if len(order) > 1:
        return itemgetter(*order)  # half the cost of a loop
    return lambda parameters: tuple(parameters[name] for name in order)
