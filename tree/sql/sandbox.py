"""Running one query: its execution, its rows, and reasons to look twice at them.

What it may do and what stops it is in `tree.sql.guarded`, whether its rows are right in `tree.sql.verdict`.
"""

import re
import sqlite3
import time

from tree.sql.guarded import GuardedDatabase, Limits, guarded, watched
from tree.sql.query_text import clock_or_random, limit_without_order, quoted_names
from tree.sql.results import BY_CHANCE, FLAGS, MANY_ROWS, SHOWN_ROWS, Execution, Row
from tree.sql.tokens import first_word

MAX_ROWS = 1_000_000
SHOWN_LENGTH = 1_000  # characters or bytes of a shown value: one row may hold gigabytes, and it goes to the parent
NO_SUCH = re.compile(r"no such (column|table): (.+)")
OUTCOME_OF_CODE = {
    sqlite3.SQLITE_AUTH: "denied",
    sqlite3.SQLITE_READONLY: "denied",
    sqlite3.SQLITE_INTERRUPT: "timeout",
    sqlite3.SQLITE_TOOBIG: "too_large",
    sqlite3.SQLITE_NOMEM: "too_large",
    sqlite3.SQLITE_FULL: "too_large",
}


class NoResultError(Exception):
    """Ends a query that has no result: its outcome and the reason."""

    def __init__(self, outcome: str, reason: object):
        super().__init__(outcome, str(reason))
        self.outcome, self.reason = outcome, str(reason)


def run(path: str, sql: str, limits: Limits, gold_rows: frozenset[Row] | None = None) -> tuple[Execution, list[Row]]:
    """Run one query: its execution and its rows.

    With `gold_rows`, reading stops once MANY_ROWS rows are read and one of them is not gold's.
    """
    limits.arm()
    database = guarded(path)
    with watched(database.stop_filling):
        found = _run(database, sql, limits, gold_rows)
    limits.arm()  # comparing the rows, and whatever comes before the next query, has as long
    return found


def _run(
    database: GuardedDatabase, sql: str, limits: Limits, gold_rows: frozenset[Row] | None
) -> tuple[Execution, list[Row]]:
    start = time.perf_counter()
    database.start(limits)
    try:
        columns, rows, more = _result(database, sql, gold_rows)
    except NoResultError as error:
        return _failed(database, sql, error, time.perf_counter() - start), []
    execution = Execution(
        outcome="ok" if rows else "empty",
        columns=columns,
        rows=_shown(rows),
        row_count=len(rows),
        more=more,
        seconds=time.perf_counter() - start,
        flags=_flags(database, sql),
        sees_rows=database.sees_rows,
    )
    return execution, rows


# --- its rows -------------------------------------------------------------------------------------------------------


def _result(
    database: GuardedDatabase, sql: str, gold_rows: frozenset[Row] | None
) -> tuple[tuple[str, ...], list[Row], bool]:
    """Columns, rows as far as they are needed, and whether there are more. Raises NoResultError."""
    _refuse_by_text(sql)
    try:
        cursor = database.connection.execute(sql)
        if cursor.description is None:
            raise NoResultError("not_a_query", "the statement returns no rows")
        rows, more = _read(cursor, gold_rows)
        cursor.close()
    except sqlite3.ProgrammingError as error:  # Python's sqlite3 takes one statement at a time, and no open parameters
        raise NoResultError("not_a_query" if "one statement" in str(error) else "error", error) from None
    except (sqlite3.Error, sqlite3.Warning) as error:
        raise _stopped(database, error) from None
    except UnicodeEncodeError:
        raise NoResultError("error", "the query contains characters that are not valid Unicode") from None
    except UnicodeDecodeError:
        raise NoResultError("error", "a name that the query reads is not UTF-8") from None
    except (MemoryError, OverflowError) as error:
        raise NoResultError("too_large", str(error) or "out of memory") from None
    return tuple(column[0] for column in cursor.description), rows, more


def _refuse_by_text(sql: str) -> None:
    word = first_word(sql)
    if word in ("EXPLAIN", "", ";"):
        raise NoResultError("not_a_query", "expected a SELECT query")
    if word in ("PRAGMA", "VACUUM"):  # a refused VACUUM makes SQLite forget its virtual tables
        raise NoResultError("denied", f"{word} is not allowed")
    if "\0" in sql:
        raise NoResultError("error", "the query contains a NUL character")


def _stopped(database: GuardedDatabase, error: Exception) -> NoResultError:
    """What an error of SQLite itself means."""
    if database.fills_disk:
        return NoResultError("too_large", "its temporary files take too much room")
    if database.refused:
        return NoResultError("denied", database.refused)
    code = getattr(error, "sqlite_errorcode", 0)
    if code == sqlite3.SQLITE_IOERR_WRITE:  # only a temporary file is ever written, and its size is limited
        return NoResultError("too_large", error)
    return NoResultError(OUTCOME_OF_CODE.get(code & 0xFF, "error"), error)


def _read(cursor: sqlite3.Cursor, gold_rows: frozenset[Row] | None) -> tuple[list[Row], bool]:
    rows: list[Row] = []
    while chunk := cursor.fetchmany(MANY_ROWS):
        rows += chunk
        if len(rows) > MAX_ROWS:
            raise NoResultError("too_large", f"more than {MAX_ROWS} rows")
        if gold_rows is not None and len(chunk) == MANY_ROWS and not gold_rows.issuperset(chunk):
            return rows, cursor.fetchone() is not None
    return rows, False


def _shown(rows: list[Row]) -> tuple[Row, ...]:
    return tuple(
        tuple(value[:SHOWN_LENGTH] if isinstance(value, str | bytes) else value for value in row)
        for row in rows[:SHOWN_ROWS]
    )


# --- what to say about it -------------------------------------------------------------------------------------------


def _flags(database: GuardedDatabase, sql: str) -> tuple[str, ...]:
    """Reasons to look twice at a query that ran: kept with the verdict, never acted on here."""
    found = {
        "constant": database.tables_read.isdisjoint(database.tables),
        "quoted_literal": '"' in sql and not quoted_names(sql) <= database.names,
        BY_CHANCE: _is_chance(database, sql),
        "limit_without_order": limit_without_order(sql),
    }
    return tuple(flag for flag in FLAGS if found.get(flag))


def _is_chance(database: GuardedDatabase, sql: str) -> bool:
    """Whether a query's result belongs to the moment: by its text, by a function it calls, or by a view that it uses.

    Not seen: a stored text 'now' that is read as a time.
    """
    return database.by_chance or clock_or_random(sql)


def _failed(database: GuardedDatabase, sql: str, error: NoResultError, seconds: float) -> Execution:
    may_run = error.outcome in ("error", "timeout", "too_large") and _is_chance(database, sql)  # another time
    flags = (BY_CHANCE,) if may_run else ()
    return Execution(error.outcome, error.reason, seconds=seconds, flags=flags)
