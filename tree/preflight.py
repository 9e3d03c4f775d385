"""The questions of a run before any engine starts: which are worked on, which are not and why, how long prompts are."""

import argparse
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field

from tree.files import InputError
from tree.prompts import chat, task_prompt
from tree.questions import estimated_cost, limited, load_questions, shards
from tree.tree_node import Question

SLOW_GOLD = 5.0  # seconds from which a gold query is listed
BINS = 10  # of the prompt-length histogram
BAR = 40  # characters


@dataclass
class Work:
    """The questions to work on, their databases' schema texts, and the questions left out with the reason."""

    questions: list[Question]
    schemas: dict[str, str] = field(default_factory=dict)
    skipped: list[dict] = field(default_factory=list)
    reported: int = 0

    def prompt(self, question: Question) -> str:
        """The initial task of a question; made when asked for, so that no schema is held once per question."""
        return task_prompt(self.schemas[question.db_id], question.question, question.evidence)

    def skip(self, reasons: dict[int, str]) -> None:
        """Leave out questions, by id, with the reason."""
        for question in self.questions:
            if reason := reasons.get(question.question_id):
                entry = {"question_id": question.question_id, "db_id": question.db_id, "reason": reason}
                self.skipped.append(entry)
        self.questions = [question for question in self.questions if question.question_id not in reasons]

    def report(self, nothing_left: str) -> None:
        """Print what was skipped since the last report. Raises InputError when no question is left."""
        for entry in self.skipped[self.reported :]:
            print(f"skipped question {entry['question_id']} ({entry['db_id']}): {entry['reason']}")
        self.reported = len(self.skipped)
        if not self.questions:
            raise InputError(nothing_left)


def select(args: argparse.Namespace) -> tuple[Work, list[str]]:
    """The questions of this shard, their databases checked, and a line about each shard of the run."""
    from tree.sql_utils import check_database, database_path

    questions = load_questions(args.data)
    if args.limit:
        questions = limited(questions, args.limit)
    for db_id in sorted({question.db_id for question in questions}):
        check_database(database_path(args.db_root, db_id))
    parts = shards(questions, args.num_shards)
    if not parts[args.shard_id]:
        raise InputError(f"shard {args.shard_id} of {args.num_shards} has no questions; use fewer shards")
    return Work(parts[args.shard_id]), balance(parts)


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


def read_schemas(work: Work, db_root: str) -> None:
    """Fill in the schema text of every database in use."""
    from tree.sandbox import connect
    from tree.schema import schema_text
    from tree.sql_utils import database_path

    for db_id in {question.db_id for question in work.questions}:
        with closing(connect(database_path(db_root, db_id))) as connection:
            # bytes that are not UTF-8 cannot be tokenized or stored as JSON, so they are shown escaped
            work.schemas[db_id] = schema_text(connection).encode("utf-8", "backslashreplace").decode()


def prompt_lengths(work: Work, encode: Callable) -> dict[int, int]:
    """Question id -> length of its initial prompt in tokens."""
    from tqdm import tqdm

    bar = tqdm(work.questions, desc="prompt lengths", unit="prompt", mininterval=1)
    return {question.question_id: len(encode(chat(work.prompt(question)))) for question in bar}


def skip_long_prompts(work: Work, lengths: dict[int, int], longest: int, args: argparse.Namespace) -> None:
    """Questions whose prompt has more than `longest` tokens leave the shard, with the reason."""
    limit = longest + args.max_tokens
    work.skip(
        {
            key: f"prompt of {length} tokens leaves no room for --max_tokens {args.max_tokens} in a context of {limit}"
            for key, length in lengths.items()
            if length > longest
        }
    )
    work.report(f"{args.data}: every prompt is too long; use a smaller --max_tokens or a larger --max_model_len")


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
