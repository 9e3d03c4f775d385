"""Pair files and their manifests: written from trees, one tree in memory at a time."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import IO

from common.files import InputError, JsonList, read_json, replacing, write_json
from common.manifest import code_version, file_fingerprint
from tree.pairs.extraction import REASONS, PairSettings, extract_pairs
from tree.pairs.shard import Shard
from tree.tree_node import RevisionTree


def pair_file(output_dir: str, strategy: str, shard_id: int) -> Path:
    return Path(output_dir) / f"final_data_{strategy}_shard_{shard_id}.json"


@dataclass(frozen=True)
class PairManifest:
    """What a pair file of a shard is; its JSON stands beside the pair file.

    `run` is what all shards of the run share, with the settings of the extraction; `sha256` is the pair file's
    fingerprint; `trees`, `pairs` and `dropped` (by reason) are counts, and of the pairs those `rejecting_rows`, whose
    rejected query returns rows, and those `between_wrong` queries, which only revision distance can order.
    """

    strategy: str
    shard_id: int
    run: dict
    sha256: str
    trees: int
    pairs: int
    rejecting_rows: int
    between_wrong: int
    dropped: dict
    grown_with: dict
    extracted_with: dict

    def write(self, pair_file: Path) -> None:
        write_json(pair_manifest_path(pair_file), vars(self))


def pair_manifest_path(pair_file: Path) -> Path:
    """final_data_emerge_shard_0.json -> manifest_emerge_shard_0.json, a name that no pattern for pair files matches."""
    return pair_file.with_name(f"manifest_{pair_file.name.removeprefix('final_data_')}")


def read_pair_manifest(pair_file: Path, fix: str) -> PairManifest:
    """The manifest beside a pair file. Raises InputError when there is none, or it is something else."""
    path = pair_manifest_path(pair_file)
    if not path.exists():
        raise InputError(f"{pair_file}: {path.name} is not beside it, so its run is unknown; {fix}")
    content = read_json(path, dict)
    if wrong := [field.name for field in fields(PairManifest) if not isinstance(content.get(field.name), field.type)]:
        raise InputError(f"{path}: not the manifest of a pair file ('{wrong[0]}' is missing or wrong); {fix}")
    return PairManifest(**{field.name: content[field.name] for field in fields(PairManifest)})


class PairWriter:
    """Writes the pairs of the trees that are added as a JSON list into an open file."""

    def __init__(self, file: IO[str], settings: PairSettings):
        self.settings, self.trees = settings, 0
        self.rejecting_rows = self.between_wrong = 0
        self.dropped = Counter(dict.fromkeys(REASONS, 0))
        self._rows = JsonList(file)

    def add(self, tree: RevisionTree) -> None:
        extraction = extract_pairs(tree, self.settings)
        for pair in extraction.pairs:
            self._rows.add(pair.to_json())
            self.rejecting_rows += pair.rejected_outcome == "ok"
            self.between_wrong += pair.chosen_dist > 0
        self.dropped.update(extraction.dropped)
        self.trees += 1

    def end(self) -> None:
        """Close the list; the file is still open."""
        self._rows.end()

    def write_manifest(self, path: Path, shard: Shard) -> PairManifest:
        """Say beside the file, which is complete and lies at `path`, what it is."""
        made_by = asdict(self.settings)
        strategy = made_by.pop("strategy")
        manifest = PairManifest(
            strategy=strategy,
            shard_id=shard.shard_id,
            run=shard.run | made_by,
            sha256=file_fingerprint(path),
            trees=self.trees,
            pairs=self._rows.count,
            rejecting_rows=self.rejecting_rows,
            between_wrong=self.between_wrong,
            dropped=dict(self.dropped),
            grown_with=shard.grown_with,
            extracted_with=code_version(),
        )
        manifest.write(path)
        return manifest


def write_pairs(path: Path, trees: Iterable[RevisionTree], settings: PairSettings, shard: Shard) -> PairManifest:
    """Replace `path` with the pairs of the trees, one tree in memory at a time, and its manifest; returns that."""
    with replacing(path) as file:
        writer = PairWriter(file, settings)
        for tree in trees:
            writer.add(tree)
        writer.end()
    return writer.write_manifest(path, shard)


def kinds_of_pairs(rejecting_rows: int, between_wrong: int) -> str:
    """How many pairs execution alone does not decide."""
    return f"{rejecting_rows} reject a query that returns rows, {between_wrong} are between wrong queries"


def counts_line(path: Path, manifest: PairManifest) -> str:
    """One line of counts of a pair file."""
    dropped = ", ".join(f"{count} {reason}" for reason, count in manifest.dropped.items())
    kinds = kinds_of_pairs(manifest.rejecting_rows, manifest.between_wrong)
    return f"{path}: {manifest.pairs} pairs of {manifest.trees} trees ({kinds}); dropped: {dropped}"
