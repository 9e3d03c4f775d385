"""Executing SQL written by a model: where databases are, the flags for it, and worker processes with hard limits.

What a worker does is in `tree.sql.worker`, what one query may do in `tree.sql.guarded`, when it is right in
`tree.sql.verdict`.
"""

import asyncio
import os
import signal
from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import compress
from multiprocessing import get_context
from pathlib import Path

from pebble import ProcessExpired, ProcessPool

from common.files import InputError, refuse_lfs_pointer
from tree.prompts import execution_feedback
from tree.sql import worker
from tree.sql.database_file import opened, trouble_with
from tree.sql.guarded import Limits
from tree.sql.results import RAN, Execution, Result, Verdict
from tree.sql.table_info import Problems
from tree.sql.verdict import JudgeSettings, marked_fragile

TIMEOUT = 30.0  # seconds, BIRD's own limit per query
STEPS = 1_000_000_000  # of SQLite's virtual machine: about 20 seconds, 60 times what the slowest Spider gold needs
KILL_AFTER = 5.0  # seconds past the timeout until the worker process is killed
TRIES = 2  # runs of a task whose worker dies
STOPPED = "stopped with its worker"  # the error of a query that hung where no limit is looked at
DIED = "its worker process died"
NO_GOLD = Execution("no_sql")
MAX_RESTARTS = 100  # new pools per run


# --- settings ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SqlSettings:
    """`workers` processes execute SQL, one query for at most `timeout` seconds."""

    workers: int
    timeout: float


def add_sql_flags(add: Callable, workers: str) -> None:
    """--sql_workers and --sql_timeout, by a parser's `add_argument`; `workers` says what 0 of them stands for."""
    add("--sql_workers", type=int, default=0, help=f"processes that execute SQL (0 = {workers})")
    add("--sql_timeout", type=float, default=TIMEOUT, help="time limit of one query, in seconds")


def sql_settings(workers: int, timeout: float, default: int | None = None) -> SqlSettings:
    """The settings that the flags of `add_sql_flags` name; 0 `workers` are the `default` (None: one per core).

    Raises InputError for one out of its range.
    """
    if workers < 0:
        raise InputError(f"--sql_workers {workers}: must not be negative")
    if timeout <= 0:
        raise InputError(f"--sql_timeout {timeout}: must be positive")
    return SqlSettings(workers or default or os.cpu_count() or 1, timeout)


# --- databases ------------------------------------------------------------------------------------------------------


def database_path(db_root: str | os.PathLike, db_id: str) -> Path:
    """`db_root/db_id/db_id.sqlite`, BIRD's layout."""
    return Path(db_root) / db_id / f"{db_id}.sqlite"


def check_database(path: Path) -> None:
    """Raise InputError unless `path` is a SQLite file that is complete by itself and that this SQLite can read.

    Not covered: single tables that cannot be read (`tree.sql.table_info`).
    """
    if not os.path.isfile(path):  # False for a name too long for a file, too
        raise InputError(f"{path}: no such database; check --db_root (expected <db_root>/<db_id>/<db_id>.sqlite)")
    try:
        refuse_lfs_pointer(path)
        trouble = trouble_with(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None
    if trouble:
        raise InputError(f"{path}: {trouble}")
    with opened(path) as connection:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchall()


# --- the pool -------------------------------------------------------------------------------------------------------


class Executor:
    """A pool of worker processes that run SQL. Use as a context manager; start it before any engine or model.

    A query is stopped after `steps` of SQLite's virtual machine, then after `timeout` seconds; a worker that does not
    come back is killed KILL_AFTER seconds later (outcome `timeout`). A worker that dies otherwise costs its own task
    only, which is tried again and then has outcome `crashed`. Gold results are kept in the folder `gold_cache` (None:
    in the workers' memory only). Right candidates are tried on the perturbed instances that `prepare` made in the
    folder `perturbed` (None: they are not), see `tree.sql.perturbed`.

    A worker that is killed does not say which query of its task it was at, so gold and then each candidate runs in a
    task of its own: the one that hangs takes its time twice at most, and those beside it wait for it once.
    """

    def __init__(
        self,
        workers: int,
        timeout: float = TIMEOUT,
        steps: int = STEPS,
        gold_cache: Path | None = None,
        perturbed: Path | None = None,
    ):
        self.workers = workers
        self.settings = JudgeSettings(Limits(timeout, steps, KILL_AFTER), gold_cache, perturbed)
        self._lost_gold: dict[tuple[Path, str], Execution] = {}  # (database, gold that costs its worker)
        self._restarts = 0
        self._pool = self._new_pool()

    def _new_pool(self) -> ProcessPool:
        return ProcessPool(max_workers=self.workers, context=get_context("spawn"), initializer=worker.start_worker)

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
        [verdict] = await self._verdicts(path, [sql], "")
        return verdict.execution

    async def run_gold(self, path: Path, sql: str) -> Execution:
        """Run a gold query, once for all: its result is kept for the candidates that follow."""
        if lost := self._lost_gold.get((path, sql)):
            return lost
        execution = await self._send(worker.execute_gold, str(path), sql, self.settings)
        if execution.error in (STOPPED, DIED):
            self._lost_gold[path, sql] = execution
        return execution

    async def prepare(self, path: Path) -> tuple[str, Problems]:
        """Make the perturbed instances of a database, unless they are there.

        Returns "" or, in one line, why there are none, and what they lack because it cannot be read.
        """
        if self.settings.perturbed is None:
            return "switched off", {}
        prepared = await self._send(worker.prepare, str(path), self.settings.perturbed)
        return (prepared.error, {}) if isinstance(prepared, Execution) else prepared

    async def judge(self, path: Path, sql: str, gold_sql: str) -> Verdict:
        """Run `sql` ("" for a reply without a query) and compare its rows with gold's."""
        [verdict] = await self.judge_all(path, [sql], gold_sql)
        return verdict

    async def judge_all(self, path: Path, sqls: Sequence[str], gold_sql: str) -> list[Verdict]:
        """`judge` for several candidates of one question, in one task: less to send than with a task for each."""
        verdicts = await self._verdicts(path, sqls, gold_sql)
        right = [number for number, verdict in enumerate(verdicts) if verdict.ex]
        if right and self.settings.perturbed:
            fragile = await self._fragile(path, [(sqls[number], verdicts[number]) for number in right], gold_sql)
            for number in compress(right, fragile):
                verdicts[number] = marked_fragile(verdicts[number])
        return verdicts

    async def observe(self, path: Path, sql: str, gold_sql: str) -> Result:
        """Run `sql` ("" for a reply without a query) to its end; `gold_sql` is "" when there is no gold."""
        [verdict] = await self._verdicts(path, [sql], gold_sql, whole=True)
        ex = verdict.ex if verdict.gold.outcome in RAN else None
        return Result(verdict.execution.outcome, verdict.digest, ex, execution_feedback(verdict.execution))

    async def _verdicts(self, path: Path, sqls: Sequence[str], gold_sql: str, whole: bool = False) -> list[Verdict]:
        """The verdicts on the database itself: in one task, or each in its own where that one was lost."""
        gold = self._lost_gold.get((path, gold_sql)) if gold_sql else NO_GOLD
        if not gold:
            verdicts = await self._send(worker.judge_all, str(path), sqls, gold_sql, self.settings, whole, tries=1)
            if not isinstance(verdicts, Execution):
                return verdicts
            gold = await self.run_gold(path, gold_sql)
            if verdicts.error == STOPPED and len(sqls) == 1 and gold.outcome in RAN:  # it was no other
                return [Verdict(verdicts, gold)]
        rest = gold_sql, self.settings, whole, None if gold.outcome in RAN else gold
        found = await asyncio.gather(*(self._send(worker.judge_all, str(path), [sql], *rest) for sql in sqls))
        return [Verdict(one, gold) if isinstance(one, Execution) else one[0] for one in found]

    async def _fragile(self, path: Path, right: Sequence[tuple[str, Verdict]], gold_sql: str) -> list[bool]:
        """Which right candidates are so by coincidence only.

        In tasks of their own, because a right query that hangs on a perturbed instance only is right, and not fragile.
        """
        tries = TRIES if len(right) == 1 else 1
        found = await self._send(worker.find_fragile, str(path), right, gold_sql, self.settings, tries=tries)
        if not isinstance(found, Execution):
            return found
        if len(right) == 1:
            return [False]
        alone = await asyncio.gather(*(self._fragile(path, [one], gold_sql) for one in right))
        return [is_fragile for [is_fragile] in alone]

    async def _send(self, task: Callable, *arguments, tries: int = TRIES):
        """What a task of `tree.sql.worker` returns, or the Execution of one that never came back."""
        died = 0
        while died < tries:
            pool = self._pool
            try:
                future = pool.schedule(task, args=arguments)
            except RuntimeError:  # the pool has given up
                self._replace(pool)
                continue
            try:
                return await asyncio.wrap_future(future)
            except MemoryError:  # beside the query, in comparing or sending its rows
                return Execution("too_large", "out of memory")
            except ProcessExpired as death:
                if death.exitcode == -signal.SIGALRM:
                    return Execution("timeout", STOPPED, seconds=self.settings.limits.longest())
                died += 1
            except BrokenProcessPool:  # pebble gives a pool up when a worker dies without a task
                self._replace(pool)
        return Execution("crashed", DIED)

    def _replace(self, broken: ProcessPool) -> None:
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
