"""Which part of which run some trees are, as the manifest beside them says."""

from dataclasses import dataclass
from pathlib import Path

from common.files import InputError, read_json
from common.manifest import code_of, run_of

# Settings of tree.run_pipeline in which the shards of one run may differ: which shard it is, where files lie (data,
# databases, model and reviser have fingerprints), how fast the work is done. All others make the run, also those added
# later.
PER_SHARD = frozenset(
    {
        *("shard_id", "data", "db_root", "model", "reviser", "output_dir", "dry_run", "fresh"),
        *("gpu_memory", "gpu_gib", "max_num_seqs", "sql_workers"),
    }
)


@dataclass(frozen=True)
class Shard:
    """`run` holds what all shards of the run share, by name of the setting; `grown_with` is the code version."""

    shard_id: int
    run: dict
    grown_with: dict


# trees of unknown origin
WHOLE = Shard(0, {"num_shards": 1}, {})


def shard_of(content: dict) -> Shard:
    """The shard of a run manifest of tree.run_pipeline. Raises KeyError when it is no such manifest."""
    run = run_of(content, PER_SHARD, facts=["databases"])
    return Shard(content["arguments"]["shard_id"], run, code_of(content))


def shard_of_trees(tree_file: str) -> Shard:
    """Which part of which run the trees are, from the manifest beside them."""
    path = Path(tree_file).with_name("manifest.json")
    if not path.exists():
        print(f"note: no {path}, so the trees are taken as shard 0 of 1")
        return WHOLE
    try:
        return shard_of(read_json(path, dict))
    except (KeyError, TypeError) as error:
        raise InputError(f"{path}: not the manifest of grown trees ({error}); move it away if it is not") from None
