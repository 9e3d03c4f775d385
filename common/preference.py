"""Preference pairs: one class, its row in a file, and the reader of such files.

The files are JSON lists (or JSON Lines) as `datasets` and TRL's RewardTrainer and DPOTrainer load them: this project's
own (see docs/formats.md) and those of other origin. Not here: which pairs a tree gives (`tree.pairs.extraction`).
"""

import os
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, fields, replace
from hashlib import sha256
from typing import NamedTuple

from common.files import InputError
from common.rows import iterate_rows

MERGE_FIRST = "make it with `python -m tree.merge_shards` (step 4.2)"
MESSAGES = 'text, or a list of {"role": …, "content": …} with contents that are not empty'
QUERIES = {"prompt": (list | str, None), "chosen": list | str, "rejected": list | str}
# what this project's own files have beside prompt and queries
OWN_COLUMNS = {
    **{"chosen_result": str, "rejected_result": str},
    **{"question_id": int, "db_id": str, "chosen_node": str, "rejected_node": str},
    **{"chosen_dist": int, "rejected_dist": int | None, "relation": str, "tree_id": str},
    **{"rejected_outcome": str, "difficulty": str},
}
RESULTS = ("chosen_result", "rejected_result")


class Turn(NamedTuple):
    """One message of a conversation."""

    role: str
    content: str


Prompt = tuple[Turn, ...]  # what stands before an answer; it can be a key


def user_prompt(text: str) -> Prompt:
    """The prompt of one user message."""
    return (Turn("user", text),)


def prompt_digest(prompt: Prompt) -> str:
    """16 hex digits of the SHA-256 of a conversation."""
    text = "\0".join(part for turn in prompt for part in turn)
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


@dataclass(frozen=True)
class PreferencePair:
    """One preference: after `prompt`, the query `chosen` is better than `rejected`.

    Distances are revision distances (None: no correct query was reached); `relation` is what the rejected node of the
    tree is to the chosen one; the results are what executing each query said. A file of another origin may say no more
    than prompt and queries: then `question_id` and the distances are None, the texts "".
    """

    prompt: Prompt
    chosen: str
    rejected: str
    question_id: int | None = None
    db_id: str = ""
    chosen_node: str = ""
    rejected_node: str = ""
    chosen_dist: int | None = None
    rejected_dist: int | None = None
    relation: str = ""
    tree_id: str = ""
    rejected_outcome: str = ""
    difficulty: str = ""
    chosen_result: str = ""
    rejected_result: str = ""

    @property
    def question(self) -> int | Prompt:
        """What tells its question from others: the id, without one the prompt."""
        return self.prompt if self.question_id is None else self.question_id

    @property
    def nodes(self) -> tuple[str, str]:
        return self.chosen_node, self.rejected_node

    @property
    def distance_gap(self) -> str:
        """How many revisions further the rejected query is from a correct one: "never" when it reached none.

        "" for a pair that does not say.
        """
        if self.chosen_dist is None:
            return ""
        return "never" if self.rejected_dist is None else str(self.rejected_dist - self.chosen_dist)

    def as_read(self, result_length: int) -> "PreferencePair":
        """The pair as a reward model reads it: in the place of each query its `answer`."""
        return replace(
            self,
            chosen=answer(self.chosen, self.chosen_result, result_length),
            rejected=answer(self.rejected, self.rejected_result, result_length),
        )

    def to_json(self) -> dict:
        """The row of a pair file."""
        return {
            "prompt": [turn._asdict() for turn in self.prompt],
            "chosen": [{"role": "assistant", "content": self.chosen}],
            "rejected": [{"role": "assistant", "content": self.rejected}],
            **{name: getattr(self, name) for name in OWN_COLUMNS},
        }


def answer(sql: str, result: str, result_length: int) -> str:
    """The assistant's turn as a reward model reads it: a query, and below it what executing it said.

    Of `result` at most `result_length` characters are shown (0 = none: the query alone); the query is never cut.
    That a verifier should read results is LEVER's (arXiv 2302.08468).
    """
    if not result_length or not result:
        return sql
    shown = result if len(result) <= result_length else result[: result_length - 1] + "…"
    return f"{sql}\n\n{shown}"


# --- reading --------------------------------------------------------------------------------------------------------


def iterate_pairs(
    path: str | os.PathLike, required: Collection[str] = (), fix: str = MERGE_FIRST
) -> Iterator[PreferencePair]:
    """The pairs of a file, one at a time; an empty list gives none.

    A row has `chosen` and `rejected`, with or without `prompt`: lists of messages, or texts (`prompt` is then the
    user's turn, the others the assistant's). Without `prompt` they hold the whole conversation. Everything but the last
    message must be the same on both sides. What else is missing or null is as if the file did not say; `required` names
    those of OWN_COLUMNS that each row must have. Other columns are left out.
    Raises InputError naming the file and the first row that does not fit.
    """
    defaults = {field.name: field.default for field in fields(PreferencePair)}
    own = {name: kind if name in required else (kind, defaults[name]) for name, kind in OWN_COLUMNS.items()}
    for number, row in enumerate(iterate_rows(path, QUERIES | own, fix)):
        yield _pair(row, f"{path}: row {number}")


def read_pairs(path: str | os.PathLike) -> list[PreferencePair]:
    """All pairs of a file, of which there must be one. Raises InputError as `iterate_pairs` does."""
    pairs = list(iterate_pairs(path))
    if not pairs:
        raise InputError(f"{path}: an empty list; {MERGE_FIRST}")
    return pairs


def check_results(path: str | os.PathLike, pairs: Iterable[PreferencePair]) -> None:
    """Raise InputError unless the pairs of a file say what executing their queries gave."""
    for number, pair in enumerate(pairs):
        if not (pair.chosen_result and pair.rejected_result):
            raise InputError(
                f"{path}: row {number}: {' or '.join(RESULTS)} is missing, which this reward model reads; extract the "
                "pairs again (python -m tree.dpo_extractor), or train without them (--result_length 0)"
            )


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
    own = {name: row[name] for name in OWN_COLUMNS}
    return PreferencePair(chosen[:-1], chosen[-1].content, rejected[-1].content, **own)


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
    if not messages or not all(isinstance(turn, dict) and _is_turn(turn) for turn in messages):
        raise InputError(f"{where} must be {MESSAGES}")
    return tuple(Turn(turn["role"], turn["content"]) for turn in messages)


def _is_turn(message: dict) -> bool:
    content = message.get("content")
    return isinstance(message.get("role"), str) and isinstance(content, str) and bool(content.strip())
