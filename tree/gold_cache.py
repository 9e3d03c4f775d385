"""Gold results on disk, by database fingerprint and query, so that each gold query runs once for all runs."""

import contextlib
import functools
import hashlib
import os
import pickle
import sqlite3
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

SAMPLED_BLOCKS = 64  # of 4 KiB, spread over the file
KEPT_OUTCOMES = ("ok", "empty", "error")  # limits depend on the machine, so what they stopped is tried again


def default_folder() -> Path:
    """`gold` in RESQLVER_CACHE, by default ~/.cache/resqlver."""
    return Path(os.environ.get("RESQLVER_CACHE") or Path.home() / ".cache" / "resqlver") / "gold"


@functools.lru_cache(maxsize=256)
def _fingerprint(path: str, size: int, changed: int) -> str:
    """Of a database file: its size, its header (which counts changes) and blocks spread over it."""
    digest = hashlib.sha256(f"{size}/{sqlite3.sqlite_version}".encode())
    with open(path, "rb") as file:
        for block in range(SAMPLED_BLOCKS):
            file.seek(size * block // SAMPLED_BLOCKS)
            digest.update(file.read(4096))
    return digest.hexdigest()[:32]


@dataclass(frozen=True)
class GoldCache:
    """A folder of results; hashable, so that it can be handed to workers. `folder` None keeps nothing on disk."""

    folder: Path | None

    def get_or_run(self, path: str, sql: str, run: Callable[[], tuple]) -> tuple:
        """The kept (execution, rows) of a gold query, or those of running it now, which are then kept."""
        if self.folder is None:
            return run()
        place = self._place(path, sql)
        with contextlib.suppress(OSError, pickle.UnpicklingError, EOFError, AttributeError, TypeError):
            return pickle.loads(place.read_bytes())
        result = run()
        if result[0].outcome in KEPT_OUTCOMES:
            self._keep(place, result)
        return result

    def _place(self, path: str, sql: str) -> Path:
        status = os.stat(path)
        name = hashlib.sha256(sql.encode("utf-8", "surrogatepass")).hexdigest()[:32]
        return self.folder / _fingerprint(path, status.st_size, status.st_mtime_ns) / f"{name}.pickle"

    def _keep(self, place: Path, result: tuple) -> None:
        # a cache that cannot be written (full disk, no permission) costs time, not the run
        with contextlib.suppress(OSError):
            place.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=place.parent)
            with os.fdopen(handle, "wb") as file:
                pickle.dump(result, file, protocol=pickle.HIGHEST_PROTOCOL)
            os.replace(temporary, place)
