"""Preference pairs: only what the tree makes certain."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.test_tree_node import QUESTION, trees
from tree.dpo_extractor import RELATIONS, extract_pairs
from tree.sql_text import canonical_sql
from tree.tree_node import INITIAL, RevisionTree, revision_distances


@given(trees(), st.sampled_from(["emerge", "baseline"]), st.sampled_from(["strict", "ex"]))
def test_every_pair_is_certain(tree, strategy, match):
    distances = revision_distances(tree.nodes)
    pairs = extract_pairs(tree, strategy, match)
    for pair in pairs:
        chosen, rejected = tree.nodes[pair.chosen_node], tree.nodes[pair.rejected_node]
        assert (pair.chosen_dist, pair.rejected_dist) == (distances[pair.chosen_node], distances[pair.rejected_node])
        assert pair.chosen_dist is not None
        assert pair.rejected_dist is None or pair.chosen_dist < pair.rejected_dist
        assert pair.chosen_dist == 0 or pair.rejected_dist is not None or rejected.revised
        assert match == "ex" or pair.chosen_dist > 0 or chosen.strict_match
        assert canonical_sql(pair.chosen) != canonical_sql(pair.rejected)
        assert pair.chosen and pair.rejected and pair.relation in RELATIONS
    keys = [(canonical_sql(pair.chosen), canonical_sql(pair.rejected)) for pair in pairs]
    assert len(keys) == len(set(keys))


@given(trees())
def test_emerge_pairs_are_neighbours(tree):
    for pair in extract_pairs(tree, "emerge", "ex"):
        chosen, rejected = tree.nodes[pair.chosen_node], tree.nodes[pair.rejected_node]
        assert {
            "parent": chosen.parent_id == rejected.node_id,
            "child": rejected.parent_id == chosen.node_id,
            "sibling": chosen.parent_id == rejected.parent_id,
        }[pair.relation]


@given(trees())
def test_baseline_pairs_join_deepest_correct_and_shallowest_wrong(tree):
    for pair in extract_pairs(tree, "baseline", "ex"):
        assert pair.chosen_dist == 0
        assert tree.nodes[pair.chosen_node].d == max(node.d for node in tree.nodes.values() if node.is_correct)
        assert tree.nodes[pair.rejected_node].d == min(node.d for node in tree.nodes.values() if not node.is_correct)


def tree_of(*nodes: tuple[str, str, bool]) -> RevisionTree:
    """A tree from (parent, SQL, correct); a node with children was revised."""
    tree = RevisionTree(QUESTION, "the task")
    for parent, sql, correct in nodes:
        content = {"execution_feedback": "", "outcome": "ok", "is_correct": correct, "strict_match": correct}
        tree.add(parent, generated_sql=sql, **content)
        if parent != INITIAL:
            tree.nodes[parent].input_seq = "revise"
    return tree


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        # correct beats wrong, whether that was revised or not
        ([(INITIAL, "SELECT 1", True), (INITIAL, "SELECT 2", False)], [("SELECT 1", "SELECT 2", "sibling")]),
        # a revision that helped
        (
            [(INITIAL, "SELECT 1", False), ("node_1_0", "SELECT 2", True)],
            [("SELECT 2", "SELECT 1", "parent")],
        ),
        # closer beats a sibling that was revised in vain, and its own wrong child loses only to the correct one
        (
            [
                (INITIAL, "SELECT 1", False),
                (INITIAL, "SELECT 2", False),
                ("node_1_0", "SELECT 3", True),
                ("node_1_0", "SELECT 4", False),
                ("node_1_1", "SELECT 5", False),
            ],
            [
                ("SELECT 1", "SELECT 2", "sibling"),
                ("SELECT 3", "SELECT 1", "parent"),
                ("SELECT 3", "SELECT 4", "sibling"),
            ],
        ),
        # nothing correct below either: no pair
        ([(INITIAL, "SELECT 1", False), (INITIAL, "SELECT 2", False)], []),
        # the same query written differently: no pair
        ([(INITIAL, "SELECT a FROM t", True), (INITIAL, "select A\nfrom T;", False)], []),
    ],
)
def test_pairs_of_small_trees(nodes, expected):
    pairs = extract_pairs(tree_of(*nodes), "emerge")
    assert sorted((pair.chosen, pair.rejected, pair.relation) for pair in pairs) == expected


def test_distances_of_wrong_queries_are_luck_when_revisions_are_not_shown_them():
    tree = tree_of(
        (INITIAL, "SELECT 1", False),
        (INITIAL, "SELECT 2", False),
        ("node_1_0", "SELECT 3", True),
        ("node_1_1", "SELECT 4", False),
    )
    assert {pair.chosen_dist for pair in extract_pairs(tree, "emerge")} == {0, 1}
    tree.revision = "again"
    assert {pair.chosen_dist for pair in extract_pairs(tree, "emerge")} == {0}


def test_ex_only_matches_are_chosen_on_request():
    tree = tree_of((INITIAL, "SELECT 1", True), (INITIAL, "SELECT 2", False))
    tree.nodes["node_1_0"].strict_match = False
    assert extract_pairs(tree, "emerge") == []
    assert len(extract_pairs(tree, "emerge", match="ex")) == 1


def test_the_row_is_a_conversational_preference():
    (pair,) = extract_pairs(tree_of((INITIAL, "SELECT 1", True), (INITIAL, "SELECT 2", False)), "emerge")
    assert pair.to_json() == {
        "prompt": [{"role": "user", "content": "the task"}],
        "chosen": [{"role": "assistant", "content": "SELECT 1"}],
        "rejected": [{"role": "assistant", "content": "SELECT 2"}],
        "question_id": 7,
        "db_id": "shop",
        "chosen_node": "node_1_0",
        "rejected_node": "node_1_1",
        "chosen_dist": 0,
        "rejected_dist": None,
        "relation": "sibling",
        "tree_id": "shop/7",
    }
