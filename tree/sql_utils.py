"""The only room that executes SQL written by a model: read-only, limited, in worker processes; and the verdict.

What is promised: a query can read its own database and nothing else (read-only immutable connection, authorizer, no
attached files), is stopped at a time limit inside SQLite and killed with its worker shortly after, and can use a
bounded amount of memory. What is not: protection against bugs of SQLite itself beyond the loss of one worker process.
"""

import asyncio
import contextlib
import functools
import os
import re
import resource
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from urllib.parse import quote

from tree.files import InputError
from tree.prompts import COMMENT, SHOWN_ROWS
from tree.sql_text import orders_rows

OUTCOMES = ("ok", "empty", "error", "denied", "timeout", "too_large", "not_a_query", "no_sql", "crashed")

TIMEOUT = 30.0  # seconds, BIRD's own limit per query
KILL_AFTER = 5.0  # seconds past the timeout until the worker process is killed
MAX_ROWS = 1_000_000
MAX_VALUE = 16_000_000  # bytes of one value
WORKER_MEMORY = 4 << 30  # bytes of address space
STEPS_PER_CHECK = 10_000  # virtual machine steps between two looks at the clock
OPEN_DATABASES = 8  # per worker
GOLD_KEPT = 64  # gold results per worker
TRIES = 2  # runs of a task whose worker dies
MAX_RESTARTS = 100  # new pools per run

Row = tuple


@dataclass(frozen=True)
class Execution:
    """What running one query gave. `rows` holds the first SHOWN_ROWS rows, `row_count` says how many there are."""

    outcome: str
    error: str = ""
    columns: tuple[str, ...] = ()
    rows: tuple[Row, ...] = ()
    row_count: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Verdict:
    """A candidate's execution, and whether its rows are gold's.

    `ex` is BIRD's official rule (`set(pred) == set(gold)`, Python equality); `strict` also wants each row as often as
    gold has it, and gold's order when the outermost gold query orders. `gold` is the gold query's own execution.
    """

    execution: Execution
    gold: Execution
    ex: bool
    strict: bool


# --- databases ------------------------------------------------------------------------------------------------------


def database_path(db_root: str | os.PathLike, db_id: str) -> Path:
    """`db_root/db_id/db_id.sqlite`, BIRD's layout."""
    return Path(db_root) / db_id / f"{db_id}.sqlite"


def check_database(path: Path) -> None:
    """Raise InputError unless `path` is a SQLite file that is complete by itself (no journal to be replayed)."""
    if not path.is_file():
        raise InputError(f"{path}: no such database; check --db_root (expected <db_root>/<db_id>/<db_id>.sqlite)")
    with path.open("rb") as file:
        if file.read(16) != b"SQLite format 3\0":
            raise InputError(f"{path}: not a SQLite database; download or build it again")
    for suffix in ("-wal", "-journal"):
        journal = Path(f"{path}{suffix}")
        if journal.exists() and journal.stat().st_size:
            raise InputError(f"{path}: has unfinished changes in {journal.name}; open and close it once with sqlite3")


def connect(path: str | os.PathLike) -> sqlite3.Connection:
    """A read-only, immutable connection. Text that is not UTF-8 comes back with surrogates, so no byte is lost."""
    address = f"file:{quote(str(Path(path).resolve()))}?mode=ro&immutable=1"
    connection = sqlite3.connect(address, uri=True, isolation_level=None)
    connection.text_factory = lambda data: data.decode("utf-8", "surrogateescape")
    return connection


# --- inside a worker ------------------------------------------------------------------------------------------------

READING = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
FORBIDDEN_FUNCTIONS = {"load_extension", "readfile", "writefile", "edit", "fts3_tokenizer"}


def _authorize(action: int, first: str | None, second: str | None, *_: str | None) -> int:
    if action in READING and not (action == sqlite3.SQLITE_FUNCTION and second in FORBIDDEN_FUNCTIONS):
        return sqlite3.SQLITE_OK
    return sqlite3.SQLITE_DENY


@functools.lru_cache(maxsize=OPEN_DATABASES)
def _guarded(path: str) -> sqlite3.Connection:
    connection = connect(path)
    connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_VALUE)
    connection.set_authorizer(_authorize)
    return connection


def _first_word(sql: str) -> str:
    position = 0
    while (match := COMMENT.match(sql, position)) and match.end() > position:
        position = match.end()
    word = re.compile(r"\w+|\S|\Z").match(sql, position)
    return word.group().upper()


def _run(path: str, sql: str, timeout: float) -> tuple[Execution, list[Row]]:
    """Run one query on a guarded connection: its execution and all its rows."""
    start = time.perf_counter()
    connection = _guarded(path)
    connection.set_progress_handler(lambda: time.perf_counter() - start > timeout, STEPS_PER_CHECK)

    def failed(outcome: str, error: object) -> tuple[Execution, list[Row]]:
        return Execution(outcome, error=str(error), seconds=time.perf_counter() - start), []

    if "\0" in sql:
        return failed("error", "the query contains a NUL character")
    if _first_word(sql) in ("EXPLAIN", "", ";"):
        return failed("not_a_query", "expected a SELECT query")
    try:
        cursor = connection.execute(sql)
        if cursor.description is None:
            return failed("not_a_query", "the statement returns no rows")
        columns = tuple(column[0] for column in cursor.description)
        rows = cursor.fetchmany(MAX_ROWS + 1)
        cursor.close()
    except sqlite3.ProgrammingError as error:  # Python's sqlite3 runs one statement at a time
        return failed("not_a_query", error)
    except (sqlite3.Error, sqlite3.Warning) as error:
        return failed(_outcome_of(error), error)
    except UnicodeEncodeError:
        return failed("error", "the query contains characters that are not valid Unicode")
    except (MemoryError, OverflowError) as error:
        return failed("too_large", error or "out of memory")
    if len(rows) > MAX_ROWS:
        return failed("too_large", f"more than {MAX_ROWS} rows")
    seconds = time.perf_counter() - start
    shown = tuple(rows[:SHOWN_ROWS])
    return Execution("ok" if rows else "empty", "", columns, shown, len(rows), seconds), rows


def _outcome_of(error: Exception) -> str:
    if str(error).startswith("not authorized"):  # a refused function has SQLite's general error code
        return "denied"
    return {
        sqlite3.SQLITE_AUTH: "denied",
        sqlite3.SQLITE_READONLY: "denied",
        sqlite3.SQLITE_INTERRUPT: "timeout",
        sqlite3.SQLITE_TOOBIG: "too_large",
        sqlite3.SQLITE_NOMEM: "too_large",
    }.get(getattr(error, "sqlite_errorcode", 0) & 0xFF, "error")


@functools.lru_cache(maxsize=GOLD_KEPT)
def _gold(path: str, sql: str, timeout: float) -> tuple[Execution, list[Row], frozenset[Row]]:
    execution, rows = _run(path, sql, timeout)
    return execution, rows, frozenset(rows)


def _judge(path: str, sql: str, gold_sql: str, timeout: float) -> Verdict:
    gold, gold_rows, gold_set = _gold(path, gold_sql, timeout)
    if not sql:
        return Verdict(Execution("no_sql"), gold, False, False)
    execution, rows = _run(path, sql, timeout)
    ran = {execution.outcome, gold.outcome} <= {"ok", "empty"}
    ex = ran and set(rows) == gold_set
    return Verdict(execution, gold, ex, ex and same_rows(rows, gold_rows, orders_rows(gold_sql)))


def same_rows(rows: list[Row], gold_rows: list[Row], ordered: bool) -> bool:
    """Whether two results hold the same rows equally often, and in the same order when `ordered`."""
    return rows == gold_rows if ordered else Counter(rows) == Counter(gold_rows)


def _execute(path: str, sql: str, timeout: float) -> Execution:
    return _run(path, sql, timeout)[0]


def _start_worker() -> None:
    """Limit a fresh worker: memory, no core files, no terminal signals (the parent stops its workers itself)."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(ValueError):  # a lower hard limit is already in force
        resource.setrlimit(resource.RLIMIT_AS, (WORKER_MEMORY, WORKER_MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


# --- the pool -------------------------------------------------------------------------------------------------------


class Executor:
    """A pool of worker processes that run SQL. Use as a context manager; start it before any engine or model.

    A task that outlives `timeout` (seconds) is stopped inside SQLite, and killed with its worker KILL_AFTER seconds
    later; a worker that dies costs its own task only, which is tried once more and then has outcome `crashed`.
    """

    def __init__(self, workers: int, timeout: float = TIMEOUT):
        self.workers, self.timeout = workers, timeout
        self._restarts = 0
        self._pool = self._new_pool()

    def _new_pool(self):
        from pebble import ProcessPool

        return ProcessPool(max_workers=self.workers, context=get_context("spawn"), initializer=_start_worker)

    def __enter__(self) -> "Executor":
        return self

    def __exit__(self, kind, *_) -> None:
        if kind:
            self._pool.stop()
        else:
            self._pool.close()
        self._pool.join()

    async def execute(self, path: Path, sql: str) -> Execution:
        """Run `sql` on the database at `path`."""
        return await self._guard(_execute, lambda execution: execution, str(path), sql)

    async def judge(self, path: Path, sql: str, gold_sql: str) -> Verdict:
        """Run `sql` ("" for a reply without a query) and compare its rows with gold's.

        Each worker runs a gold query once and keeps its rows for the candidates that follow.
        """
        return await self._guard(
            _judge, lambda execution: Verdict(execution, Execution("ok"), False, False), str(path), sql, gold_sql
        )

    async def _guard(self, task: Callable, lost: Callable[[Execution], object], *arguments: str):
        from pebble import ProcessExpired

        # a worker that compares may run gold first, so the kill limit allows for two queries
        limit = 2 * self.timeout + KILL_AFTER
        died = 0
        while died < TRIES:
            pool = self._pool
            try:
                future: Future = pool.schedule(task, args=(*arguments, self.timeout), timeout=limit)
            except RuntimeError:  # the pool has given up
                self._replace(pool)
                continue
            try:
                return await asyncio.wrap_future(future)
            except TimeoutError:
                return lost(Execution("timeout", "stopped with its worker", seconds=limit))
            except ProcessExpired:
                died += 1
            except BrokenProcessPool:  # pebble gives a pool up when a worker dies without a task
                self._replace(pool)
        return lost(Execution("crashed", "its worker process died"))

    def _replace(self, broken) -> None:
        """A new pool in the place of one that gave up; the first task to notice does it."""
        if self._pool is not broken:
            return
        self._restarts += 1
        if self._restarts > MAX_RESTARTS:
            raise RuntimeError(
                "SQL workers keep dying before they run anything; is memory short? try fewer --sql_workers"
            )
        broken.stop()
        broken.join()
        self._pool = self._new_pool()
