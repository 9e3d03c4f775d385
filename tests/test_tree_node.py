"""Revision distance and the tree format."""

import json

from hypothesis import given
from hypothesis import strategies as st

from tree.tree_node import (
    INITIAL,
    Question,
    RevisionTree,
    revision_distances,
    tree_from_json,
    tree_to_json,
    trees_from_json,
)

QUESTION = Question(7, "shop", "How many?", "", "SELECT 1", "simple")


@st.composite
def trees(draw) -> RevisionTree:
    """Trees grown breadth first with random verdicts; correct nodes have no children."""
    tree = RevisionTree(QUESTION, "the task")
    parents = [INITIAL]
    for _ in range(draw(st.integers(1, 3))):
        level = []
        for parent in parents:
            for _ in range(draw(st.integers(1, 3))):
                correct = draw(st.booleans())
                sql = draw(st.sampled_from(["SELECT 1", "SELECT 2", "select  1", "SELECT a FROM t", ""]))
                node = tree.add(
                    parent,
                    generated_sql=sql,
                    execution_feedback="feedback",
                    outcome="ok" if sql else "no_sql",
                    is_correct=correct,
                    strict_match=correct and draw(st.booleans()),
                )
                if not correct and draw(st.booleans()):
                    node.input_seq = "revise"
                    level.append(node.node_id)
        parents = level
    return tree


@given(trees())
def test_distance_is_the_shortest_way_down_to_a_correct_query(tree):
    def shortest(node) -> int | None:  # brute force: every path below
        if node.is_correct:
            return 0
        ways = [shortest(tree.nodes[child]) for child in node.children_ids]
        return min((way + 1 for way in ways if way is not None), default=None)

    distances = revision_distances(tree.nodes)
    assert distances == {node_id: shortest(node) for node_id, node in tree.nodes.items()}


@given(trees())
def test_json_round_trip_keeps_everything(tree):
    stored = json.loads(json.dumps(tree_to_json(tree)))
    again = tree_from_json(stored)
    assert tree_to_json(again) == stored
    assert stored["tree_status"] == ("good" if any(node.is_correct for node in tree.nodes.values()) else "bad")
    assert {node["children_num"] == len(node["children_ids"]) for node in stored["nodes"].values()} == {True}


@given(trees())
def test_numbering_counts_within_the_depth(tree):
    for d in {node.d for node in tree.nodes.values()}:
        assert [node.j for node in tree.nodes.values() if node.d == d] == list(
            range(sum(node.d == d for node in tree.nodes.values()))
        )


def test_reader_takes_old_files():
    tree = RevisionTree(QUESTION, "the task")
    tree.add(INITIAL, generated_sql="SELECT 2", execution_feedback="", outcome="ok", is_correct=False)
    stored = tree_to_json(tree)
    stored["gold_sql"] = stored.pop("SQL")
    stored["nodes"]["node_1_0"]["revision_distance"] = 999
    (again,) = trees_from_json(stored)  # a single tree, not a list
    assert again.question.sql == "SELECT 1"
    assert again.nodes["node_1_0"].revision_distance is None


def test_reader_names_what_is_missing():
    tree = tree_to_json(RevisionTree(QUESTION, "the task"))
    del tree["db_id"]
    try:
        list(trees_from_json([tree]))
    except ValueError as error:
        assert "tree 0" in str(error) and "db_id" in str(error)
    else:
        raise AssertionError("a tree without db_id was read")
