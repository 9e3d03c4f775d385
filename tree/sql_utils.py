"""The room that executes SQL written by a model: worker processes with hard limits around `sandbox`.

A query that outlives its limits inside SQLite is killed with its worker by the kernel's alarm clock, wherever it hangs,
at the latest KILL_AFTER seconds past its time limit; a worker that dies costs its own task only. The temporary files of
a query may hold `temporary_files.MOST` bytes together, besides what it writes in a tenth of a second or in one step of
SQLite, which adds no more than one file of WORKER_FILE bytes.
"""

import argparse
import asyncio
import contextlib
import os
import resource
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from common.files import InputError
from common.git_lfs import refuse_pointer
from tree.sql.cache import content_digest
from tree.sql.database_file import cut_off, no_database, unfinished
from tree.sql.gold_cache import GoldCache
from tree.sql.perturbed import build, instance_files
from tree.sql.results import RAN, Execution, Result, Verdict
from tree.sql.sandbox import FIX, Limits, connect, opened, run
from tree.sql.table_info import Problems
from tree.sql.temporary_files import watch
from tree.sql.verdict import is_fragile, judge, marked_fragile, observe, run_gold

TIMEOUT = 30.0  # seconds, BIRD's own limit per query
STEPS = 1_000_000_000  # of SQLite's virtual machine: about 20 seconds, 60 times what the dearest Spider gold needs
NICENESS = 5
KILL_AFTER = 5.0  # seconds past the timeout until the worker process is killed
PREPARE_TIMEOUT = 300.0  # seconds for the perturbed instances of one database, which mostly take one
WORKER_MEMORY = 4 << 30  # bytes of address space
WORKER_FILE = 2 << 30  # bytes of one file
TRIES = 2  # runs of a task whose worker dies
STOPPED = "stopped with its worker"  # the error of a query that hung where no limit is looked at
DIED = "its worker process died"
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


def sql_settings(args: argparse.Namespace, workers: int | None = None) -> SqlSettings:
    """The settings that the flags of `add_sql_flags` name; `workers` where they name 0 (None: one per core).

    Raises InputError for one out of its range.
    """
    if args.sql_workers < 0:
        raise InputError(f"--sql_workers {args.sql_workers}: must not be negative")
    if args.sql_timeout <= 0:
        raise InputError(f"--sql_timeout {args.sql_timeout}: must be positive")
    return SqlSettings(args.sql_workers or workers or os.cpu_count() or 1, args.sql_timeout)


# --- databases ------------------------------------------------------------------------------------------------------


def database_path(db_root: str | os.PathLike, db_id: str) -> Path:
    """`db_root/db_id/db_id.sqlite`, BIRD's layout."""
    return Path(db_root) / db_id / f"{db_id}.sqlite"


def check_database(path: Path) -> None:
    """Raise InputError unless `path` is a SQLite file that is complete by itself and that this SQLite can read.

    What of it cannot be read, such as one table, is for those to say who read it (`tree.sql.table_info`).
    """
    if not os.path.isfile(path):  # False for a name too long for a file, too
        raise InputError(f"{path}: no such database; check --db_root (expected <db_root>/<db_id>/<db_id>.sqlite)")
    try:
        refuse_pointer(path)
        if journal := "" if no_database(path) else unfinished(path):
            raise InputError(f"{path}: {journal}")
        if damage := no_database(path) or cut_off(path):
            raise InputError(f"{path}: {damage}; {FIX}")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None
    with opened(path) as connection:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchall()


# --- inside a worker ------------------------------------------------------------------------------------------------


def _start_worker() -> None:
    """Limit a fresh worker: memory, file size, no core files, no GPU, no terminal signals (the parent ends workers).

    It also yields to an engine that computes on the same cores.
    """
    os.nice(NICENESS)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # the default is to die
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    with contextlib.suppress(ValueError):  # a lower hard limit is already in force
        resource.setrlimit(resource.RLIMIT_AS, (WORKER_MEMORY, WORKER_MEMORY))
    with contextlib.suppress(ValueError):
        resource.setrlimit(resource.RLIMIT_FSIZE, (WORKER_FILE, WORKER_FILE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    threading.Thread(target=watch, daemon=True).start()


@contextlib.contextmanager
def _alarm(seconds: float):
    """The kernel kills this process when the block takes longer, also inside C code that holds Python's lock.

    Every query in the block sets the clock anew, see `sandbox.arm`: for itself, and for what comes after it.
    """
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _run_gold(path: str, sql: str, limits: Limits, cache: GoldCache) -> Execution:
    content_digest(path)  # before the clock runs: a large file that nobody has read takes longer than a query
    with _alarm(limits.timeout + limits.kill_after):
        return run_gold(path, sql, limits, cache, keep=True)[0]


def _run(path: str, sql: str, limits: Limits) -> Execution:
    with _alarm(limits.timeout + limits.kill_after):
        return run(path, sql, limits)[0]


def _judge_all(path: str, sqls: tuple[str, ...], gold_sql: str, limits: Limits, cache: GoldCache) -> list[Verdict]:
    verdicts = []
    content_digest(path)
    for sql in sqls:
        with _alarm(limits.timeout + limits.kill_after):
            verdicts.append(judge(path, sql, gold_sql, limits, cache))
    return verdicts


def _fragile(
    path: str, right: dict[int, tuple[str, Verdict]], gold_sql: str, limits: Limits, cache: GoldCache, perturbed: Path
) -> set[int]:
    found = set()
    content_digest(path)
    for number, (sql, verdict) in right.items():
        with _alarm(limits.timeout + limits.kill_after):
            if is_fragile(path, sql, gold_sql, verdict, limits, cache, perturbed):
                found.add(number)
    return found


def _observe(path: str, sql: str, gold_sql: str, limits: Limits, cache: GoldCache) -> Result:
    content_digest(path)
    with _alarm(limits.timeout + limits.kill_after):
        return observe(path, sql, gold_sql, limits, cache)


def _prepare(path: str, perturbed: Path) -> tuple[str, Problems]:
    problems: Problems = {}
    try:
        with _alarm(PREPARE_TIMEOUT):
            files = instance_files(perturbed, path)
            if not all(file.is_file() for file in files):
                with contextlib.closing(connect(path)) as connection:
                    problems = build(connection, files, lambda: instance_files(perturbed, path) == files)
    except Exception as error:  # whatever a strange database brings about
        return " ".join(f"{type(error).__name__}: {error}".split()), problems
    return "", problems


# --- the pool -------------------------------------------------------------------------------------------------------


class Executor:
    """A pool of worker processes that run SQL. Use as a context manager; start it before any engine or model.

    A query is stopped after `steps` of SQLite's virtual machine, then after `timeout` seconds; a worker that does not
    come back is killed KILL_AFTER seconds later (outcome `timeout`). A worker that dies otherwise costs its own task
    only, which is tried again and then has outcome `crashed`. Gold results are kept in the folder `gold_cache` (None:
    in the workers' memory only). Right candidates are tried on the perturbed instances that `prepare` made in the
    folder `perturbed` (None: they are not), see `tree.sql.perturbed`.

    A worker that is killed does not say which query of its task it was at, so each then runs in a task of its own: the
    one that hangs takes its time twice at most, and those beside it wait for it once. Instances are tried in a task of
    their own, because a right query that hangs on one of them only is still right, and is not called fragile.
    """

    def __init__(
        self,
        workers: int,
        timeout: float = TIMEOUT,
        steps: int = STEPS,
        gold_cache: Path | None = None,
        perturbed: Path | None = None,
    ):
        self.workers, self.limits = workers, Limits(timeout, steps, KILL_AFTER)
        self.cache = GoldCache(gold_cache)
        self.perturbed = perturbed
        self._lost_gold: dict[tuple[str, str], Execution] = {}  # (database, gold that costs its worker)
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
        return await self._guard(_run, lambda lost: lost, str(path), sql, self.limits)

    async def run_gold(self, path: Path, sql: str) -> Execution:
        """Run a gold query, once for all: its result is kept for the candidates that follow."""
        key = str(path), sql
        if key in self._lost_gold:
            return self._lost_gold[key]
        execution = await self._guard(_run_gold, lambda lost: lost, *key, self.limits, self.cache)
        if execution.error in (STOPPED, DIED):
            self._lost_gold[key] = execution
        return execution

    async def prepare(self, path: Path) -> tuple[str, Problems]:
        """Make the perturbed instances of a database, unless they are there.

        Returns "" or, in one line, why there are none, and what they lack because it cannot be read.
        """
        if self.perturbed is None:
            return "switched off", {}
        return await self._guard(_prepare, lambda lost: (lost.error, {}), str(path), self.perturbed)

    async def judge(self, path: Path, sql: str, gold_sql: str) -> Verdict:
        """Run `sql` ("" for a reply without a query) and compare its rows with gold's."""
        [verdict] = await self.judge_all(path, [sql], gold_sql)
        return verdict

    async def judge_all(self, path: Path, sqls: Sequence[str], gold_sql: str) -> list[Verdict]:
        """`judge` for several candidates of one question, in one task: less to send than with a task for each."""
        verdicts = await self._judge_rows(path, sqls, gold_sql)
        right = {number: (sqls[number], verdict) for number, verdict in enumerate(verdicts) if verdict.ex}
        if right and self.perturbed:
            for number in await self._fragile(path, right, gold_sql):
                verdicts[number] = marked_fragile(verdicts[number])
        return verdicts

    async def _judge_rows(self, path: Path, sqls: Sequence[str], gold_sql: str) -> list[Verdict]:
        """The verdicts on the database itself."""
        found, task = None, (str(path), tuple(sqls), gold_sql, self.limits, self.cache)
        if (str(path), gold_sql) not in self._lost_gold:
            found = await self._guard(_judge_all, lambda lost: lost, *task, tries=1)
            if isinstance(found, list):
                return found
        gold = await self.run_gold(path, gold_sql)
        if found and found.error == STOPPED and gold.outcome in RAN and len(sqls) == 1:
            return [Verdict(found, gold, False, False)]  # it was no other
        return list(await asyncio.gather(*(self._judge_apart(path, sql, gold_sql, gold) for sql in sqls)))

    async def _judge_apart(self, path: Path, sql: str, gold_sql: str, gold: Execution) -> Verdict:
        if gold.outcome not in RAN:
            return Verdict(await self.execute(path, sql) if sql else Execution("no_sql"), gold, False, False)
        task = str(path), (sql,), gold_sql, self.limits, self.cache
        [verdict] = await self._guard(_judge_all, lambda lost: [Verdict(lost, gold, False, False)], *task)
        return verdict

    async def _fragile(self, path: Path, right: dict[int, tuple[str, Verdict]], gold_sql: str) -> set[int]:
        """The numbers of the right candidates that are so only by coincidence."""
        task = str(path), right, gold_sql, self.limits, self.cache, self.perturbed
        found = await self._guard(_fragile, lambda lost: None, *task, tries=1 if len(right) > 1 else TRIES)
        if found is None and len(right) > 1:
            alone = (self._fragile(path, {number: one}, gold_sql) for number, one in right.items())
            found = set().union(*await asyncio.gather(*alone))
        return found or set()

    async def observe(self, path: Path, sql: str, gold_sql: str) -> Result:
        """Run `sql` ("" for a reply without a query) to its end; `gold_sql` is "" when there is no gold."""
        found, task = None, (str(path), sql, gold_sql, self.limits, self.cache)
        if (str(path), gold_sql) not in self._lost_gold:
            found = await self._guard(_observe, lambda lost: lost, *task, tries=1)
            if isinstance(found, Result):
                return found
        gold = await self.run_gold(path, gold_sql) if gold_sql else None
        if gold and gold.outcome not in RAN:
            task = str(path), sql, "", self.limits, self.cache
            return await self._guard(_observe, lambda lost: Result(lost.outcome, "", None), *task)
        ex = False if gold else None
        if found and found.error == STOPPED:  # it was not gold
            return Result(found.outcome, "", ex)
        return await self._guard(_observe, lambda lost: Result(lost.outcome, "", ex), *task)

    async def _guard(self, task: Callable, lost: Callable[[Execution], object], *arguments, tries: int = TRIES):
        from pebble import ProcessExpired

        died = 0
        while died < tries:
            pool = self._pool
            try:
                future: Future = pool.schedule(task, args=arguments)
            except RuntimeError:  # the pool has given up
                self._replace(pool)
                continue
            try:
                return await asyncio.wrap_future(future)
            except MemoryError:  # beside the query, in comparing or sending its rows
                return lost(Execution("too_large", "out of memory"))
            except ProcessExpired as death:
                if death.exitcode == -signal.SIGALRM:
                    longest = self.limits.timeout + self.limits.kill_after
                    return lost(Execution("timeout", STOPPED, seconds=longest))
                died += 1
            except BrokenProcessPool:  # pebble gives a pool up when a worker dies without a task
                self._replace(pool)
        return lost(Execution("crashed", DIED))

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
