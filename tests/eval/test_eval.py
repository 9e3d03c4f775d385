"""Verification: clean trees pass, every kind of damage is found, and what cannot be read is refused."""

import copy
import functools
import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.files import InputError
from eval import __main__ as verification
from eval.verify import check_tree, check_verdict
from tests.builders import SHOP_GOLD, report_of, shop_tree, verdict_here, verify
from tests.conftest import assert_one_line_error, make_database, run_main
from tree.pairs.extraction import PairSettings, extract_pairs
from tree.run.databases import database_fingerprints
from tree.sql.cache import gold_file, keep_gold
from tree.sql.guarded import Limits
from tree.sql.results import Execution
from tree.sql.verdict import JudgeSettings, judge
from tree.tree_files import check_form, is_tree, read_trees
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
}


def test_damage_is_found(tmp_path, shop):
    """One file with every kind of damage: each is found in its own tree, and nothing in the ones that are whole."""
    trees = [shop_tree(shop, number) for number in range(len(DAMAGES) + 2)]
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


# --- damage at random -------------------------------------------------------------------------------------------------

VALUES = (
    None,
    True,
    False,
    0,
    1,
    2,
    -3,
    999,
    0.5,
    "",
    "ok",
    "node_1_0",
    "node_1_2",
    INITIAL,
    [],
    ["node_2_0"],
    {},
    [{}],
)


def places(content, path=()) -> list[tuple]:
    """The path of everything inside a parsed JSON value."""
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    return [found for key, value in items for found in ((*path, key), *places(value, (*path, key)))]


def mutated(tree: dict, seed: int) -> dict:
    """The tree with one to three changes: a value changed, deleted, copied to another place, or parents exchanged."""
    draw, tree = random.Random(seed), copy.deepcopy(tree)
    for _ in range(draw.randint(1, 3)):
        paths = places(tree)
        *way, key = draw.choice(paths)
        holder = functools.reduce(lambda inner, step: inner[step], way, tree)
        kind = draw.choice(("change", "delete", "copy", "add", "parent"))
        if kind == "change":
            holder[key] = draw.choice(VALUES)
        elif kind == "delete":
            del holder[key]
        elif kind == "copy":
            *other, _ = draw.choice(paths)
            value = copy.deepcopy(functools.reduce(lambda inner, step: inner[step], draw.choice(paths), tree))
            holder[key] = value if other else draw.choice(VALUES)
        elif kind == "add" and isinstance(holder, dict):
            holder[draw.choice(("node_1_4", "node_2_2", "node_3_0", "more"))] = copy.deepcopy(holder[key])
        elif isinstance(nodes := tree.get("nodes"), dict) and nodes:
            node = nodes[draw.choice(sorted(nodes))]
            if isinstance(node, dict):
                node["parent_id"] = draw.choice(sorted(nodes))
    return tree


def facts(tree: dict) -> dict:
    """What verification vouches for in a tree of today's format, whatever way it is written."""

    def of_node(node: dict) -> dict:
        checked = ("parent_id", "d", "j", "children_num", "outcome", "is_correct")
        distance = node["revision_distance"]
        return {key: node[key] for key in checked} | {
            "children": sorted(node["children_ids"]),
            "flags": set(node["flags"]),
            "distance": None if distance == 999 else distance,
            "duplicate": node.get("duplicate_of"),
            "revised": bool(node["input_seq"]),
        }

    nodes = {node_id: of_node(node) for node_id, node in tree["nodes"].items()}
    return {"nodes": nodes, "depth": tree["max_depth"], "status": tree["tree_status"]}


def all_findings(content: dict, shop) -> list:
    """What the verifier finds in a tree, in this process."""
    checked = check_tree(content)
    found = list(checked.findings)
    for node in checked.tree.nodes.values() if checked.tree else ():
        verdict = verdict_here(shop, node.generated_sql, checked.tree.question.sql, shop.parent)
        found += check_verdict(node, content["nodes"][node.node_id], verdict, instances=True)
    return found


@pytest.fixture(scope="module")
def market(tmp_path_factory) -> tuple:
    """A database, and a tree on it."""
    path = make_database(tmp_path_factory.mktemp("market") / "databases" / "shop" / "shop.sqlite")
    return path, shop_tree(path)


@settings(max_examples=400)
@given(st.integers(0, 2**40))
def test_no_random_damage_passes_or_crashes(market, seed):
    path, whole = market
    tree = mutated(whole, seed)
    if not is_tree(tree):
        return
    found = all_findings(tree, path)
    if found or "revision" not in tree:
        return
    found, true = facts(tree), facts(whole)
    if "node_1_3" not in tree["nodes"]:  # nothing in a tree says how many first attempts there were
        del true["nodes"]["node_1_3"]
    assert found == true


def test_trees_that_are_broken_make_no_pairs(market, tmp_path):
    path, refused = tmp_path / "all_trees.json", 0
    for seed in range(200):
        tree = mutated(market[1], seed)
        path.write_text(json.dumps(tree))
        if not is_tree(tree) or check_form(tree)[1]:
            refused += 1
            with pytest.raises(InputError, match="all_trees.json"):
                list(read_trees(str(path)))
    assert 100 < refused < 200


def test_a_file_of_random_damage(tmp_path, shop):
    trees = [tree for seed in range(300) if is_tree(tree := mutated(shop_tree(shop), seed))]
    for tree in trees:
        tree["db_id"] = "shop"
    run = verify(tmp_path, trees, "--html", tmp_path / "trees.html")
    assert run.returncode == 1 and "Traceback" not in run.stderr, run.stderr
    summary = report_of(tmp_path)["summary"]
    assert summary["trees"] == len(trees) > 250 and 0 < summary["unreadable"] < len(trees)
    assert f"({len(trees) - summary['unreadable']} trees, 0 pairs)" in run.stdout


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
