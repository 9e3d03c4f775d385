"""Reading SQL as text, without running it: canonical form and outermost order.  Pure."""

import functools
import re

MAX_PARSED = 20_000  # characters; longer text is model noise and only costs parsing time


@functools.lru_cache(maxsize=8192)
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
