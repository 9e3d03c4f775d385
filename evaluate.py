"""Evaluate reward models on held-out preference pairs (step 6):

    python evaluate.py --base_model Qwen2.5-Coder-1.5B-Instruct --adapters qwen-reward-model-sql-train \\
        --test_data final_data_test.json --batch_size 64
    python evaluate.py --adapters none qwen-reward-model-sql-train      # beside the untrained base

Prints one row per adapter and writes the report as JSON.
"""

import argparse
from collections.abc import Sequence

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


def report_of(pairs, differences: Sequence[float]) -> dict:
    """Metrics over all pairs, by relation and by database."""
    from reward.metrics import grouped_metrics, pair_metrics

    return {
        **pair_metrics(differences),
        "by_relation": grouped_metrics([pair.relation for pair in pairs], differences),
        "by_database": grouped_metrics([pair.db_id for pair in pairs], differences),
        "margins": [round(difference, 6) for difference in differences],
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
    from reward.data import group_by_prompt, load_pairs
    from tree.manifest import Manifest
    from tree.model_folder import check_model_folder, model_fingerprint

    base = check_model_folder(args.base_model)
    pairs = load_pairs(args.test_data)
    manifest = Manifest(
        vars(args), {"test_data": args.test_data}, model=str(base), model_fingerprint=model_fingerprint(base)
    )
    from reward.metrics import reward_differences
    from reward.model import check_adapter, load_reward_model, score

    for adapter in args.adapters:
        if adapter != UNTRAINED:
            check_adapter(adapter, base)

    # --- scores: each distinct candidate once, behind its prompt ---
    questions = group_by_prompt(pairs)
    asked = [(question.prompt, question.candidates) for question in questions]
    candidates = sum(len(question.candidates) for question in questions)
    print(f"{len(pairs)} pairs, {len(questions)} prompts, {candidates} distinct candidates")
    reports = {}
    for adapter in args.adapters:
        model, tokenizer = load_reward_model(base, None if adapter == UNTRAINED else adapter, args.dtype)
        rewards = score(model, tokenizer, asked, args.batch_size, progress=adapter)
        reports[adapter] = report_of(pairs, reward_differences(pairs, questions, rewards))
        del model

    # --- report ---
    print_table(reports)
    write_json(args.output_file, {"manifest": manifest.ended(pairs=len(pairs)), "adapters": reports})
    print(f"report: {args.output_file}")


if __name__ == "__main__":
    run_script(main)
