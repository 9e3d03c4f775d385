"""Reading SQL as text, without running it: canonical form and outermost order.  Pure."""

import functools
import re
from collections.abc import Sequence

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


# sqlglot adds, drops or renames most keywords and functions when it writes canonical form; it keeps these
KEPT_WORDS = {
    *(
        "select",
        "distinct",
        "from",
        "where",
        "group",
        "having",
        "order",
        "desc",
        "limit",
        "union",
        "intersect",
        "except",
    ),
    *("between", "like", "exists", "case", "when", "count", "sum", "avg", "min", "max"),
}
QUOTED_OR_COMMENT = re.compile(r"('(?:[^']|'')*'|\"(?:[^\"]|\"\")*\")|--[^\n]*|/\*.*?(?:\*/|\Z)", re.DOTALL)


@functools.cache
def _changing_words() -> frozenset[str]:
    """The words, in lower case, whose number may differ between queries that are equal in canonical form."""
    from sqlglot import exp, parser
    from sqlglot.dialects.sqlite import SQLite

    names = {*SQLite.tokenizer_class.KEYWORDS, *SQLite.parser_class.FUNCTIONS, *exp.FUNCTION_BY_NAME}
    names |= {*parser.Parser.FUNCTION_PARSERS, "0"}  # .5 is written 0.5
    return frozenset(word for name in names for word in re.findall(r"\w+", name.lower())) - KEPT_WORDS


def rough_key(sql: str) -> str:
    """A coarser key, a hundred times quicker: equal for queries that are equal in canonical form.

    But for numbers that are written in another base.
    """
    if "--" in sql or "/*" in sql:
        sql = QUOTED_OR_COMMENT.sub(lambda match: match.group(1) or " ", sql)
    changing = _changing_words()
    return " ".join(sorted(word for word in re.findall(r"\w+", sql.lower()) if word not in changing))


def first_equal(sqls: Sequence[str]) -> list[int]:
    """For each query the place of the first one that is equal to it in canonical form: its own when it is new.

    Only queries that are alike are parsed, which costs more than running most.
    """
    first: dict[str, int] = {}
    alike: dict[str, list[str]] = {}
    for place, sql in enumerate(sqls):
        if sql not in first:
            texts = alike.setdefault(rough_key(sql), [])
            equal = (first[text] for text in texts if canonical_sql(text) == canonical_sql(sql))
            first[sql] = next(equal, place)
            texts.append(sql)
    return [first[sql] for sql in sqls]


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
