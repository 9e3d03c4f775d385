"""Gold results on disk, by database fingerprint and query, for all workers and runs."""

import contextlib
import functools
import hashlib
import os
import pickle
import sqlite3
import tempfile
from dataclasses import dataclass
from pathlib import Path

SAMPLED_BLOCKS = 64  # of 4 KiB, spread over the file
KEPT_OUTCOMES = ("ok", "empty", "error")  # limits depend on the machine, so what they stopped is tried again


def default_folder() -> Path:
    """`gold` in RESQLVER_CACHE, by default ~/.cache/resqlver."""
    return Path(os.environ.get("RESQLVER_CACHE") or Path.home() / ".cache" / "resqlver") / "gold"


@functools.lru_cache(maxsize=256)
def fingerprint(path: str, size: int, changed: int) -> str:
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

    def load(self, path: str, sql: str) -> tuple | None:
        """The kept (execution, rows) of a gold query; None when there is none or it is damaged, in whatever way."""
        if self.folder is None:
            return None
        try:
            kept = pickle.loads(self._place(path, sql).read_bytes())
        except Exception:  # damaged pickles raise nearly anything
            return None
        return kept if isinstance(kept, tuple) and len(kept) == 2 else None

    def keep(self, path: str, sql: str, result: tuple) -> None:
        """Keep (execution, rows) on disk, unless a limit of this machine ended the query.

        A cache that cannot be written (full disk, no permission) costs time, not the run.
        """
        if self.folder is None or result[0].outcome not in KEPT_OUTCOMES:
            return
        place = self._place(path, sql)
        with contextlib.suppress(OSError):
            place.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=place.parent)
            try:
                with os.fdopen(handle, "wb") as file:
                    pickle.dump(result, file, protocol=pickle.HIGHEST_PROTOCOL)
                os.replace(temporary, place)
            except BaseException:
                os.unlink(temporary)
                raise

    def _place(self, path: str, sql: str) -> Path:
        status = os.stat(path)
        name = hashlib.sha256(sql.encode("utf-8", "surrogatepass")).hexdigest()[:32]
        return self.folder / fingerprint(path, status.st_size, status.st_mtime_ns) / f"{name}.pickle"
