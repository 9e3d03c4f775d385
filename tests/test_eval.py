"""Verification: clean trees pass, every kind of damage is found, and what cannot be read is refused."""

import copy
import json
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.tree_form import is_tree
from eval.verify import check_gold, check_tree, check_verdict
from tests.conftest import assert_one_line_error, make_database, run_script
from tree.gold_cache import GoldCache
from tree.sandbox import Limits
from tree.tree_builder import feedback_text
from tree.tree_node import INITIAL, Question, RevisionTree, tree_from_json, tree_to_json
from tree.verdict import judge

GOLD = "SELECT COUNT(*) FROM product"


def grown(shop, question_id: int = 5) -> dict:
    """A tree whose verdicts are true: wrong, revised to right; an error; a duplicate; a reply without SQL."""
    tree = RevisionTree(Question(question_id, "shop", "How many products?", "", GOLD), "the task")
    nodes = [
        (INITIAL, "SELECT COUNT(*) FROM product WHERE id > 1", None),
        (INITIAL, "SELECT nme FROM product", None),
        (INITIAL, "select nme from PRODUCT", "node_1_1"),
        (INITIAL, "", None),
        ("node_1_0", "SELECT 3", None),
        ("node_1_0", "SELECT COUNT(id) FROM product", None),
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
            flags=[*verdict.execution.flags, *(["fragile"] if sql == "SELECT 3" else [])],
            tokens=9,
            duplicate_of=duplicate,
        )
    tree.nodes["node_1_0"].input_seq = "revise"
    return tree_to_json(tree)


def run_eval(tmp_path, *flags):
    return run_script(
        *("-m", "eval", "--db_root", tmp_path / "databases", "--output", tmp_path / "report.json"), *flags
    )


def verify(tmp_path, content, *flags):
    path = tmp_path / "all_trees.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return run_eval(tmp_path, "--tree_file", path, *flags)


def report_of(tmp_path) -> dict:
    return json.loads((tmp_path / "report.json").read_text())


@pytest.mark.parametrize("wrap", [lambda tree: [tree], lambda tree: tree], ids=["list", "single"])
def test_true_trees_pass(tmp_path, shop, wrap):
    run = verify(tmp_path, wrap(grown(shop)))
    assert run.returncode == 0, run.stdout + run.stderr
    summary = report_of(tmp_path)["summary"]
    assert summary["result"] == "passed" and summary["nodes_executed"] == 6 and summary["good"] == 1
    assert summary["revision_distances"] == {"0": 2, "1": 1, "null": 3} and summary["gold_executed"] == 1
    assert "**passed**" in (tmp_path / "report.md").read_text()


# --- the original project's format ------------------------------------------------------------------------------------


def original() -> dict:
    """A tree as another program wrote it: gold has another name, 999 for never, no outcome, no flags, no duplicates."""

    def node(parent: str, d: int, j: int, sql: str, children: list[str], correct: bool, distance: int) -> dict:
        return {
            **{"parent_id": parent, "d": d, "j": j, "children_num": len(children), "children_ids": children},
            **{"generated_sql": sql, "execution_feedback": "", "is_correct": correct, "input_seq": ""},
            "revision_distance": distance,
        }

    return {
        **{"question_id": 1, "db_id": "shop", "question": "How many tools?", "evidence": ""},
        "gold_sql": "SELECT COUNT(*) FROM product WHERE category = 'tool'",
        "node_initial": {"input_seq": "the task"},
        "nodes": {
            "node_1_0": node(INITIAL, 1, 0, "SELECT COUNT(*) FROM tool", ["node_2_0", "node_2_1"], False, 1),
            "node_1_1": node(INITIAL, 1, 1, "SELECT COUNT(*) FROM product", [], False, 999),
            "node_2_0": node("node_1_0", 2, 0, "SELECT COUNT(*) FROM tool", [], False, 999),
            "node_2_1": node("node_1_0", 2, 1, "SELECT 2", [], True, 0),
        },
        **{"max_depth": 2, "tree_status": "good"},
    }


def test_the_original_format(tmp_path, shop):
    true, wrong, bare = original(), original() | {"question_id": 2}, original() | {"question_id": 3}
    wrong["nodes"]["node_1_1"]["is_correct"] = True
    wrong["nodes"]["node_1_0"]["revision_distance"] = 999
    wrong["tree_status"] = "bad"
    for key in ("max_depth", "tree_status", "evidence", "node_initial"):
        del bare[key]
    for node in bare["nodes"].values():
        del node["children_ids"], node["children_num"], node["input_seq"], node["execution_feedback"]
    run = verify(tmp_path, [true, wrong, bare])
    assert run.returncode == 1, run.stdout + run.stderr
    found = {(entry["question_id"], entry["node"], entry["what"]) for entry in report_of(tmp_path)["findings"]}
    assert found == {
        (2, "node_1_1", "is_correct"),
        (2, "node_1_0", "revision_distance"),
        (2, "node_1_1", "revision_distance"),
        (2, "", "tree_status"),
    }


# --- damage -----------------------------------------------------------------------------------------------------------


def set_node(node: str, **fields):
    return lambda tree: tree["nodes"][node].update(fields)


def set_tree(**fields):
    return lambda tree: tree.update(fields)


def drop_node(tree: dict) -> None:
    del tree["nodes"]["node_2_0"]


def rename_node(tree: dict) -> None:
    tree["nodes"]["node_2_7"] = tree["nodes"].pop("node_2_0")


def cycle(tree: dict) -> None:
    tree["nodes"]["node_1_0"]["parent_id"] = "node_2_0"


DAMAGES = {
    "verdict": (set_node("node_1_0", is_correct=True), "is_correct"),
    "strict verdict": (set_node("node_2_0", strict_match=False), "strict_match"),
    "outcome": (set_node("node_1_1", outcome="ok"), "outcome"),
    "unknown outcome": (set_node("node_1_1", outcome="fine"), "outcome"),
    "flags": (set_node("node_2_1", flags=["constant"]), "flags"),
    "fragile": (set_node("node_2_0", flags=["constant"]), "flags"),
    "query": (set_node("node_2_0", generated_sql="SELECT 4"), "is_correct"),
    "distance": (set_node("node_1_0", revision_distance=2), "revision_distance"),
    "distance unreached": (set_node("node_1_0", revision_distance=None), "revision_distance"),
    "orphan": (set_node("node_1_0", parent_id="node_9_9"), "parent"),
    "child of an orphan": (set_node("node_1_0", parent_id="node_9_9"), "reach"),
    "parent is itself": (set_node("node_2_0", parent_id="node_2_0"), "cycle"),
    "cycle": (cycle, "cycle"),
    "child of a cycle": (cycle, "reach"),
    "depth": (set_node("node_2_0", d=3), "depth"),
    "children": (set_node("node_1_0", children_ids=[]), "children"),
    "children count": (set_node("node_1_0", children_num=4), "children_num"),
    "request without revisions": (set_node("node_1_1", input_seq="revise"), "input_seq"),
    "other duplicate": (set_node("node_1_2", duplicate_of="node_1_0"), "duplicate_of"),
    "duplicate of a later one": (set_node("node_1_1", duplicate_of="node_1_2"), "duplicate_of"),
    "duplicate of itself": (set_node("node_1_2", duplicate_of="node_1_2"), "duplicate_of"),
    "unmarked duplicate": (set_node("node_1_2", duplicate_of=None), "duplicate_of"),
    "revised duplicate": (set_node("node_1_2", children_ids=["node_2_0"]), "children of a duplicate"),
    "lost node": (drop_node, "children"),
    "renamed node": (rename_node, "id"),
    "no nodes": (set_tree(nodes={}), "nodes"),
    "no object": (lambda tree: tree["nodes"].update(node_1_0=7), "node"),
    "status": (set_tree(tree_status="bad"), "tree_status"),
    "tree depth": (set_tree(max_depth=7), "max_depth"),
    "no gold": (lambda tree: tree.pop("SQL"), "SQL"),
    "no database": (set_tree(db_id=""), "db_id"),
    "gold fails": (set_tree(SQL="SELECT nme FROM product"), "gold"),
    "gold is empty": (set_tree(SQL="SELECT id FROM product WHERE id > 9"), "gold"),
    "half a token": (set_node("node_1_0", tokens=1.5), "tokens"),
    "half a surrogate pair": (set_node("node_1_0", generated_sql="SELECT '\ud800'"), "flags"),
}


def test_damage_is_found(tmp_path, shop):
    """One file with every kind of damage: each is found in its own tree, and nothing in the ones that are whole."""
    trees = [grown(shop, number) for number in range(len(DAMAGES) + 2)]
    for tree, (damage, _) in zip(trees, DAMAGES.values(), strict=False):
        damage(tree)
    run = verify(tmp_path, [*trees, trees[-1]])
    assert run.returncode == 1 and "verification failed" in run.stdout, run.stdout + run.stderr
    report = report_of(tmp_path)
    kinds: dict[int, set[str]] = {}
    for finding in report["findings"]:
        kinds.setdefault(finding["question_id"], set()).add(finding["what"])
    missed = [name for number, (name, (_, what)) in enumerate(DAMAGES.items()) if what not in kinds.get(number, ())]
    assert not missed
    assert len(DAMAGES) not in kinds and kinds[len(DAMAGES) + 1] == {"question_id"}
    assert report["summary"]["errors"] == len(report["findings"]) == sum(report["summary"]["errors_by_kind"].values())
    page = (tmp_path / "report.md").read_text()
    assert "## Errors by kind" in page and "`children of a duplicate`" in page
