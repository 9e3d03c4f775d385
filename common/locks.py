"""That nobody else works in a folder: locks of the kernel, which lets go of those of a process that dies.

They hold on shared folders too, where these have locks. (filelock has no shared lock that does both: its ReadWriteLock
is a SQLite file, which cannot be on NFS, its SoftReadWriteLock waits for the heartbeats of the dead.)
"""

import contextlib
import fcntl
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from common.files import InputError


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """This process alone works in the folder, which is made, while the block runs.

    Raises InputError when another one does.
    """
    with _lock_file(folder) as file:
        if not _taken(file, fcntl.LOCK_EX | fcntl.LOCK_NB):
            raise InputError(f"{folder}: process {_read(file) or 'unknown'} works here; wait for it, or stop it")
        _rewrite(file, f"{os.getpid()} on {platform.node()}")
        yield


@contextlib.contextmanager
def among_as_many(folder: Path, num_shards: int) -> Iterator[None]:
    """While the block runs, other processes work in the folder, which is made, with as many shards only.

    Raises InputError when one works there with another number.
    """
    with _lock_file(folder) as file:
        if _taken(file, fcntl.LOCK_EX | fcntl.LOCK_NB):
            _rewrite(file, str(num_shards))
        _taken(file, fcntl.LOCK_SH)  # waits while another process writes what is read now
        if (number := _read(file)) != str(num_shards):
            raise InputError(
                f"{folder}: a run with --num_shards {number} works here; wait for it, or give another --output_dir"
            )
        yield


def _lock_file(folder: Path) -> IO[str]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return open(folder / "lock", "a+")
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror}); check --output_dir") from None


def _taken(file: IO[str], how: int) -> bool:
    """Lock a file for this process (not for its children) until it is closed, or the process is dead."""
    try:
        fcntl.lockf(file, how)
    except (BlockingIOError, PermissionError):
        return False
    except OSError as error:
        print(f"warning: {file.name}: no locks here ({error.strerror}); never start the same command twice at a time")
    return True


def _read(file: IO[str]) -> str:
    file.seek(0)
    return file.read()


def _rewrite(file: IO[str], text: str) -> None:
    file.truncate(0)
    file.write(text)
    file.flush()
