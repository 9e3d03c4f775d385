"""The canonical form of a query: which texts are one query to SQLite.  Pure."""

import functools
import re
from collections.abc import Sequence

from tree.sql.tokens import IN_WORD, KEYWORDS, LETTER, TOKEN, TRUTH, Token, tokens, unquoted, upper

# not sent to SQLite as it is (NUL, half a surrogate pair), white space in some places only (vertical tab),
# and the virtual table that shows the text of the running query
AS_WRITTEN = re.compile("[\0\v\ud800-\udfff]|sqlite_stmt", re.IGNORECASE)
PLAIN_NAME = re.compile(rf"(?!\ufeff)[{LETTER}]{IN_WORD}*")


@functools.lru_cache(maxsize=8192)
def canonical_sql(sql: str) -> str:
    """A key for comparing queries: equal only for texts that SQLite cannot tell apart, whatever is in the database.

    The key is the query's tokens. Folded are white space and comments, letter case of ASCII words and numbers, one
    semicolon at the end, and `name` and [name] to a bare name where that is the same. Not folded: text literals, names
    in double quotes (SQLite takes them as text where nothing has the name), and anything that is another token, such
    as CAST(a AS INT) and CAST(a AS INTEGER). Where layout or letter case shows in the result the key is the text.
    """
    if AS_WRITTEN.search(sql):
        return sql
    found = list(tokens(sql))
    if [token.text for token in found].count(";") == 1 and found[-1].text == ";":
        if "\ufeff" in sql[sql.index(";") :]:  # to Python's sqlite3 another statement
            return sql
        found.pop()
    parts = list(map(_folded, found))
    return sql if _names_show(found, parts) or _types_show(sql, found, parts) else " ".join(parts)


def _folded(token: Token) -> str:
    if token.kind in ("word", "number", "blob"):
        return upper(token.text)
    if token.kind != "name" or token.text[0] == '"':
        return token.text
    name = upper(unquoted(token))
    bare = PLAIN_NAME.fullmatch(name) and name not in KEYWORDS | TRUTH
    return name if bare else "`" + name.replace("`", "``") + "`"


# keywords that are an expression by themselves
VALUE_WORDS = frozenset({"NULL", "CURRENT_DATE", "CURRENT_TIME", "CURRENT_TIMESTAMP"})


def _names_show(found: Sequence[Token], parts: Sequence[str]) -> bool:
    """Whether a subquery's column without an alias may be used by its name, which is the text of its expression with
    its layout: SELECT "a+1" FROM (SELECT a+1 FROM t), or by NATURAL JOIN.
    """
    if parts.count("SELECT") < 2:
        return False
    key = f" {' '.join(parts)} "
    return "NATURAL" in parts or any(_spells_part(name, key) for name in _names(found, "USING" in parts))


def _names(found: Sequence[Token], using: bool) -> set[str]:
    """What stands in quotes and can name a column; a text literal can behind a point and in USING."""
    before = ["", *(token.text for token in found)]
    return {
        unquoted(token)
        for token, previous in zip(found, before, strict=False)
        if token.kind == "name" or (token.kind == "text" and (using or previous == "."))
    }


def _spells_part(name: str, key: str) -> bool:
    """Whether a name is spelled like an expression of the query with this key (within spaces)."""
    inner = list(tokens(re.sub(r":[0-9]+\Z", "", name)))  # SQLite numbers columns of one name
    spelled = " ".join(map(_folded, inner))
    is_name = len(inner) == 1 and inner[0].kind == "word" and spelled not in VALUE_WORDS
    return not is_name and any(token.kind != "sign" for token in inner) and f" {spelled} " in key


def _types_show(sql: str, found: Sequence[Token], parts: Sequence[str]) -> bool:
    """Whether it matters how the types of CAST and the numbers are written.

    SQLite looks for INT, CHAR, REAL and so on in a type's text with all comments and quotes in it. And it compares the
    expressions of SELECT, GROUP BY and ORDER BY by the letters of their types and numbers: with a UNION, 1E5 * a cannot
    be ordered by 1e5 * a.
    """
    types = _types_of_casts(sql) if "CAST" in parts else []
    if any(re.search(r"--|/\*|[\[`]", one) for one in types):
        return True
    if {"GROUP", "UNION", "INTERSECT", "EXCEPT"}.isdisjoint(parts):
        return False
    spellings = {*types, *(token.text for token in found if token.kind in ("number", "blob"))}
    return len({re.sub(r"\s", "", one).lower() for one in spellings}) < len(spellings)


def _types_of_casts(sql: str) -> list[str]:
    """The types of CAST, from their first to their last token as they are written."""
    types: list[str] = []
    opened: list[bool] = []  # for each open parenthesis, whether it is that of a CAST
    start, end, before = -1, -1, ""  # of the type that is being read
    for match in TOKEN.finditer(sql):
        if match.lastgroup == "layout":
            continue
        text = match.group().lower()
        if text == ")" and opened and opened.pop() and start >= 0:
            types.append(sql[start:end])
            start = -1
        if before == "as" and opened and opened[-1]:
            start = match.start()
        if text == "(":
            opened.append(before == "cast")
        before, end = text, match.end()
    return types


def query_distance(one: str, other: str) -> float:
    """How far two queries are apart in their canonical tokens: edits that make one the other, by the longer, 0 to 1."""
    from rapidfuzz.distance import Levenshtein

    first, second = ([token.text for token in tokens(canonical_sql(sql))] for sql in (one, other))
    return Levenshtein.normalized_distance(first, second)


def first_equal(sqls: Sequence[str]) -> list[int]:
    """For each query the place of the first one that is equal to it in canonical form: its own when it is new."""
    first: dict[str, int] = {}
    return [first.setdefault(canonical_sql(sql), place) for place, sql in enumerate(sqls)]
