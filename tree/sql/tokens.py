"""SQL text as SQLite's own tokens, and names and texts as SQL.  Pure.

Rules: https://www.sqlite.org/src/file/src/tokenize.c. What is not a token to SQLite (a quote that is never closed, a
number with letters behind it) is one `illegal` token that takes all the rest of the text: SQLite refuses such a query.
"""

import re
import sys
from collections.abc import Iterator
from typing import NamedTuple

# https://www.sqlite.org/lang_keywords.html
KEYWORDS = frozenset(
    re.findall(
        r"\w+",
        """ABORT ACTION ADD AFTER ALL ALTER ALWAYS ANALYZE AND AS ASC ATTACH AUTOINCREMENT BEFORE BEGIN BETWEEN BY
        CASCADE CASE CAST CHECK COLLATE COLUMN COMMIT CONFLICT CONSTRAINT CREATE CROSS CURRENT CURRENT_DATE
        CURRENT_TIME CURRENT_TIMESTAMP DATABASE DEFAULT DEFERRABLE DEFERRED DELETE DESC DETACH DISTINCT DO DROP EACH
        ELSE END ESCAPE EXCEPT EXCLUDE EXCLUSIVE EXISTS EXPLAIN FAIL FILTER FIRST FOLLOWING FOR FOREIGN FROM FULL
        GENERATED GLOB GROUP GROUPS HAVING IF IGNORE IMMEDIATE IN INDEX INDEXED INITIALLY INNER INSERT INSTEAD
        INTERSECT INTO IS ISNULL JOIN KEY LAST LEFT LIKE LIMIT MATCH MATERIALIZED NATURAL NO NOT NOTHING NOTNULL
        NULL NULLS OF OFFSET ON OR ORDER OTHERS OUTER OVER PARTITION PLAN PRAGMA PRECEDING PRIMARY QUERY RAISE RANGE
        RECURSIVE REFERENCES REGEXP REINDEX RELEASE RENAME REPLACE RESTRICT RETURNING RIGHT ROLLBACK ROW ROWS
        SAVEPOINT SELECT SET TABLE TEMP TEMPORARY THEN TIES TO TRANSACTION TRIGGER UNBOUNDED UNION UNIQUE UPDATE
        USING VACUUM VALUES VIEW VIRTUAL WHEN WHERE WINDOW WITH WITHOUT""",
    )
)
# bare, these are the numbers 1 and 0 wherever no column has the name
TRUTH = frozenset({"TRUE", "FALSE"})

LETTER = r"A-Za-z_\x80-\U0010ffff"  # every character beyond ASCII, a no-break space too
IN_WORD = rf"[0-9${LETTER}]"
DIGITS = r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)"
# the kinds of tokens, in the order in which they are tried; a vertical tab is white space only behind other white space
KINDS = {
    "layout": r"[ \t\n\f\r][\t-\r ]*|\ufeff|--[^\n]*|/\*(?=.).*?(?:\*/|\Z)",
    "word": rf"(?![xX]')[{LETTER}]{IN_WORD}*",
    "number": rf"(?:0[xX][0-9a-fA-F]+|{DIGITS}(?:[eE][-+]?[0-9]+)?)(?!{IN_WORD})",
    "text": r"'[^']*(?:''[^']*)*'(?!')",
    "name": r'"[^"]*(?:""[^"]*)*"(?!")|`[^`]*(?:``[^`]*)*`(?!`)|\[[^\]]*\]',
    "blob": r"[xX]'(?:[0-9a-fA-F]{2})*'",
    "variable": rf"\?[0-9]*|[$@#:](?:::)*{IN_WORD}(?:{IN_WORD}|::)*(?:\([^\s)]*\))?",
    "sign": r"->>?|\|\|?|<[=><]?|>[=>]?|==?|!=|[-+*/%&~(),.;]",
    "illegal": r".+",
}
TOKEN = re.compile("|".join(f"(?P<{kind}>{pattern})" for kind, pattern in KINDS.items()), re.DOTALL)


class Token(NamedTuple):
    """A token as it is written; `kind` is one of KINDS, but never "layout"."""

    kind: str
    text: str


def tokens(sql: str, start: int = 0, end: int = sys.maxsize) -> Iterator[Token]:
    """The tokens of a text between two places, without white space and comments; takes linear time."""
    for match in TOKEN.finditer(sql, start, end):
        if match.lastgroup != "layout":
            yield Token(match.lastgroup, match.group())


def upper(text: str) -> str:
    """In upper case as SQLite sees it: ASCII letters only."""
    return text.upper() if text.isascii() else re.sub("[a-z]+", lambda match: match.group().upper(), text)


def unquoted(token: Token) -> str:
    """What a quoted name or a text literal says; other tokens are themselves."""
    if token.kind not in ("name", "text"):
        return token.text
    quote, inner = token.text[0], token.text[1:-1]
    return inner if quote == "[" else inner.replace(quote * 2, quote)


def delimited(name: str) -> str:
    """An identifier in double quotes, whatever it holds."""
    return '"' + name.replace('"', '""') + '"'


def quoted(name: str) -> str:
    """An identifier as a model should write it: bare where nothing else can be meant, else in double quotes.

    All of SQLite's keywords are quoted, also those that it takes as names here and there.
    """
    plain = name.isascii() and name.isidentifier() and name.upper() not in KEYWORDS | TRUTH
    return name if plain else delimited(name)


def literal(text: str) -> str:
    """A text literal."""
    return "'" + text.replace("'", "''") + "'"


def first_word(sql: str) -> str:
    """The first token after white space and comments, in upper case; "" when there is none."""
    first = next(tokens(sql), None)
    return first.text.upper() if first else ""
