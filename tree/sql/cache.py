"""Where things derived from databases are kept: folders under RESQLVER_CACHE, by what a database file holds.

A file is read whole to know what it holds, and its digest is remembered, in memory and on disk, for as long as the
system says that it is the same file, unchanged. What the system says is the time of the last change of its inode,
which nobody can set back, as can be done with the time of the last change of its content.
"""

import contextlib
import hashlib
import os
import pickle
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from common.files import InputError
from tree.sql.results import BY_CHANCE, RAN, Execution, Row

# Nanoseconds for which a changed file's times may not tell it from one that is changed once more: as git does with
# files in its index that are "racily clean" (https://git-scm.com/docs/racy-git), its digest is not remembered.
FRESH = 2_000_000_000
TICK = 12_000_000  # the same on file systems of this machine, whose clock moves on every 1 to 10 ms

State = tuple[str, int, int, int, int, int]


def cache_folder(name: str) -> Path:
    """The folder `name` in RESQLVER_CACHE, by default ~/.cache/resqlver."""
    return Path(os.environ.get("RESQLVER_CACHE") or Path.home() / ".cache" / "resqlver") / name


# --- what a file holds ----------------------------------------------------------------------------------------------


def file_state(path: str | os.PathLike) -> State:
    """What changes with the file behind a path, as the system tells it: path, device, inode, size, and its two times
    of change in nanoseconds, that of the content and that of the inode. Raises InputError.
    """
    with _reading(path):
        return _state(path, os.stat(path))


@contextlib.contextmanager
def _reading(path: str | os.PathLike) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from None


def _state(path: str | os.PathLike, status: os.stat_result) -> State:
    times = status.st_mtime_ns, status.st_ctime_ns
    return os.fspath(path), status.st_dev, status.st_ino, status.st_size, *times


def settle(state: State) -> None:
    """Wait, for TICK at most, until a change of the file would give it another state."""
    passed = time.time_ns() - state[-1]
    if 0 <= passed < TICK:
        time.sleep((TICK - passed) / 1e9)


_digests: dict[State, str] = {}  # that this process knows


def content_digest(path: str | os.PathLike) -> str:
    """The SHA-256 of a file's bytes in hex digits. It is read when its digest is not remembered. Raises InputError.

    A cache that cannot be written costs the time to read it again.
    """
    state = file_state(path)
    if known := _digests.get(state):
        return known
    if remembered := _recall(_memo(state)):
        _digests[state] = remembered
        return remembered
    begun = time.time_ns()
    with _reading(path), open(path, "rb") as file:
        state = _state(path, os.fstat(file.fileno()))
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        unchanged = state == _state(path, os.fstat(file.fileno()))
    if unchanged and state[-1] < begun - FRESH:
        _digests[state] = digest
        _remember(_memo(state), digest)
    return digest


def _memo(state: State) -> Path:
    """Where the digest of a file in some state is remembered."""
    named = ascii((os.path.realpath(state[0]), *state[1:]))
    return cache_folder("digests") / hashlib.sha256(named.encode()).hexdigest()[:32]


def _recall(memo: Path) -> str | None:
    """The remembered digest; None when there is none or it is damaged."""
    with contextlib.suppress(OSError, ValueError):
        digest, check = memo.read_text("ascii").split()
        return digest if check == _check(memo, digest) else None
    return None


def _remember(memo: Path, digest: str) -> None:
    with contextlib.suppress(OSError):
        memo.parent.mkdir(parents=True, exist_ok=True)
        memo.write_text(f"{digest} {_check(memo, digest)}\n", "ascii")  # half a file fails the check


def _check(memo: Path, digest: str) -> str:
    return hashlib.sha256(f"{memo.name} {digest}".encode()).hexdigest()[:16]


def fingerprint(database: str | os.PathLike) -> str:
    """32 hex digits that change with any byte of a database, and with the SQLite that reads it. Raises InputError."""
    return hashlib.sha256(f"{content_digest(database)}/{sqlite3.sqlite_version}".encode()).hexdigest()[:32]


# --- files that take their place when they are whole ----------------------------------------------------------------


@contextlib.contextmanager
def building(place: Path, lasting: bool = True) -> Iterator[str]:
    """The name of a file to write; it takes the place of `place` when the block ends well, else nothing of it stays.

    Processes may build the same file at once; the last one stays. Unless it is `lasting`, losing power may cost it.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{place.name}.", suffix=".tmp", dir=place.parent)
    try:
        yield temporary
        if lasting:
            os.fsync(handle)
        os.replace(temporary, place)
    except BaseException:
        os.unlink(temporary)
        raise
    finally:
        os.close(handle)


# --- gold results -----------------------------------------------------------------------------------------------------

EDITION = "1"  # of what `sandbox.run` makes of a query: results of another edition are not taken for these


def gold_file(folder: Path | None, path: str, sql: str) -> Path | None:
    """Where in a folder the result of a gold query is kept, as the database at `path` is now; None without a folder."""
    if folder is None:
        return None
    name = hashlib.sha256(sql.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    return folder / fingerprint(path) / EDITION / f"{name}.pickle"


def load_gold(file: Path | None) -> tuple[Execution, list[Row]] | None:
    """A kept result; None when there is none or it is damaged, in whatever way."""
    if file is None:
        return None
    try:
        kept = pickle.loads(file.read_bytes())
    except Exception:  # damaged pickles raise nearly anything
        return None
    return kept if isinstance(kept, tuple) and len(kept) == 2 else None


def keep_gold(file: Path | None, execution: Execution, rows: list[Row]) -> None:
    """Keep a result, unless the query did not run to its end, or its result is the moment's.

    What one process keeps all others take for true. A cache that cannot be written costs time, not the run.
    """
    if file is None or execution.outcome not in RAN or BY_CHANCE in execution.flags:
        return  # limits and some errors depend on the machine, so what they ended is tried again
    with contextlib.suppress(OSError), building(file, lasting=False) as temporary, open(temporary, "wb") as output:
        pickle.dump((execution, rows), output, protocol=pickle.HIGHEST_PROTOCOL)
