"""Pair file -> preference pairs, questions with their candidates, and the split for validation."""

import os
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from common.files import InputError
from common.rows import read_rows

MERGE_FIRST = "make it with `python -m tree.merge_shards` (step 4.2)"
COLUMNS = {
    **{"prompt": (list | str, None), "chosen": list | str, "rejected": list | str},
    **{"question_id": (int, None), "db_id": (str, ""), "relation": (str, ""), "difficulty": (str, "")},
    **{"chosen_dist": (int, None), "rejected_dist": (int, None)},
}
TURNS = 'text, or a list of {"role": …, "content": …} with contents that are not empty'
MIN_DATABASES = 5  # so many before whole ones are held out


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


def repeated_pairs(pairs: Iterable[PreferencePair]) -> int:
    """How many pairs stand again: prompt, chosen and rejected of an earlier one. Each counts in training."""
    seen = Counter((pair.prompt, pair.chosen, pair.rejected) for pair in pairs)
    return seen.total() - len(seen)


def contradictory_pairs(pairs: Iterable[PreferencePair]) -> int:
    """How many pairs have their opposite among the pairs: the same prompt, chosen and rejected exchanged."""
    seen = Counter((pair.prompt, pair.chosen, pair.rejected) for pair in pairs)
    return sum(count for (prompt, chosen, rejected), count in seen.items() if (prompt, rejected, chosen) in seen)


Split = tuple[list[PreferencePair], list[PreferencePair]]  # to train on, for validation


def split_by_question(pairs: Sequence[PreferencePair], fraction: float, seed: int) -> Split:
    """Training and validation pairs: `fraction` of the prompts (at least one when above 0) are held out by `seed`.

    No question and no prompt is on both sides: pairs with one `question_id`, or one prompt, stay together.
    Raises InputError when that leaves nothing to train on.
    """
    if fraction <= 0:
        return list(pairs), []
    groups = _groups(pairs, lambda pair: [("question", pair.question), ("prompt", pair.prompt)])
    held_out = _hold_out(groups, fraction, seed)
    if len(held_out) == len(groups):
        raise InputError(f"{len(groups)} question(s) are too few to hold {fraction:.0%} out; set validation_fraction 0")
    return _parted(pairs, held_out)


def split_by_database(pairs: Sequence[PreferencePair], fraction: float, seed: int) -> Split | None:
    """As `split_by_question`, but whole databases are held out, with about `fraction` of the prompts.

    None when that cannot be done well: a pair without `db_id`, fewer than MIN_DATABASES that have no question in
    common, or sizes with which less than half or more than one and a half times as much would be held out.
    """
    if fraction <= 0 or not all(pair.db_id for pair in pairs):
        return None
    groups = _groups(
        pairs, lambda pair: [("database", pair.db_id), ("question", pair.question), ("prompt", pair.prompt)]
    )
    held_out = _hold_out(groups, fraction, seed)
    share = sum(map(_size, held_out)) / sum(map(_size, groups))
    if len(groups) < MIN_DATABASES or not 0.5 <= share / fraction <= 1.5:
        return None
    return _parted(pairs, held_out)


def _groups(
    pairs: Sequence[PreferencePair], keys_of: Callable[[PreferencePair], list[tuple]]
) -> list[list[PreferencePair]]:
    """The pairs in groups: those with a key in common, directly or by way of others, are in one.

    The order of the groups does not depend on that of the pairs.
    """
    above: dict[tuple, tuple] = {}  # of each key another one of its group, of one key of each group itself

    def top(key: tuple) -> tuple:
        while above.setdefault(key, key) != key:
            above[key] = above[above[key]]
            key = above[key]
        return key

    for pair in pairs:
        first, *others = keys_of(pair)
        for other in others:
            above[top(other)] = top(first)
    groups: dict[tuple, list[PreferencePair]] = {}
    for pair in pairs:
        groups.setdefault(top(keys_of(pair)[0]), []).append(pair)
    return sorted(groups.values(), key=lambda group: min(repr(keys_of(pair)[0]) for pair in group))


def _size(group: list[PreferencePair]) -> int:
    return len({pair.prompt for pair in group})


def _hold_out(groups: Sequence[list[PreferencePair]], fraction: float, seed: int) -> list[list[PreferencePair]]:
    """Groups in the order drawn by `seed`, each that brings their prompts nearer to `fraction` of all; at least one."""
    drawn = random.Random(seed).sample(groups, len(groups))
    missing = fraction * sum(map(_size, groups))
    held_out = []
    for group in drawn:
        if _size(group) < 2 * missing:
            held_out.append(group)
            missing -= _size(group)
    return held_out or [min(drawn, key=_size)]


def _parted(pairs: Sequence[PreferencePair], held_out: Iterable[list[PreferencePair]]) -> Split:
    prompts = {pair.prompt for group in held_out for pair in group}
    train = [pair for pair in pairs if pair.prompt not in prompts]
    return train, [pair for pair in pairs if pair.prompt in prompts]
