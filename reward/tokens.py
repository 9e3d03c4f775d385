"""Conversations as token ids: one query behind its prompt, a question with its candidates, the pairs to train on.

Training and scoring read the same tokens: user = the task prompt, assistant = the query with what executing it said
(`common.preference.answer`), through the model's own chat template.
"""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from common.files import InputError
from common.preference import PreferencePair, Prompt
from reward.data import (
    OfQuestion,
    QuestionPairs,
    contradictory_pairs,
    group_by_prompt,
    repeated_pairs,
    split_by_database,
    split_by_question,
)
from reward.settings import LoraSettings, TrainingSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TOO_LONG, IDENTICAL = "over max_length", "of identical queries"

# --- one query ------------------------------------------------------------------------------------------------------


def load_tokenizer(base: str | os.PathLike) -> "PreTrainedTokenizerBase":
    """The base model's tokenizer with a padding token of its own.

    Transformers reads the score at the last token that is not padding, so padding must differ from the end token.
    Raises InputError when the tokenizer has no chat template or nothing to pad with.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    if not tokenizer.chat_template:
        raise InputError(f"{base}: its tokenizer has no chat template; use an Instruct model")
    if tokenizer.pad_token is None or tokenizer.pad_token == tokenizer.eos_token:
        spare = [token for token in tokenizer.all_special_tokens if token != tokenizer.eos_token]
        if not spare:
            raise InputError(f"{base}: its tokenizer has no token to pad with besides the end token")
        tokenizer.pad_token = tokenizer.unk_token or spare[-1]
    return tokenizer


def encode(tokenizer: "PreTrainedTokenizerBase", prompt: Prompt | str, queries: Sequence[str]) -> list[list[int]]:
    """Token ids of each candidate behind one prompt, the same that TRL makes of a conversational pair.

    A text is one turn of the user. Raises InputError when the chat template refuses the conversation.
    """
    from jinja2 import TemplateError

    turns = [("user", prompt)] if isinstance(prompt, str) else prompt
    messages = [{"role": role, "content": content} for role, content in turns]
    conversations = [[*messages, {"role": "assistant", "content": sql}] for sql in queries]
    try:
        return tokenizer.apply_chat_template(conversations, return_dict=False)
    except TemplateError as error:
        roles = [role for role, _ in turns]
        raise InputError(f"the chat template refuses a prompt with the roles {roles}: {error}") from None


# --- questions ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TokenizedQuestion:
    """A question, the token ids that all its candidates begin with, and the rest of each candidate's."""

    question: QuestionPairs
    prefix: list[int]
    suffixes: list[list[int]]


def tokenize(
    questions: Iterable[QuestionPairs],
    tokenizer: "PreTrainedTokenizerBase",
    max_length: int,
    dropped: Counter[str] | None = None,
) -> list[TokenizedQuestion]:
    """The questions without the pairs that nothing can be learned from, which are counted in `dropped` by their kind.

    TOO_LONG: prompt and answer of a side have over `max_length` tokens. IDENTICAL: both sides have the same tokens.
    Candidates and questions that are in no pair any more are left out too.
    """
    tokenized = []
    dropped = Counter() if dropped is None else dropped
    for question in questions:
        sequences = encode(tokenizer, question.prompt, question.candidates)
        ids_of = dict(zip(question.candidates, sequences, strict=True))
        usable = []
        for pair in question.pairs:
            if kind := _why_dropped(ids_of[pair.chosen], ids_of[pair.rejected], max_length):
                dropped[kind] += 1
            else:
                usable.append(pair)
        tokenized += [_tokenized(rest, [ids_of[sql] for sql in rest.candidates]) for rest in group_by_prompt(usable)]
    return tokenized


def _why_dropped(chosen: list[int], rejected: list[int], max_length: int) -> str:
    if max(len(chosen), len(rejected)) > max_length:
        return TOO_LONG
    return IDENTICAL if chosen == rejected else ""


def _tokenized(question: QuestionPairs, sequences: list[list[int]]) -> TokenizedQuestion:
    shared = len(os.path.commonprefix(sequences))
    return TokenizedQuestion(question, sequences[0][:shared], [ids[shared:] for ids in sequences])


def pairs_of(questions: Iterable[TokenizedQuestion]) -> list[PreferencePair]:
    return [pair for tokenized in questions for pair in tokenized.question.pairs]


# --- the data of a training run -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TrainingData:
    """What a run trains on and validates with, and how many pairs were dropped before."""

    train: list[TokenizedQuestion]
    validation: list[TokenizedQuestion]
    dropped: int

    @property
    def counts(self) -> dict[str, int]:
        return {
            "train_pairs": len(pairs_of(self.train)),
            "validation_pairs": len(pairs_of(self.validation)),
            "dropped_pairs": self.dropped,
        }


def training_data(
    pairs: Sequence[PreferencePair], tokenizer: "PreTrainedTokenizerBase", settings: TrainingSettings
) -> TrainingData:
    """The pairs that something can be learned from, tokenized and split.

    What is dropped, doubtful and held out is printed. Raises InputError when nothing is left to train on.
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
    _tell_doubtful(pairs_of(tokenized))
    held_out = held_out_prompts(pairs_of(tokenized), settings)
    data = TrainingData(
        train=[part for part in tokenized if part.question.prompt not in held_out],
        validation=[part for part in tokenized if part.question.prompt in held_out],
        dropped=dropped.total(),
    )
    print(
        f"{data.counts['train_pairs']} training pairs of {len(data.train)} questions, "
        f"{data.counts['validation_pairs']} validation pairs of {len(data.validation)}, {data.dropped} dropped"
    )
    return data


def _tell_doubtful(pairs: Sequence[PreferencePair]) -> None:
    if repeated := repeated_pairs(pairs):
        print(f"note: {repeated} pairs repeat another one; each counts")
    if contradictory := contradictory_pairs(pairs):
        print(f"warning: {contradictory} pairs contradict others (chosen and rejected exchanged); all are trained on")


def held_out_prompts(pairs: Sequence[OfQuestion], settings: LoraSettings) -> set[Prompt]:
    """The prompts for validation, which are told: those of whole databases where these fit the fraction."""
    split = pairs, settings.validation_fraction, settings.seed
    by_database = split_by_database(*split)
    _, held_out = by_database or split_by_question(*split)
    if held_out:
        databases, all_databases = (len({pair.db_id for pair in part}) for part in (held_out, pairs))
        whole = f"{databases} of {all_databases} databases"
        print(f"held out for validation: {whole if by_database else 'questions, as whole databases do not fit'}")
    return {pair.prompt for pair in held_out}
