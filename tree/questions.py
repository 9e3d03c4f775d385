"""The question file -> questions, ordered and sharded by database."""

import itertools
import math
import os
from collections import Counter
from collections.abc import Sequence
from hashlib import sha256

from common.files import InputError
from common.rows import fit_row, read_rows
from tree.tree_node import Question

COLUMNS = {"question_id": int, "db_id": str, "question": str, "SQL": str}
OPTIONAL = {"evidence": (str, ""), "difficulty": (str, "")}
QUERIES_PER_TREE = 16  # that are written on average
SHARDS_PER_GPU = 4  # of a cluster at most, whose GPUs may be unequal or lost (docs/RESULTS.md, "Scale, by simulation")
QUESTIONS_PER_SHARD = 500  # fewer are not worth the start of an engine
ADD_IDS = "run `python add_question_id.py --file {path}` first"


def load_questions(path: str | os.PathLike, with_gold: bool = True) -> list[Question]:
    """The questions of a BIRD file that has ids; without gold they need no SQL, and what they have is not read.

    Raises InputError naming the file, the row and the fix.
    """
    fix = "fetch BIRD with `bash data/download_bird.sh`, or build the demo with `python data/build_demo.py`"
    rows = read_rows(path, {}, fix)
    columns = COLUMNS if with_gold else {name: kind for name, kind in COLUMNS.items() if name != "SQL"}
    for number, row in enumerate(rows):
        if row.get("question_id") is None:
            raise InputError(f"{path}: row {number} has no question_id; " + ADD_IDS.format(path=path))
    rows = [fit_row(path, number, row, columns | OPTIONAL) for number, row in enumerate(rows)]
    _check_rows(path, rows, [name for name in columns if name != "question_id"])
    return [
        Question(
            question_id=row["question_id"],
            db_id=row["db_id"],
            question=row["question"],
            evidence=row["evidence"],
            sql=row["SQL"] if with_gold else "",
            difficulty=row["difficulty"],
        )
        for row in rows
    ]


def _check_rows(path: str | os.PathLike, rows: Sequence[dict], filled: Sequence[str]) -> None:
    """Raises InputError for an id that is duplicated, and where a column of `filled` is empty."""
    seen = set()
    for number, row in enumerate(rows):
        question_id = row["question_id"]
        if question_id in seen:
            raise InputError(f"{path}: question_id {question_id} is duplicated (row {number}); make the ids unique")
        seen.add(question_id)
        for column in filled:
            if not row[column].strip():
                raise InputError(f"{path}: row {number} (question_id {question_id}): '{column}' is empty")


def by_database(questions: Sequence[Question]) -> list[Question]:
    """Ordered by database, then id, so that prompts which share a schema follow each other."""
    return sorted(questions, key=lambda question: (question.db_id, question.question_id))


def estimated_cost(question: Question) -> int:
    """What a question's tree costs, in characters: its own part of the prompt is read once, then queries about as long
    as gold are written. Only ratios between questions mean something.
    """
    return len(question.question) + len(question.evidence) + QUERIES_PER_TREE * len(question.sql)


def shards(questions: Sequence[Question], number: int) -> list[list[Question]]:
    """`number` shards of about equal estimated cost, each ordered by database; the same for any order of the input.

    Databases stay whole, so that a schema is read by one engine only; one that alone exceeds a shard's share is cut
    into the fewest pieces that do not. Pieces go, largest first, to the shard with the least so far (Graham's
    longest-processing-time rule). A shard is empty only when one question
    alone exceeds a share.
    """
    share = sum(map(estimated_cost, questions)) / number
    pieces = [
        piece
        for _, group in itertools.groupby(by_database(questions), key=lambda question: question.db_id)
        for piece in _pieces(list(group), share)
    ]
    pieces.sort(key=lambda piece: (-sum(map(estimated_cost, piece)), piece[0].db_id, piece[0].question_id))
    found: list[list[Question]] = [[] for _ in range(number)]
    loads = [0] * number
    for piece in pieces:
        lightest = loads.index(min(loads))
        found[lightest] += piece
        loads[lightest] += sum(map(estimated_cost, piece))
    return [by_database(members) for members in found]


def _pieces(questions: list[Question], share: float) -> list[list[Question]]:
    """The questions of one database in runs of about equal cost: one, or more when their cost exceeds `share`."""
    total = sum(map(estimated_cost, questions))
    count = min(len(questions), math.ceil(total / share))
    pieces: list[list[Question]] = []
    before = 0
    for number, question in enumerate(questions):
        questions_left, pieces_left = len(questions) - number, count - len(pieces)
        if not pieces or before * count >= total * len(pieces) or questions_left == pieces_left:
            pieces.append([])
        pieces[-1].append(question)
        before += estimated_cost(question)
    return pieces


def shard_count(questions: int, gpus: int) -> int:
    """How many shards suit a cluster: as many for each GPU, so that one that is slow or lost does not keep the others
    waiting, but few enough that engines do not start all the time.
    """
    return gpus * max(1, min(SHARDS_PER_GPU, questions // (gpus * QUESTIONS_PER_SHARD)))


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
