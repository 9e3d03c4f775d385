"""Preference pairs: only what the tree makes certain, the hardest, and the same again from a file."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.files import write_json
from common.preference import OWN_COLUMNS, RESULTS, PreferencePair, iterate_pairs
from tests.builders import QUESTION, tree_of, trees, trees_in_doubt
from tree.pairs.extraction import (
    REASONS,
    RELATIONS,
    STRATEGIES,
    PairSettings,
    canonical_queries,
    certain_pairs,
    extract_pairs,
    fragile_nodes,
    hardness,
    within_caps,
)
from tree.sql.canonical import canonical_sql
from tree.tree_node import INITIAL, RevisionTree

EVERY = PairSettings(match="ex", keep_fragile=True, max_pairs=0, max_per_relation=0)
SETTINGS = st.builds(
    PairSettings,
    strategy=st.sampled_from(["emerge", "baseline"]),
    match=st.sampled_from(["strict", "ex"]),
    keep_fragile=st.booleans(),
    max_pairs=st.integers(0, 4),
    max_per_relation=st.integers(0, 3),
)


def pairs_of(tree: RevisionTree, **settings) -> list[PreferencePair]:
    return extract_pairs(tree, PairSettings(**settings)).pairs


@given(trees_in_doubt(), SETTINGS)
def test_every_pair_is_certain_and_each_two_queries_come_once(tree, settings):
    distrusted = frozenset() if settings.keep_fragile else fragile_nodes(tree)
    certain = certain_pairs(tree, settings.strategy, settings.match, distrusted)
    pairs = extract_pairs(tree, settings).pairs
    assert all(pair in certain and pair.relation in RELATIONS for pair in pairs)
    assert not distrusted.intersection(node for pair in pairs for node in pair.nodes)
    assert all(pair.rejected_dist is None or pair.chosen_dist < pair.rejected_dist for pair in pairs)
    keys = list(map(canonical_queries, pairs))
    assert all(chosen and rejected and chosen != rejected for chosen, rejected in keys)
    assert len(keys) == len(set(keys))


@given(trees_in_doubt(), SETTINGS)
def test_caps_hold_and_everything_is_counted(tree, settings):
    extraction = extract_pairs(tree, settings)
    pairs, dropped = extraction.pairs, extraction.dropped
    relations = Counter(pair.relation for pair in pairs)
    assert not settings.max_pairs or len(pairs) <= settings.max_pairs
    assert not settings.max_per_relation or max(relations.values(), default=0) <= settings.max_per_relation
    distrusted = frozenset() if settings.keep_fragile else fragile_nodes(tree)
    certain = certain_pairs(tree, settings.strategy, settings.match, distrusted)
    assert set(dropped) == set(REASONS)
    assert len(pairs) + dropped.total() - dropped["fragile"] == len(certain)
    assert settings.keep_fragile is False or dropped["fragile"] == 0
    unbounded = extract_pairs(tree, replace(settings, max_pairs=0, max_per_relation=0))
    assert unbounded.dropped["over the cap"] == 0
    assert [pair for pair in unbounded.pairs if pair in pairs] == pairs
    if not settings.max_per_relation and settings.max_pairs:
        assert len(pairs) == min(settings.max_pairs, len(unbounded.pairs))


@given(trees_in_doubt(), SETTINGS)
def test_queries_on_which_the_tree_disagrees_make_no_pair(tree, settings):
    verdicts = {}
    for node in tree.nodes.values():
        verdicts.setdefault(canonical_sql(node.generated_sql), set()).add(node.is_correct)
    pairs = extract_pairs(tree, replace(settings, max_pairs=0, max_per_relation=0)).pairs
    keys = set(map(canonical_queries, pairs))
    assert all(len(verdicts[query]) == 1 for pair in keys for query in pair)
    assert not keys & {pair[::-1] for pair in keys}


@given(trees_in_doubt(), SETTINGS, st.randoms())
def test_the_order_of_the_nodes_changes_nothing(tree, settings, random):
    before = extract_pairs(tree, settings)
    items = list(tree.nodes.items())
    random.shuffle(items)
    tree.nodes = dict(items)
    assert extract_pairs(tree, settings) == before


@given(trees())
def test_emerge_pairs_are_neighbours(tree):
    for pair in extract_pairs(tree, EVERY).pairs:
        chosen, rejected = tree.nodes[pair.chosen_node], tree.nodes[pair.rejected_node]
        assert {
            "parent": chosen.parent_id == rejected.node_id,
            "child": rejected.parent_id == chosen.node_id,
            "sibling": chosen.parent_id == rejected.parent_id,
        }[pair.relation]


@given(trees())
def test_baseline_pairs_join_deepest_correct_and_shallowest_wrong(tree):
    for pair in extract_pairs(tree, replace(EVERY, strategy="baseline")).pairs:
        assert pair.chosen_dist == 0
        assert tree.nodes[pair.chosen_node].d == max(node.d for node in tree.nodes.values() if node.is_correct)
        assert tree.nodes[pair.rejected_node].d == min(node.d for node in tree.nodes.values() if not node.is_correct)


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
    pairs = pairs_of(tree_of(*nodes))
    assert sorted((pair.chosen, pair.rejected, pair.relation) for pair in pairs) == expected


DEFAULTS_TREE = [
    # parent, SQL, outcome, verdict, flags
    (INITIAL, "SELECT name FROM product", "ok", "wrong", []),  # revised to a correct query
    (INITIAL, "SELECT id FROM product", "ok", "wrong", []),  # revised in vain
    (INITIAL, "SELECT nme FROM product", "error", "wrong", []),  # never revised
    (INITIAL, "", "no_sql", "wrong", []),
    (INITIAL, "SELECT 1 FROM product", "ok", "strict", ["fragile"]),
    ("node_1_0", "SELECT COUNT(*) FROM product", "ok", "strict", []),
    ("node_1_0", "SELECT COUNT(1) FROM product", "ok", "ex", []),  # as BIRD judges, but not strictly
    ("node_1_0", "select count(*) from product", "ok", "strict", []),  # the same query again
    ("node_1_1", "SELECT MAX(id) FROM product", "empty", "wrong", []),
]


def tree_of_every_kind_of_node() -> RevisionTree:
    tree = RevisionTree(QUESTION, "the task")
    for parent, sql, outcome, verdict, flags in DEFAULTS_TREE:
        verdicts = {"is_correct": verdict != "wrong", "strict_match": verdict == "strict"}
        tree.add(parent, generated_sql=sql, execution_feedback="", outcome=outcome, flags=flags, **verdicts)
    tree.nodes["node_2_2"].duplicate_of = "node_2_0"
    tree.nodes["node_1_0"].input_seq = tree.nodes["node_1_1"].input_seq = "revise"
    return tree


def test_what_pairs_the_default_settings_give():
    extraction = extract_pairs(tree_of_every_kind_of_node(), PairSettings())
    assert [(*pair.nodes, pair.relation, pair.chosen_dist, pair.rejected_dist) for pair in extraction.pairs] == [
        ("node_2_0", "node_1_0", "parent", 0, 1),
        ("node_1_0", "node_1_1", "sibling", 1, None),
    ]
    assert extraction.dropped == {"fragile": 3, "disagreeing": 0, "repeated": 1, "over the cap": 0}
    baseline = extract_pairs(tree_of_every_kind_of_node(), PairSettings("baseline"))
    assert [(*pair.nodes, pair.chosen_dist, pair.rejected_dist) for pair in baseline.pairs] == [
        ("node_2_0", "node_1_0", 0, 1),
        ("node_2_0", "node_1_1", 0, None),
        ("node_2_0", "node_1_2", 0, None),
    ]
    assert baseline.dropped == {"fragile": 0, "disagreeing": 0, "repeated": 3, "over the cap": 0}


def test_distances_of_wrong_queries_are_luck_when_revisions_are_not_shown_them():
    tree = tree_of(
        (INITIAL, "SELECT 1", False),
        (INITIAL, "SELECT 2", False),
        ("node_1_0", "SELECT 3", True),
        ("node_1_1", "SELECT 4", False),
    )
    assert {pair.chosen_dist for pair in pairs_of(tree)} == {0, 1}
    tree.revision = "again"
    assert {pair.chosen_dist for pair in pairs_of(tree)} == {0}


def test_a_query_loses_to_a_number_only_when_as_many_revisions_of_it_were_tried():
    tree = tree_of(
        (INITIAL, "SELECT 1", False),
        (INITIAL, "SELECT 2", False),
        ("node_1_0", "SELECT 3", False),
        ("node_1_1", "SELECT 4", False),
        ("node_2_0", "SELECT 5", True),
    )

    def loses() -> bool:
        return ("SELECT 1", "SELECT 2") in {(pair.chosen, pair.rejected) for pair in pairs_of(tree)}

    assert not loses()  # right after two revisions, against wrong after one
    tree.nodes["node_2_1"].duplicate_of = "node_1_1"
    assert loses()  # its one revision leads back to it, so nothing else will come of it
    tree.nodes["node_2_1"].duplicate_of = "node_2_0"
    assert not loses()  # its one revision is a step from right, so it is as near
    tree.nodes["node_2_1"].duplicate_of = None
    nodes = [("node_2_1", "SELECT 6", False), ("node_2_1", "SELECT 7", False)]
    for parent, sql, correct in nodes:
        tree.add(parent, generated_sql=sql, execution_feedback="", outcome="ok", is_correct=correct)
    assert loses()  # wrong after two
    tree.add("node_1_1", generated_sql="SELECT 8", execution_feedback="", outcome="ok", is_correct=False)
    assert not loses()  # but not on every way
    tree.nodes["node_2_2"].flags, tree.nodes["node_2_2"].is_correct = ["fragile"], True
    assert not loses()  # a coincidence was not revised either


def test_ex_only_matches_are_chosen_on_request():
    tree = tree_of((INITIAL, "SELECT 1", True), (INITIAL, "SELECT 2", False))
    tree.nodes["node_1_0"].strict_match = False
    assert pairs_of(tree) == []
    assert len(pairs_of(tree, match="ex")) == 1


def test_reaching_a_fragile_query_counts_for_nothing():
    tree = tree_of(
        (INITIAL, "SELECT 1", False),
        (INITIAL, "SELECT 2", False),
        ("node_1_0", "SELECT 3", True),
        ("node_1_1", "SELECT 4", False),
    )
    tree.nodes["node_2_0"].flags = ["fragile"]
    extraction = extract_pairs(tree, PairSettings())
    assert extraction.pairs == [] and extraction.dropped["fragile"] == 2
    kept = pairs_of(tree, keep_fragile=True)
    assert {(pair.chosen, pair.rejected) for pair in kept} == {("SELECT 3", "SELECT 1"), ("SELECT 1", "SELECT 2")}
    assert pairs_of(tree, strategy="baseline") == [] != pairs_of(tree, strategy="baseline", keep_fragile=True)
    # with a query that is right for certain, the other branch is the better one
    tree.add(
        "node_1_1", generated_sql="SELECT 5", execution_feedback="", outcome="ok", is_correct=True, strict_match=True
    )
    assert ("SELECT 2", "SELECT 1", 1, None) in {
        (pair.chosen, pair.rejected, pair.chosen_dist, pair.rejected_dist) for pair in pairs_of(tree)
    }


def test_the_same_query_as_right_and_as_wrong_is_not_used():
    tree = tree_of((INITIAL, "SELECT 1", True), (INITIAL, "SELECT 2", False), (INITIAL, "SELECT 3", False))
    assert len(pairs_of(tree)) == 2
    tree.add(INITIAL, generated_sql="select 2", execution_feedback="", outcome="ok", is_correct=True, strict_match=True)
    extraction = extract_pairs(tree, PairSettings())
    assert [(pair.chosen, pair.rejected) for pair in extraction.pairs] == [("SELECT 1", "SELECT 3")]
    assert extraction.dropped["disagreeing"] == 2


def test_hardness_goes_by_outcome_then_by_likeness_and_repetition():
    assert hardness("ok", 0, 1) > hardness("empty", 0.999, 1000) > hardness("empty", 0, 1)
    assert hardness("empty", 0, 1) > hardness("error", 0.999, 1000)
    assert hardness("error", 0.5, 1) == hardness("timeout", 0.5, 1)
    assert hardness("ok", 0.9, 1) > hardness("ok", 0.3, 1)
    assert hardness("ok", 0.5, 3) > hardness("ok", 0.5, 2)


@given(st.floats(0, 1, exclude_max=True), st.integers(1, 100), st.sampled_from(["ok", "empty", "error"]))
def test_hardness_is_bounded(similarity, repeats, outcome):
    assert 0 <= hardness(outcome, similarity, repeats) <= 3


def test_the_hardest_are_kept_and_every_rejected_query_has_its_turn():
    right = [(INITIAL, f"SELECT name FROM product WHERE id = {number}", True) for number in range(3)]
    wrong = [
        (INITIAL, "SELECT name FROM product WHERE id < 1", False),
        (INITIAL, "SELECT 1", False),
        (INITIAL, "SELECT nme FROM product", False),
    ]
    tree = tree_of(*right, *wrong)
    tree.nodes["node_1_5"].outcome = "error"
    assert len(pairs_of(tree, max_per_relation=0)) == 9

    def rejected(**caps) -> list[str]:
        return [pair.rejected_node for pair in pairs_of(tree, **caps)]

    assert rejected(max_pairs=1) == ["node_1_3"]
    assert sorted(rejected(max_pairs=3)) == ["node_1_3", "node_1_4", "node_1_5"]
    assert Counter(rejected(max_pairs=7)) == {"node_1_3": 3, "node_1_4": 2, "node_1_5": 2}
    assert len(rejected(max_per_relation=2)) == 2
    assert len(rejected()) == 8  # the default


def test_a_query_that_the_model_repeats_is_harder():
    tree = tree_of((INITIAL, "SELECT 1", True), (INITIAL, "SELECT 2", False), (INITIAL, "SELECT 3", False))
    pairs = pairs_of(tree)
    (kept,) = within_caps(pairs, Counter({"SELECT 1": 1, "SELECT 2": 1, "SELECT 3": 4}), 1, 0)
    assert kept.rejected == "SELECT 3"


def test_the_row_is_a_conversational_preference(tmp_path):
    (pair,) = pairs_of(tree_of((INITIAL, "SELECT 1", True), (INITIAL, "SELECT 2", False)))
    row = pair.to_json()
    write_json(tmp_path / "pairs.json", [row])
    assert list(iterate_pairs(tmp_path / "pairs.json", OWN_COLUMNS)) == [pair]
    assert list(row)[3:5] == list(RESULTS) and list(row)[-2:] == ["rejected_outcome", "difficulty"]
    assert row == {
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
        "rejected_outcome": "ok",
        "difficulty": "simple",
        "chosen_result": "",
        "rejected_result": "",
    }


@given(trees(), st.sampled_from(STRATEGIES))
def test_a_pair_says_what_executing_each_of_its_queries_said(tree, strategy):
    for number, node in enumerate(tree.nodes.values()):
        node.execution_feedback = f"feedback {number}"
    for feedback in ("own", "oracle"):
        tree.feedback = feedback
        for pair in certain_pairs(tree, strategy, "ex"):
            told = [tree.nodes[node].execution_feedback if feedback == "own" else "" for node in pair.nodes]
            assert [pair.chosen_result, pair.rejected_result] == told
