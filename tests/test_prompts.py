"""What the model is shown, and reading its replies."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tree.prompts import (
    MAX_FEEDBACK,
    REVISIONS,
    Attempt,
    chat,
    execution_feedback,
    extract_sql,
    revision_chat,
    revision_text,
    task_prompt,
)
from tree.sandbox import OUTCOMES

REPLIES = {
    "fence": ("Here you are:\n```sql\nSELECT 1;\n```\nIt counts.", "SELECT 1"),
    "fence without language": ("```\nSELECT a\nFROM t\n```", "SELECT a\nFROM t"),
    "last fence wins": ("```sql\nSELECT 1\n```\nbetter:\n```sql\nSELECT 2\n```", "SELECT 2"),
    "query beats other block": ("```sql\nSELECT 1\n```\n```python\nprint(1)\n```", "SELECT 1"),
    "fence cut off": ("```sql\nSELECT a FROM t WHERE", "SELECT a FROM t WHERE"),
    "fence on one line": ("```sql SELECT 1```", "SELECT 1"),
    "answer": ("I think.\n<answer>SELECT 3</answer>", "SELECT 3"),
    "answer with fence": ("<answer>\n```sql\nSELECT 3\n```\n</answer>", "SELECT 3"),
    "answer beats fence": ("```sql\nSELECT 1\n```\n<answer>SELECT 3</answer>", "SELECT 3"),
    "bare": ("SELECT name FROM t", "SELECT name FROM t"),
    "bare with prose": ("The query is:\nSELECT name\nFROM t;\nIt lists names.", "SELECT name\nFROM t"),
    "bare to blank line": ("SELECT name FROM t\n\nThis lists names.", "SELECT name FROM t"),
    "bare with": ("WITH a AS (SELECT 1) SELECT * FROM a", "WITH a AS (SELECT 1) SELECT * FROM a"),
    "bare recursive": (
        "with recursive c(n) as (select 1) select n from c",
        "with recursive c(n) as (select 1) select n from c",
    ),
    "parenthesised": ("(SELECT 1) UNION (SELECT 2)", "(SELECT 1) UNION (SELECT 2)"),
    "semicolon in text": ("SELECT ';' FROM t; done", "SELECT ';' FROM t"),
    "comment first": ("```sql\n-- names\nSELECT name FROM t\n```", "-- names\nSELECT name FROM t"),
    "write is kept for the executor to refuse": ("```sql\nDELETE FROM t\n```", "DELETE FROM t"),
    "prose only": ("I cannot answer this question with the tables given.", ""),
    "prose with a keyword": ("With this data, you would select the names.", ""),
    "other code": ("```python\nprint('SELECT')\n```", ""),
    "empty": ("", ""),
    "empty fence": ("```sql\n```", ""),
}


@pytest.mark.parametrize(("reply", "sql"), REPLIES.values(), ids=REPLIES)
def test_sql_of_a_reply(reply, sql):
    assert extract_sql(reply) == sql


@given(st.text())
def test_any_reply_can_be_read(reply):
    sql = extract_sql(reply)
    assert sql == sql.strip() and not sql.endswith(";")


@given(st.sampled_from(OUTCOMES), st.text(max_size=3000), st.lists(st.text(max_size=300), max_size=20))
def test_feedback_is_short_whatever_the_result(outcome, error, columns):
    text = execution_feedback(outcome, error, columns, columns, [tuple(columns)] * 5, 1000, True)
    assert 0 < len(text) <= MAX_FEEDBACK


def test_questions_of_a_database_share_their_prefix():
    schema = "CREATE TABLE t (a);"
    one, other = task_prompt(schema, "How many?", "many refers to a > 3"), task_prompt(schema, "Which?", "")
    assert one.split(schema)[0] == other.split(schema)[0]
    assert one.index(schema) < one.index("many refers to") < one.index("How many?")


def test_a_chat_revision_continues_the_same_chat():
    attempts = [Attempt("SELECT 1", "The query failed: x"), Attempt("SELECT 2", "no rows")]
    first, second, third = (revision_chat("chat", "task", attempts[:count]) for count in range(3))
    assert second[: len(first)] == first and third[: len(second)] == second
    assert [message["role"] for message in third] == ["user", "assistant", "user", "assistant", "user"]
    assert extract_sql(third[3]["content"]) == "SELECT 2"


@pytest.mark.parametrize("revision", REVISIONS)
def test_a_revision_shares_the_prompt_of_the_first_attempts(revision):
    attempts = [Attempt("SELECT 1", "The query failed: x"), Attempt("SELECT 2", "no rows")]
    assert revision_chat(revision, "task", []) == chat("task")
    messages = revision_chat(revision, "task", attempts)
    assert messages[0]["role"] == "user" and messages[0]["content"].startswith("task")
    assert messages[-1]["content"].endswith(revision_text(revision, attempts))
