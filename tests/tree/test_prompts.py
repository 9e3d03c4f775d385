"""What the model is shown."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tree.prompts import (
    MAX_FEEDBACK,
    REVISIONS,
    Attempt,
    chat,
    execution_feedback,
    revision_chat,
    revision_text,
    task_prompt,
)
from tree.replies import extract_sql
from tree.sql.results import MANY_ROWS, OUTCOMES, Execution


@given(st.sampled_from(OUTCOMES), st.text(max_size=3000), st.lists(st.text(max_size=300), max_size=20))
def test_feedback_is_short_whatever_the_result(outcome, error, columns):
    run = Execution(outcome, error, tuple(columns), (tuple(columns),) * 5, 1000, True, facts=tuple(columns))
    text = execution_feedback(run)
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
def test_a_revision_shares_the_prompt_up_to_the_question(revision):
    """What the cache holds for all questions of the database, and for this one up to the question, is used."""
    attempts = [Attempt("SELECT 1", "The query failed: x"), Attempt("SELECT 2", "no rows")]
    task = task_prompt("CREATE TABLE t (a);", "Which\nQuestion: is it?", "evidence")
    assert revision_chat(revision, task, []) == chat(task)
    messages = revision_chat(revision, task, attempts)
    before, question = task[: task.index("is it?")], "is it?"
    assert messages[0]["content"].startswith(before.removesuffix("\nQuestion: "))
    assert messages[0]["content"].endswith(f"\nQuestion: {question}")
    assert revision_text(revision, attempts) in messages[-1]["content"]
    assert "no rows" in messages[-1]["content"]  # every way is made from what it revises


@pytest.mark.parametrize("revision", [name for name in REVISIONS if name != "chat"])
def test_the_question_stands_behind_what_was_wrong(revision):
    task = task_prompt("CREATE TABLE t (a);", "which?", "")
    [message] = revision_chat(revision, task, [Attempt("SELECT 1", "no rows")])
    assert message["content"].index("no rows") < message["content"].index("Question: which?")
    assert ("SELECT 1" in message["content"]) == (revision == "query")


@given(st.integers(1, 3_000), st.booleans())
def test_the_count_of_rows_does_not_tell_a_right_query_from_a_wrong_one(count, more):
    """Reading a wrong result ends at MANY_ROWS, so from there on the number would tell."""
    told = [execution_feedback(Execution("ok", columns=("a",), row_count=rows)) for rows in (count, MANY_ROWS)]
    assert (told[0] == told[1]) == (count >= MANY_ROWS)
    assert execution_feedback(Execution("ok", columns=("a",), row_count=count, more=more)) == told[0]
