"""Where a run of a shard is kept, which of them the same command goes on with, and that nobody else works there."""

import contextlib
import fcntl
import os
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tree.files import InputError, read_json, sync_file
from tree.manifest import differences, shard_of


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
    settings, whoever does not must say so.
    """
    now, runs = shard_of(content), stored_runs(part)
    for run in runs:
        if shard_of(run.manifest).run == now.run:
            if changed := differences(shard_of(run.manifest).grown_with, now.grown_with):
                print(f"warning: {run.folder} was begun with other code ({', '.join(changed)}); its trees are kept")
            return run
    if runs and not runs[0].finished:
        changed = differences(shard_of(runs[0].manifest).run, now.run)
        raise InputError(
            f"{runs[0].folder} is unfinished and was begun with other settings; give them again to go on with it, or "
            f"--fresh to begin anew:" + "".join(f"\n  {line}" for line in changed)
        )
    return None


def make_run_folder(part: Path) -> Path:
    """A new folder {YYYYmmdd_HHMMSS} of a shard."""
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


# --- locks ----------------------------------------------------------------------------------------------------------


def _taken(file: IO[str], how: int) -> bool:
    """Lock a file for this process (not for its children) until it is closed, or the process is dead."""
    try:
        fcntl.lockf(file, how)
    except (BlockingIOError, PermissionError):
        return False
    except OSError as error:
        print(f"warning: {file.name}: no locks here ({error.strerror}); never start the same shard twice at a time")
    return True


def _rewrite(file: IO[str], text: str) -> None:
    file.truncate(0)
    file.write(text)
    file.flush()


@contextlib.contextmanager
def locked(output_dir: str | os.PathLike, shard_id: int, num_shards: int) -> Iterator[None]:
    """This process alone works on the shard while the block runs, and others with as many shards only beside it.

    Raises InputError when that is not so. The kernel lets go of the locks of a process that dies.
    """
    part = part_folder(output_dir, shard_id)
    with contextlib.ExitStack() as stack:
        try:
            part.mkdir(parents=True, exist_ok=True)
            own, common = (stack.enter_context(open(place / "lock", "a+")) for place in (part, part.parent))
        except OSError as error:
            raise InputError(f"{part}: cannot be written ({error.strerror}); check --output_dir") from None
        if not _taken(own, fcntl.LOCK_EX | fcntl.LOCK_NB):
            own.seek(0)
            raise InputError(f"{part}: process {own.read() or 'unknown'} works on this shard; wait for it, or stop it")
        _rewrite(own, f"{os.getpid()} on {platform.node()}")
        if _taken(common, fcntl.LOCK_EX | fcntl.LOCK_NB):
            _rewrite(common, str(num_shards))
        _taken(common, fcntl.LOCK_SH)  # waits while another process writes what is read now
        common.seek(0)
        if (number := common.read()) != str(num_shards):
            raise InputError(
                f"{part.parent}: a run with --num_shards {number} works here; wait for it, or give another --output_dir"
            )
        yield
