"""Rows of a database's tables: few enough for small copies, with the rows that they refer to."""

import contextlib
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from tree.sql.results import Row
from tree.sql.table_info import ColumnInfo, Problems, TableInfo, is_unicode, list_tables, reason
from tree.sql.tokens import delimited

ROWS = 5_000  # taken of a table, beside those that the rows taken refer to
BLOCKS = 10  # of neighbouring rows, which often belong together, that the rows of a larger table are taken in
BYTES = 64_000_000  # of text and blobs taken of a table


@dataclass(frozen=True)
class Reference:
    """A foreign key: columns of a table, by number, and those of its parent that they refer to."""

    columns: tuple[int, ...]
    parent: str
    parent_columns: tuple[int, ...]


@dataclass
class SampledTable:
    """A table's definition and the rows taken of it; `complete` when these are all.

    Rows hold every column; `stored` are the numbers of those not computed from others, `movable` of those that may be
    shuffled.
    """

    name: str
    sql: str
    columns: tuple[str, ...]
    stored: tuple[int, ...]
    movable: tuple[int, ...]
    references: tuple[Reference, ...]
    rows: list[Row]
    complete: bool


def read_tables(connection: sqlite3.Connection, problems: Problems) -> dict[str, SampledTable]:
    """Ordinary tables by their names in lower case, in the order of their creation, with at most ROWS rows of each and
    those that these refer to. A table with something that cannot be read is left out and added to `problems`.
    """
    definitions = dict(connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'"))
    ordinary = [info for info in list_tables(connection) if info.kind == "table"]
    for info in ordinary:
        problems.update(info.problems())
    readable = [info for info in ordinary if not info.problems()]
    columns = {info.name.lower(): info.columns for info in readable}
    references = {info.name.lower(): _references(connection, info.name, columns) for info in readable}
    tables = {}
    for info in readable:
        try:
            tables[info.name.lower()] = _sample(connection, info, definitions[info.name], references)
        except sqlite3.Error as error:
            problems[info.name, ""] = reason(error)
    if problems and not tables:
        raise sqlite3.DatabaseError(f"no table can be read: {next(iter(problems.values()))}")
    for table in tables.values():
        table.references = tuple(reference for reference in table.references if reference.parent in tables)
    _take_parents(connection, tables)
    return tables


def _sample(
    connection: sqlite3.Connection, info: TableInfo, definition: str, references: dict[str, tuple[Reference, ...]]
) -> SampledTable:
    rows, complete = _rows_taken(connection, info.name, {column.name.lower() for column in info.columns})
    return SampledTable(
        name=info.name,
        sql=definition,
        columns=tuple(column.name for column in info.columns),
        stored=tuple(number for number, column in enumerate(info.columns) if not column.computed),
        movable=_movable_columns(connection, info, references),
        references=references[info.name.lower()],
        rows=rows,
        complete=complete,
    )


def _references(
    connection: sqlite3.Connection, name: str, columns: dict[str, tuple[ColumnInfo, ...]]
) -> tuple[Reference, ...]:
    """The foreign keys of a table, without those to tables or columns that do not exist."""
    parts: dict[int, list[Row]] = {}
    query = 'SELECT id, "table", "from", "to" FROM pragma_foreign_key_list(?) ORDER BY id, seq'
    for key, parent, *pair in connection.execute(query, (name,)):
        parts.setdefault(key, []).append((parent.lower(), *pair))
    numbers = {table: {column.name.lower(): i for i, column in enumerate(own)} for table, own in columns.items()}
    found = []
    for key in parts.values():
        parent = key[0][0]
        primary = [one.name for one in sorted(columns.get(parent, ()), key=lambda column: column.rank) if one.rank]
        wanted = primary if key[0][2] is None else [column for *_, column in key]  # without names, the primary key
        with contextlib.suppress(KeyError):
            here = tuple(numbers[name.lower()][column.lower()] for _, column, _ in key)
            there = tuple(numbers[parent][column.lower()] for column in wanted)
            if len(here) == len(there):
                found.append(Reference(here, parent, there))
    return tuple(found)


def _movable_columns(
    connection: sqlite3.Connection, info: TableInfo, references: dict[str, tuple[Reference, ...]]
) -> tuple[int, ...]:
    """The columns of a table that no key, foreign key or UNIQUE says anything about."""
    bound = {number for number, column in enumerate(info.columns) if column.rank}
    for table, own in references.items():
        for reference in own:
            bound.update(reference.columns if table == info.name.lower() else ())
            bound.update(reference.parent_columns if reference.parent == info.name.lower() else ())
    unclear = any(column.computed for column in info.columns)  # what is computed may be bound by anything
    unique = """SELECT partial, cid FROM pragma_index_list(?) AS list, pragma_index_info(list.name) WHERE "unique\""""
    for partial, number in connection.execute(unique, (info.name,)):
        unclear = unclear or partial or number < 0  # of some rows, or an expression
        bound.add(number)
    return () if unclear else tuple(number for number in range(len(info.columns)) if number not in bound)


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


def comparable_key(row: Row, columns: Iterable[int]) -> tuple | None:
    """What a row's key refers to, or is referred to by; None when a part is NULL, which refers to nothing.

    It is coarser than SQLite's comparison, whose affinities and collations may hold 1 and '1', or 'a' and 'A', for
    equal. Keys that are wrongly taken for equal only keep a few more rows together.
    """
    key = tuple(_comparable(row[column]) for column in columns)
    return None if None in key else key


def _comparable(value: object) -> object:
    if not isinstance(value, str):
        return value
    text = value.strip().lower()
    if text[-1:].isdigit():
        for number in (int, float):
            with contextlib.suppress(ValueError):
                return number(text)
    return text


def _take_parents(connection: sqlite3.Connection, tables: dict[str, SampledTable]) -> None:
    """Add the rows that taken rows refer to, and those that these refer to."""
    connection.execute("PRAGMA temp_store = MEMORY")
    links = [(table, reference) for table in tables.values() for reference in table.references]
    has_grown = True
    while has_grown:
        has_grown = False
        for table, reference in links:
            parent = tables[reference.parent]
            if not parent.complete:
                rows = _missing_parents(connection, table, reference, parent)
                parent.rows += rows
                has_grown = has_grown or bool(rows)


def _missing_parents(
    connection: sqlite3.Connection, table: SampledTable, reference: Reference, parent: SampledTable
) -> list[Row]:
    present = {None, *(comparable_key(row, reference.parent_columns) for row in parent.rows)}
    keys = ((comparable_key(row, reference.columns), row) for row in table.rows)
    wanted = {key: [row[column] for column in reference.columns] for key, row in keys if key not in present}
    names = ", ".join(delimited(parent.columns[column]) for column in reference.parent_columns)
    slots = ", ".join(f"k{i}" for i in range(len(reference.columns)))
    connection.execute(f"CREATE TEMP TABLE wanted ({slots})")
    insert_rows(connection, "temp.wanted", wanted.values())
    query = f"SELECT * FROM {delimited(parent.name)} WHERE ({names}) IN (SELECT * FROM temp.wanted)"
    try:
        rows = connection.execute(query).fetchall()
    except sqlite3.Error:  # a collation that is missing, a damaged page: these rows stay without their parents
        rows = []
    connection.execute("DROP TABLE temp.wanted")
    return [row for row in rows if comparable_key(row, reference.parent_columns) not in present]


def insert_rows(connection: sqlite3.Connection, table: str, rows: Iterable[Sequence]) -> None:
    """Insert rows byte for byte, without those that the table does not admit, which only a damaged source has."""
    for row in rows:
        odd = [isinstance(value, str) and not is_unicode(value) for value in row]  # can be bound as bytes only
        values = [v.encode("utf-8", "surrogateescape") if is_odd else v for v, is_odd in zip(row, odd, strict=True)]
        slots = ", ".join("CAST(? AS TEXT)" if is_odd else "?" for is_odd in odd)
        connection.execute(f"INSERT OR IGNORE INTO {table} VALUES ({slots})", values)
