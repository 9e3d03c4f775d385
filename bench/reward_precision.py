"""What bfloat16 does to the order of candidates: the same rewards with the base in float32 and in bfloat16.

    python -m bench.reward_precision --model Qwen2.5-Coder-0.5B-Instruct --adapter qwen-reward-model-sql-train \\
        --data final_data_test.json

Questions and their pairs are those of a pair file, or what step 4.1 extracts from all_trees.json with its defaults.
LoRA and score head compute in float32 in both. Printed are how far the two rewards of a candidate differ, beside how
far those of one question's candidates lie apart; how many pairs and best candidates change; the pairwise accuracy of
both; and the time.
"""

import argparse
import time
from statistics import fmean, median

from bench.reward_training import describe, load_questions
from common.files import run_script
from common.model_folder import check_model_folder
from reward.metrics import reward_differences, wins

PRECISIONS = ("float32", "bfloat16")


def best(rewards: list[float]) -> int:
    return max(range(len(rewards)), key=rewards.__getitem__)


def parse_arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model", default="Qwen2.5-Coder-0.5B-Instruct", help="folder of the base model")
    add("--adapter", default="qwen-reward-model-sql-train", help="adapter folder; none = untrained base")
    add("--data", default="final_data_test.json", help="pair file, or all_trees.json")
    add("--batch_size", type=int, default=16, help="candidates scored at the same time")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> None:
    args = parse_arguments(words)
    from reward.model import check_adapter, load_reward_model, score

    base = check_model_folder(args.model)
    adapter = None if args.adapter == "none" else args.adapter
    if adapter:
        check_adapter(adapter, base)
    questions = load_questions(args.data)
    print(describe(questions), flush=True)
    rewards, seconds, accuracies, orders = {}, {}, {}, {}
    pairs = [pair for question in questions for pair in question.pairs]
    for precision in PRECISIONS:
        model, tokenizer = load_reward_model(base, adapter, precision)
        asked = [(question.prompt, question.candidates) for question in questions]
        start = time.perf_counter()
        rewards[precision] = score(model, tokenizer, asked, args.batch_size, progress=precision)
        seconds[precision] = time.perf_counter() - start
        differences = reward_differences(pairs, questions, rewards[precision])
        orders[precision] = [wins(difference) for difference in differences]
        accuracies[precision] = fmean(orders[precision])

    exact, rounded = (rewards[precision] for precision in PRECISIONS)
    errors = [
        abs(a - b) for ones, others in zip(exact, rounded, strict=True) for a, b in zip(ones, others, strict=True)
    ]
    spread = median(max(values) - min(values) for values in exact)
    changed = fmean(one != other for one, other in zip(*orders.values(), strict=True))
    chosen = fmean(best(ones) != best(others) for ones, others in zip(exact, rounded, strict=True))
    print(f"reward of a candidate, bfloat16 less float32: median {median(errors):.4f}, largest {max(errors):.4f}")
    print(f"rewards of one question's candidates lie apart by {spread:.4f} (median of the questions, float32)")
    for precision in PRECISIONS:
        print(f"{precision}: pairwise accuracy {accuracies[precision]:.4f}, {seconds[precision]:.1f} s")
    print(f"PROMISE bfloat16_pairs_changed {changed:.4f} GOAL <= 0.01")
    print(f"PROMISE bfloat16_best_candidate_changed {chosen:.4f} GOAL <= 0.01")
    print(f"PROMISE bfloat16_speedup {seconds['float32'] / seconds['bfloat16']:.2f} GOAL > 1")


if __name__ == "__main__":
    run_script(main)
