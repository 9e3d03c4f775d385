"""Which questions are computed together in training, and as which tensors."""

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor
from torch.utils.data import Sampler

from reward.packing import pack, pad_rows
from reward.tokens import TokenizedQuestion

NOTHING = -100  # in the place of a pair or a label that is none: what Trainer pads with
# A row of `question_rows` without pairs: it makes batches and processes even, and weighs nothing.
PADDING_QUESTION = {"db_id": "", "prefix": [0], "suffixes": [[]], "pairs": [], "relations": []}


def question_rows(questions: Iterable[TokenizedQuestion], relations: Sequence[str]) -> list[dict[str, list]]:
    """A row of each question for `datasets`: database, the shared tokens once, the candidates' own, their pairs.

    A pair is the indices of chosen and rejected among the candidates; its relation is an index into `relations`.
    """
    return [
        {
            "db_id": tokenized.question.pairs[0].db_id,
            "prefix": tokenized.prefix,
            "suffixes": tokenized.suffixes,
            "pairs": tokenized.question.places,
            "relations": [relations.index(pair.relation) for pair in tokenized.question.pairs],
        }
        for tokenized in questions
    ]


@dataclass(frozen=True)
class QuestionCollator:
    """Questions (rows of `question_rows`) -> the tensors of `reward.packing.pad_rows` and their pairs.

    pairs: [Q, P, 2], indices of chosen and rejected among the batch's scores. relations: [Q, P]. Questions
    with fewer than P pairs are filled with pairs of relation NOTHING. PADDING_QUESTIONs are left out, but for one of a
    batch that has nothing else: each process makes every forward pass.
    """

    pad_token_id: int
    token_budget: int

    def __call__(self, questions: Sequence[dict]) -> dict[str, Tensor]:
        questions = [question for question in questions if question["pairs"]] or questions[:1]
        sequences = [
            ((number, candidate), question["prefix"] + suffix)
            for number, question in enumerate(questions)
            for candidate, suffix in enumerate(question["suffixes"])
        ]
        rows = pack(sorted(sequences, key=lambda sequence: sequence[1]), self.token_budget)
        score_of = {key: index for index, key in enumerate(chain.from_iterable(row.keys for row in rows))}
        pairs = [
            [[score_of[number, candidate] for candidate in pair] for pair in question["pairs"]]
            for number, question in enumerate(questions)
        ]
        return {
            "pairs": _filled(pairs, [0, 0]),  # first, because accelerate reads the batch size off it
            "relations": _filled([question["relations"] for question in questions], NOTHING),
            **pad_rows(rows, self.pad_token_id),
        }


# A row that makes batches and processes even, and weighs nothing.
PADDING_COMPLETION = {"db_id": "", "input_ids": [0], "learned": 0}


@dataclass(frozen=True)
class CompletionCollator:
    """Rows of `input_ids`, of which the last `learned` ones are to be learned -> the tensors of `pad_rows`, and these.

    labels: [Q, T], the tokens to be learned. places: [Q, T], those before them, among the [R * L] tokens of the rows.
    Filled with NOTHING and 0. PADDING_COMPLETIONs are left out as by QuestionCollator.
    """

    pad_token_id: int
    token_budget: int

    def __call__(self, examples: Sequence[dict]) -> dict[str, Tensor]:
        examples = [example for example in examples if example["learned"]] or examples[:1]
        sequences = sorted(enumerate(example["input_ids"] for example in examples), key=lambda sequence: sequence[1])
        rows = pack(sequences, self.token_budget)
        length = max(map(len, rows))
        places: dict[int, list[int]] = {}
        for start, row in zip(range(0, length * len(rows), length), rows, strict=True):
            for number, last in zip(row.keys, row.last_tokens, strict=True):
                path = row.path(last, examples[number]["learned"] + 1)
                places[number] = [start + index for index in path[:-1]]
        labels = [example["input_ids"][-example["learned"] :] if example["learned"] else [] for example in examples]
        return {
            "labels": _filled(labels, NOTHING),  # first, because accelerate reads the batch size off it
            "places": _filled([places[number] for number in range(len(examples))], 0),
            **pad_rows(rows, self.pad_token_id),
        }


def _filled(lists: Sequence[list], filling: float | list[int]) -> Tensor:
    """A tensor of lists of different lengths, filled to the longest, at least one entry."""
    longest = max(1, *map(len, lists))
    return torch.tensor([entries + [filling] * (longest - len(entries)) for entries in lists])


class DatabaseSampler(Sampler[int]):
    """Questions in random order, but so that batches hold questions of one database, whose prompts begin alike.

    What is left over of each database fills the other batches. At the end the index behind the last question, that of a
    PADDING_QUESTION, is given until all processes have equally many full batches: accelerate would repeat questions.
    The order follows from seed and epoch alone, so it is the same on every process and when training is resumed.
    """

    def __init__(self, db_ids: Sequence[str], batch_size: int, seed: int, processes: int = 1):
        self.db_ids, self.batch_size, self.seed, self.epoch = list(db_ids), batch_size, seed, 0
        self.padding = -len(self.db_ids) % (batch_size * processes)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.db_ids) + self.padding

    def __iter__(self) -> Iterator[int]:
        draw, count = random.Random(f"{self.seed}/{self.epoch}"), len(self.db_ids)
        of_database: dict[str, list[int]] = {}
        for number in draw.sample(range(count), count):
            of_database.setdefault(self.db_ids[number], []).append(number)
        batches, left_over = [], []
        for numbers in of_database.values():
            *full, rest = self._cut(numbers)
            batches += full
            left_over += rest
        *full, rest = self._cut(left_over)
        batches += full
        draw.shuffle(batches)
        return chain(*batches, rest, [count] * self.padding)

    def _cut(self, numbers: list[int]) -> list[list[int]]:
        """Full batches, then what is left, which may be nothing."""
        starts = range(0, len(numbers) + 1, self.batch_size)
        return [numbers[start : start + self.batch_size] for start in starts]
