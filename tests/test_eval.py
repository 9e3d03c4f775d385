"""Verification: clean trees pass, every kind of damage is found, and what cannot be read is refused."""

import copy
import json

import pytest

from tests.conftest import assert_one_line_error, run_script
from tree.gold_cache import GoldCache
from tree.sandbox import Limits
from tree.tree_builder import feedback_text
from tree.tree_node import INITIAL, Question, RevisionTree, tree_to_json
from tree.verdict import judge

GOLD = "SELECT COUNT(*) FROM product"


def grown(shop) -> dict:
    """A tree whose verdicts are true: wrong, revised to right; an error; a duplicate; a reply without SQL."""
    tree = RevisionTree(Question(5, "shop", "How many products?", "", GOLD), "the task")
    nodes = [
        (INITIAL, "SELECT COUNT(*) FROM product WHERE id > 1", None),
        (INITIAL, "SELECT nme FROM product", None),
        (INITIAL, "select nme from PRODUCT", "node_1_1"),
        (INITIAL, "", None),
        ("node_1_0", "SELECT 3", None),
    ]
    for parent, sql, duplicate in nodes:
        verdict = judge(str(shop), sql, GOLD, Limits(5.0, 10**9), GoldCache(None))
        tree.add(
            parent,
            generated_sql=sql,
            execution_feedback=feedback_text(verdict, "own"),
            outcome=verdict.execution.outcome,
            is_correct=verdict.ex,
            strict_match=verdict.strict,
            duplicate_of=duplicate,
        )
    tree.nodes["node_1_0"].input_seq = "revise"
    return tree_to_json(tree)


def verify(tmp_path, content):
    path = tmp_path / "all_trees.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return run_script(
        *("-m", "eval", "--tree_file", path, "--db_root", tmp_path / "databases"),
        *("--output", tmp_path / "report.json"),
    )


def test_true_trees_pass(tmp_path, shop):
    tree = grown(shop)
    old = copy.deepcopy(tree)
    old["gold_sql"] = old.pop("SQL")
    for node in old["nodes"].values():
        node["revision_distance"] = 999 if node["revision_distance"] is None else node["revision_distance"]
        del node["outcome"], node["strict_match"]
    for content in ([tree], tree, [old]):
        run = verify(tmp_path, content)
        assert run.returncode == 0, run.stdout + run.stderr
        summary = json.loads((tmp_path / "report.json").read_text())["summary"]
        assert summary["result"] == "passed" and summary["nodes"] == 5 and summary["good"] == 1
        assert summary["revision_distances"] == {"0": 1, "1": 1, "null": 3}


def set_node(node: str, key: str, value):
    def damage(tree: dict) -> None:
        tree["nodes"][node][key] = value

    return damage


def drop_node(tree: dict) -> None:
    del tree["nodes"]["node_2_0"]


def rename_node(tree: dict) -> None:
    tree["nodes"]["node_2_7"] = tree["nodes"].pop("node_2_0")


DAMAGES = {
    "verdict": (set_node("node_1_0", "is_correct", True), "is_correct"),
    "strict verdict": (set_node("node_2_0", "strict_match", False), "strict_match"),
    "outcome": (set_node("node_1_1", "outcome", "ok"), "outcome"),
    "unknown outcome": (set_node("node_1_1", "outcome", "fine"), "outcome"),
    "query": (set_node("node_2_0", "generated_sql", "SELECT 4"), "is_correct"),
    "distance": (set_node("node_1_0", "revision_distance", 2), "revision_distance"),
    "distance unreached": (set_node("node_1_0", "revision_distance", None), "revision_distance"),
    "parent": (set_node("node_2_0", "parent_id", "node_9_9"), "parent"),
    "parent is itself": (set_node("node_2_0", "parent_id", "node_2_0"), "depth"),
    "depth": (set_node("node_2_0", "d", 3), "depth"),
    "children": (set_node("node_1_0", "children_ids", []), "children"),
    "children count": (set_node("node_1_0", "children_num", 4), "children_num"),
    "duplicate": (set_node("node_1_2", "duplicate_of", "node_1_0"), "duplicate_of"),
    "lost node": (drop_node, "children"),
    "renamed node": (rename_node, "id"),
    "status": (lambda tree: tree.update(tree_status="bad"), "tree_status"),
    "tree depth": (lambda tree: tree.update(max_depth=7), "max_depth"),
}


@pytest.mark.parametrize(("damage", "what"), DAMAGES.values(), ids=DAMAGES)
def test_damage_is_found(tmp_path, shop, damage, what):
    tree = grown(shop)
    damage(tree)
    run = verify(tmp_path, [grown(shop), tree])
    assert run.returncode == 1, run.stdout + run.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    assert what in {finding["what"] for finding in report["findings"]}
    assert report["summary"]["result"] == "failed" and "verification failed" in run.stdout


@pytest.mark.parametrize(
    ("content", "words"), [("[]", "no tree"), ("[{]", "broken JSON"), ('[{"nodes": {}}]', "tree 0"), ("7", "expected")]
)
def test_unreadable_files_are_refused(tmp_path, shop, content, words):
    assert_one_line_error(verify(tmp_path, content), "all_trees.json", words)
    assert not (tmp_path / "report.json").exists()


def test_a_missing_database_is_refused(tmp_path, shop):
    tree = grown(shop)
    tree["db_id"] = "nowhere"
    assert_one_line_error(verify(tmp_path, [tree]), "nowhere")
