"""quickstart.sh, the README's steps, with the real 0.5B model on a handful of questions, as a user runs it."""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, run_script

MODEL = "Qwen2.5-Coder-0.5B-Instruct"
CACHE = Path(os.environ.get("RESQLVER_CACHE", Path.home() / ".cache" / "resqlver"))
COPIED = (
    *("common", "tree", "reward", "eval", "data", "train.py", "evaluate.py", "add_question_id.py"),
    *("quickstart.sh", "download_model.sh"),
)
SETTINGS = {
    **{"LIMIT": "18", "MAX_DEPTH": "2", "NUM_ROOTS": "4", "SAMPLE_NUM": "2", "MAX_STEPS": "1"},
    **{"TEMPERATURE": "1.0", "CUDA_VISIBLE_DEVICES": ""},
}

pytestmark = pytest.mark.e2e


def step(*command, cwd, **environment) -> str:
    run = run_script(*command, cwd=cwd, **environment)
    assert run.returncode == 0, f"{command}\n{run.stdout[-3000:]}\n{run.stderr[-3000:]}"
    return run.stdout


def read(path: Path):
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture
def project(tmp_path):
    """A copy of the project, because scripts write beside themselves; environment and model are there already."""
    model = CACHE / MODEL
    assert model.is_dir(), f"{model} is missing; run `bash download_model.sh --small`"
    ignored = shutil.ignore_patterns("__pycache__", "demo", "train", "dev")
    for name in COPIED:
        source = ROOT / name
        shutil.copytree(source, tmp_path / name, ignore=ignored) if source.is_dir() else shutil.copy(source, tmp_path)
    (tmp_path / "setup_env.sh").touch()
    (tmp_path / ".venv").symlink_to(sys.prefix)
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / MODEL).symlink_to(model)
    return tmp_path


def test_the_quickstart_with_the_real_model(project):
    printed = step("quickstart.sh", cwd=project, RESQLVER_CACHE=str(project / "cache"), **SETTINGS)
    folder = project / "output" / "quickstart"

    # --- steps 4.1 and 4.2 ---
    (tree_file,) = folder.glob("tree_dataset/part0/*/all_trees.json")
    trees = read(tree_file)
    assert len(trees) == 18 and len({tree["db_id"] for tree in trees}) == 9
    revised = [node for tree in trees for node in tree["nodes"].values() if node["children_num"]]
    assert revised and all(node["children_num"] == 2 for node in revised)
    train, test = (read(folder / f"final_data_{name}.json") for name in ("train", "test"))
    databases = [{pair["db_id"] for pair in pairs} for pairs in (train, test)]
    assert all(databases) and not databases[0] & databases[1]

    # --- steps 5 to 7, and the summary is what the files say ---
    evaluation = read(folder / "evaluation_report.json")
    report = evaluation["pairs"]["adapters"]["output/quickstart/qwen-reward-model-sql-train"]
    good = sum(tree["tree_status"] == "good" for tree in trees)
    assert report["pairs"] == len(test) and evaluation["choice"]["questions"] == 10
    assert read(folder / "verification_report.json")["summary"]["errors"] == 0
    summary = printed.split(". summary\n")[1]
    assert f"{good} of 18 questions" in summary and "EX of one of 4" in summary
    assert f"{report['accuracy']['value']:.3f} [" in summary and f"of {len(test)} pairs" in summary
    assert (folder / "trees.html").is_file() and (folder / "evaluation_report.md").is_file()

    # --- a question of one's own ---
    database = "data/demo/train_databases/film_festival/film_festival.sqlite"
    asked = ("--database", database, "--question", "How many films are from Brazil?")
    few = ("--model", MODEL, "--base_model", MODEL, "--adapter", folder / "qwen-reward-model-sql-train")
    few += ("--num_roots", "4", "--budget", "6")
    assert "different ones, the best first:\n\n1. reward " in step("-m", "tree.ask", *asked, *few, cwd=project)
