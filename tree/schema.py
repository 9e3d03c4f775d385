"""A SQLite database -> its schema as data: tables, columns, types, keys, descriptions and frequent values."""

import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tree.descriptions import Description, explains_codes
from tree.prompts import show_value
from tree.sql_text import delimited, literal
from tree.sql_tokens import KEYWORDS, TRUTH

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


def quoted(name: str) -> str:
    """An identifier as a model should write it: bare where nothing else can be meant, else in double quotes.

    All of SQLite's keywords are quoted, also those that it takes as names here and there.
    """
    plain = name.isascii() and name.isidentifier() and name.upper() not in KEYWORDS | TRUTH
    return name if plain else delimited(name)


def column_names(connection: sqlite3.Connection) -> dict[str, list[str]]:
    """Tables and views of a database in their stored order, without SQLite's own -> their columns."""
    rows = connection.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view') ORDER BY rowid")
    names = [name for (name,) in rows if not name.startswith("sqlite_")]
    return {name: [column[1] for column in _columns(connection, name)] for name in names}


def read_schema(
    connection: sqlite3.Connection, descriptions: Mapping[tuple[str, str], Description] | None = None
) -> tuple[Table, ...]:
    """The tables of a database. `descriptions` are those of (table, column).

    The connection's text must be readable as str (undecodable bytes as surrogates, shown escaped).
    Raises sqlite3.Error on a damaged file.
    """
    views = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'view'")}
    return tuple(_read_table(connection, name, name in views, descriptions or {}) for name in column_names(connection))


def _columns(connection: sqlite3.Connection, table: str) -> list[tuple]:
    return connection.execute(f"PRAGMA table_info({literal(table)})").fetchall()


def _read_table(connection: sqlite3.Connection, table: str, is_view: bool, descriptions: Mapping) -> Table:
    columns = _columns(connection, table)
    key = tuple(name for _, name, _, _, _, rank in sorted(columns, key=lambda column: column[5]) if rank)
    foreign_keys = _foreign_keys(connection, table)
    linking = {*key, *(name for foreign_key in foreign_keys for name in foreign_key.columns)}
    # a view may take any time to compute
    samples = {} if is_view else _samples(connection, table, [column[1] for column in columns])
    found = []
    for _, name, kind, _, _, _ in columns:
        values = samples.get(name, [])
        # the numbers of a key say nothing about the question
        examples = _examples(values if name not in linking else [value for value in values if isinstance(value, str)])
        said = descriptions.get((table, name), Description("", ""))
        codes = said.values if explains_codes(said.values, values) else ""
        found.append(Column(name, kind, examples, said.meaning, codes))
    return Table(table, tuple(found), key, foreign_keys)


def _foreign_keys(connection: sqlite3.Connection, table: str) -> tuple[ForeignKey, ...]:
    keys: dict[int, list[tuple]] = {}
    for number, _, target, source, referred, *_ in connection.execute(f"PRAGMA foreign_key_list({literal(table)})"):
        keys.setdefault(number, []).append((target, source, referred))
    return tuple(
        ForeignKey(tuple(source for _, source, _ in parts), parts[0][0], tuple(name for _, _, name in parts if name))
        for _, parts in sorted(keys.items(), reverse=True)  # SQLite lists the last declared first
    )


def _samples(connection: sqlite3.Connection, table: str, columns: Sequence[str]) -> dict[str, list]:
    """The distinct values of each column in the first rows, frequent ones first; no NULL, empty text or BLOB."""
    start = LONG_VALUE + 1
    shown = ", ".join(
        f"CASE typeof({name}) WHEN 'blob' THEN NULL WHEN 'text' THEN substr({name}, 1, {start}) ELSE {name} END"
        for name in map(delimited, columns)
    )
    rows = connection.execute(f"SELECT {shown} FROM {delimited(table)} LIMIT {SAMPLED_ROWS}").fetchall()
    return {
        name: [value for value, _ in Counter(row[place] for row in rows).most_common() if value not in (None, "")]
        for place, name in enumerate(columns)
    }


def _examples(values: Sequence) -> tuple[str, ...]:
    short = [value for value in values if len(str(value)) <= LONG_VALUE][:EXAMPLES]
    long = [] if short else [f"{value[:LONG_VALUE]}…" for value in values[:LONG_EXAMPLES]]
    # a value with a line break is shown on one line, with its quotes doubled as in SQL
    return tuple(literal(show_value(value)) if isinstance(value, str) else show_value(value) for value in short + long)
