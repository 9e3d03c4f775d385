"""Checks of one gold query: it runs, its result says something, and its order leaves no choice of rows."""

import re
import sqlite3
from collections.abc import Iterator

MAX_GOLD_ROWS = 200


def mask_nested(sql: str) -> str:
    """Blank out strings, quoted names and bracketed parts, keeping every position, to find top-level keywords."""
    masked, depth, closing = [], 0, ""
    for char in sql:
        hidden = bool(closing) or depth > 0
        if closing:
            closing = "" if char == closing else closing
        elif char in "'\"`":
            closing, hidden = char, True
        elif char == "(":
            depth, hidden = depth + 1, True
        elif char == ")" and depth:
            depth -= 1
        masked.append("_" if hidden else char)
    return "".join(masked)


def bracketed_selects(sql: str) -> Iterator[str]:
    """Yield each subquery between brackets, which may have a LIMIT, and so a tie, of its own."""
    for match in re.finditer(r"\((?=\s*SELECT\b)", sql, re.IGNORECASE):
        rest = mask_nested(sql[match.start() :])
        # Masked text is all "_" from the bracket to its partner.
        length = len(rest) - len(rest.lstrip("_"))
        yield sql[match.start() + 1 : match.start() + length - 1]


def find_keyword(pattern: str, masked: str) -> int | None:
    """Return where the last top-level keyword stands, or None."""
    found = [match.start() for match in re.finditer(rf"\b{pattern}\b", masked, re.IGNORECASE)]
    return found[-1] if found else None


def sort_keys(clause: str) -> list[str]:
    """Split an ORDER BY clause into its expressions, without their directions."""
    masked = mask_nested(clause)
    cuts = [-1, *(i for i, char in enumerate(masked) if char == ","), len(clause)]
    parts = [clause[start + 1 : end].strip() for start, end in zip(cuts, cuts[1:], strict=False)]
    return [re.sub(r"\s+(ASC|DESC)$", "", part, flags=re.IGNORECASE) for part in parts]


def check_order(conn: sqlite3.Connection, select: str) -> str:
    """Say what is wrong with a query's order: a tie (at the cut or above it), a NULL key, a LIMIT that cuts nothing.

    The query runs again without its LIMIT and with the sort keys as extra columns.
    """
    masked = mask_nested(select)
    order, limit, start = (find_keyword(word, masked) for word in (r"ORDER\s+BY", "LIMIT", "FROM"))
    if order is None:
        return "LIMIT without ORDER BY" if limit is not None else ""
    keys = sort_keys(re.sub(r"^\w+\s+\w+", "", select[order:limit]))
    rows = conn.execute(f"{select[:start]}, {', '.join(keys)} {select[start:limit]}").fetchall()
    kept = sum(map(int, re.findall(r"\d+", select[limit:]))) if limit is not None else len(rows)
    values = [row[-len(keys) :] for row in rows]
    if limit is not None and len(rows) <= kept:
        return "the LIMIT cuts nothing"
    if any(None in value for value in values[:kept]):
        return "a sort key is NULL"
    tied = [a for a, b in zip(values[:kept], values[1 : kept + 1], strict=False) if a == b]
    return f"tie at {tied[0]}" if tied else ""


def check_gold(conn: sqlite3.Connection, sql: str) -> str:
    """Say what is wrong with a gold query, or return an empty text; SQLite itself refuses a second statement."""
    if not re.match(r"(SELECT|WITH)\b", sql):
        return "not a SELECT"
    try:
        rows = conn.execute(sql).fetchall()
        if not rows or all(value is None for row in rows for value in row):
            return "empty result"
        if len(rows) > MAX_GOLD_ROWS or rows == [(0,)]:
            return f"result of {len(rows)} rows, the first {rows[0]}"
        return next(filter(None, (check_order(conn, text) for text in (sql, *bracketed_selects(sql)))), "")
    except (sqlite3.Error, sqlite3.Warning) as error:
        return str(error)
