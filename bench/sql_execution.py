"""What executing and judging model SQL costs: against a bare loop, with two workers, and against the common way.

    python -m bench.sql_execution                                   # BIRD in data/train, else the bundled demo
    python -m bench.sql_execution --data train.json --db_root train_databases --candidates 5000

Candidates are gold queries and mutations of them (another number, another direction, a lost condition, a misspelt
column, …). Queries that take over 5 ms by themselves measure SQLite, not what is around it, and are left out. The
three ways run alternately on the same candidates; figures are medians over the rounds.

(a) overhead: wall time of the executor with one worker less that of a bare in-process sqlite3 loop (one open
    connection per database, gold once, the same comparison), per candidate. A node's four samples are one task.
(b) scaling: throughput of two workers over one.
(c) against the common way, two workers each: a pool spawned per batch of 16, and for each candidate a connection, a
    thread as time limit and gold executed again. Measured on fewer candidates, as throughput.
"""

import argparse
import asyncio
import json
import multiprocessing
import random
import re
import sqlite3
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from common.files import InputError, run_script
from common.rows import read_rows
from tree.sql.database_file import connect
from tree.sql_utils import Executor, check_database, database_path

SLOW = 0.005  # seconds
BATCH = 16
SAMPLES = 4  # of a node, judged in one task
IN_FLIGHT = 256  # questions
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
    """The first `wanted` candidates that are not slow, and whose gold is not, in the order of trees in flight."""
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
    return in_flight_order(kept)


def in_flight_order(candidates: list[Candidate]) -> list[Candidate]:
    """Candidates of IN_FLIGHT questions at a time, mixed, as growing trees ask for them."""
    draw = random.Random(0)
    questions: dict[tuple, list[Candidate]] = {}
    for candidate in candidates:
        questions.setdefault((candidate.path, candidate.gold), []).append(candidate)
    groups, ordered = list(questions.values()), []
    for first in range(0, len(groups), IN_FLIGHT):
        window = [candidate for group in groups[first : first + IN_FLIGHT] for candidate in group]
        ordered += draw.sample(window, len(window))
    return ordered


# --- the three ways -------------------------------------------------------------------------------------------------


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


async def _judge_all(executor: Executor, candidates: list[Candidate]) -> float:
    start = time.perf_counter()
    await asyncio.gather(*(executor.judge_all(*node) for node in nodes_of(candidates)))
    return time.perf_counter() - start


def with_executor(candidates: list[Candidate], workers: int) -> float:
    """Seconds of the executor with its workers started and an empty gold cache."""

    async def measured(folder: str) -> float:
        with Executor(workers, gold_cache=Path(folder)) as executor:
            await asyncio.gather(*(executor.execute(candidates[0].path, WARM_UP) for _ in range(8 * workers)))
            return await _judge_all(executor, candidates)

    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(measured(folder))


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


# --- the report -----------------------------------------------------------------------------------------------------


def parse_arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    bird = Path("data/train/train.json").is_file()
    home = "data/train" if bird else "data/demo"
    parser.add_argument("--data", default=f"{home}/train.json", help="question file")
    parser.add_argument("--db_root", default=f"{home}/train_databases", help="folder of the databases")
    parser.add_argument("--candidates", type=int, default=5000, help="how many candidates to execute")
    parser.add_argument("--common", type=int, default=256, help="how many of them the common way executes")
    parser.add_argument("--rounds", type=int, default=5, help="repetitions of each measurement")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> None:
    args = parse_arguments(words)
    rows = read_rows(args.data, {"db_id": str, "SQL": str})
    for db_id in sorted({row["db_id"] for row in rows}):
        check_database(database_path(args.db_root, db_id))
    candidates = quick_candidates(rows, args.db_root, args.candidates)
    if len(candidates) < args.common:
        raise InputError(f"{args.data}: only {len(candidates)} quick candidates, --common {args.common} are needed")
    print(f"{len(candidates)} candidates of {len(rows)} gold queries, {args.rounds} rounds", flush=True)

    bare, one, two, common = [], [], [], []
    for number in range(args.rounds):
        bare.append(bare_loop(candidates))
        one.append(with_executor(candidates, 1))
        two.append(with_executor(candidates, 2))
        common.append(common_way(candidates[: args.common], 2))
        figures = {"bare": bare[-1], "one_worker": one[-1], "two_workers": two[-1], "common": common[-1]}
        print(
            f"round {number + 1}, seconds: {json.dumps({key: round(value, 3) for key, value in figures.items()})}",
            flush=True,
        )

    count = len(candidates)
    overhead = median((with_one - plain) / count for with_one, plain in zip(one, bare, strict=True)) * 1e6
    scaling = median(slow / fast for slow, fast in zip(one, two, strict=True))
    rates = [(count / ours) / (args.common / theirs) for ours, theirs in zip(two, common, strict=True)]
    print(
        f"median us per candidate: bare {median(bare) / count * 1e6:.0f}, one worker {median(one) / count * 1e6:.0f}, "
        f"two workers {median(two) / count * 1e6:.0f}, common way {median(common) / args.common * 1e6:.0f}"
    )
    print(f"PROMISE sql_overhead_us {overhead:.0f} GOAL <= 300")
    print(f"PROMISE sql_two_workers {scaling:.2f} GOAL >= 1.6")
    print(f"PROMISE sql_common_way_speedup {median(rates):.1f} GOAL >= 5")


if __name__ == "__main__":
    run_script(main)
