"""Rows of a database's tables: few enough for small copies, with the rows that they refer to."""

import contextlib
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from tree.sql_text import delimited

ROWS = 5_000  # taken of a table, beside those that the rows taken refer to
BLOCKS = 10  # of neighbouring rows, which often belong together, that the rows of a larger table are taken in
BYTES = 64_000_000  # of text and blobs taken of a table

Row = tuple


@dataclass(frozen=True)
class ForeignKey:
    """Columns of a table, by number, and those that they refer to."""

    columns: tuple[int, ...]
    parent: str
    parent_columns: tuple[int, ...]


@dataclass
class Table:
    """A table's definition and the rows taken of it; `whole` when these are all.

    Rows hold every column; `stored` are those not computed from others, `free` those that may be shuffled.
    """

    name: str
    sql: str
    columns: tuple[str, ...]
    stored: tuple[int, ...]
    free: tuple[int, ...]
    keys: tuple[ForeignKey, ...]
    rows: list[Row]
    whole: bool


def is_unicode(text: str) -> bool:
    """Whether text can be bound and written; other bytes come as surrogates, see `tree.sandbox.connect`."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def read_tables(connection: sqlite3.Connection) -> dict[str, Table]:
    """Ordinary tables by their names in lower case, in the order of their creation, with at most ROWS rows of each and
    those that these refer to.
    """
    kinds = dict(connection.execute("SELECT name, type FROM pragma_table_list WHERE schema = 'main'"))
    made = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table' ORDER BY rowid").fetchall()
    definitions = {
        name: sql
        for name, sql in made
        if sql and kinds.get(name) == "table" and is_unicode(name) and name[:7] != "sqlite_"
    }
    columns = {
        name.lower(): connection.execute("SELECT name, pk, hidden FROM pragma_table_xinfo(?)", (name,)).fetchall()
        for name in definitions
    }
    keys = {name.lower(): _foreign_keys(connection, name, columns) for name in definitions}
    tables = {}
    for name, sql in definitions.items():
        own = columns[name.lower()]
        rows, whole = _rows_taken(connection, name, {column.lower() for column, *_ in own})
        tables[name.lower()] = Table(
            name=name,
            sql=sql,
            columns=tuple(column for column, *_ in own),
            stored=tuple(number for number, (*_, hidden) in enumerate(own) if not hidden),
            free=_free_columns(connection, name, own, keys),
            keys=keys[name.lower()],
            rows=rows,
            whole=whole,
        )
    _take_parents(connection, tables)
    return tables


def _foreign_keys(connection: sqlite3.Connection, name: str, columns: dict[str, list[Row]]) -> tuple[ForeignKey, ...]:
    """The foreign keys of a table, without those to tables or columns that do not exist."""
    parts: dict[int, list[Row]] = {}
    query = 'SELECT id, "table", "from", "to" FROM pragma_foreign_key_list(?) ORDER BY id, seq'
    for key, parent, *pair in connection.execute(query, (name,)):
        parts.setdefault(key, []).append((parent.lower(), *pair))
    numbers = {table: {column.lower(): i for i, (column, *_) in enumerate(own)} for table, own in columns.items()}
    found = []
    for key in parts.values():
        parent = key[0][0]
        primary = [column for column, place, _ in sorted(columns.get(parent, ()), key=lambda row: row[1]) if place]
        wanted = primary if key[0][2] is None else [column for *_, column in key]  # without names, the primary key
        with contextlib.suppress(KeyError):
            here = tuple(numbers[name.lower()][column.lower()] for _, column, _ in key)
            there = tuple(numbers[parent][column.lower()] for column in wanted)
            if len(here) == len(there):
                found.append(ForeignKey(here, parent, there))
    return tuple(found)


def _free_columns(
    connection: sqlite3.Connection, name: str, columns: list[Row], keys: dict[str, tuple[ForeignKey, ...]]
) -> tuple[int, ...]:
    """The columns of a table that no key, foreign key or UNIQUE says anything about."""
    bound = {number for number, (_, primary, _) in enumerate(columns) if primary}
    for table, own in keys.items():
        for key in own:
            bound.update(key.columns if table == name.lower() else ())
            bound.update(key.parent_columns if key.parent == name.lower() else ())
    unclear = any(hidden for *_, hidden in columns)  # what is computed may be bound by anything
    unique = 'SELECT name, partial FROM pragma_index_list(?) WHERE "unique"'
    for index, partial in connection.execute(unique, (name,)).fetchall():
        numbers = [number for (number,) in connection.execute("SELECT cid FROM pragma_index_info(?)", (index,))]
        unclear = unclear or partial or min(numbers) < 0  # of some rows, or an expression
        bound.update(numbers)
    return () if unclear else tuple(number for number in range(len(columns)) if number not in bound)


def _rows_taken(connection: sqlite3.Connection, name: str, columns: set[str]) -> tuple[list[Row], bool]:
    """Rows of a table in its own order, and whether they are all: the first of each block of a large one."""
    table = f"{delimited(name)} NOT INDEXED"
    rows, read = _read(connection.execute(f"SELECT * FROM {table} LIMIT {ROWS + 1}"), BYTES)
    if len(rows) <= ROWS:
        return rows, read
    rowid = next((word for word in ("rowid", "oid", "_rowid_") if word not in columns), "rowid")
    try:
        first, last = connection.execute(f"SELECT MIN({rowid}), MAX({rowid}) FROM {table}").fetchone()
        starts = [first + (last + 1 - first) * block // BLOCKS for block in range(BLOCKS + 1)]
    except (sqlite3.OperationalError, TypeError):  # WITHOUT ROWID, or all three are names of columns
        return rows[:ROWS], False
    query = f"SELECT * FROM {table} WHERE {rowid} >= ? AND {rowid} < ? ORDER BY {rowid} LIMIT {ROWS // BLOCKS}"
    blocks = (connection.execute(query, bounds) for bounds in pairwise(starts))
    return [row for block in blocks for row in _read(block, BYTES // BLOCKS)[0]], False


def _read(cursor: Iterable[Row], budget: int) -> tuple[list[Row], bool]:
    """Rows until their text and blobs take more than `budget`, and whether these are all."""
    rows = []
    for row in cursor:
        rows.append(row)
        budget -= sum(len(value) for value in row if isinstance(value, str | bytes))
        if budget < 0:
            return rows, False
    return rows, True


def alike(row: Row, columns: Iterable[int]) -> tuple | None:
    """What a row's key refers to, or is referred to by; None when a part is NULL, which refers to nothing.

    It is coarser than SQLite's comparison, whose affinities and collations may hold 1 and '1', or 'a' and 'A', for
    equal. Keys that are wrongly taken for equal only keep a few more rows together.
    """
    key = tuple(_alike(row[column]) for column in columns)
    return None if None in key else key


def _alike(value: object) -> object:
    if not isinstance(value, str):
        return value
    text = value.strip().lower()
    if text[-1:].isdigit():
        for number in (int, float):
            with contextlib.suppress(ValueError):
                return number(text)
    return text


def _take_parents(connection: sqlite3.Connection, tables: dict[str, Table]) -> None:
    """Add the rows that taken rows refer to, and those that these refer to."""
    connection.execute("PRAGMA temp_store = MEMORY")
    grown = True
    while grown:
        grown = False
        for table in tables.values():
            for key in table.keys:
                parent = tables[key.parent]
                if not parent.whole:
                    rows = _missing_parents(connection, table, key, parent)
                    parent.rows += rows
                    grown = grown or bool(rows)


def _missing_parents(connection: sqlite3.Connection, table: Table, key: ForeignKey, parent: Table) -> list[Row]:
    present = {None, *(alike(row, key.parent_columns) for row in parent.rows)}
    keys = ((alike(row, key.columns), row) for row in table.rows)
    wanted = {found: [row[column] for column in key.columns] for found, row in keys if found not in present}
    names = ", ".join(delimited(parent.columns[column]) for column in key.parent_columns)
    connection.execute(f"CREATE TEMP TABLE wanted ({', '.join(f'k{i}' for i in range(len(key.columns)))})")
    insert_rows(connection, "temp.wanted", wanted.values())
    query = f"SELECT * FROM {delimited(parent.name)} WHERE ({names}) IN (SELECT * FROM temp.wanted)"
    rows = connection.execute(query).fetchall()
    connection.execute("DROP TABLE temp.wanted")
    return [row for row in rows if alike(row, key.parent_columns) not in present]


def insert_rows(connection: sqlite3.Connection, table: str, rows: Iterable[Sequence]) -> None:
    """Insert rows byte for byte, without those that the table does not admit, which only a damaged source has."""
    for row in rows:
        odd = [isinstance(value, str) and not is_unicode(value) for value in row]  # can be bound as bytes only
        values = [v.encode("utf-8", "surrogateescape") if is_odd else v for v, is_odd in zip(row, odd, strict=True)]
        slots = ", ".join("CAST(? AS TEXT)" if is_odd else "?" for is_odd in odd)
        connection.execute(f"INSERT OR IGNORE INTO {table} VALUES ({slots})", values)
