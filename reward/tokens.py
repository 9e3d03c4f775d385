"""Questions as token ids, and the rows of the datasets that trainers are given."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from reward.data import Question, group_by_prompt
from reward.model import encode_candidates


@dataclass(frozen=True)
class TokenizedQuestion:
    """A question, the token ids that its candidates begin with, and those that each goes on with."""

    question: Question
    prefix: list[int]
    tails: list[list[int]]


def tokenize(questions: Iterable[Question], tokenizer, max_length: int) -> list[TokenizedQuestion]:
    """The questions without the pairs in which prompt and SQL have more than `max_length` tokens.

    Candidates and questions that are in no pair any more are left out too.
    """
    tokenized = []
    for question in questions:
        sequences = encode_candidates(tokenizer, question.prompt, question.candidates)
        of = {sql: ids for sql, ids in zip(question.candidates, sequences, strict=True) if len(ids) <= max_length}
        for kept in group_by_prompt(pair for pair in question.pairs if pair.chosen in of and pair.rejected in of):
            tokenized.append(_tokenized(kept, [of[sql] for sql in kept.candidates]))
    return tokenized


def _tokenized(question: Question, sequences: list[list[int]]) -> TokenizedQuestion:
    shared = len(os.path.commonprefix(sequences))
    return TokenizedQuestion(question, sequences[0][:shared], [ids[shared:] for ids in sequences])


def question_rows(
    questions: Iterable[TokenizedQuestion], margin_scale: float, relations: Sequence[str]
) -> list[dict[str, list]]:
    """A row of each question for `SharedPrefixTrainer`: database, the prompt once, the candidates' own tokens, pairs.

    A pair's margin is `margin_scale` times its margin by distance, its relation a place in `relations`.
    """
    return [
        {
            "db_id": tokenized.question.pairs[0].db_id,
            "prefix": tokenized.prefix,
            "tails": tokenized.tails,
            "pairs": tokenized.question.places,
            "margins": [margin_scale * pair.margin for pair in tokenized.question.pairs],
            "relations": [relations.index(pair.relation) for pair in tokenized.question.pairs],
        }
        for tokenized in questions
    ]


def pair_rows(questions: Iterable[TokenizedQuestion], margin_scale: float) -> list[dict]:
    """A row of each pair for TRL's RewardTrainer, with the margin as in `question_rows`."""
    return [
        {
            "chosen_ids": tokenized.prefix + tokenized.tails[chosen],
            "rejected_ids": tokenized.prefix + tokenized.tails[rejected],
            "margin": margin_scale * pair.margin,
        }
        for tokenized in questions
        for pair, (chosen, rejected) in zip(tokenized.question.pairs, tokenized.question.places, strict=True)
    ]
