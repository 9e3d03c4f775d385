"""What the newest run gave, shard by shard, from its manifests:

python -m tree.run_table --output_dir output
"""

import argparse
from datetime import datetime
from pathlib import Path

from common.files import InputError, read_json, run_script
from common.tables import aligned
from tree.run.run_folder import part_folder
from tree.tree_files import GROW_FIRST

COUNTS = {  # heading -> name in the manifest
    "good": "good",
    "bad": "bad",
    "emerge pairs": "emerge_pairs",
    "rejecting rows": "emerge_rejecting_rows",
    "between wrong": "emerge_between_wrong",
    "baseline pairs": "baseline_pairs",
    "skipped": "skipped",
}
HEAD = ("shard", "questions", *COUNTS, "time")
JOURNALS = ("trees.jsonl", "candidates.jsonl")


def newest_manifest(output_dir: str, part: str) -> Path | None:
    """The manifest that was written last, of the parts whose names fit."""
    paths = Path(output_dir).glob(f"tree_dataset/{part}/*/manifest.json")
    return max(paths, key=lambda path: path.stat().st_mtime_ns, default=None)


def row(shard_id: int, manifest: Path | None) -> list[str]:
    """The cells of a shard; what has no meaning (good trees where there is no gold) is "-"."""
    if manifest is None:
        return [str(shard_id), "-", *"-" * len(COUNTS), "not begun"]
    content = read_json(manifest, dict)
    if "ended" not in content:
        journals = [manifest.with_name(name) for name in JOURNALS]
        finished = sum(_lines(journal) for journal in journals if journal.exists())
        return [str(shard_id), str(finished), *"-" * len(COUNTS), "unfinished"]
    counts = content["counts"]
    questions = counts.get("trees", counts.get("questions", 0)) + counts["skipped"]
    seconds = _time(content["ended"]) - _time(content["started"])
    return [str(shard_id), str(questions), *(str(counts.get(name, "-")) for name in COUNTS.values()), str(seconds)]


def _lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(1 for _ in file)


def _time(stamp: str) -> datetime:
    return datetime.strptime(stamp, "%Y-%m-%dT%H:%M:%S%z")


def table(output_dir: str) -> list[str]:
    """Lines: a head, then each shard of the newest run. Raises InputError when there is no run."""
    newest = newest_manifest(output_dir, "part*")
    if newest is None:
        raise InputError(f"{output_dir}: no run here; {GROW_FIRST}")
    shards = range(read_json(newest, dict)["arguments"]["num_shards"])
    rows = [list(HEAD), *(row(shard, newest_manifest(output_dir, part_folder("", shard).name)) for shard in shards)]
    return aligned(rows, right=True)


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", default="output", help="folder with the runs of step 4.1")
    print("\n".join(table(parser.parse_args(words).output_dir)))


if __name__ == "__main__":
    run_script(main)
