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
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from common.files import InputError, check_writable, dump_json, replacing_together, run_script
from common.manifest import Manifest
from common.preference import iterate_pairs
from eval.verification_report import Verification, markdown_page, terminal_lines
from eval.verify import LIMITS, STOPPED, check_gold, check_tree, check_verdict
from eval.verify_pairs import REQUIRED, check_pairs, check_sides, stored_pairs
from eval.viewer import read_rewards, write_viewer
from tree.run.databases import check_unchanged, database_fingerprints
from tree.sql.cache import cache_folder
from tree.sql.results import Execution, Verdict
from tree.sql.table_info import left_out
from tree.sql_utils import Executor, SqlSettings, add_sql_flags, check_database, database_path, sql_settings
from tree.tree_files import Finding, StoredTree, run_arguments, stored_trees
from tree.tree_node import RevisionTree, tree_from_json

IN_FLIGHT = 8  # trees for each worker


@dataclass(frozen=True)
class VerifySettings:
    """What is verified against which databases, and the files that are written: the report, and the viewer `html`."""

    tree_files: list[str]
    db_root: str
    pair_files: list[str]
    output: Path
    html: str | None
    scores: str | None
    sql: SqlSettings

    @property
    def page(self) -> Path:
        """The Markdown page beside the report."""
        return self.output.with_suffix(".md")

    def trees(self) -> Iterator[StoredTree]:
        for path in self.tree_files:
            yield from stored_trees(path)


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
    return parser.parse_args(words)


def settings_of(args: argparse.Namespace) -> VerifySettings:
    """Raises InputError for flags that do not fit, and for files that would replace an input or cannot be written."""
    if args.scores and not args.html:
        raise InputError("--scores are shown in the viewer: name its file with --html")
    paths = args.tree_file, args.db_root, args.pairs, Path(args.output), args.html, args.scores
    settings = VerifySettings(*paths, sql_settings(args.sql_workers, args.sql_timeout))
    if settings.page == settings.output:
        raise InputError(f"--output {args.output}: the page beside the report has that name; use .json")
    given = Counter(Path(path).resolve() for path in (*args.tree_file, *args.pairs, args.scores) if path)
    written = [Path(path) for path in (settings.output, settings.page, args.html) if path]
    if twice := [path for path, count in given.items() if count > 1]:
        raise InputError(f"{twice[0]}: given twice")
    if replaced := [path for path in written if path.resolve() in given]:
        raise InputError(f"--output and --html: the report would take the place of {replaced[0]}")
    if len({path.resolve() for path in written}) < len(written):
        raise InputError(f"--html {args.html}: has the name of the report")
    check_writable(*written)
    return settings


# --- first pass: without executing ------------------------------------------------------------------------------------


@dataclass
class ToExecute:
    """The trees whose form is right, by their `source`, and what executing them takes.

    `databases` says of each which tree is the first to need it; `flagged` are those of trees that have flags; `nodes`
    counts the queries.
    """

    sources: set[str] = field(default_factory=set)
    databases: dict[str, str] = field(default_factory=dict)
    flagged: set[str] = field(default_factory=set)
    nodes: int = 0

    def add(self, stored: StoredTree, tree: RevisionTree) -> None:
        db_id = tree.question.db_id
        self.sources.add(stored.source)
        self.nodes += len(tree.nodes)
        self.databases.setdefault(db_id, stored.source)
        if any("flags" in node for node in stored.content["nodes"].values()):
            self.flagged.add(db_id)

    def check_databases(self, db_root: str) -> None:
        """Raise InputError for one that is missing or cannot be read, naming a tree that needs it."""
        for db_id, source in sorted(self.databases.items()):
            try:
                check_database(database_path(db_root, db_id))
            except InputError as error:
                raise InputError(f"{source}: {error}") from None


def check_stored(settings: VerifySettings, verification: Verification) -> ToExecute:
    """Add what shows in trees and pairs without a database; returns what is to be executed."""
    from tqdm import tqdm

    pairs, to_execute = stored_pairs(settings.pair_files), ToExecute()
    first: dict[int, str] = {}  # the tree of each question
    verification.counts["pairs"] = pairs.count
    for stored in tqdm(settings.trees(), desc="checking trees", unit="tree"):
        checked = check_tree(stored.content)
        question_id, db_id = (stored.content.get(name) for name in ("question_id", "db_id"))
        verification.count_tree(checked.tree)
        verification.add(checked.findings, stored.source, question_id, db_id)
        if checked.tree is None:
            continue
        if (other := first.setdefault(question_id, stored.source)) != stored.source:
            duplicated = Finding("", "question_id", question_id, f"the same as of {other}")
            verification.add([duplicated], stored.source, question_id, db_id)
        for row, finding in check_pairs(pairs.waiting.pop(question_id, ()), checked, pairs.rules):
            verification.add([finding], row.source, row.pair.question_id, row.pair.db_id)
        to_execute.add(stored, checked.tree)
    for row in (row for rows in pairs.waiting.values() for row in rows):
        missing = Finding(row.nodes, "tree", row.pair.tree_id, "in none of the tree files, or unreadable there")
        verification.add([missing], row.source, row.pair.question_id, row.pair.db_id)
    for db_id, finding in check_sides(pairs):
        verification.add([finding], finding.stored, None, db_id)
    return to_execute


# --- second pass: executing -------------------------------------------------------------------------------------------


async def execute_again(settings: VerifySettings, to_execute: ToExecute, verification: Verification) -> None:
    """Run gold and every node's SQL, and add what differs.

    Nothing is taken from the gold results on disk: what they say is what is being verified.
    """
    from tqdm import tqdm

    empty_allowed = {path: run_arguments(path).get("keep_empty_gold") is True for path in settings.tree_files}
    trees = (stored for stored in settings.trees() if stored.source in to_execute.sources)
    with (
        Executor(settings.sql.workers, settings.sql.timeout, perturbed=cache_folder("perturbed")) as executor,
        tqdm(total=to_execute.nodes, desc="executing nodes", unit="node") as bar,
    ):
        with_instances = await prepare_instances(executor, settings.db_root, to_execute.flagged)

        async def verifier() -> None:
            for stored in trees:
                tree = tree_from_json(stored.content)
                question = tree.question
                database = database_path(settings.db_root, question.db_id)
                verdicts = await judge_nodes(executor, database, tree)
                found = list(check_gold(await gold_of(executor, database, tree, verdicts), empty_allowed[stored.file]))
                for node_id, verdict in verdicts.items():
                    node, content = tree.nodes[node_id], stored.content["nodes"][node_id]
                    found += check_verdict(node, content, verdict, question.db_id in with_instances)
                verification.add(found, stored.source, question.question_id, question.db_id)
                verification.counts.update(nodes_executed=len(verdicts), gold_executed=1)
                bar.update(len(verdicts))

        # not a task group: that would hide an InputError among others
        await asyncio.gather(*(verifier() for _ in range(IN_FLIGHT * settings.sql.workers)))


async def prepare_instances(executor: Executor, db_root: str, db_ids: set[str]) -> set[str]:
    """Make the perturbed instances of databases; returns those that have them, and names the others."""
    names = sorted(db_ids)
    results = await asyncio.gather(*(executor.prepare(database_path(db_root, db_id)) for db_id in names))
    for db_id, (reason, problems) in zip(names, results, strict=True):
        for (table, column), why in problems.items():
            print(left_out(db_id, table, column, why))
        if reason:
            print(f"warning: no perturbed instances of {db_id}, so 'fragile' is not checked on it: {reason}")
    return {db_id for db_id, (reason, _) in zip(names, results, strict=True) if not reason}


async def judge_nodes(executor: Executor, database: Path, tree: RevisionTree) -> dict[str, Verdict]:
    """The verdict on every node of a tree, by id: in one task, but for those that were stopped, each in its own."""
    stopped = [node for node in tree.nodes.values() if node.outcome in LIMITS]
    others = [node for node in tree.nodes.values() if node.outcome not in LIMITS]
    gold, sqls = tree.question.sql, [node.generated_sql for node in others]
    verdicts = await executor.judge_all(database, sqls, gold) if others else []
    verdicts += await asyncio.gather(*(executor.judge(database, node.generated_sql, gold) for node in stopped))
    return {node.node_id: verdict for node, verdict in zip([*others, *stopped], verdicts, strict=True)}


async def gold_of(executor: Executor, database: Path, tree: RevisionTree, verdicts: dict[str, Verdict]) -> Execution:
    """What executing gold gave beside a node, or gives by itself when no node's verdict tells."""
    beside = [verdict.gold for verdict in verdicts.values() if verdict.execution.outcome not in STOPPED]
    return beside[0] if beside else await executor.run_gold(database, tree.question.sql)


# --- the whole --------------------------------------------------------------------------------------------------------


def write_report(settings: VerifySettings, verification: Verification, manifest: dict) -> None:
    report = verification.report(manifest)
    with replacing_together(settings.output, settings.page) as (report_file, page_file):
        dump_json(report_file, report)
        page_file.write(markdown_page(report))
    print("\n".join(terminal_lines(verification, str(settings.output))))


def write_html(settings: VerifySettings, sources: set[str], verification: Verification, rewards: list | None) -> None:
    """Write the viewer of the trees whose form is right."""
    trees = (stored.content for stored in settings.trees() if stored.source in sources)
    pairs = (pair for path in settings.pair_files for pair in iterate_pairs(path, REQUIRED))
    findings = [
        *({**finding, "limit": False} for finding in verification.findings),
        *({**finding, "limit": True} for finding in verification.limit_differences),
    ]
    counts = write_viewer(settings.html, trees, findings, pairs, rewards, source=", ".join(settings.tree_files))
    rewarded = f", {counts.rewarded_nodes} rewards" if rewards is not None else ""
    print(f"viewer: {settings.html} ({counts.trees} trees, {counts.pairs} pairs{rewarded})")
    if counts.example:
        print(f"a wrong query and its right revision: {settings.html}{counts.example}")


def main(words: list[str] | None = None) -> int:
    args = parse_arguments(words)
    settings = settings_of(args)
    rewards = read_rewards(settings.scores) if settings.scores else None
    verification = Verification()
    to_execute = check_stored(settings, verification)
    to_execute.check_databases(settings.db_root)
    databases = database_fingerprints(settings.db_root, to_execute.databases)
    inputs = {path: path for path in (*settings.tree_files, *settings.pair_files)}
    manifest = Manifest(vars(args), inputs, databases=databases)
    asyncio.run(execute_again(settings, to_execute, verification))
    check_unchanged(settings.db_root, databases, "verify again")
    write_report(settings, verification, manifest.ended())
    if settings.html:
        write_html(settings, to_execute.sources, verification, rewards)
    return 1 if verification.errors else 0


if __name__ == "__main__":
    run_script(main)
