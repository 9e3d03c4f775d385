"""Pair file -> preference pairs, questions with their candidates, and the split by question."""

import os
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tree.files import InputError
from tree.rows import read_rows

MERGE_FIRST = "make it with `python -m tree.merge_shards` (step 4.2)"
COLUMNS = {
    **{"prompt": (list | str, None), "chosen": list | str, "rejected": list | str},
    **{"question_id": (int, None), "db_id": (str, ""), "relation": (str, ""), "difficulty": (str, "")},
    **{"chosen_dist": (int, None), "rejected_dist": (int, None)},
}
TURNS = 'text, or a list of {"role": …, "content": …} with contents that are not empty'


class Turn(NamedTuple):
    """One message of a conversation."""

    role: str
    content: str


Prompt = tuple[Turn, ...]  # what stands before an answer; it can be a key


@dataclass(frozen=True)
class PreferencePair:
    """One preference: after `prompt`, the query `chosen` is better than `rejected`.

    Distances are revision distances (None: no correct query was reached). A file of another origin may lack what stands
    below the queries; then `question_id` and the distances are None, the texts "".
    """

    prompt: Prompt
    chosen: str
    rejected: str
    question_id: int | None
    db_id: str
    relation: str
    chosen_dist: int | None
    rejected_dist: int | None
    difficulty: str = ""

    @property
    def question(self) -> "int | Prompt":
        """What tells its question from others: the id, without one the prompt."""
        return self.prompt if self.question_id is None else self.question_id

    @property
    def margin(self) -> float:
        """How much better chosen is by revision distance, from 0 to 1: a query at distance d is worth 1 / (1 + d).

        A query from which no correct one was reached is worth 0.
        """
        return _worth(self.chosen_dist) - _worth(self.rejected_dist)


def _worth(distance: int | None) -> float:
    return 0.0 if distance is None else 1 / (1 + distance)


@dataclass(frozen=True)
class Question:
    """A prompt with its distinct candidate queries and the pairs among them."""

    prompt: Prompt
    candidates: tuple[str, ...]
    pairs: tuple[PreferencePair, ...]

    @property
    def places(self) -> list[tuple[int, int]]:
        """Of each pair, the places of chosen and rejected among the candidates."""
        place = {sql: index for index, sql in enumerate(self.candidates)}
        return [(place[pair.chosen], place[pair.rejected]) for pair in self.pairs]


# --- reading --------------------------------------------------------------------------------------------------------


def load_pairs(path: str | os.PathLike, with_distances: bool = False) -> list[PreferencePair]:
    """The pairs of a JSON list (or JSON Lines) in DESIGN's format, or of any list of preferences as TRL takes them.

    A row has `chosen` and `rejected`, with or without `prompt`: lists of messages, or texts (`prompt` is then the
    user's turn, the others the assistant's). Without `prompt` they hold the whole conversation. Everything but the last
    message must be the same on both sides. What else is missing or null is as if the file did not say.
    `with_distances`: each row must have `chosen_dist` and `rejected_dist`.
    Raises InputError naming the file and the first row that does not fit.
    """
    columns = COLUMNS | ({"chosen_dist": int, "rejected_dist": int | None} if with_distances else {})
    return [_pair(row, f"{path}: row {number}") for number, row in enumerate(read_rows(path, columns, MERGE_FIRST))]


def _pair(row: dict, where: str) -> PreferencePair:
    prompt = () if row["prompt"] is None else _turns(row["prompt"], "user", f"{where}: prompt")
    chosen, rejected = (_conversation(prompt, row[side], f"{where}: {side}") for side in ("chosen", "rejected"))
    if chosen[:-1] != rejected[:-1] or len(chosen) < 2:
        raise InputError(
            f"{where}: chosen and rejected must be one conversation but for the last message (or have a prompt)"
        )
    for name in ("chosen_dist", "rejected_dist"):
        if row[name] is not None and row[name] < 0:
            raise InputError(f"{where}: '{name}' is {row[name]}, expected 0 or more revisions (null = never)")
    names = ("question_id", "db_id", "relation", "chosen_dist", "rejected_dist", "difficulty")
    return PreferencePair(
        prompt=chosen[:-1],
        chosen=chosen[-1].content,
        rejected=rejected[-1].content,
        **{name: row[name] for name in names},
    )


def _conversation(prompt: Prompt, side: list | str, where: str) -> Prompt:
    """The whole conversation of one side, whether it repeats the prompt or not."""
    turns = _turns(side, "assistant", where)
    if turns[-1].role != "assistant":
        raise InputError(f"{where}: the last message must be the assistant's")
    return turns if prompt and turns[: len(prompt)] == prompt else prompt + turns


def _turns(messages: list | str, role: str, where: str) -> Prompt:
    """Messages as turns; a text is one turn of the given role."""
    if isinstance(messages, str):
        messages = [{"role": role, "content": messages}]
    turns = messages if isinstance(messages, list) else []
    if not turns or not all(isinstance(turn, dict) and _is_turn(turn) for turn in turns):
        raise InputError(f"{where} must be {TURNS}")
    return tuple(Turn(turn["role"], turn["content"]) for turn in turns)


def _is_turn(message: dict) -> bool:
    content = message.get("content")
    return isinstance(message.get("role"), str) and isinstance(content, str) and bool(content.strip())


# --- grouping and splitting -----------------------------------------------------------------------------------------


def group_by_prompt(pairs: Iterable[PreferencePair]) -> list[Question]:
    """The questions of the pairs, each prompt once, in the order in which they first appear."""
    groups: dict[Prompt, list[PreferencePair]] = {}
    for pair in pairs:
        groups.setdefault(pair.prompt, []).append(pair)
    return [
        Question(prompt, tuple(dict.fromkeys(sql for pair in group for sql in (pair.chosen, pair.rejected))), (*group,))
        for prompt, group in groups.items()
    ]


def split_by_question(
    pairs: Sequence[PreferencePair], fraction: float, seed: int
) -> tuple[list[PreferencePair], list[PreferencePair]]:
    """Training and validation pairs: `fraction` of the questions (at least one when above 0) are held out by `seed`.

    Pairs without `question_id` belong to one question when they have the same prompt.
    Raises InputError when that leaves no question to train on.
    """
    questions = sorted({pair.question for pair in pairs}, key=repr)
    random.Random(seed).shuffle(questions)
    held_out = set(questions[: max(1, round(fraction * len(questions)))]) if fraction > 0 else set()
    if len(held_out) == len(questions):
        raise InputError(
            f"{len(questions)} question(s) are too few to hold {fraction:.0%} out; set validation_fraction 0"
        )
    train = [pair for pair in pairs if pair.question not in held_out]
    return train, [pair for pair in pairs if pair.question in held_out]
