"""Verification of trees: true ones pass, whatever wrote them; what limits and databases do to it; flags."""

import json

import pytest

from eval import __main__ as verification
from tests.builders import SHOP_GOLD, report_of, shop_tree, verify
from tests.conftest import assert_one_line_error, make_database, run_main
from tree.pairs.extraction import PairSettings, extract_pairs
from tree.run.databases import database_fingerprints
from tree.sql.cache import gold_file, keep_gold
from tree.sql.guarded import Limits
from tree.sql.results import Execution
from tree.sql.verdict import JudgeSettings, judge
from tree.tree_node import INITIAL, tree_from_json


@pytest.mark.parametrize("wrap", [lambda tree: [tree], lambda tree: tree], ids=["list", "single"])
def test_true_trees_pass(tmp_path, shop, wrap):
    run = verify(tmp_path, wrap(shop_tree(shop)))
    assert run.returncode == 0, run.stdout + run.stderr
    summary = report_of(tmp_path)["summary"]
    assert summary["result"] == "passed" and summary["nodes_executed"] == 6 and summary["good"] == 1
    assert summary["revision_distances"] == {"0": 2, "1": 1, "null": 3} and summary["gold_executed"] == 1
    assert "**passed**" in (tmp_path / "report.md").read_text()


# --- databases and gold -----------------------------------------------------------------------------------------------


def test_gold_is_run_whatever_is_kept_of_it(tmp_path, shop, monkeypatch):
    folder = tmp_path / "cache" / "gold"
    false = Execution("ok", columns=("COUNT(*)",), rows=((42,),), row_count=1), [(42,)]
    keep_gold(gold_file(folder, str(shop), SHOP_GOLD), *false)
    assert judge(str(shop), "SELECT 42", SHOP_GOLD, JudgeSettings(Limits(5.0, 10**9), folder)).ex
    monkeypatch.setenv("RESQLVER_CACHE", str(tmp_path / "cache"))
    run = verify(tmp_path, shop_tree(shop))
    assert run.returncode == 0, run.stdout + run.stderr
    assert report_of(tmp_path)["manifest"]["databases"] == database_fingerprints(shop.parent.parent, ["shop"])


def test_gold_that_hangs_on_the_moment_is_no_error(tmp_path, shop):
    make_database(shop, "CREATE VIEW past AS SELECT id FROM product WHERE date('now') < '2000-01-01'")
    run = verify(tmp_path, shop_tree(shop) | {"SQL": "SELECT COUNT(*) FROM past HAVING COUNT(*)"})
    assert run.returncode == 0, run.stdout
    differing = report_of(tmp_path)["limit_differences"]
    assert {"gold", "is_correct"} <= {finding["what"] for finding in differing}


def test_a_database_that_changes_meanwhile_is_named(tmp_path, shop, monkeypatch):
    async def change(*_) -> None:
        make_database(shop, "UPDATE product SET name = 'axe' WHERE id = 1")

    monkeypatch.setattr(verification, "execute_again", change)
    assert_one_line_error(
        verify(tmp_path, shop_tree(shop)), "shop.sqlite: ", "changed while they were in use; verify again"
    )
    assert not (tmp_path / "report.json").exists()


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


# --- gold, limits, flags ----------------------------------------------------------------------------------------------

ENDLESS = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT COUNT(*) FROM c"


def test_what_depends_on_limits_or_chance_is_listed_apart(tmp_path, shop):
    slow, slow_gold, chance = shop_tree(shop, 1), shop_tree(shop, 2), shop_tree(shop, 3)
    slow["nodes"]["node_1_1"]["generated_sql"] = slow["nodes"]["node_1_2"]["generated_sql"] = ENDLESS
    slow_gold["SQL"] = ENDLESS
    chance["nodes"]["node_1_0"]["generated_sql"] = "SELECT random() % 2"
    run = verify(tmp_path, [slow, slow_gold, chance], "--sql_timeout", "1", "--sql_workers", "2")
    assert run.returncode == 0, run.stdout
    report = report_of(tmp_path)
    apart = {(entry["question_id"], entry["node"], entry["what"]) for entry in report["limit_differences"]}
    assert {
        (1, "node_1_1", "outcome"),
        (2, "", "gold"),
        (2, "node_2_0", "is_correct"),
        (3, "node_1_0", "flags"),
    } <= apart
    assert not report["findings"] and report["summary"]["limit_differences"] == len(report["limit_differences"])
    assert "## Differences at limits" in (tmp_path / "report.md").read_text()


def test_empty_gold_is_right_where_it_was_asked_for(tmp_path, shop):
    tree = shop_tree(shop)
    tree["SQL"] = "SELECT id FROM product WHERE id > 9"
    tree["tree_status"] = "bad"
    for node_id in ("node_2_0", "node_2_1"):
        tree["nodes"][node_id] |= {"is_correct": False, "strict_match": False, "revision_distance": None, "flags": []}
    tree["nodes"]["node_2_0"]["flags"] = ["constant"]
    tree["nodes"]["node_1_0"]["revision_distance"] = None
    assert verify(tmp_path, [tree]).returncode == 1
    assert {finding["what"] for finding in report_of(tmp_path)["findings"]} == {"gold"}
    (tmp_path / "manifest.json").write_text('{"arguments": {"keep_empty_gold": true}}')
    assert verify(tmp_path, [tree]).returncode == 0


# --- what cannot be verified ------------------------------------------------------------------------------------------


def test_a_missing_database_is_refused(tmp_path, shop):
    tree = shop_tree(shop)
    tree["db_id"] = "nowhere"
    assert_one_line_error(verify(tmp_path, [shop_tree(shop, 1), tree]), "tree 1", "nowhere")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--tree_file", "all_trees.json", "all_trees.json"], "given twice"),
        (["--tree_file", "all_trees.json", "--output", "all_trees.json"], "take the place"),
        (["--tree_file", "all_trees.json", "--output", "page.md"], ".json"),
        (["--tree_file", "all_trees.json", "--scores", "scores.json"], "--html"),
        (["--tree_file", "all_trees.json", "--html", "verification_report.json"], "name of the report"),
        (["--tree_file", "all_trees.json", "--html", "trees.html", "--scores", "scores.json"], "scores.json"),
        (["--tree_file", "all_trees.json", "--sql_timeout", "0"], "--sql_timeout"),
    ],
)
def test_flags_that_do_not_fit_are_refused(tmp_path, flags, words):
    (tmp_path / "all_trees.json").write_text(json.dumps([original()]))
    (tmp_path / "scores.json").write_text("{}")
    assert_one_line_error(run_main("eval.__main__", *flags, cwd=tmp_path), words)
    assert not (tmp_path / "verification_report.json").exists()


# --- the viewer -------------------------------------------------------------------------------------------------------


def test_the_viewer_is_written_with_pairs_and_rewards(tmp_path, shop):
    tree = shop_tree(shop)
    pairs = [pair.to_json() for pair in extract_pairs(tree_from_json(tree), PairSettings(match="ex")).pairs]
    (tmp_path / "pairs.json").write_text(json.dumps(pairs))
    query = {"SQL": tree["nodes"]["node_1_0"]["generated_sql"], "rewards": {"model": 0.5}}
    scores = {"candidates": [{"question_id": 5, "db_id": "shop", "candidates": [query]}]}
    (tmp_path / "scores.json").write_text(json.dumps(scores))
    beside = ("--pairs", tmp_path / "pairs.json", "--scores", tmp_path / "scores.json")
    run = verify(tmp_path, [tree], "--html", tmp_path / "trees.html", *beside)
    assert run.returncode == 0, run.stdout + run.stderr
    assert pairs and f"(1 trees, {len(pairs)} pairs, 1 rewards)" in run.stdout
    assert (tmp_path / "trees.html").read_text().startswith("<!doctype html>")
