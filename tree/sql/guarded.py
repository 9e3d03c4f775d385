"""The connection that a model's query runs on: what it may do, and what stops it.

A query can read its own database and nothing else: the file is opened read-only and immutable, an authorizer admits
reading, functions and recursion only, no file can be attached. It is stopped by a budget of SQLite's virtual machine
steps (the same on every machine for one SQLite version), by the clock, by memory and by the size of its values; in a
worker (`tree.sql.worker`) also by the size of its temporary files and, where it hangs in one step, by the kernel. Not
covered: bugs of SQLite itself, beyond the loss of the worker process.

Documents: https://www.sqlite.org/security.html, https://www.sqlite.org/limits.html, https://www.sqlite.org/c3ref/c_alter_table.html
"""

import contextlib
import functools
import os
import signal
import sqlite3
import stat
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tree.sql.cache import State, file_state, settle
from tree.sql.database_file import connect, refusal
from tree.sql.query_text import clock_or_random
from tree.sql.table_info import list_tables

STEPS_PER_CHECK = 10_000  # virtual machine steps between two looks at the limits
MAX_VALUE = 16_000_000  # bytes of one value
MAX_SQL = 100_000  # bytes of a query
MAX_DEPTH = 400  # levels of an expression
MAX_COLUMNS = 1_000  # of a result, a table or a clause
MAX_COMPOUND = 100  # SELECTs of one UNION chain
HEAP = 1 << 30  # bytes that SQLite may use
OPEN_DATABASES = 128  # per worker: those of the trees in flight, with their perturbed instances
MAX_TEMPORARY = 2 << 30  # bytes of the temporary files of one query, beside what it writes between two looks
LOOK_EVERY = 0.1  # seconds between two looks at the temporary files

READING = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
READING_PRAGMAS = {"table_info", "table_xinfo", "table_list", "foreign_key_list", "index_list", "index_info"}
INNER_PRAGMAS = {"data_version"}  # asked by full-text tables (FTS5) when they are read
FORBIDDEN_FUNCTIONS = {"load_extension", "readfile", "writefile", "edit", "fts3_tokenizer"}
COUNTING = {"count", "sum", "total"}  # functions whose result depends on how many rows there are
CHANCE = {"random", "randomblob", "current_date", "current_time", "current_timestamp"}  # functions without arguments
ROWID_NAMES = frozenset({"rowid", "oid", "_rowid_"})  # that every table has
# table-valued functions that queries use; SQLite writes to its in-memory catalogue when one is used for the first time
TABLE_FUNCTIONS = ("json_each('[]')", "json_tree('[]')", *(f"pragma_{name}" for name in sorted(READING_PRAGMAS)))


# --- limits ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Limits:
    """Of one query: `timeout` in seconds of wall clock, `steps` of SQLite's virtual machine.

    `kill_after` are the seconds past the timeout until the kernel kills this process: a step of SQLite that takes
    minutes looks at no limit. 0 in a process that must not die.
    """

    timeout: float
    steps: int
    kill_after: float = 0.0

    def longest(self) -> float:
        """Seconds until the kernel kills a process that does not come back from a query."""
        return self.timeout + self.kill_after

    def arm(self) -> None:
        """The kernel kills this process unless the next call comes before a query must have ended."""
        if self.kill_after:
            signal.setitimer(signal.ITIMER_REAL, self.longest())


# --- the connection -------------------------------------------------------------------------------------------------


class GuardedDatabase:
    """An open database, its names, and what the authorizer refused and saw of the query that runs."""

    def __init__(self, path: str):
        self.connection = connect(path)
        _warm_up(self.connection)
        tables = list_tables(self.connection)
        self.tables = {table.name.lower() for table in tables}
        names = (column.name.lower() for table in tables for column in table.columns)
        self.names = ROWID_NAMES.union(self.tables, names)
        self.columns = {
            table.name: [column.name for column in readable] for table in tables if (readable := table.readable())
        }
        views = self.connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'view'")
        self.chance_views = {name.lower() for name, sql in views if clock_or_random(sql or "")}
        self.start(Limits(0, 0))
        _limit(self.connection)
        self.connection.set_authorizer(self._authorize)
        self.connection.set_progress_handler(self._over_limit, STEPS_PER_CHECK)

    def start(self, limits: Limits) -> None:
        """Forget the query before, and give the next one its limits."""
        self.refused = ""
        self.tables_read: set[str] = set()
        self.sees_rows = False  # whether it reads a column of a table or counts
        self.by_chance = False  # whether it reads the clock or draws random numbers beyond what its text says
        self.fills_disk = False
        self.steps_left = limits.steps
        self.deadline = time.perf_counter() + limits.timeout

    def _authorize(self, action: int, first: str | None, second: str | None, _: str | None, inside: str | None) -> int:
        """SQLite asks before it prepares each part of a query; `inside` is the view or WITH name whose part it is."""
        if self.chance_views:  # a view is named where it is read, or where something in it is read or computed
            self.by_chance |= not self.chance_views.isdisjoint({(first or "").lower(), (inside or "").lower()})
        if action == sqlite3.SQLITE_READ:
            self.tables_read.add(first.lower())  # as written in count(*), as declared elsewhere
            self.sees_rows |= bool(second) and first.lower() in self.tables
        if action == sqlite3.SQLITE_FUNCTION:
            self.sees_rows |= second.lower() in COUNTING
            self.by_chance |= second.lower() in CHANCE
        if action in READING and not (action == sqlite3.SQLITE_FUNCTION and second.lower() in FORBIDDEN_FUNCTIONS):
            return sqlite3.SQLITE_OK
        # through pragma_table_info(…) and its like; `sandbox.run` refuses the statements themselves
        if action == sqlite3.SQLITE_PRAGMA and first in READING_PRAGMAS | INNER_PRAGMAS:
            return sqlite3.SQLITE_OK
        self.refused = self.refused or f"{second or first or 'the statement'} is not allowed"
        return sqlite3.SQLITE_DENY

    def _over_limit(self) -> bool:
        self.steps_left -= STEPS_PER_CHECK
        return self.steps_left < 0 or time.perf_counter() > self.deadline

    def stop_filling(self) -> None:
        """Stop the running query because of its temporary files; called from another thread."""
        self.fills_disk = True
        self.connection.interrupt()


def _warm_up(connection: sqlite3.Connection) -> None:
    connection.execute(f"PRAGMA hard_heap_limit = {HEAP}")
    for function in TABLE_FUNCTIONS:
        with contextlib.suppress(sqlite3.OperationalError):  # this SQLite does not have it
            connection.execute(f"SELECT * FROM {function} LIMIT 0")


def _limit(connection: sqlite3.Connection) -> None:
    connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_VALUE)
    connection.setlimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH, MAX_SQL)
    connection.setlimit(sqlite3.SQLITE_LIMIT_EXPR_DEPTH, MAX_DEPTH)
    connection.setlimit(sqlite3.SQLITE_LIMIT_COLUMN, MAX_COLUMNS)
    connection.setlimit(sqlite3.SQLITE_LIMIT_COMPOUND_SELECT, MAX_COMPOUND)


def guarded(path: str) -> GuardedDatabase:
    """This process's open database at `path`, opened again when the file there is another one or has changed.

    Raises InputError when it cannot be opened or its schema is damaged.
    """
    return _guarded(path, file_state(path))


@functools.lru_cache(maxsize=OPEN_DATABASES)
def _guarded(path: str, state: State) -> GuardedDatabase:
    settle(state)  # SQLite does not see changes of a file that it takes as immutable
    try:
        return GuardedDatabase(path)
    except sqlite3.Error as error:
        raise refusal(path, error) from error


# --- temporary files ------------------------------------------------------------------------------------------------

# SQLite makes one for each sort and each subquery that outgrows its cache; a limit of the kernel holds for one file

_lock = threading.Lock()
_stops: list[Callable[[], None]] = []  # of the queries that run, in a worker one at most


@contextlib.contextmanager
def watched(stop: Callable[[], None]) -> Iterator[None]:
    """While the block runs, `watch` calls `stop` when this process has too much in temporary files."""
    with _lock:
        _stops.append(stop)
    try:
        yield
    finally:
        with _lock:
            _stops.remove(stop)


def watch(most: int = MAX_TEMPORARY) -> None:
    """Stop what is `watched` whenever there are more than `most` bytes, for ever: for a thread of its own."""
    while True:
        time.sleep(LOOK_EVERY)
        # the lock: the query that fills the files is the one that is stopped; a query may leave no memory for looking
        with _lock, contextlib.suppress(OSError, MemoryError):
            if _stops and _temporary_bytes() > most:
                for stop in _stops:
                    stop()


def _temporary_bytes() -> int:
    """Bytes of this process's open files that have no name any more, but for its standard streams.

    SQLite deletes a temporary file as soon as it has opened it (https://www.sqlite.org/tempfiles.html).
    """
    total = 0
    for name in os.listdir("/dev/fd"):
        with contextlib.suppress(OSError):  # closed meanwhile
            status = os.fstat(int(name))
            is_nameless = stat.S_ISREG(status.st_mode) and not status.st_nlink and int(name) > 2
            total += status.st_size if is_nameless else 0
    return total
