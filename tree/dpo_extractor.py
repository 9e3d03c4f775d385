"""Preference pairs from revision trees.

Growing trees extracts their pairs too. With other settings, from trees that are there, without a model (what makes a
pair is in `tree.pairs.extraction`):

    python -m tree.dpo_extractor --tree_file output/tree_dataset/part0/20260101_120000/all_trees.json
    python -m tree.dpo_extractor --tree_file output/tree_dataset/part0/20260101_120000/all_trees.json \\
        --strategy baseline --max_pairs 0 --max_per_relation 0

Writes output/final_data_{strategy}_shard_{shard}.json, and manifest_{strategy}_shard_{shard}.json beside it.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

from common.files import run_script
from tree.pairs.extraction import STRATEGIES, PairSettings, add_pair_flags
from tree.pairs.pair_files import counts_line, pair_file, write_pairs
from tree.pairs.shard import shard_of_trees
from tree.tree_files import read_trees


@dataclass(frozen=True)
class ExtractorSettings:
    """Which pairs of which trees, and where they go: to `output`, or if it is None to a file in `output_dir`."""

    tree_file: str
    output_dir: str
    output: str | None
    pairs: PairSettings


def parse_arguments(words: list[str] | None = None) -> ExtractorSettings:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tree_file", required=True, help="all_trees.json of step 4.1")
    parser.add_argument("--strategy", choices=STRATEGIES, default="emerge", help="which pairs to make")
    parser.add_argument("--output_dir", default="output", help="folder to write to")
    parser.add_argument("--output", help="pair file to write (default: in --output_dir, named by strategy and shard)")
    add_pair_flags(parser.add_argument_group("pairs").add_argument)
    args = parser.parse_args(words)
    pairs = PairSettings(args.strategy, args.match, args.keep_fragile, args.max_pairs, args.max_per_relation)
    return ExtractorSettings(args.tree_file, args.output_dir, args.output, pairs)


def main(words: list[str] | None = None) -> None:
    settings = parse_arguments(words)

    from tqdm import tqdm

    shard = shard_of_trees(settings.tree_file)
    named = pair_file(settings.output_dir, settings.pairs.strategy, shard.shard_id)
    path = Path(settings.output) if settings.output else named
    trees = tqdm(read_trees(settings.tree_file), desc="trees", unit="tree")
    manifest = write_pairs(path, trees, settings.pairs, shard)
    print(counts_line(path, manifest))


if __name__ == "__main__":
    run_script(main)
