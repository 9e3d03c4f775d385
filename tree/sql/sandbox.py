"""Running one query inside a worker process: a guarded connection and limits.

A query can read its own database and nothing else: the file is opened read-only and immutable, an authorizer admits
reading, functions and recursion only, no file can be attached. It is stopped by a budget of SQLite's virtual machine
steps (the same on every machine for one SQLite version), by the clock, by the number of rows and by memory; in a worker
also by the size of its temporary files and, where it hangs in one step, by the kernel. Not promised: protection from
bugs of SQLite itself beyond the loss of the worker process.

Documents: https://www.sqlite.org/security.html, https://www.sqlite.org/limits.html, https://www.sqlite.org/c3ref/c_alter_table.html
"""

import contextlib
import difflib
import functools
import re
import signal
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from common.files import InputError
from tree.sql.cache import State, file_state, settle
from tree.sql.results import BY_CHANCE, FLAGS, SHOWN_ROWS, Execution, Row
from tree.sql.sql_text import clock_or_random, first_word, limit_without_order, quoted_names
from tree.sql.table_info import list_tables
from tree.sql.temporary_files import watched

STEPS_PER_CHECK = 10_000  # virtual machine steps between two looks at the limits
MAX_ROWS = 1_000_000
PROVEN_WRONG = 1_000  # rows after which a result with a row that gold does not have is read no further
MAX_VALUE = 16_000_000  # bytes of one value
MAX_SQL = 100_000  # bytes of a query
MAX_DEPTH = 400  # levels of an expression
MAX_COLUMNS = 1_000  # of a result, a table or a clause
MAX_COMPOUND = 100  # SELECTs of one UNION chain
HEAP = 1 << 30  # bytes that SQLite may use
OPEN_DATABASES = 128  # per worker: those of the trees in flight, with their perturbed instances
COUNTING = {"count", "sum", "total"}  # functions whose result depends on how many rows there are
FIX = "download or build it again"
SHOWN_LENGTH = 1_000  # characters or bytes of a shown value: one row may hold gigabytes, and it goes to the parent


@dataclass(frozen=True)
class Limits:
    """Of one query: `timeout` in seconds of wall clock, `steps` of SQLite's virtual machine.

    `kill_after` are the seconds past the timeout until the kernel kills this process: a step of SQLite that takes
    minutes looks at no limit. 0 in a process that must not die.
    """

    timeout: float
    steps: int
    kill_after: float = 0.0


# --- the guarded connection -----------------------------------------------------------------------------------------

READING = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
ROWID_NAMES = frozenset({"rowid", "oid", "_rowid_"})  # that every table has
READING_PRAGMAS = {"table_info", "table_xinfo", "table_list", "foreign_key_list", "index_list", "index_info"}
INNER_PRAGMAS = {"data_version"}  # asked by full-text tables (FTS5) when they are read
FORBIDDEN_FUNCTIONS = {"load_extension", "readfile", "writefile", "edit", "fts3_tokenizer"}
CHANCE = {"random", "randomblob", "current_date", "current_time", "current_timestamp"}  # functions without arguments
# table-valued functions that queries use; SQLite writes to its in-memory catalogue when one is used for the first time
TABLE_FUNCTIONS = ("json_each('[]')", "json_tree('[]')", *(f"pragma_{name}" for name in sorted(READING_PRAGMAS)))


def connect(path: str | Path) -> sqlite3.Connection:
    """A read-only, immutable connection. Text that is not UTF-8 comes back with surrogates, so no byte is lost."""
    address = f"file:{quote(str(Path(path).resolve()))}?mode=ro&immutable=1"
    # no statement cache: the authorizer must see every query
    connection = sqlite3.connect(address, uri=True, isolation_level=None, cached_statements=0)
    connection.text_factory = lambda data: data.decode("utf-8", "surrogateescape")
    return connection


@contextlib.contextmanager
def opened(path: str | Path) -> Iterator[sqlite3.Connection]:
    """A connection as of `connect`. What SQLite says against the file in the block becomes an InputError."""
    try:
        with contextlib.closing(connect(path)) as connection:
            yield connection
    except sqlite3.Error as error:
        raise refusal(path, error) from error


def refusal(path: str | Path, error: sqlite3.Error) -> InputError:
    """The error for a file that this SQLite refuses as a whole."""
    newer = f", or use a Python with a newer SQLite than {sqlite3.sqlite_version}"
    return InputError(f"{path}: {error}; {FIX}{newer if 'schema' in str(error) else ''}")


class Database:
    """One open database of a worker: its connection, what its authorizer refused and saw, and its names."""

    def __init__(self, path: str):
        self.connection = connect(path)
        self.refused = ""
        self.tables_read: set[str] = set()
        self.sees_rows = False  # whether it reads a column of a table or counts
        self.by_chance = False  # whether it reads the clock or draws random numbers beyond what its text says
        self.fills_disk = False
        self.steps_left = 0
        self.deadline = 0.0
        self._warm_up()
        tables = list_tables(self.connection)
        self.tables = {table.name.lower() for table in tables}
        names = (column.name.lower() for table in tables for column in table.columns)
        self.names = ROWID_NAMES.union(self.tables, names)
        self.columns = {
            table.name: [column.name for column in readable] for table in tables if (readable := table.readable())
        }
        views = self.connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'view'")
        self.chance_views = {name.lower() for name, sql in views if clock_or_random(sql or "")}
        for limit, value in (
            (sqlite3.SQLITE_LIMIT_ATTACHED, 0),
            (sqlite3.SQLITE_LIMIT_LENGTH, MAX_VALUE),
            (sqlite3.SQLITE_LIMIT_SQL_LENGTH, MAX_SQL),
            (sqlite3.SQLITE_LIMIT_EXPR_DEPTH, MAX_DEPTH),
            (sqlite3.SQLITE_LIMIT_COLUMN, MAX_COLUMNS),
            (sqlite3.SQLITE_LIMIT_COMPOUND_SELECT, MAX_COMPOUND),
        ):
            self.connection.setlimit(limit, value)
        self.connection.set_authorizer(self._authorize)
        self.connection.set_progress_handler(self._over_limit, STEPS_PER_CHECK)

    def _warm_up(self) -> None:
        self.connection.execute(f"PRAGMA hard_heap_limit = {HEAP}")
        for function in TABLE_FUNCTIONS:
            try:
                self.connection.execute(f"SELECT * FROM {function} LIMIT 0")
            except sqlite3.OperationalError:  # this SQLite does not have it
                continue

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
        # through pragma_table_info(…) and its like; `run` refuses the statements themselves
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

    def start(self, limits: Limits) -> None:
        """Forget the query before, and give the next one its limits."""
        self.refused, self.tables_read, self.sees_rows = "", set(), False
        self.by_chance, self.fills_disk = False, False
        self.steps_left = limits.steps
        self.deadline = time.perf_counter() + limits.timeout


def database(path: str) -> Database:
    """The worker's open database at `path`, opened again when the file there is another one or has changed.

    Raises InputError when it cannot be opened or its schema is damaged.
    """
    return _database(path, file_state(path))


@functools.lru_cache(maxsize=OPEN_DATABASES)
def _database(path: str, state: State) -> Database:
    settle(state)  # SQLite does not see changes of a file that it takes as immutable
    try:
        return Database(path)
    except sqlite3.Error as error:
        raise refusal(path, error) from error


# --- one query ------------------------------------------------------------------------------------------------------


def arm(limits: Limits) -> None:
    """The kernel kills this process unless the next call comes before a query with these limits must have ended."""
    if limits.kill_after:
        signal.setitimer(signal.ITIMER_REAL, limits.timeout + limits.kill_after)


def run(path: str, sql: str, limits: Limits, gold_rows: frozenset[Row] | None = None) -> tuple[Execution, list[Row]]:
    """Run one query: its execution and its rows.

    With `gold_rows`, reading stops once PROVEN_WRONG rows are read and one of them is not gold's.
    """
    arm(limits)
    used = database(path)
    with watched(used.stop_filling):
        found = _run(used, sql, limits, gold_rows)
    arm(limits)  # comparing the rows, and whatever comes before the next query, has as long
    return found


def _run(used: Database, sql: str, limits: Limits, gold_rows: frozenset[Row] | None) -> tuple[Execution, list[Row]]:
    start = time.perf_counter()
    used.start(limits)

    def failed(outcome: str, error: object) -> tuple[Execution, list[Row]]:
        nearest = _nearest_names(str(error), used.columns) if outcome == "error" else ()
        # another time it may run to its end
        flags = (BY_CHANCE,) if outcome in ("error", "timeout", "too_large") and _is_chance(sql, used) else ()
        return Execution(outcome, str(error), seconds=time.perf_counter() - start, nearest=nearest, flags=flags), []

    word = first_word(sql)
    if word in ("EXPLAIN", "", ";"):
        return failed("not_a_query", "expected a SELECT query")
    if word in ("PRAGMA", "VACUUM"):  # a refused VACUUM makes SQLite forget its virtual tables
        return failed("denied", f"{word} is not allowed")
    if "\0" in sql:
        return failed("error", "the query contains a NUL character")
    rows: list[Row] = []
    try:
        cursor = used.connection.execute(sql)
        if cursor.description is None:
            return failed("not_a_query", "the statement returns no rows")
        columns = tuple(column[0] for column in cursor.description)
        more = _read(cursor, rows, gold_rows)
        cursor.close()
    except sqlite3.ProgrammingError as error:  # Python's sqlite3 takes one statement at a time, and no open parameters
        return failed("not_a_query" if "one statement" in str(error) else "error", error)
    except (sqlite3.Error, sqlite3.Warning) as error:
        if used.fills_disk:
            return failed("too_large", "its temporary files take too much room")
        return failed("denied", used.refused) if used.refused else failed(_outcome_of(error), error)
    except UnicodeEncodeError:
        return failed("error", "the query contains characters that are not valid Unicode")
    except UnicodeDecodeError:
        return failed("error", "a name that the query reads is not UTF-8")
    except (MemoryError, OverflowError) as error:
        return failed("too_large", str(error) or "out of memory")
    if len(rows) > MAX_ROWS:
        return failed("too_large", f"more than {MAX_ROWS} rows")
    outcome, shown, seconds = "ok" if rows else "empty", _shown(rows), time.perf_counter() - start
    flags = _flags(sql, used)
    found = Execution(outcome, "", columns, shown, len(rows), more, seconds, flags=flags, sees_rows=used.sees_rows)
    return found, rows


def _read(cursor: sqlite3.Cursor, rows: list[Row], gold_rows: frozenset[Row] | None) -> bool:
    """Read a result into `rows`, as far as it is needed; returns whether it has more."""
    while chunk := cursor.fetchmany(PROVEN_WRONG):
        rows += chunk
        if len(rows) > MAX_ROWS:
            return True
        if gold_rows is not None and len(chunk) == PROVEN_WRONG and not gold_rows.issuperset(chunk):
            return cursor.fetchone() is not None
    return False


def _shown(rows: list[Row]) -> tuple[Row, ...]:
    return tuple(
        tuple(value[:SHOWN_LENGTH] if isinstance(value, str | bytes) else value for value in row)
        for row in rows[:SHOWN_ROWS]
    )


def _outcome_of(error: Exception) -> str:
    code = getattr(error, "sqlite_errorcode", 0)
    if code == sqlite3.SQLITE_IOERR_WRITE:  # only a temporary file is ever written, and its size is limited
        return "too_large"
    return {
        sqlite3.SQLITE_AUTH: "denied",
        sqlite3.SQLITE_READONLY: "denied",
        sqlite3.SQLITE_INTERRUPT: "timeout",
        sqlite3.SQLITE_TOOBIG: "too_large",
        sqlite3.SQLITE_NOMEM: "too_large",
        sqlite3.SQLITE_FULL: "too_large",
    }.get(code & 0xFF, "error")


def _flags(sql: str, used: Database) -> tuple[str, ...]:
    """Reasons to look twice at a query that ran: kept with the verdict, never acted on here."""
    found = {
        "constant": used.tables_read.isdisjoint(used.tables),
        "quoted_literal": '"' in sql and not quoted_names(sql) <= used.names,
        BY_CHANCE: _is_chance(sql, used),
        "limit_without_order": limit_without_order(sql),
    }
    return tuple(flag for flag in FLAGS if found.get(flag))


def _is_chance(sql: str, used: Database) -> bool:
    """Whether a query's result belongs to the moment: by its text, by a function it calls, or by a view that it uses.

    Not seen: a stored text 'now' that is read as a time.
    """
    return used.by_chance or clock_or_random(sql)


NO_SUCH = re.compile(r"no such (column|table): (.+)")


def _nearest_names(error: str, columns: dict[str, list[str]]) -> tuple[str, ...]:
    """Existing tables, or `table.column`, whose names are nearest to the one an error message misses."""
    match = NO_SUCH.match(error)
    if not match:
        return ()
    missing = match.group(2).rsplit(".", 1)[-1].lower()
    if match.group(1) == "table":
        places = {table.lower(): [table] for table in columns}
    else:
        places = {}
        for table, names in columns.items():
            for name in names:
                places.setdefault(name.lower(), []).append(f"{table}.{name}")
    near = difflib.get_close_matches(missing, places, n=3, cutoff=0.6)
    return tuple(place for name in near for place in places[name])[:5]
