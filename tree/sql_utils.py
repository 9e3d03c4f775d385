"""The room that executes SQL written by a model: worker processes with hard limits around `sandbox`.

A query that outlives its limits inside SQLite is killed with its worker by the kernel's alarm clock, wherever it hangs;
a worker that dies costs its own task only.
"""

import asyncio
import contextlib
import os
import resource
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

from tree.cache import content_digest
from tree.files import InputError
from tree.gold_cache import GoldCache
from tree.perturbed import build, instance_files
from tree.sandbox import Execution, Limits, connect, run
from tree.verdict import INSTANCE_RUNS, Result, Verdict, instance_limits, judge, observe, run_gold

TIMEOUT = 30.0  # seconds, BIRD's own limit per query
STEPS = 1_000_000_000  # of SQLite's virtual machine: about 20 seconds, 60 times what the dearest Spider gold needs
NICENESS = 5
KILL_AFTER = 5.0  # seconds past the timeout until the worker process is killed
PREPARE_TIMEOUT = 300.0  # seconds for the perturbed instances of one database, which mostly take one
WORKER_MEMORY = 4 << 30  # bytes of address space
WORKER_FILE = 2 << 30  # bytes of one file, so that no sort fills the disk with temporary ones
TRIES = 2  # runs of a task whose worker dies
MAX_RESTARTS = 100  # new pools per run


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


@contextlib.contextmanager
def _alarm(seconds: float):
    """The kernel kills this process when the block takes longer, also inside C code that holds Python's lock."""
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _run_gold(path: str, sql: str, limits: Limits, cache: GoldCache) -> Execution:
    content_digest(path)  # before the clock runs: a large file that nobody has read takes longer than a query
    with _alarm(limits.timeout + KILL_AFTER):
        return run_gold(path, sql, limits, cache, keep=True)[0]


def _run(path: str, sql: str, limits: Limits) -> Execution:
    with _alarm(limits.timeout + KILL_AFTER):
        return run(path, sql, limits)[0]


def _judge(path: str, sql: str, gold_sql: str, limits: Limits, cache: GoldCache, perturbed: Path | None) -> Verdict:
    seconds = 2 * limits.timeout + KILL_AFTER  # gold may have to run first
    if perturbed:
        seconds += INSTANCE_RUNS * instance_limits(limits).timeout
    content_digest(path)
    with _alarm(seconds):
        return judge(path, sql, gold_sql, limits, cache, perturbed)


def _judge_all(
    path: str, sqls: tuple[str, ...], gold_sql: str, limits: Limits, cache: GoldCache, perturbed: Path | None
) -> list[Verdict]:
    return [_judge(path, sql, gold_sql, limits, cache, perturbed) for sql in sqls]


def _observe(path: str, sql: str, gold_sql: str, limits: Limits, cache: GoldCache) -> Result:
    content_digest(path)
    with _alarm(2 * limits.timeout + KILL_AFTER):
        return observe(path, sql, gold_sql, limits, cache)


def _prepare(path: str, perturbed: Path) -> str:
    try:
        with _alarm(PREPARE_TIMEOUT):
            files = instance_files(perturbed, path)
            if not all(file.is_file() for file in files):
                with contextlib.closing(connect(path)) as connection:
                    build(connection, files, lambda: instance_files(perturbed, path) == files)
    except Exception as error:  # whatever a strange database brings about
        return " ".join(f"{type(error).__name__}: {error}".split())
    return ""


# --- the pool -------------------------------------------------------------------------------------------------------


class Executor:
    """A pool of worker processes that run SQL. Use as a context manager; start it before any engine or model.

    A query is stopped after `steps` of SQLite's virtual machine, then after `timeout` seconds; a worker that does not
    come back is killed KILL_AFTER seconds later (outcome `timeout`). A worker that dies otherwise costs its own task
    only, which is tried once more and then has outcome `crashed`. Gold results are kept in the folder `gold_cache`
    (None: in the workers' memory only). Right candidates are tried on the perturbed instances that `prepare` made in
    the folder `perturbed` (None: they are not), see `tree.perturbed`.
    """

    def __init__(
        self,
        workers: int,
        timeout: float = TIMEOUT,
        steps: int = STEPS,
        gold_cache: Path | None = None,
        perturbed: Path | None = None,
    ):
        self.workers, self.limits, self.cache = workers, Limits(timeout, steps), GoldCache(gold_cache)
        self.perturbed = perturbed
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
        return await self._guard(_run_gold, lambda lost: lost, str(path), sql, self.limits, self.cache)

    async def prepare(self, path: Path) -> str:
        """Make the perturbed instances of a database, unless they are there; "" or, in one line, why there are none."""
        if self.perturbed is None:
            return "switched off"
        return await self._guard(_prepare, lambda lost: lost.error, str(path), self.perturbed)

    async def judge(self, path: Path, sql: str, gold_sql: str) -> Verdict:
        """Run `sql` ("" for a reply without a query) and compare its rows with gold's."""
        arguments = (str(path), sql, gold_sql, self.limits, self.cache, self.perturbed)
        return await self._guard(_judge, lambda lost: Verdict(lost, Execution("ok"), False, False), *arguments)

    async def judge_all(self, path: Path, sqls: Sequence[str], gold_sql: str) -> list[Verdict]:
        """`judge` for several candidates of one question, in one task: less to send than with a task for each."""
        arguments = (str(path), tuple(sqls), gold_sql, self.limits, self.cache, self.perturbed)
        verdicts = await self._guard(_judge_all, lambda lost: None, *arguments, tries=1)
        if verdicts is None:  # a worker was lost: each by itself, so that only the guilty one pays
            return list(await asyncio.gather(*(self.judge(path, sql, gold_sql) for sql in sqls)))
        return verdicts

    async def observe(self, path: Path, sql: str, gold_sql: str) -> Result:
        """Run `sql` ("" for a reply without a query) to its end; `gold_sql` is "" when there is no gold."""
        arguments = (str(path), sql, gold_sql, self.limits, self.cache)
        return await self._guard(
            _observe, lambda lost: Result(lost.outcome, "", False if gold_sql else None), *arguments
        )

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
                    return lost(
                        Execution("timeout", "stopped with its worker", seconds=self.limits.timeout + KILL_AFTER)
                    )
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
