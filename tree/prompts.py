"""Every sentence shown to a model, and reading its replies.  Pure.

Layout for the prefix cache: instructions and schema first, the same for all questions of a database; evidence and
question after; a revision begins with that task, and in a chat with all turns before it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tree.sql_text import COMMENT

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
MAX_CELL = 60
SHOWN_ROWS = 5

Row = tuple
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


def show_value(value: object) -> str:
    """One result cell on one line, at most MAX_CELL characters; bytes that are not UTF-8 escaped."""
    if value is None:
        return "NULL"
    if isinstance(value, bytes):
        value = f"x'{value[:MAX_CELL].hex()}'"
    text = str(value).encode("utf-8", "backslashreplace").decode()
    text = text.replace("\r", "\\r").replace("\n", "\\n")
    return text if len(text) <= MAX_CELL else text[: MAX_CELL - 1] + "…"


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

ANSWER = re.compile(r"<answer>(.*?)(?:</answer>|\Z)", re.DOTALL | re.IGNORECASE)
FENCE = re.compile(r"```[ \t]*(sqlite|sql|\w*(?=[ \t]*\n))?[ \t]*\n?(.*?)(?:```|\Z)", re.DOTALL | re.IGNORECASE)
QUERY = re.compile(r"\(*\s*(?:SELECT\b|VALUES\s*\(|WITH\s+(?:RECURSIVE\s+)?[\w\"`\[\]]+\s*(?:\([^)]*\)\s*)?AS\b)", re.I)
BARE = re.compile(r"^[ \t]*" + QUERY.pattern, re.I | re.MULTILINE)


def extract_sql(reply: str) -> str:
    """The SQL query of a model's reply, "" when there is none.

    In this order: the last `<answer>`, the last fenced block that is a query, the last block marked `sql`, bare text
    from the first line that begins a query to its semicolon or to the next blank line.
    """
    if answers := ANSWER.findall(reply):
        return extract_sql(answers[-1])
    blocks = [(language.lower(), block.strip()) for language, block in FENCE.findall(reply)]
    queries = [block for _, block in blocks if _begins_query(block)]
    marked = [block for language, block in blocks if language in ("sql", "sqlite") and block]
    if queries or marked:
        return _without_semicolon((queries or marked)[-1])
    return _bare_query(reply)


def _begins_query(text: str) -> bool:
    position = 0
    while (match := COMMENT.match(text, position)) and match.end() > position:
        position = match.end()
    return QUERY.match(text, position) is not None


def _bare_query(text: str) -> str:
    start = BARE.search(text)
    if not start:
        return ""
    rest = text[start.start() :]
    # a semicolon inside quotes ends nothing
    end = re.match(r"(?:'[^']*'|\"[^\"]*\"|[^;'\"\n]|\n(?![ \t]*\n))*", rest).end()
    return _without_semicolon(rest[:end] if end else rest)


def _without_semicolon(sql: str) -> str:
    return sql.strip().rstrip(";").rstrip()
