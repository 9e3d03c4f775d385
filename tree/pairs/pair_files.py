"""Pair files and their manifests: written from trees, one tree in memory at a time."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

from common.files import write_json_list
from common.manifest import PairManifest, Shard, code_version, file_fingerprint
from tree.pairs.extraction import REASONS, PairSettings, extract_pairs
from tree.tree_node import RevisionTree


def pair_file(output_dir: str, strategy: str, shard_id: int) -> Path:
    return Path(output_dir) / f"final_data_{strategy}_shard_{shard_id}.json"


def write_pairs(path: Path, trees: Iterable[RevisionTree], settings: PairSettings, shard: Shard) -> PairManifest:
    """Replace `path` with the pairs of the trees, one tree in memory at a time, and its manifest; returns that."""
    dropped = Counter(dict.fromkeys(REASONS, 0))
    count = 0

    def rows() -> Iterator[dict]:
        nonlocal count
        for tree in trees:
            extraction = extract_pairs(tree, settings)
            dropped.update(extraction.dropped)
            count += 1
            yield from (pair.to_json() for pair in extraction.pairs)

    pairs = write_json_list(path, rows())
    made_by = asdict(settings)
    strategy = made_by.pop("strategy")
    manifest = PairManifest(
        strategy=strategy,
        shard_id=shard.shard_id,
        run=shard.run | made_by,
        sha256=file_fingerprint(path),
        trees=count,
        pairs=pairs,
        dropped=dict(dropped),
        grown_with=shard.grown_with,
        extracted_with=code_version(),
    )
    manifest.write(path)
    return manifest


def counts_line(path: Path, manifest: PairManifest) -> str:
    """One line of counts of a pair file."""
    dropped = ", ".join(f"{count} {reason}" for reason, count in manifest.dropped.items())
    return f"{path}: {manifest.pairs} pairs of {manifest.trees} trees; dropped: {dropped}"
