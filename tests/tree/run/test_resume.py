"""Killed anywhere, continued anywhere: one shard, its journal, its locks, and the script over several shards."""

import contextlib
import errno
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from common.files import InputError, write_json
from common.locks import alone_in, among_as_many
from tests.conftest import QUESTIONS, ROOT, assert_one_line_error, make_database, run_script
from tests.fake_worker import kill_at
from tree import run_pipeline
from tree.run.question_log import QuestionLog
from tree.run_table import table
from tree.tree_node import Question

COUNT = 10  # questions of each of two databases
KILLS = 20
RESULTS = ("final_data_emerge_shard_0.json", "final_data_baseline_shard_0.json")


def read(path: Path):
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def places(tmp_path_factory, tiny_model) -> list[str]:
    """Flags that name the questions, their databases and the model."""
    folder = tmp_path_factory.mktemp("shop")
    rows = []
    for db_id in ("shop", "store"):
        make_database(folder / "databases" / db_id / f"{db_id}.sqlite")
        for number in range(COUNT):
            question, sql = QUESTIONS[number % len(QUESTIONS)]
            text = f"Number {len(rows)}: {question}"
            rows.append({"question_id": len(rows), "db_id": db_id, "question": text, "evidence": "", "SQL": sql})
    (folder / "train.json").write_text(json.dumps(rows))
    paths = {"--data": folder / "train.json", "--db_root": folder / "databases", "--model": tiny_model}
    return [str(word) for flag in paths.items() for word in flag]


def worker(places, output: Path, *flags, **faults) -> subprocess.CompletedProcess:
    return run_script("-m", "tests.fake_worker", *places, "--output_dir", output, *flags, **faults)


@pytest.fixture(scope="module")
def whole(places, tmp_path_factory) -> Path:
    """What an undisturbed run writes."""
    output = tmp_path_factory.mktemp("whole")
    run = worker(places, output)
    assert run.returncode == 0, run.stderr
    return output


def the_run(output: Path, shard: int = 0) -> Path:
    (folder,) = (path for path in output.glob(f"tree_dataset/part{shard}/*") if path.is_dir())
    return folder


def results(output: Path) -> list[bytes]:
    return [path.read_bytes() for path in (the_run(output) / "all_trees.json", *map(output.joinpath, RESULTS))]


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
            code = killed_after(drawn.uniform(0.4, 1.4), places, output)
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
            output = tmp_path / str(deaths)
    assert max(continued) > 3


def in_child(work: Callable[[], None]) -> int:
    """How a forked process that does the work ends: 0, or the signal that killed it."""
    child = os.fork()
    if not child:
        try:
            work()
        finally:
            os._exit(99)
    return os.waitpid(child, 0)[1]


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


# --- the journal ----------------------------------------------------------------------------------------------------


def asked(*numbers: int) -> list[Question]:
    return [Question(number, "shop", "?", "", "SELECT 1") for number in numbers]


def test_a_journal_cut_anywhere_holds_what_was_whole(tmp_path):
    path = tmp_path / "trees.jsonl"
    rows = [{"question_id": number, "text": "Säge\n" * number} for number in range(3)]
    log = QuestionLog(path)
    for row in rows:
        log.finished(row)
    whole = path.read_bytes()
    ends = [index + 1 for index, byte in enumerate(whole) if byte == ord("\n")]
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        opened = QuestionLog(path)
        count = sum(end - 1 <= size for end in ends)  # one that lacks only its line end is whole
        assert list(opened.read(asked(*range(count)))) == rows[:count] and len(opened) == count
        for row in rows[count:]:
            opened.finished(row)
        assert path.read_bytes() == whole
        opened.close()


@pytest.mark.parametrize("torn", [b"\0\0\0\0", b"\xff\n", b'{"question_id": 7, "q": "\xe4\xbd', b"7", b"[]\n"])
def test_a_last_line_that_is_torn_is_cut_before_the_next(tmp_path, torn):
    path, line = tmp_path / "trees.jsonl", b'{"question_id": 5}\n'
    path.write_bytes(line + torn)
    log = QuestionLog(path)
    assert len(log) == 1
    log.finished({"question_id": 6})
    assert path.read_bytes() == line + b'{"question_id": 6}\n'


@pytest.mark.parametrize("broken", ['{"question', "{}", '{"question_id": "7"}'])
def test_a_broken_line_further_up_is_named(tmp_path, broken):
    path = tmp_path / "trees.jsonl"
    path.write_text(f'{{"question_id": 5}}\n{broken}\n{{"question_id": 6}}\n')
    with pytest.raises(InputError, match=r"trees.jsonl: line 2 is broken"):
        QuestionLog(path)
    assert path.read_text().count("\n") == 3


@contextlib.contextmanager
def failing(call: str, after: int):
    """os.write writes `after` bytes, or another call is made `after` times; from then on it fails as on a full disk."""
    true = getattr(os, call)
    left = after

    def fails(file, *data):
        nonlocal left
        if left and call == "write":
            count = true(file, data[0][:left])
            left -= count
            return count
        if left:
            left -= 1
            return true(file, *data)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, call, fails)
        yield


@pytest.mark.parametrize("can_cut", [True, False], ids=["", "cannot cut"])
@pytest.mark.parametrize(("call", "after"), [("write", 0), ("write", 1), ("write", 25), ("fsync", 0)])
def test_what_a_failed_append_left_is_cut_off_before_the_next(tmp_path, call, after, can_cut):
    """In the same process, and in the next one; also when the half line could not be cut at once."""
    path = tmp_path / "trees.jsonl"
    first, lost, again = ({"question_id": number, "question": "你好" * 9} for number in (1, 2, 3))
    log = QuestionLog(path)
    log.finished(first)
    before = path.read_bytes()
    refused = pytest.raises(InputError, match="trees.jsonl: cannot be written .No space left on device")
    with failing(call, after), failing("ftruncate", 9 if can_cut else 1), refused:
        log.finished(lost)
    left = after or 999 * (call == "fsync")
    assert len(log) == 1 and (path.read_bytes() == before) == (can_cut or not left)
    log.finished(again)
    assert list(log.read(asked(1, 3))) == [first, again]
    reopened = QuestionLog(path)
    assert 2 not in reopened and list(reopened.read(asked(1, 3))) == [first, again]


def test_what_is_torn_in_the_attempts_is_not_joined_to_the_next(tmp_path):
    log = QuestionLog(tmp_path / "trees.jsonl")
    log.start()
    log.failed(4, "not text: \udc80")
    with failing("write", 9), pytest.raises(InputError, match="attempts.jsonl: cannot be written"):
        log.failed(5, "lost")
    log.failed(4, "again")
    log.close()
    path = tmp_path / "attempts.jsonl"
    lines = path.read_bytes()
    assert [json.loads(line) for line in lines.splitlines()][1:] == [
        {"failed": 4, "reason": "not text: \udc80"},
        {"failed": 4, "reason": "again"},
    ]
    for tail in (b"", b'{"failed": 6, "reason": "\xe4\xbd', b"\0" * 9, b"[]"):
        path.write_bytes(lines + tail)
        opened = QuestionLog(tmp_path / "trees.jsonl")
        opened.start()
        assert opened.quarantined() == {4: "failed 2 times: again"}
        opened.close()
        assert path.read_bytes() == lines + b'{"start": 0}\n'
    path.write_bytes(lines[:-1])  # lacks only its line end
    assert QuestionLog(tmp_path / "trees.jsonl").quarantined() == {4: "failed 2 times: again"}


# --- which run is continued -----------------------------------------------------------------------------------------


def test_settings_decide_what_is_continued(places, tmp_path):
    killed = worker(places, tmp_path, KILL_AT="9")
    assert killed.returncode == -signal.SIGKILL
    folder = the_run(tmp_path)
    other = worker(places, tmp_path, "--seed", "1", "--max_depth", "2")
    assert_one_line_error(other, f"{folder} is unfinished", "--fresh")
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
    # finished now: nothing is grown again, and a new run is begun for settings that no run has
    assert "nothing is grown" in worker(places, tmp_path).stdout
    assert "starting the engine" in worker(places, tmp_path, "--seed", "2").stdout


def test_without_gold_a_killed_run_goes_on_too(places, tmp_path):
    flags = ("--no_gold", "--max_depth", "1")
    assert worker(places, tmp_path / "whole", *flags).returncode == 0
    for _ in range(2):
        assert worker(places, tmp_path / "killed", *flags, KILL_AT="8").returncode == -signal.SIGKILL
    assert worker(places, tmp_path / "killed", *flags).returncode == 0
    one, other = (the_run(tmp_path / name) for name in ("whole", "killed"))
    assert (one / "candidates.json").read_bytes() == (other / "candidates.json").read_bytes()
    assert read(other / "manifest.json")["counts"]["candidates"] == 2 * COUNT * 4


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
    assert_one_line_error(other, f"{the_run(output)} is unfinished", "other databases", "--fresh")
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
    assert_one_line_error(run := worker(flags, output), "is unfinished", "other databases")
    assert "database shop: " in run.stderr


# --- questions that fail or kill ------------------------------------------------------------------------------------


def quarantined(output: Path) -> dict[int, str]:
    skipped = read(the_run(output) / "manifest.json")["counts"]["skipped_questions"]
    return {entry["question_id"]: entry["reason"] for entry in skipped}


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
        ("ENGINE_DIES_ON", 1, "killed its worker 2 times: the engine died: no more memory"),
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
        assert_one_line_error(worker(places, tmp_path, "--num_shards", "2"), "part0", f"process {os.getpid()} on ")
        other_run = worker(places, tmp_path, "--shard_id", "1", "--num_shards", "3")
        assert_one_line_error(other_run, "a run with --num_shards 2 works here")
        beside = worker(places, tmp_path, "--shard_id", "1", "--num_shards", "2")
        assert beside.returncode == 0, beside.stderr
    assert worker(places, tmp_path, "--num_shards", "3").returncode == 0


# --- the script over several shards ---------------------------------------------------------------------------------


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
    assert [row[:2] for row in cells] == [["0", "10"], ["1", "10"]] and [row[6] for row in cells] == ["1", "0"]
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
    assert [len(row) for row in cells] == [8] * 4
    assert cells[1][:2] == ["0", "20"] and cells[1][-1] == "2:00:30"
    assert cells[2] == ["1", "20", *"-----", "unfinished"]
    assert cells[3] == ["2", *"------", "not begun"]


def test_restarts_are_bounded(script, tmp_path):
    run = script(RESTARTS="1", KILL_AT="2")  # never gets as far as its first question
    printed, errors = run.communicate()
    assert run.returncode == 1
    assert errors.count("died with exit code 137; start 1 of 1 more") == 2
    assert "error: 2 of 2 shards failed: 0 1; the same command goes on with what is missing" in errors


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopping_stops_all_at_once_and_says_how_to_go_on(script, whole, tmp_path, number):
    run = script(REPLY_SECONDS="1")
    while len(list((tmp_path / "out").glob("tree_dataset/part*/*/trees.jsonl"))) < 2:
        assert run.poll() is None
    assert len(processes_in(tmp_path)) > 3
    second = script()
    _, errors = second.communicate()
    assert second.returncode == 2 and "error: another run_parallel.sh writes to out" in errors
    run.send_signal(number)
    _, errors = run.communicate(timeout=20)
    assert run.returncode == 130
    assert "stopping 2 worker(s)" in errors and "to go on, run the same command again" in errors
    assert processes_in(tmp_path) == []
    last = script()
    last.communicate()
    assert last.returncode == 0
    trees = [tree for shard in (0, 1) for tree in read(the_run(tmp_path / "out", shard) / "all_trees.json")]
    assert trees == read(the_run(whole) / "all_trees.json")
