"""The tables and views of a SQLite file and their columns, and what of them this SQLite cannot read."""

import re
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tree.sql.tokens import delimited

# (table or view, column) -> why it cannot be read; the column is "" where the whole table cannot
Problems = dict[tuple[str, str], str]

# inner tables of full-text search, R-trees and sqlite-vec, after the name of the virtual table and "_": SQLite itself
# knows them only when it has the module
INNER = re.compile(
    r"content|segments|segdir|docsize|stat|data|idx|config|node|parent|rowid"
    r"|chunks|rowids|info|auxiliary|vector_chunks\d+|metadatachunks\d+|metadatatext\d+",
    re.IGNORECASE,
)
NOT_UNICODE = "its name is not UTF-8"
HIDDEN = 1  # of pragma_table_xinfo: a column that a virtual table has for its own ends


@dataclass(frozen=True)
class ColumnInfo:
    """A column: its declared type `kind`, its place in the primary key `rank` (from 1; 0: it is not in it), whether it
    is `computed` from others (GENERATED ALWAYS AS), and why it cannot be read ("" when it can).
    """

    name: str
    kind: str
    rank: int
    computed: bool
    problem: str = ""


@dataclass(frozen=True)
class TableInfo:
    """A table or view, its columns in stored order, and why none of them can be read ("" when some can).

    `kind` is table, view, virtual, or shadow for an inner table of a virtual one.
    """

    name: str
    kind: str
    columns: tuple[ColumnInfo, ...] = ()
    problem: str = ""

    def readable(self) -> tuple[ColumnInfo, ...]:
        """The columns that can be read."""
        return () if self.problem else tuple(column for column in self.columns if not column.problem)

    def problems(self) -> Problems:
        """What cannot be read of it."""
        if self.problem:
            return {(self.name, ""): self.problem}
        return {(self.name, column.name): column.problem for column in self.columns if column.problem}


def is_unicode(text: str) -> bool:
    """Whether text can be bound and written; other bytes come as surrogates, see `tree.sql.database_file.connect`."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def left_out(db_id: str, table: str, column: str, why: str) -> str:
    """The warning about one of `Problems`, on one line, with bytes that are not UTF-8 escaped."""
    name = f"{table}.{column}" if column else table
    name = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return f"warning: {db_id}: {' '.join(name.split())} is left out, because it cannot be read: {why}"


def list_tables(connection: sqlite3.Connection) -> list[TableInfo]:
    """The tables and views of a database (see `database_file.connect`) in their stored order, without SQLite's own.

    Readable is what a query on it can be prepared for: no row is read, so damaged pages are not seen. Raises
    sqlite3.DatabaseError for a file that SQLite refuses as a whole.
    """
    kinds = dict(connection.execute("SELECT name, type FROM pragma_table_list WHERE schema = 'main'"))
    rows = connection.execute("SELECT name, type FROM sqlite_master WHERE type IN ('table', 'view') ORDER BY rowid")
    made = [(name, kinds.get(name, kind)) for name, kind in rows.fetchall() if not name.startswith("sqlite_")]
    found = [_table_info(connection, name, kind) for name, kind in made]
    lost = [table.name.lower() for table in found if table.kind == "virtual" and table.problem]
    return [replace(table, kind="shadow") if _is_inner(table.name.lower(), lost) else table for table in found]


def _is_inner(name: str, virtual: Sequence[str]) -> bool:
    return any(name.startswith(f"{owner}_") and INNER.fullmatch(name[len(owner) + 1 :]) for owner in virtual)


def _table_info(connection: sqlite3.Connection, name: str, kind: str) -> TableInfo:
    if not is_unicode(name):  # no query can name it
        return TableInfo(name, kind, problem=NOT_UNICODE)
    query = "SELECT name, type, pk, hidden FROM pragma_table_xinfo(?)"
    try:
        rows = [row for row in connection.execute(query, (name,)) if row[3] != HIDDEN]
    except (sqlite3.Error, UnicodeError, MemoryError) as error:
        return TableInfo(name, kind, problem=reason(error))
    named = [column for column, *_ in rows if is_unicode(column)]
    together = _obstacle(connection, name, kind, named)
    alone = {column: together and _obstacle(connection, name, kind, [column]) for column in named}
    columns = tuple(
        ColumnInfo(column, type_, rank, bool(hidden), alone.get(column, NOT_UNICODE))
        for column, type_, rank, hidden in rows
    )
    lost = columns and all(column.problem for column in columns)
    return TableInfo(name, kind, columns, columns[0].problem if lost else "")


def _obstacle(connection: sqlite3.Connection, table: str, kind: str, columns: Sequence[str]) -> str:
    """Why a query for these columns cannot be prepared, "" when it can."""
    names = ", ".join(f"{delimited(table)}.{delimited(column)}" for column in columns) or "1"
    try:
        connection.execute(f"EXPLAIN SELECT {names} FROM {delimited(table)} {by_scan(kind)}").close()
    except (sqlite3.Error, UnicodeError, MemoryError) as error:
        return reason(error)
    return ""


def by_scan(kind: str) -> str:
    """What keeps a query on a table away from its indexes: one with an unknown collation cannot be read."""
    return "NOT INDEXED" if kind == "table" else ""


def reason(error: Exception) -> str:
    """Why something cannot be read, in one line."""
    if isinstance(error, UnicodeError):  # in the text of SQLite's own message
        return "its definition is not UTF-8"
    return " ".join(str(error).split()) or type(error).__name__
