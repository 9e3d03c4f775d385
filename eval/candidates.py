"""Candidate queries for questions: from trees or a list, with their prompts, and what running them gives."""

import argparse
import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eval.best_of_n import EMPTY, FAILED, ROWS, Candidates
from tree.files import InputError, read_json
from tree.pair_files import read_trees
from tree.rows import fit_row, iterate_json
from tree.tree_node import Question, RevisionTree
from tree.verdict import Result

HOW = "expected all_trees.json of step 4.1, or a list of {question_id, db_id, question, evidence, candidates}"
COLUMNS = {
    **{"question_id": int, "db_id": str, "question": str, "candidates": list},
    **dict.fromkeys(("evidence", "SQL", "difficulty", "prompt"), (str, "")),
}
LONGEST_PROMPT = 3584  # tokens, as in step 4.1
NO_QUERY = -1e9  # reward of a reply without a query
TIERS = {"ok": ROWS, "empty": EMPTY}


@dataclass
class Asked:
    """A question (gold "" when there is none), its prompt ("" until `make_prompts`) and its candidates in order.

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
    manifest = Path(path).parent / "manifest.json"
    if manifest.is_file() and read_json(manifest, dict).get("arguments", {}).get("redraws"):
        print(
            f"warning: {path}: repeated wrong queries were drawn again when these trees grew, so votes come out too "
            "well; grow trees for evaluation with --redraws 0"
        )


# --- prompts ----------------------------------------------------------------------------------------------------------


def make_prompts(asked: Sequence[Asked], db_root: str, tokenizer) -> None:
    """Fill in missing prompts, as step 4.1 writes them with its default settings. Raises InputError."""
    from tree.preflight import Work, prepare_prompts

    missing = [one for one in asked if not one.prompt]
    if not missing:
        return
    work = Work([one.question for one in missing])
    settings = argparse.Namespace(db_root=db_root, no_values=False, data="the candidates' databases")
    prepare_prompts(
        work, lambda messages: tokenizer.apply_chat_template(messages, return_dict=False), LONGEST_PROMPT, settings
    )
    if work.skipped:
        first = work.skipped[0]
        raise InputError(f"question_id {first['question_id']}: {first['reason']}; give the row a 'prompt'")
    for one in missing:
        one.prompt = work.prompt(one.question)


# --- execution --------------------------------------------------------------------------------------------------------


async def execute(asked: Sequence[Asked], args: argparse.Namespace) -> list[dict[str, Result]]:
    """What each distinct candidate of each question gives, and whether it is gold's result where there is gold."""
    from tqdm import tqdm

    from tree.cache import cache_folder
    from tree.sql_utils import Executor, database_path

    workers = args.sql_workers or os.cpu_count() or 1
    total = sum(len(one.distinct) for one in asked)
    with (
        Executor(workers, args.sql_timeout, gold_cache=cache_folder("gold")) as executor,
        tqdm(total=total, desc="executing candidates", unit="query") as bar,
    ):

        async def run(one: Asked, sql: str) -> Result:
            path = database_path(args.db_root, one.question.db_id)
            result = await executor.observe(path, sql, one.question.sql)
            bar.update()
            return result

        async def question(one: Asked) -> dict[str, Result]:
            results = await asyncio.gather(*(run(one, sql) for sql in one.distinct))
            return dict(zip(one.distinct, results, strict=True))

        return await asyncio.gather(*map(question, asked))


def known(one: Asked, results: dict[str, Result], rewards: dict[str, float] | None = None) -> Candidates:
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
