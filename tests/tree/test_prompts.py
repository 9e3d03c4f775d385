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
from tree.sql.results import OUTCOMES, Execution


@given(st.sampled_from(OUTCOMES), st.text(max_size=3000), st.lists(st.text(max_size=300), max_size=20))
def test_feedback_is_short_whatever_the_result(outcome, error, columns):
    run = Execution(outcome, error, tuple(columns), (tuple(columns),) * 5, 1000, True, nearest=tuple(columns))
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
def test_a_revision_shares_the_prompt_of_the_first_attempts(revision):
    attempts = [Attempt("SELECT 1", "The query failed: x"), Attempt("SELECT 2", "no rows")]
    assert revision_chat(revision, "task", []) == chat("task")
    messages = revision_chat(revision, "task", attempts)
    assert messages[0]["role"] == "user" and messages[0]["content"].startswith("task")
    assert messages[-1]["content"].endswith(revision_text(revision, attempts))
