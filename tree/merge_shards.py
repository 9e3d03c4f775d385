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
from common.manifest import MERGED_MANIFEST, Manifest, differences, file_fingerprint
from common.preference import OWN_COLUMNS, PreferencePair, iterate_pairs, prompt_digest
from tree.pairs.data_card import SplitCounts, data_card
from tree.pairs.extraction import RELATIONS, STRATEGIES
from tree.pairs.pair_files import PairManifest, read_pair_manifest
from tree.tree_files import GROW_FIRST

OUTPUTS = ("final_data_train.json", "final_data_test.json", "final_data_train.md", MERGED_MANIFEST)


# --- the shards of one run ------------------------------------------------------------------------------------------


def extract_again(output_dir: str | Path, number: int, strategy: str) -> str:
    """The fix for pairs that cannot be trusted: a command, with the newest trees of the shard when there are some."""
    trees = sorted(Path(output_dir).glob(f"tree_dataset/part{number}/*/all_trees.json"))
    tree_file = trees[-1] if trees else f"{output_dir}/tree_dataset/part{number}/…/all_trees.json"
    flags = f"--tree_file {tree_file} --strategy {strategy} --output_dir {output_dir}"
    return f"extract its pairs again: python -m tree.dpo_extractor {flags}"


@dataclass(frozen=True)
class ShardFile:
    """The pair file of a shard, by the number in its name, and the manifest beside it."""

    number: int
    path: Path
    manifest: PairManifest


def shard_files(output_dir: str, strategy: str) -> list[ShardFile]:
    """The pair files of one strategy, by shard number. Raises InputError for none, and for one without manifest."""
    paths = Path(output_dir).glob(f"final_data_{strategy}_shard_*.json")
    matches = ((re.search(r"_(\d+)\.json$", path.name), path) for path in paths)
    numbered = sorted((int(match.group(1)), path) for match, path in matches if match)
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
        manifest = shard.manifest
        if (manifest.shard_id, manifest.strategy) != (shard.number, strategy):
            raise InputError(
                f"{shard.path}: its manifest is that of shard {manifest.shard_id} ({manifest.strategy}), so it is a "
                f"copy; remove both, and {extract_again(shard.path.parent, shard.number, strategy)}"
            )
        if changed := differences(first.manifest.run, manifest.run):
            raise InputError(
                f"{first.path} and {shard.path} are of different runs ({changed[0]}); remove the files of the run that "
                f"you do not mean, or extract all pairs again with the same settings, from trees that were grown on "
                f"the same databases"
            )
    number_of_shards = first.manifest.run["num_shards"]
    if missing := sorted(set(range(number_of_shards)) - {shard.number for shard in shards}):
        raise InputError(
            f"{first.path.parent}: the run has {number_of_shards} shards, and there are no pairs of shard "
            f"{', '.join(map(str, missing))}; grow it (python -m tree.run_pipeline --shard_id {missing[0]} …), or if "
            f"its trees are there, {extract_again(first.path.parent, missing[0], strategy)}"
        )


def code_warnings(shards: Sequence[ShardFile]) -> Iterator[str]:
    """A line for each shard that was made by other code than the first: no proof that its verdicts differ."""
    first = shards[0]
    for shard in shards:
        for done in ("grown_with", "extracted_with"):
            if changed := differences(getattr(first.manifest, done), getattr(shard.manifest, done)):
                yield (
                    f"warning: {first.path} and {shard.path} were {done.removesuffix('_with')} with different code "
                    f"({changed[0]}); prompts, verdicts and pairs may differ"
                )


def check_unchanged(shards: Sequence[ShardFile], inputs: Mapping[str, Mapping]) -> None:
    """Raise InputError unless the fingerprints of the files, in `inputs` by name, are those in their manifests."""
    for shard in shards:
        if inputs[shard.path.name]["sha256"] != shard.manifest.sha256:
            fix = extract_again(shard.path.parent, shard.number, shard.manifest.strategy)
            raise InputError(f"{shard.path}: changed since it was extracted; {fix}")


# --- first pass: which pairs there are ------------------------------------------------------------------------------


@dataclass
class QuestionIndex:
    """What the split needs to know of the pairs; memory grows with questions, not with pairs.

    `pairs` counts pairs by database, `questions` says on which database and in which file a question is, `prompts` (by
    digest) names the first question with a prompt, `same_prompt` that one and any with the prompt on another database.
    """

    pairs: Counter[str] = field(default_factory=Counter)
    questions: dict[int, tuple[str, Path]] = field(default_factory=dict)
    prompts: dict[str, int] = field(default_factory=dict)
    same_prompt: set[tuple[int, int]] = field(default_factory=set)

    def add(self, path: Path, number: int, pair: PreferencePair) -> None:
        """Take in row `number` of a file. Raises InputError for a question on two databases or in two files."""
        question_id, db_id = pair.question_id, pair.db_id
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
        first = self.prompts.setdefault(prompt_digest(pair.prompt), question_id)
        if self.questions[first][0] != db_id:
            self.same_prompt.add((first, question_id))

    def check_split(self, test_dbs: set[str]) -> None:
        """Raise InputError when a prompt would be on both sides. Questions cannot: each is on one database."""
        for one, other in sorted(self.same_prompt):
            databases = [self.questions[question_id][0] for question_id in (one, other)]
            if len(test_dbs.intersection(databases)) == 1:
                together = test_dbs.union(databases)
                fix = f"keep their databases on one side: --test_dbs {','.join(sorted(together))}"
                if together == set(self.pairs):
                    fix = "leave one of them out of the question file, or grow trees on more databases"
                raise InputError(
                    f"questions {one} ({databases[0]}) and {other} ({databases[1]}) have the same prompt and would be "
                    f"on both sides; {fix}"
                )


def pairs_of(shards: Sequence[ShardFile], title: str) -> Iterator[tuple[Path, int, PreferencePair]]:
    """(file, number of the row in it, pair) of every pair of the shards, with a progress bar."""
    from tqdm import tqdm

    with tqdm(total=sum(shard.manifest.pairs for shard in shards), desc=title, unit="pair") as bar:
        for shard in shards:
            for number, pair in enumerate(iterate_pairs(shard.path, OWN_COLUMNS)):
                yield shard.path, number, pair
                bar.update()


def index_of(shards: Sequence[ShardFile]) -> QuestionIndex:
    """Raises InputError for pairs that cannot be split."""
    index, folder = QuestionIndex(), shards[0].path.parent
    for path, number, pair in pairs_of(shards, "checking"):
        index.add(path, number, pair)
    if not index.pairs:
        raise InputError(f"{folder}: the shard files hold no pairs; no tree has both right and wrong queries")
    if len(index.pairs) < 2:
        raise InputError(f"{folder}: pairs on one database only ({next(iter(index.pairs))}); a split needs two")
    return index


# --- the split ------------------------------------------------------------------------------------------------------


def choose_test_databases(pairs_by_database: Counter[str], fraction: float) -> set[str]:
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


def named_test_databases(names: str, known: Counter[str]) -> set[str]:
    """The databases of a comma-separated list. Raises InputError for one without pairs, or when none would be left."""
    chosen = {name.strip() for name in names.split(",") if name.strip()}
    if unknown := sorted(chosen - set(known)):
        raise InputError(f"--test_dbs: no pairs on {', '.join(unknown)}; there are pairs on {', '.join(sorted(known))}")
    if not chosen:
        raise InputError("--test_dbs: names no database")
    if chosen == set(known):
        raise InputError("--test_dbs: names every database, nothing would be left to train on")
    return chosen


# --- second pass: the files -----------------------------------------------------------------------------------------


def fingerprint_of_open(file: IO) -> str:
    """`file_fingerprint` of a file that is still being written, as far as it is."""
    file.flush()
    return file_fingerprint(f"/proc/self/fd/{file.fileno()}")


def write_split(
    shards: Sequence[ShardFile], index: QuestionIndex, test_dbs: set[str], manifest: Manifest
) -> dict[str, SplitCounts]:
    """Write OUTPUTS, all of them or none; returns the counts of both splits."""
    splits = {"train": SplitCounts(), "test": SplitCounts()}
    dropped: Counter[str] = Counter()
    for shard in shards:
        dropped.update(shard.manifest.dropped)
    with replacing_together(*OUTPUTS) as (train, test, card, manifest_file):
        lists = {"train": JsonList(train), "test": JsonList(test)}
        for _, _, pair in pairs_of(shards, "writing"):
            name = "test" if pair.db_id in test_dbs else "train"
            lists[name].add(pair.to_json())
            splits[name].add(pair)
        if splits["train"].databases + splits["test"].databases != index.pairs:
            raise InputError(f"{shards[0].path.parent}: a shard file changed while it was read; merge again")
        for rows in lists.values():
            rows.end()
        card.write(data_card(splits, dropped))
        manifest.content["outputs"] = dict(zip(OUTPUTS, map(fingerprint_of_open, (train, test)), strict=False))
        counts = {name: split.pairs for name, split in splits.items()}
        dump_json(manifest_file, manifest.ended(**counts, dropped=dropped, test_dbs=sorted(test_dbs)))
    return splits


def counts_line(name: str, split: SplitCounts) -> str:
    """One line of counts of a split."""
    found = [relation for relation in RELATIONS if split.relations[relation]]
    relations = ", ".join(f"{relation} {split.relations[relation]}" for relation in found)
    return (
        f"{name}: {split.pairs} pairs, {len(split.questions)} questions, {len(split.databases)} databases ({relations})"
    )


@dataclass(frozen=True)
class MergeSettings:
    """Which pairs are merged from which folder; `test_dbs` names the databases for testing, None = by fraction."""

    output_dir: str
    strategy: str
    test_fraction: float
    test_dbs: str | None

    def choose(self, pairs_by_database: Counter[str]) -> set[str]:
        if self.test_dbs is None:
            return choose_test_databases(pairs_by_database, self.test_fraction)
        return named_test_databases(self.test_dbs, pairs_by_database)


def parse_arguments(words: list[str] | None = None) -> MergeSettings:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--output_dir", default="output", help="folder with the shard files of step 4.1")
    add("--strategy", choices=STRATEGIES, default="emerge", help="which pairs to merge")
    add = parser.add_mutually_exclusive_group().add_argument
    add("--test_fraction", type=float, default=0.1, help="share of the pairs for testing, above 0, below 1")
    add("--test_dbs", help="databases for testing, comma-separated (default: by --test_fraction)")
    settings = MergeSettings(**vars(parser.parse_args(words)))
    if not 0 < settings.test_fraction < 1:
        raise InputError(f"--test_fraction {settings.test_fraction}: must be above 0 and below 1")
    return settings


def main(words: list[str] | None = None) -> None:
    settings = parse_arguments(words)

    # --- are these the shards of one run? ---
    shards = shard_files(settings.output_dir, settings.strategy)
    check_one_run(shards, settings.strategy)
    inputs = {shard.path.name: shard.path for shard in shards}
    manifest = Manifest(vars(settings), inputs, run=shards[0].manifest.run)
    check_unchanged(shards, manifest.content["inputs"])
    for warning in code_warnings(shards):
        print(warning)

    # --- which databases are for testing? ---
    index = index_of(shards)
    test_dbs = settings.choose(index.pairs)
    index.check_split(test_dbs)

    # --- the files ---
    splits = write_split(shards, index, test_dbs, manifest)
    for name, split in splits.items():
        print(counts_line(f"final_data_{name}.json", split))
    print(f"test databases: {', '.join(sorted(test_dbs))}")


if __name__ == "__main__":
    run_script(main)
