"""Whole files or none, and the one-line errors."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import ROOT, assert_one_line_error, run_script
from tree.files import (
    InputError,
    iterate_json_list,
    iterate_rows,
    read_json,
    read_rows,
    remove_leftovers,
    replacing,
    replacing_together,
    write_json,
    write_json_list,
)


def test_an_interrupted_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "result.json"
    write_json(path, {"old": 1})
    with pytest.raises(RuntimeError), replacing(path) as file:
        file.write('{"half":')
        raise RuntimeError
    assert read_json(path, dict) == {"old": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["result.json"]


def test_a_full_disk_leaves_the_old_file(tmp_path):
    path = tmp_path / "result.json"
    write_json_list(path, [1])
    program = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))\n"
        "from tree.files import write_json_list\n"
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


VALUES = st.none() | st.booleans() | st.integers(1 - 2**63, 2**63 - 1) | st.floats(allow_nan=False) | st.text()
VALUES = VALUES.filter(lambda value: value not in (float("inf"), -float("inf")))
ITEMS = st.recursive(VALUES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=5)


@given(st.lists(ITEMS))
def test_a_list_written_item_by_item_reads_back(tmp_path_factory, items):
    path = tmp_path_factory.mktemp("list") / "list.json"
    encodable = [item for item in items if _encodable(item)]
    assert write_json_list(path, iter(encodable)) == len(encodable)
    assert read_json(path, list) == encodable
    again = list(iterate_json_list(path))
    assert again == encodable and repr(again) == repr(read_json(path, list))  # 1 and 1.0 are not the same


def _encodable(item) -> bool:
    try:
        json.dumps(item, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


ROWS = [
    (b'{"a": 1}', "expected a JSON list"),
    (b"[1]", "row 0 is int"),
    (b'[{"n": 1}, {"m": 1}]', "row 1 has no 'n'"),
    (b'[{"n": "1"}]', "row 0: 'n' is str, expected int"),
    (b'[{"n": true}]', "row 0: 'n' is bool"),
    (None, "no such file"),
]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        *ROWS,
        (b"", "line 1"),
        (b"[{]", "line 1 column 3"),
        (b"[]", "empty list"),
        (b'[{"n": "\xff"}]', "not UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_broken_files_are_named_with_the_row(tmp_path, content, words):
    path = tmp_path / "rows.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_rows(path, {"n": int})
    assert str(path) in str(caught.value) and words in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        *ROWS,
        (b"", "found nothing"),
        (b"\xff\xfe[\x00", "found 'ÿ'"),
        (b'[{"n": 1}, {]', "broken JSON at row 1 ("),
        (b'[{"n": 1}, {"n": 2},', "broken JSON at row 2 ("),
        (b'[{"n": 1}] more', "broken JSON at row 1 ("),
        (b'[{"n": NaN}]', "broken JSON at row 0 ("),
        (b'[{"n": 1}, {"n": "\xff"}]', "broken JSON at row 1 (lexical error: invalid bytes in UTF8 string.)"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_broken_files_that_are_read_row_by_row_are_named_with_the_row(tmp_path, content, words):
    path = tmp_path / "rows.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        list(iterate_rows(path, {"n": int}))
    message = str(caught.value)
    assert str(path) in message and words in message and "\n" not in message


def test_one_object_in_place_of_a_list_on_request(tmp_path):
    path = tmp_path / "tree.json"
    path.write_text('\n {"nodes": {"a": [1, [2.5, null]]}, "b": {}} ')
    assert list(iterate_json_list(path, single=True)) == [{"nodes": {"a": [1, [2.5, None]]}, "b": {}}]
    path.write_text("[[1], [], 2]")
    assert list(iterate_json_list(path, single=True)) == [[1], [], 2]
    path.write_text("[]")
    assert list(iterate_json_list(path)) == []


def test_a_byte_order_mark_is_no_trouble(tmp_path):
    path = tmp_path / "rows.json"
    path.write_bytes(b'\xef\xbb\xbf[{"n": 1}]')
    assert read_rows(path, {"n": int}) == list(iterate_rows(path, {"n": int | None})) == [{"n": 1}]


HEAVY = ("torch", "vllm", "transformers", "trl", "peft", "datasets", "sqlglot", "pebble", "matplotlib")
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
    import subprocess

    subprocess.run(["bash", "-n", ROOT / script], check=True)


def test_unknown_argument_of_the_download(tmp_path):
    run = run_script("download_model.sh", "--huge")
    assert_one_line_error(run, "--huge")
