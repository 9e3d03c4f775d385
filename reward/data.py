"""Pair file -> preference pairs, and the split by question."""

import os
import random
from collections.abc import Sequence
from dataclasses import dataclass

from tree.files import InputError, read_rows

MERGE_FIRST = "make it with `python -m tree.merge_shards` (step 4.2)"


@dataclass(frozen=True)
class PreferencePair:
    """One preference: for the task `prompt`, the query `chosen` is better than `rejected`."""

    prompt: str
    chosen: str
    rejected: str
    question_id: int
    db_id: str
    relation: str


def load_pairs(path: str | os.PathLike) -> list[PreferencePair]:
    """The pairs of a file of DESIGN's format.

    Raises InputError naming the file and the first row that does not fit.
    """
    columns = {"prompt": list, "chosen": list, "rejected": list, "question_id": int, "db_id": str}
    rows = read_rows(path, columns, MERGE_FIRST)
    return [
        PreferencePair(
            prompt=_content(row["prompt"], "user", f"{path}: row {number}: prompt"),
            chosen=_content(row["chosen"], "assistant", f"{path}: row {number}: chosen"),
            rejected=_content(row["rejected"], "assistant", f"{path}: row {number}: rejected"),
            question_id=row["question_id"],
            db_id=row["db_id"],
            relation=row.get("relation", ""),
        )
        for number, row in enumerate(rows)
    ]


def _content(messages: list, role: str, where: str) -> str:
    """The text of a list that holds one message of the given role."""
    if len(messages) == 1 and isinstance(messages[0], dict):
        message = messages[0]
        if message.get("role") == role and isinstance(message.get("content"), str) and message["content"].strip():
            return message["content"]
    raise InputError(f'{where} must be [{{"role": "{role}", "content": "…"}}] with a content that is not empty')


def split_by_question(
    pairs: Sequence[PreferencePair], fraction: float, seed: int
) -> tuple[list[PreferencePair], list[PreferencePair]]:
    """Training and validation pairs: `fraction` of the questions (at least one when above 0) are held out by `seed`.

    Raises InputError when that leaves no question to train on.
    """
    questions = sorted({pair.question_id for pair in pairs})
    random.Random(seed).shuffle(questions)
    held_out = set(questions[: max(1, round(fraction * len(questions)))]) if fraction > 0 else set()
    if len(held_out) == len(questions):
        raise InputError(
            f"{len(questions)} question(s) are too few to hold {fraction:.0%} out; set validation_fraction 0"
        )
    train = [pair for pair in pairs if pair.question_id not in held_out]
    return train, [pair for pair in pairs if pair.question_id in held_out]
