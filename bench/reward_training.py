"""What a pair costs in training on packed questions, against TRL's RewardTrainer with two sequences per pair.

    python -m bench.reward_training --model Qwen2.5-Coder-0.5B-Instruct \\
        --data output/tree_dataset/part0/20260101_120000/all_trees.json
    python -m bench.reward_training --model Qwen2.5-Coder-0.5B-Instruct --data final_data_train.json --questions 8

Questions with 8 or more candidates, as many of one database as train.py puts into a forward pass, from databases spread
evenly over the lengths of their prompts; from trees, the pairs are those that step 4.1 extracts with its defaults. Both
ways are train.py's (SHARE_PREFIX true and false), with its defaults but without dropout, and make one optimiser step
over all pairs, on a freshly loaded model, alternating, after a warm-up with one question. Figures are medians over the
rounds.

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
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from common.files import InputError, run_script
from common.model_folder import check_model_folder
from common.rows import iterate_json
from reward.data import PreferencePair, Question, Turn, group_by_prompt, load_pairs
from reward.settings import TrainingSettings
from tree.pairs.extraction import PairSettings, extract_pairs
from tree.tree_files import read_trees

CANDIDATES = 8  # of a question, at least
REPEATED = (16, 32, 64)  # candidates for which memory is measured


def figure(name: str, value: float, unit: str) -> None:
    """Print a measured value at once."""
    print(f"FIGURE {name} = {value:.6g} {unit}", flush=True)


# --- data -----------------------------------------------------------------------------------------------------------


def pairs_of_trees(path: str) -> list[PreferencePair]:
    return [
        PreferencePair(
            prompt=(Turn("user", pair.prompt),),
            chosen=pair.chosen,
            rejected=pair.rejected,
            question_id=pair.question_id,
            db_id=pair.db_id,
            relation=pair.relation,
            chosen_dist=pair.chosen_dist,
            rejected_dist=pair.rejected_dist,
        )
        for tree in read_trees(path)
        for pair in extract_pairs(tree, PairSettings()).pairs
    ]


def load_questions(path: str) -> list[Question]:
    """The questions of a pair file, or of the pairs that a file of trees gives."""
    first = next(iterate_json(path), None)
    from_trees = isinstance(first, dict) and "nodes" in first
    return group_by_prompt(pairs_of_trees(path) if from_trees else load_pairs(path))


def choose_questions(path: str, wanted: int) -> list[Question]:
    """`wanted` questions with enough candidates, whole batches of one database each, evenly over the lengths."""
    from train import BATCH_SIZE

    rich = [question for question in load_questions(path) if len(question.candidates) >= CANDIDATES]
    of_database: dict[str, list[Question]] = {}
    for question in sorted(rich, key=_length):
        of_database.setdefault(question.pairs[0].db_id, []).append(question)
    size = min(wanted, BATCH_SIZE)
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


def _length(question: Question) -> int:
    return sum(len(turn.content) for turn in question.prompt)


def describe(questions: list[Question]) -> str:
    pairs, candidates = (sum(len(part) for part in parts) for parts in zip(*map(_parts, questions), strict=True))
    return f"{len(questions)} questions, {pairs} pairs, {candidates} distinct candidates"


def _parts(question: Question) -> tuple:
    return question.pairs, question.candidates


# --- one optimiser step ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """What one optimiser step over all pairs cost."""

    seconds: float
    tokens: int
    loss: float
    peak_mb: float


def train_settings(**changed) -> TrainingSettings:
    """train.py's settings, but for those that are given."""
    import train

    return replace(train.default_settings(), **changed)


def trainer_for(args: argparse.Namespace, tokenizer, questions: list[Question], share_prefix: bool, folder: str):
    """A trainer of a freshly loaded model that makes one step over all pairs and writes nothing."""
    from transformers.trainer_utils import SaveStrategy

    import train
    from reward.model import base_dtype, load_base
    from reward.tokens import tokenize

    tokenized = tokenize(questions, tokenizer, sys.maxsize)
    pairs = sum(len(question.pairs) for question in questions)
    batch_size = train.BATCH_SIZE if share_prefix else args.batch_size
    passes = -(-(len(questions) if share_prefix else pairs) // batch_size)
    settings = train_settings(
        output_dir=folder,
        share_prefix=share_prefix,
        lora_dropout=0.0,
        batch_size=batch_size,
        gradient_accumulation=passes,
        max_steps=1,
    )
    model = load_base(args.model, tokenizer.pad_token_id, base_dtype(args.dtype))
    trainer = train.make_trainer(settings, model, tokenizer, tokenized, [])
    trainer.args.save_strategy = SaveStrategy.NO
    trainer.args.disable_tqdm = True
    return trainer


def one_step(args: argparse.Namespace, tokenizer, questions: list[Question], share_prefix: bool) -> Step:
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_for(args, tokenizer, questions, share_prefix, folder)
        forget_peak()
        start = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - start
        peak = peak_mb()
    logged = next(entry for entry in trainer.state.log_history if "loss" in entry)
    return Step(seconds, logged["num_tokens"], logged["loss"], peak)


def measured_step(args: argparse.Namespace, tokenizer, questions: list[Question], share_prefix: bool) -> Step:
    step = one_step(args, tokenizer, questions, share_prefix)
    pairs = sum(len(question.pairs) for question in questions)
    name = f"training step of {pairs} pairs, {'packed' if share_prefix else 'TRL'}"
    figure(name, step.seconds, "s")
    figure(f"{name}: peak memory", step.peak_mb, "MB")
    figure(f"{name}: tokens", step.tokens, "")
    figure(f"{name}: loss", step.loss, "")
    return step


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


def memory_peaks(args: argparse.Namespace, tokenizer, question: Question) -> list[float]:
    """Peak memory in MB of forward and backward pass for each of REPEATED."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_for(args, tokenizer, [question], True, folder)
        if trainer.args.gradient_checkpointing:
            trainer.model.gradient_checkpointing_enable()
        trainer.model.train()
        row, peaks = trainer.train_dataset[0], []
        for count in REPEATED:
            # the number makes them differ, otherwise they would be computed once
            tails = [
                [number + 1, *tail]
                for number, tail in enumerate(itertools.islice(itertools.cycle(row["tails"]), count))
            ]
            pairs = [[place, place + 1] for place in range(count - 1)]
            repeated = row | {
                "tails": tails,
                "pairs": pairs,
                "margins": [0.0] * len(pairs),
                "relations": [0] * len(pairs),
            }
            inputs = trainer._prepare_inputs(trainer.data_collator([repeated]))
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

    from reward.model import load_tokenizer

    tokenizer = load_tokenizer(args.model)
    print(f"{describe(questions)}; TRL with {args.batch_size} pairs per pass; {args.rounds} rounds", flush=True)
    for share_prefix in (True, False):
        one_step(args, tokenizer, questions[:1], share_prefix)
    packed, plain = [], []
    for _ in range(args.rounds):
        packed.append(measured_step(args, tokenizer, questions, True))
        plain.append(measured_step(args, tokenizer, questions, False))
    peaks = memory_peaks(args, tokenizer, questions[-1])
    grown = [after - before for before, after in itertools.pairwise(peaks)]

    print(f"tokens per pair: packed {packed[0].tokens / pairs:.1f}, TRL {plain[0].tokens / pairs:.1f}")
    for name, steps in (("packed", packed), ("TRL", plain)):
        print(f"median seconds per pair, {name}: {median(step.seconds for step in steps) / pairs:.4f}")
        print(f"median peak MB of a step, {name}: {median(step.peak_mb for step in steps):.0f}")
    print(f"peak MB with {', '.join(map(str, REPEATED))} candidates: {', '.join(f'{peak:.0f}' for peak in peaks)}")
    speedup = median(slow.seconds / fast.seconds for slow, fast in zip(plain, packed, strict=True))
    print(f"PROMISE packed_training_tokens {plain[0].tokens / packed[0].tokens:.1f} GOAL >= 10")
    print(f"PROMISE packed_training_speedup {speedup:.1f} GOAL >= 5")
    print(f"PROMISE packed_memory_linear {grown[1] / max(2 * grown[0], 1e-3):.2f} GOAL <= 1.25")


if __name__ == "__main__":
    run_script(main)
