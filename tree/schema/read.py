"""A SQLite database -> its schema as data: tables, columns, types, keys, descriptions and frequent values."""

import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tree.schema.descriptions import Description, explains_codes
from tree.sql.results import show_value
from tree.sql.table_info import ColumnInfo, Problems, TableInfo, by_scan, list_tables, reason
from tree.sql.tokens import delimited, literal

EXAMPLES = 3  # values shown of a column
LONG_EXAMPLES = 1  # of which long ones
SAMPLED_ROWS = 5_000  # rows looked at for examples; the first ones, so that the text is the same every time
LONG_VALUE = 40  # characters; longer values are cut


@dataclass(frozen=True)
class Column:
    """A column: `kind` is its declared type, `examples` frequent values as SQL literals (long ones cut).

    `meaning` and `codes` are one line each, "" when there is nothing to say: what the column holds, and what its
    stored codes stand for.
    """

    name: str
    kind: str
    examples: tuple[str, ...] = ()
    meaning: str = ""
    codes: str = ""


@dataclass(frozen=True)
class ForeignKey:
    """`columns` of a table point at `target`'s columns `referred` (empty: at its primary key)."""

    columns: tuple[str, ...]
    target: str
    referred: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """A table or view, its columns in stored order, the names of its primary key's columns, its foreign keys."""

    name: str
    columns: tuple[Column, ...]
    primary_key: tuple[str, ...] = ()
    foreign_keys: tuple[ForeignKey, ...] = ()


def read_schema(
    connection: sqlite3.Connection,
    descriptions: Mapping[tuple[str, str], Description] | None = None,
    problems: Problems | None = None,
) -> tuple[Table, ...]:
    """The tables and views of a database, without what cannot be read, which is added to `problems`, and without the
    inner tables of virtual ones. `descriptions` are those of (table, column).

    The connection is one of `database_file.connect`. Raises sqlite3.DatabaseError for a file that SQLite refuses.
    """
    found = []
    problems = {} if problems is None else problems
    for info in list_tables(connection):
        if info.kind != "shadow":
            problems.update(info.problems())
            table = _read_table(connection, info, descriptions or {}, problems)
            found += [table] if table.columns else []
    return tuple(found)


def _read_table(connection: sqlite3.Connection, info: TableInfo, descriptions: Mapping, problems: Problems) -> Table:
    """The table; without columns when none can be read."""
    names = [column.name for column in info.readable()]
    # a view may take any time to compute
    samples = dict.fromkeys(names, ()) if info.kind == "view" else _samples(connection, info, problems)
    if not samples:
        return Table(info.name, ())
    key = tuple(column.name for column in sorted(info.columns, key=lambda column: column.rank) if column.rank)
    foreign_keys = [key for key in _foreign_keys(connection, info.name) if samples.keys() >= set(key.columns)]
    linking = {*key, *(name for foreign_key in foreign_keys for name in foreign_key.columns)}
    columns = []
    for column in info.readable():
        if column.name in samples:
            description = descriptions.get((info.name, column.name), Description("", ""))
            columns.append(_column(column, samples[column.name], description, column.name in linking))
    return Table(info.name, tuple(columns), key if samples.keys() >= set(key) else (), tuple(foreign_keys))


def _column(info: ColumnInfo, values: Sequence, description: Description, is_key: bool) -> Column:
    # the numbers of a key say nothing about the question
    shown = [value for value in values if isinstance(value, str)] if is_key else values
    codes = description.values if explains_codes(description.values, values) else ""
    return Column(info.name, info.kind, _examples(shown), description.meaning, codes)


def _foreign_keys(connection: sqlite3.Connection, table: str) -> tuple[ForeignKey, ...]:
    keys: dict[int, list[tuple]] = {}
    for number, _, target, source, referred, *_ in connection.execute(f"PRAGMA foreign_key_list({literal(table)})"):
        keys.setdefault(number, []).append((target, source, referred))
    return tuple(
        ForeignKey(tuple(source for _, source, _ in parts), parts[0][0], tuple(name for _, _, name in parts if name))
        for _, parts in sorted(keys.items(), reverse=True)  # SQLite lists the last declared first
    )


def _samples(connection: sqlite3.Connection, info: TableInfo, problems: Problems) -> dict[str, list]:
    """The sampled values of the columns that can be read; the others are added to `problems`."""
    columns = [column.name for column in info.readable()]
    try:
        return _values(connection, info, columns)
    except sqlite3.Error as error:  # a damaged page, or what a column is computed with
        failed: Problems = {(info.name, ""): reason(error)}
    samples = {}
    for column in columns:
        try:
            samples |= _values(connection, info, [column])
        except sqlite3.Error as error:
            failed[info.name, column] = reason(error)
    problems.update({key: why for key, why in failed.items() if bool(key[1]) == bool(samples)})
    return samples


def _values(connection: sqlite3.Connection, info: TableInfo, columns: Sequence[str]) -> dict[str, list]:
    """The distinct values of columns in the first rows, frequent ones first; no NULL, empty text or BLOB."""
    if not columns:
        return {}
    start = LONG_VALUE + 1
    shown = ", ".join(
        f"CASE typeof({name}) WHEN 'blob' THEN NULL WHEN 'text' THEN substr({name}, 1, {start}) ELSE {name} END"
        for name in map(delimited, columns)
    )
    query = f"SELECT {shown} FROM {delimited(info.name)} {by_scan(info.kind)} LIMIT {SAMPLED_ROWS}"
    rows = connection.execute(query).fetchall()
    return {
        name: [value for value, _ in Counter(row[place] for row in rows).most_common() if value not in (None, "")]
        for place, name in enumerate(columns)
    }


def _examples(values: Sequence) -> tuple[str, ...]:
    short = [value for value in values if len(str(value)) <= LONG_VALUE][:EXAMPLES]
    long = [] if short else [f"{value[:LONG_VALUE]}…" for value in values[:LONG_EXAMPLES]]
    # a value with a line break is shown on one line, with its quotes doubled as in SQL
    return tuple(literal(show_value(value)) if isinstance(value, str) else show_value(value) for value in short + long)
