"""Candidate queries for questions: from trees or a list, with their prompts, and what running them gives."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from common.files import InputError
from common.preference import Prompt, user_prompt
from common.rows import fit_row, iterate_json
from eval.best_of_n import EMPTY, FAILED, ROWS, WITH_REWARD, WITHOUT_REWARD, Candidates, choice
from tree.sql.cache import cache_folder
from tree.sql.results import RAN, Result
from tree.sql_utils import Executor, SqlSettings, database_path
from tree.tree_files import read_trees, run_arguments
from tree.tree_node import Question, RevisionTree

HOW = "expected all_trees.json of step 4.1, or a list of {question_id, db_id, question, evidence, candidates}"
COLUMNS = {
    **{"question_id": int, "db_id": str, "question": str, "candidates": list},
    **dict.fromkeys(("evidence", "SQL", "difficulty", "prompt"), (str, "")),
}
NO_QUERY = -1e9  # reward of a reply without a query
TIERS = {"ok": ROWS, "empty": EMPTY}


@dataclass(frozen=True)
class CandidatePool:
    """A question (gold "" when there is none), its prompt ("" until `with_prompts`) and its candidate queries in order.

    Queries that are equal are there as often as they were written; "" is a reply without a query.
    """

    question: Question
    prompt: str
    queries: list[str]

    @property
    def distinct(self) -> list[str]:
        """Each query once; a reply without one is none."""
        return list(dict.fromkeys(filter(None, self.queries)))

    @property
    def conversation(self) -> Prompt:
        """The prompt as the reward model reads it."""
        return user_prompt(self.prompt)


def read_pools(path: str) -> list[CandidatePool]:
    """The questions of a file with their candidates; of trees, the first attempts.

    Revisions are left out, because whether a query was revised depends on gold. Raises InputError naming the file and
    the row.
    """
    first = next(iterate_json(path, HOW), None)
    if isinstance(first, dict) and "nodes" in first:
        pools = map(_pool_of_tree, read_trees(path))
    else:
        pools = (_pool_of_row(path, number, row) for number, row in enumerate(iterate_json(path, HOW)))
    found: dict[int, CandidatePool] = {}
    for number, pool in enumerate(pools):
        if pool.question.question_id in found:
            raise InputError(f"{path}: row {number}: question_id {pool.question.question_id} is duplicated")
        found[pool.question.question_id] = pool
    if not any(pool.queries for pool in found.values()):
        raise InputError(f"{path}: no candidates; {HOW}")
    return list(found.values())


def _pool_of_tree(tree: RevisionTree) -> CandidatePool:
    first_attempts = [node.generated_sql for node in tree.nodes.values() if node.d == 1]
    return CandidatePool(tree.question, tree.prompt, first_attempts)


def _pool_of_row(path: str, number: int, row: object) -> CandidatePool:
    row = fit_row(path, number, row, COLUMNS)
    if not all(isinstance(sql, str) for sql in row["candidates"]):
        raise InputError(f"{path}: row {number}: 'candidates' must be SQL texts")
    columns = ("question_id", "db_id", "question", "evidence", "SQL", "difficulty")
    question = Question(*(row[name] for name in columns))
    return CandidatePool(question, row["prompt"], [sql if sql.strip() else "" for sql in row["candidates"]])


def warn_of_redraws(path: str) -> None:
    """Say so when the trees' manifest tells that wrong repeats were drawn again, which helps votes."""
    run = run_arguments(path)
    if run.get("redraws") and not run.get("no_gold"):  # without gold none is known to be wrong
        print(
            f"warning: {path}: repeated wrong queries were drawn again when these trees grew, so votes come out too "
            "well; grow trees for evaluation with --redraws 0"
        )


# --- execution --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PoolResults:
    """What each distinct candidate of a question gives (against gold where that ran), and the outcome of its gold.

    `gold` is "" without gold.
    """

    results: dict[str, Result]
    gold: str

    @property
    def judged(self) -> bool:
        """Whether there is gold, and it ran."""
        return self.gold in RAN


async def execute(pools: Sequence[CandidatePool], db_root: str, sql: SqlSettings) -> list[PoolResults]:
    """Run gold, also where there is no candidate to judge by it, and every distinct candidate of every question."""
    from tqdm.asyncio import tqdm

    with Executor(sql.workers, sql.timeout, gold_cache=cache_folder("gold")) as executor:
        runs = [_execute_pool(pool, db_root, executor) for pool in pools]
        return await tqdm.gather(*runs, desc="executing candidates", unit="question")


async def _execute_pool(pool: CandidatePool, db_root: str, executor: Executor) -> PoolResults:
    path, gold_sql = database_path(db_root, pool.question.db_id), pool.question.sql
    gold = (await executor.run_gold(path, gold_sql)).outcome if gold_sql else ""
    usable = gold_sql if gold in RAN else ""  # what fails is not run again for each candidate
    results = await asyncio.gather(*(executor.observe(path, sql, usable) for sql in pool.distinct))
    return PoolResults(dict(zip(pool.distinct, results, strict=True)), gold)


def as_candidates(
    pool: CandidatePool, executed: PoolResults, rewards: Mapping[tuple[Prompt, str], float] | None = None
) -> Candidates:
    """A question's candidates for choosing among them; `rewards` are those of queries behind a prompt.

    A reply without a query fails, and its reward is below all others.
    """
    missing = Result("no_sql", "", False if pool.question.sql else None)
    found = [executed.results.get(sql, missing) for sql in pool.queries]
    digests = {digest: number for number, digest in enumerate(dict.fromkeys(result.digest for result in found))}
    return Candidates(
        tiers=np.array([TIERS.get(result.outcome, FAILED) for result in found], dtype=int),
        groups=np.array([digests[result.digest] for result in found], dtype=int),
        correct=np.array([bool(result.ex) for result in found], dtype=float),
        rewards=None
        if rewards is None
        else np.array([rewards[pool.conversation, sql] if sql else NO_QUERY for sql in pool.queries]),
    )


def chosen_query(pool: CandidatePool, candidates: Candidates, choose: str) -> str:
    """The query that a rule, by name, chooses of a question's candidates; "" where there is none."""
    number = choice(candidates, (WITH_REWARD | WITHOUT_REWARD)[choose])
    return "" if number is None else pool.queries[number]
