"""One shard from questions to pair files, with a fake generator and real SQL; and what is refused before it starts."""

import json
import re
from pathlib import Path

import pytest

from tests.conftest import assert_one_line_error, run_main, run_script
from tests.fake_worker import BY_LUCK, pretend
from tree import run_pipeline
from tree.pairs.extraction import PairSettings, extract_pairs
from tree.tree_node import tree_from_json


@pytest.fixture
def pipeline(dataset, tiny_model, monkeypatch):
    """Runs the pipeline with the fake generator; returns the run folder."""
    pretend(monkeypatch.setattr)

    def run(output: Path, *flags: str) -> Path:
        places = ["--data", dataset, "--db_root", dataset.parent / "databases", "--output_dir", output]
        run_pipeline.main([*map(str, places), "--model", str(tiny_model), *flags])
        return max(output.glob("tree_dataset/part*/*"), key=lambda folder: folder.stat().st_mtime_ns)

    return run


def read(path: Path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_a_shard_from_questions_to_pairs(pipeline, dataset, tmp_path):
    folder = pipeline(tmp_path / "out", "--num_roots", "3", "--sample_num", "3", "--max_depth", "2")
    trees = read(folder / "all_trees.json")
    assert [tree["question_id"] for tree in trees] == list(range(6))
    for tree in trees:
        correct = any(node["is_correct"] for node in tree["nodes"].values())
        assert tree["tree_status"] == ("good" if correct else "bad")
    for strategy in ("emerge", "baseline"):
        pairs = [
            pair.to_json()
            for tree in trees
            for pair in extract_pairs(tree_from_json(tree), PairSettings(strategy)).pairs
        ]
        assert read(tmp_path / "out" / f"final_data_{strategy}_shard_0.json") == pairs and pairs
    assert all(
        pair["prompt"][0]["content"] == trees[pair["question_id"]]["node_initial"]["input_seq"] for pair in pairs
    )
    manifest = read(folder / "manifest.json")
    assert manifest["counts"]["trees"] == 6 and manifest["inputs"]["data"]["sha256"] and manifest["model_fingerprint"]
    assert manifest["counts"]["nodes"] == sum(len(tree["nodes"]) for tree in trees)
    report = tmp_path / "report.json"
    check = run_main(
        *("eval.__main__", "--tree_file", folder / "all_trees.json"),
        *("--db_root", dataset.parent / "databases", "--output", report),
    )
    assert check.returncode == 0, check.stdout


def test_sharding_changes_no_tree(pipeline, tmp_path):
    whole = read(pipeline(tmp_path / "one") / "all_trees.json")
    parts = []
    for shard in ("0", "1"):
        parts += read(pipeline(tmp_path / "two", "--num_shards", "2", "--shard_id", shard) / "all_trees.json")
    assert sorted(parts, key=lambda tree: tree["question_id"]) == whole


def test_a_query_that_is_right_by_coincidence_makes_no_pair(pipeline, tmp_path):
    trees = read(pipeline(tmp_path / "out", "--num_roots", "12") / "all_trees.json")
    fragile = {
        (tree["question_id"], name): node["generated_sql"]
        for tree in trees
        for name, node in tree["nodes"].items()
        if node["is_correct"] and "fragile" in node["flags"]
    }
    assert set(fragile.values()) == BY_LUCK
    pairs = read(tmp_path / "out" / "final_data_emerge_shard_0.json")
    assert pairs and all((pair["question_id"], pair["chosen_node"]) not in fragile for pair in pairs)
    pipeline(tmp_path / "kept", "--num_roots", "12", "--keep_fragile")
    kept = read(tmp_path / "kept" / "final_data_emerge_shard_0.json")
    assert any(pair["chosen"][0]["content"] == "SELECT 3" for pair in kept)


def test_the_tree_records_what_its_prompt_lacks(pipeline, tmp_path):
    whole = read(pipeline(tmp_path / "whole") / "all_trees.json")
    assert all(tree["node_initial"]["shortened"] == [] for tree in whole)
    lengths = [len(tree["node_initial"]["input_seq"]) for tree in whole]
    # the tiny model's tokens are bytes
    short = read(pipeline(tmp_path / "short", "--max_prompt_tokens", str(min(lengths))) / "all_trees.json")
    assert all(tree["node_initial"]["shortened"][0] == "examples" for tree in short)
    assert max(len(tree["node_initial"]["input_seq"]) for tree in short) < min(lengths)


def test_questions_without_usable_gold_are_skipped_with_the_reason(pipeline, dataset, tmp_path, capsys):
    rows = read(dataset)
    rows[0]["SQL"] = "SELECT nme FROM product"
    rows[1]["SQL"] = "SELECT name FROM product WHERE id = 99"
    dataset.write_text(json.dumps(rows))
    folder = pipeline(tmp_path / "out")
    assert [tree["question_id"] for tree in read(folder / "all_trees.json")] == [2, 3, 4, 5]
    reasons = {
        entry["question_id"]: entry["reason"] for entry in read(folder / "manifest.json")["counts"]["skipped_questions"]
    }
    assert "no such column: nme" in reasons[0] and "returns nothing" in reasons[1]
    assert "skipped question 0 (shop): gold query: error" in capsys.readouterr().out
    kept = pipeline(tmp_path / "kept", "--keep_empty_gold")
    assert [tree["question_id"] for tree in read(kept / "all_trees.json")] == [1, 2, 3, 4, 5]


def test_a_prompt_that_is_too_long_is_skipped_with_the_reason(pipeline, dataset, tmp_path):
    rows = read(dataset)
    rows[0]["evidence"] = "word " * 4_000
    dataset.write_text(json.dumps(rows))
    folder = pipeline(tmp_path / "out")
    (skipped,) = read(folder / "manifest.json")["counts"]["skipped_questions"]
    assert skipped["question_id"] == 0 and re.match(r"prompt of \d+ tokens", skipped["reason"])


def test_a_dry_run_tells_what_would_be_done_and_writes_nothing(dataset, tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr(run_pipeline, "Generator", None)
    rows = read(dataset)
    rows[0]["SQL"] = "SELECT nme FROM product"
    rows[4]["evidence"] = "word " * 4_000
    dataset.write_text(json.dumps(rows))
    run = run_main(
        *("tree.run_pipeline", "--data", dataset, "--db_root", dataset.parent / "databases", "--dry_run"),
        *("--model", tiny_model, "--output_dir", tmp_path / "out", "--num_shards", "1", "--max_nodes", "10"),
    )
    assert run.returncode == 0, run.stderr
    assert not (tmp_path / "out").exists()
    assert "skipped question 0 (shop): gold query: error (no such column: nme)" in run.stdout
    assert re.search(r"skipped question 4 \(store\): prompt of \d+ tokens", run.stdout)
    assert "shard 0: 4 questions to work on, 2 skipped" in run.stdout
    assert "shard 0: 6 questions of 2 databases, 1.00 of the mean cost" in run.stdout
    assert "generations: from 32 (first attempts only) to 40" in run.stdout
    counted = [
        int(line.split("tokens")[1].split()[0]) for line in run.stdout.splitlines() if " to " in line and "#" in line
    ]
    assert sum(counted) == 4


def drop_id(dataset):
    rows = read(dataset)
    del rows[2]["question_id"]
    dataset.write_text(json.dumps(rows))


def repeat_id(dataset):
    rows = read(dataset)
    rows[2]["question_id"] = 0
    dataset.write_text(json.dumps(rows))


def empty_question(dataset):
    rows = read(dataset)
    rows[2]["question"] = " "
    dataset.write_text(json.dumps(rows))


@pytest.mark.parametrize(
    ("damage", "flags", "words"),
    [
        (drop_id, (), ["row 2", "add_question_id.py"]),
        (repeat_id, (), ["question_id 0", "is duplicated"]),
        (empty_question, (), ["row 2", "question"]),
        (None, ("--num_shards", "20", "--shard_id", "19"), ["no questions"]),
        (None, ("--shard_id", "1"), ["--shard_id 1"]),
        (None, ("--sample_num", "0"), ["--sample_num 0"]),
        (None, ("--num_roots", "9", "--max_nodes", "8"), ["--max_nodes 8", "--num_roots 9"]),
        (None, ("--redraws", "-1"), ["--redraws -1"]),
        (None, ("--max_model_len", "100"), ["--max_model_len 100"]),
        (None, ("--max_model_len", "99999"), ["--max_model_len 99999"]),
        (None, ("--temperature", "0"), ["--temperature 0"]),
        (None, ("--top_p", "0"), ["--top_p 0.0"]),
        (None, ("--gpu_memory", "1.5"), ["--gpu_memory 1.5"]),
        (None, ("--gpu_gib", "-8"), ["--gpu_gib -8.0", "must not be negative"]),
        (None, ("--gpu_gib", "24"), ["--gpu_gib 24: is for --dry_run only"]),
        (None, ("--no_gold",), ["--no_gold", "--max_depth 1"]),
    ],
)
def test_bad_input_ends_with_one_line_and_no_output(dataset, tiny_model, tmp_path, damage, flags, words):
    if damage:
        damage(dataset)
    run = run_main(
        *("tree.run_pipeline", "--data", dataset, "--db_root", dataset.parent / "databases"),
        *("--model", tiny_model, "--output_dir", tmp_path / "out", *flags),
    )
    assert_one_line_error(run, *words)
    assert not (tmp_path / "out").exists()


def test_run_parallel_names_the_failed_shard(dataset, tiny_model, tmp_path):
    run = run_script(
        "tree/run_parallel.sh",
        NUM_GPUS="0",
        NUM_WORKERS="2",
        DATA_PATH=str(dataset),
        DB_ROOT=str(tmp_path / "nowhere"),
        MODEL_PATH=str(tiny_model),
        OUTPUT_DIR=str(tmp_path / "out"),
    )
    assert run.returncode == 2
    assert "2 of 2 shards failed: 0 1; put right" in run.stderr
    assert "no such database" in run.stderr
    assert "no such database" in (tmp_path / "out" / "logs" / "shard_1.log").read_text()


def test_without_gold_candidates_are_drawn_and_nothing_is_judged(pipeline, dataset, tmp_path):
    rows = [{key: value for key, value in row.items() if key != "SQL"} for row in read(dataset)]
    dataset.write_text(json.dumps(rows))
    folder = pipeline(tmp_path / "out", "--no_gold", "--max_depth", "1", "--num_roots", "5")
    drawn = read(folder / "candidates.json")
    assert [row["question_id"] for row in drawn] == [row["question_id"] for row in rows]
    assert all(len(row["candidates"]) == 5 and row["prompt"].endswith(row["question"]) for row in drawn)
    assert not (folder / "all_trees.json").exists() and not list((tmp_path / "out").glob("final_data_*"))
    assert read(folder / "manifest.json")["counts"]["candidates"] == 30


def test_first_attempts_without_gold_are_those_with_gold(pipeline, tmp_path):
    flags = ("--max_depth", "1", "--num_roots", "5", "--redraws", "0")
    trees = read(pipeline(tmp_path / "with", *flags) / "all_trees.json")
    drawn = read(pipeline(tmp_path / "without", *flags, "--no_gold") / "candidates.json")
    assert [[node["generated_sql"] for node in tree["nodes"].values()] for tree in trees] == [
        row["candidates"] for row in drawn
    ]
