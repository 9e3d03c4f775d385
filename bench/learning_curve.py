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
from typing import TYPE_CHECKING

import numpy as np

from common.files import InputError, read_json, run_script, write_json
from common.model_folder import check_model_folder
from common.preference import read_pairs
from common.tables import aligned
from eval.evaluation_report import interval
from eval.intervals import Clusters
from reward.metrics import wins
from tree.pairs.extraction import PairSettings, extract_pairs
from tree.tree_files import read_trees

if TYPE_CHECKING:
    from reward.packing import PackedRow

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


def path_to(row: "PackedRow", last_token: int) -> list[int]:
    """Indices of the tokens of the sequence that ends there, from its first on."""
    indices: list[int] = []
    position = row.positions[last_token]
    for index in range(last_token, -1, -1):
        if row.positions[index] == position:
            indices.append(index)
            position -= 1
    return indices[::-1]


def log_probabilities(model: str, pairs_file: Path) -> dict[str, list[float]]:
    """Chosen minus rejected log-probability of each pair under the generator, summed over tokens and per token."""
    import torch
    from tqdm import tqdm
    from transformers import AutoModelForCausalLM

    from common.model_folder import fast_dtype
    from reward.data import group_by_prompt
    from reward.model import fast_device
    from reward.packing import TOKEN_BUDGET, pack, pad_rows, tree_mask
    from tree.generator import encode, load_tokenizer
    from tree.prompts import chat
    from tree.replies import CLOSING

    tokenizer = load_tokenizer(Path(model))
    generator = AutoModelForCausalLM.from_pretrained(
        model, dtype=getattr(torch, fast_dtype()), attn_implementation="sdpa"
    ).eval()
    generator.to(fast_device())
    pairs = read_pairs(pairs_file)
    sums: dict[tuple, tuple[float, int]] = {}
    with torch.no_grad():
        for question in tqdm(group_by_prompt(pairs), desc="log-probabilities", unit="question"):
            prefix = encode(tokenizer, chat(question.prompt[0].content))
            sequences = [
                (sql, prefix + tokenizer.encode(sql + CLOSING, add_special_tokens=False)) for sql in question.candidates
            ]
            for row in pack(sorted(sequences, key=lambda sequence: sequence[1]), TOKEN_BUDGET):
                tensors = {name: value.to(generator.device) for name, value in pad_rows([row], 0).items()}
                hidden = generator.model(
                    input_ids=tensors["input_ids"],
                    position_ids=tensors["position_ids"],
                    attention_mask=tree_mask(tensors["subtree_ends"]),
                    use_cache=False,
                ).last_hidden_state[0]
                for sql, last_token in zip(row.keys, row.last_tokens, strict=True):
                    # the last token of the prompt writes the first of the query
                    places = torch.tensor(path_to(row, last_token)[len(prefix) - 1 :], device=hidden.device)
                    logits = generator.lm_head(hidden[places[:-1]]).float()
                    written = tensors["input_ids"][0, places[1:]]
                    found = logits.log_softmax(-1).gather(1, written[:, None]).sum().item()
                    sums[question.prompt, sql] = found, len(written)
    sides = [(sums[pair.prompt, pair.chosen], sums[pair.prompt, pair.rejected]) for pair in pairs]
    return {
        "log-probability": [one[0] - other[0] for one, other in sides],
        "log-probability per token": [one[0] / one[1] - other[0] / other[1] for one, other in sides],
    }


def likelihood_rows(model: str, test_pairs: Path) -> list[list[str]]:
    questions = Clusters([pair.question for pair in read_pairs(test_pairs)])
    return [
        [name, interval(questions.mean(wins(np.array(differences))).to_json())]
        for name, differences in log_probabilities(model, test_pairs).items()
    ]


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

    for size, data in files.items():
        train(args.model, data, folder / str(size), args.train_flags)
    report_file = folder / "evaluation_report.json"
    call(
        *("evaluate.py", "--base_model", Path(args.model).resolve(), "--test_data", test_pairs),
        *("--candidates", Path(args.test_trees).resolve(), "--db_root", Path(args.db_root).resolve()),
        *("--output_file", report_file, "--adapters", "none", *(folder / str(size) for size in files)),
    )

    print("\n".join(aligned([["", "pairwise accuracy [95 %]"], *likelihood_rows(args.model, test_pairs)])))
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
