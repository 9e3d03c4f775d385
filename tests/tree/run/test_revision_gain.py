"""What revisions gave, compared with independent samples in their place."""

import asyncio
import random
from types import SimpleNamespace

import pytest

from tree.replies import Reply
from tree.run.progress import Progress
from tree.run.revision_gain import Tally, revision_gain
from tree.sql.results import Execution, Verdict
from tree.tree_builder import TreeSettings, grow
from tree.tree_node import INITIAL, Question, RevisionTree


def tree_of(roots: list[bool], revisions: list[tuple[int, bool]], tokens: int | None = 10) -> RevisionTree:
    """First attempts right or wrong, and revisions (of which first attempt, right or wrong) of 20 tokens."""
    tree = RevisionTree(Question(0, "shop", "How many?", "", "SELECT 1"), "task")
    content = {"generated_sql": "SELECT 0", "execution_feedback": "", "outcome": "ok"}
    for right in roots:
        tree.add(INITIAL, is_correct=right, tokens=tokens, **content)
    for root, right in revisions:
        tree.add(f"node_1_{root}", is_correct=right, tokens=tokens and 20, **content)
    return tree


def test_both_of_a_tree():
    revisions, independent = revision_gain(
        tree_of([False, True, False, False], [(0, True), (0, False), (2, False), (3, True)])
    )
    assert (revisions.queries, revisions.correct, revisions.tokens) == (3, 1, 60)  # after the last one comes nothing
    assert (independent.queries, independent.correct, independent.tokens) == (3, pytest.approx(2 / 3), 30)
    assert str(revisions) == "1 of 3 correct (33.3%), 16.67 correct per 1,000 tokens"


def test_later_revisions_are_not_counted():
    tree = tree_of([False, True], [(0, False)])
    tree.add("node_2_0", is_correct=True, tokens=5, generated_sql="SELECT 0", execution_feedback="", outcome="ok")
    assert revision_gain(tree) == (Tally(1, 0, 20), Tally(1, 1, 10))


def test_one_first_attempt_or_no_tokens_say_nothing():
    assert revision_gain(tree_of([False], [(0, True)])) == (Tally(), Tally())
    assert revision_gain(tree_of([False, True], [(0, True)], tokens=None)) == (Tally(), Tally())
    assert str(Tally()) == "none"


@pytest.mark.parametrize("max_nodes", [0, 9])
@pytest.mark.parametrize("wrong", [1, 2, 50])
@pytest.mark.parametrize("roots", [2, 4])
def test_where_all_replies_are_drawn_alike_both_are_alike(max_nodes, wrong, roots):
    """Whatever the budget, and however often first attempts repeat each other; half of all replies are right."""
    right, count = Execution("ok", rows=((1,),)), 500

    async def sample(messages, n, seed):
        drawn = random.Random(seed).choices(range(2 * wrong), k=n)
        return [Reply(f"```sql\nSELECT {max(0, place - wrong + 1)}\n```", 7) for place in drawn]

    async def judge(queries):
        return [Verdict(right, right, sql == "SELECT 0", sql == "SELECT 0") for sql in queries]

    growth = TreeSettings(max_depth=3, num_roots=roots, sample_num=3, max_nodes=max_nodes)
    revisions = independent = Tally()
    for number in range(count):
        tree = asyncio.run(grow(Question(number, "shop", "?", "", "SELECT 0"), "task", growth, sample, judge))
        one, other = revision_gain(tree)
        revisions, independent = revisions + one, independent + other
    assert revisions.queries == independent.queries > count / 3
    # the draws of a tree hang together, so at most one for each tree counts: 3 standard deviations
    assert abs(revisions.correct - independent.correct) / independent.queries < 3 * (2 * 0.25 / count) ** 0.5


@pytest.mark.parametrize("compares", [True, False])
def test_the_summary_compares_them_only_where_that_is_fair(compares):
    tree = tree_of([False, True], [(0, True)])
    progress = Progress(
        1,
        SimpleNamespace(counts=lambda: {"prompt_tokens": 9, "cached_prompt_tokens": 3, "output_tokens": 8}),
        [tree],
        compares,
    )
    progress.close()
    figures = progress.finish()
    lines = progress.lines(figures)
    assert [line.split()[0] for line in lines] == ["time", "tokens"] + ["revisions", "instead"] * compares
    assert ("independent_samples" in figures, "revisions" in figures) == (compares, compares)
