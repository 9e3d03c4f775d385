"""Two ways of scoring the same candidates: what they cost, and how far their rewards and orders differ.

    python -m bench.reward_scoring --model Qwen2.5-Coder-0.5B-Instruct \\
        --data output/tree_dataset/part0/20260101_120000/all_trees.json
    python -m bench.reward_scoring --compare precision --model Qwen2.5-Coder-0.5B-Instruct \\
        --adapter qwen-reward-model-sql-train --data final_data_test.json
    python -m bench.reward_scoring --compare vllm --model Qwen2.5-Coder-0.5B-Instruct \\
        --adapter qwen-reward-model-sql-train --data final_data_test.json

packing (the default): `reward.model.score`, as evaluate.py uses it, against the common way, prompt and SQL of both
sides of each pair in the order of the file, in padded batches of the same number of sequences. Questions are chosen as
in bench/reward_training.py. Both include encoding, use the untrained head, and run alternately after a warm-up with one
question. Figures are medians over the rounds, each measurement is printed at once; the difference is the largest
between the two rewards of a candidate.

precision: the same rewards with the base in float32 and in bfloat16; LoRA and score head compute in float32 in both.
Printed are how far the two rewards of a candidate differ, beside how far those of one question's candidates lie apart;
how many pairs and best candidates change; the pairwise accuracy of both; and the time. All questions of the file.

vllm: `reward.model.score` against vLLM's pooling runner on the merged model (`reward.export`), its prefix cache emptied
before each round. Both get each distinct candidate once, candidates of a question side by side, and encode them in the
time that is taken; rounds alternate after a warm-up with one question.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING

from bench.reward_training import choose_questions, describe, figure, forget_peak, load_questions, peak_mb
from common.files import InputError, run_script
from common.model_folder import check_model_folder
from reward.data import QuestionPairs
from reward.export import export
from reward.metrics import reward_differences, wins
from reward.tokens import encode
from tree.generator import CPU_BLOCK, on_gpu, prepare_cpu

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase
    from vllm import LLM

PRECISIONS = ("float32", "bfloat16")
BATCHED_TOKENS = 8_192  # of vLLM in one step: several whole prompts
MERGED = 0.001  # LoRA's products are rounded once more when they are merged


@dataclass(frozen=True)
class ScoringBench:
    """The flags, by name."""

    compare: str
    model: str
    data: str
    batch_size: int
    questions: int
    rounds: int
    dtype: str
    adapter: str


# --- packing --------------------------------------------------------------------------------------------------------


def packed(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", questions: Sequence[QuestionPairs], batch_size: int
) -> list[float]:
    """Rewards of the chosen and rejected side of each pair, each distinct candidate computed once."""
    from reward.model import score

    rewards = score(model, tokenizer, [(question.prompt, question.candidates) for question in questions], batch_size)
    return [
        values[place]
        for question, values in zip(questions, rewards, strict=True)
        for places in question.places
        for place in places
    ]


def pair_by_pair(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", questions: Sequence[QuestionPairs], batch_size: int
) -> list[float]:
    """The same rewards, each computed by itself in padded batches."""
    import torch

    pairs = chain.from_iterable(question.pairs for question in questions)
    sequences = [ids for pair in pairs for ids in encode(tokenizer, pair.prompt, [pair.chosen, pair.rejected])]
    rewards: list[float] = []
    for start in range(0, len(sequences), batch_size):
        batch = [{"input_ids": ids} for ids in sequences[start : start + batch_size]]
        inputs = tokenizer.pad(batch, padding_side="right", return_tensors="pt").to(model.device)
        with torch.no_grad():
            rewards += model(**inputs, use_cache=False).logits.squeeze(-1).float().tolist()
    return rewards


def compare_packing(settings: ScoringBench) -> None:
    from reward.model import load_reward_model

    questions = choose_questions(settings.data, settings.questions)
    pairs = sum(len(question.pairs) for question in questions)
    model, tokenizer = load_reward_model(settings.model, None, settings.dtype)
    print(
        f"{describe(questions)}; {settings.batch_size} sequences at a time, {settings.dtype}, {settings.rounds} rounds",
        flush=True,
    )
    ways = {"packed": packed, "pair by pair": pair_by_pair}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    rewards = {}
    for way in ways.values():
        way(model, tokenizer, questions[:1], settings.batch_size)
    for _ in range(settings.rounds):
        for name, way in ways.items():
            forget_peak()
            start = time.perf_counter()
            rewards[name] = way(model, tokenizer, questions, settings.batch_size)
            seconds[name].append(time.perf_counter() - start)
            figure(f"scoring {pairs} pairs in {settings.dtype}, {name}", seconds[name][-1], "s")
            figure(f"scoring {pairs} pairs in {settings.dtype}, {name}: peak memory", peak_mb(), "MB")

    one, other = rewards.values()
    difference = max(abs(a - b) for a, b in zip(one, other, strict=True))
    speedup = median(slow / fast for fast, slow in zip(*seconds.values(), strict=True))
    for name, times in seconds.items():
        print(f"median seconds per pair, {name}: {median(times) / pairs:.4f}")
    print(f"rewards from {min(one):.4f} to {max(one):.4f}")
    print(f"PROMISE packed_scoring_speedup {speedup:.1f} GOAL >= 6")
    print(f"PROMISE packed_scoring_difference {difference:.7f} GOAL <= 0.0001")


# --- precision ------------------------------------------------------------------------------------------------------


def best(rewards: Sequence[float]) -> int:
    return max(range(len(rewards)), key=rewards.__getitem__)


def compare_precision(settings: ScoringBench) -> None:
    from reward.model import check_adapter, load_reward_model, score

    adapter = None if settings.adapter == "none" else settings.adapter
    if adapter:
        check_adapter(adapter, settings.model)
    questions = load_questions(settings.data)
    pairs = [pair for question in questions for pair in question.pairs]
    print(describe(questions), flush=True)
    rewards, seconds, orders = {}, {}, {}
    for precision in PRECISIONS:
        model, tokenizer = load_reward_model(settings.model, adapter, precision)
        candidates = [(question.prompt, question.candidates) for question in questions]
        start = time.perf_counter()
        rewards[precision] = score(model, tokenizer, candidates, settings.batch_size, progress=precision)
        seconds[precision] = time.perf_counter() - start
        orders[precision] = list(map(wins, reward_differences(pairs, questions, rewards[precision])))

    exact, rounded = rewards.values()
    errors = [abs(a - b) for a, b in zip(chain(*exact), chain(*rounded), strict=True)]
    spread = median(max(values) - min(values) for values in exact)
    changed = fmean(one != other for one, other in zip(*orders.values(), strict=True))
    best_changed = fmean(best(ones) != best(others) for ones, others in zip(exact, rounded, strict=True))
    print(f"reward of a candidate, bfloat16 minus float32: median {median(errors):.4f}, largest {max(errors):.4f}")
    print(f"rewards of one question's candidates lie apart by {spread:.4f} (median of the questions, float32)")
    for precision in PRECISIONS:
        print(f"{precision}: pairwise accuracy {fmean(orders[precision]):.4f}, {seconds[precision]:.1f} s")
    print(f"PROMISE bfloat16_pairs_changed {changed:.4f} GOAL <= 0.01")
    print(f"PROMISE bfloat16_best_candidate_changed {best_changed:.4f} GOAL <= 0.01")
    print(f"PROMISE bfloat16_speedup {seconds['float32'] / seconds['bfloat16']:.2f} GOAL > 1")


# --- vLLM -----------------------------------------------------------------------------------------------------------


def start_vllm(merged: Path, dtype: str, longest: int) -> "LLM":
    """vLLM's pooling runner on a merged reward model, for sequences of at most `longest` tokens."""
    settings = {} if on_gpu() else {"enforce_eager": True, "block_size": CPU_BLOCK}
    if settings:
        prepare_cpu()
    from vllm import LLM

    return LLM(
        str(merged),
        runner="pooling",
        dtype=dtype,
        max_model_len=longest,
        max_num_batched_tokens=max(longest, BATCHED_TOKENS),
        enable_prefix_caching=True,
        **settings,
    )


def served(
    engine: "LLM", tokenizer: "PreTrainedTokenizerBase", questions: Sequence[QuestionPairs], _: int
) -> list[float]:
    """Rewards of each question's distinct candidates, by vLLM."""
    sequences = chain.from_iterable(encode(tokenizer, question.prompt, question.candidates) for question in questions)
    outputs = engine.classify([{"prompt_token_ids": ids} for ids in sequences], use_tqdm=False)
    return [output.outputs.probs[0] for output in outputs]


def scored(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", questions: Sequence[QuestionPairs], batch_size: int
) -> list[float]:
    """The same rewards, by `reward.model.score`."""
    from reward.model import score

    candidates = [(question.prompt, question.candidates) for question in questions]
    return list(chain.from_iterable(score(model, tokenizer, candidates, batch_size)))


def compare_vllm(settings: ScoringBench) -> None:
    from reward.model import check_adapter, load_reward_model

    check_adapter(settings.adapter, settings.model)
    questions = sorted(choose_questions(settings.data, settings.questions), key=lambda question: str(question.prompt))
    print(f"{describe(questions)}, {settings.dtype}, {settings.rounds} rounds", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        merged = Path(folder) / "merged"
        export(Path(settings.adapter), Path(settings.model), merged)
        model, tokenizer = load_reward_model(settings.model, settings.adapter, settings.dtype)
        lengths = [len(ids) for some in questions for ids in encode(tokenizer, some.prompt, some.candidates)]
        engine = start_vllm(merged, settings.dtype, max(lengths) + 1)
        ways = {"packed": (scored, model), "vllm": (served, engine)}
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        rewards = {}
        for way, with_model in ways.values():
            way(with_model, tokenizer, questions[:1], settings.batch_size)
        for _ in range(settings.rounds):
            engine.reset_prefix_cache()
            for name, (way, with_model) in ways.items():
                start = time.perf_counter()
                rewards[name] = way(with_model, tokenizer, questions, settings.batch_size)
                seconds[name].append(time.perf_counter() - start)
                figure(f"scoring {len(lengths)} candidates, {sum(lengths)} tokens, {name}", seconds[name][-1], "s")
        engine.llm_engine.engine_core.shutdown()
    difference = max(abs(a - b) for a, b in zip(*rewards.values(), strict=True))
    speedup = median(slow / fast for fast, slow in zip(*seconds.values(), strict=True))
    print(f"PROMISE packed_scoring_over_vllm {speedup:.2f} GOAL >= 1.5")
    print(f"PROMISE packed_scoring_difference_to_vllm {difference:.5f} GOAL <= {MERGED}")


COMPARISONS = {"packing": compare_packing, "precision": compare_precision, "vllm": compare_vllm}


def parse_arguments(words: list[str] | None = None) -> ScoringBench:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--compare", choices=tuple(COMPARISONS), default="packing", help="which two ways")
    add("--model", default="Qwen2.5-Coder-0.5B-Instruct", help="folder of the base model")
    add("--data", default="final_data_test.json", help="pair file, or all_trees.json")
    add("--batch_size", type=int, default=16, help="sequences computed at the same time")
    add("--questions", type=int, default=8, help="packing, vllm: how many questions to score")
    add("--rounds", type=int, default=3, help="packing, vllm: repetitions of each measurement")
    add("--dtype", choices=PRECISIONS, default="float32", help="packing, vllm: of the base model")
    add("--adapter", default="qwen-reward-model-sql-train", help="precision, vllm: adapter folder (precision: or none)")
    settings = ScoringBench(**vars(parser.parse_args(words)))
    if settings.batch_size < 1:
        raise InputError(f"--batch_size {settings.batch_size}: must be 1 or more")
    return settings


def main(words: list[str] | None = None) -> None:
    settings = parse_arguments(words)
    check_model_folder(settings.model)
    COMPARISONS[settings.compare](settings)


if __name__ == "__main__":
    run_script(main)
