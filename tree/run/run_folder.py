"""Where the runs of a shard are kept, and which of them the same command resumes."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

from common.files import InputError, read_json, remove_leftovers, sync_file
from common.manifest import refuse_other_run, warn_of_other_code
from tree.pairs.shard import shard_of


@dataclass(frozen=True)
class StoredRun:
    """A run that was begun earlier: its folder, and its manifest as it stands there."""

    folder: Path
    manifest: dict

    @property
    def finished(self) -> bool:
        return "ended" in self.manifest


def part_folder(output_dir: str | os.PathLike, shard_id: int) -> Path:
    return Path(output_dir) / "tree_dataset" / f"part{shard_id}"


def stored_runs(part: Path) -> list[StoredRun]:
    """The runs of a shard, the newest first. A folder without manifest is of a run that was killed before it began."""
    paths = sorted(part.glob("*/manifest.json"), reverse=True)
    return [StoredRun(path.parent, read_json(path, dict)) for path in paths]


def find_run(part: Path, content: dict) -> StoredRun | None:
    """The newest run with the settings of the manifest `content`; None when a new one is to be begun.

    Raises InputError when there is none and the newest run is unfinished: whoever wants its trees must ask with its
    settings, data and databases, whoever does not must say so.
    """
    now, runs = shard_of(content).run, stored_runs(part)
    for run in runs:
        if shard_of(run.manifest).run == now:
            warn_of_other_code(run.folder, run.manifest, content)
            return run
    if runs and not runs[0].finished:
        refuse_other_run(runs[0].folder, shard_of(runs[0].manifest).run, now, "--fresh to begin anew")
    return None


def make_run_folder(part: Path) -> Path:
    """A new folder {YYYYmmdd_HHMMSS} of a shard."""
    for killed_before_it_began in part.glob("*/"):
        remove_leftovers(killed_before_it_began / "manifest.json")
    while True:
        folder = part / time.strftime("%Y%m%d_%H%M%S")
        try:
            folder.mkdir(parents=True)
            sync_file(part)
            return folder
        except FileExistsError:
            time.sleep(1)
        except OSError as error:
            raise InputError(f"{folder}: cannot be made ({error.strerror}); check --output_dir") from None
