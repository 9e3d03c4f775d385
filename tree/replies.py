"""A model's reply -> the SQL query in it.  Pure; takes linear time, also for a model that repeats itself.

Covered: thinking, `<answer>`, fenced blocks of all kinds (nested, repeated, cut off), bare queries among prose.
Not covered: whether the query is right, or even SQL; the executor says so.
"""

import itertools
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from tree.sql.tokens import KEYWORDS, TOKEN, first_word, tokens

# A reply begins with this, so that the model writes the query at once. Left to itself, Qwen2.5-Coder-1.5B often
# explains first, which takes tokens and is right less often (docs/RESULTS.md).
OPENING = "```sql\n"
CLOSING = "```"

THINKING = re.compile(r"<think((?:ing)?)>.*?(?:</think\1>|\Z)", re.DOTALL | re.IGNORECASE)
ANSWER = re.compile(r"<answer>((?:(?!<answer>).)*?)(?:</answer>|\Z)", re.DOTALL | re.IGNORECASE)
FENCE = re.compile(r"`{3,}|^[ \t]*~{3,}", re.MULTILINE)
SQL_MARK = re.compile(r"[ \t]*[\w{.=+-]*?sql(?:ite3?)?(?:(?=select|with|values)|[^\s`]*)", re.IGNORECASE)
BARE = re.compile(
    r"^[ \t>*]*+(?:(?:final |sql )?(?:sql|query|answer)[ *]*+:[ *]*+)?"
    r"(?P<query>(?:\(++\s*+|[^\S\n]*+)(?:SELECT|VALUES|WITH)\b)",
    re.IGNORECASE | re.MULTILINE,
)
BLANK_LINE = re.compile(r"\n[ \t\r]*\n")
MAX_WITH = 200  # tokens of the beginning of a WITH clause, its column names among them
MAX_BEGINNING = 2_000  # characters in which a bare query must be known to be one
MAX_NESTING = 4  # blocks inside of each other that are looked into
OUTER_MARKS = ("sql", "", "markdown", "md")  # of blocks in which a query may stand among other text
# words that begin a statement which is no query
OTHER_STATEMENTS = frozenset(
    re.findall(
        r"\w+",
        """ALTER ANALYZE ATTACH BEGIN COMMIT CREATE DELETE DETACH DROP END EXPLAIN INSERT PRAGMA REINDEX RELEASE REPLACE
        ROLLBACK SAVEPOINT UPDATE VACUUM""",
    )
)


class EngineDied(Exception):
    """The engine is gone, and with it all requests in flight; a new process is needed."""


@dataclass(frozen=True)
class Reply:
    """A model's reply, the number of tokens that it took, and the sum of their natural log-probabilities: the model's
    own belief, before temperature and truncation (None when it was not asked for)."""

    text: str
    tokens: int
    logprob: float | None = None


def extract_sql(reply: str) -> str:
    """The SQL query of a model's reply, "" when there is none.

    Thinking (`<think>`) is no part of the answer. In this order: the last `<answer>`, the last fenced block that is a
    query, the last one marked `sql` with another statement, bare text from the first line that begins a query to its
    semicolon or a blank line, the same inside of a block, whatever the last block marked `sql` holds. Several
    statements of one block stay together, for they are not one query; prose behind the semicolon of one does not.
    """
    text = _without_thinking(reply)
    answers = ANSWER.findall(text)
    return _query_of(answers[-1] if answers else text, MAX_NESTING)


def _query_of(text: str, nesting: int) -> str:
    blocks, outside = _blocks(text)
    blocks.reverse()
    query = next((block for _, block in blocks if _begins_query(block)), "")
    marked = next((block for mark, block in blocks if mark == "sql" and block.strip()), "")
    if query or first_word(marked) in OTHER_STATEMENTS:
        return _without_prose(query or marked)
    if bare := _bare_query(outside):
        return bare
    outer = [block for mark, block in blocks if mark in OUTER_MARKS and nesting]
    inside = (_query_of(block, nesting - 1) for block in outer)
    return next(filter(None, inside), _trimmed(marked))


def _without_thinking(reply: str) -> str:
    """The reply without `<think>…</think>`. One that is not closed takes all the rest, one that is not opened all the
    text before, but for the fence that every reply begins with.
    """
    reply = THINKING.sub("", reply)
    _, closed, rest = reply.rpartition("</think>")
    return OPENING + rest if closed and reply.startswith(OPENING) else rest


# --- fenced blocks --------------------------------------------------------------------------------------------------


def _blocks(text: str) -> tuple[list[tuple[str, str]], str]:
    """The fenced blocks of a text, each with the language that it is marked with, and what stands outside of them.

    A fence closes a block that began with one of the same kind and at most its length. Where a block still is empty,
    or `sql` stands behind the fence, it opens another one instead: models repeat the fence that they were given.
    """
    blocks, outside = [], []
    opened, mark, start = "", "", 0
    fences = [*FENCE.finditer(text), None]
    for match, following in itertools.pairwise(fences):
        fence = match.group().strip()
        if opened and not fence.startswith(opened):
            continue
        before, start = text[start : match.start()], match.end()
        if opened:
            blocks.append((mark, before))
        else:
            outside.append(before)
        closes = opened and before.strip() and not SQL_MARK.match(text, start)
        opened = "" if closes else fence
        if opened:
            mark, start = _mark(text, start, following.start() if following else len(text))
    if opened:
        blocks.append((mark, text[start:]))
    else:
        outside.append(text[start:])
    return blocks, "\n\n".join(outside)


def _mark(text: str, start: int, end: int) -> tuple[str, int]:
    """The language that stands behind an opening fence, and where the block's text begins: on the same line when all of
    it is there or a query begins there, else on the next line. `end` is that of the text up to the next fence.
    """
    sql = SQL_MARK.match(text, start)
    after = sql.end() if sql else start
    line_end = text.find("\n", after, end)
    on_one_line = line_end < 0 and end < len(text)
    if on_one_line or _begins_query(text, after, end):
        return "sql" if sql else "", after
    line_end = end if line_end < 0 else line_end
    return "sql" if sql else text[after:line_end].strip().lower(), line_end


# --- queries --------------------------------------------------------------------------------------------------------


def _begins_query(text: str, start: int = 0, end: int = sys.maxsize) -> bool:
    """Whether the text, after comments and parentheses, is SELECT …, VALUES (… or WITH … AS (…)"""
    found = (token.text.upper() for token in tokens(text, start, end))
    words = itertools.dropwhile(lambda word: word == "(", found)
    first = next(words, "")
    if first == "WITH":
        return _names_a_table(itertools.islice(words, MAX_WITH))
    return first == "SELECT" or (first == "VALUES" and next(words, "") == "(")


def _names_a_table(words: Iterator[str]) -> bool:
    """Whether what follows WITH is `name AS (`, or `name (columns) AS (`."""
    if next(words, "") == "RECURSIVE":
        next(words, "")
    word = next(words, "")
    if word == "(":
        words = itertools.dropwhile(lambda word: word != ")", words)
        next(words, "")
        word = next(words, "")
    return word == "AS" and next(words, "") in ("(", "NOT", "MATERIALIZED", "SELECT")


def _without_prose(block: str) -> str:
    """A block up to its first semicolon, or all of it when another statement follows."""
    end = next((match.end() for match in TOKEN.finditer(block) if match.group() == ";"), len(block))
    rest = block[end:]
    more = first_word(rest) in OTHER_STATEMENTS or _begins_query(rest)
    return _trimmed(block if more else block[:end])


def _bare_query(text: str) -> str:
    """From the first line that begins a query to its semicolon, or to a blank line behind which it is not continued."""
    start = _bare_start(text)
    depth, blank = 0, None  # where the last blank line begins that may end the query
    for match in TOKEN.finditer(text, start):
        token, is_layout = match.group(), match.lastgroup == "layout"
        if blank is not None and not is_layout and not _continues(token):
            return _trimmed(text[start:blank])
        if token == ";":
            return _trimmed(text[start : match.start()])
        depth += {"(": 1, ")": -1}.get(token, 0)
        if not is_layout:
            blank = None
        may_end = depth <= 0 and blank is None and match.lastgroup in ("layout", "illegal") and token[0] not in "-/"
        if may_end and (line := BLANK_LINE.search(token)):
            blank = match.start() + line.start()
    return _trimmed(text[start:blank])


def _bare_start(text: str) -> int:
    """Where the first line that begins a query does so, outside of parentheses; the end of the text when none does."""
    depth, counted = 0, 0
    for match in BARE.finditer(text):
        start = match.start("query")
        depth += text.count("(", counted, start) - text.count(")", counted, start)
        counted = start
        if depth <= 0 and _begins_query(text, start, start + MAX_BEGINNING):
            return start
    return len(text)


def _continues(token: str) -> bool:
    """Whether a token behind a blank line continues a statement; prose begins with a capital letter."""
    return token in (")", ",") or (token.upper() in KEYWORDS and not token.istitle())


def _trimmed(sql: str) -> str:
    """Without white space around it and semicolons at its end."""
    end = len(sql)
    while end and (sql[end - 1] == ";" or sql[end - 1].isspace()):
        end -= 1
    return sql[:end].lstrip()
