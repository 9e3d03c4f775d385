"""What quickstart.sh does around the scripts it runs, which are stand-ins here that write down how they were called."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest

from tests.conftest import ROOT

PYTHON = f"""#!/usr/bin/env bash
echo "$*" >>"$CALLS"
case "$1" in
-) exec {sys.executable} "$@" ;;
train.py) [ ! -e wait ] || sleep 60; [ ! -e stop ] ;;
-m)
    [ "$2" != eval ] || echo "a wrong query and its right revision: trees.html#tree=db/1/node_2_0"
    ;;
esac
"""
CHROMIUM = """#!/usr/bin/env bash
echo "chromium $*" >>"$CALLS"
for word in "$@"; do case $word in --screenshot=*) touch "${word#*=}" ;; esac; done
"""
GROW = """mkdir -p "$OUTPUT_DIR/tree_dataset/part0/1"
echo '[{"db_id": "orchard"}, {"db_id": "city_library"}]' >"$OUTPUT_DIR/tree_dataset/part0/1/all_trees.json"
pairs=$(grep -o '"db_id": "[a-z_]*"' "$DATA_PATH")
[ "$2" != 18 ] || pairs='"db_id": "orchard"'  # few questions
echo "$pairs" >"$OUTPUT_DIR/final_data_emerge_shard_0.json"
echo "grow $DATA_PATH depth $MAX_DEPTH $*" >>"$CALLS"
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


def started(project, **settings: str) -> subprocess.Popen:
    """A quickstart with the processes it starts in a group of their own, as a terminal has them."""
    (project / "calls").write_text("")
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "CALLS": str(project / "calls"), **settings}
    return subprocess.Popen(
        ["bash", "quickstart.sh"],
        cwd=project,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )


def quickstart(project, **settings: str) -> subprocess.CompletedProcess:
    run = started(project, **settings)
    printed, errors = run.communicate()
    return subprocess.CompletedProcess(run.args, run.returncode, printed, errors)


def calls_of(project) -> list[str]:
    """How the stand-ins were called in the last run."""
    return (project / "calls").read_text().splitlines()


def test_what_is_chosen_for_is_of_databases_that_are_not_trained_on(project):
    before = {path.name for path in project.iterdir()}
    run = quickstart(project)
    assert run.returncode == 0, run.stderr
    after = {path.name for path in project.iterdir()}
    assert after == before | {"output", "calls"}  # nothing lies where real results do

    folder = "output/quickstart"
    (merge_call,) = [call for call in calls_of(project) if "merge_shards" in call]
    test_dbs = merge_call.split()[-1].split(",")
    sizes = Counter(row["db_id"] for row in json.loads((project / "data" / "demo" / "train.json").read_text()))
    assert "orchard" in test_dbs and sizes.keys() > set(test_dbs)
    (grown,) = [call for call in calls_of(project) if call.startswith("grow")]
    each = int(grown.split()[-1]) // len(sizes)
    assert sum(min(each, sizes[db_id]) for db_id in test_dbs) >= 50
    assert json.loads((project / folder / "test_trees.json").read_text()) == [{"db_id": "orchard"}]
    (train_call,) = [call for call in calls_of(project) if call.startswith("train.py")]
    (evaluate_call,) = [call for call in calls_of(project) if call.startswith("evaluate.py")]
    assert f"{folder}/final_data_train.json" in train_call and f"{folder}/final_data_test.json" in evaluate_call
    assert f"--candidates {folder}/test_trees.json" in evaluate_call
    (picture,) = [call for call in calls_of(project) if call.startswith("chromium")]
    assert picture.endswith(f"{folder}/trees.html#tree=db/1/node_2_0")
    assert run.stdout.splitlines()[-1].startswith("    python add_question_id.py && MODEL_PATH=")


def test_a_second_quickstart_beside_the_first_is_refused(project):
    (project / "output").mkdir()
    with (project / "output" / ".quickstart.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        run = quickstart(project)
    assert run.returncode == 2 and run.stderr.startswith("error: another quickstart") and not calls_of(project)
    assert quickstart(project).returncode == 0


def test_ctrl_c_is_no_failure_of_a_stage(project):
    (project / "wait").touch()
    run = started(project)
    while not any(call.startswith("train.py") for call in calls_of(project)):
        time.sleep(0.05)
        assert run.poll() is None
    os.killpg(run.pid, signal.SIGINT)
    errors = run.communicate()[1]
    assert run.returncode == 130 and "interrupted: what is finished is kept" in errors and "failed" not in errors


def test_a_quickstart_that_was_stopped_goes_on_or_begins_anew(project):
    (project / "stop").touch()
    run = quickstart(project)
    assert (
        run.returncode == 1
        and "(step 5, train) failed" in run.stderr
        and not any("evaluate.py" in call for call in calls_of(project))
    )
    mark = project / "output" / "quickstart" / "mark"
    mark.touch()

    (project / "stop").unlink()
    run = quickstart(project)
    assert run.returncode == 0 and mark.exists() and "begins anew" not in run.stdout

    run = quickstart(project, LIMIT="18", MAX_STEPS="4")
    assert run.returncode == 0 and "begins anew" in run.stdout and not mark.exists()
    (aside,) = (project / "output").glob("quickstart-*")
    assert (aside / "mark").exists()  # kept
    calls = "\n".join(calls_of(project))
    assert "train.json depth 2 --limit 18" in calls and "--max_steps 4 " in calls and "fresh" not in calls
    assert "--test_dbs orchard\n" in calls  # the only one that has pairs
