"""run_parallel.sh over two workers: they are started again, stopped together, and the table tells what came of them."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from common.files import write_json
from tests.conftest import ROOT
from tests.tree.conftest import quarantined, read, the_run
from tree.run_table import table


@pytest.fixture
def script(places, tmp_path):
    """Starts run_parallel.sh over two fake workers, in a copy of the project's folder; waits for it, or not."""
    (tmp_path / "tree").mkdir()
    shutil.copy(ROOT / "tree" / "run_parallel.sh", tmp_path / "tree")
    (tmp_path / "bin").mkdir()
    python = tmp_path / "bin" / "python"
    python.write_text(f'#!/bin/bash\nexec {sys.executable} "${{@/tree.run_pipeline/tests.fake_worker}}"\n')
    python.chmod(0o755)

    def start(*flags: str, **environment: str) -> subprocess.Popen:
        named = {"DATA_PATH": places[1], "DB_ROOT": places[3], "MODEL_PATH": places[5], "OUTPUT_DIR": "out"}
        fixed = {"PATH": f"{python.parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "NUM_GPUS": "0"}
        return subprocess.Popen(
            ["bash", "tree/run_parallel.sh", *flags],
            cwd=tmp_path,
            env={**os.environ, **named, **fixed, "NUM_WORKERS": "2", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


def processes_in(folder: Path) -> list[str]:
    """Processes whose working directory is the folder: the script, its workers, and their workers."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cwd"):
        with contextlib.suppress(OSError):
            if path.resolve(strict=True) == folder:
                found.append((path.parent / "cmdline").read_text())
    return found


def test_a_dead_worker_is_started_again_and_the_table_tells(script, tmp_path):
    """The killer is in shard 0; the other shard goes on."""
    run = script("--fresh", CRASH_ON="Number 4:")
    printed, errors = run.communicate()
    assert run.returncode == 0, errors
    assert errors.count("warning: shard 0 died with exit code 139; start") == 2 and "shard 1 died" not in errors
    head, *rows = printed[printed.index("shard  questions") :].splitlines()[:3]
    assert head.split()[:4] == ["shard", "questions", "good", "bad"]
    cells = [row.split() for row in rows]
    assert [row[:2] for row in cells] == [["0", "10"], ["1", "10"]] and [row[8] for row in cells] == ["1", "0"]
    assert quarantined(tmp_path / "out").keys() == {4}
    pairs = sum(len(read(tmp_path / "out" / f"final_data_emerge_shard_{shard}.json")) for shard in (0, 1))
    assert pairs == sum(int(row[4]) for row in cells)


def test_the_table_tells_what_is_unfinished_and_what_is_missing(whole, tmp_path):
    content = read(the_run(whole) / "manifest.json")
    content["arguments"]["num_shards"] = 3
    ended = content | {"started": "2026-01-01T23:00:00+0000", "ended": "2026-01-02T01:00:30+0000"}
    begun = {key: value for key, value in content.items() if key not in ("ended", "counts")}
    for shard, manifest in ((0, ended), (1, begun), (7, ended)):
        folder = tmp_path / "tree_dataset" / f"part{shard}" / "20260101_230000"
        folder.mkdir(parents=True)
        write_json(folder / "manifest.json", manifest)
        shutil.copy(the_run(whole) / "trees.jsonl", folder)
    cells = [re.split("  +", line.strip()) for line in table(str(tmp_path))]
    assert [len(row) for row in cells] == [10] * 4
    assert cells[1][:2] == ["0", "20"] and cells[1][-1] == "2:00:30"
    assert cells[2] == ["1", "20", *"-------", "unfinished"]
    assert cells[3] == ["2", *"--------", "not begun"]


def test_restarts_are_bounded(script, tmp_path):
    run = script(RESTARTS="1", KILL_AT="2")  # never gets as far as its first question
    printed, errors = run.communicate()
    assert run.returncode == 1
    assert errors.count("died with exit code 137; start 1 of 1 more") == 2
    assert "error: 2 of 2 shards failed: 0 1; the same command resumes with what is missing" in errors


def test_why_an_engine_died_is_told_at_the_end(script):
    run = script(RESTARTS="0", ENGINE_DIES_ON="Number 4:")  # which is in shard 0
    errors = run.communicate()[1]
    assert run.returncode == 1
    told = errors[errors.index("error: shard 0 failed with exit code 1") :]
    assert "error: the engine died; vLLM's messages above may say why" in told
    assert "ERROR 01-01 10:00:00 [core.py:9] RuntimeError: no more memory" in told and "shard 1 failed" not in errors


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopping_stops_all_at_once_and_says_how_to_resume(script, whole, tmp_path, number):
    run = script(REPLY_SECONDS="1")
    while len(list((tmp_path / "out").glob("tree_dataset/part*/*/manifest.json"))) < 2:
        assert run.poll() is None
    assert len(processes_in(tmp_path)) > 3
    second = script()
    _, errors = second.communicate()
    assert second.returncode == 2 and "error: another run_parallel.sh writes to out" in errors
    run.send_signal(number)
    _, errors = run.communicate(timeout=20)
    assert run.returncode == 130
    assert "stopping 2 worker(s)" in errors and "to resume, run the same command again" in errors
    assert processes_in(tmp_path) == []
    last = script()
    last.communicate()
    assert last.returncode == 0
    trees = [tree for shard in (0, 1) for tree in read(the_run(tmp_path / "out", shard) / "all_trees.json")]
    assert trees == read(the_run(whole) / "all_trees.json")
