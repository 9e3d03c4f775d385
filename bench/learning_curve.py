"""What a reward model learns from trees: held-out pairwise accuracy and best-of-N over numbers of training questions.

    python -m bench.learning_curve --model Qwen2.5-Coder-0.5B-Instruct --train_trees train/all_trees.json \\
        --test_trees test/all_trees.json --db_root data/train/train_databases --sizes 100 300 1000 -- --epochs 2

Trains with train.py on the pairs of so many questions (those that give pairs; each size holds the smaller ones) and
evaluates with evaluate.py on trees of other databases, grown with `--max_depth 1 --redraws 0`. What follows `--` goes
to train.py. Besides the baselines of evaluate.py stands the generator's own log-probability of each query, summed and
per token. Adapters that are there from a run before are not trained again. Figures have 95 % intervals.
"""

import argparse
import json
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from common.files import InputError, read_json, run_script, write_json
from common.model_folder import check_model_folder
from common.tables import aligned
from eval.evaluation_report import interval
from eval.intervals import Clusters
from reward.metrics import wins
from tree.pairs.extraction import PairSettings, extract_pairs
from tree.tree_files import read_trees

ROOT = Path(__file__).resolve().parent.parent
SEED = 0


# --- data -----------------------------------------------------------------------------------------------------------


def pairs_by_question(path: str) -> list[list[dict]]:
    """The rows of a pair file for each tree that gives any."""
    extracted = ([pair.to_json() for pair in extract_pairs(tree, PairSettings()).pairs] for tree in read_trees(path))
    return [pairs for pairs in extracted if pairs]


def write_subsets(questions: list[list[dict]], sizes: Sequence[int], folder: Path) -> dict[int, Path]:
    """A pair file of each size that there are questions for (of all, in the place of the sizes above)."""
    random.Random(SEED).shuffle(questions)
    files = {}
    for size in sorted({min(size, len(questions)) for size in sizes}):
        files[size] = folder / f"train_{size}.json"
        write_json(files[size], [pair for pairs in questions[:size] for pair in pairs])
    return files


# --- training and evaluating ----------------------------------------------------------------------------------------


def call(*command: str | Path) -> None:
    print("$", *command, flush=True)
    if code := subprocess.run([sys.executable, *map(str, command)], cwd=ROOT).returncode:
        raise InputError(f"{command[0]} ended with exit code {code}")


def train(model: str, data: Path, adapter: Path, flags: Sequence[str]) -> None:
    if (adapter / "manifest.json").is_file():
        print(f"{adapter}: trained before")
        return
    call(
        *("train.py", "--model_id", Path(model).resolve(), "--data_path", data, "--output_dir", adapter),
        *flags,
    )


def likelihood_rows(path: str) -> list[list[str]]:
    """Pairwise accuracy of the generator's own log-probabilities, summed over tokens and per token."""
    found: dict[str, list[float]] = {"log-probability": [], "log-probability per token": []}
    question_ids = []
    for tree in read_trees(path):
        for pair in extract_pairs(tree, PairSettings()).pairs:
            chosen, rejected = (tree.nodes[name] for name in pair.nodes)
            if None in (chosen.logprob, rejected.logprob, chosen.tokens, rejected.tokens):
                raise InputError(f"{path}: tree {pair.tree_id} says no log-probabilities; grow the trees again")
            summed, per_token = found.values()
            summed.append(chosen.logprob - rejected.logprob)
            per_token.append(chosen.logprob / chosen.tokens - rejected.logprob / rejected.tokens)
            question_ids.append(pair.question)
    questions = Clusters(question_ids)
    return [[name, interval(questions.mean(wins(np.array(values))).to_json())] for name, values in found.items()]


# --- the report -----------------------------------------------------------------------------------------------------


def parse_arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model", default="Qwen2.5-Coder-0.5B-Instruct", help="folder of the generator and base model")
    add("--train_trees", required=True, help="all_trees.json to train on")
    add("--test_trees", required=True, help="all_trees.json of other databases, first attempts only")
    add("--db_root", default="data/train/train_databases", help="folder of the test databases")
    add("--sizes", type=int, nargs="+", default=[100, 300, 1000], help="numbers of training questions")
    add("--output_dir", default="output/learning_curve", help="folder for pair files, adapters and report")
    add("train_flags", nargs="*", help="flags of train.py, after --")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> None:
    args = parse_arguments(words)
    check_model_folder(args.model)
    folder = Path(args.output_dir).resolve()
    files = write_subsets(pairs_by_question(args.train_trees), args.sizes, folder)
    test_pairs = folder / "test.json"
    write_json(test_pairs, [pair for pairs in pairs_by_question(args.test_trees) for pair in pairs])

    likelihoods = likelihood_rows(args.test_trees)
    for size, data in files.items():
        train(args.model, data, folder / str(size), args.train_flags)
    report_file = folder / "evaluation_report.json"
    call(
        *("evaluate.py", "--base_model", Path(args.model).resolve(), "--test_data", test_pairs),
        *("--candidates", Path(args.test_trees).resolve(), "--db_root", Path(args.db_root).resolve()),
        *("--output_file", report_file, "--adapters", "none", *(folder / str(size) for size in files)),
    )

    print("\n".join(aligned([["", "pairwise accuracy [95 %]"], *likelihoods])))
    report = read_json(report_file, dict)
    largest = str(folder / str(max(files)))
    gained = report["pairs"]["adapters"][largest]["accuracy"]["value"]
    untrained = report["pairs"]["adapters"]["none"]["accuracy"]["value"]
    print(f"PROMISE learned_pairwise_accuracy {gained - untrained:.3f} GOAL > 0")
    for way in ("reward", "executes_reward", "reward_vote"):
        for reference in ("majority_vote", "executes_vote", "first"):
            by_number = report["choice"]["differences"][f"{way} ({largest}) minus {reference}"]
            low = list(by_number.values())[-1]["low"]  # of all candidates
            print(f"PROMISE {way}_over_{reference}_low {low:.3f} GOAL > 0")
    print(json.dumps({"train_questions": list(files), "report": str(report_file)}))


if __name__ == "__main__":
    run_script(main)
