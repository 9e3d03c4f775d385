"""The questions of a run before any engine starts: which are worked on, which are not and why, how long prompts are."""

import argparse
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import groupby

from common.files import InputError
from tree.prompts import chat, task_prompt
from tree.questions import estimated_cost, limited, load_questions, shards
from tree.run.prompt_settings import PromptSettings
from tree.schema.read import Table
from tree.schema.values import Match, value_lines
from tree.schema.write import FULL, Shortening, likely_tables, schema_text, shorten
from tree.sql.table_info import Problems, left_out
from tree.tree_node import Question

SLOW_GOLD = 5.0  # seconds from which a gold query is listed
BINS = 10  # of the prompt-length histogram
BAR = 40  # characters
UNMATCHED_SHOWN = 5  # names in a warning


@dataclass
class Work:
    """The questions to work on, what their prompts are made of, and the questions left out with the reason.

    `schemas` are the databases' tables, `values` the lines about stored values that match a question, `shortened` what
    a question's schema lacks for its prompt to fit; `fingerprints` say what the databases of all shards hold.
    """

    questions: list[Question]
    settings: PromptSettings = PromptSettings()
    schemas: dict[str, tuple[Table, ...]] = field(default_factory=dict)
    values: dict[int, list[Match]] = field(default_factory=dict)
    shortened: dict[int, Shortening] = field(default_factory=dict)
    fingerprints: dict[str, str] = field(default_factory=dict)
    skipped: list[dict] = field(default_factory=list)
    reported: int = 0
    unread: set[tuple[str, str, str]] = field(default_factory=set)  # (database, table, column), named already

    def __post_init__(self):
        # shared by the questions of a database; few are in use at a time
        self._schema_text = lru_cache(maxsize=64)(
            lambda db_id, shortening: schema_text(self.schemas[db_id], self.settings.schema_format, shortening)
        )

    def prompt(self, question: Question, shortening: Shortening | None = None) -> str:
        """The initial task of a question, with its own shortening or another.

        Made from the database, the question and the evidence; made when asked for, so that no schema is held once per
        question.
        """
        number = question.question_id
        schema = self._schema_text(question.db_id, shortening or self.shortened.get(number, FULL))
        values = value_lines(self.values.get(number, ()))
        text = task_prompt(schema, question.question, question.evidence, values)
        # bytes that are not UTF-8 cannot be tokenized or stored as JSON, so they are shown escaped
        return text.encode("utf-8", "backslashreplace").decode()

    def skip(self, reasons: dict[int, str]) -> None:
        """Leave out questions, by id, with the reason."""
        for question in self.questions:
            if reason := reasons.get(question.question_id):
                entry = {"question_id": question.question_id, "db_id": question.db_id, "reason": reason}
                self.skipped.append(entry)
        self.questions = [question for question in self.questions if question.question_id not in reasons]

    def leave_out(self, db_id: str, problems: Problems) -> None:
        """Name what of a database cannot be read, once each, however many steps come upon it."""
        for (table, column), why in problems.items():
            if not {(db_id, table, ""), (db_id, table, column)} & self.unread:
                self.unread.add((db_id, table, column))
                print(left_out(db_id, table, column, why))

    def databases(self) -> list[str]:
        """The databases in use, each once."""
        return sorted({question.db_id for question in self.questions})

    def report(self, nothing_left: str) -> None:
        """Print what was skipped since the last report. Raises InputError when no question is left."""
        for entry in self.skipped[self.reported :]:
            print(f"skipped question {entry['question_id']} ({entry['db_id']}): {entry['reason']}")
        self.reported = len(self.skipped)
        if not self.questions:
            raise InputError(nothing_left)


def select(args: argparse.Namespace) -> tuple[Work, list[str]]:
    """The questions of this shard, their databases checked, and a line about each shard of the run."""
    from tree.run.databases import database_fingerprints
    from tree.sql_utils import check_database, database_path

    questions = load_questions(args.data, with_gold=not args.no_gold)
    if args.limit:
        questions = limited(questions, args.limit)
    db_ids = sorted({question.db_id for question in questions})
    for db_id in db_ids:
        check_database(database_path(args.db_root, db_id))
    parts = shards(questions, args.num_shards)
    if not parts[args.shard_id]:
        raise InputError(f"shard {args.shard_id} of {args.num_shards} has no questions; use fewer shards")
    settings = PromptSettings(args.schema_format, args.no_values, args.max_prompt_tokens)
    fingerprints = database_fingerprints(args.db_root, db_ids)
    return Work(parts[args.shard_id], settings, fingerprints=fingerprints), balance(parts)


def balance(parts: Sequence[Sequence[Question]]) -> list[str]:
    """A line for each shard: questions, databases, and its estimated cost as a share of the mean."""
    costs = [sum(map(estimated_cost, part)) for part in parts]
    mean = sum(costs) / len(costs)
    return [
        f"shard {number}: {len(part)} questions of {len({question.db_id for question in part})} databases, "
        f"{cost / mean:.2f} of the mean cost"
        for number, (part, cost) in enumerate(zip(parts, costs, strict=True))
    ]


async def check_gold(work: Work, executor, args: argparse.Namespace) -> None:
    """Run every gold query once; questions whose gold fails or returns nothing leave the shard, with the reason."""
    from tqdm.asyncio import tqdm

    from tree.sql_utils import database_path

    runs = [executor.run_gold(database_path(args.db_root, question.db_id), question.sql) for question in work.questions]
    results = await tqdm.gather(*runs, desc="gold queries", unit="query")
    reasons = {}
    for question, gold in zip(work.questions, results, strict=True):
        if gold.seconds > SLOW_GOLD:
            print(f"slow gold query: question {question.question_id} ({question.db_id}) took {gold.seconds:.1f} s")
        if gold.outcome == "empty" and not args.keep_empty_gold:
            reasons[question.question_id] = "gold query returns nothing"
        elif gold.outcome not in ("ok", "empty"):
            reasons[question.question_id] = f"gold query: {gold.outcome} ({gold.error[:200]})"
    work.skip(reasons)
    work.report(f"{args.data}: no question has a gold query that runs and returns rows")


async def prepare_instances(work: Work, executor, args: argparse.Namespace) -> None:
    """Derive the perturbed instances of every database in use; a database without them is named, with the reason."""
    from tqdm.asyncio import tqdm

    from tree.sql_utils import database_path

    db_ids = work.databases()
    runs = [executor.prepare(database_path(args.db_root, db_id)) for db_id in db_ids]
    results = await tqdm.gather(*runs, desc="perturbed databases", unit="database")
    for db_id, (reason, problems) in zip(db_ids, results, strict=True):
        work.leave_out(db_id, problems)
        if reason:
            print(f"warning: no perturbed instances of {db_id}, so nothing on it is found to be fragile: {reason}")


def read_schemas(work: Work, db_root: str) -> None:
    """Fill in the schema of every database in use, with BIRD's descriptions where there are any.

    What cannot be read of a database is left out, with a warning. Raises InputError for one that SQLite refuses.
    """
    from tqdm import tqdm

    from tree.schema.descriptions import read_descriptions
    from tree.schema.read import read_schema
    from tree.sql.database_file import opened
    from tree.sql.table_info import is_unicode, list_tables
    from tree.sql_utils import database_path

    for db_id in tqdm(work.databases(), desc="schemas", unit="database"):
        path = database_path(db_root, db_id)
        problems: Problems = {}
        with opened(path) as connection:
            tables = [table for table in list_tables(connection) if table.kind != "shadow" and is_unicode(table.name)]
            names = {table.name: [column.name for column in table.columns] for table in tables}
            described = read_descriptions(path.parent / "database_description", names)
            work.schemas[db_id] = read_schema(connection, described.by_column, problems)
        work.leave_out(db_id, problems)
        if described.unmatched:
            some = ", ".join(described.unmatched[:UNMATCHED_SHOWN])
            print(f"warning: {db_id}: {len(described.unmatched)} descriptions of nothing in the database: {some}")


def find_values(work: Work, db_root: str) -> None:
    """Fill in the stored values that match each question; a database's index is built when it is first needed."""
    from tqdm import tqdm

    from tree.schema.values import build_index, matching_values, unread_columns
    from tree.sql.cache import cache_folder
    from tree.sql_utils import database_path

    by_database = groupby(work.questions, lambda question: question.db_id)
    for db_id, questions in tqdm(by_database, total=len(work.databases()), desc="stored values", unit="database"):
        index = build_index(database_path(db_root, db_id), cache_folder("values"))
        work.leave_out(db_id, unread_columns(index))
        for question in questions:
            text = f"{question.question}\n{question.evidence}"
            work.values[question.question_id] = matching_values(index, text)


def fit_prompts(work: Work, encode: Callable) -> dict[int, int]:
    """Shorten the schemas of prompts that are too long; question id -> length of its initial prompt in tokens.

    A question whose prompt is too long even with one table leaves the work, with the reason.
    """
    from tqdm import tqdm

    longest = work.settings.max_prompt_tokens
    lengths: dict[int, int] = {}
    too_long: dict[int, str] = {}
    for question in tqdm(work.questions, desc="prompts", unit="prompt", mininterval=1):
        number = question.question_id
        shortening, tried = _fitted(work, question, encode, longest)
        if shortening:
            work.shortened[number], lengths[number] = shortening, tried[shortening]
        else:
            least = min(tried.values())
            too_long[number] = f"prompt of {least} tokens at the shortest, {longest} are allowed (--max_prompt_tokens)"
    work.skip(too_long)
    return lengths


def _fitted(
    work: Work, question: Question, encode: Callable, longest: int
) -> tuple[Shortening | None, dict[Shortening, int]]:
    """The least shortening of a question's schema that fits, and the prompt lengths of all that were tried."""
    tables, tried = work.schemas[question.db_id], {}

    def fits(shortening: Shortening) -> bool:
        tried[shortening] = len(encode(chat(work.prompt(question, shortening))))
        return tried[shortening] <= longest

    def likely_first() -> list[str]:
        holding = [match.table for match in work.values.get(question.question_id, ())]
        return likely_tables(tables, f"{question.question}\n{question.evidence}", holding)

    return shorten(tables, likely_first, fits), tried


def prepare_prompts(work: Work, encode: Callable, db_root: str) -> dict[int, int]:
    """Everything that prompts are made of; question id -> length of its prompt in tokens.

    Questions whose prompts cannot be made short enough have left the work.
    """
    read_schemas(work, db_root)
    if not work.settings.no_values:
        find_values(work, db_root)
    lengths = fit_prompts(work, encode)
    if work.shortened:
        count = sum(shortening != FULL for shortening in work.shortened.values())
        print(f"{count} of {len(work.questions)} prompts have a shortened schema")
    return lengths


def histogram(lengths: Sequence[int]) -> list[str]:
    """Lines of a text histogram of prompt lengths in tokens."""
    width = max(1, -(-(max(lengths) + 1 - min(lengths)) // BINS))
    counts = Counter((length - min(lengths)) // width for length in lengths)
    lines = []
    for place in range(max(counts) + 1):
        low = min(lengths) + place * width
        bar = "#" * round(BAR * counts[place] / max(counts.values()))
        lines.append(f"{low:>7} to {low + width - 1:>7} tokens {counts[place]:>6} {bar}")
    return lines
