"""The executor against an adversarial corpus: exact outcomes, nothing written, nothing leaked; the verdict's laws."""

import asyncio
import contextlib
import gc
import hashlib
import multiprocessing
import os
import resource
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from common.files import InputError
from tests.hostile_queries import CORPUS, HANGING, WAREHOUSE, counting, endless, listed
from tests.shop import make_database
from tree import sql_utils
from tree.sql.guarded import STEPS_PER_CHECK, Limits, watch
from tree.sql.results import OUTCOMES, Execution
from tree.sql.sandbox import SHOWN_LENGTH
from tree.sql.sandbox import run as run_in_process
from tree.sql.worker import WORKER_FILE, WORKER_MEMORY
from tree.sql_utils import STOPPED, Executor

STEPS = 10_000_000
HARD_WAIT = 60  # seconds; only says that a query came back at all
PATIENT = Limits(600.0, 10**9)


# --- running it -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Held:
    """What this process holds that a pool could leave behind."""

    threads: frozenset[threading.Thread]
    files: int
    children: tuple


def held() -> Held:
    gc.collect()
    files = len(os.listdir("/proc/self/fd"))
    return Held(frozenset(threading.enumerate()), files, tuple(multiprocessing.active_children()))


@dataclass(frozen=True)
class Record:
    """One run of the corpus: executions by name, what each left on disk, and the pool's traces."""

    executions: dict[str, Execution]
    changed: dict[str, object]
    afterwards: Execution
    peaks: list[int]  # bytes, of the worker that was there after each statement
    limits: tuple
    before: Held
    after: Held


def peak_memory(process: int) -> int:
    """The most physical memory, in bytes, that a process has used so far; 0 when it is gone."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024
    return 0


def on_disk(path: Path) -> tuple:
    """All that a statement could change: the database, its folder, planted files where the workers are."""
    planted = sorted(str(file) for file in Path.cwd().glob("planted*"))
    return hashlib.sha256(path.read_bytes()).hexdigest(), sorted(os.listdir(path.parent)), planted


async def run_corpus(executor: Executor, path: Path) -> tuple:
    executions, changed, peaks, limits = {}, {}, [], None
    before = on_disk(path)
    for name, sql, _ in CORPUS:
        sql = sql.replace("FOLDER", str(path.parent))
        executions[name] = await asyncio.wait_for(executor.execute(path, sql), HARD_WAIT)
        if on_disk(path) != before:
            changed[name] = on_disk(path)
        for worker in multiprocessing.active_children():
            peaks.append(peak_memory(worker.pid))
            if limits is None:
                limits = tuple(resource.prlimit(worker.pid, r) for r in (resource.RLIMIT_AS, resource.RLIMIT_FSIZE))
    return executions, changed, await executor.execute(path, "SELECT name FROM product"), peaks, limits


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Record:
    path = make_database(tmp_path_factory.mktemp("corpus") / "shop" / "shop.sqlite", WAREHOUSE)
    with Executor(workers=1) as first:  # what multiprocessing starts once and keeps is no leak
        asyncio.run(first.execute(path, "SELECT 1"))
    before = held()
    with Executor(workers=1, timeout=2, steps=STEPS) as executor:
        found = asyncio.run(run_corpus(executor, path))
    return Record(*found, before, held())


def test_the_corpus_is_large_and_its_names_unique():
    assert len({name for name, _, _ in CORPUS}) == len(CORPUS) >= 90


@pytest.mark.parametrize(("name", "expected"), [pytest.param(name, want, id=name) for name, _, want in CORPUS])
def test_statement(record, name, expected):
    execution = record.executions[name]
    wanted = {expected} if isinstance(expected, str) else expected
    assert wanted <= set(OUTCOMES)
    assert execution.outcome in wanted, execution.error
    assert name not in record.changed
    assert bool(execution.error) == (execution.outcome not in ("ok", "empty", "no_sql"))
    assert all(len(v) <= SHOWN_LENGTH for row in execution.rows for v in row if isinstance(v, str | bytes))


def test_the_pool_survives_the_corpus_and_leaves_nothing_behind(record):
    assert record.afterwards.outcome == "ok"
    assert record.afterwards.row_count == 3
    assert record.after.children == ()
    assert record.after.threads == record.before.threads
    assert record.after.files == record.before.files


def test_the_memory_of_the_workers_stays_bounded(record):
    assert record.limits == ((WORKER_MEMORY, WORKER_MEMORY), (WORKER_FILE, WORKER_FILE))
    assert 0 < max(record.peaks) < WORKER_MEMORY  # 1.8e9 bytes measured with SQLite 3.40.1


# --- limits ---------------------------------------------------------------------------------------------------------


def steps_needed(path: Path, sql: str) -> int:
    """The smallest budget, in whole checks, that lets a query end."""
    low, high = 0, 10_000
    while low < high:
        middle = (low + high) // 2
        execution, _ = run_in_process(str(path), sql, Limits(600.0, middle * STEPS_PER_CHECK))
        low, high = (low, middle) if execution.outcome == "ok" else (middle + 1, high)
    return low * STEPS_PER_CHECK


@pytest.mark.parametrize("sql", [counting(30_000), "SELECT COUNT(*) FROM " + listed(f"product p{i}" for i in range(9))])
def test_the_step_budget_is_the_same_in_every_run(warehouse, sql):
    needed = steps_needed(warehouse, sql)
    assert needed == steps_needed(warehouse, sql) > STEPS_PER_CHECK
    outcomes = []
    for steps in (needed, needed - STEPS_PER_CHECK):
        with Executor(workers=1, timeout=600, steps=steps) as executor:
            outcomes.append(asyncio.run(executor.execute(warehouse, sql)).outcome)
    assert outcomes == ["ok", "timeout"]


def _hang(seconds: float) -> None:
    """In a worker: outlive an alarm."""
    signal.setitimer(signal.ITIMER_REAL, seconds)
    time.sleep(30)


def _take_memory(size: int) -> int:
    """In a worker: more than it may have."""
    return len(bytearray(size))


def _sort_with_little_disk(path: str) -> Execution:
    """In a worker: a sort that needs a temporary file of 50 MB, when files may have 5 MB."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (5 << 20, WORKER_FILE))
    return run_in_process(
        path, counting(50).replace("SELECT n", "SELECT zeroblob(1000000) || n") + " ORDER BY 1", PATIENT
    )[0]


def test_the_alarm_kills_a_worker_that_hangs(warehouse):
    async def scenario(executor: Executor) -> list[str]:
        await executor.execute(warehouse, "SELECT 1")
        hangs = await executor.execute(warehouse, HANGING)
        well = await executor.execute(warehouse, "SELECT 1")
        sleeps = await executor._send(_hang, 0.5)
        return [hangs.outcome, well.outcome, sleeps.outcome, (await executor.execute(warehouse, "SELECT 1")).outcome]

    with Executor(workers=1, timeout=0.3) as executor:
        assert asyncio.run(asyncio.wait_for(scenario(executor), HARD_WAIT)) == ["timeout", "ok", "timeout", "ok"]


@pytest.fixture
def quick_death(monkeypatch: pytest.MonkeyPatch) -> Counter:
    """Workers are killed half a second past the limit; how often one was, for which task."""
    deaths: Counter = Counter()

    async def counted(self: Executor, task: Callable, *arguments, **settings):
        found = await send(self, task, *arguments, **settings)
        deaths.update([task.__name__] if isinstance(found, Execution) and found.error == STOPPED else [])
        return found

    send = Executor._send
    monkeypatch.setattr(Executor, "_send", counted)
    monkeypatch.setattr(sql_utils, "KILL_AFTER", 0.5)
    return deaths


def hanging_unless(condition: str, query: str) -> str:
    """A query that hangs in one step where the condition does not hold."""
    return f"{query} AND CASE WHEN {condition} THEN 1 ELSE ({HANGING}) END"


GOLD = "SELECT name FROM product WHERE id > 0"
ON_INSTANCES = hanging_unless("(SELECT COUNT(*) FROM product) = 3", GOLD)


def verdicts_of(executor: Executor, path: Path, sqls: list[str], gold: str) -> list[tuple[str, bool, str]]:
    verdicts = asyncio.run(asyncio.wait_for(executor.judge_all(path, sqls, gold), HARD_WAIT))
    return [(verdict.execution.outcome, verdict.ex, verdict.gold.outcome) for verdict in verdicts]


def test_a_candidate_that_hangs_alone_takes_its_time_once(warehouse, quick_death):
    with Executor(workers=1, timeout=0.3) as executor:
        assert verdicts_of(executor, warehouse, [HANGING], GOLD) == [("timeout", False, "ok")]
    assert quick_death == {"judge_all": 1}


def test_candidates_that_hang_take_their_time_twice_at_most_and_their_neighbours_once(warehouse, quick_death):
    sqls = [GOLD, HANGING, "SELECT 1", HANGING + " || ''", "", GOLD + " "]
    with Executor(workers=1, timeout=0.3) as executor:
        assert verdicts_of(executor, warehouse, sqls, GOLD) == [
            ("ok", True, "ok"),
            ("timeout", False, "ok"),
            ("ok", False, "ok"),
            ("timeout", False, "ok"),
            ("no_sql", False, "ok"),
            ("ok", True, "ok"),
        ]
    assert quick_death == {"judge_all": 3}  # all together, then the two alone


def test_gold_that_hangs_is_run_twice_at_most(warehouse, quick_death):
    with Executor(workers=1, timeout=0.3) as executor:
        for _ in range(2):
            found = verdicts_of(executor, warehouse, [GOLD, ""], HANGING)
            assert found == [("ok", False, "timeout"), ("no_sql", False, "timeout")]
            assert asyncio.run(executor.run_gold(warehouse, HANGING)).outcome == "timeout"
    assert quick_death == {"judge_all": 1, "execute_gold": 1}


@pytest.mark.parametrize("others", [[], ["SELECT name FROM product WHERE id < 9"]])
def test_what_hangs_on_an_instance_only_is_right_and_not_fragile(warehouse, quick_death, tmp_path, others):
    with Executor(workers=1, timeout=0.3, perturbed=tmp_path / "perturbed") as executor:
        assert asyncio.run(executor.prepare(warehouse)) == ("", {})
        sqls = [ON_INSTANCES, *others, "SELECT name FROM product WHERE name IN ('saw', 'nail', 'Säge')", "SELECT 1"]
        verdicts = asyncio.run(asyncio.wait_for(executor.judge_all(warehouse, sqls, GOLD), HARD_WAIT))
    assert [verdict.ex for verdict in verdicts] == [True, *(True for _ in others), True, False]
    assert [verdict.execution.outcome for verdict in verdicts] == ["ok"] * len(sqls)
    assert not any("fragile" in verdict.execution.flags for verdict in verdicts)
    assert quick_death == {"find_fragile": 2}


def test_gold_that_hangs_on_an_instance_only_calls_nothing_fragile(warehouse, quick_death, tmp_path):
    with Executor(workers=1, timeout=0.3, perturbed=tmp_path / "perturbed") as executor:
        asyncio.run(executor.prepare(warehouse))
        verdict = asyncio.run(asyncio.wait_for(executor.judge(warehouse, GOLD, ON_INSTANCES), HARD_WAIT))
    assert (verdict.ex, verdict.execution.flags, verdict.gold.outcome) == (True, (), "ok")
    assert quick_death == {"find_fragile": 1}


@pytest.mark.parametrize(
    ("sql", "gold", "expected", "deaths"),
    [
        (HANGING, GOLD, ("timeout", False), {"judge_all": 1}),
        (HANGING, "", ("timeout", None), {"judge_all": 1}),
        (GOLD, HANGING, ("ok", None), {"judge_all": 1, "execute_gold": 1}),
        ("", HANGING, ("no_sql", None), {"judge_all": 1, "execute_gold": 1}),
        (HANGING, HANGING + " || ''", ("timeout", None), {"judge_all": 2, "execute_gold": 1}),
    ],
)
def test_what_hangs_while_it_is_observed(warehouse, quick_death, sql, gold, expected, deaths):
    with Executor(workers=1, timeout=0.3) as executor:
        result = asyncio.run(asyncio.wait_for(executor.observe(warehouse, sql, gold), HARD_WAIT))
    assert (result.outcome, result.ex) == expected
    assert quick_death == deaths


def _fill_disk(path: str, parts: int, then: str) -> Execution:
    """In a worker that stops at 40 MB of temporary files: subqueries of 15 MB, each in a file of its own."""
    threading.Thread(target=watch, args=(40_000_000,), daemon=True).start()
    rows = f"SELECT zeroblob(1000000) || n AS big FROM ({counting(15)})"
    tables = listed(f"p{number} AS MATERIALIZED ({rows})" for number in range(parts))
    joined = listed(f"(SELECT big FROM p{number} LIMIT 1 OFFSET 14) AS q{number}" for number in range(parts))
    return run_in_process(path, f"WITH {tables}, e AS ({then}) SELECT COUNT(*) FROM {joined}, e", PATIENT)[0]


@pytest.mark.parametrize(("parts", "then", "expected"), [(2, "SELECT 1", "ok"), (6, endless(""), "too_large")])
def test_temporary_files_are_limited_together(warehouse, parts, then, expected):
    with Executor(workers=1) as executor:
        found = asyncio.run(executor._send(_fill_disk, str(warehouse), parts, then))
        assert found.outcome == expected, found.error
        assert asyncio.run(executor.execute(warehouse, "SELECT 1")).outcome == "ok"


def test_too_much_memory_or_disk_costs_the_query_only(warehouse):
    async def scenario(executor: Executor) -> list[str]:
        memory = await executor._send(_take_memory, 2 * WORKER_MEMORY)
        disk = await executor._send(_sort_with_little_disk, str(warehouse))
        return [memory.outcome, disk.outcome, (await executor.execute(warehouse, "SELECT 1")).outcome]

    with Executor(workers=1) as executor:
        assert asyncio.run(asyncio.wait_for(scenario(executor), HARD_WAIT)) == ["too_large", "too_large", "ok"]


def test_a_damaged_database_is_an_error_that_names_it(warehouse):
    damaged = warehouse.with_name("damaged.sqlite")
    damaged.write_bytes(warehouse.read_bytes()[:5000])
    with Executor(workers=1) as executor:
        with pytest.raises(InputError, match="damaged.sqlite: database disk image is malformed"):
            asyncio.run(executor.execute(damaged, "SELECT 1"))
        assert asyncio.run(executor.execute(warehouse, "SELECT 1")).outcome == "ok"


def test_a_broken_view_costs_only_the_queries_that_read_it(tmp_path):
    path = make_database(
        tmp_path / "old.sqlite",
        "CREATE TABLE gone (a); CREATE VIEW v AS SELECT * FROM gone; CREATE TABLE t (a); INSERT INTO t VALUES (1);"
        "PRAGMA legacy_alter_table = 1; DROP TABLE gone",
    )
    assert run_in_process(str(path), "SELECT a FROM t", PATIENT)[0].outcome == "ok"
    assert run_in_process(str(path), "SELECT * FROM v", PATIENT)[0].outcome == "error"
