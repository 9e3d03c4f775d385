"""A SQLite database -> schema text for the prompt: tables, columns, types, keys and a few sample values."""

import re
import sqlite3

from tree.prompts import show_value

SAMPLE_VALUES = 3
SAMPLED_ROWS = 50  # rows looked at for sample values; the first ones, so that the text is the same every time
LONG_VALUE = 40  # characters; longer ones tell little and cost tokens


def quoted(name: str) -> str:
    """An identifier the way SQLite needs it: bare where that is enough, else in double quotes."""
    plain = name.isascii() and name.isidentifier() and name.upper() not in RESERVED
    return name if plain else '"' + name.replace('"', '""') + '"'


def table_names(connection: sqlite3.Connection) -> list[str]:
    """Tables and views of a database in their stored order, without SQLite's own."""
    rows = connection.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view') ORDER BY rowid")
    return [name for (name,) in rows if not name.startswith("sqlite_")]


def schema_text(connection: sqlite3.Connection) -> str:
    """CREATE TABLE statements with types, primary and foreign keys, and sample values as comments.

    Rebuilt from the catalogue, not from the stored DDL, so that every database has the same form. The connection's
    text must be readable as str (undecodable bytes as surrogates). Raises sqlite3.Error on a damaged file.
    """
    return "\n".join(_table_text(connection, table) for table in table_names(connection))


def _table_text(connection: sqlite3.Connection, table: str) -> str:
    columns = connection.execute(f"PRAGMA table_info({_literal(table)})").fetchall()
    key = [name for _, name, _, _, _, rank in sorted(columns, key=lambda column: column[5]) if rank]
    single, composite = _foreign_keys(connection, table)
    samples = _sample_values(connection, table, [column[1] for column in columns])
    lines = []
    for _, name, kind, _, _, _ in columns:
        words = [quoted(name), kind, "PRIMARY KEY" if key == [name] else "", single.get(name, "")]
        is_number = samples[name] and not samples[name][0].startswith("'")
        # the numbers of a key say nothing about the question
        shown = "" if is_number and (name in key or name in single) else ", ".join(samples[name])
        lines.append((" ".join(filter(None, words)), shown))
    if len(key) > 1:
        lines.append((f"PRIMARY KEY ({', '.join(map(quoted, key))})", ""))
    lines += [(text, "") for text in composite]
    body = [
        f"    {text}{',' if number < len(lines) else ''}{f' -- {sample}' if sample else ''}"
        for number, (text, sample) in enumerate(lines, 1)
    ]
    return "\n".join([f"CREATE TABLE {quoted(table)} (", *body, ");"])


def _foreign_keys(connection: sqlite3.Connection, table: str) -> tuple[dict[str, str], list[str]]:
    """REFERENCES clauses by column, and the table constraints of keys over several columns."""
    keys: dict[int, list[tuple]] = {}
    for number, _, target, source, referred, *_ in connection.execute(f"PRAGMA foreign_key_list({_literal(table)})"):
        keys.setdefault(number, []).append((target, source, referred))
    single: dict[str, str] = {}
    composite = []
    for _, parts in sorted(keys.items(), reverse=True):  # SQLite lists the last declared first
        referred = ", ".join(quoted(name) for _, _, name in parts if name)
        clause = f"REFERENCES {quoted(parts[0][0])}{f' ({referred})' if referred else ''}"
        if len(parts) == 1:
            single[parts[0][1]] = clause
        else:
            composite.append(f"FOREIGN KEY ({', '.join(quoted(source) for _, source, _ in parts)}) {clause}")
    return single, composite


def _sample_values(connection: sqlite3.Connection, table: str, columns: list[str]) -> dict[str, list[str]]:
    rows = connection.execute(f"SELECT * FROM {_delimited(table)} LIMIT {SAMPLED_ROWS}").fetchall()
    return {name: _distinct_short([row[position] for row in rows]) for position, name in enumerate(columns)}


def _distinct_short(values: list) -> list[str]:
    shown: dict[str, None] = {}
    for value in values:
        if value is None or isinstance(value, bytes) or len(str(value)) > LONG_VALUE or value == "":
            continue
        shown.setdefault(f"'{show_value(value)}'" if isinstance(value, str) else show_value(value))
        if len(shown) == SAMPLE_VALUES:
            break
    return list(shown)


def _delimited(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


# SQLite's keywords that cannot stand as a bare name (https://www.sqlite.org/lang_keywords.html)
RESERVED = frozenset(
    re.findall(
        r"\w+",
        """ADD ALL ALTER AND AS AUTOINCREMENT BETWEEN CASE CHECK COLLATE COMMIT CONSTRAINT CREATE DEFAULT DEFERRABLE
        DELETE DISTINCT DROP ELSE ESCAPE EXCEPT EXISTS FOREIGN FROM GROUP HAVING IF IN INDEX INSERT INTERSECT INTO IS
        ISNULL JOIN LIMIT NOT NOTHING NOTNULL NULL ON OR ORDER PRIMARY REFERENCES RETURNING SELECT SET TABLE THEN TO
        TRANSACTION UNION UNIQUE UPDATE USING VALUES WHEN WHERE LEFT RIGHT FULL INNER OUTER CROSS NATURAL GROUPS RANGE
        ROWS WINDOW FILTER OVER PARTITION BY END DESC ASC""",
    )
)
