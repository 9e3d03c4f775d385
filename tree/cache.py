"""Where things derived from databases are kept: folders under RESQLVER_CACHE, by what a database file holds."""

import contextlib
import functools
import hashlib
import os
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

SAMPLED_BLOCKS = 64  # of 4 KiB, spread over the file


def cache_folder(name: str) -> Path:
    """The folder `name` in RESQLVER_CACHE, by default ~/.cache/resqlver."""
    return Path(os.environ.get("RESQLVER_CACHE") or Path.home() / ".cache" / "resqlver") / name


def fingerprint(database: str | os.PathLike) -> str:
    """32 hex digits that change with a database file: of its size, its header and blocks spread over it."""
    status = os.stat(database)
    return _fingerprint(str(database), status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=256)
def _fingerprint(path: str, size: int, changed: int) -> str:
    digest = hashlib.sha256(f"{size}/{sqlite3.sqlite_version}".encode())
    with open(path, "rb") as file:
        for block in range(SAMPLED_BLOCKS):
            file.seek(size * block // SAMPLED_BLOCKS)
            digest.update(file.read(4096))
    return digest.hexdigest()[:32]


@contextlib.contextmanager
def building(place: Path) -> Iterator[str]:
    """The name of a file to write; it takes the place of `place` when the block ends well, else nothing of it stays.

    Processes may build the same file at once; the last one stays.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{place.name}.", suffix=".tmp", dir=place.parent)
    try:
        yield temporary
        os.fsync(handle)
        os.replace(temporary, place)
    except BaseException:
        os.unlink(temporary)
        raise
    finally:
        os.close(handle)
