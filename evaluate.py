"""Evaluate reward models on held-out preference pairs (step 6):

    python evaluate.py --base_model Qwen2.5-Coder-1.5B-Instruct --adapters qwen-reward-model-sql-train \\
        --test_data final_data_test.json --batch_size 64
    python evaluate.py --adapters none qwen-reward-model-sql-train      # beside the untrained base

Prints one row per adapter and writes the report as JSON.
"""

import argparse
from collections.abc import Sequence
from statistics import fmean

from tree.files import InputError, run_script, write_json

UNTRAINED = "none"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--base_model", default="Qwen2.5-Coder-1.5B-Instruct", help="folder of the base model")
    add("--adapters", nargs="+", default=["qwen-reward-model-sql-train"], help="adapter folders; none = untrained base")
    add("--test_data", default="final_data_test.json", help="preference pairs (step 4.2)")
    add("--batch_size", type=int, default=64, help="candidates scored at the same time")
    add("--dtype", choices=("auto", "float32", "bfloat16"), default="auto", help="auto: bfloat16 on a GPU that has it")
    add("--output_file", default="evaluation_report.json", help="report to write")
    args = parser.parse_args()
    if args.batch_size < 1:
        raise InputError(f"--batch_size {args.batch_size}: must be 1 or more")
    if repeated := [name for name in args.adapters if args.adapters.count(name) > 1]:
        raise InputError(f"--adapters: {repeated[0]} stands more than once")
    return args


def pair_metrics(margins: Sequence[float]) -> dict:
    """Pairwise accuracy (a tie counts as half) and mean margin; `margins` are chosen minus rejected rewards."""
    return {
        "pairs": len(margins),
        "accuracy": fmean(1.0 if margin > 0 else 0.5 if margin == 0 else 0.0 for margin in margins),
        "mean_margin": fmean(margins),
        "ties": sum(margin == 0 for margin in margins),
    }


def report_of(pairs, margins: Sequence[float]) -> dict:
    """Metrics over all pairs, by relation and by database."""

    def grouped(key: str) -> dict:
        names = sorted({getattr(pair, key) for pair in pairs})
        return {
            name: pair_metrics([m for pair, m in zip(pairs, margins, strict=True) if getattr(pair, key) == name])
            for name in names
        }

    return {
        **pair_metrics(margins),
        "by_relation": grouped("relation"),
        "by_database": grouped("db_id"),
        "margins": [round(margin, 6) for margin in margins],
    }


def print_table(reports: dict[str, dict]) -> None:
    width = max(len(name) for name in [*reports, "adapter"])
    print(f"{'adapter':{width}}  {'pairs':>6}  {'accuracy':>8}  {'mean margin':>11}  {'ties':>5}")
    for name, report in reports.items():
        print(
            f"{name:{width}}  {report['pairs']:>6}  {report['accuracy']:>8.4f}  {report['mean_margin']:>11.4f}  "
            f"{report['ties']:>5}"
        )


def main() -> None:
    args = parse_arguments()

    # --- everything that can be wrong, before a model is loaded ---
    from reward.data import load_pairs
    from tree.manifest import Manifest
    from tree.model_folder import check_model_folder, model_fingerprint

    base = check_model_folder(args.base_model)
    pairs = load_pairs(args.test_data)
    manifest = Manifest(
        vars(args), {"test_data": args.test_data}, model=str(base), model_fingerprint=model_fingerprint(base)
    )
    from reward.model import base_dtype, check_adapter, encode, load_reward_model, load_tokenizer, score

    for adapter in args.adapters:
        if adapter != UNTRAINED:
            check_adapter(adapter, base)

    # --- each distinct candidate once ---
    tokenizer = load_tokenizer(base)
    keys = {(pair.prompt, sql) for pair in pairs for sql in (pair.chosen, pair.rejected)}
    candidates = sorted(keys)
    sequences = [encode(tokenizer, prompt, sql) for prompt, sql in candidates]
    print(f"{len(pairs)} pairs, {len(candidates)} distinct candidates, {sum(map(len, sequences))} tokens")

    # --- scores ---
    reports = {}
    for adapter in args.adapters:
        model = load_reward_model(
            base, None if adapter == UNTRAINED else adapter, base_dtype(args.dtype), tokenizer.pad_token_id
        )
        rewards = score(model, sequences, args.batch_size, tokenizer.pad_token_id, progress=adapter)
        reward = dict(zip(candidates, rewards, strict=True))
        margins = [reward[pair.prompt, pair.chosen] - reward[pair.prompt, pair.rejected] for pair in pairs]
        reports[adapter] = report_of(pairs, margins)
        del model

    # --- report ---
    print_table(reports)
    write_json(args.output_file, {"manifest": manifest.ended(pairs=len(pairs)), "adapters": reports})
    print(f"report: {args.output_file}")


if __name__ == "__main__":
    run_script(main)
