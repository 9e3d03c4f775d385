"""Perturbed instances of a database: small copies with other rows, on which a query that is right only by coincidence
gives itself away.

Two queries that mean the same agree on every database of their schema; two that agree by luck on one seldom agree on
its relatives. The idea is that of test suites of databases: Zhong, Yu, Klein, "Semantic Evaluation for Text-to-SQL with
Distilled Test Suites" (arXiv 2010.02840). Their databases are drawn at random; these are made of the real rows, so
that joins and what queries ask for stay possible:

- `half_0`, `half_1`: a row that no other refers to is in one of them at most, so a result that hangs on it changes.
- `shuffled`: values change places among the rows of their table, so conditions that met in the same rows part.

Every declared key and foreign key that held still holds. Nothing is drawn: every machine builds the same rows. Not
guaranteed: in `shuffled`, dependencies between columns that nobody declared; in the halves, undeclared foreign keys.
Virtual tables, triggers and whatever this SQLite cannot create are left out.
"""

import contextlib
import math
import os
import random
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from tree.gold_cache import fingerprint

INSTANCES = ("half_0", "half_1", "shuffled")
EDITION = "1"  # of the rules in this file: instances made by others are not taken for these
ROWS = 5_000  # taken of a table, beside those that the rows taken refer to
BLOCKS = 10  # of neighbouring rows, which often belong together, that the rows of a larger table are taken in
BYTES = 64_000_000  # of text and blobs taken of a table
LEAST = 0.1  # of a table's half, see `second_half`

Row = tuple
Place = tuple[str, int]  # a row: its table and its number there
Links = dict[str, list[list[Place]]]  # table -> for each row, the rows that it refers to


def default_folder() -> Path:
    """`perturbed` in RESQLVER_CACHE, by default ~/.cache/resqlver."""
    return Path(os.environ.get("RESQLVER_CACHE") or Path.home() / ".cache" / "resqlver") / "perturbed"


def instance_files(folder: Path, path: str) -> list[Path]:
    """Where the instances of the database at `path` are, or would be."""
    status = os.stat(path)
    place = folder / fingerprint(path, status.st_size, status.st_mtime_ns) / EDITION
    return [place / f"{name}.sqlite" for name in INSTANCES]


# --- reading a database ---------------------------------------------------------------------------------------------


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


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _is_unicode(text: str) -> bool:
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
        if sql and kinds.get(name) == "table" and _is_unicode(name) and name[:7] != "sqlite_"
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
    table = f"{_quoted(name)} NOT INDEXED"
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
    names = ", ".join(_quoted(parent.columns[column]) for column in key.parent_columns)
    connection.execute(f"CREATE TEMP TABLE wanted ({', '.join(f'k{i}' for i in range(len(key.columns)))})")
    _insert(connection, "temp.wanted", wanted.values())
    query = f"SELECT * FROM {_quoted(parent.name)} WHERE ({names}) IN (SELECT * FROM temp.wanted)"
    rows = connection.execute(query).fetchall()
    connection.execute("DROP TABLE temp.wanted")
    return [row for row in rows if alike(row, key.parent_columns) not in present]


# --- choosing rows --------------------------------------------------------------------------------------------------


def links(tables: dict[str, Table]) -> Links:
    """For each row, those it refers to. A row that refers to none although its foreign key is set is left as it is."""
    found: Links = {name: [[] for _ in table.rows] for name, table in tables.items()}
    for name, table in tables.items():
        for key in table.keys:
            places: dict[tuple, list[Place]] = {}
            for number, row in enumerate(tables[key.parent].rows):
                places.setdefault(alike(row, key.parent_columns), []).append((key.parent, number))
            for number, row in enumerate(table.rows):
                if (wanted := alike(row, key.columns)) is not None:
                    found[name][number] += places.get(wanted, ())
    return found


def with_parents(places: Iterable[Place], refers: Links) -> set[Place]:
    """Rows together with all that they refer to, directly or not."""
    found, waiting = set(), list(places)
    while waiting:
        place = waiting.pop()
        if place not in found:
            found.add(place)
            waiting += refers[place[0]][place[1]]
    return found


def _parents_first(tables: dict[str, Table]) -> list[str]:
    """Names of tables, each after those that it refers to as far as there are no circles."""
    ordered: dict[str, None] = {}
    begun = set()

    def visit(name: str) -> None:
        if name not in begun:
            begun.add(name)
            for key in tables[name].keys:
                visit(key.parent)
            ordered[name] = None

    for name in tables:
        visit(name)
    return list(ordered)


def _sides(table: Table) -> tuple[list[int], list[int]]:
    """The rows of a table in two halves."""
    numbers = list(range(len(table.rows)))
    random.Random(table.name).shuffle(numbers)
    middle = (len(numbers) + 1) // 2
    return sorted(numbers[:middle]), sorted(numbers[middle:])


def first_half(tables: dict[str, Table], refers: Links) -> set[Place]:
    """One half of each table and what it refers to: no table loses all its rows, joins and conditions keep meeting."""
    return with_parents(((name, number) for name, table in tables.items() for number in _sides(table)[0]), refers)


def second_half(tables: dict[str, Table], refers: Links) -> set[Place]:
    """The rows of the other halves that refer to none outside of them.

    The first half may hold every row that is referred to, so that counting them gives the same; this one seldom does.
    Where many foreign keys meet nearly nothing would be left: a tenth of a table's half stays, with what it refers to.
    """
    kept: set[Place] = set()
    above: set[str] = set()
    for name in _parents_first(tables):
        half = _sides(tables[name])[1]
        alone = {number for number in half if all(place in kept for place in refers[name][number] if place[0] in above)}
        enough = math.ceil(len(half) * LEAST)
        others = [number for number in half if number not in alone][: max(0, enough - len(alone))]
        kept |= with_parents(((name, number) for number in [*alone, *others]), refers)
        above.add(name)
    return kept


def shuffled(table: Table) -> list[Row]:
    """The rows of a table with the values of its free columns moved, each column by another number of places."""
    order = list(range(len(table.rows)))
    random.Random(table.name).shuffle(order)
    rows = [list(row) for row in table.rows]
    for shift, column in enumerate(table.free, 1):
        for place, number in enumerate(order):
            rows[number][column] = table.rows[order[(place + shift) % len(order)]][column]
    return [tuple(row) for row in rows]


# --- writing an instance --------------------------------------------------------------------------------------------


def build(connection: sqlite3.Connection, files: Sequence[Path]) -> None:
    """Write the instances of an open database (see `tree.sandbox.connect`) to `files`, in the order of INSTANCES.

    Each file is whole or absent, and any number of processes may build it. Raises sqlite3.Error for a damaged database.
    """
    tables = read_tables(connection)
    refers = links(tables)
    halves = first_half(tables, refers), second_half(tables, refers)
    contents = [
        {name: [row for i, row in enumerate(table.rows) if (name, i) in half] for name, table in tables.items()}
        for half in halves
    ]
    contents.append({name: shuffled(table) for name, table in tables.items()})
    query = "SELECT sql FROM sqlite_master WHERE type IN ('index', 'view') AND sql IS NOT NULL ORDER BY rowid"
    others = [sql for (sql,) in connection.execute(query)]
    files[0].parent.mkdir(parents=True, exist_ok=True)
    for file, rows in zip(files, contents, strict=True):
        with _replacing(file) as temporary, contextlib.closing(sqlite3.connect(temporary)) as instance:
            _fill(instance, tables, rows, others)


def _fill(
    instance: sqlite3.Connection, tables: dict[str, Table], rows: dict[str, list[Row]], others: list[str]
) -> None:
    """Create and fill the tables, then create `others`, the indexes and views."""
    for checked in ("foreign_keys = OFF", "ignore_check_constraints = ON", "trusted_schema = OFF"):
        instance.execute(f"PRAGMA {checked}")
    for lasting in ("journal_mode = OFF", "synchronous = OFF"):  # the file is synced as a whole, or thrown away
        instance.execute(f"PRAGMA {lasting}")
    for name, table in tables.items():
        if _create(instance, table.sql):
            _insert(instance, _quoted(table.name), ([row[i] for i in table.stored] for row in rows[name]))
    for sql in others:
        _create(instance, sql)
    instance.commit()


def _create(instance: sqlite3.Connection, sql: str) -> bool:
    """Whether this SQLite could create it."""
    with contextlib.suppress(sqlite3.Error):
        instance.execute(sql.encode("utf-8", "replace").decode())
        return True
    return False


def _insert(connection: sqlite3.Connection, table: str, rows: Iterable[Sequence]) -> None:
    """Insert rows byte for byte, without those that the table does not admit, which only a damaged source has."""
    for row in rows:
        odd = [isinstance(value, str) and not _is_unicode(value) for value in row]  # can be bound as bytes only
        values = [v.encode("utf-8", "surrogateescape") if is_odd else v for v, is_odd in zip(row, odd, strict=True)]
        slots = ", ".join("CAST(? AS TEXT)" if is_odd else "?" for is_odd in odd)
        connection.execute(f"INSERT OR IGNORE INTO {table} VALUES ({slots})", values)


@contextlib.contextmanager
def _replacing(file: Path) -> Iterator[str]:
    """A temporary file that takes the place of `file` when the block ends well."""
    handle, temporary = tempfile.mkstemp(prefix=f".{file.name}.", suffix=".tmp", dir=file.parent)
    try:
        yield temporary
        os.fsync(handle)
        os.replace(temporary, file)
    except BaseException:
        os.unlink(temporary)
        raise
    finally:
        os.close(handle)
