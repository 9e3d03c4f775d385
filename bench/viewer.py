"""How long the tree viewer takes to open in headless Chromium, and how large its pages are.

    python -m bench.viewer                                          # trees made of the bundled demo
    python -m bench.viewer --tree_file output/tree_dataset/part0/20260101_120000/all_trees.json

Without --tree_file, each question of --data gets a tree of mutated gold queries, really executed, under its real
prompt. The trees are repeated under new ids up to each number of --trees; the copies of a tree stand too far apart for
the compression to see. Each page is opened by a fresh browser: time from the start of navigation to the first
content on the screen, and to the list and overview drawn; then the tree in the middle is opened.
"""

import argparse
import asyncio
import contextlib
import os
import random
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median

from bench.sql_execution import MUTATIONS
from common.files import InputError, read_json, run_script
from common.preference import PreferencePair
from eval.viewer import write_viewer
from tree.pairs.extraction import PairSettings, extract_pairs
from tree.questions import load_questions
from tree.replies import Reply
from tree.run.preflight import find_values, read_schemas
from tree.run.work_list import WorkList
from tree.sql_utils import Executor, check_database, database_path
from tree.tree_builder import TreeSettings, grow
from tree.tree_files import GROW_FIRST
from tree.tree_node import Question, tree_from_json, tree_to_json

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--hide-scrollbars"),
)
GROWTH = {"max_depth": 3, "num_roots": 6, "sample_num": 2, "max_nodes": 18, "redraws": 1, "revision": "chat"}
# seconds since the start of navigation; "drawn" is set by the page
TIMES = """
return [performance.getEntriesByName("first-contentful-paint"), performance.getEntriesByName("drawn")]
    .map((entries) => entries.length ? entries[0].startTime / 1000 : null)
"""
OPEN_A_TREE = """
const done = arguments[arguments.length - 1], start = performance.now();
openTree(page.index.rows[Math.floor(page.index.rows.length / 2)])
    .then(() => requestAnimationFrame(() => setTimeout(() => done((performance.now() - start) / 1000))));
"""


def missing_browser() -> str:
    """What the browser needs and this machine lacks, "" when it is all there."""
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        return "no chromium with chromedriver (Debian: apt-get install chromium chromium-driver)"
    try:
        import selenium  # noqa: F401
    except ImportError:
        return "no selenium (pip install selenium)"
    return ""


@contextlib.contextmanager
def chromium(*flags: str) -> Iterator:
    """A fresh headless browser, driven by selenium. See `missing_browser`."""
    from selenium.webdriver import Chrome, ChromeOptions, ChromeService

    options = ChromeOptions()
    options.binary_location = shutil.which("chromium")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for flag in (*FLAGS, f"--user-data-dir={profile}", *flags):
            options.add_argument(flag)
        driver = Chrome(options, ChromeService(shutil.which("chromedriver")))
        try:
            yield driver
        finally:
            driver.quit()


# --- trees ------------------------------------------------------------------------------------------------------------


def mutated(gold: str, picks: random.Random) -> str:
    for mutate in picks.sample(MUTATIONS, picks.choice((1, 1, 2))):
        gold = mutate(gold)
    return gold


async def grown(question: Question, prompt: str, path: Path, executor: Executor) -> dict:
    """A tree as step 4.1 grows it, by "model" replies that are mutations of gold."""

    async def sample(messages, n: int, seed: int, revises: bool) -> list[Reply]:
        picks = random.Random(seed)
        queries = [mutated(question.sql, picks) for _ in range(n)]
        return [Reply(f"```sql\n{sql}\n```", len(sql) // 3) for sql in queries]

    async def judge(queries):
        return await executor.judge_all(path, queries, question.sql)

    return tree_to_json(await grow(question, prompt, TreeSettings(**GROWTH), sample, judge))


def make_trees(data: str, db_root: str) -> list[dict]:
    """A tree for each question."""
    work = WorkList(load_questions(data), data, db_root)
    for db_id in work.databases():
        check_database(database_path(db_root, db_id))
    read_schemas(work)
    find_values(work)

    async def all_of(executor: Executor) -> list[dict]:
        return await asyncio.gather(
            *(
                grown(question, work.prompt(question), database_path(db_root, question.db_id), executor)
                for question in work.questions
            )
        )

    with Executor(os.cpu_count() or 1) as executor:
        return asyncio.run(all_of(executor))


def repeated(trees: list[dict], count: int) -> Iterator[dict]:
    for number in range(count):
        yield {**trees[number % len(trees)], "question_id": number}


def some_pairs(trees: list[dict], count: int) -> Iterator[PreferencePair]:
    """The preference pairs of the repeated trees."""
    pairs = [extract_pairs(tree_from_json(tree), PairSettings()).pairs for tree in trees]
    for number in range(count):
        yield from (replace(pair, question_id=number) for pair in pairs[number % len(trees)])


# --- measuring --------------------------------------------------------------------------------------------------------


def measured(page: Path) -> tuple[float, float, float]:
    """Seconds to the first paint, to everything drawn, and to open a tree after that."""
    with chromium() as driver:
        driver.set_script_timeout(120)
        driver.get(page.as_uri())
        end = time.monotonic() + 120
        while None in (times := driver.execute_script(TIMES)):
            if time.monotonic() > end:
                raise InputError(f"{page}: not drawn after two minutes")
            time.sleep(0.05)
        return (*times, driver.execute_async_script(OPEN_A_TREE))


def parse_arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--tree_file", help="all_trees.json to measure with (default: trees made of --data)")
    add("--data", default="data/demo/train.json", help="questions to make trees of")
    add("--db_root", default="data/demo/train_databases", help="folder of their databases")
    add("--trees", type=int, nargs="+", default=[1000, 10_000], help="sizes of the pages")
    add("--rounds", type=int, default=3, help="how often each page is opened")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> None:
    args = parse_arguments(words)
    if lacking := missing_browser():
        raise InputError(lacking)
    if min(*args.trees, args.rounds) < 1:
        raise InputError("--trees and --rounds must be 1 or more")

    trees = read_json(args.tree_file, list, GROW_FIRST) if args.tree_file else make_trees(args.data, args.db_root)
    nodes = sum(len(tree["nodes"]) for tree in trees) / len(trees)
    prompt = sum(len(tree["node_initial"]["input_seq"]) for tree in trees) / len(trees)
    print(f"{len(trees)} distinct trees, {nodes:.1f} queries each, prompts of {prompt:.0f} characters")

    for count in args.trees:
        with tempfile.TemporaryDirectory() as folder:
            page, start = Path(folder) / "report.html", time.perf_counter()
            shown = write_viewer(page, repeated(trees, count), [], some_pairs(trees, count))
            seconds, size = time.perf_counter() - start, page.stat().st_size
            rounds = [measured(page) for _ in range(args.rounds)]
        print(
            f"{count} trees, {shown.pairs} pairs: written in {seconds:.1f} s, {size / 1e6:.2f} MB, "
            f"{size / count:.0f} bytes per tree"
        )
        for name, values in zip(("first paint", "drawn", "a tree opened"), zip(*rounds, strict=True), strict=True):
            print(f"  {name}: {', '.join(f'{value:.2f}' for value in values)} s")
        print(f"PROMISE viewer_first_paint_{count}_trees {median(drawn for _, drawn, _ in rounds):.3f} GOAL <= 3")


if __name__ == "__main__":
    run_script(main)
