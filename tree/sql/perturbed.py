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
from tree.sql.table_info import Problems
from tree.sql.table_sample import Row, Table, alike, insert_rows, read_tables
from tree.sql.tokens import delimited

INSTANCES = ("half_0", "half_1", "shuffled")
EDITION = "1"  # of the rules in this file: instances made by others are not taken for these
LEAST = 0.1  # of a table's half, see `second_half`

Place = tuple[str, int]  # a row: its table and its number there
Links = dict[str, list[list[Place]]]  # table -> for each row, the rows that it refers to


def instance_files(folder: Path, path: str) -> list[Path]:
    """Where the instances of the database at `path` are, or would be."""
    place = folder / fingerprint(path) / EDITION
    return [place / f"{name}.sqlite" for name in INSTANCES]


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


def build(connection: sqlite3.Connection, files: Sequence[Path], is_current: Callable[[], bool]) -> Problems:
    """Write the instances of an open database (see `database_file.connect`) to `files`, in the order of INSTANCES.

    Each file is whole or absent, and any number of processes may build it. `is_current` says, once the database is
    read, whether `files` are still those for what it holds. Returns what they lack because it cannot be read. Raises
    sqlite3.Error for a database of which nothing can be read, InputError for one that has changed.
    """
    problems: Problems = {}
    tables = read_tables(connection, problems)
    refers = links(tables)
    halves = first_half(tables, refers), second_half(tables, refers)
    contents = [
        {name: [row for i, row in enumerate(table.rows) if (name, i) in half] for name, table in tables.items()}
        for half in halves
    ]
    contents.append({name: shuffled(table) for name, table in tables.items()})
    query = "SELECT sql FROM sqlite_master WHERE type IN ('index', 'view') AND sql IS NOT NULL ORDER BY rowid"
    others = [sql for (sql,) in connection.execute(query)]
    if not is_current():
        raise InputError("the database changed while it was read")
    for file, rows in zip(files, contents, strict=True):
        with building(file) as temporary, contextlib.closing(sqlite3.connect(temporary)) as instance:
            _fill(instance, tables, rows, others)
    return problems


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
