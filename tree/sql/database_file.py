"""What a SQLite file says about itself before it is opened: whether it is whole, and whether a journal beside it holds
changes that are not in it.  Formats: https://www.sqlite.org/fileformat.html.
"""

import contextlib
import shlex
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from common.files import InputError

MAGIC = b"SQLite format 3\0"
HEADER = 100  # bytes of a database
MIN_PAGE = 512  # bytes
WAL_HEADER = 32  # bytes; changes follow
FIX = "download or build it again"


def trouble_with(path: Path) -> str:
    """What is wrong with the file at `path` as a database, and what to do about it; "" when nothing is seen."""
    with path.open("rb") as file:
        header = file.read(HEADER)
    if not header:
        return f"an empty file, no database; {FIX}"
    if not header.startswith(MAGIC):
        return f"not a SQLite database; {FIX}"
    size, wanted = path.stat().st_size, _size_wanted(header.ljust(HEADER, b"\0"), path.stat().st_size)
    return _unfinished(path.resolve()) or (f"cut off, {size} of {wanted} bytes; {FIX}" if size < wanted else "")


def _size_wanted(header: bytes, size: int) -> int:
    """The least size that a file with this header has. It may be longer: SQLite does not look at the rest."""
    page = int.from_bytes(header[16:18], "big")
    page = 65_536 if page == 1 else page
    pages = int.from_bytes(header[28:32], "big")
    if not pages or header[24:28] != header[92:96]:  # by a SQLite before 3.7, which did not keep the count
        pages = -(-size // max(page, 1))
    return max(page * pages, MIN_PAGE)


def _unfinished(path: Path) -> str:
    """The journal with changes that a database lacks, and how to bring them in; "" when there is none.

    SQLite looks for journals beside the file that a link leads to. A rollback journal whose first byte is zero, as
    PRAGMA journal_mode = PERSIST leaves it, holds nothing, and so does a write-ahead log without a page.
    """
    log, journal = Path(f"{path}-wal"), Path(f"{path}-journal")
    if log.is_file() and log.stat().st_size > WAL_HEADER:
        sql = "PRAGMA wal_checkpoint(TRUNCATE)"
    elif journal.is_file() and _first_byte(journal) not in (b"", b"\0"):
        log, sql = journal, "SELECT count(*) FROM sqlite_master"  # the first reader rolls back
    else:
        return ""
    return f'unfinished changes in {log.name}; run: sqlite3 {shlex.quote(str(path))} "{sql}"'


def _first_byte(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(1)


# --- reading it ----------------------------------------------------------------------------------------------------


def connect(path: str | Path) -> sqlite3.Connection:
    """A read-only, immutable connection. Text that is not UTF-8 comes back with surrogates, so no byte is lost."""
    address = f"file:{quote(str(Path(path).resolve()))}?mode=ro&immutable=1"
    # no statement cache: the authorizer must see every query
    connection = sqlite3.connect(address, uri=True, isolation_level=None, cached_statements=0)
    connection.text_factory = lambda data: data.decode("utf-8", "surrogateescape")
    return connection


@contextlib.contextmanager
def opened(path: str | Path) -> Iterator[sqlite3.Connection]:
    """A connection as of `connect`. What SQLite says against the file in the block becomes an InputError."""
    try:
        with contextlib.closing(connect(path)) as connection:
            yield connection
    except sqlite3.Error as error:
        raise refusal(path, error) from error


def refusal(path: str | Path, error: sqlite3.Error) -> InputError:
    """The error for a file that this SQLite refuses as a whole."""
    newer = f", or use a Python with a newer SQLite than {sqlite3.sqlite_version}"
    return InputError(f"{path}: {error}; {FIX}{newer if 'schema' in str(error) else ''}")
