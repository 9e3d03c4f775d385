"""Gold results on disk, by database fingerprint and query, for all workers and runs.

What one process keeps all others take for true, so nothing is kept that may come out otherwise another time.
"""

import contextlib
import hashlib
import os
import pickle
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tree.sql.cache import fingerprint
from tree.sql.results import BY_CHANCE

EDITION = "1"  # of what `sandbox.run` makes of a query: results of another edition are not taken for these
KEPT_OUTCOMES = ("ok", "empty")  # limits and some errors depend on the machine, so what they ended is tried again


@dataclass(frozen=True)
class GoldCache:
    """A folder of results; hashable, so that it can be handed to workers. `folder` None keeps nothing on disk."""

    folder: Path | None

    def place(self, path: str, sql: str) -> Path | None:
        """Where the result of a gold query on the database at `path` is kept, as the database is now."""
        if self.folder is None:
            return None
        name = hashlib.sha256(sql.encode("utf-8", "surrogatepass")).hexdigest()[:32]
        return self.folder / fingerprint(path) / EDITION / f"{name}.pickle"

    def load(self, place: Path | None) -> tuple | None:
        """The (execution, rows) kept at a place; None when there is none or it is damaged, in whatever way."""
        if place is None:
            return None
        try:
            kept = pickle.loads(place.read_bytes())
        except Exception:  # damaged pickles raise nearly anything
            return None
        return kept if isinstance(kept, tuple) and len(kept) == 2 else None

    def keep(self, place: Path | None, result: tuple) -> None:
        """Keep (execution, rows) on disk, unless the query did not run to its end, or its result is the moment's.

        A cache that cannot be written (full disk, no permission) costs time, not the run.
        """
        execution = result[0]
        if place is None or execution.outcome not in KEPT_OUTCOMES or BY_CHANCE in execution.flags:
            return
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
