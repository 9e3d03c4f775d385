"""Whole files or none, and the one-line errors."""

import os
import subprocess

import pytest

from common.files import (
    InputError,
    check_writable,
    read_json,
    remove_leftovers,
    replacing,
    replacing_together,
    write_json,
    write_json_list,
)
from tests.conftest import ROOT, assert_one_line_error, run_script


def test_an_interrupted_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "result.json"
    write_json(path, {"old": 1})
    with pytest.raises(RuntimeError), replacing(path) as file:
        file.write('{"half":')
        raise RuntimeError
    assert read_json(path, dict) == {"old": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["result.json"]


def test_a_file_keeps_its_mode_and_a_new_one_has_the_users(tmp_path):
    path = tmp_path / "folder" / "result.json"
    mask = os.umask(0o027)
    try:
        write_json(path, 1)
        assert path.stat().st_mode & 0o777 == 0o640
        path.chmod(0o600)
        write_json(path, 2)
        assert path.stat().st_mode & 0o777 == 0o600
    finally:
        os.umask(mask)


def test_whether_a_file_can_be_written_is_asked_without_a_trace(tmp_path):
    check_writable(tmp_path / "a.json", tmp_path / "folder" / "b.json")
    assert [path.name for path in tmp_path.rglob("*")] == ["folder"]
    (tmp_path / "a.json").mkdir()
    for path in (tmp_path / "a.json", "/dev/null/b.json", tmp_path / ("x" * 300)):
        with pytest.raises(InputError, match="cannot be written"):
            check_writable(path)


def test_a_full_disk_leaves_the_old_file(tmp_path):
    path = tmp_path / "result.json"
    write_json_list(path, [1])
    program = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))\n"
        "from common.files import write_json_list\n"
        f"write_json_list({str(path)!r}, ['x' * 1000] * 100)"
    )
    run = run_script("-c", program)
    assert "InputError" in run.stderr and "result.json: cannot be written (File too large); make room" in run.stderr
    assert read_json(path, list) == [1]
    assert [entry.name for entry in tmp_path.iterdir()] == ["result.json"]


def test_leftovers_of_a_killed_process_go_and_nothing_else(tmp_path):
    for name in (".a[1].json.x7_q.tmp", ".a1.json.x7_q.tmp", ".a[1].json", "a[1].json", ".b.json.x.tmp"):
        (tmp_path / name).write_text("")
    remove_leftovers(tmp_path / "a[1].json", tmp_path / "c.json")
    assert {path.name for path in tmp_path.iterdir()} == {
        ".a1.json.x7_q.tmp",
        ".a[1].json",
        "a[1].json",
        ".b.json.x.tmp",
    }


def test_a_picture_is_whole_or_the_old_one(tmp_path):
    path = tmp_path / "curve.png"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError), replacing(path, binary=True) as file:
        file.write(b"\x89PNG")
        raise RuntimeError
    assert path.read_bytes() == b"old"
    with replacing(path, binary=True) as file:
        file.write(b"\x89PNG")
    assert path.read_bytes() == b"\x89PNG" and len(list(tmp_path.iterdir())) == 1


def test_files_are_replaced_together_or_not_at_all(tmp_path):
    one, other = tmp_path / "one.json", tmp_path / "other.json"
    write_json(one, "old")
    with pytest.raises(RuntimeError), replacing_together(one, other) as files:
        for file in files:
            file.write("new")
        raise RuntimeError
    other.mkdir()
    with pytest.raises(InputError, match="other.json: cannot be written"), replacing_together(one, other):
        pass
    assert read_json(one, str) == "old"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["one.json", "other.json"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "no such file"),
        (b"", "line 1"),
        (b"{]", "line 1 column 2"),
        (b"[]", "expected a JSON object, found list"),
        (b'{"n": "\xff"}', "not UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_broken_files_are_named(tmp_path, content, words):
    path = tmp_path / "report.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_json(path, dict)
    assert str(path) in str(caught.value) and words in str(caught.value)


HEAVY = ("torch", "vllm", "transformers", "trl", "peft", "datasets", "sqlglot", "ray", "matplotlib")
SCRIPTS = (
    "add_question_id",
    "train",
    "evaluate",
    "tree.run_pipeline",
    "tree.dpo_extractor",
    "tree.merge_shards",
    "eval",
    "eval.summary",
    "eval.execution_accuracy",
)


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_loads_nothing_heavy(script):
    program = (
        "import runpy, sys\n"
        f"sys.argv = [{script!r}, '--help']\n"
        "try:\n"
        f"    runpy.run_module({script!r}, run_name='__main__', alter_sys=True)\n"
        "except SystemExit as end:\n"
        "    assert not end.code, end.code\n"
        f"loaded = [name for name in {HEAVY} if name in sys.modules]\n"
        "assert not loaded, loaded\n"
    )
    run = run_script("-c", program)
    assert run.returncode == 0, run.stderr
    assert "usage:" in run.stdout and "--" in run.stdout


@pytest.mark.parametrize("script", ["download_model.sh", "setup_env.sh", "quickstart.sh", "run_tests.sh"])
def test_shell_scripts_parse(script):
    subprocess.run(["bash", "-n", ROOT / script], check=True)


def test_unknown_argument_of_the_download(tmp_path):
    run = run_script("download_model.sh", "--huge")
    assert_one_line_error(run, "--huge")
