"""Questions as token ids, split for validation, and the rows of the datasets that trainers are given."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from common.files import InputError
from reward.data import (
    PreferencePair,
    Question,
    contradictory_pairs,
    group_by_prompt,
    repeated_pairs,
    split_by_database,
    split_by_question,
)
from reward.model import encode_candidates
from reward.settings import TrainingSettings

TOO_LONG, IDENTICAL = "over max_length", "of identical queries"
# A row of `question_rows` without pairs: it makes batches and processes even, and weighs nothing.
FILLER = {"db_id": "", "prefix": [0], "tails": [[]], "pairs": [], "margins": [], "relations": []}


@dataclass(frozen=True)
class TokenizedQuestion:
    """A question, the token ids that its candidates begin with, and those that each goes on with."""

    question: Question
    prefix: list[int]
    tails: list[list[int]]


def tokenize(
    questions: Iterable[Question], tokenizer, max_length: int, dropped: Counter[str] | None = None
) -> list[TokenizedQuestion]:
    """The questions without the pairs that nothing can be learned from, which are counted in `dropped` by their kind.

    TOO_LONG: prompt and SQL of a side have more than `max_length` tokens. IDENTICAL: both sides have the same tokens.
    Candidates and questions that are in no pair any more are left out too.
    """
    tokenized = []
    dropped = Counter() if dropped is None else dropped
    for question in questions:
        of = dict(
            zip(question.candidates, encode_candidates(tokenizer, question.prompt, question.candidates), strict=True)
        )
        kinds = [_kind(of[pair.chosen], of[pair.rejected], max_length) for pair in question.pairs]
        dropped.update(kind for kind in kinds if kind)
        kept = [pair for pair, kind in zip(question.pairs, kinds, strict=True) if not kind]
        tokenized += [_tokenized(rest, [of[sql] for sql in rest.candidates]) for rest in group_by_prompt(kept)]
    return tokenized


def _kind(chosen: list[int], rejected: list[int], max_length: int) -> str:
    """Why a pair is dropped, "" when it is not."""
    if max(len(chosen), len(rejected)) > max_length:
        return TOO_LONG
    return IDENTICAL if chosen == rejected else ""


def _tokenized(question: Question, sequences: list[list[int]]) -> TokenizedQuestion:
    shared = len(os.path.commonprefix(sequences))
    return TokenizedQuestion(question, sequences[0][:shared], [ids[shared:] for ids in sequences])


def learnable_questions(
    pairs: Sequence[PreferencePair], tokenizer, settings: TrainingSettings
) -> tuple[list[TokenizedQuestion], int]:
    """The pairs that something can be learned from, as tokenized questions, and how many others were dropped.

    What is doubtful about them is printed. Raises InputError when nothing is left.
    """
    dropped: Counter[str] = Counter()
    tokenized = tokenize(group_by_prompt(pairs), tokenizer, settings.max_length, dropped)
    kinds = ", ".join(f"{count} {kind}" for kind, count in dropped.items())
    if not tokenized:
        raise InputError(
            f"{settings.data_path}: no pair can be trained on ({kinds}); give pairs of different queries within "
            f"--max_length {settings.max_length}"
        )
    if dropped:
        print(f"dropped pairs: {kinds}")
    kept = [pair for part in tokenized for pair in part.question.pairs]
    if repeated := repeated_pairs(kept):
        print(f"note: {repeated} pairs repeat another one; each counts")
    if contradictory := contradictory_pairs(kept):
        print(f"warning: {contradictory} pairs contradict others (chosen and rejected exchanged); all are trained on")
    return tokenized, dropped.total()


def tokenized_split(
    pairs: Sequence[PreferencePair], tokenizer, settings: TrainingSettings
) -> tuple[list[TokenizedQuestion], list[TokenizedQuestion], dict[str, int]]:
    """Training and validation pairs as tokenized questions, and how many pairs there are.

    What is held out, and how, is printed. Raises InputError when nothing is left to train on.
    """
    tokenized, dropped = learnable_questions(pairs, tokenizer, settings)
    kept = [pair for part in tokenized for pair in part.question.pairs]
    how = kept, settings.validation_fraction, settings.seed
    by_database = split_by_database(*how)
    to_train_on, held_out = by_database or split_by_question(*how)
    if held_out:
        databases, all_databases = (len({pair.db_id for pair in part}) for part in (held_out, kept))
        whole = f"{databases} of {all_databases} databases"
        print(f"held out for validation: {whole if by_database else 'questions, as whole databases do not fit'}")
    prompts = {pair.prompt for pair in held_out}
    train = [part for part in tokenized if part.question.prompt not in prompts]
    validation = [part for part in tokenized if part.question.prompt in prompts]
    counts = {"train_pairs": len(to_train_on), "validation_pairs": len(held_out), "dropped_pairs": dropped}
    print(
        f"{counts['train_pairs']} training pairs of {len(train)} questions, {counts['validation_pairs']} validation "
        f"pairs of {len(validation)}, {dropped} dropped"
    )
    return train, validation, counts


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
