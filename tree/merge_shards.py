"""Merge the shards' pairs into a training and a test file, split by database (step 4.2):

    python -m tree.merge_shards
    python -m tree.merge_shards --test_dbs movie_3,world

The shards must be all those of one run, unchanged; no database, question or prompt is on both sides. They are read
twice, one pair in memory at a time. Writes into the current folder, all or none: final_data_train.json,
final_data_test.json, final_data_train.md (what they hold) and final_data_train.manifest.json.
"""

import argparse
import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from common.files import InputError, JsonList, dump_json, replacing_together, run_script
from common.manifest import (
    MERGED_MANIFEST,
    Manifest,
    PairManifest,
    file_fingerprint,
    read_pair_manifest,
    side_by_side,
)
from common.rows import iterate_rows
from tree.pairs.data_card import Side, data_card
from tree.pairs.extraction import RELATIONS, STRATEGIES

COLUMNS = {
    "prompt": list,
    "chosen": list,
    "rejected": list,
    "question_id": int,
    "db_id": str,
    "chosen_dist": int,
    "rejected_dist": int | None,
    "relation": str,
    "rejected_outcome": str,
    "difficulty": str,
}
GROW_FIRST = "grow trees first: bash tree/run_parallel.sh"
OUTPUTS = ("final_data_train.json", "final_data_test.json", "final_data_train.md", MERGED_MANIFEST)


# --- the shards of one run ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ShardFile:
    """The pair file of a shard, by the number in its name, and the manifest beside it."""

    number: int
    path: Path
    manifest: PairManifest


def extract_again(output_dir: str | Path, number: int, strategy: str) -> str:
    """The fix for pairs that cannot be trusted: a command, with the newest trees of the shard when there are some."""
    trees = sorted(Path(output_dir).glob(f"tree_dataset/part{number}/*/all_trees.json"))
    tree_file = trees[-1] if trees else f"{output_dir}/tree_dataset/part{number}/…/all_trees.json"
    flags = f"--tree_file {tree_file} --strategy {strategy} --output_dir {output_dir}"
    return f"extract its pairs again: python -m tree.dpo_extractor {flags}"


def shard_files(output_dir: str, strategy: str) -> list[ShardFile]:
    """The pair files of one strategy, by shard number. Raises InputError for none, and for one without manifest."""
    paths = Path(output_dir).glob(f"final_data_{strategy}_shard_*.json")
    numbered = sorted(
        (int(match.group(1)), path) for path in paths if (match := re.search(r"_(\d+)\.json$", path.name))
    )
    if not numbered:
        raise InputError(f"{output_dir}: no final_data_{strategy}_shard_*.json; {GROW_FIRST}")
    return [
        ShardFile(number, path, read_pair_manifest(path, extract_again(output_dir, number, strategy)))
        for number, path in numbered
    ]


def check_one_run(shards: Sequence[ShardFile], strategy: str) -> None:
    """Raise InputError unless these are all the shards of one run, each once."""
    first = shards[0]
    for shard in shards:
        said = shard.manifest
        if (said.shard_id, said.strategy) != (shard.number, strategy):
            raise InputError(
                f"{shard.path}: its manifest is that of shard {said.shard_id} ({said.strategy}), so it is a copy; "
                f"remove both, and {extract_again(shard.path.parent, shard.number, strategy)}"
            )
        runs = side_by_side(first.manifest.run), side_by_side(said.run)
        if setting := difference(*runs):
            values = [repr(run.get(setting, "not recorded")) for run in runs]
            raise InputError(
                f"{first.path} and {shard.path} are of different runs: {setting} is {values[0]} and {values[1]}; "
                f"remove the files of the run that you do not mean, or extract all pairs again with the same settings, "
                f"from trees that were grown on the same databases"
            )
    number_of_shards = first.manifest.run["num_shards"]
    if missing := sorted(set(range(number_of_shards)) - {shard.number for shard in shards}):
        raise InputError(
            f"{first.path.parent}: the run has {number_of_shards} shards, and there are no pairs of shard "
            f"{', '.join(map(str, missing))}; grow it (python -m tree.run_pipeline --shard_id {missing[0]} …), or if "
            f"its trees are there, {extract_again(first.path.parent, missing[0], strategy)}"
        )


def difference(one: Mapping, other: Mapping) -> str | None:
    """The first name whose values differ."""
    return next((name for name in {**one, **other} if one.get(name) != other.get(name)), None)


def code_warnings(shards: Sequence[ShardFile]) -> Iterator[str]:
    """A line for each shard that was made by other code than the first: no proof that its verdicts differ."""
    first = shards[0]
    for shard in shards:
        for done in ("grown_with", "extracted_with"):
            one, other = getattr(first.manifest, done), getattr(shard.manifest, done)
            if name := difference(one, other):
                yield (
                    f"warning: {first.path} was {done.replace('_', ' ')} {name} {one.get(name)}, {shard.path} with "
                    f"{other.get(name)}; prompts, verdicts and pairs may differ"
                )


def check_unchanged(shards: Sequence[ShardFile], inputs: Mapping[str, Mapping]) -> None:
    """Raise InputError unless the fingerprints of the files, in `inputs` by name, are those in their manifests."""
    for shard in shards:
        if inputs[shard.path.name]["sha256"] != shard.manifest.sha256:
            fix = extract_again(shard.path.parent, shard.number, shard.manifest.strategy)
            raise InputError(f"{shard.path}: changed since it was extracted; {fix}")


# --- first pass: which pairs there are ------------------------------------------------------------------------------


@dataclass
class Index:
    """What the split needs to know of the pairs; memory grows with questions, not with pairs.

    `pairs` counts pairs by database, `questions` says on which database and in which file a question is, `prompts` (by
    digest) names the first question with a prompt, `same_prompt` that one and any with the prompt on another database.
    """

    pairs: Counter = field(default_factory=Counter)
    questions: dict[int, tuple[str, Path]] = field(default_factory=dict)
    prompts: dict[bytes, int] = field(default_factory=dict)
    same_prompt: set[tuple[int, int]] = field(default_factory=set)

    def add(self, path: Path, number: int, row: dict) -> None:
        """Take in row `number` of a file. Raises InputError for a question on two databases or in two files."""
        question_id, db_id = row["question_id"], row["db_id"]
        self.pairs[db_id] += 1
        known_db, known_path = self.questions.setdefault(question_id, (db_id, path))
        if known_db != db_id:
            raise InputError(
                f"{path}: row {number}: question {question_id} has pairs on two databases, {known_db} and {db_id}; "
                f"the shards do not belong together, grow them from one question file"
            )
        if known_path != path:
            raise InputError(
                f"{path}: row {number}: question {question_id} has pairs in {known_path} too; each question belongs to "
                f"one shard, grow the two shards again"
            )
        digest = hashlib.sha256(prompt_text(path, number, row).encode()).digest()[:16]
        first = self.prompts.setdefault(digest, question_id)
        if self.questions[first][0] != db_id:
            self.same_prompt.add((first, question_id))

    def check_split(self, test_dbs: set[str]) -> None:
        """Raise InputError when a prompt would be on both sides. Questions cannot: each is on one database."""
        for one, other in sorted(self.same_prompt):
            databases = [self.questions[question_id][0] for question_id in (one, other)]
            if (databases[0] in test_dbs) != (databases[1] in test_dbs):
                together = test_dbs | set(databases)
                fix = f"keep their databases on one side: --test_dbs {','.join(sorted(together))}"
                if together == set(self.pairs):
                    fix = "leave one of them out of the question file, or grow trees on more databases"
                raise InputError(
                    f"questions {one} ({databases[0]}) and {other} ({databases[1]}) have the same prompt and would be "
                    f"on both sides; {fix}"
                )


def prompt_text(path: Path, number: int, row: dict) -> str:
    """The text of the prompt. Raises InputError when it is not one user message."""
    prompt = row["prompt"]
    if len(prompt) == 1 and isinstance(prompt[0], dict) and isinstance(prompt[0].get("content"), str):
        return prompt[0]["content"]
    raise InputError(f'{path}: row {number}: prompt must be [{{"role": "user", "content": "…"}}]')


def rows_of(shards: Sequence[ShardFile], title: str) -> Iterator[tuple[Path, int, dict]]:
    """(file, number in the file, row) of every pair of the shards, with a progress bar."""
    from tqdm import tqdm

    with tqdm(total=sum(shard.manifest.pairs for shard in shards), desc=title, unit="pair", mininterval=1) as bar:
        for shard in shards:
            for number, row in enumerate(iterate_rows(shard.path, COLUMNS)):
                yield shard.path, number, row
                bar.update()


# --- the split ------------------------------------------------------------------------------------------------------


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


def describe(name: str, side: Side) -> str:
    """One line of counts."""
    shares = ", ".join(f"{relation} {side.relations[relation]}" for relation in RELATIONS if side.relations[relation])
    return f"{name}: {side.pairs} pairs, {len(side.questions)} questions, {len(side.databases)} databases ({shares})"


# --- second pass: the files -----------------------------------------------------------------------------------------


def fingerprint_of_open(file: IO) -> str:
    """`file_fingerprint` of a file that is still being written, as far as it is."""
    file.flush()
    return file_fingerprint(f"/proc/self/fd/{file.fileno()}")


def write_split(shards: Sequence[ShardFile], index: Index, test_dbs: set[str], manifest: Manifest) -> dict[str, Side]:
    """Write OUTPUTS, all of them or none; returns the counts of both sides."""
    sides = {"train": Side(), "test": Side()}
    dropped: Counter = Counter()
    for shard in shards:
        dropped.update(shard.manifest.dropped)
    with replacing_together(*OUTPUTS) as (train, test, card, manifest_file):
        lists = {"train": JsonList(train), "test": JsonList(test)}
        for _, _, row in rows_of(shards, "writing"):
            name = "test" if row["db_id"] in test_dbs else "train"
            lists[name].add(row)
            sides[name].add(row)
        if sides["train"].databases + sides["test"].databases != index.pairs:
            raise InputError(f"{shards[0].path.parent}: a shard file changed while it was read; merge again")
        for found in lists.values():
            found.end()
        card.write(data_card(sides, dropped))
        manifest.content["outputs"] = dict(zip(OUTPUTS, map(fingerprint_of_open, (train, test)), strict=False))
        counts = {name: side.pairs for name, side in sides.items()}
        dump_json(manifest_file, manifest.ended(**counts, dropped=dropped, test_dbs=sorted(test_dbs)))
    return sides


def parse_arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", default="output", help="folder with the shard files of step 4.1")
    parser.add_argument("--strategy", choices=STRATEGIES, default="emerge", help="which pairs to merge")
    split = parser.add_mutually_exclusive_group()
    split.add_argument(
        "--test_fraction", type=float, default=0.1, help="share of the pairs for testing, above 0, below 1"
    )
    split.add_argument("--test_dbs", help="databases for testing, comma-separated (default: by --test_fraction)")
    args = parser.parse_args(words)
    if not 0 < args.test_fraction < 1:
        raise InputError(f"--test_fraction {args.test_fraction}: must be above 0 and below 1")
    return args


def main(words: list[str] | None = None) -> None:
    args = parse_arguments(words)

    # --- are these the shards of one run? ---
    shards = shard_files(args.output_dir, args.strategy)
    check_one_run(shards, args.strategy)
    manifest = Manifest(vars(args), {shard.path.name: shard.path for shard in shards}, run=shards[0].manifest.run)
    check_unchanged(shards, manifest.content["inputs"])
    for warning in code_warnings(shards):
        print(warning)

    # --- which databases are for testing? ---
    index = Index()
    for path, number, row in rows_of(shards, "checking"):
        index.add(path, number, row)
    if not index.pairs:
        raise InputError(f"{args.output_dir}: the shard files hold no pairs; no tree has both right and wrong queries")
    if len(index.pairs) < 2:
        raise InputError(
            f"{args.output_dir}: pairs on one database only ({next(iter(index.pairs))}); a split needs two"
        )
    test_dbs = (
        named_test_databases(args.test_dbs, index.pairs)
        if args.test_dbs is not None
        else choose_test_databases(index.pairs, args.test_fraction)
    )
    index.check_split(test_dbs)

    # --- the files ---
    sides = write_split(shards, index, test_dbs, manifest)
    for name, side in sides.items():
        print(describe(f"final_data_{name}.json", side))
    print(f"test databases: {', '.join(sorted(test_dbs))}")


if __name__ == "__main__":
    run_script(main)
