"""Execution accuracy of predictions: both formats, every question counted, every mistake in the files named."""

import asyncio
import json
from pathlib import Path

import pytest

from eval.execution_accuracy import SEPARATOR, Prediction, read_predictions, score
from tests.conftest import assert_one_line_error, run_main
from tree import sql_utils
from tree.sql_utils import SqlSettings
from tree.tree_node import Question

TOOLS, EMPTY = "SELECT name FROM product WHERE category = 'tool'", "SELECT name FROM product WHERE id > 9"


@pytest.fixture
def questions(dataset) -> list[dict]:
    """Six questions on shop and store with BIRD's difficulties."""
    levels = ["challenging", "simple", "moderate"] * 2
    rows = [{**row, "difficulty": level} for row, level in zip(json.loads(dataset.read_text()), levels, strict=True)]
    dataset.write_text(json.dumps(rows))
    return rows


def set_gold(tmp_path: Path, questions: list[dict], number: int, sql: str) -> None:
    questions[number]["SQL"] = sql
    (tmp_path / "train.json").write_text(json.dumps(questions))


def gold(questions: list[dict]) -> dict[int, str]:
    return {row["question_id"]: row["SQL"] for row in questions}


def in_bird(questions: list[dict], predicted: dict[int, str]) -> dict[str, str]:
    db_ids = {row["question_id"]: row["db_id"] for row in questions}
    return {str(number): f"{sql}{SEPARATOR}{db_ids[number]}" for number, sql in predicted.items()}


def evaluate(tmp_path: Path, predictions: dict | list | str):
    path = tmp_path / "predict.json"
    path.write_text(predictions if isinstance(predictions, str) else json.dumps(predictions))
    return run_main(
        *("eval.execution_accuracy", "--predictions", path, "--questions", tmp_path / "train.json"),
        *("--db_root", tmp_path / "databases", "--output", tmp_path / "report.json", "--sql_workers", "1"),
    )


def report_of(tmp_path: Path, predictions: dict | list) -> tuple[dict, str]:
    """The report and what was printed, of a run that ends well."""
    run = evaluate(tmp_path, predictions)
    assert run.returncode == 0, run.stdout + run.stderr
    return json.loads((tmp_path / "report.json").read_text()), run.stdout


def without_times(report: dict) -> dict:
    rows = [{key: value for key, value in row.items() if key != "seconds"} for row in report["questions"]]
    return {"totals": report["totals"], "questions": rows}


def test_gold_scores_everything_in_either_format_and_any_order(tmp_path, questions):
    predicted = gold(questions)
    report, printed = report_of(tmp_path, in_bird(questions, predicted))
    totals = report["totals"]
    assert totals["questions"] == totals["ex"]["count"] == totals["strict"]["count"] == 6
    assert totals["ex"]["share"] == totals["strict"]["share"] == totals["ex"]["high"] == 1
    assert totals["outcomes"] == {"ok": 6} and totals["gold_fails"] == []
    assert list(totals["by_difficulty"]) == ["simple", "moderate", "challenging"]
    assert {name: group["questions"] for name, group in totals["by_database"].items()} == {"shop": 3, "store": 3}
    assert report["manifest"]["counts"] == {"questions": 6, "gold_fails": 0}
    assert "100.00 [ 60.97, 100.00]" in printed and "database store" in printed and "ok 6" in printed

    others = {
        "bird reversed": dict(reversed(in_bird(questions, predicted).items())),
        "bird without database": {str(number): sql for number, sql in predicted.items()},
        "list reversed": [{"question_id": number, "SQL": sql} for number, sql in reversed(predicted.items())],
        "the question file itself": questions,
    }
    for name, predictions in others.items():
        assert without_times(report_of(tmp_path, predictions)[0]) == without_times(report), name


def test_wrong_predictions_each_in_its_own_way(tmp_path, questions):
    set_gold(tmp_path, questions, 3, "SELECT nme FROM product")
    predicted = {
        0: "SELECT 4",
        1: f"{TOOLS} UNION ALL {TOOLS}",  # the same set, not the same multiset
        2: "SELECT",
        3: "SELECT nme FROM product",
        4: "  ",
        5: "DELETE FROM product",
    }
    report, printed = report_of(tmp_path, in_bird(questions, predicted))
    rows = [(row["question_id"], row["ex"], row["strict"], row["outcome"]) for row in report["questions"]]
    outcomes = ["ok", "ok", "error", "error", "no_sql", "denied"]
    assert rows == [(number, int(number == 1), 0, outcome) for number, outcome in enumerate(outcomes)]
    assert report["questions"][0]["flags"] == ["constant"] and report["questions"][0]["db_id"] == "shop"
    totals = report["totals"]
    assert (totals["ex"]["count"], totals["strict"]["count"]) == (1, 0)
    assert totals["outcomes"] == {"ok": 2, "error": 2, "no_sql": 1, "denied": 1}
    assert totals["by_database"]["shop"]["ex"]["share"] == pytest.approx(1 / 3)
    assert totals["by_difficulty"]["simple"]["ex"]["share"] == 0.5
    assert totals["gold_fails"] == [3]
    assert "gold of question 3 (store) fails" in printed and "no such column: nme" in printed


def test_failing_gold_is_listed_and_the_rest_of_gold_scores(tmp_path, questions):
    set_gold(tmp_path, questions, 4, "SELECT FROM")
    report, printed = report_of(tmp_path, questions)
    assert [row["ex"] for row in report["questions"]] == [1, 1, 1, 1, 0, 1]
    assert report["totals"]["gold_fails"] == [4] and printed.count("fails, counted as 0") == 1


def test_empty_gold_is_matched_by_an_empty_result_only(tmp_path, questions):
    for number in range(5):
        set_gold(tmp_path, questions, number, EMPTY)
    predicted = {0: 'SELECT day FROM "order" WHERE 1 = 2', 1: ";", 2: "SELECT nme", 3: "", 4: "SELECT 1"}
    report, _ = report_of(tmp_path, in_bird(questions, {**predicted, 5: questions[5]["SQL"]}))
    assert [row["ex"] for row in report["questions"]] == [1, 0, 0, 0, 0, 1]
    assert [row["outcome"] for row in report["questions"][:5]] == ["empty", "not_a_query", "error", "no_sql", "ok"]
    assert "both_empty" in report["questions"][0]["flags"] and report["totals"]["gold_fails"] == []


def test_questions_without_difficulty_make_no_group_of_it(tmp_path, dataset):
    report, printed = report_of(tmp_path, json.loads(dataset.read_text()))
    assert report["totals"]["by_difficulty"] == {} and "difficulty" not in printed


def test_gold_that_loses_its_worker_is_listed_too(shop, monkeypatch):
    monkeypatch.setattr(sql_utils, "KILL_AFTER", 0.5)
    monkeypatch.setenv("RESQLVER_CACHE", str(shop.parent / "cache"))
    hang = "SELECT replace(hex(zeroblob(7900000)), '0', 'a') GLOB '*" + "a" * 40_000 + "b'"  # one step of many seconds
    settings = SqlSettings(workers=1, timeout=0.3)
    questions = [Question(number, "shop", "q", "", gold) for number, gold in enumerate([hang, "SELECT 1"])]
    for sql, outcome in (("SELECT 1", "ok"), (hang, "timeout")):
        lost, well = asyncio.run(score(questions, [sql, "SELECT 1"], shop.parent.parent, settings))
        assert (lost.verdict.ex, lost.verdict.execution.outcome, lost.gold_failure) == (
            False,
            outcome,
            "timeout (stopped with its worker)",
        )
        assert (well.verdict.ex, well.gold_failure) == (True, "")


def test_json_lines_are_a_list_and_one_object_is_birds_format(tmp_path):
    path = tmp_path / "predictions.jsonl"
    path.write_text('{"question_id": 3.0, "SQL": "SELECT 1", "db_id": null}\n{"question_id": 4, "SQL": ""}\n')
    assert read_predictions(str(path)) == [Prediction(3, "SELECT 1", None), Prediction(4, "", None)]
    path.write_text('{"question_id": 3, "SQL": "SELECT 1"}')
    assert read_predictions(str(path)) == [Prediction(3, "SELECT 1", None)]
    path.write_text('{\n"3": "SELECT 1"\n}')
    assert read_predictions(str(path)) == [Prediction(3, "SELECT 1", None)]


RIGHT = {str(number): "SELECT 1" for number in range(6)}
ROWS = [{"question_id": number, "SQL": "SELECT 1"} for number in range(6)]


@pytest.mark.parametrize(
    ("predictions", "words"),
    [
        ({}, ["no prediction for question_id 0 and 5 more"]),
        (ROWS[:4] + ROWS[5:], ["no prediction for question_id 4;"]),
        ({**RIGHT, "17": "SELECT 1"}, ["question_id 17", "not in the question file"]),
        ([*ROWS, ROWS[2]], ["question_id 2", "is duplicated"]),
        ('{"0": "SELECT 1", "1": "SELECT 1", "0": "SELECT 2"}', ["'0'", "is duplicated"]),
        ({**RIGHT, "02": "SELECT 1"}, ["question_id 2", "is duplicated"]),
        ({**RIGHT, "5": f"SELECT 1{SEPARATOR}shop"}, ["question_id 5", "'shop'", "'store'"]),
        ({**RIGHT, "first": "SELECT 1"}, ["'first'", "not a question id"]),
        ({**RIGHT, "3": None}, ["question_id 3", "NoneType"]),
        ([{"question_id": "0", "SQL": "SELECT 1"}], ["row 0", "'question_id' is str"]),
        ([{"question_id": 0, "sql": "SELECT 1"}], ["row 0 has no 'SQL'"]),
        ([{"question_id": 0, "SQL": None}], ["row 0: 'SQL' is null"]),
        ([{"question_id": 0, "SQL": "SELECT 1", "db_id": 3}], ["row 0: 'db_id' is int"]),
        ({**RIGHT, "3": "half \ud83d"}, ["'3' holds half of a surrogate pair"]),
        ('{"question_id": 0, "SQL": "SELECT 1"}\n{"question_id": 1}', ["row 1 has no 'SQL'"]),
    ],
)
def test_wrong_predictions_files_are_refused(tmp_path, dataset, predictions, words):
    assert_one_line_error(evaluate(tmp_path, predictions), str(tmp_path / "predict.json"), *words)
    assert not (tmp_path / "report.json").exists()


def test_questions_without_ids_are_refused(tmp_path, questions):
    (tmp_path / "train.json").write_text(json.dumps([{"db_id": "shop", "question": "q", "SQL": "SELECT 1"}]))
    assert_one_line_error(evaluate(tmp_path, questions), "train.json", "question_id")
    assert not (tmp_path / "report.json").exists()
