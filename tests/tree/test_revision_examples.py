"""What a reviser is taught: the pipeline's own requests, answered by right queries that are beyond doubt."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders import QUESTION, trees_in_doubt
from tree.generator import encode, load_tokenizer
from tree.prompts import REVISIONS, task_prompt
from tree.replies import OPENING, Reply, extract_sql
from tree.revision_examples import revision_examples, tokenized
from tree.sql.canonical import canonical_sql, query_distance
from tree.sql.results import Execution, Verdict
from tree.tree_builder import TreeSettings, grow
from tree.tree_node import INITIAL, RevisionTree

TASK = task_prompt("CREATE TABLE t (a);", "How many?", "evidence")


@pytest.mark.parametrize("revision", REVISIONS)
def test_examples_are_the_requests_of_the_pipeline(revision):
    """Of a tree whose wrong queries are all revised, in two steps."""
    asked = []

    async def sample(messages, n, seed, revises):
        if revises:
            asked.append(messages)
        first = 10 if not asked else 100 * len(asked)
        return [Reply(f"```sql\nSELECT {first + number if len(asked) < 3 else 0}\n```", 1) for number in range(n)]

    async def judge(queries):
        ran = Execution("ok", columns=("a",), rows=((len(queries[0]),),), row_count=1)
        return [Verdict(ran, ran, sql == "SELECT 0", sql == "SELECT 0") for sql in queries]

    growth = TreeSettings(max_depth=3, num_roots=2, sample_num=1, revision=revision)
    tree = asyncio.run(grow(QUESTION, TASK, growth, sample, judge))
    examples = revision_examples(tree, revision)
    assert len(asked) == 4 and {example.sql for example in examples} == {"SELECT 0"}
    assert sorted(map(str, asked)) == sorted(str(example.messages) for example in examples)


@pytest.mark.parametrize("revision", REVISIONS)
def test_request_and_reply_are_the_tokens_of_the_engine(tiny_model, revision):
    tree = RevisionTree(QUESTION, TASK)
    for sql, right in (("SELECT 1", False), ("SELECT a FROM t", True)):
        tree.add(
            INITIAL, generated_sql=sql, execution_feedback="no", outcome="ok", is_correct=right, strict_match=right
        )
    [example] = revision_examples(tree, revision)
    tokenizer = load_tokenizer(tiny_model)
    request, answer = tokenized(example, tokenizer)
    assert request == encode(tokenizer, example.messages) and tokenizer.decode(request).endswith(OPENING)
    assert tokenizer.decode(answer) == "SELECT a FROM t\n```<|im_end|>"
    assert extract_sql(OPENING + tokenizer.decode(answer).split("```")[0]) == "SELECT a FROM t"


@given(trees_in_doubt(), st.sampled_from(REVISIONS), st.integers(0, 3))
def test_only_right_queries_beyond_doubt_are_taught_and_each_wrong_one_once(tree, revision, most):
    nodes, examples = tree.nodes.values(), revision_examples(tree, revision)
    verdicts = {}
    for node in nodes:
        verdicts.setdefault(canonical_sql(node.generated_sql), set()).add(node.is_correct)
    certain = [node for node in nodes if node.generated_sql and len(verdicts[canonical_sql(node.generated_sql)]) == 1]
    right = {n.generated_sql for n in certain if n.is_correct and n.strict_match and "fragile" not in n.flags}
    wrong = {canonical_sql(node.generated_sql) for node in certain if not node.is_correct}
    assert {canonical_sql(example.sql) for example in examples} <= {canonical_sql(sql) for sql in right}
    assert len(examples) == (len(wrong) if right else 0)
    assert revision_examples(tree, revision, most) == (examples[:most] if most else examples)
    if revision == "query":
        shown = [extract_sql(example.messages[0]["content"]) for example in examples]
        assert len(set(map(canonical_sql, shown))) == len(shown)
        for sql, example in zip(shown, examples, strict=True):
            assert query_distance(sql, example.sql) == min(query_distance(sql, other) for other in right)


def test_gold_that_feedback_shows_is_not_learned_from(tiny_model):
    tree = RevisionTree(QUESTION, TASK, feedback="oracle")
    for sql, right in (("SELECT 1", False), ("SELECT 2", True)):
        tree.add(
            INITIAL, generated_sql=sql, execution_feedback="gold", outcome="ok", is_correct=right, strict_match=right
        )
    assert revision_examples(tree, "query") == []


def test_queries_that_return_rows_come_first_and_the_nearer_before_the_farther():
    tree = RevisionTree(QUESTION, TASK)
    wrong = [("SELECT b FROM t", "error"), ("SELECT a, b FROM u", "ok"), ("SELECT c FROM t", "empty")]
    for sql, outcome in [*wrong, ("SELECT a, c FROM t", "ok"), ("SELECT a, d FROM t", "ok")]:
        right = sql.endswith("d FROM t")
        tree.add(
            INITIAL, generated_sql=sql, execution_feedback="", outcome=outcome, is_correct=right, strict_match=right
        )
    shown = [extract_sql(example.messages[0]["content"]) for example in revision_examples(tree, "query")]
    assert shown == ["SELECT a, c FROM t", "SELECT a, b FROM u", "SELECT c FROM t", "SELECT b FROM t"]
