"""Merge the shards' pairs into a training and a test file, split by database (step 4.2):

    python -m tree.merge_shards
    python -m tree.merge_shards --test_dbs movie_3,world

Writes final_data_train.json and final_data_test.json into the current folder, final_data_train.manifest.json beside
them.
"""

import argparse
import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tree.dpo_extractor import RELATIONS, STRATEGIES
from tree.files import InputError, read_json, read_rows, run_script, write_json_list
from tree.manifest import Manifest

COLUMNS = {"prompt": list, "chosen": list, "rejected": list, "question_id": int, "db_id": str, "relation": str}
GROW_FIRST = "grow trees first: bash tree/run_parallel.sh"


def shard_files(output_dir: str, strategy: str) -> list[Path]:
    """The pair files of one strategy, by shard number. Raises InputError when there are none."""
    paths = Path(output_dir).glob(f"final_data_{strategy}_shard_*.json")
    numbered = sorted(
        (int(match.group(1)), path) for path in paths if (match := re.search(r"_(\d+)\.json$", path.name))
    )
    if not numbered:
        raise InputError(f"{output_dir}: no final_data_{strategy}_shard_*.json; {GROW_FIRST}")
    return [path for _, path in numbered]


def choose_test_databases(pairs_by_database: Counter, fraction: float) -> set[str]:
    """Whole databases that together hold about `fraction` of the pairs, at least one and never all.

    Databases are taken in an order drawn from their names (not their sizes), skipping one that would overshoot.
    """
    target = fraction * pairs_by_database.total()
    drawn = sorted(pairs_by_database, key=lambda db_id: hashlib.sha256(db_id.encode()).digest())
    chosen: set[str] = set()
    size = 0
    for db_id in drawn:
        if size + pairs_by_database[db_id] <= target and len(chosen) < len(drawn) - 1:
            chosen.add(db_id)
            size += pairs_by_database[db_id]
    return chosen or {min(drawn, key=lambda db_id: (pairs_by_database[db_id], db_id))}


def named_test_databases(names: str, known: Counter) -> set[str]:
    """The databases of a comma-separated list. Raises InputError for one without pairs, or when none would be left."""
    chosen = {name.strip() for name in names.split(",") if name.strip()}
    if unknown := sorted(chosen - set(known)):
        raise InputError(f"--test_dbs: no pairs on {', '.join(unknown)}; there are pairs on {', '.join(sorted(known))}")
    if not chosen:
        raise InputError("--test_dbs: names no database")
    if chosen == set(known):
        raise InputError("--test_dbs: names every database, nothing would be left to train on")
    return chosen


def load_shards(paths: Sequence[Path]) -> list[dict]:
    """All pairs of the shard files (an empty shard file is fine). Raises InputError for a broken file or no pairs."""
    pairs = [pair for path in paths if read_json(path, list) for pair in read_rows(path, COLUMNS)]
    if not pairs:
        raise InputError(f"{paths[0].parent}: the shard files hold no pairs; no tree has both right and wrong queries")
    return pairs


def describe(name: str, pairs: Sequence[dict]) -> str:
    """One line of counts."""
    questions, databases = {pair["question_id"] for pair in pairs}, {pair["db_id"] for pair in pairs}
    relations = Counter(pair["relation"] for pair in pairs)
    shares = ", ".join(f"{relation} {relations[relation]}" for relation in RELATIONS if relations[relation])
    return f"{name}: {len(pairs)} pairs, {len(questions)} questions, {len(databases)} databases ({shares})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", default="output", help="folder with the shard files of step 4.1")
    parser.add_argument("--strategy", choices=STRATEGIES, default="emerge", help="which pairs to merge")
    split = parser.add_mutually_exclusive_group()
    split.add_argument(
        "--test_fraction", type=float, default=0.1, help="share of the pairs for testing, above 0, below 1"
    )
    split.add_argument("--test_dbs", help="databases for testing, comma-separated (default: by --test_fraction)")
    args = parser.parse_args()
    if not 0 < args.test_fraction < 1:
        raise InputError(f"--test_fraction {args.test_fraction}: must be above 0 and below 1")

    paths = shard_files(args.output_dir, args.strategy)
    manifest = Manifest(vars(args), {path.name: path for path in paths})
    pairs = load_shards(paths)
    counts = Counter(pair["db_id"] for pair in pairs)
    if len(counts) < 2:
        raise InputError(f"{args.output_dir}: pairs on one database only ({next(iter(counts))}); a split needs two")
    test_dbs = (
        named_test_databases(args.test_dbs, counts)
        if args.test_dbs is not None
        else choose_test_databases(counts, args.test_fraction)
    )

    train = [pair for pair in pairs if pair["db_id"] not in test_dbs]
    test = [pair for pair in pairs if pair["db_id"] in test_dbs]
    shared = {pair["question_id"] for pair in train} & {pair["question_id"] for pair in test}
    if shared:
        raise InputError(
            f"{args.output_dir}: question {min(shared)} has pairs on two databases; the shards do not belong together"
        )
    for name, side in (("train", train), ("test", test)):
        write_json_list(f"final_data_{name}.json", side)
        print(describe(f"final_data_{name}.json", side))
    print(f"test databases: {', '.join(sorted(test_dbs))}")
    manifest.write("final_data_train.manifest.json", train=len(train), test=len(test), test_dbs=sorted(test_dbs))


if __name__ == "__main__":
    run_script(main)
