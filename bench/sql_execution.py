"""What executing and judging model SQL costs: against a bare loop, with two workers, and against the common way.

    python -m bench.sql_execution                                   # BIRD in data/train, else the bundled demo
    python -m bench.sql_execution --data train.json --db_root train_databases --candidates 5000

Candidates are gold queries and mutations of them (another number, another direction, a lost condition, a misspelt
column, …). Queries that take over 5 ms by themselves measure SQLite, not what is around it, and are left out.

All ways run on the same few hundred candidates, then on the next: many short rounds, so that what disturbs the machine
disturbs all ways alike. The bare loop runs first and last in each round; how far the two are apart is the noise, to be
compared with what is measured. Figures are medians over the rounds, with the middle half of them in brackets.

(a) overhead: wall time of the executor with one worker less that of a bare in-process sqlite3 loop (one open
    connection per database, gold once, the same comparison), per candidate. A node's four samples are one task. The
    table tells what adds it: limits, authorizer and flags; facts and the verdict; the worker process; perturbed
    instances.
(b) scaling: throughput of two workers over one.
(c) against the common way, two workers each: a pool spawned per batch of 16, and for each candidate a connection, a
    thread as time limit and gold executed again. Measured on fewer candidates and in fewer rounds, as throughput.
"""

import argparse
import asyncio
import multiprocessing
import random
import re
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

from common.files import InputError, run_script
from common.rows import read_rows
from common.tables import aligned
from tree.sql import sandbox, verdict
from tree.sql.database_file import connect
from tree.sql.guarded import Limits
from tree.sql.verdict import JudgeSettings
from tree.sql_utils import STEPS, TIMEOUT, Executor, check_database, database_path

SLOW = 0.005  # seconds
BATCH = 16
SAMPLES = 4  # of a node, judged in one task
WARM_UP = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c LIMIT 500000) SELECT COUNT(*) FROM c"
WARM_TIMEOUT = 0.25  # seconds in which a candidate must end to be looked at


@dataclass(frozen=True)
class Candidate:
    path: Path
    gold: str
    sql: str


MUTATIONS = (
    lambda sql: sql,
    lambda sql: re.sub(r"\b\d+\b", lambda match: str(int(match.group()) + 1), sql, count=1),
    lambda sql: sql.replace(" DESC", " ASC") if " DESC" in sql else sql.replace("ORDER BY", "ORDER BY 1,", 1),
    lambda sql: re.sub(r"\s+AND\s+[^()]+?(?=\s+(?:GROUP|ORDER|LIMIT)\b|$)", "", sql, count=1, flags=re.IGNORECASE),
    lambda sql: re.sub(r"\b(COUNT|SUM|AVG|MAX|MIN)\(", "MIN(", sql, count=1, flags=re.IGNORECASE),
    lambda sql: sql.replace("DISTINCT ", "") if "DISTINCT " in sql else sql.replace("SELECT ", "SELECT DISTINCT ", 1),
    lambda sql: re.sub(r"=\s*'[^']*'", "= 'nothing'", sql, count=1),
    lambda sql: re.sub(r"(\w)(\w)\b", r"\2\1", sql[::-1], count=1)[::-1],
    lambda sql: sql + " LIMIT 3" if "LIMIT" not in sql.upper() else sql.upper().rsplit("LIMIT", 1)[0],
)


def candidates_of(rows: list[dict], db_root: str) -> Iterator[Candidate]:
    """Mutations of every gold query, each text once, those of one kind after the other."""
    seen = set()
    for mutate in MUTATIONS:
        for row in rows:
            path, sql = database_path(db_root, row["db_id"]), mutate(row["SQL"])
            if (path, row["SQL"], sql) not in seen:
                seen.add((path, row["SQL"], sql))
                yield Candidate(path, row["SQL"], sql)


def bare_rows(connection: sqlite3.Connection, sql: str) -> list[tuple] | None:
    try:
        return connection.execute(sql).fetchall()
    except (sqlite3.Error, sqlite3.Warning, MemoryError):
        return None


def quick_candidates(rows: list[dict], db_root: str, wanted: int) -> list[Candidate]:
    """The first `wanted` candidates that are not slow, and whose gold is not."""
    connections, quick_gold, kept = {}, {}, []

    def quick(connection: sqlite3.Connection, sql: str) -> bool:
        deadline = time.perf_counter() + WARM_TIMEOUT
        connection.set_progress_handler(lambda: time.perf_counter() > deadline, 1000)
        bare_rows(connection, sql)  # warm
        start = time.perf_counter()
        bare_rows(connection, sql)
        return time.perf_counter() - start < SLOW

    for candidate in candidates_of(rows, db_root):
        if candidate.path not in connections:
            connections[candidate.path] = connect(candidate.path)
        connection, key = connections[candidate.path], (candidate.path, candidate.gold)
        if key not in quick_gold:
            quick_gold[key] = quick(connection, candidate.gold)
        if quick_gold[key] and quick(connection, candidate.sql):
            kept.append(candidate)
            if len(kept) == wanted:
                break
    return kept


# --- the ways -------------------------------------------------------------------------------------------------------

IN_PROCESS = JudgeSettings(Limits(TIMEOUT, STEPS))


def bare_loop(candidates: list[Candidate]) -> float:
    """Seconds of a plain loop in this process: the least that executing, gold once, and comparing can cost."""
    connections = {path: connect(path) for path in {candidate.path for candidate in candidates}}
    gold = {}
    start = time.perf_counter()
    for candidate in candidates:
        connection, key = connections[candidate.path], (candidate.path, candidate.gold)
        if key not in gold:
            gold[key] = frozenset(bare_rows(connection, candidate.gold) or ())
        rows = bare_rows(connection, candidate.sql)
        _ = rows is not None and set(rows) == gold[key]
    return time.perf_counter() - start


def nodes_of(candidates: list[Candidate]) -> Iterator[tuple[Path, list[str], str]]:
    """The candidates as a growing tree asks for them: up to SAMPLES of a question at a time."""
    waiting: dict[tuple, list[str]] = {}
    for candidate in candidates:
        samples = waiting.setdefault((candidate.path, candidate.gold), [])
        samples.append(candidate.sql)
        if len(samples) == SAMPLES:
            yield candidate.path, waiting.pop((candidate.path, candidate.gold)), candidate.gold
    for (path, gold), samples in waiting.items():
        yield path, samples, gold


def in_sandbox(candidates: list[Candidate]) -> float:
    """Seconds of executing them, and gold once, in this process with limits, authorizer and flags."""
    start = time.perf_counter()
    queries = [(candidate.path, candidate.sql) for candidate in candidates]
    for path, sql in [*{(candidate.path, candidate.gold) for candidate in candidates}, *queries]:
        sandbox.run(str(path), sql, IN_PROCESS.limits)
    return time.perf_counter() - start


def judged_in_process(candidates: list[Candidate]) -> float:
    """The same with facts and verdicts."""
    start = time.perf_counter()
    for candidate in candidates:
        verdict.judge(str(candidate.path), candidate.sql, candidate.gold, IN_PROCESS)
    return time.perf_counter() - start


def with_executor(executor: Executor) -> Callable[[list[Candidate]], float]:
    """Seconds of judging candidates with an executor whose workers are started."""

    async def judge_all(candidates: list[Candidate]) -> None:
        await asyncio.gather(*(executor.judge_all(*node) for node in nodes_of(candidates)))

    def measured(candidates: list[Candidate]) -> float:
        start = time.perf_counter()
        asyncio.run(judge_all(candidates))
        return time.perf_counter() - start

    return measured


async def warm_up(executor: Executor, paths: Sequence[Path]) -> None:
    """Start all workers; make the perturbed instances of the databases where the executor has some."""
    await asyncio.gather(*(executor.execute(paths[0], WARM_UP) for _ in range(8 * executor.workers)))
    await asyncio.gather(*map(executor.prepare, paths))


def _with_time_limit(path: Path, sql: str, seconds: float = 30.0) -> list[tuple] | None:
    result: list = [None]

    def work() -> None:
        connection = sqlite3.connect(path)
        connection.text_factory = lambda data: data.decode("utf-8", "replace")
        result[0] = bare_rows(connection, sql)
        connection.close()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    return result[0]


def common_task(candidate: Candidate) -> bool:
    """One candidate the common way, in a pool worker."""
    rows, gold = _with_time_limit(candidate.path, candidate.sql), _with_time_limit(candidate.path, candidate.gold)
    return rows is not None and gold is not None and set(rows) == set(gold)


def common_way(candidates: list[Candidate], workers: int) -> float:
    """Seconds of the common way: a pool spawned per batch."""
    start = time.perf_counter()
    for first in range(0, len(candidates), BATCH):
        with multiprocessing.get_context("spawn").Pool(workers) as pool:
            pool.map(common_task, candidates[first : first + BATCH])
    return time.perf_counter() - start


# --- rounds and report ----------------------------------------------------------------------------------------------

# what runs in a round, in this order; each adds something to the one before it, but for the last two
BARE, SANDBOX, JUDGED, ONE, INSTANCES, TWO, BARE_AGAIN = range(7)
ADDED = {
    "limits, authorizer, flags": (SANDBOX, BARE),
    "facts, verdict": (JUDGED, SANDBOX),
    "one worker process": (ONE, JUDGED),
    "perturbed instances": (INSTANCES, ONE),
    "two workers instead of one": (TWO, ONE),
    "noise: the bare loop again": (BARE_AGAIN, BARE),
}

Round = list[float]  # seconds per candidate of each way


def rounds_of(candidates: list[Candidate], size: int) -> list[list[Candidate]]:
    """Whole questions in rounds of about `size` candidates, so that none finds gold that another round ran.

    The candidates of a round are mixed, as those of trees in flight are.
    """
    questions: dict[tuple, list[Candidate]] = {}
    for candidate in candidates:
        questions.setdefault((candidate.path, candidate.gold), []).append(candidate)
    rounds: list[list[Candidate]] = [[]]
    for question in questions.values():
        if len(rounds[-1]) >= size:
            rounds.append([])
        rounds[-1] += question
    return [random.Random(0).sample(found, len(found)) for found in rounds]


def measure(rounds: Sequence[list[Candidate]]) -> list[Round]:
    """Every way on the candidates of every round, with empty caches."""
    from tqdm import tqdm

    paths = sorted({candidate.path for found in rounds for candidate in found})
    with (
        tempfile.TemporaryDirectory() as folder,
        Executor(1, gold_cache=Path(folder, "one")) as one,
        Executor(1, gold_cache=Path(folder, "instances"), perturbed=Path(folder, "perturbed")) as instances,
        Executor(2, gold_cache=Path(folder, "two")) as two,
    ):
        for executor in (one, instances, two):
            asyncio.run(warm_up(executor, paths))
        executors = map(with_executor, (one, instances, two))
        ways = (bare_loop, in_sandbox, judged_in_process, *executors, bare_loop)
        return [[way(found) / len(found) for way in ways] for found in tqdm(rounds, desc="rounds", unit="round")]


def middle_half(values: Sequence[float]) -> str:
    low, middle, high = quantiles(values, n=4)
    return f"{middle:.0f} [{low:.0f}, {high:.0f}]"


def parse_arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    bird = Path("data/train/train.json").is_file()
    home = "data/train" if bird else "data/demo"
    parser.add_argument("--data", default=f"{home}/train.json", help="question file")
    parser.add_argument("--db_root", default=f"{home}/train_databases", help="folder of the databases")
    parser.add_argument("--candidates", type=int, default=5000, help="how many candidates to execute")
    parser.add_argument("--round_size", type=int, default=200, help="about how many of them in each round")
    parser.add_argument("--common", type=int, default=64, help="how many of them the common way executes")
    parser.add_argument("--common_rounds", type=int, default=3, help="how often it does")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> None:
    args = parse_arguments(words)
    rows = read_rows(args.data, {"db_id": str, "SQL": str})
    for db_id in sorted({row["db_id"] for row in rows}):
        check_database(database_path(args.db_root, db_id))
    candidates = quick_candidates(rows, args.db_root, args.candidates)
    rounds = rounds_of(candidates, args.round_size)
    if len(candidates) < args.common or len(rounds) < 2:
        raise InputError(
            f"{args.data}: only {len(candidates)} quick candidates, --common {args.common} and two rounds of "
            f"--round_size {args.round_size} are needed"
        )
    print(f"{len(candidates)} candidates of {len(rows)} gold queries in {len(rounds)} rounds", flush=True)

    # --- measure ---
    found = measure(rounds)
    few = candidates[: args.common]
    common = [common_way(few, 2) / len(few) for _ in range(args.common_rounds)]

    # --- report ---
    table = [["us per candidate", "median [middle half of the rounds]"]]
    table.append(["the bare loop", middle_half([1e6 * way[BARE] for way in found])])
    table += [
        [name, middle_half([1e6 * (way[more] - way[less]) for way in found])] for name, (more, less) in ADDED.items()
    ]
    table.append(["the common way, alone", f"{1e6 * median(common):.0f}"])
    print("\n".join(aligned(table)))
    overhead = median(way[ONE] - (way[BARE] + way[BARE_AGAIN]) / 2 for way in found) * 1e6
    two = median(way[TWO] for way in found)
    print(f"PROMISE sql_overhead_us {overhead:.0f} GOAL <= 300")
    print(f"PROMISE sql_two_workers {median(way[ONE] / way[TWO] for way in found):.2f} GOAL >= 1.6")
    print(f"PROMISE sql_common_way_speedup {median(common) / two:.1f} GOAL >= 5")


if __name__ == "__main__":
    run_script(main)
