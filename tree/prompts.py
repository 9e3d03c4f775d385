"""Every sentence shown to a model, and reading its replies.  Pure.

Layout for the prefix cache: instructions and schema first, the same for all questions of a database; evidence and
question after; a revision begins with that task, and in a chat with all turns before it.
"""

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

from tree.sql.results import SHOWN_ROWS, Row, show_value
from tree.sql.tokens import KEYWORDS, TOKEN, first_word, tokens

TASK = """\
You write SQL for SQLite. Answer the question with one SELECT query over the database below. \
Use only its tables and columns, with the values as they are stored. \
Return exactly the columns that the question asks for, in the order of the question. \
Reply with the query in a ```sql block and nothing else.

Database:
{schema}

{values}{evidence}Question: {question}"""
VALUES = "Stored values that the question may mean:\n{lines}\n\n"

# A reply begins with this, so that the model writes the query at once. Left to itself, Qwen2.5-Coder-1.5B often
# explains first, which takes tokens and is right less often (docs/RESULTS.md).
OPENING = "```sql\n"
CLOSING = "```"

# --- revisions: how a wrong query goes back to the model --------------------------------------------------------------
# chat    a further turn of the same chat: the query as assistant, its feedback as user, all attempts of the path
# quoted  the task again, with the last attempt and its feedback quoted below
# error   the task again, with the last attempt's feedback, the query itself not shown
# again   the task again and nothing else: another attempt; wrong ones that repeat are drawn again
AGAIN = "again"
REVISIONS = (AGAIN, "error", "quoted", "chat")

CHAT_TURN = """\
{feedback}

The query does not answer the question. Find the mistake and write a corrected query that is different from the ones \
before. Reply with the query in a ```sql block and nothing else."""

QUOTED = """

An earlier attempt was wrong:
```sql
{sql}
```
{feedback}
Write a different query that answers the question."""

ERROR = """

An earlier query was wrong. {feedback}"""

NO_SQL = "Your reply holds no SQL query."
MAX_FEEDBACK = 1_000  # characters
Message = dict[str, str]


def task_prompt(schema: str, question: str, evidence: str, values: Sequence[str] = ()) -> str:
    """The initial task, as the generator sees it and as the `prompt` of a preference pair.

    `values` are lines about stored values that match the question.
    """
    shown = VALUES.format(lines="\n".join(values)) if values else ""
    hint = f"Evidence: {evidence.strip()}\n" if evidence.strip() else ""
    return TASK.format(schema=schema.strip(), values=shown, evidence=hint, question=question.strip())


@dataclass(frozen=True)
class Attempt:
    """A wrong query and what running it said."""

    sql: str
    feedback: str


@dataclass(frozen=True)
class Reply:
    """A model's reply, and the number of tokens that it took."""

    text: str
    tokens: int


def revision_text(revision: str, attempts: Sequence[Attempt]) -> str:
    """What a request for a revision adds to what was said before; `attempts` are those of the path, the last to revise.

    For "chat" it is the next user turn, else what stands below the task.
    """
    last = attempts[-1]
    return {
        "chat": lambda: CHAT_TURN.format(feedback=last.feedback),
        "quoted": lambda: QUOTED.format(sql=last.sql, feedback=last.feedback),
        "error": lambda: ERROR.format(feedback=last.feedback),
        AGAIN: lambda: "",
    }[revision]()


def revision_chat(revision: str, task: str, attempts: Sequence[Attempt]) -> list[Message]:
    """Chat messages that ask for first attempts (no `attempts`) or for revisions of the last attempt."""
    if not attempts:
        return chat(task)
    if revision != "chat":
        return chat(task + revision_text(revision, attempts))
    return chat(task, [(attempt.sql, revision_text(revision, [attempt])) for attempt in attempts])


def chat(task: str, turns: Sequence[tuple[str, str]] = ()) -> list[Message]:
    """Chat messages: the task, then for each (SQL, revision turn) of a path the SQL as assistant, the turn as user."""
    messages = [{"role": "user", "content": task}]
    for sql, turn in turns:
        messages.append({"role": "assistant", "content": f"```sql\n{sql}\n```"})
        messages.append({"role": "user", "content": turn})
    return messages


# --- feedback -------------------------------------------------------------------------------------------------------


def show_rows(columns: Sequence[str], rows: Sequence[Row], row_count: int, more: bool = False) -> str:
    """Shape and first rows of a result: `columns` names, `rows` the first ones, `row_count` how many there are.

    With `more`, there are more than `row_count`.
    """
    count = f"{'more than ' if more else ''}{row_count} row{'' if row_count == 1 else 's'}"
    lines = [f"{count}, columns: {', '.join(map(show_value, columns))}"]
    lines += ["(" + ", ".join(map(show_value, row)) + ")" for row in rows[:SHOWN_ROWS]]
    if row_count > SHOWN_ROWS:
        lines.append("…")
    return "\n".join(lines)


def execution_feedback(
    outcome: str,
    error: str = "",
    nearest: Sequence[str] = (),
    columns: Sequence[str] = (),
    rows: Sequence[Row] = (),
    row_count: int = 0,
    more: bool = False,
) -> str:
    """What executing a query says about it, without any look at gold; at most MAX_FEEDBACK characters.

    The arguments are the fields of an execution; `nearest` are existing names like one that the query got wrong.
    """
    hint = f". Did you mean: {', '.join(nearest)}?" if nearest else ""
    return _shortened(
        {
            "ok": lambda: f"The query returned {show_rows(columns, rows, row_count, more)}",
            "empty": lambda: f"The query returned no rows (columns: {', '.join(map(show_value, columns))}).",
            "error": lambda: f"The query failed: {error}{hint}",
            "denied": lambda: f"The query was refused, only reading is allowed: {error}",
            "timeout": lambda: "The query was stopped: it takes too long.",
            "too_large": lambda: f"The query was stopped: its result is too large ({error}).",
            "not_a_query": lambda: f"This is not one single SELECT query: {error}",
            "no_sql": lambda: NO_SQL,
            "crashed": lambda: "The query brought the database engine down.",
        }[outcome]()
    )


def oracle_feedback(own: str, columns: Sequence[str], rows: Sequence[Row], row_count: int) -> str:
    """Feedback that shows the expected result too (`--feedback oracle`, for ablation only)."""
    return _shortened(f"{own}\nThe expected result is {show_rows(columns, rows, row_count)}")


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_FEEDBACK else text[: MAX_FEEDBACK - 1] + "…"


# --- replies --------------------------------------------------------------------------------------------------------

THINKING = re.compile(r"<think((?:ing)?)>.*?(?:</think\1>|\Z)", re.DOTALL | re.IGNORECASE)
ANSWER = re.compile(r"<answer>((?:(?!<answer>).)*?)(?:</answer>|\Z)", re.DOTALL | re.IGNORECASE)
FENCE = re.compile(r"`{3,}|^[ \t]*~{3,}", re.MULTILINE)
SQL_MARK = re.compile(r"[ \t]*[\w{.=+-]*?sql(?:ite3?)?(?:(?=select|with|values)|[^\s`]*)", re.IGNORECASE)
BARE = re.compile(
    r"^[ \t>*]*(?:(?:final |sql )?(?:sql|query|answer)[ *]*:[ *]*)?(?P<query>\(*\s*(?:SELECT|VALUES|WITH)\b)",
    re.IGNORECASE | re.MULTILINE,
)
MAX_WITH = 200  # tokens of the beginning of a WITH clause, its column names among them
# words that begin a statement which is no query
OTHER_STATEMENTS = frozenset(
    re.findall(
        r"\w+",
        """ALTER ANALYZE ATTACH BEGIN COMMIT CREATE DELETE DETACH DROP END EXPLAIN INSERT PRAGMA REINDEX RELEASE REPLACE
        ROLLBACK SAVEPOINT UPDATE VACUUM""",
    )
)
OUTER_MARKS = ("sql", "", "markdown", "md")  # of blocks in which a query may stand among other text


def extract_sql(reply: str) -> str:
    """The SQL query of a model's reply, "" when there is none.

    Thinking (`<think>`) is no part of the answer. In this order: the last `<answer>`, the last fenced block that is a
    query, the last one marked `sql` with another statement, bare text from the first line that begins a query to its
    semicolon or a blank line, the same inside of a block, whatever the last block marked `sql` holds. Several
    statements of one block stay together, for they are not one query; prose behind the semicolon of one does not.
    """
    reply = _without_thinking(reply)
    if answers := ANSWER.findall(reply):
        return extract_sql(answers[-1])
    blocks, outside = _blocks(reply)
    if queries := [text for _, text in blocks if _begins_query(text)]:
        return _without_prose(queries[-1])
    marked = next((text for mark, text in reversed(blocks) if mark == "sql" and text.strip()), "")
    if first_word(marked) in OTHER_STATEMENTS:
        return _without_prose(marked)
    if bare := _bare_query(outside):
        return bare
    inside = (extract_sql(text) for mark, text in reversed(blocks) if mark in OUTER_MARKS)
    return next(filter(None, inside), _trimmed(marked))


def _without_thinking(reply: str) -> str:
    """The reply without `<think>…</think>`. One that is not closed takes all the rest, one that is not opened all the
    text before, but for the fence that every reply begins with.
    """
    reply = THINKING.sub("", reply)
    _, closed, rest = reply.rpartition("</think>")
    return OPENING + rest if closed and reply.startswith(OPENING) else rest


def _blocks(text: str) -> tuple[list[tuple[str, str]], str]:
    """The fenced blocks of a text, each with the language that it is marked with, and what stands outside of them.

    A fence closes a block that began with one of the same kind and at most its length. Where a block still is empty,
    or `sql` stands behind the fence, it opens another one instead: models repeat the fence that they were given.
    """
    blocks, outside = [], []
    opened, mark, start = "", "", 0
    for match in FENCE.finditer(text):
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
            mark, start = _mark(text, start)
    if opened:
        blocks.append((mark, text[start:]))
    else:
        outside.append(text[start:])
    return blocks, "\n\n".join(outside)


def _mark(text: str, start: int) -> tuple[str, int]:
    """The language that stands behind an opening fence, and where the block's text begins: on the same line when all of
    it is there or a query begins there, else on the next line.
    """
    sql = SQL_MARK.match(text, start)
    after = sql.end() if sql else start
    line = re.compile(r"[^\n]*").match(text, after).group()
    if FENCE.search(line) or _begins_query(text, after):
        return "sql" if sql else "", after
    return "sql" if sql else line.strip().lower(), after + len(line)


def _begins_query(text: str, start: int = 0) -> bool:
    """Whether the text from `start` on, after comments and parentheses, is SELECT …, VALUES (… or WITH … AS (…)"""
    words = (token.text.upper() for token in tokens(text, start))
    words = itertools.dropwhile(lambda word: word == "(", words)
    first, second = next(words, ""), next(words, "")
    if first != "WITH":
        return first == "SELECT" or (first == "VALUES" and second == "(")
    columns = list(itertools.islice(words, second == "RECURSIVE", MAX_WITH))
    after = columns[columns.index(")") + 1 :] if columns[:1] == ["("] and ")" in columns else columns
    return after[:1] == ["AS"] and after[1:2] in (["("], ["NOT"], ["MATERIALIZED"], ["SELECT"])


def _without_prose(block: str) -> str:
    """A block up to its first semicolon, or all of it when another statement follows."""
    end = next((match.end() for match in TOKEN.finditer(block) if match.group() == ";"), len(block))
    rest = block[end:]
    more = first_word(rest) in OTHER_STATEMENTS or _begins_query(rest)
    return _trimmed(block if more else block[:end])


def _bare_query(text: str) -> str:
    """From the first line that begins a query to its semicolon, or to a blank line behind which it does not go on."""
    begun = (match.start("query") for match in BARE.finditer(text))
    start = next((place for place in begun if _begins_query(text, place) and not _is_open(text[:place])), len(text))
    depth, end = 0, len(text)
    for match in TOKEN.finditer(text, start):
        token = match.group()
        depth += {"(": 1, ")": -1}.get(token, 0)
        may_end = match.lastgroup in ("layout", "illegal") and token[0] not in "-/" and depth <= 0
        blank = re.search(r"\n[ \t\r]*\n", token) if may_end else None
        if token == ";" or (blank and not _goes_on(text, match.end())):
            end = match.start() + (blank.start() if blank else 0)
            break
    return _trimmed(text[start:end])


def _is_open(text: str) -> bool:
    """Whether a parenthesis is open at the end."""
    return text.count("(") > text.count(")")


def _goes_on(text: str, start: int) -> bool:
    """Whether what follows continues a statement; prose begins with a capital letter."""
    word = next((token.text for token in tokens(text, start)), "")
    return word in (")", ",") or (word.upper() in KEYWORDS and not word.istitle())


def _trimmed(sql: str) -> str:
    """Without white space around it and semicolons at its end."""
    end = len(sql)
    while end and (sql[end - 1] == ";" or sql[end - 1].isspace()):
        end -= 1
    return sql[:end].lstrip()
