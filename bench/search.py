"""What search by reward is worth beside choosing among independent drafts, query by query and token by token.

    python -m tree.search --num_roots 24 --budget 24 --output_dir output/best_of_24
    python -m tree.search --output_dir output/search
    python -m bench.search --best_of output/best_of_24/candidates.json --search output/search/candidates.json

The answer is chosen after the first k queries of each question (all, where fewer were drawn), in the order in which
they were drawn, by each rule of `evaluate.py`; `oracle` is the share of questions with a right query among them. All
distinct queries are executed and compared with gold once. Printed are the execution accuracy (EX) with the mean number
of tokens that were generated up to there, and each search minus the drafts: after as many queries, and after as many
drafts as took about as many tokens. Intervals are 95 %, over questions. Questions that some run skipped are left out,
and the settings in which a search differs from the drafts are named.

The promises are lower ends of intervals: after as many queries, for the rule that `tree.search` answers by.
"""

import argparse
import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.files import InputError, read_json, run_script
from common.manifest import differences, run_of
from common.rows import fit_row, iterate_rows
from common.tables import aligned
from eval.best_of_n import CHOICES, WITH_REWARD, WITHOUT_REWARD, Candidates, accuracy
from eval.candidates import NO_QUERY, CandidatePool, PoolResults, as_candidates, execute
from eval.evaluation_report import interval
from eval.intervals import DIFFERENCE, Clusters, Estimate
from tree.questions import load_questions
from tree.search import FACTS, MAY_DIFFER
from tree.sql_utils import add_sql_flags, check_database, database_path, sql_settings
from tree.tree_node import Question

SIZES = (4, 8, 16, 24)  # queries of a question after which the answer is chosen
PROMISED = (16, 24)
RULES = {name: (WITH_REWARD | WITHOUT_REWARD)[name] for name in (*CHOICES, "oracle")}
COLUMNS = {"question_id": int, "db_id": str, "question": str, "search": list}
NODE = {"d": int, "generated_sql": str, "reward": (float | int, NO_QUERY), "tokens": int}


# --- runs -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Draw:
    """A query of a run ("" for a reply without one); whether it revises another, its reward, the tokens it took."""

    sql: str
    revises: bool
    reward: float
    tokens: int


Draws = dict[int, list[Draw]]  # question id -> what a run drew, in the order in which it did


def read_run(path: str, questions: dict[int, Question]) -> Draws:
    """What a run drew. Raises InputError naming the row that does not fit, also to the questions with gold."""
    found: Draws = {}
    for number, row in enumerate(iterate_rows(path, COLUMNS, "give the candidates.json of `python -m tree.search`")):
        where = f"{path}: row {number}"
        question = questions.get(row["question_id"])
        if question is None or (question.db_id, question.question) != (row["db_id"], row["question"]):
            raise InputError(f"{where}: question_id {row['question_id']} is another question, or none, in --data")
        nodes = [fit_row(f"{where}: search", place, node, NODE) for place, node in enumerate(row["search"])]
        found[question.question_id] = [
            Draw(node["generated_sql"], node["d"] > 1, node["reward"], node["tokens"]) for node in nodes
        ]
    return found


def name_of(path: str) -> str:
    """What a run is called: as its folder, or as the file where that was renamed."""
    file = Path(path).resolve()
    return file.parent.name if file.name == "candidates.json" else file.stem


def check_names(paths: Sequence[str]) -> None:
    """Raise InputError when two runs are called the same."""
    names = list(map(name_of, paths))
    if repeated := [path for path, name in zip(paths, names, strict=True) if names.count(name) > 1]:
        raise InputError(f"{' and '.join(repeated)}: give runs in folders of different names")


def how_they_differ(best_of: str, search: str) -> str:
    """A line: in what the run of a search differs from that of the drafts, by the manifests beside the files.

    Raises InputError for a manifest of something else.
    """
    manifests = [Path(path).with_name("manifest.json") for path in (best_of, search)]
    if missing := [str(path) for path in manifests if not path.exists()]:
        return f"{name_of(search)}: {missing[0]} is not there; compare runs of one generator and one reward model only"
    contents = [read_json(path, dict) for path in manifests]
    try:
        found = differences(*(run_of(content, MAY_DIFFER, FACTS) for content in contents))
    except (KeyError, TypeError, AttributeError):
        raise InputError(f"{' or '.join(map(str, manifests))}: not the manifest of a search; take it away") from None
    return f"{name_of(search)} differs from {name_of(best_of)} in {', '.join(found) or 'nothing'}"


def check_drafts(path: str, drafts: Draws) -> None:
    """Raise InputError unless there are drafts only, enough of each question."""
    if any(draw.revises for draws in drafts.values() for draw in draws):
        raise InputError(f"--best_of {path}: holds revisions; give a run with as many --num_roots as --budget")
    fewest = min(map(len, drafts.values()), default=0)
    if fewest < min(SIZES):
        raise InputError(f"--best_of {path}: a question has {fewest} drafts; give a run with {min(SIZES)} or more")


def in_every_run(runs: dict[str, Draws]) -> list[int]:
    """The ids of the questions that no run lacks. Raises InputError when there are too few for intervals."""
    shared = sorted(set.intersection(*map(set, runs.values())))
    for path, draws in runs.items():
        if len(draws) > len(shared):
            print(f"left out: {len(draws) - len(shared)} questions of {path} that another run lacks")
    if len(shared) < 2:
        raise InputError(f"{len(shared)} questions are in every file; give runs of the same questions, 2 or more")
    return shared


# --- accuracy ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """What a run drew for each question, judged, and the tokens that each query took."""

    name: str
    candidates: list[Candidates]
    tokens: list[list[int]]

    def queries_after(self, size: int) -> float:
        """The mean number of queries among the first `size`."""
        return float(np.mean([len(tokens[:size]) for tokens in self.tokens]))

    def tokens_after(self, size: int) -> float:
        """The mean number of tokens of the first `size` queries."""
        return float(np.mean([sum(tokens[:size]) for tokens in self.tokens]))

    def hits(self, rule: str, size: int) -> np.ndarray:
        """[questions]: the chance that what a rule chooses of the first `size` queries is right."""
        first = (known.take(np.arange(min(size, len(known)))) for known in self.candidates)
        return np.array([accuracy(known, RULES[rule], size) for known in first])


def pool_of(question: Question, draws: Sequence[Draw]) -> CandidatePool:
    return CandidatePool(question, "", [draw.sql for draw in draws])


def judged_candidates(question: Question, draws: Sequence[Draw], executed: PoolResults) -> Candidates:
    pool = pool_of(question, draws)
    return as_candidates(pool, executed, {(pool.conversation, draw.sql): draw.reward for draw in draws})


def judged_runs(questions: Sequence[Question], runs: dict[str, Draws], executed: Sequence[PoolResults]) -> list[Run]:
    """The runs, over the questions whose gold ran."""
    pairs = [(question, results) for question, results in zip(questions, executed, strict=True) if results.judged]
    if left_out := len(questions) - len(pairs):
        print(f"left out: {left_out} questions whose gold does not run")
    return [
        Run(
            name=name_of(path),
            candidates=[judged_candidates(one, draws[one.question_id], results) for one, results in pairs],
            tokens=[[draw.tokens for draw in draws[one.question_id]] for one, _ in pairs],
        )
        for path, draws in runs.items()
    ]


def drafts_of_as_many_tokens(drafts: Run, tokens: float) -> int:
    """How many drafts of each question took about so many tokens."""
    most = max(map(len, drafts.tokens))
    return min(range(1, most + 1), key=lambda size: abs(drafts.tokens_after(size) - tokens))


# --- tables -----------------------------------------------------------------------------------------------------------


def curve(run: Run, sizes: Sequence[int]) -> list[str]:
    """Lines: EX after so many queries."""
    questions = Clusters(range(len(run.candidates)))
    rows = [["k", "queries", "tokens", *RULES]]
    for size in sizes:
        cells = [interval(questions.mean(run.hits(rule, size)).to_json()) for rule in RULES]
        rows.append([size, f"{run.queries_after(size):.1f}", f"{run.tokens_after(size):.0f}", *cells])
    return ["", f"{run.name}: EX [95 %] after the first k queries", *aligned(rows)]


def minus(search: Run, size: int, drafts: Run, others: int, rule: str) -> Estimate:
    """EX of a search after `size` queries minus that of `others` drafts, paired."""
    differences = search.hits(rule, size) - drafts.hits(rule, others)
    return Clusters(range(len(differences))).mean(differences, within=DIFFERENCE)


def comparison(search: Run, drafts: Run, sizes: Sequence[int]) -> list[str]:
    """Lines: a search minus the drafts, after as many queries and after as many tokens."""
    lines = []
    as_many = {"queries": list(sizes)}
    as_many["tokens"] = [drafts_of_as_many_tokens(drafts, search.tokens_after(size)) for size in sizes]
    for what, counts in as_many.items():
        rows = [["k", "tokens", "drafts", "their tokens", *RULES]]
        for size, others in zip(sizes, counts, strict=True):
            tokens = f"{search.tokens_after(size):.0f}", others, f"{drafts.tokens_after(others):.0f}"
            cells = [interval(minus(search, size, drafts, others, rule).to_json()) for rule in RULES]
            rows.append([size, *tokens, *cells])
        lines += ["", f"{search.name} minus {drafts.name} [95 %], after as many {what}", *aligned(rows)]
    return lines


def promises(search: Run, drafts: Run, sizes: Sequence[int]) -> list[str]:
    name = re.sub(r"\W", "_", search.name)
    lows = {size: minus(search, size, drafts, size, CHOICES[0]).low for size in PROMISED if size in sizes}
    return [f"PROMISE {name}_minus_best_of_{size} {low:.3f} GOAL > 0" for size, low in lows.items()]


# --- the measurement --------------------------------------------------------------------------------------------------


def parse_arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--best_of", required=True, help="candidates.json of a run that drew drafts only")
    add("--search", required=True, nargs="+", help="candidates.json of searches for the same questions")
    add("--data", default="data/dev/dev.json", help="the questions with gold")
    add("--db_root", default="data/dev/dev_databases", help="folder of their databases")
    add_sql_flags(add, "one per core")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> None:
    args = parse_arguments(words)
    sql = sql_settings(args.sql_workers, args.sql_timeout)
    check_names([args.best_of, *args.search])
    known = {question.question_id: question for question in load_questions(args.data)}
    runs = {path: read_run(path, known) for path in (args.best_of, *args.search)}
    check_drafts(args.best_of, runs[args.best_of])
    print("\n".join(how_they_differ(args.best_of, path) for path in args.search))
    questions = [known[question_id] for question_id in in_every_run(runs)]
    for db_id in sorted({question.db_id for question in questions}):
        check_database(database_path(args.db_root, db_id))

    pools = [
        pool_of(question, [draw for draws in runs.values() for draw in draws[question.question_id]])
        for question in questions
    ]
    executed = asyncio.run(execute(pools, args.db_root, sql))
    drafts, *searches = judged_runs(questions, runs, executed)
    if len(drafts.candidates) < 2:
        raise InputError(f"{args.data}: gold of fewer than 2 of the questions runs")

    sizes = [size for size in SIZES if size <= min(map(len, drafts.tokens))]
    lines = [f"{len(drafts.candidates)} questions with gold that runs"]
    for run in (drafts, *searches):
        lines += curve(run, sizes)
    for search in searches:
        lines += comparison(search, drafts, sizes)
    print("\n".join([*lines, "", *(line for search in searches for line in promises(search, drafts, sizes))]))


if __name__ == "__main__":
    run_script(main)
