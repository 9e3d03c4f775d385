"""Preference pairs as questions with candidates, and the split for validation.  Pure."""

import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from common.files import InputError
from common.preference import PreferencePair, Prompt

MIN_DATABASES = 5  # so many before whole ones are held out


@dataclass(frozen=True)
class QuestionPairs:
    """What pairs tell of a question: its prompt, its distinct candidate queries and the pairs among them."""

    prompt: Prompt
    candidates: tuple[str, ...]
    pairs: tuple[PreferencePair, ...]

    @property
    def places(self) -> list[tuple[int, int]]:
        """Of each pair, the places of chosen and rejected among the candidates."""
        place = {sql: index for index, sql in enumerate(self.candidates)}
        return [(place[pair.chosen], place[pair.rejected]) for pair in self.pairs]


# --- grouping and splitting -----------------------------------------------------------------------------------------


def group_by_prompt(pairs: Iterable[PreferencePair]) -> list[QuestionPairs]:
    """The questions of the pairs, each prompt once, in the order in which they first appear."""
    groups: dict[Prompt, list[PreferencePair]] = {}
    for pair in pairs:
        groups.setdefault(pair.prompt, []).append(pair)
    questions = []
    for prompt, group in groups.items():
        queries = dict.fromkeys(sql for pair in group for sql in (pair.chosen, pair.rejected))
        questions.append(QuestionPairs(prompt, tuple(queries), tuple(group)))
    return questions


def repeated_pairs(pairs: Iterable[PreferencePair]) -> int:
    """How many pairs stand again: prompt, chosen and rejected of an earlier one. Each counts in training."""
    seen = Counter((pair.prompt, pair.chosen, pair.rejected) for pair in pairs)
    return seen.total() - len(seen)


def contradictory_pairs(pairs: Iterable[PreferencePair]) -> int:
    """How many pairs have their opposite among the pairs: the same prompt, chosen and rejected exchanged."""
    seen = Counter((pair.prompt, pair.chosen, pair.rejected) for pair in pairs)
    return sum(count for (prompt, chosen, rejected), count in seen.items() if (prompt, rejected, chosen) in seen)


class OfQuestion(Protocol):
    """What is split by where it is from: a preference pair, or what else says its prompt, question and database."""

    prompt: Prompt
    question: int | Prompt
    db_id: str


Part = TypeVar("Part", bound=OfQuestion)
Split = tuple[list[Part], list[Part]]  # to train on, for validation


def split_by_question(pairs: Sequence[Part], fraction: float, seed: int) -> Split[Part]:
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


def split_by_database(pairs: Sequence[Part], fraction: float, seed: int) -> Split[Part] | None:
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


def _groups(pairs: Sequence[Part], keys_of: Callable[[Part], list[tuple]]) -> list[list[Part]]:
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
    groups: dict[tuple, list[Part]] = {}
    for pair in pairs:
        groups.setdefault(top(keys_of(pair)[0]), []).append(pair)
    return sorted(groups.values(), key=lambda group: min(repr(keys_of(pair)[0]) for pair in group))


def _size(group: list[Part]) -> int:
    return len({pair.prompt for pair in group})


def _hold_out(groups: Sequence[list[Part]], fraction: float, seed: int) -> list[list[Part]]:
    """Groups in the order drawn by `seed`, each that brings their prompts nearer to `fraction` of all; at least one."""
    drawn = random.Random(seed).sample(groups, len(groups))
    missing = fraction * sum(map(_size, groups))
    held_out = []
    for group in drawn:
        if _size(group) < 2 * missing:
            held_out.append(group)
            missing -= _size(group)
    return held_out or [min(drawn, key=_size)]


def _parted(pairs: Sequence[Part], held_out: Iterable[list[Part]]) -> Split[Part]:
    prompts = {pair.prompt for group in held_out for pair in group}
    train = [pair for pair in pairs if pair.prompt not in prompts]
    return train, [pair for pair in pairs if pair.prompt in prompts]
