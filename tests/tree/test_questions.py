"""Question ids (step 2), loading, and sharding by database."""

import json
import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.files import InputError
from tests.conftest import assert_one_line_error, run_main
from tree.questions import by_database, estimated_cost, limited, load_questions, shards
from tree.tree_node import Question

ROWS = [{"db_id": "a", "question": f"q{i}", "evidence": "é", "SQL": "SELECT 1"} for i in range(3)]


def add_ids(path: Path):
    return run_main("add_question_id", "--file", path)


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
        ((0, 1, 1), "is duplicated"),
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


def test_ids_that_pandas_made_floats_become_whole_and_nan_is_no_id(tmp_path):
    path = tmp_path / "train.json"
    path.write_text(
        json.dumps([{"question_id": number, **row} for number, row in zip((2.0, 1.0, 0.0), ROWS, strict=True)])
    )
    assert add_ids(path).returncode == 0
    assert [repr(row["question_id"]) for row in json.loads(path.read_text())] == ["2", "1", "0"]
    path.write_text(json.dumps([{**row, "question_id": float("nan"), "evidence": float("nan")} for row in ROWS]))
    assert add_ids(path).returncode == 0
    rows = json.loads(path.read_text())
    assert [(row["question_id"], row["evidence"]) for row in rows] == [(0, None), (1, None), (2, None)]
    assert [question.evidence for question in load_questions(path, with_gold=False)] == ["", "", ""]


def test_json_lines_stay_json_lines(tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_text("\n".join(map(json.dumps, ROWS)))
    assert add_ids(path).returncode == 0
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert rows == [{"question_id": number, **row} for number, row in enumerate(ROWS)]
    assert [question.question_id for question in load_questions(path)] == [0, 1, 2]


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"question_id": None}, "row 1 has no question_id; run `python add_question_id.py"),
        ({"question_id": float("nan")}, "row 1 has no question_id; run `python add_question_id.py"),
        *(({"question_id": wrong}, "row 1: 'question_id' ") for wrong in ("1", [1], True, 1.5, 2**64)),
        *(({"db_id": wrong}, "row 1: 'db_id' is ") for wrong in (None, 3, ["a"])),
        *(({"SQL": wrong}, "row 1: 'SQL' is ") for wrong in (None, float("nan"), [])),
        *(({"evidence": wrong}, "row 1: 'evidence' is ") for wrong in (1, ["e"], False)),
        *(({"difficulty": wrong}, "row 1: 'difficulty' is ") for wrong in (1, ["hard"])),
        *(({name: "half \ud83d"}, f"row 1: '{name}' holds half of a surrogate pair") for name in ("question", "SQL")),
        ({"question": " "}, "row 1 (question_id 1): 'question' is empty"),
        ({"question_id": 0}, "question_id 0 is duplicated"),
    ],
)
def test_rows_that_are_no_question_are_named(tmp_path, columns, words):
    path = tmp_path / "train.json"
    rows = [{"question_id": number, **row} for number, row in enumerate(ROWS)]
    path.write_text(json.dumps([rows[0], rows[1] | columns, rows[2]]))
    with pytest.raises(InputError) as caught:
        load_questions(path)
    assert f"{path}: {words}" in str(caught.value)


questions = st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(1, 300)), min_size=1, max_size=60).map(
    lambda rows: [Question(i, db_id, "q", "", "x" * length) for i, (db_id, length) in enumerate(rows)]
)


@given(questions, st.integers(1, 8), st.integers())
def test_shards_hold_each_question_once_in_any_order(rows, number, seed):
    parts = shards(rows, number)
    assert sorted(q.question_id for part in parts for q in part) == [q.question_id for q in rows]
    assert all(part == by_database(part) for part in parts)
    share = sum(map(estimated_cost, rows)) / number
    assert all(parts) or any(estimated_cost(q) > share for q in rows)
    assert parts == shards(random.Random(seed).sample(rows, len(rows)), number)


@given(questions, st.integers(1, 8))
def test_only_a_database_that_exceeds_a_share_is_cut(rows, number):
    share = sum(map(estimated_cost, rows)) / number
    places = Counter(db_id for part in shards(rows, number) for db_id in {q.db_id for q in part})
    for db_id, pieces in places.items():
        cost = sum(estimated_cost(q) for q in rows if q.db_id == db_id)
        assert pieces == 1 or cost > share


@given(questions, st.integers(1, 8))
def test_shards_are_balanced(rows, number):
    """No shard exceeds its share by more than the largest piece, a share and one question."""
    share = sum(map(estimated_cost, rows)) / number
    loads = [sum(map(estimated_cost, part)) for part in shards(rows, number)]
    assert max(loads) <= 2 * share + 2 * max(map(estimated_cost, rows))


@given(questions, st.integers(1, 60))
def test_a_limit_takes_from_every_database(rows, limit):
    kept = limited(rows, limit)
    assert len(kept) == min(limit, len(rows))
    counts, available = Counter(q.db_id for q in kept), Counter(q.db_id for q in rows)
    most = max(counts.values())
    assert all(counts[db_id] >= min(available[db_id], most - 1) for db_id in available)
