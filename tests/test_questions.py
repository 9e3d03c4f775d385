"""Question ids (step 2), loading, and sharding by database."""

import json
import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import assert_one_line_error, run_script
from tree.questions import limited, shard
from tree.tree_node import Question

ROWS = [{"db_id": "a", "question": f"q{i}", "evidence": "é", "SQL": "SELECT 1"} for i in range(3)]


def add_ids(path: Path):
    return run_script("add_question_id.py", "--file", path)


def test_ids_come_first_and_a_second_run_changes_nothing(tmp_path):
    path = tmp_path / "train.json"
    path.write_text(json.dumps(ROWS))
    assert add_ids(path).returncode == 0
    rows = json.loads(path.read_text())
    assert [list(row)[0] for row in rows] == ["question_id"] * 3
    assert [row["question_id"] for row in rows] == [0, 1, 2]
    assert [{key: row[key] for key in row if key != "question_id"} for row in rows] == ROWS
    before = path.read_bytes(), path.stat().st_mtime_ns
    assert add_ids(path).returncode == 0
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before


def test_valid_ids_are_kept_and_moved_first(tmp_path):
    path = tmp_path / "train.json"
    path.write_text(json.dumps([{**row, "question_id": number} for row, number in zip(ROWS, (7, 3, 5), strict=True)]))
    assert add_ids(path).returncode == 0
    rows = json.loads(path.read_text())
    assert [list(row.items())[0] for row in rows] == [("question_id", 7), ("question_id", 3), ("question_id", 5)]


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        ((0, 1, 1), "more than once"),
        ((0, None, 2), "row 1"),
        ((0, "1", 2), "row 1"),
        ((0, -1, 2), "row 1"),
        ((0, True, 2), "row 1"),
    ],
)
def test_invalid_ids_are_refused_and_the_file_stays(tmp_path, ids, words):
    path = tmp_path / "train.json"
    path.write_text(
        json.dumps([row if i is None else {"question_id": i, **row} for i, row in zip(ids, ROWS, strict=True)])
    )
    before = path.read_bytes()
    assert_one_line_error(add_ids(path), str(path), words)
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [None, "[]", "[{]", '{"a": 1}', '[{"db_id": "a"}]'])
def test_broken_question_files(tmp_path, content):
    path = tmp_path / "train.json"
    if content is not None:
        path.write_text(content)
    assert_one_line_error(add_ids(path), str(path))


questions = st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=60).map(
    lambda names: [Question(i, db_id, "q", "", "SELECT 1") for i, db_id in enumerate(names)]
)


@given(questions, st.integers(1, 8), st.integers())
def test_shards_hold_whole_databases_each_question_once_in_any_order(rows, shards, seed):
    parts = [shard(rows, number, shards) for number in range(shards)]
    assert sorted(q.question_id for part in parts for q in part) == [q.question_id for q in rows]
    assert all(
        not {q.db_id for q in one} & {q.db_id for q in other} for one in parts for other in parts if one is not other
    )
    shuffled = random.Random(seed).sample(rows, len(rows))
    assert parts == [shard(shuffled, number, shards) for number in range(shards)]


@given(questions, st.integers(1, 60))
def test_a_limit_takes_from_every_database(rows, limit):
    kept = limited(rows, limit)
    assert len(kept) == min(limit, len(rows))
    counts, available = Counter(q.db_id for q in kept), Counter(q.db_id for q in rows)
    most = max(counts.values())
    assert all(counts[db_id] >= min(available[db_id], most - 1) for db_id in available)
