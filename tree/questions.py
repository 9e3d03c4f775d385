"""The question file -> questions, ordered and sharded by database."""

import os
from collections import Counter
from collections.abc import Sequence
from hashlib import sha256

from tree.files import InputError, read_rows
from tree.tree_node import Question

COLUMNS = {"question_id": int, "db_id": str, "question": str, "SQL": str}
ADD_IDS = "run `python add_question_id.py --file {path}` first"


def load_questions(path: str | os.PathLike) -> list[Question]:
    """The questions of a BIRD file that has ids.

    Raises InputError naming the file, the row and the fix.
    """
    rows = read_rows(path, {}, "get BIRD's train.json, or build the demo with `python data/build_demo.py`")
    if any("question_id" not in row for row in rows):
        first = next(number for number, row in enumerate(rows) if "question_id" not in row)
        raise InputError(f"{path}: row {first} has no question_id; " + ADD_IDS.format(path=path))
    rows = read_rows(path, COLUMNS)
    repeated = [key for key, count in Counter(row["question_id"] for row in rows).items() if count > 1]
    if repeated:
        raise InputError(f"{path}: question_id {repeated[0]} stands more than once; ids must be unique")
    for number, row in enumerate(rows):
        for column in ("db_id", "question", "SQL"):
            if not row[column].strip():
                raise InputError(f"{path}: row {number} (question_id {row['question_id']}): '{column}' is empty")
    return [
        Question(
            question_id=row["question_id"],
            db_id=row["db_id"],
            question=row["question"],
            evidence=row.get("evidence") or "",
            sql=row["SQL"],
            difficulty=row.get("difficulty") or "",
        )
        for row in rows
    ]


def by_database(questions: Sequence[Question]) -> list[Question]:
    """Ordered by database, then id, so that prompts which share a schema follow each other."""
    return sorted(questions, key=lambda question: (question.db_id, question.question_id))


def shard(questions: Sequence[Question], number: int, shards: int) -> list[Question]:
    """Shard `number` of `shards`: whole databases, largest first onto the shard with the fewest questions so far.

    The same for any order of the input.
    """
    counts = Counter(question.db_id for question in questions)
    loads = [0] * shards
    place = {}
    for db_id, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        place[db_id] = loads.index(min(loads))
        loads[place[db_id]] += count
    return by_database([question for question in questions if place[question.db_id] == number])


def limited(questions: Sequence[Question], limit: int) -> list[Question]:
    """At most `limit` questions, taken from every database in turn, so that a small run looks like the whole.

    Within a database they are drawn by a hash of their ids: files often begin with the easy ones.
    """
    turns: Counter[str] = Counter()
    ranked = []
    for question in sorted(questions, key=lambda question: sha256(str(question.question_id).encode()).digest()):
        ranked.append((turns[question.db_id], question))
        turns[question.db_id] += 1
    ranked.sort(key=lambda item: (item[0], item[1].db_id))
    return by_database([question for _, question in ranked[:limit]])
