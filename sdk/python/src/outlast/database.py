"""An effect that is a database transaction: it commits together with a row that has our key, or not at all.

A second attempt, of whoever holds the run by then, finds the row and takes its result. Two at the same moment meet at
the row's primary key: one of them rolls back.
"""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Callable
from typing import Any

from .errors import NotDone, OutlastError
from .values import canonical, recorded

_TABLE = """CREATE TABLE IF NOT EXISTS outlast_effects (
    effect_key VARCHAR(80) NOT NULL PRIMARY KEY,
    result TEXT
)"""
_FIND = "SELECT result FROM outlast_effects WHERE effect_key = {0}"
_CLAIM = "INSERT INTO outlast_effects (effect_key, result) VALUES ({0}, NULL)"
_FILL = "UPDATE outlast_effects SET result = {0} WHERE effect_key = {1}"
_MARKS = {"qmark": ("?", "?"), "format": ("%s", "%s"), "pyformat": ("%s", "%s"), "numeric": (":1", ":2")}


def create_effects_table(connection: Any) -> None:
    """Creates `outlast_effects` where it is not there yet, and commits. Call it once, when the program starts.

    Rows may be deleted once no run can repeat them; 90 days are kept by the server.
    """
    cursor = connection.cursor()
    try:
        cursor.execute(_TABLE)
    finally:
        cursor.close()
    connection.commit()


class EffectsTable:
    """The table of one connection."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._module = sys.modules.get(type(connection).__module__.split(".")[0])
        style = getattr(self._module, "paramstyle", "qmark")
        if style not in _MARKS:
            raise ValueError(f"tx: parameters in the style {style!r} are not known; there are {sorted(_MARKS)}")
        self._marks = _MARKS[style]

    def once(self, key: str, fn: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        """What `fn` returns, or returned when its transaction was committed.

        Raises:
            NotDone: it was rolled back.
        """
        self._begin()
        try:
            found, result = self._find(key)
            if found:
                self._connection.rollback()
                return result
            self._claim(key)
            result = recorded(fn(*args), "the step's result")
            self._still_open()
            self._execute(_FILL, (canonical(result), key))
        except BaseException as error:
            self._connection.rollback()
            if isinstance(error, (NotDone, _CommittedEarly)) or not isinstance(error, Exception):
                raise
            raise NotDone(f"rolled back: {type(error).__name__}: {error}") from error
        self._connection.commit()
        return result

    def _begin(self) -> None:
        connection = self._connection
        if not isinstance(connection, sqlite3.Connection):
            return  # PEP 249: the first statement begins one.
        # From Python 3.12 on, a connection with autocommit=False is always in a transaction.
        if connection.in_transaction and getattr(connection, "autocommit", None) is not False:
            raise NotDone("tx: the connection is in a transaction of its own; commit it before the step", final=True)
        if not connection.in_transaction:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.Error as error:
                raise NotDone(f"tx: no transaction: {error}") from error

    def _still_open(self) -> None:
        connection = self._connection
        if isinstance(connection, sqlite3.Connection) and not connection.in_transaction:
            raise _CommittedEarly("tx: the step committed, or rolled back, by itself; leave that to Outlast")

    def _find(self, key: str) -> tuple[bool, Any]:
        cursor = self._execute(_FIND, (key,))
        row = cursor.fetchone()
        cursor.close()
        if row is None:
            return False, None
        if row[0] is None:
            raise _CommittedEarly("tx: an earlier attempt committed by itself; its result is not known")
        return True, json.loads(row[0])

    def _claim(self, key: str) -> None:
        taken = getattr(self._module, "IntegrityError", None)
        try:
            self._execute(_CLAIM, (key,))
        except Exception as error:
            if isinstance(taken, type) and isinstance(error, taken):
                # Another attempt committed in between; the next one finds its row.
                raise NotDone("tx: another attempt was faster") from error
            raise

    def _execute(self, sql: str, values: tuple[Any, ...]) -> Any:
        cursor = self._connection.cursor()
        cursor.execute(sql.format(*self._marks), values)
        return cursor


class _CommittedEarly(OutlastError):
    """The step's own commit took our row along before it was filled."""
