"""What a pair costs in training on packed questions, against TRL's RewardTrainer with two sequences per pair.

    python -m bench.reward_training --model Qwen2.5-Coder-0.5B-Instruct \\
        --data output/tree_dataset/part0/20260101_120000/all_trees.json
    python -m bench.reward_training --model Qwen2.5-Coder-0.5B-Instruct --data final_data_train.json --questions 8

Questions with 8 or more candidates, as many of one database as train.py puts into a forward pass, from databases spread
evenly over the lengths of their prompts; from trees, the pairs are those that step 4.1 extracts with its defaults.
Packed is train.py's trainer, TRL's is its own with both sides of each pair tokenized; both with train.py's defaults,
but without dropout. They make one optimiser step over all pairs, on a freshly loaded model, alternating, after a
warm-up with one question. Figures are medians over the rounds.

A step that is measured is printed at once, as FIGURE lines: what is stopped leaves what it has.

(a) tokens that are computed per pair, padding not counted. (b) wall time of the step per pair; shown beside it is the
    peak of memory in the step.
(c) memory: the peak of a forward and a backward pass over one question whose candidates are repeated to 16, 32 and 64.
    The figure is the growth from 32 to 64 over twice that from 16 to 32: 1 when memory is linear, 2 when quadratic.
"""

import argparse
import ctypes
import gc
import itertools
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import train
from common.files import InputError, run_script
from common.model_folder import check_model_folder
from common.preference import PreferencePair, read_pairs
from common.rows import iterate_json
from reward.data import QuestionPairs, group_by_prompt
from reward.settings import TrainingSettings
from reward.tokens import TokenizedQuestion, load_tokenizer, pairs_of, tokenize
from tree.pairs.extraction import PairSettings, extract_pairs
from tree.tree_files import read_trees

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase
    from trl import RewardTrainer

CANDIDATES = 8  # of a question, at least
REPEATED = (16, 32, 64)  # candidates for which memory is measured


def figure(name: str, value: float, unit: str) -> None:
    """Print a measured value at once."""
    print(f"FIGURE {name} = {value:.6g} {unit}", flush=True)


# --- data -----------------------------------------------------------------------------------------------------------


def pairs_of_trees(path: str) -> list[PreferencePair]:
    return [pair for tree in read_trees(path) for pair in extract_pairs(tree, PairSettings()).pairs]


def load_questions(path: str) -> list[QuestionPairs]:
    """The questions of a pair file, or of the pairs that a file of trees gives."""
    first = next(iterate_json(path), None)
    from_trees = isinstance(first, dict) and "nodes" in first
    return group_by_prompt(pairs_of_trees(path) if from_trees else read_pairs(path))


def choose_questions(path: str, wanted: int) -> list[QuestionPairs]:
    """`wanted` questions with enough candidates, whole batches of one database each, evenly over the lengths."""
    rich = [question for question in load_questions(path) if len(question.candidates) >= CANDIDATES]
    of_database: dict[str, list[QuestionPairs]] = {}
    for question in sorted(rich, key=_length):
        of_database.setdefault(question.pairs[0].db_id, []).append(question)
    size = min(wanted, train.BATCH_SIZE)
    runs = [
        questions[start : start + size]
        for questions in of_database.values()
        for start in range(0, len(questions) - size + 1, size)
    ]
    count = -(-wanted // size)
    if len(runs) < count:
        raise InputError(
            f"{path}: only {len(rich)} questions have {CANDIDATES} or more candidates in pairs, and {len(runs)} times "
            f"{size} of them one database; {count} times are needed (--questions)"
        )
    chosen = [runs[(2 * number + 1) * len(runs) // (2 * count)] for number in range(count)]
    return list(itertools.chain(*chosen))[:wanted]


def _length(question: QuestionPairs) -> int:
    return sum(len(turn.content) for turn in question.prompt)


def describe(questions: list[QuestionPairs]) -> str:
    pairs = sum(len(question.pairs) for question in questions)
    candidates = sum(len(question.candidates) for question in questions)
    return f"{len(questions)} questions, {pairs} pairs, {candidates} distinct candidates"


# --- one optimiser step ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """What one optimiser step over all pairs cost."""

    seconds: float
    tokens: int
    loss: float
    peak_mb: float


@dataclass(frozen=True)
class Base:
    """A base model that each trainer loads afresh."""

    folder: str
    dtype: str
    tokenizer: "PreTrainedTokenizerBase"

    def load(self) -> "PreTrainedModel":
        from reward.model import base_dtype, load_base

        return load_base(self.folder, self.tokenizer.pad_token_id, base_dtype(self.dtype))


def step_settings(folder: str, batch_size: int, rows: int) -> TrainingSettings:
    """train.py's settings for one step over so many rows that writes nothing."""
    return replace(
        train.default_settings(),
        output_dir=folder,
        lora_dropout=0.0,
        batch_size=batch_size,
        gradient_accumulation=-(-rows // batch_size),
        max_steps=1,
    )


def pair_rows(questions: Iterable[TokenizedQuestion]) -> list[dict]:
    """A row of each pair for TRL's RewardTrainer."""
    return [
        {
            "chosen_ids": tokenized.prefix + tokenized.suffixes[chosen],
            "rejected_ids": tokenized.prefix + tokenized.suffixes[rejected],
        }
        for tokenized in questions
        for chosen, rejected in tokenized.question.places
    ]


def packed_trainer(base: Base, questions: list[TokenizedQuestion], folder: str) -> "RewardTrainer":
    settings = step_settings(folder, train.BATCH_SIZE, len(questions))
    return train.make_trainer(settings, base.load(), base.tokenizer, questions)


def trl_trainer(base: Base, questions: list[TokenizedQuestion], folder: str, batch_size: int) -> "RewardTrainer":
    from datasets import Dataset
    from trl import RewardTrainer

    settings = step_settings(folder, batch_size, len(pairs_of(questions)))
    model = base.load()
    model.set_attn_implementation("sdpa")
    return RewardTrainer(
        model=model,
        args=train.reward_config(settings),
        train_dataset=Dataset.from_list(pair_rows(questions)),
        processing_class=base.tokenizer,
        peft_config=train.lora_config(settings),
    )


MakeTrainer = Callable[[Base, list[TokenizedQuestion], str], "RewardTrainer"]


def one_step(make_trainer: MakeTrainer, base: Base, questions: list[QuestionPairs]) -> Step:
    from transformers.trainer_utils import SaveStrategy

    tokenized = tokenize(questions, base.tokenizer, sys.maxsize)
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(base, tokenized, folder)
        trainer.args.save_strategy = SaveStrategy.NO
        trainer.args.disable_tqdm = True
        forget_peak()
        start = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - start
        peak = peak_mb()
    logged = next(entry for entry in trainer.state.log_history if "loss" in entry)
    return Step(seconds, logged["num_tokens"], logged["loss"], peak)


def print_step(step: Step, pairs: int, way: str) -> None:
    name = f"training step of {pairs} pairs, {way}"
    figure(name, step.seconds, "s")
    figure(f"{name}: peak memory", step.peak_mb, "MB")
    figure(f"{name}: tokens", step.tokens, "")
    figure(f"{name}: loss", step.loss, "")


# --- memory ---------------------------------------------------------------------------------------------------------


def forget_peak() -> None:
    """Give free memory back, and let the peak start from what is held now."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM, see proc(5)
    except OSError as error:
        raise InputError(f"peak memory cannot be measured here ({error})") from None


def peak_mb() -> float:
    """Peak since `forget_peak`: of the GPU's tensors, or of the process."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 2**10


def repeated(row: dict, candidates: int) -> dict:
    """A row of `question_rows` with its candidates repeated to so many, and a pair of each and the next one."""
    suffixes = itertools.islice(itertools.cycle(row["suffixes"]), candidates)
    pairs = [[number, number + 1] for number in range(candidates - 1)]
    return row | {
        # the number makes them differ, otherwise they would be computed once
        "suffixes": [[number + 1, *suffix] for number, suffix in enumerate(suffixes)],
        "pairs": pairs,
        "relations": [0] * len(pairs),
    }


def memory_peaks(base: Base, question: QuestionPairs) -> list[float]:
    """Peak memory in MB of forward and backward pass for each of REPEATED."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = packed_trainer(base, tokenize([question], base.tokenizer, sys.maxsize), folder)
    if trainer.args.gradient_checkpointing:
        trainer.model.gradient_checkpointing_enable()
    trainer.model.train()
    peaks = []
    for candidates in REPEATED:
        inputs = trainer._prepare_inputs(trainer.data_collator([repeated(trainer.train_dataset[0], candidates)]))
        forget_peak()
        trainer.compute_loss(trainer.model, inputs).backward()
        peaks.append(peak_mb())
        trainer.model.zero_grad()
    return peaks


# --- the report -----------------------------------------------------------------------------------------------------


def parse_arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model", default="Qwen2.5-Coder-0.5B-Instruct", help="folder of the base model")
    add("--data", default="final_data_train.json", help="pair file, or all_trees.json")
    add("--questions", type=int, default=4, help="how many questions a step has")
    add("--rounds", type=int, default=3, help="repetitions of each measurement")
    add("--batch_size", type=int, default=4, help="pairs of a forward pass of plain TRL")
    add("--dtype", choices=("auto", "float32", "bfloat16"), default="auto", help="of the frozen base, as in train.py")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> None:
    args = parse_arguments(words)
    check_model_folder(args.model)
    questions = choose_questions(args.data, args.questions)
    pairs = sum(len(question.pairs) for question in questions)

    base = Base(args.model, args.dtype, load_tokenizer(args.model))
    ways = {"packed": packed_trainer, "TRL": partial(trl_trainer, batch_size=args.batch_size)}
    print(f"{describe(questions)}; TRL with {args.batch_size} pairs per pass; {args.rounds} rounds", flush=True)
    for make_trainer in ways.values():
        one_step(make_trainer, base, questions[:1])
    steps: dict[str, list[Step]] = {way: [] for way in ways}
    for _ in range(args.rounds):
        for way, make_trainer in ways.items():
            steps[way].append(one_step(make_trainer, base, questions))
            print_step(steps[way][-1], pairs, way)
    packed, plain = steps.values()
    peaks = memory_peaks(base, questions[-1])
    grown = [after - before for before, after in itertools.pairwise(peaks)]

    print(f"tokens per pair: packed {packed[0].tokens / pairs:.1f}, TRL {plain[0].tokens / pairs:.1f}")
    for way, of_way in steps.items():
        print(f"median seconds per pair, {way}: {median(step.seconds for step in of_way) / pairs:.4f}")
        print(f"median peak MB of a step, {way}: {median(step.peak_mb for step in of_way):.0f}")
    print(f"peak MB with {', '.join(map(str, REPEATED))} candidates: {', '.join(f'{peak:.0f}' for peak in peaks)}")
    speedup = median(slow.seconds / fast.seconds for slow, fast in zip(plain, packed, strict=True))
    print(f"PROMISE packed_training_tokens {plain[0].tokens / packed[0].tokens:.1f} GOAL >= 10")
    print(f"PROMISE packed_training_speedup {speedup:.1f} GOAL >= 5")
    print(f"PROMISE packed_memory_linear {grown[1] / max(2 * grown[0], 1e-3):.2f} GOAL <= 1.25")


if __name__ == "__main__":
    run_script(main)
