"""What quickstart.sh does around the scripts it runs, which are stand-ins here that write down how they were called."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from tests.conftest import ROOT

PYTHON = f"""#!/usr/bin/env bash
echo "$*" >>calls
case "$1" in
-) exec {sys.executable} "$@" ;;
train.py) [ ! -e stop ] ;;
-m) [ "$2" != eval ] || echo "a wrong query and its right revision: trees.html#tree=db/1/node_2_0" ;;
esac
"""
CHROMIUM = """#!/usr/bin/env bash
echo "chromium $*" >>calls
for word in "$@"; do case $word in --screenshot=*) touch "${word#*=}" ;; esac; done
"""
GROW = """mkdir -p "$OUTPUT_DIR/tree_dataset/part0/1"
touch "$OUTPUT_DIR/tree_dataset/part0/1/all_trees.json"
echo "grow $DATA_PATH depth $MAX_DEPTH $*" >>calls
"""


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "demo"
    subprocess.run([sys.executable, ROOT / "data" / "build_demo.py", "--output_dir", folder], check=True)
    return folder


@pytest.fixture
def project(tmp_path, demo):
    """A folder in which quickstart.sh finds the demo's data and stand-ins for all else."""
    scripts = {".venv/bin/python": PYTHON, ".venv/bin/chromium": CHROMIUM, "tree/run_parallel.sh": GROW}
    for name, text in {**scripts, "setup_env.sh": "", "download_model.sh": ""}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "data").mkdir()
    shutil.copytree(demo, tmp_path / "data" / "demo")
    shutil.copy(ROOT / "quickstart.sh", tmp_path)
    return tmp_path


def quickstart(project, **settings: str) -> subprocess.CompletedProcess:
    (project / "calls").write_text("")
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", **settings}
    return subprocess.run(["bash", "quickstart.sh"], cwd=project, env=environment, capture_output=True, text=True)


def questions(project, name: str) -> list[dict]:
    return json.loads((project / "output" / "quickstart" / f"{name}.json").read_text())


def test_questions_to_choose_for_are_many_and_of_databases_that_are_not_trained_on(project):
    before = {path.name for path in project.iterdir()}
    run = quickstart(project)
    assert run.returncode == 0, run.stderr
    train, test = questions(project, "train"), questions(project, "test")
    assert len(test) >= 50 and len(train) + len(test) == 144
    assert not {row["db_id"] for row in train} & {row["db_id"] for row in test}
    assert {path.name for path in project.iterdir()} == before | {
        "output",
        "calls",
    }  # nothing lies where real results do

    calls = (project / "calls").read_text().splitlines()
    folder = "output/quickstart"
    grown = [call for call in calls if call.startswith("grow")]
    assert grown == [
        f"grow {folder}/train.json depth 2 --limit 45",
        f"grow {folder}/test.json depth 1 --limit 0 --redraws 0",
    ]
    (train_call,) = [call for call in calls if call.startswith("train.py")]
    (evaluate_call,) = [call for call in calls if call.startswith("evaluate.py")]
    assert f"{folder}/train/final_data_emerge_shard_0.json" in train_call and f"{folder}/test" not in train_call
    assert f"{folder}/test/final_data_emerge_shard_0.json" in evaluate_call and f"{folder}/train/" not in evaluate_call
    (picture,) = [call for call in calls if call.startswith("chromium")]
    assert picture.endswith(f"{folder}/trees.html#tree=db/1/node_2_0")
    assert run.stdout.splitlines()[-1].startswith("    python add_question_id.py && MODEL_PATH=")


def test_a_quickstart_that_was_stopped_goes_on_or_begins_anew(project):
    (project / "stop").touch()
    run = quickstart(project)
    assert run.returncode == 1 and "(step 5, train) failed" in run.stderr and "evaluate.py" not in calls_of(project)
    mark = project / "output" / "quickstart" / "train" / "mark"
    mark.touch()

    (project / "stop").unlink()
    run = quickstart(project)
    assert run.returncode == 0 and mark.exists() and "begins anew" not in run.stdout

    run = quickstart(project, LIMIT="18", MAX_STEPS="4")
    assert run.returncode == 0 and "begins anew" in run.stdout and not mark.exists()
    (aside,) = (project / "output").glob("quickstart-*")
    assert (aside / "train" / "mark").exists()  # kept
    calls = calls_of(project)
    assert "train.json depth 2 --limit 18" in calls and "--max_steps 4 " in calls and "fresh" not in calls


def calls_of(project) -> str:
    return (project / "calls").read_text()
