"""Pairs extracted again from the trees of a run: the same ones, with what the run was, and no bad tree unnamed."""

import json
from dataclasses import replace

import pytest

from tests.builders import tree_of
from tests.conftest import assert_one_line_error, run_main
from tree.pairs.extraction import REASONS
from tree.pairs.pair_files import pair_manifest_path
from tree.tree_node import INITIAL, tree_to_json


@pytest.fixture
def grown(tmp_path):
    """The folder of a run with two trees, each of which gives two emerge pairs and one baseline pair."""
    folder = tmp_path / "out" / "tree_dataset" / "part3" / "20260101_120000"
    folder.mkdir(parents=True)
    stored = []
    for number in (0, 1):
        tree = tree_of((INITIAL, "SELECT 1", False), ("node_1_0", "SELECT 2", True), ("node_1_0", "SELECT 3", False))
        tree.question = replace(tree.question, question_id=number, difficulty="")
        stored.append(tree_to_json(tree))
    (folder / "all_trees.json").write_text(json.dumps(stored))
    manifest = {
        "arguments": {"shard_id": 3, "num_shards": 4, "seed": 5, "output_dir": "out", "match": "ex"},
        "inputs": {"data": {"path": "train.json", "sha256": "d4"}},
        "model_fingerprint": "m1",
        "databases": {"shop": "b9"},
        "versions": {"python": "3.11"},
        "git_revision": None,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def extract(folder, *flags):
    return run_main("tree.dpo_extractor", "--tree_file", folder / "all_trees.json", *flags, cwd=folder)


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(("strategy", "count"), [("emerge", 4), ("baseline", 2)])
def test_pairs_are_extracted_again_without_a_model(grown, strategy, count):
    run = extract(grown, "--strategy", strategy, "--output_dir", "again", "--max_pairs", "5")
    assert run.returncode == 0, run.stderr
    name = f"final_data_{strategy}_shard_3.json"
    kinds = f"{count} reject a query that returns rows, 0 are between wrong queries"
    dropped = "0 fragile, 0 disagreeing, 0 repeated, 0 over the cap"
    assert run.stdout == f"again/{name}: {count} pairs of 2 trees ({kinds}); dropped: {dropped}\n"
    rows = read(grown / "again" / name)
    assert len(rows) == count and {row["difficulty"] for row in rows} == {""}
    manifest = read(grown / "again" / f"manifest_{strategy}_shard_3.json")
    assert (manifest["strategy"], manifest["shard_id"], manifest["trees"]) == (strategy, 3, 2)
    assert manifest["pairs"] == count and set(manifest["dropped"]) == set(REASONS)
    assert manifest["run"] == {
        **{"data_fingerprint": "d4", "model_fingerprint": "m1", "num_shards": 4, "seed": 5},
        "databases": {"shop": "b9"},
        **{"match": "strict", "keep_fragile": False, "max_pairs": 5, "max_per_relation": 8},
    }


def test_trees_without_a_manifest_are_a_whole_run(grown, tmp_path):
    (grown / "manifest.json").unlink()
    run = extract(grown, "--output", tmp_path / "pairs.json")
    assert run.returncode == 0, run.stderr
    assert "manifest.json, so the trees are taken as shard 0 of 1" in run.stdout
    manifest = read(pair_manifest_path(tmp_path / "pairs.json"))
    assert (manifest["shard_id"], manifest["run"]["num_shards"]) == (0, 1)


def test_a_single_tree_and_an_old_one(grown):
    tree = read(grown / "all_trees.json")[0]
    tree["gold_sql"] = tree.pop("SQL")
    del tree["revision"]
    for node in tree["nodes"].values():
        del node["outcome"], node["flags"], node["children_ids"]
    (grown / "all_trees.json").write_text(json.dumps(tree))
    run = extract(grown, "--match", "ex")
    assert run.returncode == 0, run.stderr
    assert "2 pairs of 1 trees" in run.stdout


def spoiled(**change) -> str:
    tree = tree_of((INITIAL, "SELECT 1", False), ("node_1_0", "SELECT 2", True))
    tree = tree_to_json(tree)
    node = change.pop("node", None)
    (tree["nodes"][node] if node else tree).update(change)
    return json.dumps([tree_to_json(tree_of((INITIAL, "SELECT 1", True))), tree])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('[{"prompt": []}]', ["tree 0", "not a revision tree", "tree/run_parallel.sh"]),
        (spoiled(question_id="7"), ["tree 1", "question_id is '7', expected int", "python -m eval"]),
        (spoiled(difficulty=3), ["tree 1", "difficulty is 3, expected str"]),
        (spoiled(node_initial={"input_seq": " ", "shortened": []}), ["tree 1", "prompt"]),
        (spoiled(node="node_2_0", d="2"), ["tree 1", "node_2_0", "d is '2', expected int"]),
        (spoiled(node="node_2_0", is_correct="yes"), ["tree 1", "node_2_0", "is_correct is 'yes', expected bool"]),
        (spoiled(node="node_1_0", parent_id=["node_initial"]), ["tree 1", "node_1_0", "parent_id is"]),
        (spoiled(node="node_2_0", generated_sql=None), ["tree 1", "node_2_0", "generated_sql is None"]),
        (spoiled(node="node_2_0", duplicate_of="node_9_9"), ["tree 1", "node_2_0", "duplicate_of is 'node_9_9'"]),
        (spoiled(node="node_1_0", children_ids=[["node_2_0"]]), ["tree 1", "node_1_0", "children_ids"]),
        (spoiled(node="node_1_0", parent_id="node_9_9"), ["tree 1", "node_1_0", "node_9_9"]),
        (spoiled(node="node_2_0", d=1), ["tree 1", "node_2_0", "depth is 1, expected 2"]),
        (spoiled(node="node_1_0", children_ids=["node_2_5"]), ["tree 1", "node_1_0", "children is"]),
    ],
)
def test_bad_trees_are_named_and_nothing_is_written(grown, content, words):
    path = grown / "all_trees.json"
    path.write_text(content)
    assert_one_line_error(extract(grown), str(path), *words)
    assert not list(grown.glob("output/*"))


@pytest.mark.parametrize(
    ("flags", "words"),
    [(("--max_pairs", "-1"), "--max_pairs -1"), (("--max_per_relation", "-2"), "--max_per_relation -2")],
)
def test_settings_out_of_range(grown, flags, words):
    assert_one_line_error(extract(grown, *flags), words)


def test_a_manifest_of_something_else(grown):
    (grown / "manifest.json").write_text('{"counts": {}}')
    assert_one_line_error(extract(grown), "manifest.json", "not the manifest of grown trees")
