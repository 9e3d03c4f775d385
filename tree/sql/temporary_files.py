"""A limit on the temporary files of a running query: SQLite makes one for each sort and each subquery that outgrows its
cache, and a limit of the kernel holds for one file only.
"""

import contextlib
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator

MOST = 2 << 30  # bytes of the files of one query together, beside what it writes between two looks or in one step
LOOK_EVERY = 0.1  # seconds

_lock = threading.Lock()
_stops: list[Callable[[], None]] = []  # of the queries that run, in a worker one at most


@contextlib.contextmanager
def watched(stop: Callable[[], None]) -> Iterator[None]:
    """While the block runs, `watch` calls `stop` when this process has too much in temporary files."""
    with _lock:
        _stops.append(stop)
    try:
        yield
    finally:
        with _lock:
            _stops.remove(stop)


def watch(most: int = MOST) -> None:
    """Stop what is `watched` whenever there are more than `most` bytes, for ever: for a thread of its own."""
    while True:
        time.sleep(LOOK_EVERY)
        # the lock: the query that fills the files is the one that is stopped; a query may leave no memory for looking
        with _lock, contextlib.suppress(OSError, MemoryError):
            if _stops and temporary_bytes() > most:
                for stop in _stops:
                    stop()


def temporary_bytes() -> int:
    """Bytes of this process's open files that have no name any more, but for its standard streams.

    SQLite deletes a temporary file as soon as it has opened it (https://www.sqlite.org/tempfiles.html).
    """
    total = 0
    for name in os.listdir("/dev/fd"):
        with contextlib.suppress(OSError):  # closed meanwhile
            status = os.fstat(int(name))
            is_nameless = stat.S_ISREG(status.st_mode) and not status.st_nlink and int(name) > 2
            total += status.st_size if is_nameless else 0
    return total
