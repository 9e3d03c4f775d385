"""Revision distance and the tree format."""

import json
import math

import pytest
from hypothesis import given

from tests.builders import QUESTION, trees
from tree.tree_node import (
    INITIAL,
    RevisionTree,
    explored_levels,
    revision_distances,
    tree_from_json,
    tree_to_json,
)


def revisions_to(tree: RevisionTree, node_id: str, goals: set[str]) -> int | None:
    """Level by level: the queries after one more revision, and those that they repeat, until a goal is among them."""

    def with_originals(ids: set[str]) -> set[str]:
        originals = {tree.nodes[name].duplicate_of for name in ids} - {None}
        return ids if originals <= ids else with_originals(ids | originals)

    here, seen, count = with_originals({node_id}), set(), 0
    while here and not here & goals:
        seen |= here
        here = with_originals({child for name in here for child in tree.nodes[name].children_ids}) - seen
        count += 1
    return count if here else None


@given(trees())
def test_distance_is_the_shortest_way_to_a_correct_query(tree):
    correct = {name for name, node in tree.nodes.items() if node.is_correct}
    assert revision_distances(tree.nodes) == {name: revisions_to(tree, name, correct) for name in tree.nodes}


@given(trees())
def test_explored_is_the_shortest_way_to_a_query_that_was_left_alone(tree):
    left = {
        name
        for name, node in tree.nodes.items()
        if not (node.is_correct or node.duplicate_of or node.input_seq or node.children_ids)
    }
    explored = explored_levels(tree.nodes)
    for name in tree.nodes:
        way = revisions_to(tree, name, left)
        assert explored[name] == (math.inf if way is None else way)


def test_a_duplicate_stands_where_its_original_stands():
    tree = RevisionTree(QUESTION, "the task")
    rows = [  # parent, query, correct, the node that it repeats
        (INITIAL, "a", False, None),
        (INITIAL, "b", False, None),
        (INITIAL, "c", False, None),
        ("node_1_0", "right", True, None),
        ("node_1_1", "a", False, "node_1_0"),
        ("node_1_2", "c", False, "node_1_2"),  # round in a circle
    ]
    for parent, sql, correct, original in rows:
        content = {"execution_feedback": "", "outcome": "ok", "is_correct": correct, "duplicate_of": original}
        tree.add(parent, generated_sql=sql, **content)
    assert list(revision_distances(tree.nodes).values()) == [1, 2, None, 0, 1, None]
    assert set(explored_levels(tree.nodes).values()) == {math.inf}
    stored = tree_to_json(tree)["nodes"]
    assert [node["revision_distance"] for node in stored.values()] == [1, 2, None, 0, 1, None]
    # the same without marks, as in the original format: a repetition that was never revised may lead anywhere
    for node in tree.nodes.values():
        node.duplicate_of = None
    assert list(revision_distances(tree.nodes).values()) == [1, None, None, 0, None, None]
    assert list(explored_levels(tree.nodes).values()) == [math.inf, 1, 1, math.inf, 0, 0]


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
    again = tree_from_json(stored)
    assert again.question.sql == "SELECT 1"
    assert again.nodes["node_1_0"].revision_distance is None


def test_reader_names_what_is_missing():
    tree = tree_to_json(RevisionTree(QUESTION, "the task"))
    del tree["db_id"]
    with pytest.raises(ValueError, match="db_id"):
        tree_from_json(tree)
