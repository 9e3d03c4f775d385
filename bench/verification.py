"""What verifying trees and pairs costs, beside the bare execution of the same queries.

    python -m bench.verification                                   # BIRD in data/train, else the bundled demo
    python -m bench.verification --data train.json --db_root train_databases --nodes 20000

The trees are made of gold queries and mutations of them, judged as when growing; their pairs are extracted. Queries
that take over 5 ms by themselves are left out: with them, executing takes longer and verifying weighs less. So are
questions whose gold returns nothing. The two ways run alternately on the same trees, each with workers that must start
and an empty cache of gold results:

- bare: the executor judges all queries of a tree in one task, all trees at once, in memory; nothing is compared.
- verifying: what `python -m eval` does, from reading the files to writing the report.
"""

import argparse
import asyncio
import json
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.sql_execution import quick_candidates
from common.files import InputError, run_script, write_json_list
from common.rows import read_rows
from eval.__main__ import main as verify
from tree.pairs.extraction import PairSettings, extract_pairs
from tree.sql.cache import cache_folder
from tree.sql.canonical import first_equal
from tree.sql.results import Verdict
from tree.sql_utils import Executor, check_database, database_path
from tree.tree_node import INITIAL, Question, RevisionTree, tree_to_json

ROOTS = 4  # first attempts of a tree; all other queries are revisions of wrong ones
PROMPT = "CREATE TABLE a_table (a_column TEXT, another_column INTEGER);\n" * 50  # about as long as real ones are


@dataclass(frozen=True)
class VerificationBench:
    """The flags, by name."""

    data: str
    db_root: str
    nodes: int
    workers: int
    rounds: int


async def judge_all(trees: Sequence[tuple[Question, list[str]]], db_root: str, workers: int) -> list[list[Verdict]]:
    """The verdicts on all queries, and nothing else."""
    with Executor(workers, gold_cache=cache_folder("gold"), perturbed=cache_folder("perturbed")) as executor:
        names = sorted({question.db_id for question, _ in trees})
        await asyncio.gather(*(executor.prepare(database_path(db_root, name)) for name in names))
        tasks = [executor.judge_all(database_path(db_root, one.db_id), sqls, one.sql) for one, sqls in trees]
        return await asyncio.gather(*tasks)


def queries_of(settings: VerificationBench) -> list[tuple[Question, list[str]]]:
    """Questions with their queries, `--nodes` in all."""
    rows = read_rows(settings.data, {"db_id": str, "SQL": str})
    for db_id in sorted({row["db_id"] for row in rows}):
        check_database(database_path(settings.db_root, db_id))
    candidates = quick_candidates(rows, settings.db_root, settings.nodes)
    if len(candidates) < settings.nodes:
        raise InputError(f"{settings.data}: only {len(candidates)} quick queries, --nodes {settings.nodes} are needed")
    grouped: dict[tuple[str, str], list[str]] = {}
    for candidate in candidates:
        grouped.setdefault((candidate.path.stem, candidate.gold), []).append(candidate.sql)
    return [
        (Question(number, db_id, "a question", "", gold), sqls)
        for number, ((db_id, gold), sqls) in enumerate(grouped.items())
    ]


def tree_of(question: Question, sqls: Sequence[str], verdicts: Sequence[Verdict]) -> RevisionTree:
    """A tree that is true: revisions hang from a wrong first attempt, or they are further first attempts."""
    tree = RevisionTree(question, PROMPT)
    wrong = next((place for place in range(min(ROOTS, len(sqls))) if not verdicts[place].ex), None)
    firsts, nodes = first_equal(sqls), []
    if wrong is not None and firsts[wrong] != wrong:
        wrong = None
    for place, (sql, verdict, first) in enumerate(zip(sqls, verdicts, firsts, strict=True)):
        parent = INITIAL if wrong is None or place < ROOTS else nodes[wrong].node_id
        node = tree.add(
            parent,
            generated_sql=sql,
            execution_feedback="The query returned 1 row, columns: a\n(1)",
            outcome=verdict.execution.outcome,
            is_correct=verdict.ex,
            strict_match=verdict.strict,
            flags=list(verdict.execution.flags),
            duplicate_of=nodes[first].node_id if first != place else None,
        )
        nodes.append(node)
    for node in nodes:
        node.input_seq = "This is wrong, try again." if node.children_ids else ""
    return tree


def write_files(folder: Path, trees: Sequence[RevisionTree]) -> tuple[Path, Path]:
    """The tree file and the pair file."""
    files = folder / "all_trees.json", folder / "pairs.json"
    write_json_list(files[0], map(tree_to_json, trees))
    write_json_list(files[1], (pair.to_json() for tree in trees for pair in extract_pairs(tree, PairSettings()).pairs))
    return files


# --- measuring --------------------------------------------------------------------------------------------------------


def seconds(work) -> float:
    """Wall time of `work()` with an empty cache of gold results."""
    shutil.rmtree(cache_folder("gold"), ignore_errors=True)
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def run_verification(folder: Path, files: tuple[Path, Path], settings: VerificationBench) -> None:
    """`python -m eval` in this process. Raises InputError when it finds anything, for then the trees were not true."""
    words = ["--tree_file", str(files[0]), "--pairs", str(files[1]), "--output", str(folder / "report.json")]
    if verify([*words, "--db_root", settings.db_root, "--sql_workers", str(settings.workers)]):
        raise InputError("the verification found errors in trees that were just made: see above")


def parse_arguments(words: list[str] | None = None) -> VerificationBench:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    home = "data/train" if Path("data/train/train.json").is_file() else "data/demo"
    parser.add_argument("--data", default=f"{home}/train.json", help="question file")
    parser.add_argument("--db_root", default=f"{home}/train_databases", help="folder of the databases")
    parser.add_argument("--nodes", type=int, default=600, help="how many queries the trees hold")
    parser.add_argument("--workers", type=int, default=2, help="processes that execute SQL")
    parser.add_argument("--rounds", type=int, default=5, help="repetitions of each measurement")
    return VerificationBench(**vars(parser.parse_args(words)))


def main(words: list[str] | None = None) -> None:
    settings = parse_arguments(words)
    queries = queries_of(settings)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["RESQLVER_CACHE"] = str(folder / "cache")
        verdicts = asyncio.run(judge_all(queries, settings.db_root, settings.workers))
        judged = [item for item in zip(queries, verdicts, strict=True) if item[1][0].gold.outcome == "ok"]
        queries, trees = [asked for asked, _ in judged], [tree_of(*asked, verdicts) for asked, verdicts in judged]
        files = write_files(folder, trees)
        sizes = [round(file.stat().st_size / 1e6, 1) for file in files]
        nodes = sum(len(tree.nodes) for tree in trees)
        print(f"{nodes} nodes in {len(trees)} trees, files of {sizes} MB, {settings.rounds} rounds", flush=True)

        bare, verifying = [], []
        for number in range(settings.rounds):
            bare.append(seconds(lambda: asyncio.run(judge_all(queries, settings.db_root, settings.workers))))
            verifying.append(seconds(lambda: run_verification(folder, files, settings)))
            figures = {"bare": round(bare[-1], 3), "verifying": round(verifying[-1], 3)}
            print(f"round {number + 1}, seconds: {json.dumps(figures)}", flush=True)
    over = median(whole / least for whole, least in zip(verifying, bare, strict=True))
    print(f"median seconds: bare {median(bare):.2f}, verifying {median(verifying):.2f}")
    print(f"PROMISE verification_over_bare_execution {over:.2f} GOAL <= 1.3")


if __name__ == "__main__":
    run_script(main)
