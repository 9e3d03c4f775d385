"""Reading SQL as text, without running it: canonical form and outermost order.  Pure."""

import functools
import re

MAX_PARSED = 20_000  # characters; longer text is model noise and only costs parsing time


COMMENT = re.compile(r"\s+|--[^\n]*(?:\n|\Z)|/\*.*?(?:\*/|\Z)", re.DOTALL)


def delimited(name: str) -> str:
    """An identifier in double quotes, whatever it holds."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text literal."""
    return "'" + text.replace("'", "''") + "'"


def first_word(sql: str) -> str:
    """The first word or sign after white space and comments, in upper case."""
    sql = sql.replace("\ufeff", " ")  # a byte order mark is white space to SQLite
    position = 0
    while (match := COMMENT.match(sql, position)) and match.end() > position:
        position = match.end()
    return re.compile(r"\w+|\S|\Z").match(sql, position).group().upper()


@functools.lru_cache(maxsize=128)  # a parsed query takes tens of kilobytes
def _parse(sql: str):
    """sqlglot's tree of the first statement, or None when sqlglot cannot read it."""
    import logging

    import sqlglot

    logging.getLogger("sqlglot").setLevel(logging.ERROR)  # it warns about syntax it keeps as opaque text
    if len(sql) > MAX_PARSED:
        return None
    try:
        statements = sqlglot.parse(sql, read="sqlite")
    except (sqlglot.errors.SqlglotError, RecursionError, ValueError):
        return None
    return statements[0] if len(statements) == 1 else None


@functools.lru_cache(maxsize=8192)
def canonical_sql(sql: str) -> str:
    """A key for comparing queries: equal for texts that differ in spacing, comments, letter case of keywords and
    names, or kind of identifier quotes. Not for executing.

    Text that sqlglot cannot parse is compared with its white space folded.
    """
    from sqlglot import exp

    folded = re.sub(r"\s+", " ", sql).strip().rstrip(";").rstrip()
    tree = _parse(sql)
    if tree is None:
        return folded
    tree = tree.copy()
    for name in tree.find_all(exp.Identifier):
        name.set("this", name.this.lower())
    try:
        return tree.sql(dialect="sqlite", comments=False)
    except (RecursionError, ValueError):
        return folded


def orders_rows(sql: str) -> bool:
    """Whether the outermost query has ORDER BY, so that the order of its rows is part of the answer."""
    from sqlglot import exp

    tree = _parse(sql)
    while isinstance(tree, exp.Subquery) and not tree.args.get("order"):
        tree = tree.this
    return bool(tree is not None and tree.args.get("order"))


def returns_constants(sql: str) -> bool:
    """Whether the rows of the outermost query are written in its text: no column, aggregate or subquery among them."""
    from sqlglot import exp

    read = (exp.Column, exp.Star, exp.AggFunc, exp.Anonymous, exp.Window, exp.Query)

    def constant(query) -> bool:
        if isinstance(query, exp.Subquery):
            return constant(query.this)
        if isinstance(query, exp.SetOperation):
            return constant(query.this) and constant(query.expression)
        return isinstance(query, exp.Select) and not any(result.find(*read) for result in query.expressions)

    return constant(_parse(sql))


CLOCK_OR_RANDOM = re.compile(
    r"\bcurrent_(?:date|time|timestamp)\b|'now'|\brandom(?:blob)?\s*\("
    r"|\b(?:date|time|datetime|julianday|unixepoch)\s*\(\s*\)|\bstrftime\s*\([^,()]*\)",
    re.IGNORECASE,
)


def clock_or_random(sql: str) -> bool:
    """Whether the text uses the present time or random numbers, so that its result may differ from run to run."""
    return CLOCK_OR_RANDOM.search(sql) is not None


def _names_given(node) -> list:
    """The identifiers that an alias, a WITH clause or a window gives to something."""
    from sqlglot import exp

    names = [node.args.get("alias"), node.this, *(node.args.get("columns") or ())]
    return [name for name in names if isinstance(name, exp.Identifier)]


CLAUSES = re.compile(r"\b(?:select|order|limit)\b", re.IGNORECASE)


def limit_without_order(sql: str) -> bool:
    """Whether some SELECT has LIMIT without ORDER BY, so that which rows it returns is left to chance."""
    words = [word.upper() for word in CLAUSES.findall(sql)]
    if "LIMIT" not in words or words == ["SELECT", "ORDER", "LIMIT"]:
        return False  # without parsing, which costs more than running most queries

    from sqlglot import exp

    tree = _parse(sql)
    selects = tree.find_all(exp.Query) if tree is not None else ()
    return any(select.args.get("limit") and not select.args.get("order") for select in selects)


def quoted_names(sql: str) -> set[str]:
    """The names in double quotes, in lower case, that the query does not define itself (aliases, WITH names).

    SQLite takes a double-quoted name that nothing has as a text literal (https://www.sqlite.org/quirks.html, 8).
    """
    from sqlglot import exp

    tree = _parse(sql)
    if tree is None:
        return set()
    # every name that stands where one is given: aliases, WITH names and their columns, windows
    given = (exp.Alias, exp.TableAlias, exp.CTE, exp.Window)
    own = {name.this.lower() for node in tree.find_all(*given) for name in _names_given(node)}
    return {name.this.lower() for name in tree.find_all(exp.Identifier) if name.args.get("quoted")} - own
