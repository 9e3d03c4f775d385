"""Every sentence that a generator is shown.  Pure.

Layout for the prefix cache: instructions and schema first, the same for all questions of a database; evidence after,
then what a revision is shown, and the question last. In a chat all turns before it come first.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tree.sql.results import MANY_ROWS, SHOWN_ROWS, Execution, show_value

TASK = """\
You write SQL for SQLite. Answer the question with one SELECT query over the database below. \
Use only its tables and columns, with the values as they are stored. \
Return exactly the columns that the question asks for, in the order of the question. \
Reply with the query in a ```sql block and nothing else.

Database:
{schema}

{values}{evidence}Question: {question}"""
VALUES = "Stored values that the question may mean:\n{lines}\n\n"

# --- revisions: how a wrong query goes back to the model --------------------------------------------------------------
# facts   the task again, with what executing the last attempt said before the question, the query itself not shown
# query   the same, with the last attempt itself
# chat    a further turn of the same chat: the query as assistant, its feedback as user, all attempts of the path
REVISIONS = ("facts", "query", "chat")

FACTS = """
An earlier query was wrong. {feedback}
"""

QUERY = """
An earlier query was wrong:
```sql
{sql}
```
{feedback}
"""

CHAT_TURN = """\
{feedback}

The query does not answer the question. Find the mistake and write a corrected query that is different from the ones \
before. Reply with the query in a ```sql block and nothing else."""

SENTENCES = {"facts": FACTS, "query": QUERY, "chat": CHAT_TURN}
QUESTION = "\nQuestion: "  # begins the last part of a task: what stands nearest to the reply is copied most

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


def revision_text(revision: str, attempts: Sequence[Attempt]) -> str:
    """What a request for a revision adds to what was said before; `attempts` are those of the path, the last to revise.

    For "chat" it is the next user turn, else what stands in the task before the question.
    """
    sentence = SENTENCES[revision]
    return sentence.format(sql=attempts[-1].sql, feedback=attempts[-1].feedback)


def revision_chat(revision: str, task: str, attempts: Sequence[Attempt]) -> list[Message]:
    """Chat messages that ask for first attempts (no `attempts`) or for revisions of the last attempt."""
    if attempts and revision != "chat":
        before, question, rest = task.rpartition(QUESTION)
        return chat(before + revision_text(revision, attempts) + question + rest)
    messages = chat(task)
    for attempt in attempts:
        messages.append({"role": "assistant", "content": f"```sql\n{attempt.sql}\n```"})
        messages.append({"role": "user", "content": revision_text(revision, [attempt])})
    return messages


def chat(task: str) -> list[Message]:
    """Chat messages that ask for first attempts."""
    return [{"role": "user", "content": task}]


# --- feedback -------------------------------------------------------------------------------------------------------


def show_rows(run: Execution) -> str:
    """Shape and first rows of what a query returned; the same for a right query and for a wrong one."""
    count = f"{run.row_count} row{'' if run.row_count == 1 else 's'}"
    if run.row_count >= MANY_ROWS:
        count = f"{MANY_ROWS} rows or more"
    lines = [f"{count}, columns: {', '.join(map(show_value, run.columns))}"]
    lines += ["(" + ", ".join(map(show_value, row)) + ")" for row in run.rows[:SHOWN_ROWS]]
    if run.row_count > SHOWN_ROWS:
        lines.append("…")
    return "\n".join(lines)


FEEDBACK = {  # by outcome
    "ok": "The query returned {result}",
    "empty": "The query returned no rows (columns: {columns}).",
    "error": "The query failed: {error}",
    "denied": "The query was refused, only reading is allowed: {error}",
    "timeout": "The query was stopped: it takes too long.",
    "too_large": "The query was stopped: its result is too large ({error}).",
    "not_a_query": "This is not one single SELECT query: {error}",
    "no_sql": "The reply held no SQL query.",
    "crashed": "The query brought the database engine down.",
}


def execution_feedback(run: Execution) -> str:
    """What executing a query says about it, with facts, without any look at gold; at most MAX_FEEDBACK characters."""
    text = FEEDBACK[run.outcome].format(
        result=show_rows(run),
        columns=", ".join(map(show_value, run.columns)),
        error=run.error,
    )
    return _shortened("\n".join([text, *run.facts]))


def oracle_feedback(own: str, gold: Execution) -> str:
    """Feedback that shows the expected result too (`--feedback oracle`, for ablation only)."""
    return _shortened(f"{own}\nThe expected result is {show_rows(gold)}")


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_FEEDBACK else text[: MAX_FEEDBACK - 1] + "…"
