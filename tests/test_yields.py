"""What revisions gave against fresh attempts in their place."""

import random

import pytest

from tree.tree_node import INITIAL, Question, RevisionTree
from tree.yields import Yield, yields


def tree_of(roots: list[bool], revisions: list[tuple[int, bool]], tokens: int | None = 10) -> RevisionTree:
    """First attempts right or wrong, and revisions (of which first attempt, right or wrong) of 20 tokens."""
    tree = RevisionTree(Question(0, "shop", "How many?", "", "SELECT 1"), "task")
    content = {"generated_sql": "SELECT 0", "execution_feedback": "", "outcome": "ok"}
    for right in roots:
        tree.add(INITIAL, is_correct=right, tokens=tokens, **content)
    for root, right in revisions:
        tree.add(f"node_1_{root}", is_correct=right, tokens=tokens and 20, **content)
    return tree


def test_both_yields_of_a_tree():
    revisions, fresh = yields(tree_of([False, True, False], [(0, True), (0, False), (2, False)]))
    assert (revisions.queries, revisions.right, revisions.tokens) == (3, 1, 60)
    assert (fresh.queries, fresh.right, fresh.tokens) == (3, 1.5, 30)
    assert str(revisions) == "1 of 3 right (33.3%), 16.67 right per 1,000 tokens"


def test_later_revisions_are_not_counted():
    tree = tree_of([False, True], [(0, False)])
    tree.add("node_2_0", is_correct=True, tokens=5, generated_sql="SELECT 0", execution_feedback="", outcome="ok")
    assert yields(tree) == (Yield(1, 0, 20), Yield(1, 1, 10))


def test_one_first_attempt_or_no_tokens_say_nothing():
    assert yields(tree_of([False], [(0, True)])) == (Yield(1, 1, 20), Yield())
    assert yields(tree_of([False, True], [(0, True)], tokens=None)) == (Yield(), Yield())
    assert str(Yield()) == "none"


def test_the_estimate_of_fresh_attempts_is_not_biased_by_the_choice_of_wrong_ones():
    draw, total = random.Random(0), Yield()
    for _ in range(4_000):
        roots = [draw.random() < 0.3 for _ in range(4)]
        total += yields(tree_of(roots, [(place, False) for place, right in enumerate(roots) if not right]))[1]
    assert total.right / total.queries == pytest.approx(0.3, abs=0.015)
