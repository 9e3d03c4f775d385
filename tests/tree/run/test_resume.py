"""Killed anywhere, resumed anywhere: one shard with its files, its databases, its log and its locks."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from common.locks import alone_in, among_as_many
from tests.conftest import ROOT, assert_one_line_error, make_database
from tests.fake_worker import in_child, kill_at
from tests.tree.conftest import COUNT, RESULTS, quarantined, read, results, the_run, worker, worker_process
from tree import run_pipeline
from tree.run.run_folder import make_run_folder

KILLS = 16

# --- equivalence ----------------------------------------------------------------------------------------------------


def killed_after(seconds: float, places, output: Path) -> int:
    """Exit code of a worker whose whole group is killed after some seconds, unless it has ended before."""
    command = [sys.executable, "-m", "tests.fake_worker", *places, "--output_dir", str(output)]
    process = subprocess.Popen(
        command, cwd=ROOT, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return process.wait()


def test_killed_anywhere_and_continued_it_ends_the_same(places, whole, tmp_path):
    """Half of the kills come at any time, half around a moment at which something becomes durable."""
    drawn, deaths, output, continued, code = random.Random(0), 0, tmp_path / "0", [], None
    while deaths < KILLS or code:
        if deaths >= KILLS:
            code = worker(places, output).returncode
        elif deaths % 2:
            code = killed_after(drawn.uniform(0.2, 1.2), places, output)
        else:
            code = worker(places, output, KILL_AT=str(drawn.randrange(1, 7))).returncode
        assert code in (0, -signal.SIGKILL)
        deaths += code != 0
        if not code:  # it got through; the next kills are for another run
            assert results(output) == results(whole)
            manifest, undisturbed = (read(the_run(place) / "manifest.json") for place in (output, whole))
            for name in ("trees", "good", "nodes", "emerge_pairs", "skipped_questions"):
                assert manifest["counts"][name] == undisturbed["counts"][name]
            assert not list(output.rglob("*.tmp"))
            continued.append(manifest.get("continued", 0))
            output = tmp_path / str(len(continued))
    assert max(continued) > 3


def test_killed_at_every_moment_of_the_final_writing_it_ends_the_same(places, whole, tmp_path):
    """all_trees.json and two pair files together, their manifests, and the run's."""
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    files = [the_run(tmp_path) / "all_trees.json", *map(tmp_path.joinpath, RESULTS)]

    def write_and_die() -> None:
        kill_at(moments)
        run_pipeline.main([*places, "--output_dir", str(tmp_path)])
        os._exit(0)

    moments, code = 0, signal.SIGKILL
    while code:
        assert code == signal.SIGKILL
        moments += 1
        for path in files:
            path.unlink(missing_ok=True)
        code = in_child(write_and_die)
        for path, expected in zip(files, results(whole), strict=True):
            assert not path.exists() or path.read_bytes() == expected
    assert moments > 6 * 2  # each of six files is synced and renamed
    assert results(tmp_path) == results(whole)
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_full_disk_keeps_the_old_files_and_says_so(places, whole, tmp_path):
    full = worker(places, tmp_path, FILE_SIZE="100000")
    assert_one_line_error(full, "trees.jsonl: cannot be written (File too large)", "run the same command again")
    assert not list(tmp_path.glob("final_data_*"))
    assert worker(places, tmp_path).returncode == 0
    assert results(tmp_path) == results(whole)
    # written again from the journal, with less room than the trees take
    (the_run(tmp_path) / "all_trees.json").write_text("old")
    full = worker(places, tmp_path, FILE_SIZE="100000")
    assert_one_line_error(full, "all_trees.json, ", "cannot be written (File too large)", "make room")
    assert (the_run(tmp_path) / "all_trees.json").read_text() == "old"
    assert not list(tmp_path.rglob("*.tmp"))


# --- which run is continued -----------------------------------------------------------------------------------------


def test_settings_decide_what_is_continued(places, tmp_path):
    killed = worker(places, tmp_path, KILL_AT="9")
    assert killed.returncode == -signal.SIGKILL
    folder = the_run(tmp_path)
    other = worker(places, tmp_path, "--seed", "1", "--max_depth", "2")
    assert_one_line_error(other, f"{folder} holds an unfinished run with other settings", "--fresh")
    assert "\n  max_depth: 3 -> 2\n" in other.stderr and "\n  seed: 0 -> 1\n" in other.stderr
    fresh = worker(places, tmp_path, "--seed", "1", "--fresh")
    assert fresh.returncode == 0, fresh.stderr
    # the newest run is finished, the older one has these settings; what only changes the speed may differ
    content = read(folder / "manifest.json")
    content["git_revision"] = "a1"
    (folder / "manifest.json").write_text(json.dumps(content))
    again = worker(places, tmp_path, "--sql_workers", "2")
    assert again.returncode == 0, again.stderr
    assert f"warning: {folder} was begun with other code (git_revision: a1 -> " in again.stdout
    (left,) = re.findall(r"20 questions, (\d+) of them left to work on", again.stdout)
    assert 10 < int(left) < 20
    manifest = read(folder / "manifest.json")
    assert manifest["ended"] and manifest["earlier_code"][0]["git_revision"] == "a1"
    # finished now: nothing is grown again, its pairs are counted anew, and settings that no run has begin a new one
    counts = {name: count for name, count in manifest["counts"].items() if not name.startswith("emerge")}
    (folder / "manifest.json").write_text(json.dumps(manifest | {"counts": counts}))
    assert "nothing is grown" in worker(places, tmp_path).stdout
    assert read(folder / "manifest.json")["counts"] == manifest["counts"]
    assert "starting the engine" in worker(places, tmp_path, "--seed", "2").stdout


def test_without_gold_a_killed_run_goes_on_too(places, tmp_path):
    flags = ("--no_gold", "--max_depth", "1")
    assert worker(places, tmp_path / "whole", *flags).returncode == 0
    for _ in range(2):
        assert worker(places, tmp_path / "killed", *flags, KILL_AT="8").returncode == -signal.SIGKILL
    assert worker(places, tmp_path / "killed", *flags).returncode == 0
    one, other = (the_run(tmp_path / name) for name in ("whole", "killed"))
    assert (one / "candidates.json").read_bytes() == (other / "candidates.json").read_bytes()
    assert read(other / "manifest.json")["counts"]["candidates"] == 2 * COUNT * 8


# --- the databases of a run -----------------------------------------------------------------------------------------


@pytest.fixture
def moved(places, tmp_path) -> tuple[list[str], Path]:
    """The flags with a copy of the databases, and its folder."""
    folder = shutil.copytree(places[3], tmp_path / "moved")
    return [*places[:3], str(folder), *places[4:]], folder


def rename_saw(folder: Path) -> None:
    """Another value of the same length in the shop, whose file keeps its size and its time."""
    path = folder / "shop" / "shop.sqlite"
    before = path.stat()
    make_database(path, "UPDATE product SET name = 'axe' WHERE id = 1")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size


def describe_shop(folder: Path) -> None:
    (folder / "shop" / "database_description").mkdir()
    (folder / "shop" / "database_description" / "product.csv").write_text("original_column_name\nid\n")


@pytest.mark.parametrize("change", [rename_saw, describe_shop])
def test_a_killed_run_goes_on_with_the_same_databases_only(places, whole, moved, tmp_path, change):
    flags, folder = moved
    output = tmp_path / "out"
    assert worker(places, output, KILL_AT="9").returncode == -signal.SIGKILL
    change(folder)
    other = worker(flags, output)
    assert_one_line_error(other, f"{the_run(output)} holds an unfinished run with other databases", "--fresh")
    assert re.search(r"\n  database shop: [0-9a-f]{16} -> [0-9a-f]{16}\n$", other.stderr)
    assert worker(places, output).returncode == 0 and results(output) == results(whole)
    # finished: other databases begin a new run, these write the files again
    assert "starting the engine" in worker(flags, output, "--limit", "2").stdout
    assert "nothing is grown" in worker(places, output).stdout


def test_a_run_goes_on_where_its_databases_were_moved(places, whole, moved, tmp_path):
    output = tmp_path / "out"
    assert worker(places, output, KILL_AT="9").returncode == -signal.SIGKILL
    assert worker(moved[0], output).returncode == 0 and results(output) == results(whole)


def test_every_shard_says_what_all_databases_of_the_run_hold(places, tmp_path):
    for shard in ("0", "1"):
        run = worker(places, tmp_path, "--num_shards", "2", "--shard_id", shard)
        assert run.returncode == 0, run.stderr
    one, other = (read(the_run(tmp_path, shard) / "manifest.json")["databases"] for shard in (0, 1))
    assert one == other and one.keys() == {"shop", "store"}


def test_a_database_that_changes_under_a_run_ends_it(moved, tmp_path):
    flags, folder = moved
    output = tmp_path / "out"
    command = [sys.executable, "-m", "tests.fake_worker", *flags, "--output_dir", str(output)]
    how = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, env={**os.environ, "REPLY_SECONDS": "2"}, **how) as process:
        for line in process.stdout:
            if "questions ->" in line:  # what comes before trees is done
                rename_saw(folder)
        errors = process.stderr.read()
    assert process.returncode == 2 and "Traceback" not in errors, errors
    (line,) = [line for line in errors.splitlines() if line.startswith("error:")]
    assert "shop.sqlite: it or its descriptions changed while they were in use" in line and "--fresh" in line
    assert "axe" not in "".join(path.read_text() for path in output.rglob("trees.jsonl"))
    assert_one_line_error(run := worker(flags, output), "holds an unfinished run with other databases")
    assert "database shop: " in run.stderr


# --- questions that fail or kill ------------------------------------------------------------------------------------


def test_a_question_that_fails_twice_is_quarantined(places, whole, tmp_path):
    run = worker(places, tmp_path, FAIL_ON="Number 4:")
    assert run.returncode == 0, run.stderr
    assert quarantined(tmp_path) == {4: "failed 2 times: ValueError: this question is too hard"}
    assert "skipped question 4 (shop): failed 2 times" in run.stdout
    assert "Traceback" not in run.stderr
    others = [tree for tree in read(the_run(whole) / "all_trees.json") if tree["question_id"] != 4]
    assert read(the_run(tmp_path) / "all_trees.json") == others


def test_when_every_question_fails_it_is_an_error(places, tmp_path):
    for _ in range(2):
        run = worker(places, tmp_path, "--limit", "4", FAIL_ON="Number")
        assert_one_line_error(run, "every question failed")
    assert "ended" not in read(the_run(tmp_path) / "manifest.json")
    assert not list(tmp_path.glob("final_data_*"))


@pytest.mark.parametrize(
    ("fault", "code", "reason"),
    [
        ("CRASH_ON", -signal.SIGSEGV, "killed its worker 2 times: Fatal Python error: Segmentation fault"),
        ("ENGINE_DIES_ON", 1, "killed its worker 2 times: the engine died; vLLM's messages above may say why"),
    ],
)
def test_a_question_that_kills_its_worker_twice_is_quarantined(places, whole, tmp_path, fault, code, reason):
    faults = {fault: "Number 4:"}
    first = worker(places, tmp_path, **faults)
    assert first.returncode == code
    # a kill from outside between the two blames nobody
    assert worker(places, tmp_path, **faults, KILL_AT="6").returncode == -signal.SIGKILL
    assert worker(places, tmp_path, **faults).returncode == code
    last = worker(places, tmp_path, **faults)
    assert last.returncode == 0, last.stderr
    assert quarantined(tmp_path) == {4: reason}
    others = [tree for tree in read(the_run(whole) / "all_trees.json") if tree["question_id"] != 4]
    assert read(the_run(tmp_path) / "all_trees.json") == others


def test_a_death_of_another_cause_quarantines_nothing(places, whole, tmp_path):
    """The engine dies once; those in flight are suspects, and are all grown, alone."""
    assert worker(places, tmp_path, ENGINE_DIES_ON="Number 4:").returncode == 1
    last = worker(places, tmp_path)
    assert last.returncode == 0, last.stderr
    assert quarantined(tmp_path) == {} and results(tmp_path) == results(whole)


# --- locks ----------------------------------------------------------------------------------------------------------


def test_a_second_worker_is_refused(places, tmp_path):
    # locks are the process's, so the other worker is another process
    with alone_in(tmp_path / "tree_dataset" / "part0"), among_as_many(tmp_path / "tree_dataset", 2):
        assert_one_line_error(
            worker_process(places, tmp_path, "--num_shards", "2"), "part0", f"process {os.getpid()} on "
        )
        other_run = worker_process(places, tmp_path, "--shard_id", "1", "--num_shards", "3")
        assert_one_line_error(other_run, "a run with --num_shards 2 works here")
        beside = worker_process(places, tmp_path, "--shard_id", "1", "--num_shards", "2")
        assert beside.returncode == 0, beside.stderr
    assert worker(places, tmp_path, "--num_shards", "3").returncode == 0


def test_what_a_run_left_that_was_killed_before_it_began_is_cleared(tmp_path):
    killed = tmp_path / "20260101_120000"
    killed.mkdir()
    (killed / ".manifest.json.0123.tmp").touch()
    (killed / "notes.tmp").touch()  # is not ours
    assert make_run_folder(tmp_path) != killed
    assert [path.name for path in killed.iterdir()] == ["notes.tmp"]
