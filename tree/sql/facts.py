"""Facts about a query that failed or returned nothing: what its database has where the query looked.

Covered: a column or table that is missing, a column that is ambiguous, texts that a column is compared with (=, IN,
LIKE) and does not hold. Not covered: numbers, other comparisons, conditions of which each holds for some row and all
together for none. What is said is so; nothing is advised, and gold is not looked at.
"""

import difflib
import itertools
import re
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tree.sql.guarded import GuardedDatabase, Limits, guarded
from tree.sql.results import Execution, show_value
from tree.sql.tokens import KEYWORDS, Token, literal, quoted, tokens, unquoted

NAME_ERROR = re.compile(r"(no such column|no such table|ambiguous column name): (.+)", re.DOTALL)
MAX_NAMES = 40  # in one line
MAX_TEXTS = 3  # of a query that are looked up
MAX_NEAR = 3  # names or values that are like one
NEAR_NAME, NEAR_VALUE = 0.6, 60  # how much alike: of 1, of 100
COMPARISONS = frozenset({"=", "==", "IS", "IN", "LIKE"})
LOOKED_THROUGH = 10_000  # different values of a column, none longer than
MAX_LENGTH = 200  # characters
# for looking up all texts of a query: steps of SQLite's virtual machine, mostly under half a second
LOOKUP = Limits(timeout=2.0, steps=20_000_000)

Columns = Mapping[str, Sequence[str]]  # of each table that can be read


@dataclass(frozen=True)
class Comparison:
    """A column that a query compares with a text."""

    table: str
    column: str
    operator: str
    text: str


def facts_about(path: str, sql: str, execution: Execution) -> tuple[str, ...]:
    """Facts about a query by what running it on the database at `path` gave, each on one line."""
    if execution.outcome == "error" and (match := NAME_ERROR.fullmatch(execution.error)):
        return tuple(name_facts(match.group(1), match.group(2), sql, guarded(path).columns))
    if execution.outcome == "empty":
        return tuple(value_facts(guarded(path), sql))
    return ()


# --- names ------------------------------------------------------------------------------------------------------------


def name_facts(trouble: str, name: str, sql: str, columns: Columns) -> Iterator[str]:
    """What there is instead of a name: `trouble` is SQLite's message before the colon."""
    last = name.rpartition(".")[2]
    owners = [table for table, own in columns.items() if _has(own, last)]
    if trouble == "no such table":
        yield from _like(last, {table.lower(): [quoted(table)] for table in columns})
        yield f"Tables: {_listed(columns)}."
        return
    if trouble == "no such column" and not owners:
        yield f"No table has a column {quoted(last)}."
        yield from _like(last, _places(columns))
    else:
        yield f"Tables with a column {quoted(last)}: {_listed(owners)}."
    if trouble == "no such column":
        for table, names in tables_used(list(tokens(sql)), columns).items():
            alias = f" ({', '.join(names)})" if names else ""
            yield f"Columns of {quoted(table)}{alias}: {_listed(columns[table])}."


def _has(names: Iterable[str], name: str) -> bool:
    return name.lower() in map(str.lower, names)


def _places(columns: Columns) -> dict[str, list[str]]:
    """A column's name in lower case -> every `table.column` of the name."""
    places: dict[str, list[str]] = {}
    for table, names in columns.items():
        for name in names:
            places.setdefault(name.lower(), []).append(f"{quoted(table)}.{quoted(name)}")
    return places


def _like(name: str, places: Mapping[str, list[str]]) -> Iterator[str]:
    near = difflib.get_close_matches(name.lower(), places, n=MAX_NEAR, cutoff=NEAR_NAME)
    if near:
        yield f"Names like {quoted(name)}: {', '.join(place for found in near for place in places[found][:MAX_NEAR])}."


def _listed(names: Iterable[str]) -> str:
    shown = list(map(quoted, names))
    return ", ".join([*shown[:MAX_NAMES], *(["…"] if len(shown) > MAX_NAMES else [])])


# --- the query's own text ---------------------------------------------------------------------------------------------


def _name(token: Token) -> str:
    """What a token names, in lower case; "" for one that is no name."""
    is_name = token.kind == "name" or (token.kind == "word" and token.text.upper() not in KEYWORDS)
    return unquoted(token).lower() if is_name else ""


def tables_used(found: Sequence[Token], columns: Columns) -> dict[str, list[str]]:
    """The tables that a query's tokens name, in their order, each with its aliases. Which name belongs to which part of
    the query is not looked at."""
    stored = {table.lower(): table for table in columns}
    used: dict[str, list[str]] = {}
    for place, token in enumerate(found):
        if (table := stored.get(unquoted(token).lower())) and token.kind in ("word", "name"):
            aliases = used.setdefault(table, [])
            after = [other for other in found[place + 1 : place + 3] if other.text.upper() != "AS"]
            alias = unquoted(after[0]) if after and _name(after[0]) else ""
            if alias and alias not in aliases and alias.lower() not in stored:
                aliases.append(alias)
    return used


def comparisons(sql: str, columns: Columns) -> Iterator[Comparison]:
    """The columns of tables that a query compares with texts, as far as its tokens show them; takes linear time."""
    found = list(tokens(sql))
    used = tables_used(found, columns)
    meant = {name.lower(): table for table, aliases in used.items() for name in (table, *aliases)}
    names = {name.lower() for own in columns.values() for name in own}
    operators: dict[int, int] = {}  # place of a text -> that of the operator whose right side it is
    for place, token in enumerate(found):
        if not _is_text(token, names):
            continue
        in_list = place > 1 and found[place - 1].text == "," and place - 2 in operators
        opened = place > 0 and found[place - 1].text == "("
        operator = operators[place] = operators[place - 2] if in_list else place - 2 if opened else place - 1
        if operator < 1 or found[operator].text.upper() not in COMPARISONS:
            continue
        column = _name(found[operator - 1])
        is_qualified = operator > 2 and found[operator - 2].text == "."
        tables = [meant.get(_name(found[operator - 3]), "")] if is_qualified else list(used)
        for table in filter(None, tables):
            if own := [name for name in columns[table] if name.lower() == column]:
                yield Comparison(table, own[0], found[operator].text.upper(), unquoted(token))
                break


def _is_text(token: Token, names: Collection[str]) -> bool:
    """Whether a token is a text, as SQLite reads one in double quotes too when nothing has that name."""
    return token.kind == "text" or (token.text[0] == '"' and unquoted(token).lower() not in names)


# --- values -----------------------------------------------------------------------------------------------------------


def value_facts(database: GuardedDatabase, sql: str) -> Iterator[str]:
    """Which texts of a query its columns do not hold, with stored ones like them."""
    database.start(LOOKUP)
    first = itertools.islice(comparisons(sql, database.columns), MAX_TEXTS)
    for comparison in dict.fromkeys(first):
        try:
            yield from _value_fact(database.connection, comparison)
        except (sqlite3.Error, MemoryError):  # it takes too long, or the table cannot be read
            return


def _value_fact(connection: sqlite3.Connection, comparison: Comparison) -> Iterator[str]:
    table, column = quoted(comparison.table), quoted(comparison.column)
    operator = "LIKE" if comparison.operator == "LIKE" else "="
    if connection.execute(f"SELECT 1 FROM {table} WHERE {column} {operator} ?", (comparison.text,)).fetchone():
        return
    is_short_text = f"typeof({column}) = 'text' AND length({column}) <= {MAX_LENGTH}"
    rows = connection.execute(f"SELECT DISTINCT {column} FROM {table} WHERE {is_short_text}")
    stored = [value for (value,) in rows.fetchmany(LOOKED_THROUGH)]
    like = _most_like(comparison.text.strip("%")[:MAX_LENGTH], stored)
    shown = ", ".join(literal(show_value(value)) for value in like or stored[:MAX_NEAR])
    said = f"; values {'like it' if like else 'of ' + column}: {shown}" if shown else ""
    yield f"No row of {table} has {column} {operator} {literal(show_value(comparison.text))}{said}."


def _most_like(text: str, stored: Sequence[str]) -> list[str]:
    from rapidfuzz import fuzz, process, utils

    found = process.extract(
        text, stored, scorer=fuzz.WRatio, processor=utils.default_process, limit=MAX_NEAR, score_cutoff=NEAR_VALUE
    )
    return [value for value, *_ in found]
