"""What a query's text says about its result, without running it: order, chance, constants, names in quotes.  Pure."""

import functools
import re
from collections.abc import Iterator, Sequence

from tree.sql.tokens import KEYWORDS, Token, tokens, unquoted

MAX_PARSED = 20_000  # characters; longer text is model noise and only costs parsing time

# --- the order of rows ----------------------------------------------------------------------------------------------


def orders_rows(sql: str) -> bool:
    """Whether the outermost query has ORDER BY, so that the order of its rows is part of the answer."""
    depth = 0
    for token in tokens(sql):
        depth += {"(": 1, ")": -1}.get(token.text, 0)
        if depth == 0 and token.text.lower() == "order":
            return True
    return False


def limit_without_order(sql: str) -> bool:
    """Whether some SELECT has LIMIT without ORDER BY, so that which rows it returns is left to chance."""
    if "limit" not in sql.lower():
        return False
    ordered = [False]  # whether the query in each open parenthesis has had its ORDER BY
    for token in tokens(sql):
        word = token.text.lower()
        if word == "(":
            ordered.append(False)
        elif word == ")" and len(ordered) > 1:
            ordered.pop()
        elif word == "order":
            ordered[-1] = True
        elif word == "limit" and not ordered[-1]:
            return True
    return False


# --- the clock and random numbers -----------------------------------------------------------------------------------

CURRENT = frozenset({"current_date", "current_time", "current_timestamp"})
# functions of a time -> how many arguments stand before it; where it is missing they take the present one
TIME_FUNCTIONS = {"date": 0, "time": 0, "datetime": 0, "julianday": 0, "unixepoch": 0, "strftime": 1, "timediff": 0}
NOW_AS_TIME = frozenset({"subsec", "subsecond"})  # from SQLite 3.42 on
ZONES = frozenset({"localtime", "utc"})  # modifiers
MAY_HANG_ON_CHANCE = re.compile("current_|random|date|time|julianday|unixepoch", re.IGNORECASE)


def clock_or_random(sql: str) -> bool:
    """Whether the text uses the present time or random numbers, so that its result may differ from run to run.

    Seen are CURRENT_DATE and its like, random(), randomblob(), functions of a time without one, and 'now' (in double
    quotes too, and as a blob) in a query that has such a function. The modifiers 'localtime' and 'utc' count: what they
    give hangs on the machine's time zone. Not seen: a text that is put together of parts ('n' || 'ow') or stored. Seen
    wrongly: "now" where it is a column.
    """
    if not MAY_HANG_ON_CHANCE.search(sql):
        return False
    found = list(tokens(sql))
    if any(_is_clock_word(found, place) for place in range(len(found))):
        return True
    calls = list(_calls(found))
    if any((name, len(arguments)) in (("random", 0), ("randomblob", 1)) for name, arguments in calls):
        return True
    timed = [(name, arguments) for name, arguments in calls if name in TIME_FUNCTIONS]
    reads_now = bool(timed) and any(_said(token) == "now" for token in found)
    return reads_now or any(_hangs_on_clock(name, arguments) for name, arguments in timed)


def _is_clock_word(found: Sequence[Token], place: int) -> bool:
    """Whether the token is CURRENT_DATE or its like where SQLite reads a value, not the name of something."""
    if found[place].text.lower() not in CURRENT:
        return False
    before = found[place - 1] if place else Token("word", "")
    if before.kind == "word":
        return before.text.upper() in KEYWORDS - {"AS", "FROM", "JOIN", "WITH"}
    return before.kind == "sign" and before.text not in (".", ")")  # behind a value it is an alias


def _calls(found: Sequence[Token]) -> Iterator[tuple[str, list[list[Token]]]]:
    """Each pair of parentheses: the word or name before it in lower case, and the tokens of each argument, of which a
    nested pair is one.
    """
    opened: list[tuple[str, list[list[Token]]]] = []
    before = ""
    for token in found:
        if token.text == ")" and opened:
            name, arguments = opened.pop()
            yield name, [] if arguments == [[]] else arguments
        if token.text == "(":
            opened.append((before, [[]]))
        elif token.text == "," and opened:
            opened[-1][1].append([])
        elif opened:
            opened[-1][1][-1].append(token)
        before = unquoted(token).lower() if token.kind in ("word", "name") else ""


def _said(token: Token) -> str:
    """What a token says as a text, in lower case; "" when it is none."""
    if token.kind == "blob":
        return bytes.fromhex(token.text[2:-1]).decode("latin-1").lower()
    is_text = token.kind == "text" or token.text[0] == '"'
    return unquoted(token).lower() if is_text else ""


def _hangs_on_clock(name: str, arguments: list[list[Token]]) -> bool:
    """Whether a function of a time takes the present one, or asks for the machine's time zone."""
    said = [_said(argument[0]) if len(argument) == 1 else "" for argument in arguments]
    before = TIME_FUNCTIONS[name]
    time, modifiers = said[before : before + 1], said[before + 1 :]
    return len(said) == before or not (NOW_AS_TIME.isdisjoint(time) and ZONES.isdisjoint(modifiers))


# --- what only a parser sees ------------------------------------------------------------------------------------------


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


def returns_constants(sql: str) -> bool:
    """Whether the rows of the outermost query are written in its text: no column, aggregate or subquery among them."""
    from sqlglot import exp

    read = (exp.Column, exp.Star, exp.AggFunc, exp.Anonymous, exp.Window, exp.Query)

    def constant(query: exp.Expression | None) -> bool:
        if isinstance(query, exp.Subquery):
            return constant(query.this)
        if isinstance(query, exp.SetOperation):
            return constant(query.this) and constant(query.expression)
        return isinstance(query, exp.Select) and not any(result.find(*read) for result in query.expressions)

    return constant(_parse(sql))


def _names_given(node) -> list:
    """The identifiers that an alias, a WITH clause or a window gives to something."""
    from sqlglot import exp

    names = [node.args.get("alias"), node.this, *(node.args.get("columns") or ())]
    return [name for name in names if isinstance(name, exp.Identifier)]


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
