"""Verify revision trees (step 7): structure, distances, and every node's SQL executed again.

    python -m eval --tree_file output/tree_dataset/part0/20260101_120000/all_trees.json \\
        --db_root data/train/train_databases --output verification_report.json

Exit code 0 when everything holds, 1 when something does not, 2 when it cannot run.
"""

import argparse
import asyncio
import os
from pathlib import Path

from tree.files import InputError, read_json, run_script, write_json
from tree.tree_node import RevisionTree, trees_from_json


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m eval", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tree_file", required=True, help="all_trees.json of step 4.1")
    parser.add_argument("--db_root", default="data/train/train_databases", help="folder of the databases")
    parser.add_argument("--output", default="verification_report.json", help="report to write")
    parser.add_argument("--sql_workers", type=int, default=0, help="processes that execute SQL (0 = one per core)")
    parser.add_argument("--sql_timeout", type=float, default=30.0, help="time limit of one query, in seconds")
    args = parser.parse_args()
    if args.sql_workers < 0 or args.sql_timeout <= 0:
        raise InputError("--sql_workers must not be negative, --sql_timeout must be positive")
    return args


def load_trees(path: str, db_root: str) -> tuple[list[dict], list[RevisionTree]]:
    """The stored objects and their trees; every database checked. Raises InputError naming file and tree."""
    from tree.sql_utils import check_database, database_path

    content = read_json(path, (list, dict), "grow trees first: bash tree/run_parallel.sh")
    stored = content if isinstance(content, list) else [content]
    if not stored:
        raise InputError(f"{path}: an empty list, no tree to verify")
    try:
        trees = list(trees_from_json(stored))
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None
    for db_id in sorted({tree.question.db_id for tree in trees}):
        check_database(database_path(db_root, db_id))
    return stored, trees


async def execute_again(trees: list[RevisionTree], args: argparse.Namespace) -> list:
    """Findings per tree, from running every node's SQL again."""
    from tqdm import tqdm

    from eval.verify import check_verdict
    from tree.cache import cache_folder
    from tree.sql_utils import Executor, database_path

    total = sum(len(tree.nodes) for tree in trees)
    workers = args.sql_workers or os.cpu_count() or 1
    with (
        Executor(workers, args.sql_timeout, gold_cache=cache_folder("gold")) as executor,
        tqdm(total=total, desc="executing nodes", unit="node") as bar,
    ):

        async def one(tree: RevisionTree) -> list:
            nodes, path = list(tree.nodes.values()), database_path(args.db_root, tree.question.db_id)
            queries = [node.generated_sql for node in nodes]
            verdicts = await executor.judge_all(path, queries, tree.question.sql)
            bar.update(len(nodes))
            return [
                finding
                for node, verdict in zip(nodes, verdicts, strict=True)
                for finding in check_verdict(node, verdict)
            ]

        return await asyncio.gather(*map(one, trees))


def main() -> int:
    args = parse_arguments()

    from eval.verify import check_counts, check_structure, summary
    from tree.manifest import Manifest

    stored, trees = load_trees(args.tree_file, args.db_root)
    manifest = Manifest(vars(args), {"tree_file": args.tree_file})

    findings = [check_structure(tree) for tree in trees]
    for tree, content, found in zip(trees, stored, findings, strict=True):
        if not found:  # distances mean nothing in a broken structure
            found += check_counts(tree, content)
    for found, more in zip(findings, asyncio.run(execute_again(trees, args)), strict=True):
        found += more

    result = summary(trees, [finding for found in findings for finding in found])
    write_json(
        args.output,
        {
            "manifest": manifest.ended(),
            "summary": result,
            "findings": [
                {"question_id": tree.question.question_id, "db_id": tree.question.db_id, **finding.to_json()}
                for tree, found in zip(trees, findings, strict=True)
                for finding in found
            ],
        },
    )
    print(
        f"verification {result['result']}: {result['trees']} trees ({result['good']} good, {result['bad']} bad), "
        f"{result['nodes']} nodes executed again, {result['errors']} errors, "
        f"{result['limit_differences']} differences at limits; report: {Path(args.output)}"
    )
    for tree, found in zip(trees, findings, strict=True):
        for finding in [finding for finding in found if not finding.limit][:3]:
            print(
                f"  question {tree.question.question_id} {finding.node} {finding.what}: stored {finding.stored!r}, "
                f"found {finding.found!r}"
            )
    return 1 if result["errors"] else 0


if __name__ == "__main__":
    run_script(main)
