"""Gold results on disk, by database fingerprint and query, for all workers and runs."""

import contextlib
import hashlib
import os
import pickle
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tree.cache import fingerprint

KEPT_OUTCOMES = ("ok", "empty", "error")  # limits depend on the machine, so what they stopped is tried again


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
        name = hashlib.sha256(sql.encode("utf-8", "surrogatepass")).hexdigest()[:32]
        return self.folder / fingerprint(path) / f"{name}.pickle"
