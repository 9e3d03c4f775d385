"""What a worker process does: its own limits, and the tasks that `tree.sql_utils.Executor` gives it.

A query that outlives its limits inside SQLite is killed with its worker by the kernel's alarm clock, wherever it hangs,
at the latest `kill_after` seconds past its time limit. Each query sets the clock anew (`tree.sql.sandbox.run`), for
itself and for what comes after it. Not covered: which query of a task was lost; the Executor finds out.
"""

import contextlib
import os
import resource
import signal
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from tree.sql.cache import content_digest
from tree.sql.database_file import connect
from tree.sql.guarded import watch
from tree.sql.perturbed import build, instance_files
from tree.sql.results import Execution, Verdict
from tree.sql.table_info import Problems
from tree.sql.verdict import JudgeSettings, is_fragile, judge, run_gold

NICENESS = 5
WORKER_MEMORY = 4 << 30  # bytes of address space
WORKER_FILE = 2 << 30  # bytes of one file
PREPARE_TIMEOUT = 300.0  # seconds for the perturbed instances of one database, which mostly take one


def start_worker() -> None:
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
def on_the_clock(path: str, seconds: float) -> Iterator[None]:
    """The kernel kills this process when the block takes longer, also inside C code that holds Python's lock.

    The database is read first: a large file that nobody has read takes longer than a query.
    """
    content_digest(path)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


# --- tasks ----------------------------------------------------------------------------------------------------------


def execute_gold(path: str, sql: str, settings: JudgeSettings) -> Execution:
    """Run a gold query, unless its result is kept; then it is."""
    with on_the_clock(path, settings.limits.longest()):
        return run_gold(path, sql, settings, keep=True)[0]


def judge_all(
    path: str,
    sqls: Sequence[str],
    gold_sql: str,
    settings: JudgeSettings,
    whole: bool = False,
    gold: Execution | None = None,
) -> list[Verdict]:
    """The verdicts on candidates of one question, see `tree.sql.verdict.judge`."""
    with on_the_clock(path, settings.limits.longest()):
        return [judge(path, sql, gold_sql, settings, whole, gold) for sql in sqls]


def find_fragile(path: str, right: Sequence[tuple[str, Verdict]], gold_sql: str, settings: JudgeSettings) -> list[bool]:
    """Which right candidates are so by coincidence only."""
    with on_the_clock(path, settings.limits.longest()):
        return [is_fragile(path, sql, gold_sql, verdict, settings) for sql, verdict in right]


def prepare(path: str, perturbed: Path) -> tuple[str, Problems]:
    """Make the perturbed instances of a database, see `Executor.prepare`."""
    problems: Problems = {}
    try:
        with on_the_clock(path, PREPARE_TIMEOUT):
            files = instance_files(perturbed, path)
            if not all(file.is_file() for file in files):
                with contextlib.closing(connect(path)) as connection:
                    problems = build(connection, files, lambda: instance_files(perturbed, path) == files)
    except Exception as error:  # whatever a strange database brings about
        return " ".join(f"{type(error).__name__}: {error}".split()), problems
    return "", problems
