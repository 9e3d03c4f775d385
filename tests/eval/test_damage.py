"""Every kind of damage to a tree is found, also at random; nothing of it crashes or makes a pair."""

import copy
import functools
import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.files import InputError
from eval.verify import check_tree, check_verdict
from tests.builders import report_of, shop_tree, verdict_here, verify
from tests.shop import make_database
from tree.tree_files import check_form, is_tree, read_trees
from tree.tree_node import INITIAL


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
