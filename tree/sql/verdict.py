"""The verdict on a query inside a worker process: its rows against gold's, and whether they agree by coincidence only.

What is compared is BIRD's official rule and a strict one. A query that is right is also tried on perturbed instances of
its database, see `tree.sql.perturbed`.
"""

import functools
import hashlib
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from tree.sql.cache import State, file_state, gold_file, keep_gold, load_gold
from tree.sql.canonical import canonical_sql
from tree.sql.facts import facts_about
from tree.sql.guarded import Limits
from tree.sql.perturbed import instance_files
from tree.sql.query_text import orders_rows, returns_constants
from tree.sql.results import BY_CHANCE, FRAGILE, RAN, Execution, Row, Verdict
from tree.sql.sandbox import NO_SUCH, run
from tree.sql.tokens import TOKEN

GOLD_KEPT = 2048  # gold results per worker, more than there are trees in flight, on the database and its instances
SLOW = 0.01  # seconds of a gold query from which its result is always kept on disk
GOLD_ROWS_KEPT = 5_000  # larger ones are read from disk for each candidate
INSTANCE_TIMEOUT = 5.0  # seconds of a query on a perturbed instance, where nearly all take less than 0.01
INSTANCE_STEPS = 50_000_000  # of a query on a perturbed instance, about a second


@dataclass(frozen=True)
class JudgeSettings:
    """What a verdict is found with: the `limits` of each query, the folder where results of gold are kept (None:
    nowhere), and that of the perturbed instances (None: there are none).
    """

    limits: Limits
    gold_cache: Path | None = None
    perturbed: Path | None = None

    def on_instances(self) -> "JudgeSettings":
        """With the limits of a query on a perturbed instance."""
        timeout, steps = min(self.limits.timeout, INSTANCE_TIMEOUT), min(self.limits.steps, INSTANCE_STEPS)
        return replace(self, limits=replace(self.limits, timeout=timeout, steps=steps))


# --- gold -----------------------------------------------------------------------------------------------------------


def run_gold(path: str, sql: str, settings: JudgeSettings, keep: bool) -> tuple[Execution, list[Row]]:
    """A gold query's execution and rows, from disk or by running it; then kept on disk if `keep`, or if it is slow.

    A quick result is run again sooner than its file is made. Nothing is kept of a database that changed meanwhile.
    """
    file = gold_file(settings.gold_cache, path, sql)
    if kept := load_gold(file):
        return kept
    execution, rows = run(path, sql, settings.limits)
    keep = keep or execution.seconds > SLOW or len(rows) > GOLD_ROWS_KEPT
    if keep and gold_file(settings.gold_cache, path, sql) == file:
        keep_gold(file, execution, rows)
    return execution, rows


@functools.lru_cache(maxsize=GOLD_KEPT)
def _gold_in_memory(path: str, _: State, sql: str, settings: JudgeSettings) -> tuple | None:
    execution, rows = run_gold(path, sql, settings, keep=False)
    is_kept = len(rows) <= GOLD_ROWS_KEPT and BY_CHANCE not in execution.flags
    return (execution, rows, frozenset(rows)) if is_kept else None


def gold_result(path: str, sql: str, settings: JudgeSettings) -> tuple[Execution, list[Row], frozenset[Row]]:
    """A gold query's execution, rows and set of rows: from this worker's memory, else from `run_gold`.

    What reads the clock or draws random numbers is run anew each time, right beside the candidate that it judges.
    """
    if in_memory := _gold_in_memory(path, file_state(path), sql, settings):
        return in_memory
    execution, rows = run_gold(path, sql, settings, keep=True)
    return execution, rows, frozenset(rows)


# --- a candidate ----------------------------------------------------------------------------------------------------


def judge(
    path: str, sql: str, gold_sql: str, settings: JudgeSettings, whole: bool = False, gold: Execution | None = None
) -> Verdict:
    """Run a candidate ("" for a reply without SQL) and compare its rows with gold's, on the database itself.

    A result that is `whole` is read to its end also when it is proven wrong, and has a digest, so that candidates can
    be compared with each other. `gold` is the execution of a gold query that does not run, where that is known.
    """
    gold, gold_rows, gold_set = (gold, [], None) if gold else gold_result(path, gold_sql, settings)
    if not sql:
        return Verdict(Execution("no_sql"), gold)
    gold_ran = gold.outcome in RAN
    execution, rows = run(path, sql, settings.limits, gold_set if gold_ran and not whole else None)
    execution = replace(execution, facts=facts_about(path, sql, execution))
    digest = rows_digest(rows) if whole and execution.outcome in RAN else ""
    if not gold_ran or execution.outcome not in RAN or execution.more:
        return Verdict(execution, gold, digest=digest)
    if gold.outcome == execution.outcome == "empty":
        execution = replace(execution, flags=(*execution.flags, "both_empty"))
    ex = set(rows) == gold_set
    return Verdict(execution, gold, ex, ex and same_rows(rows, gold_rows, gold_sql), digest)


def same_rows(rows: list[Row], gold_rows: list[Row], gold_sql: str) -> bool:
    """Whether two results hold the same rows equally often, and in the same order when gold orders.

    Gold is read for its ORDER BY only when it matters: that costs more than running most queries.
    """
    return rows == gold_rows or (Counter(rows) == Counter(gold_rows) and not orders_rows(gold_sql))


def rows_digest(rows: list[Row]) -> str:
    """32 hex digits, the same for two results just when they are the same set of rows by Python's equality."""
    lines = sorted({repr(tuple(map(_same_number, row))).encode("utf-8", "surrogatepass") for row in rows})
    return hashlib.sha256(b"\n".join(lines)).hexdigest()[:32]


def _same_number(value: object) -> object:
    """1.0 equals 1 and -0.0 equals 0, so they are written the same."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


# --- right by coincidence -------------------------------------------------------------------------------------------


def marked_fragile(verdict: Verdict) -> Verdict:
    """The verdict on a candidate that is right only by coincidence."""
    return replace(verdict, execution=replace(verdict.execution, flags=(*verdict.execution.flags, FRAGILE)))


def is_fragile(path: str, sql: str, gold_sql: str, verdict: Verdict, settings: JudgeSettings) -> bool:
    """Whether a candidate that is right on the database at `path` is so only by coincidence: because it looks at no
    row, unlike gold, or because it is wrong on one of the perturbed instances.
    """
    execution, gold = verdict.execution, verdict.gold
    is_blind = "constant" in execution.flags or not execution.sees_rows or returns_constants(sql)
    if is_blind and not ("constant" in gold.flags or returns_constants(gold_sql)):
        return True
    # gold that looks at the clock or draws random numbers says nothing about the result on other rows
    return BY_CHANCE not in gold.flags and _differs(path, sql, gold_sql, settings)


def _differs(path: str, sql: str, gold_sql: str, settings: JudgeSettings) -> bool:
    """Whether a candidate that is right on the database at `path` is wrong on one of its perturbed instances."""
    if sql == gold_sql:
        return False
    files = instance_files(settings.perturbed, path)
    if not all(file.is_file() for file in files):
        return False
    differs = any(_differs_on(str(file), sql, gold_sql, settings.on_instances()) for file in files)
    return differs and canonical_sql(sql) != canonical_sql(gold_sql)


def _differs_on(path: str, sql: str, gold_sql: str, settings: JudgeSettings) -> bool:
    """Whether the results on one instance differ for another reason than chance: a limit of time or size that stopped
    one of them, which of equal rows a LIMIT takes, and the order in which real numbers are added.
    """
    gold, gold_rows, gold_set = gold_result(path, gold_sql, settings)
    if gold.outcome not in RAN:
        return False
    execution, rows = run(path, sql, settings.limits)
    if execution.outcome not in RAN:  # a name that is missing is one that instances do without
        return execution.outcome == "error" and not NO_SUCH.match(execution.error)
    if set(rows) == gold_set or _rounded(rows) == _rounded(gold_rows):
        return False
    columns = len(gold.columns)
    return not any(_hangs_on_ties(path, query, columns, settings.limits) for query in (sql, gold_sql))


def _rounded(rows: list[Row]) -> set[Row]:
    return {tuple(float(f"{value:.9g}") if isinstance(value, float) else value for value in row) for row in rows}


def _hangs_on_ties(path: str, sql: str, columns: int, limits: Limits) -> bool:
    """Whether the rows of a query change with the order of rows that its ORDER BY holds for equal."""
    upwards, downwards = (ties_broken(sql, columns, direction) for direction in ("ASC", "DESC"))
    return upwards != downwards and set(run(path, upwards, limits)[1]) != set(run(path, downwards, limits)[1])


def ties_broken(sql: str, columns: int, direction: str) -> str:
    """The query with every LIMIT's rows ordered by their values too: all `columns` of the outermost query's rows, the
    first one of an inner query's.
    """
    parts, start = [], 0
    has_order = [False]  # of the query itself and of the one in each open parenthesis: whether its ORDER BY came
    for match in TOKEN.finditer(sql):
        word = match.group().lower()
        if word == "(":
            has_order.append(False)
        elif word == ")":
            has_order = has_order[:-1] or [False]
        elif word in ("select", "order"):
            has_order[-1] = word == "order"
        elif word == "limit":
            sorted_by = columns if len(has_order) == 1 else 1
            keys = ", ".join(f"{number} {direction}" for number in range(1, sorted_by + 1))
            parts += [sql[start : match.start()], ", " if has_order[-1] else "ORDER BY ", keys, " "]
            start = match.start()
    return "".join(parts) + sql[start:]
