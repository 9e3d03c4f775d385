"""The README's steps with the real 0.5B model on a handful of questions, as a user runs them."""

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.conftest import ROOT, run_script

MODEL = "Qwen2.5-Coder-0.5B-Instruct"
CACHE = Path(os.environ.get("RESQLVER_CACHE", Path.home() / ".cache" / "resqlver"))

pytestmark = pytest.mark.e2e


def step(*command, cwd, **environment) -> str:
    run = run_script(*command, cwd=cwd, **environment)
    assert run.returncode == 0, f"{command}\n{run.stdout[-3000:]}\n{run.stderr[-3000:]}"
    return run.stdout


def read(path: Path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_all_steps_with_the_real_model(tmp_path):
    model = CACHE / MODEL
    assert model.is_dir(), f"{model} is missing; run `bash download_model.sh --small`"
    # a copy of the project, because scripts write beside themselves
    tracked = ("common", "tree", "reward", "eval", "data", "train.py", "evaluate.py", "add_question_id.py")
    for name in tracked:
        source = ROOT / name
        ignored = shutil.ignore_patterns("__pycache__", "demo", "train", "dev")
        shutil.copytree(source, tmp_path / name, ignore=ignored) if source.is_dir() else shutil.copy(source, tmp_path)

    # --- steps 2 and 4.1 ---
    step("data/build_demo.py", cwd=tmp_path)
    step("add_question_id.py", "--file", "data/demo/train.json", cwd=tmp_path)
    paths = {"DATA_PATH": "data/demo/train.json", "DB_ROOT": "data/demo/train_databases", "MODEL_PATH": str(model)}
    settings = {"MAX_DEPTH": "2", "NUM_ROOTS": "4", "SAMPLE_NUM": "4", "NUM_GPUS": "0", "TEMPERATURE": "1.0"}
    step("tree/run_parallel.sh", "--limit", "9", "--max_tokens", "200", cwd=tmp_path, **paths, **settings)
    (tree_file,) = (tmp_path / "output" / "tree_dataset" / "part0").glob("*/all_trees.json")
    trees = read(tree_file)
    assert len(trees) == 9 and len({tree["db_id"] for tree in trees}) == 9
    assert any(tree["tree_status"] == "good" for tree in trees)
    revised = [node for tree in trees for node in tree["nodes"].values() if node["children_num"]]
    assert revised and all(node["children_num"] == 4 for node in revised)

    # --- step 4.2 ---
    step("-m", "tree.merge_shards", "--test_fraction", "0.3", cwd=tmp_path)
    train, test = read(tmp_path / "final_data_train.json"), read(tmp_path / "final_data_test.json")
    assert train and test

    # --- steps 5 to 7 ---
    bounded = ("--max_steps", "1", "--batch_size", "1", "--gradient_accumulation", "1", "--validation_fraction", "0")
    bounded += ("--result_length", "300")
    step("train.py", "--model_id", model, *bounded, cwd=tmp_path)
    # only a few pairs, because scoring a pair takes seconds on a CPU
    (tmp_path / "few.json").write_text(json.dumps(test[:2]))
    adapter = "qwen-reward-model-sql-train"
    evaluation = ("--adapters", adapter, "--test_data", "few.json", "--batch_size", "2")
    step("evaluate.py", "--base_model", model, *evaluation, cwd=tmp_path)
    verification = ("--tree_file", tree_file, "--db_root", "data/demo/train_databases")
    step("-m", "eval", *verification, "--output", "verification_report.json", cwd=tmp_path)
    printed = step("-m", "eval.summary", "--tree_file", tree_file, cwd=tmp_path)

    # --- a question of one's own ---
    database = "data/demo/train_databases/film_festival/film_festival.sqlite"
    asked = ("--database", database, "--question", "How many films are from Brazil?")
    few = ("--model", model, "--base_model", model, "--num_roots", "4", "--budget", "6")
    assert "different ones, the best first:\n\n1. reward " in step("-m", "tree.ask", *asked, *few, cwd=tmp_path)

    # --- the summary is what the files say ---
    nodes = sum(len(tree["nodes"]) for tree in trees)
    good = sum(tree["tree_status"] == "good" for tree in trees)
    report = read(tmp_path / "evaluation_report.json")["pairs"]["adapters"][adapter]
    assert f"{good} good, {9 - good} bad" in printed and f"nodes                {nodes}," in printed
    assert f"{len(train)} train, {len(test)} test" in printed
    assert f"{report['accuracy']['value']:.4f} on held-out databases" in printed
    assert read(tmp_path / "verification_report.json")["summary"]["errors"] == 0
