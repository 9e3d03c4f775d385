"""What a run looks at before any engine starts: gold queries, perturbed databases, prompts."""

from collections.abc import Callable, Sequence
from itertools import groupby

from tree.prompts import chat
from tree.run.work_list import WorkList
from tree.schema.descriptions import read_descriptions
from tree.schema.read import read_schema
from tree.schema.value_index import build_index, unread_columns
from tree.schema.values import matching_values
from tree.schema.write import FULL, Shortening, likely_tables, shorten
from tree.sql.cache import cache_folder
from tree.sql.database_file import opened
from tree.sql.table_info import Problems, is_unicode, list_tables
from tree.sql_utils import Executor
from tree.tree_node import Question

SLOW_GOLD = 5.0  # seconds from which a gold query is listed
UNMATCHED_SHOWN = 5  # names in a warning

Encode = Callable[[Sequence[dict]], list[int]]  # the tokens of a chat


async def check_gold(work: WorkList, executor: Executor, keep_empty: bool = False) -> None:
    """Run every gold query once; questions whose gold fails or returns nothing leave the shard, with the reason."""
    from tqdm.asyncio import tqdm

    runs = [executor.run_gold(work.database(question.db_id), question.sql) for question in work.questions]
    results = await tqdm.gather(*runs, desc="gold queries", unit="query")
    reasons = {}
    for question, gold in zip(work.questions, results, strict=True):
        if gold.seconds > SLOW_GOLD:
            print(f"slow gold query: question {question.question_id} ({question.db_id}) took {gold.seconds:.1f} s")
        if gold.outcome == "empty" and not keep_empty:
            reasons[question.question_id] = "gold query returns nothing"
        elif gold.outcome not in ("ok", "empty"):
            reasons[question.question_id] = f"gold query: {gold.outcome} ({gold.error[:200]})"
    work.skip(reasons)
    work.report("no question has a gold query that runs and returns rows")


async def prepare_instances(work: WorkList, executor: Executor) -> None:
    """Derive the perturbed instances of every database in use; a database without them is named, with the reason."""
    from tqdm.asyncio import tqdm

    db_ids = work.databases()
    runs = [executor.prepare(work.database(db_id)) for db_id in db_ids]
    results = await tqdm.gather(*runs, desc="perturbed databases", unit="database")
    for db_id, (reason, problems) in zip(db_ids, results, strict=True):
        work.name_unread(db_id, problems)
        if reason:
            print(f"warning: no perturbed instances of {db_id}, so nothing on it is found to be fragile: {reason}")


def read_schemas(work: WorkList) -> None:
    """Fill in the schema of every database in use, with BIRD's descriptions where there are any.

    What cannot be read of a database is left out, with a warning. Raises InputError for one that SQLite refuses.
    """
    from tqdm import tqdm

    for db_id in tqdm(work.databases(), desc="schemas", unit="database"):
        path = work.database(db_id)
        problems: Problems = {}
        with opened(path) as connection:
            tables = [table for table in list_tables(connection) if table.kind != "shadow" and is_unicode(table.name)]
            names = {table.name: [column.name for column in table.columns] for table in tables}
            described = read_descriptions(path.parent / "database_description", names)
            work.schemas[db_id] = read_schema(connection, described.by_column, problems)
        work.name_unread(db_id, problems)
        if described.unmatched:
            some = ", ".join(described.unmatched[:UNMATCHED_SHOWN])
            print(f"warning: {db_id}: {len(described.unmatched)} descriptions of nothing in the database: {some}")


def find_values(work: WorkList) -> None:
    """Fill in the stored values that match each question; a database's index is built when it is first needed."""
    from tqdm import tqdm

    by_database = groupby(work.questions, lambda question: question.db_id)
    for db_id, questions in tqdm(by_database, total=len(work.databases()), desc="stored values", unit="database"):
        index = build_index(work.database(db_id), cache_folder("values"))
        work.name_unread(db_id, unread_columns(index))
        for question in questions:
            text = f"{question.question}\n{question.evidence}"
            work.values[question.question_id] = matching_values(index, text)


def fit_prompts(work: WorkList, encode: Encode) -> dict[int, int]:
    """Shorten the schemas of prompts that are too long; question id -> length of its initial prompt in tokens.

    A question whose prompt is too long even with one table leaves the work, with the reason.
    """
    from tqdm import tqdm

    longest = work.settings.max_prompt_tokens
    lengths: dict[int, int] = {}
    too_long: dict[int, str] = {}
    for question in tqdm(work.questions, desc="prompts", unit="prompt"):
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
    work: WorkList, question: Question, encode: Encode, longest: int
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


def prepare_prompts(work: WorkList, encode: Encode) -> dict[int, int]:
    """Everything that prompts are made of; question id -> length of its prompt in tokens.

    Questions whose prompts cannot be made short enough have left the work.
    """
    read_schemas(work)
    if not work.settings.no_values:
        find_values(work)
    lengths = fit_prompts(work, encode)
    if work.shortened:
        count = sum(shortening != FULL for shortening in work.shortened.values())
        print(f"{count} of {len(work.questions)} prompts have a shortened schema")
    return lengths
