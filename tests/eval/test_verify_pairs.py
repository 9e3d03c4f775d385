"""Pairs against their trees: those that were extracted hold, every other one is found, and so is every damage."""

import itertools
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.files import write_json
from common.preference import PreferencePair, user_prompt
from eval.verify import check_tree
from eval.verify_pairs import Rules, check_pairs, check_sides, stored_pairs
from tests.builders import report_of, shop_tree, trees_in_doubt, verify
from tests.conftest import assert_one_line_error
from tree.pairs.extraction import (
    RELATIONS,
    STRATEGIES,
    PairSettings,
    certain_pairs,
    extract_pairs,
    fragile_nodes,
    pair_of,
    tree_distances,
)
from tree.tree_node import RevisionTree, tree_from_json, tree_to_json

PAIR = PreferencePair(user_prompt("the task"), "SELECT 1", "SELECT 2", 1, "shop", chosen_dist=0).to_json()
EVERY = {"match": "ex", "keep_fragile": True}


def rows_of(tree: RevisionTree, strategy: str = "emerge", **settings) -> list[dict]:
    return [pair.to_json() for pair in extract_pairs(tree, PairSettings(strategy, **settings)).pairs]


def kinds(folder, tree: RevisionTree, rows: list[dict], rules: Rules | None = None) -> list[list[str]]:
    """What is found in each row, from a file of them."""
    write_json(folder / "pairs.json", rows)
    pairs = stored_pairs([str(folder / "pairs.json")])
    if rules:
        pairs.rules = dict.fromkeys(pairs.rules, rules)
    found: dict[int, list[str]] = {number: [] for number in range(len(rows))}
    for waiting in pairs.waiting.values():
        for row, finding in check_pairs(waiting, check_tree(tree_to_json(tree)), pairs.rules):
            found[row.number].append(finding.what)
    return list(found.values())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("pairs")


@given(trees_in_doubt(), st.sampled_from(STRATEGIES), st.sampled_from(["strict", "ex"]), st.booleans())
def test_extracted_pairs_hold(folder, tree, strategy, match, keep_fragile):
    rows = rows_of(tree, strategy, match=match, keep_fragile=keep_fragile)
    if rows:
        for rules in (Rules(match, keep_fragile), Rules()):
            assert not any(kinds(folder, tree, rows, rules))


@given(trees_in_doubt(), st.sampled_from(["strict", "ex"]), st.booleans(), st.sampled_from(["chat", "again"]))
def test_only_certain_pairs_hold(folder, tree, match, keep_fragile, revision):
    """Every two nodes with every relation: what the extraction would not make is found."""
    tree.revision = revision
    distrusted = frozenset() if keep_fragile else fragile_nodes(tree)
    certain = {
        (*pair.nodes, pair.relation)
        for strategy in STRATEGIES
        for pair in certain_pairs(tree, strategy, match, distrusted)
    }
    distances = tree_distances(tree, distrusted)
    queries = [node for node in tree.nodes.values() if node.generated_sql]  # a pair file cannot hold others
    triples = [(*two, relation) for two in itertools.permutations(queries, 2) for relation in RELATIONS][:400]
    pairs = [pair_of(tree, chosen, rejected, distances, relation) for chosen, rejected, relation in triples]
    pairs = [pair for pair in pairs if pair.chosen_dist is not None]  # the others are refused when they are read
    if pairs:
        found = kinds(folder, tree, [pair.to_json() for pair in pairs], Rules(match, keep_fragile))
        for pair, what in zip(pairs, found, strict=True):
            assert (set(what) <= {"repeated"}) == ((*pair.nodes, pair.relation) in certain), (pair, what)


# --- damage -----------------------------------------------------------------------------------------------------------


def set_row(**fields):
    return lambda row: row.update(fields)


def swap(row: dict) -> None:
    for one, other in (("chosen", "rejected"), ("chosen_node", "rejected_node"), ("chosen_dist", "rejected_dist")):
        row[one], row[other] = row[other], row[one]


DAMAGES = {
    "chosen": set_row(chosen=[{"role": "assistant", "content": "SELECT 7"}]),
    "rejected": set_row(rejected=[{"role": "assistant", "content": "SELECT 7"}]),
    "prompt": set_row(prompt=[{"role": "user", "content": "another task"}]),
    "chosen_node": set_row(chosen_node="node_9_9"),
    "rejected_node": set_row(rejected_node="node_9_9"),
    "chosen_dist": set_row(chosen_dist=7),
    "rejected_dist": set_row(rejected_dist=None),
    "certainty": swap,
    "relation": set_row(relation="sibling"),
    "tree_id": set_row(tree_id="shop/6"),
    "db_id": set_row(db_id="store"),
    "difficulty": set_row(difficulty="simple"),
    "rejected_outcome": set_row(rejected_outcome="error"),
    "chosen_result": set_row(chosen_result="The query returned 7 rows"),
    "rejected_result": set_row(rejected_result="The query returned 7 rows"),
}


def test_damage_of_pairs_is_found(folder, shop):
    tree = tree_from_json(shop_tree(shop))
    whole = next(row for row in rows_of(tree, **EVERY) if row["relation"] == "parent")
    rows = [json.loads(json.dumps(whole)) for _ in DAMAGES]
    for row, damage in zip(rows, DAMAGES.values(), strict=True):
        damage(row)
    found = kinds(folder, tree, [whole, *rows, whole])
    assert not found[0] and found[-1] == ["repeated"]
    assert not [name for name, what in zip(DAMAGES, found[1:], strict=False) if name not in what]


def test_pairs_beside_their_trees(tmp_path, shop):
    """Whole files pass; then one has lost its tree, one tree is broken, and a database is on both sides."""
    trees = [shop_tree(shop, 1), shop_tree(shop, 2)]
    files = [tmp_path / "final_data_train.json", tmp_path / "final_data_test.json"]
    rows = [rows_of(tree_from_json(tree), **EVERY) for tree in trees]
    write_json(files[0], rows[0] + rows[1])
    run = verify(tmp_path, trees, "--pairs", files[0])
    assert run.returncode == 0 and f"{len(rows[0] + rows[1])} pairs" in run.stdout, run.stdout
    write_json(files[1], rows_of(tree_from_json(shop_tree(shop, 3)), **EVERY))
    trees[1]["nodes"]["node_2_0"]["parent_id"] = "node_9_9"
    run = verify(tmp_path, trees, "--pairs", *files)
    assert run.returncode == 1
    found = {(entry["question_id"], entry["what"], entry["db_id"]) for entry in report_of(tmp_path)["findings"]}
    assert {(None, "database on both sides", "shop"), (2, "tree", "shop"), (3, "tree", "shop")} <= found
    assert not any(question == 1 for question, *_ in found)


def test_the_manifest_says_how_pairs_were_made(tmp_path, shop):
    tree = shop_tree(shop, 1)
    tree["nodes"]["node_2_1"] |= {"generated_sql": "SELECT 3 UNION ALL SELECT 3", "strict_match": False}
    tree["nodes"]["node_2_1"]["flags"] = ["constant", "fragile"]
    rows = rows_of(tree_from_json(tree), **EVERY)
    write_json(tmp_path / "final_data_train.json", rows)
    assert verify(tmp_path, [tree], "--pairs", tmp_path / "final_data_train.json").returncode == 0
    manifest = tmp_path / "final_data_train.manifest.json"
    for run in (
        {"match": "strict", "keep_fragile": True},
        EVERY | {"keep_fragile": False},
    ):
        write_json(manifest, {"run": run})
        assert verify(tmp_path, [tree], "--pairs", tmp_path / "final_data_train.json").returncode == 1
        assert "certainty" in {finding["what"] for finding in report_of(tmp_path)["findings"]}


def test_prompts_on_both_sides_are_found(tmp_path, pair_rows):
    one, other = ([row for row in pair_rows if row["db_id"] == db_id] for db_id in ("shop", "store"))
    other[0] = other[0] | {"prompt": one[0]["prompt"]}
    files = [str(tmp_path / name) for name in ("train.json", "test.json")]
    for path, rows in zip(files, (one, other), strict=True):
        write_json(path, rows)
    assert [finding.what for _, finding in check_sides(stored_pairs(files))] == ["prompt on both sides"]


def test_nan_is_null_and_lines_are_a_list(tmp_path, pair_rows):
    rows = [row | {"question_id": float(row["question_id"]), "rejected_dist": float("nan")} for row in pair_rows]
    rows = [row | {"rejected_outcome": None, "difficulty": float("nan")} for row in rows]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    write_json(tmp_path / "pairs.json", pair_rows)
    lines, listed = (stored_pairs([str(tmp_path / f"pairs.{end}")]).waiting for end in ("jsonl", "json"))
    for key, pairs in listed.items():
        assert [replace(pair, file="") for pair in lines[key]] == [replace(pair, file="") for pair in pairs]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([PAIR | {"rejected": []}], "row 0: rejected must be"),
        ([PAIR, PAIR | {"chosen_dist": None}], "row 1: 'chosen_dist' is null"),
        ([PAIR | {"rejected_dist": -1}], "row 0: 'rejected_dist' is -1"),
    ],
)
def test_what_is_no_pair_file_is_refused(tmp_path, shop, rows, words):
    (tmp_path / "pairs.json").write_text(json.dumps(rows))
    assert_one_line_error(verify(tmp_path, [shop_tree(shop)], "--pairs", tmp_path / "pairs.json"), "pairs.json", words)
