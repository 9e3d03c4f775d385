"""A full-text index of a database's cells, kept in the cache, for finding those that a question speaks of.

Covered: short texts with a letter, in tables. Not covered: numbers, free text, time stamps, links, hashes, views,
virtual tables, and what cannot be read of a damaged database (`unread_columns`).
"""

import contextlib
import re
import sqlite3
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from common.files import InputError
from tree.sql.cache import building, fingerprint
from tree.sql.database_file import connect
from tree.sql.table_info import ColumnInfo, Problems, list_tables, reason
from tree.sql.tokens import delimited

FORMAT = 2  # of the index; one of another format is built anew
MAX_DISTINCT = 100_000  # cells of one column
MAX_LENGTH = 80  # characters of a cell; a column whose texts are longer than that on average is free text
SAMPLED_ROWS = 1_000  # that tell what a column holds

TABLES = """
CREATE TABLE place (id INTEGER PRIMARY KEY, table_name TEXT, column_name TEXT);
CREATE TABLE name (word TEXT PRIMARY KEY);
CREATE TABLE unread (table_name TEXT, column_name TEXT, why TEXT);
CREATE VIRTUAL TABLE cell USING fts5 (value, place UNINDEXED, tokenize = 'porter unicode61 remove_diacritics 2');
"""
MEAN_LENGTH = f"""
SELECT avg(CASE typeof(cell) WHEN 'text' THEN length(cell) END)
FROM (SELECT {{column}} COLLATE BINARY AS cell FROM {{table}} NOT INDEXED LIMIT {SAMPLED_ROWS})
"""
NUMBERS = re.compile("INT|REAL|FLOA|DOUB|NUM|DEC", re.I)  # declared types
# cells that a question may speak of: short text with a letter, no time stamps, links or hashes. They are compared by
# their bytes and without an index, because this SQLite may lack the collation of the column or of the index
CELLS = f"""
SELECT DISTINCT cell FROM (SELECT {{column}} COLLATE BINARY AS cell FROM {{table}} NOT INDEXED)
WHERE typeof(cell) = 'text' AND length(cell) <= {MAX_LENGTH} AND (cell GLOB '*[A-Za-z]*' OR cell GLOB '*[^ -~]*')
AND cell NOT GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]T*' AND cell NOT LIKE '%://%' AND cell NOT LIKE 'www.%'
AND (cell NOT GLOB '*[0-9]*' OR cell GLOB '*[^0-9A-Fa-f-]*' OR length(cell) < 16)
LIMIT {MAX_DISTINCT}
"""
WORD = re.compile(r"[^\W_]+")


def words_of(text: str) -> list[str]:
    """Words in lower case without accents, as the index has them but for their endings."""
    plain = unicodedata.normalize("NFKD", text.casefold())
    return WORD.findall("".join(character for character in plain if not unicodedata.combining(character)))


def build_index(database: Path, folder: Path) -> Path:
    """The index of a database's cells in `folder`, built if it is not there yet (one scan for each text column).

    Raises InputError when it cannot be written, the database cannot be read or changes meanwhile, or this SQLite has no
    full-text search. Several processes may build the same index at once; the last one stays.
    """
    known = fingerprint(database)
    index = folder / f"{known}.sqlite"
    if _format(index) == FORMAT:
        return index
    try:
        with building(index) as temporary:
            _write_index(database, temporary)
            if fingerprint(database) != known:
                raise InputError(f"{database}: changed while its values were read; run the same command again")
    except (OSError, sqlite3.Error) as error:
        raise InputError(
            f"{database}: its values cannot be indexed in {folder} ({error}); check the database and the free space, "
            "or set RESQLVER_CACHE to another folder"
        ) from None
    return index


def unread_columns(index: Path) -> Problems:
    """The columns whose cells an index lacks because they could not be read when it was built."""
    with contextlib.closing(connect(index)) as connection:
        rows = connection.execute("SELECT table_name, column_name, why FROM unread").fetchall()
    return {(table, column): why for table, column, why in rows}


def _format(index: Path) -> int:
    """The format of an index, 0 when there is none."""
    with contextlib.suppress(sqlite3.Error), contextlib.closing(connect(index)) as connection:
        return connection.execute("PRAGMA user_version").fetchone()[0]
    return 0


def _write_index(database: Path, target: str) -> None:
    with _empty_index(target) as index, contextlib.closing(connect(database)) as source:
        columns = [
            (table.name, column)
            for table in sorted(list_tables(source), key=lambda table: table.name)
            if table.kind == "table"
            for column in table.readable()
        ]
        source.text_factory = bytes  # cells go into the index byte for byte
        for number, (table, column) in enumerate(columns):
            _add_column(index, source, number, table, column)
        words = {word for table, column in columns for word in words_of(f"{table} {column.name}")}
        index.executemany("INSERT INTO name VALUES (?)", ((word,) for word in sorted(words)))
        index.execute("INSERT INTO cell (cell) VALUES ('optimize')")


@contextlib.contextmanager
def _empty_index(target: str) -> Iterator[sqlite3.Connection]:
    """An index to fill, in one transaction. Raises InputError for an SQLite without full-text search."""
    with contextlib.closing(sqlite3.connect(target, isolation_level=None)) as index:
        index.execute("PRAGMA journal_mode = OFF")  # a torn file is thrown away
        index.execute("PRAGMA synchronous = OFF")
        try:
            index.executescript(TABLES)
        except sqlite3.OperationalError as error:
            if "no such module" not in str(error):
                raise
            raise InputError(
                f"SQLite {sqlite3.sqlite_version} of this Python has no full-text search ({error}); use a Python whose "
                "SQLite has FTS5 (python.org, conda-forge or uv)"
            ) from None
        index.execute("BEGIN")
        yield index
        index.execute(f"PRAGMA user_version = {FORMAT}")
        index.execute("COMMIT")


def _add_column(
    index: sqlite3.Connection, source: sqlite3.Connection, number: int, table: str, column: ColumnInfo
) -> None:
    try:
        cells = _cells(source, table, column)
    except sqlite3.Error as error:
        index.execute("INSERT INTO unread VALUES (?, ?, ?)", (table, column.name, reason(error)))
        return
    if cells is not None:
        index.execute("INSERT INTO place VALUES (?, ?, ?)", (number, table, column.name))
        numbered = ((cell, number) for (cell,) in cells)
        index.executemany("INSERT INTO cell VALUES (CAST(? AS TEXT), ?)", numbered)


def _cells(source: sqlite3.Connection, table: str, column: ColumnInfo) -> list[tuple[bytes]] | None:
    """The cells of a column that a question may speak of; None for a column of numbers or of free text."""
    names = {"table": delimited(table), "column": delimited(column.name)}
    (mean_length,) = source.execute(MEAN_LENGTH.format_map(names)).fetchone()
    if mean_length is None and NUMBERS.search(column.kind):  # a scan of millions of numbers is spared
        return None
    if mean_length is not None and mean_length > MAX_LENGTH:
        return None
    return source.execute(CELLS.format_map(names)).fetchall()
