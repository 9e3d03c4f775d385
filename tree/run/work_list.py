"""The questions that one shard works on, what their prompts are made of, and the questions left out with the reason."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from common.files import InputError
from tree.prompts import task_prompt
from tree.questions import estimated_cost, limited, load_questions, shards
from tree.run.databases import database_fingerprints
from tree.run.prompt_settings import PromptSettings
from tree.schema.read import Table
from tree.schema.values import StoredValue, value_lines
from tree.schema.write import FULL, Shortening, schema_text
from tree.sql.table_info import Problems, left_out
from tree.sql_utils import check_database, database_path
from tree.tree_node import Question

if TYPE_CHECKING:
    from tree.run.settings import RunSettings


@dataclass
class WorkList:
    """The questions of a file, `data`, whose databases lie in `db_root`.

    `schemas` are the databases' tables, `values` the lines about stored values that match a question, `shortened` what
    a question's schema lacks for its prompt to fit; `fingerprints` say what the databases of all shards hold.
    """

    questions: list[Question]
    data: str
    db_root: str
    settings: PromptSettings = PromptSettings()
    schemas: dict[str, tuple[Table, ...]] = field(default_factory=dict)
    values: dict[int, list[StoredValue]] = field(default_factory=dict)
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

    def databases(self) -> list[str]:
        """The databases in use, each once."""
        return sorted({question.db_id for question in self.questions})

    def database(self, db_id: str) -> Path:
        return database_path(self.db_root, db_id)

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

    def report(self, nothing_left: str) -> None:
        """Print what was skipped since the last report. Raises InputError when no question is left."""
        for entry in self.skipped[self.reported :]:
            print(f"skipped question {entry['question_id']} ({entry['db_id']}): {entry['reason']}")
        self.reported = len(self.skipped)
        if not self.questions:
            raise InputError(f"{self.data}: {nothing_left}")

    def name_unread(self, db_id: str, problems: Problems) -> None:
        """Warn of what in a database cannot be read, once each, however many steps come upon it."""
        for (table, column), why in problems.items():
            if not {(db_id, table, ""), (db_id, table, column)} & self.unread:
                self.unread.add((db_id, table, column))
                print(left_out(db_id, table, column, why))


def checked_questions(data: str, db_root: str, limit: int, with_gold: bool) -> list[Question]:
    """The questions of a file, or `limit` of them (0 = all), whose databases were looked at. Raises InputError."""
    questions = load_questions(data, with_gold)
    if limit:
        questions = limited(questions, limit)
    for db_id in sorted({question.db_id for question in questions}):
        check_database(database_path(db_root, db_id))
    return questions


def select(settings: "RunSettings") -> tuple[WorkList, list[str]]:
    """The questions of this shard, their databases checked, and a line about each shard of the run."""
    questions = checked_questions(settings.data, settings.db_root, settings.limit, with_gold=not settings.no_gold)
    parts = shards(questions, settings.num_shards)
    mine = parts[settings.shard_id]
    if not mine:
        shard = f"shard {settings.shard_id} of {settings.num_shards}"
        raise InputError(f"{settings.data}: {shard} has no questions; use fewer --num_shards")
    fingerprints = database_fingerprints(settings.db_root, {question.db_id for question in questions})
    work = WorkList(mine, settings.data, settings.db_root, settings.prompts, fingerprints=fingerprints)
    return work, balance(parts)


def balance(parts: Sequence[Sequence[Question]]) -> list[str]:
    """A line for each shard: questions, databases, and its estimated cost as a share of the mean."""
    costs = [sum(map(estimated_cost, part)) for part in parts]
    mean = sum(costs) / len(costs)
    return [
        f"shard {number}: {len(part)} questions of {len({question.db_id for question in part})} databases, "
        f"{cost / mean:.2f} of the mean cost"
        for number, (part, cost) in enumerate(zip(parts, costs, strict=True))
    ]
