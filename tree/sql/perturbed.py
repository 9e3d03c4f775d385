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
Virtual tables, triggers and whatever this SQLite cannot read or create are left out.
"""

import contextlib
import math
import random
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from common.files import InputError
from tree.sql.cache import building, fingerprint
from tree.sql.results import Row
from tree.sql.table_info import Problems
from tree.sql.table_sample import SampledTable, comparable_key, insert_rows, read_tables
from tree.sql.tokens import delimited

INSTANCES = ("half_0", "half_1", "shuffled")
EDITION = "1"  # of the rules in this file: instances made by others are not taken for these
LEAST = 0.1  # of a table's half, see `second_half`

Tables = dict[str, SampledTable]
RowId = tuple[str, int]  # a table, and the number of a row in its sample
Parents = dict[RowId, list[RowId]]  # the rows that a row refers to


def instance_files(folder: Path, path: str) -> list[Path]:
    """Where the instances of the database at `path` are, or would be."""
    place = folder / fingerprint(path) / EDITION
    return [place / f"{name}.sqlite" for name in INSTANCES]


# --- choosing rows --------------------------------------------------------------------------------------------------


def parents_of_rows(tables: Tables) -> Parents:
    """For each row, those it refers to: none where a foreign key is set although its row is missing."""
    parents: Parents = {row: [] for name, table in tables.items() for row in row_ids(name, range(len(table.rows)))}
    for name, table in tables.items():
        for reference in table.references:
            owners: dict[tuple | None, list[RowId]] = {}
            for number, row in enumerate(tables[reference.parent].rows):
                key = comparable_key(row, reference.parent_columns)
                owners.setdefault(key, []).append((reference.parent, number))
            for number, row in enumerate(table.rows):
                key = comparable_key(row, reference.columns)
                parents[name, number] += [] if key is None else owners.get(key, [])
    return parents


def row_ids(name: str, numbers: Iterable[int]) -> list[RowId]:
    """Rows of one table."""
    return [(name, number) for number in numbers]


def with_parents(rows: Iterable[RowId], parents: Parents) -> set[RowId]:
    """Rows together with all that they refer to, directly or not."""
    found: set[RowId] = set()
    waiting = list(rows)
    while waiting:
        row = waiting.pop()
        if row not in found:
            found.add(row)
            waiting += parents[row]
    return found


def parents_first(tables: Tables) -> list[str]:
    """Names of tables, each after those that it refers to as far as there are no circles."""
    ordered: list[str] = []
    begun: set[str] = set()
    for name in tables:
        _append_after_parents(name, tables, begun, ordered)
    return ordered


def _append_after_parents(name: str, tables: Tables, begun: set[str], ordered: list[str]) -> None:
    if name in begun:
        return
    begun.add(name)
    for reference in tables[name].references:
        _append_after_parents(reference.parent, tables, begun, ordered)
    ordered.append(name)


def halves(name: str, table: SampledTable) -> tuple[list[RowId], list[RowId]]:
    """The rows of a table in two halves."""
    numbers = list(range(len(table.rows)))
    random.Random(table.name).shuffle(numbers)
    middle = (len(numbers) + 1) // 2
    return row_ids(name, sorted(numbers[:middle])), row_ids(name, sorted(numbers[middle:]))


def first_half(tables: Tables, parents: Parents) -> set[RowId]:
    """One half of each table and what it refers to: no table loses all its rows, joins and conditions keep meeting."""
    return with_parents((row for name, table in tables.items() for row in halves(name, table)[0]), parents)


def second_half(tables: Tables, parents: Parents) -> set[RowId]:
    """The rows of the other halves that refer to none outside of them.

    The first half may hold every row that is referred to, so that counting them gives the same; this one seldom does.
    Where many foreign keys meet nearly nothing would be left: a tenth of a table's half stays, with what it refers to.
    """
    kept: set[RowId] = set()
    decided: set[str] = set()  # tables; in a circle, references to one that comes later are not asked for
    for name in parents_first(tables):
        half = halves(name, tables[name])[1]
        complete = [row for row in half if all(parent in kept or parent[0] not in decided for parent in parents[row])]
        lacking = max(0, math.ceil(len(half) * LEAST) - len(complete))
        others = sorted(set(half) - set(complete))[:lacking]
        kept |= with_parents(complete + others, parents)
        decided.add(name)
    return kept


def rows_within(tables: Tables, chosen: set[RowId]) -> dict[str, list[Row]]:
    """The chosen rows of each table."""
    return {
        name: [row for number, row in enumerate(table.rows) if (name, number) in chosen]
        for name, table in tables.items()
    }


def shuffled(table: SampledTable) -> list[Row]:
    """The rows of a table with the values of its movable columns moved, each column by another number of rows."""
    order = list(range(len(table.rows)))
    random.Random(table.name).shuffle(order)
    rows = [list(row) for row in table.rows]
    for shift, column in enumerate(table.movable, 1):
        for place, number in enumerate(order):
            rows[number][column] = table.rows[order[(place + shift) % len(order)]][column]
    return [tuple(row) for row in rows]


# --- writing an instance --------------------------------------------------------------------------------------------


def build(connection: sqlite3.Connection, files: Sequence[Path], is_current: Callable[[], bool]) -> Problems:
    """Write the instances of an open database (see `database_file.connect`) to `files`, in the order of INSTANCES.

    Each file is whole or absent, and any number of processes may build it. `is_current` says, once the database is
    read, whether `files` are still those for what it holds. Returns what they lack because it cannot be read. Raises
    sqlite3.Error for a database of which nothing can be read, InputError for one that has changed.
    """
    problems: Problems = {}
    tables = read_tables(connection, problems)
    parents = parents_of_rows(tables)
    contents = [
        rows_within(tables, first_half(tables, parents)),
        rows_within(tables, second_half(tables, parents)),
        {name: shuffled(table) for name, table in tables.items()},
    ]
    query = "SELECT sql FROM sqlite_master WHERE type IN ('index', 'view') AND sql IS NOT NULL ORDER BY rowid"
    others = [sql for (sql,) in connection.execute(query)]
    if not is_current():
        raise InputError("the database changed while it was read")
    for file, rows in zip(files, contents, strict=True):
        with building(file) as temporary, contextlib.closing(sqlite3.connect(temporary)) as instance:
            _fill(instance, tables, rows, others)
    return problems


def _fill(instance: sqlite3.Connection, tables: Tables, rows: dict[str, list[Row]], others: list[str]) -> None:
    """Create and fill the tables, then create `others`, the indexes and views."""
    instance.execute("PRAGMA foreign_keys = OFF")
    instance.execute("PRAGMA ignore_check_constraints = ON")
    instance.execute("PRAGMA trusted_schema = OFF")
    instance.execute("PRAGMA journal_mode = OFF")  # the file is synced as a whole, or thrown away
    instance.execute("PRAGMA synchronous = OFF")
    for name, table in tables.items():
        if _create(instance, table.sql):
            insert_rows(instance, delimited(table.name), ([row[i] for i in table.stored] for row in rows[name]))
    for sql in others:
        _create(instance, sql)
    instance.commit()


def _create(instance: sqlite3.Connection, sql: str) -> bool:
    """Whether this SQLite could create it."""
    with contextlib.suppress(sqlite3.Error):
        instance.execute(sql.encode("utf-8", "replace").decode())
        return True
    return False
