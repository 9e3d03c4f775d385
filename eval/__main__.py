"""Verify revision trees (step 7): structure, distances, and every node's SQL executed again.

    python -m eval --tree_file output/tree_dataset/part0/20260101_120000/all_trees.json \\
        --db_root data/train/train_databases --output verification_report.json

With the pairs that were made from them; the trees of all shards are then needed:

    python -m eval --tree_file output/tree_dataset/part*/*/all_trees.json --db_root data/train/train_databases \\
        --pairs final_data_train.json final_data_test.json

Writes the report, with every finding, and a page of Markdown of the same name; with --html also the tree viewer, one
page for the browser. Exit code 0 when everything holds, 1 when something does not, 2 when it cannot run.
"""

import argparse
import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from common.files import InputError, check_writable, run_script
from common.rows import iterate_json
from tree.sql_utils import add_sql_flags, sql_settings

IN_FLIGHT = 8  # trees for each worker
GROW_FIRST = "grow trees first: bash tree/run_parallel.sh"


def parse_arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m eval", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--tree_file", required=True, nargs="+", help="all_trees.json of step 4.1, one or more")
    add("--db_root", default="data/train/train_databases", help="folder of the databases")
    add("--pairs", nargs="+", default=[], help="pair files of step 4.2; no database may be in two of them")
    add("--output", default="verification_report.json", help="report to write")
    add("--html", help="tree viewer to write: one page that opens in any browser, without network")
    add("--scores", help="evaluation_report.json of evaluate.py --candidates, whose rewards the viewer shows")
    add_sql_flags(add, "one per core")
    args = parser.parse_args(words)
    sql_settings(args)
    if args.scores and not args.html:
        raise InputError("--scores are shown in the viewer: name its file with --html")
    return args


def check_files(args: argparse.Namespace) -> Path:
    """The Markdown page beside the report. Raises InputError when it would replace an input, or one is given twice."""
    page = Path(args.output).with_suffix(".md")
    if page == Path(args.output):
        raise InputError(f"--output {args.output}: the page beside the report has that name; use .json")
    given = Counter(Path(path).resolve() for path in (*args.tree_file, *args.pairs, *filter(None, [args.scores])))
    written = [Path(path) for path in (args.output, page, args.html) if path]
    if twice := [path for path, count in given.items() if count > 1]:
        raise InputError(f"{twice[0]}: given twice")
    if lost := [path for path in written if path.resolve() in given]:
        raise InputError(f"--output and --html: the report would take the place of {lost[0]}")
    if len({path.resolve() for path in written}) < len(written):
        raise InputError(f"--html {args.html}: has the name of the report")
    check_writable(*written)
    return page


# --- first pass: without executing ------------------------------------------------------------------------------------


@dataclass
class Readable:
    """The trees that can be read, by file and number, and what executing them takes.

    `databases` says for each one where it is first needed; `nodes` counts those to execute.
    """

    places: set[tuple[str, int]] = field(default_factory=set)
    databases: dict[str, str] = field(default_factory=dict)
    flagged: set[str] = field(default_factory=set)  # databases of trees that have flags
    nodes: int = 0


def stored_trees(paths: Sequence[str]) -> Iterator[tuple[str, int, dict]]:
    """(file, number in it, stored object) of every tree, one in memory at a time. Raises InputError for others."""
    from tree.tree_files import is_tree

    for path in paths:
        number = -1
        for number, content in enumerate(iterate_json(path, GROW_FIRST)):
            if not is_tree(content):
                raise InputError(f"{path}: tree {number}: not a revision tree (it has no 'nodes'); {GROW_FIRST}")
            yield path, number, content
        if number < 0:
            raise InputError(f"{path}: an empty list, no tree to verify")


def place_of(path: str, number: int) -> str:
    return f"{path}: tree {number}"


def check_stored(args: argparse.Namespace, verification) -> Readable:
    """Everything that can be seen without a database, in trees and pairs. Raises InputError for a missing database."""
    from tqdm import tqdm

    from eval.verify import check_tree
    from eval.verify_pairs import check_pairs, check_sides, read_pairs
    from tree.sql_utils import check_database, database_path
    from tree.tree_files import Finding

    pairs, readable, first = read_pairs(args.pairs), Readable(), {}
    verification.counts["pairs"] = pairs.count
    for path, number, content in tqdm(stored_trees(args.tree_file), desc="checking trees", unit="tree", mininterval=1):
        place, checked = place_of(path, number), check_tree(content)
        question = content.get("question_id"), content.get("db_id")
        verification.count_tree(checked.tree)
        for finding in checked.findings:
            verification.add(finding, place, *question)
        if checked.tree is None:
            continue
        if (other := first.setdefault(question[0], place)) != place:
            verification.add(Finding("", "question_id", question[0], f"the same as of {other}"), place, *question)
        for row, finding in check_pairs(pairs.waiting.pop(question[0], ()), checked, pairs.rules):
            verification.add(finding, row.source, row.question_id, row.db_id)
        readable.places.add((path, number))
        readable.nodes += len(checked.tree.nodes)
        readable.databases.setdefault(question[1], place)
        if any("flags" in node for node in content["nodes"].values()):
            readable.flagged.add(question[1])
    for row in (row for rows in pairs.waiting.values() for row in rows):
        missing = Finding(row.nodes, "tree", row.tree_id, "in none of the tree files, or unreadable there")
        verification.add(missing, row.source, row.question_id, row.db_id)
    for db_id, finding in check_sides(pairs):
        verification.add(finding, finding.stored, None, db_id)
    for db_id, place in sorted(readable.databases.items()):
        try:
            check_database(database_path(args.db_root, db_id))
        except InputError as error:
            raise InputError(f"{place}: {error}") from None
    return readable


# --- second pass: executing -------------------------------------------------------------------------------------------


async def execute_again(args: argparse.Namespace, readable: Readable, verification) -> None:
    """Run gold and every node's SQL of the readable trees, and add what differs.

    Nothing is taken from the gold results on disk: what they say is what is being verified.
    """
    from tqdm import tqdm

    from eval.verify import LOST, check_gold, check_verdict
    from tree.sql.cache import cache_folder
    from tree.sql_utils import Executor, database_path, sql_settings
    from tree.tree_files import run_arguments
    from tree.tree_node import tree_from_json

    sql = sql_settings(args)
    empty_allowed = {path: run_arguments(path).get("keep_empty_gold") is True for path in args.tree_file}
    trees = (tree for tree in stored_trees(args.tree_file) if tree[:2] in readable.places)
    with (
        Executor(sql.workers, sql.timeout, perturbed=cache_folder("perturbed")) as executor,
        tqdm(total=readable.nodes, desc="executing nodes", unit="node", mininterval=1) as bar,
    ):
        with_instances = await prepare_instances(executor, args.db_root, readable.flagged)

        async def one(path: str, number: int, content: dict) -> None:
            tree = tree_from_json(content)
            question, database = tree.question, database_path(args.db_root, tree.question.db_id)
            verdicts = await judge_nodes(executor, database, tree)
            golds = (verdict.gold for verdict in verdicts.values() if verdict.execution.outcome not in LOST)
            gold = next(golds, None) or await executor.run_gold(database, question.sql)
            found = list(check_gold(gold, empty_allowed[path]))
            for node_id, verdict in verdicts.items():
                stored = content["nodes"][node_id]
                found += check_verdict(tree.nodes[node_id], stored, verdict, question.db_id in with_instances)
            for finding in found:
                verification.add(finding, place_of(path, number), question.question_id, question.db_id)
            verification.counts["nodes_executed"] += len(verdicts)
            verification.counts["gold_executed"] += 1
            bar.update(len(verdicts))

        async def verifier() -> None:
            for tree in trees:
                await one(*tree)

        # not a task group: that would hide an InputError among others
        await asyncio.gather(*(verifier() for _ in range(IN_FLIGHT * sql.workers)))


async def prepare_instances(executor, db_root: str, db_ids: set[str]) -> set[str]:
    """Make the perturbed instances of databases; returns those that have them, and names the others."""
    from tree.sql.table_info import left_out
    from tree.sql_utils import database_path

    names = sorted(db_ids)
    results = await asyncio.gather(*(executor.prepare(database_path(db_root, db_id)) for db_id in names))
    for db_id, (_, problems) in zip(names, results, strict=True):
        for (table, column), why in problems.items():
            print(left_out(db_id, table, column, why))
    reasons = [reason for reason, _ in results]
    for db_id, reason in zip(names, reasons, strict=True):
        if reason:
            print(f"warning: no perturbed instances of {db_id}, so 'fragile' is not checked on it: {reason}")
    return {db_id for db_id, reason in zip(names, reasons, strict=True) if not reason}


async def judge_nodes(executor, database: Path, tree) -> dict:
    """The verdict on every node of a tree, by id: in one task, but for those that were stopped, each in its own."""
    from eval.verify import LIMITS

    stopped = [node for node in tree.nodes.values() if node.outcome in LIMITS]
    others = [node for node in tree.nodes.values() if node.outcome not in LIMITS]
    gold, sqls = tree.question.sql, [node.generated_sql for node in others]
    verdicts = await executor.judge_all(database, sqls, gold) if others else []
    verdicts += await asyncio.gather(*(executor.judge(database, node.generated_sql, gold) for node in stopped))
    return {node.node_id: verdict for node, verdict in zip([*others, *stopped], verdicts, strict=True)}


# --- the viewer -------------------------------------------------------------------------------------------------------


def write_page(args: argparse.Namespace, readable: Readable, verification, pairs: list, rewards: list | None) -> str:
    """Write the viewer of the readable trees; returns a line about it."""
    from eval.viewer import write_viewer

    trees = (content for path, number, content in stored_trees(args.tree_file) if (path, number) in readable.places)
    findings = [
        {**finding, "limit": limit}
        for limit, part in ((False, verification.findings), (True, verification.limit_differences))
        for finding in part
    ]
    shown = write_viewer(args.html, trees, findings, pairs, rewards, source=", ".join(args.tree_file))
    rewarded = f", {shown.rewarded_nodes} rewards" if args.scores else ""
    return f"viewer: {args.html} ({shown.trees} trees, {shown.pairs} pairs{rewarded})"


# --- the whole --------------------------------------------------------------------------------------------------------


def main(words: list[str] | None = None) -> int:
    args = parse_arguments(words)
    page = check_files(args)

    from common.files import dump_json, replacing_together
    from common.manifest import Manifest
    from eval.verification_report import Verification, markdown_page, terminal_lines
    from eval.viewer import read_pairs, read_rewards
    from tree.run.databases import check_unchanged, database_fingerprints

    pairs = [row for path in args.pairs for row in read_pairs(path)] if args.html else []
    rewards = read_rewards(args.scores) if args.scores else None
    verification = Verification()
    readable = check_stored(args, verification)
    databases = database_fingerprints(args.db_root, readable.databases)
    manifest = Manifest(vars(args), {path: path for path in (*args.tree_file, *args.pairs)}, databases=databases)
    asyncio.run(execute_again(args, readable, verification))
    check_unchanged(args.db_root, databases, "verify again")

    report = verification.report(manifest.ended())
    with replacing_together(args.output, page) as (report_file, page_file):
        dump_json(report_file, report)
        page_file.write(markdown_page(report))
    print("\n".join(terminal_lines(verification, args.output)))
    if args.html:
        print(write_page(args, readable, verification, pairs, rewards))
    return 1 if verification.errors else 0


if __name__ == "__main__":
    run_script(main)
