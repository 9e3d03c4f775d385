"""Candidate queries for questions: from trees or a list, with their prompts, and what running them gives."""

import argparse
import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from common.files import InputError
from common.rows import fit_row, iterate_json
from eval.best_of_n import EMPTY, FAILED, ROWS, Candidates
from tree.run.prompt_settings import PromptSettings
from tree.sql.results import Result
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
class Asked:
    """A question (gold "" when there is none), its prompt ("" until `with_prompts`) and its candidates in order.

    Candidates that are equal stand as often as they were written; "" is a reply without a query.
    """

    question: Question
    prompt: str
    candidates: list[str]

    @property
    def distinct(self) -> list[str]:
        """Each query once; a reply without one is none."""
        return list(dict.fromkeys(filter(None, self.candidates)))


def read_candidates(path: str) -> list[Asked]:
    """The questions of a file with their candidates; of trees, the first attempts.

    Revisions are left out, because whether a query was revised depends on gold. Raises InputError naming the file and
    the row.
    """
    first = next(iterate_json(path, HOW), None)
    if isinstance(first, dict) and "nodes" in first:
        rows = map(_of_tree, read_trees(path))
    else:
        rows = (_of_row(path, number, row) for number, row in enumerate(iterate_json(path, HOW)))
    found: dict[int, Asked] = {}
    for number, asked in enumerate(rows):
        if asked.question.question_id in found:
            raise InputError(f"{path}: row {number}: question_id {asked.question.question_id} stands more than once")
        found[asked.question.question_id] = asked
    if not any(asked.candidates for asked in found.values()):
        raise InputError(f"{path}: no candidates; {HOW}")
    return list(found.values())


def _of_tree(tree: RevisionTree) -> Asked:
    return Asked(tree.question, tree.prompt, [node.generated_sql for node in tree.nodes.values() if node.d == 1])


def _of_row(path: str, number: int, row: object) -> Asked:
    row = fit_row(path, number, row, COLUMNS)
    if not all(isinstance(sql, str) for sql in row["candidates"]):
        raise InputError(f"{path}: row {number}: 'candidates' must be SQL texts")
    named = {name: row[name] for name in ("question_id", "db_id", "question", "evidence", "difficulty")}
    candidates = [sql if sql.strip() else "" for sql in row["candidates"]]
    return Asked(Question(**named, sql=row["SQL"]), row["prompt"], candidates)


def warn_of_redraws(path: str) -> None:
    """Say so when the trees' manifest tells that wrong repeats were drawn again, which helps votes."""
    if run_arguments(path).get("redraws"):
        print(
            f"warning: {path}: repeated wrong queries were drawn again when these trees grew, so votes come out too "
            "well; grow trees for evaluation with --redraws 0"
        )


# --- prompts ----------------------------------------------------------------------------------------------------------


def with_prompts(asked: Sequence[Asked], settings: PromptSettings, path: str, db_root: str, tokenizer) -> list[Asked]:
    """The same, with a prompt for those of `path` that lack one, as step 4.1 writes it with these settings.

    Raises InputError for a question whose prompt cannot be made short enough.
    """
    from tree.generator import encode
    from tree.run.preflight import prepare_prompts
    from tree.run.work_list import WorkList

    if all(one.prompt for one in asked):
        return list(asked)
    work = WorkList([one.question for one in asked if not one.prompt], path, db_root, settings)
    prepare_prompts(work, partial(encode, tokenizer))
    if work.skipped:
        first = work.skipped[0]
        raise InputError(f"{path}: question_id {first['question_id']}: {first['reason']}; give the row a 'prompt'")
    return [one if one.prompt else replace(one, prompt=work.prompt(one.question)) for one in asked]


# --- execution --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Executed:
    """What each distinct candidate of a question gives (against gold where that ran), and the outcome of its gold.

    `gold` is "" without gold.
    """

    results: dict[str, Result]
    gold: str

    @property
    def judged(self) -> bool:
        """Whether there is gold, and it ran."""
        return self.gold in TIERS


async def execute(asked: Sequence[Asked], args: argparse.Namespace) -> list[Executed]:
    """Run gold, also where there is no candidate to judge by it, and every distinct candidate of every question."""
    from tqdm import tqdm

    from tree.sql.cache import cache_folder
    from tree.sql_utils import Executor, database_path, sql_settings

    sql = sql_settings(args)
    total = sum(len(one.distinct) for one in asked)
    with (
        Executor(sql.workers, sql.timeout, gold_cache=cache_folder("gold")) as executor,
        tqdm(total=total, desc="executing candidates", unit="query") as bar,
    ):

        async def run(path: Path, sql: str, gold_sql: str) -> Result:
            result = await executor.observe(path, sql, gold_sql)
            bar.update()
            return result

        async def question(one: Asked) -> Executed:
            path, gold_sql = database_path(args.db_root, one.question.db_id), one.question.sql
            gold = (await executor.run_gold(path, gold_sql)).outcome if gold_sql else ""
            usable = gold_sql if gold in TIERS else ""  # what fails is not run again for each candidate
            results = await asyncio.gather(*(run(path, sql, usable) for sql in one.distinct))
            return Executed(dict(zip(one.distinct, results, strict=True)), gold)

        return await asyncio.gather(*map(question, asked))


def known(one: Asked, results: Mapping[str, Result], rewards: Mapping[str, float] | None = None) -> Candidates:
    """A question's candidates for choosing among them; `rewards` are those of the distinct ones.

    A reply without a query fails, and its reward is below all others.
    """
    missing = Result("no_sql", "", False if one.question.sql else None)
    found = [results.get(sql, missing) for sql in one.candidates]
    digests = {digest: number for number, digest in enumerate(dict.fromkeys(result.digest for result in found))}
    return Candidates(
        tiers=np.array([TIERS.get(result.outcome, FAILED) for result in found], dtype=int),
        groups=np.array([digests[result.digest] for result in found], dtype=int),
        correct=np.array([bool(result.ex) for result in found], dtype=float),
        rewards=None if rewards is None else np.array([rewards.get(sql, NO_QUERY) for sql in one.candidates]),
    )
