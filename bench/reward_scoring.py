"""Scoring the candidates of questions packed, against scoring the two sequences of each pair.

    python -m bench.reward_scoring --model Qwen2.5-Coder-0.5B-Instruct \\
        --data output/tree_dataset/part0/20260101_120000/all_trees.json
    python -m bench.reward_scoring --model Qwen2.5-Coder-0.5B-Instruct --data final_data_test.json --questions 16

Questions are chosen as in bench/reward_training.py. Packed is `reward.model.score`, as evaluate.py uses it. Against it
stands the common way: prompt and SQL of both sides of each pair in the order of the file, in padded batches of the same
number of sequences. Both include encoding, use the untrained head, and run alternately after a warm-up with one
question. Figures are medians over the rounds, each measurement is printed at once; the difference is the largest
between the two rewards of a candidate.
"""

import argparse
import time
from collections.abc import Sequence
from statistics import median

from bench.reward_training import choose_questions, describe, figure, forget_peak, peak_mb
from common.files import InputError, run_script
from common.model_folder import check_model_folder
from reward.data import Question


def packed(model, tokenizer, questions: Sequence[Question], batch_size: int) -> list[float]:
    """Rewards of the chosen and rejected side of each pair, each distinct candidate computed once."""
    from reward.model import score

    rewards = score(model, tokenizer, [(question.prompt, question.candidates) for question in questions], batch_size)
    return [
        values[place]
        for question, values in zip(questions, rewards, strict=True)
        for places in question.places
        for place in places
    ]


def pair_by_pair(model, tokenizer, questions: Sequence[Question], batch_size: int) -> list[float]:
    """The same rewards, each computed by itself in padded batches."""
    import torch

    from reward.model import encode

    sides = [
        (pair.prompt, sql) for question in questions for pair in question.pairs for sql in (pair.chosen, pair.rejected)
    ]
    sequences = [encode(tokenizer, prompt, sql) for prompt, sql in sides]
    rewards: list[float] = []
    for start in range(0, len(sequences), batch_size):
        batch = [{"input_ids": ids} for ids in sequences[start : start + batch_size]]
        inputs = tokenizer.pad(batch, padding_side="right", return_tensors="pt").to(model.device)
        with torch.no_grad():
            rewards += model(**inputs, use_cache=False).logits.squeeze(-1).float().tolist()
    return rewards


def parse_arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model", default="Qwen2.5-Coder-0.5B-Instruct", help="folder of the base model")
    add("--data", default="final_data_test.json", help="pair file, or all_trees.json")
    add("--questions", type=int, default=8, help="how many questions to score")
    add("--rounds", type=int, default=3, help="repetitions of each measurement")
    add("--batch_size", type=int, default=16, help="sequences computed at the same time")
    add("--dtype", choices=("float32", "bfloat16"), default="float32", help="of the base model")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> None:
    args = parse_arguments(words)
    if args.batch_size < 1:
        raise InputError(f"--batch_size {args.batch_size}: must be 1 or more")
    check_model_folder(args.model)
    questions = choose_questions(args.data, args.questions)

    from reward.model import load_reward_model

    model, tokenizer = load_reward_model(args.model, None, args.dtype)
    print(
        f"{describe(questions)}; {args.batch_size} sequences at a time, {args.dtype}, {args.rounds} rounds", flush=True
    )
    ways = {"packed": packed, "pair by pair": pair_by_pair}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    rewards = {}
    for way in ways.values():
        way(model, tokenizer, questions[:1], args.batch_size)
    pairs = sum(len(question.pairs) for question in questions)
    for _ in range(args.rounds):
        for name, way in ways.items():
            forget_peak()
            start = time.perf_counter()
            rewards[name] = way(model, tokenizer, questions, args.batch_size)
            seconds[name].append(time.perf_counter() - start)
            figure(f"scoring {pairs} pairs in {args.dtype}, {name}", seconds[name][-1], "s")
            figure(f"scoring {pairs} pairs in {args.dtype}, {name}: peak memory", peak_mb(), "MB")

    one, other = rewards.values()
    difference = max(abs(a - b) for a, b in zip(one, other, strict=True))
    speedup = median(slow / fast for fast, slow in zip(*seconds.values(), strict=True))
    for name, times in seconds.items():
        print(f"median seconds per pair, {name}: {median(times) / pairs:.4f}")
    print(f"rewards from {min(one):.4f} to {max(one):.4f}")
    print(f"PROMISE packed_scoring_speedup {speedup:.1f} GOAL >= 6")
    print(f"PROMISE packed_scoring_difference {difference:.7f} GOAL <= 0.0001")


if __name__ == "__main__":
    run_script(main)
